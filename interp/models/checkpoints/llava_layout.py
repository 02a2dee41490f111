"""LLaVA's original layout: language model, projector and tower with the names of the original code."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaProcessor,
    PreTrainedConfig,
)

from interp.errors import ModelError
from interp.inputs.text import count
from interp.models.checkpoints.checkpoint import Checkpoint, find_part
from interp.models.checkpoints.conversations import Conversation, image_tokenizer
from interp.models.checkpoints.layout import config_of, licence
from interp.models.checkpoints.tensors import IGNORED, Part, Rule, Tensors, read_file, read_folder
from interp.models.checkpoints.towers import Tower, clip_tower, known_clip, read_tower, vit_tower
from interp.models.modeling import LlavaS2Config, LlavaS2ForConditionalGeneration, register

__all__ = ["EMBEDDED", "OriginalLlava", "Sources", "llava_processor"]


def llava_processor(
    tokenizer: Any,
    tower: Tower,
    config: PreTrainedConfig,
    conversation: Conversation,
    *,
    pad: bool,
    scale: int = 1,
) -> LlavaProcessor:
    """Returns transformers' LLaVA processor with the original code's treatment of images and prompts.

    With padding the image lies on a square of the tower's mean colour at the offset ⌊(side − size) / 2⌋. Without it the
    shorter side is resized and the centre is cropped. Resizing is Pillow's bicubic.

    Args:
        tokenizer: The tokenizer, with an image token.
        tower: The vision tower.
        config: The LLaVA config.
        conversation: The prompt format.
        pad: Whether images are padded to a square.
        scale: The side of the image divided by the tower's side (S²); a token is that many patches wide.
    """
    side = tower.pixels * scale
    images = LlavaImageProcessorPil(
        do_pad=pad,
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=list(tower.mean),
        image_std=list(tower.std),
    )
    settings: Any = config
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=settings.vision_config.patch_size * scale,
        vision_feature_select_strategy=settings.vision_feature_select_strategy,
        num_additional_image_tokens=int(scale == 1),  # S² leaves the class token out itself
        chat_template=conversation.template,
    )


EMBEDDED = "embedded"
"""Value of `vision_tower=` that selects the tower inside a checkpoint's own files."""
_INSIDE = "model.vision_tower.vision_tower."
_PROJECTOR = "model.mm_projector."
_EMBEDDINGS = "model.embed_tokens.weight"
_LATER = ("llava_next", "anyres")


@dataclass(frozen=True, eq=False)
class Sources:
    """The files of a checkpoint.

    Attributes:
        folder: The checkpoint's folder.
        raw: The content of its config.json.
        tensors: The language model's tensors; they may include projector and tower.
        projector: The tensors of a projector in a file of its own; None without one.
        words: The tokenizer's folder.
    """

    folder: Path
    raw: Mapping[str, Any]
    tensors: Tensors
    projector: Tensors | None
    words: Path

    @property
    def inside(self) -> bool:
        """Whether the tensors include a tower."""
        return any(name.startswith(_INSIDE) for name in self.tensors.names())


class OriginalLlava(ABC):
    """LLaVA's original layout; each kind of it is a subclass that defines what differs.

    Attributes:
        name: The layout's name.
        text: The model type of the language model in transformers.
        conversation: The prompt format.
        pads: Whether images are always padded to a square; if not, the config's `image_aspect_ratio` decides.
        embedded: Whether a tower inside the files is used.
        remarks: Notes for every user.
    """

    name: ClassVar[str]
    text: ClassVar[str] = "llama"
    conversation: ClassVar[Conversation]
    pads: ClassVar[bool] = False
    embedded: ClassVar[bool] = False
    remarks: ClassVar[tuple[str, ...]] = ()

    def matches(self, folder: Path) -> bool:
        """Whether the config names its tower as LLaVA's code does and is of this kind."""
        raw = config_of(folder)
        return (
            isinstance(raw.get("mm_vision_tower"), str) and "llm_cfg" not in raw and self.claims(folder, raw)
        )

    @abstractmethod
    def claims(self, folder: Path, raw: Mapping[str, Any]) -> bool:
        """Whether a checkpoint of LLaVA's layout is of this kind."""

    def files(self, folder: Path, raw: Mapping[str, Any], *, download: bool) -> Sources:
        """Returns the files of the tensors. A projector in a separate file counts only if the shards hold none."""
        tensors = read_folder(folder)
        apart = folder / "mm_projector.bin"
        if any(name.startswith(_PROJECTOR) for name in tensors.names()) or not apart.is_file():
            return Sources(folder, raw, tensors, None, folder)
        return Sources(folder, raw, tensors, read_file(apart), folder)

    def open(
        self, folder: Path, vision_tower: str | Path | None = None, *, download: bool = False
    ) -> Checkpoint:
        """Returns the checkpoint in a folder of this kind.

        Raises:
            ModelError: A part is not available, or a setting is not supported.
        """
        raw = config_of(folder)
        _check(folder, raw)
        files = self.files(folder, raw, download=download)
        tower, notes = self._tower(files, vision_tower, download)
        scales = _scales(files, tower)
        text = _text_config(self.text, raw)
        tokenizer = image_tokenizer(files.words, text, self.conversation)
        extra = _give_row(text, tokenizer)
        text.eos_token_id = _stops(text, tokenizer, self.conversation.stop)
        config = _llava_config(raw, text, tower, tokenizer.image_token_id, scales)
        pad = self.pads or raw.get("image_aspect_ratio") == "pad"
        make = partial(llava_processor, tokenizer, tower, config, self.conversation, pad=pad)
        return Checkpoint(
            layout=self.name,
            where=str(folder),
            config=config,
            model_class=LlavaS2ForConditionalGeneration if scales else LlavaForConditionalGeneration,
            parts=_parts(files, tower, extra, scaled=bool(scales)),
            make_processor=partial(make, scale=scales[-1] // scales[0] if scales else 1),
            prompt=self.conversation.prompt,
            licence=licence(folder),
            notes=(*self.remarks, *notes, *_row_note(extra)),
            stock=not scales,
        )

    def _tower(
        self, files: Sources, given: str | Path | None, download: bool
    ) -> tuple[Tower, tuple[str, ...]]:
        """Returns the tower to use and the notes about it."""
        inside = files.inside
        if given == EMBEDDED and not inside:
            raise ModelError(
                f'vision_tower="{EMBEDDED}" asks for the tower inside the files of {files.folder}, which hold none. '
                "Leave it out, or name a folder or hub id."
            )
        own = self.embedded or files.raw.get("unfreeze_mm_vision_tower", False)
        if inside and (given == EMBEDDED or (own and given is None)):
            return self.inner_tower(files), ("The tower is the one in the checkpoint's own files.",)
        tower = self.outer_tower(files, given, download=download)
        if not inside:
            return tower, ()
        return tower, (
            f'The tower inside the checkpoint\'s files is not used; vision_tower="{EMBEDDED}" takes it.',
        )

    def inner_tower(self, files: Sources) -> Tower:
        """Returns the tower in the checkpoint's own tensors."""
        named = str(files.raw["mm_vision_tower"])
        if any(name.startswith(_INSIDE + "vit.") for name in files.tensors.names()):
            return vit_tower(files.tensors, _INSIDE + "vit.")
        for place in (files.folder / named, Path(named)):
            if (place / "config.json").is_file():
                return clip_tower(place, files.tensors, _INSIDE)
        known = known_clip(named, files.tensors, _INSIDE)
        if known is not None:
            return known
        return clip_tower(
            find_part("tower's config", named, files.folder, None, download=False), files.tensors, _INSIDE
        )

    def outer_tower(self, files: Sources, given: str | Path | None, *, download: bool) -> Tower:
        """Returns the tower outside the checkpoint's own tensors."""
        named = str(files.raw["mm_vision_tower"]).removeprefix("hf-hub:")
        return read_tower(
            find_part("vision tower", named, files.folder, given, download=download, option="vision_tower")
        )


def _check(folder: Path, raw: Mapping[str, Any]) -> None:
    """Raises `ModelError` for settings that transformers' LLaVA cannot express."""
    if str(raw.get("image_aspect_ratio")) in _LATER or str(raw.get("image_aspect_ratio")).startswith(
        "anyres"
    ):
        raise ModelError(
            f"{folder} is a LLaVA-1.6 checkpoint in its original layout (image_aspect_ratio "
            f"{raw['image_aspect_ratio']!r}), which is not read. Take a copy in "
            "transformers' layout: llava-hf/llava-v1.6-…-hf."
        )
    if raw.get("mm_projector_type", "linear") != "mlp2x_gelu":
        raise ModelError(
            f"{folder} has a projector of the type {raw.get('mm_projector_type', 'linear')!r}; transformers' LLaVA has "
            "two linear layers with a GELU between them (mlp2x_gelu). Use interp.wrap with a model of your own."
        )
    if raw.get("mm_use_im_start_end"):
        raise ModelError(
            f"{folder} marks images with start and end tokens (mm_use_im_start_end), which is not read. "
            "Take a copy in transformers' layout, or build the model yourself and use interp.wrap(hf_model, processor)."
        )


def _text_config(kind: str, raw: Mapping[str, Any]) -> Any:
    """Returns the language model's config, made from the checkpoint's config."""
    known = CONFIG_MAPPING[kind]
    words = {*known().to_dict(), "rope_theta", "rope_scaling"} - {
        "model_type",
        "architectures",
        "transformers_version",
    }
    settings = {
        name: value for name, value in raw.items() if name in words and name not in ("dtype", "torch_dtype")
    }
    try:
        return known(**settings)
    except Exception as error:  # whatever a config with wrong values raises
        raise ModelError(
            f"transformers' {known.__name__} does not take what config.json says ({type(error).__name__}: {error})."
        ) from error


def _give_row(text: Any, tokenizer: Any) -> int:
    """Adds the image token to the config; returns how many rows are appended to the two tables of tokens.

    Its id is the first free one. If the tables have more rows than there are tokens, it uses one of these rows.
    """
    extra = max(0, tokenizer.image_token_id + 1 - text.vocab_size)
    text.vocab_size += extra
    text.pad_token_id = tokenizer.pad_token_id
    return extra


def _stops(text: Any, tokenizer: Any, stop: str | None) -> list[int]:
    """Returns the ids that end an answer: the config's, the tokenizer's, the conversation's."""
    told = text.eos_token_id
    found = [*(told if isinstance(told, list) else [told]), tokenizer.eos_token_id]
    found += [] if stop is None else [tokenizer.convert_tokens_to_ids(stop)]
    return [one for one in dict.fromkeys(found) if one is not None]


def _row_note(extra: int) -> tuple[str, ...]:
    if not extra:
        return ()
    return (
        f"For the image token, {count(extra, 'row')} more: its embedding is never used, and its output row is the "
        "mean of all others, so that its logit is their mean and never the largest.",
    )


def _llava_config(
    raw: Mapping[str, Any], text: Any, tower: Tower, image_id: int, scales: Sequence[int]
) -> PreTrainedConfig:
    layer = int(raw.get("mm_vision_select_layer", -2))
    feature = raw.get("mm_vision_select_feature", "patch")
    vision: Any = tower.config
    shared: dict[str, Any] = {
        "vision_config": vision,
        "text_config": text,
        "image_token_index": image_id,
        "image_seq_length": (tower.pixels // vision.patch_size) ** 2,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": bool(raw.get("tie_word_embeddings", False)),
    }
    if scales:
        register()
        sizes: dict[str, Any] = {"scales": list(scales), "scale_feature_layer": layer}
        places: dict[str, Any] = {
            "vision_feature_layer": list(range(len(scales))),
            "vision_feature_select_strategy": "full",
        }
        return LlavaS2Config(**shared, **sizes, **places)
    strategy: Any = "default" if feature == "patch" else "full"
    return LlavaConfig(**shared, vision_feature_layer=layer, vision_feature_select_strategy=strategy)


def _scales(files: Sources, tower: Tower) -> list[int]:
    """Returns the sides of S², smallest first; empty if the projector takes the tower's own width.

    Raises:
        ModelError: The projector's width fits neither.
    """
    source = files.projector or files.tensors
    name = next((n for n in source.names() if n.endswith("mm_projector.0.weight")), None)
    vision: Any = tower.config
    if name is None:  # `check` will list it as missing
        return []
    width = int(source.meta(name).shape[1])
    sides = sorted(int(one) for one in str(files.raw.get("s2_scales", "336,672,1008")).split(","))
    if width == vision.hidden_size:
        return []
    if width == vision.hidden_size * len(sides):
        return sides
    raise ModelError(
        f"the projector in {files.folder} takes {width} numbers per token, but the tower gives {vision.hidden_size} "
        f"(or {len(sides)}× that with S²). Is vision_tower= the tower it was trained with?"
    )


def _parts(files: Sources, tower: Tower, extra: int, *, scaled: bool) -> tuple[Part, ...]:
    """Returns the checkpoint's files with their rules, the language model's first."""
    within = tower.part.tensors is files.tensors
    towers = _under_scales(tower.part.rules) if scaled else tower.part.rules
    unused: tuple[Rule, ...] = () if within else (Rule(re.escape(_INSIDE) + ".+"),)
    rules = (*IGNORED, *_projector("model."), *_language(extra), *(towers if within else unused))
    parts = [Part(files.tensors, rules)]
    if files.projector is not None:
        parts.append(Part(files.projector, _projector(r"(?:model\.)?")))
    if not within:
        parts.append(Part(tower.part.tensors, towers))
    return tuple(parts)


def _under_scales(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Returns a tower's rules for `ScalesTower`, which holds it as `tower`."""
    home = "model.vision_tower."

    def moved(to: str) -> str:
        return to.replace(home, home + "tower.")

    return tuple(
        Rule(r.pattern, moved(r.to) if isinstance(r.to, str) else tuple(map(moved, r.to)), r.change)
        for r in rules
    )


def _projector(prefix: str) -> tuple[Rule, ...]:
    home = "model.multi_modal_projector.linear_"
    return tuple(
        Rule(rf"{prefix}mm_projector\.{old}\.(weight|bias)", rf"{home}{new}.\1")
        for old, new in ((0, 1), (2, 2))
    )


def _language(extra: int) -> tuple[Rule, ...]:
    tables = (
        Rule(
            re.escape(_EMBEDDINGS),
            "model.language_model.embed_tokens.weight",
            partial(_more_rows, extra, False),
        ),
        Rule(r"lm_head\.weight", "lm_head.weight", partial(_more_rows, extra, True)),
    )
    return (
        *(tables if extra else ()),
        Rule(r"model\.(layers|embed_tokens|norm)\.(.+)", r"model.language_model.\1.\2"),
        Rule(r"lm_head\.weight", "lm_head.weight"),
        Rule(r"model\.image_newline"),  # of LLaVA-1.6's merging, which none of these kinds does
    )


def _more_rows(extra: int, mean: bool, table: Tensor) -> Sequence[Tensor]:
    """Returns the table with appended rows of zeros or of its mean."""
    row = table.float().mean(dim=0).to(table.dtype) if mean else torch.zeros_like(table[0])
    return (torch.cat([table, row.expand(extra, -1)]),)
