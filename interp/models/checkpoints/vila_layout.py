"""VILA 1.5's layout (VILA-M3): language model, vision tower and projector in separate folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoImageProcessor, AutoTokenizer, PreTrainedConfig

from interp.errors import ModelError
from interp.models.checkpoints.checkpoint import Checkpoint, check_vocabulary
from interp.models.checkpoints.conversations import system_message
from interp.models.checkpoints.layout import check_settings, config_of, licence, refuse_tower
from interp.models.checkpoints.tensors import IGNORED, Part, Rule, read_folder
from interp.models.modeling import (
    VilaConfig,
    VilaForConditionalGeneration,
    VilaProcessor,
    register,
    tokens_along,
)

__all__ = ["DIALOGUES", "Dialogue", "Vila", "dialogue", "make_processor", "placed_tokenizer"]

_RESERVED = tuple(f"<|reserved_special_token_{i}|>" for i in reversed(range(251)))
"""Llama 3's unused tokens."""


@dataclass(frozen=True)
class Dialogue:
    """One of VILA's prompt formats.

    Attributes:
        name: VILA's name of the format (`conv_mode`).
        sign: A token whose presence in the vocabulary selects this format; "" for the default format.
        prompt: The whole prompt with the fields `{system}`, `<image>` and `{question}`.
        system: The default system message.
        end: The text that ends an answer.
    """

    name: str
    sign: str
    prompt: str
    system: str
    end: str

    def template(self, image_token: str) -> str:
        """Returns the chat template in Jinja: the system message, and the user's parts in their order."""
        before, rest = self.prompt.split("{system}")
        after, turn = rest.split("<image>")
        after_image, tail = turn.split("{question}")
        return (
            f"{system_message(self.system)}{{{{- {before!r} + ns.system + {after!r} -}}}}"
            "{%- for m in messages if m['role'] == 'user' -%}{%- for part in m['content'] -%}"
            f"{{{{- {image_token + after_image!r} if part['type'] == 'image' else part['text'] -}}}}"
            "{%- endfor -%}{%- endfor -%}"
            f"{{{{- {tail!r} -}}}}"
        )

    def stops(self, tokenizer: Any, stored: int | Sequence[int] | None) -> list[int]:
        """Returns the ids that end an answer: the format's own and then those of the language model's config."""
        more = [stored] if isinstance(stored, int) else list(stored or ())
        return list(dict.fromkeys([tokenizer.convert_tokens_to_ids(self.end), *more]))


DIALOGUES: tuple[Dialogue, ...] = (
    Dialogue(
        "llama_3",
        "<|start_header_id|>",
        # The original writes the first token and its tokenizer puts another in front: the model was tuned on two.
        "<|begin_of_text|><|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n<image>\n{question}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
        "provides, and assist the user with a variety of tasks using natural language.",
        "<|eot_id|>",
    ),
    Dialogue(
        "v1",
        "",
        # The original tokenises what follows an image by itself, and a Llama tokenizer puts a blank in front of it.
        "{system} USER: <image> \n{question} ASSISTANT:",
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions.",
        "</s>",
    ),
)
"""The prompt formats of VILA-M3's repository: `llama_3` for the 8B, `v1` for the 3B and 13B.

Source: github.com/NVlabs/VILA at 355fda9, llava/conversation.py and llava/mm_utils.py.
"""


def dialogue(tokenizer: Any, folder: Path) -> Dialogue:
    """Returns the prompt format of a checkpoint, selected by its vocabulary.

    Raises:
        ModelError: The vocabulary is ChatML's (VILA's `hermes-2`), which no VILA-M3 on the hub has.
    """
    known = tokenizer.get_vocab()
    if "<|im_start|>" in known:
        raise ModelError(
            f"{folder} has a vocabulary of ChatML; known are VILA-M3's 3B, 8B and 13B, which speak "
            f"{' or '.join(d.name for d in DIALOGUES)}. Build the model yourself and use "
            "interp.wrap(hf_model, processor) with a processor whose chat template is the right one."
        )
    return next(one for one in DIALOGUES if not one.sign or one.sign in known)


def placed_tokenizer(folder: Path, rows: int) -> tuple[Any, str]:
    """Returns the language model's tokenizer and the token that stands for an image.

    The token is `<image>` if the vocabulary has it or the embedding has an unused row; otherwise one of Llama 3's
    reserved tokens; otherwise the unknown token, which tokenizers with byte fallback never produce. So no weights
    change.

    Args:
        folder: The tokenizer's folder.
        rows: The number of rows of the embedding.

    Raises:
        ModelError: There is no tokenizer, or no free token.
    """
    check_vocabulary(folder)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, legacy=False
        )
    except Exception as error:  # whatever reading foreign files raises
        raise ModelError(
            f"no tokenizer can be loaded from {folder} ({type(error).__name__}: {error}). Is the download complete?"
        ) from error
    known = tokenizer.get_vocab()
    free = "<image>" in known or max(known.values()) + 1 < rows
    token = "<image>" if free else next((t for t in _RESERVED if t in known), tokenizer.unk_token)
    if token is None:
        raise ModelError(
            f"the tokenizer of {folder} has {len(known)} tokens for {rows} rows of the embedding, and none to stand "
            "for an image: expected an unused row, a reserved or an unknown token. Name one that no text has as "
            "unk_token in its tokenizer_config.json."
        )
    tokenizer.add_special_tokens({"additional_special_tokens": [token]})
    if token == tokenizer.pad_token:  # padding must not read as images
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, token


def make_processor(
    folder: Path, config: VilaConfig, tokenizer: Any, image_token: str, spoken: Dialogue
) -> VilaProcessor:
    """Returns the processor; it squashes images to the tower's square, bicubic."""
    vision: Any = config.vision_config
    images = AutoImageProcessor.from_pretrained(str(folder / "vision_tower"), local_files_only=True)
    images.size = {"height": vision.image_size, "width": vision.image_size}
    return VilaProcessor(
        images,
        tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy="full",
        image_token=image_token,
        chat_template=spoken.template(image_token),
    )


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
"""Settings of config.json that decide what is computed → the supported values."""


class Vila:
    """VILA 1.5 and models tuned from it, such as MONAI's VILA-M3.

    `llm/`, `vision_tower/` and `mm_projector/` each hold a config and weights. The paths in these configs are those of
    the training machine and are ignored.
    """

    name = "VILA"

    def matches(self, folder: Path) -> bool:
        """Whether the folder has a config.json with VILA's nested configs and the three folders."""
        nested = {f"{part}_cfg" for part in _PARTS} <= set(config_of(folder))
        return nested and all((folder / part / "config.json").is_file() for part in _PARTS)

    def open(
        self, folder: Path, vision_tower: str | Path | None = None, *, download: bool = False
    ) -> Checkpoint:
        """Returns the folder's checkpoint; weights are not read.

        Raises:
            ModelError: With these settings the original computes something else than the class here.
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
    """Raises `ModelError` for settings with which the original computes something else."""
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
    """Returns a part's config, of one of these model types."""
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
