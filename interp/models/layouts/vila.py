"""VILA 1.5's layout (VILA-M3): language model, vision tower and projector in folders of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from interp.errors import ModelError
from interp.models.layouts.checkpoint import Checkpoint
from interp.models.layouts.layout import config_of
from interp.models.layouts.licences import licence
from interp.models.layouts.rules import IGNORED, Part, Rule
from interp.models.layouts.settings import check_settings, refuse_tower
from interp.models.layouts.tensors import read_folder
from interp.models.layouts.vila_processor import Dialogue, dialogue, make_processor, placed_tokenizer
from interp.models.own import register
from interp.models.own.vila import VilaConfig, VilaForConditionalGeneration, tokens_along

__all__ = ["Vila"]

_PARTS = ("llm", "vision_tower", "mm_projector")

_LANGUAGE = (
    *IGNORED,
    Rule(r"model\.(.+)", r"model.language_model.\1"),
    Rule(r"lm_head\.weight", "lm_head.weight"),
)
_TOWER = (
    *IGNORED,
    Rule(r"vision_model\.head\..+"),  # pools for a contrast with texts; no image token passes through it
    Rule(r"vision_model\.(.+)", r"model.vision_tower.\1"),
)
_PROJECTOR = tuple(
    Rule(rf"layers\.{place}\.(weight|bias)", rf"model.multi_modal_projector.{name}.\1")
    for place, name in ((1, "layer_norm"), (2, "linear_1"), (4, "linear_2"))
)

_KNOWN: dict[str, tuple[Any, ...]] = {
    "mm_vision_select_feature": ("cls_patch",),
    "image_aspect_ratio": ("resize", "square", None),
    "mm_use_im_start_end": (False, None),
    "s2": (False, None),
}
"""Settings of config.json that decide what is computed, and the values of them that are computed here."""


class Vila:
    """VILA 1.5 and what was tuned from it, such as MONAI's VILA-M3.

    `llm/`, `vision_tower/` and `mm_projector/` each hold a config and weights. The paths that the top config and
    the nested ones name are those of the machine that trained it; they are not looked at.
    """

    name = "VILA"

    def matches(self, folder: Path) -> bool:
        """A config.json with VILA's nested configs, and the three folders."""
        nested = {f"{part}_cfg" for part in _PARTS} <= set(config_of(folder))
        return nested and all((folder / part / "config.json").is_file() for part in _PARTS)

    def open(
        self, folder: Path, vision_tower: str | Path | None = None, *, download: bool = False
    ) -> Checkpoint:
        """The folder's checkpoint; weights are not read.

        Raises:
            ModelError: Settings under which the original computes something else than the class here.
        """
        register()
        refuse_tower(folder, vision_tower)
        raw, text = config_of(folder), config_of(folder / "llm")
        _check(folder, raw)
        tokenizer, image_token = placed_tokenizer(folder / "llm", int(text.get("vocab_size", 0)))
        spoken = dialogue(tokenizer, folder)
        text["eos_token_id"] = spoken.stops(tokenizer, text.get("eos_token_id"))
        config = _config(folder, raw, text, tokenizer.convert_tokens_to_ids(image_token))
        rules = (_LANGUAGE, _TOWER, _PROJECTOR)
        return Checkpoint(
            layout=self.name,
            where=str(folder),
            config=config,
            model_class=VilaForConditionalGeneration,
            parts=tuple(Part(read_folder(folder / n), r) for n, r in zip(_PARTS, rules, strict=True)),
            make_processor=lambda: make_processor(folder, config, tokenizer, image_token, spoken),
            prompt=spoken.prompt,
            licence=licence(folder),
            notes=_notes(spoken, image_token),
            stock=False,
        )


def _check(folder: Path, raw: Mapping[str, Any]) -> None:
    """Raise `ModelError` for settings under which the original computes something else."""
    found = [(name, raw.get(name), known) for name, known in _KNOWN.items()]
    kind = config_of(folder / "mm_projector").get("mm_projector_type")
    found.append(("mm_projector_type", kind, ("mlp_downsample",)))
    resolution, size = raw.get("vision_resolution", -1), config_of(folder / "vision_tower").get("image_size")
    found.append(
        ("vision_resolution", resolution, (-1, None, size))
    )  # else the position embeddings are stretched
    check_settings(folder, found, known="VILA 1.5 and VILA-M3")


def _config(folder: Path, raw: Mapping[str, Any], text: dict[str, Any], image_token_id: int) -> VilaConfig:
    vision = config_of(folder / "vision_tower")
    tied = bool(text.get("tie_word_embeddings", False))
    return VilaConfig(
        vision_config=_built(
            folder / "vision_tower", {**vision, "vision_use_head": False}, ("siglip_vision_model",)
        ),
        text_config=_built(
            folder / "llm", {**text, "tie_word_embeddings": tied}, ("llama", "mistral", "qwen2")
        ),
        image_token_index=image_token_id,
        image_seq_length=tokens_along(vision["image_size"], vision["patch_size"]) ** 2,
        vision_feature_layer=int(raw.get("mm_vision_select_layer", -2)),
        vision_feature_select_strategy="full",
        tie_word_embeddings=tied,
    )


def _built(folder: Path, raw: dict[str, Any], kinds: tuple[str, ...]) -> PreTrainedConfig:
    """A part's config, of one of these model types."""
    kind = raw.get("model_type")
    if kind not in kinds:
        raise ModelError(
            f"the config.json of {folder} is of the model type {kind!r}; VILA 1.5 and VILA-M3 have {kinds[0]!r} there. "
            "Is it the folder's own?"
        )
    return CONFIG_MAPPING[kind].from_dict(raw)


def _notes(spoken: Dialogue, image_token: str) -> tuple[str, ...]:
    return (
        f"The folder does not say which conversation it was tuned on; by its vocabulary it is {spoken.name!r}.",
        f"Images stand in the prompt as {image_token!r}, whose embedding is never read.",
        "The tower's pooling head is left out: no image token passes through it.",
        "Image tokens run down the columns, as in the VILA that VILA-M3 pins; VILA's later code reads the same "
        "weights row by row.",
    )
