"""The kinds of LLaVA's original layout, which differ in code, prompt and tower, and the merging of LoRA."""

from __future__ import annotations

import json
import math
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from interp.errors import ModelError
from interp.inputs.text import count
from interp.models.checkpoints.checkpoint import find_part
from interp.models.checkpoints.conversations import HUATUO, LLAMA3, MISTRAL, VICUNA
from interp.models.checkpoints.llava_layout import OriginalLlava, Sources
from interp.models.checkpoints.tensors import Tensors, read_file, read_folder
from interp.models.checkpoints.towers import Tower, open_clip_tower

__all__ = [
    "HuatuoBio",
    "HuatuoVision7",
    "HuatuoVision34",
    "LlavaLora",
    "LlavaMed",
    "LlavaTri",
    "LlavaV15",
    "Merged",
    "adapter_config",
    "merged",
]


_LLAMAS = ("llava", "llava_llama")
_LLAMA3_SIGN = "<|start_header_id|>"


class LlavaV15(OriginalLlava):
    """LLaVA-1.5: `.bin` shards with a separate tower.

    Source: github.com/haotian-liu/LLaVA, model/builder.py, conversation.py, mm_utils.py.
    """

    name = "llava_v1.5"
    conversation = VICUNA

    def claims(self, folder: Path, raw: Mapping[str, Any]) -> bool:
        """Whether it is a Llama; the other kinds are tried first."""
        return raw.get("model_type") in _LLAMAS


class LlavaMed(OriginalLlava):
    """LLaVA-Med 1.5: a Mistral. Its code reads a separate tower and ignores the one in the shards.

    Source: github.com/microsoft/LLaVA-Med, model/builder.py, conversation.py, mm_utils.py.
    """

    name = "llava_med"
    text = "mistral"
    conversation = MISTRAL
    remarks = ("Images are padded at the offset ⌊d/2⌋; the original code adds 0 or 1 pixel at random.",)

    def claims(self, folder: Path, raw: Mapping[str, Any]) -> bool:
        """Whether it is a Mistral."""
        return raw.get("model_type") == "llava_mistral"


class LlavaTri(OriginalLlava):
    """LLaVA-Tri: a Llama 3, with one CLIP or with S².

    Source: github.com/UCSC-VLAA/MedTrinity-25M, model/builder.py, model/multimodal_encoder/clip_encoder.py.
    """

    name = "llava_tri"
    conversation = LLAMA3
    remarks = (
        "The original loader adds <pad> and a row for it, the mean of all others; padding is masked here, without one.",
        "The prompt begins with two <|begin_of_text|>, as the original code tokenises it.",
    )

    def claims(self, folder: Path, raw: Mapping[str, Any]) -> bool:
        """Whether it is a Llama whose tokenizer has Llama 3's headers."""
        words = folder / "tokenizer_config.json"
        return (
            raw.get("model_type") in _LLAMAS
            and words.is_file()
            and _LLAMA3_SIGN in words.read_text("utf-8", errors="replace")
        )


class _Huatuo(OriginalLlava, ABC):
    """HuatuoGPT-Vision: a tower in the shards replaces the one in the folder `vit`, and images are always padded.

    Source: github.com/FreedomIntelligence/HuatuoGPT-Vision, cli.py, model/multimodal_encoder.
    """

    conversation = HUATUO
    pads = True
    embedded = True
    model_types: ClassVar[tuple[str, ...]]

    def claims(self, folder: Path, raw: Mapping[str, Any]) -> bool:
        """Whether the folder has a tower in `vit`."""
        inside = str(raw["mm_vision_tower"]).removeprefix("./").startswith("vit/")
        return inside and raw.get("model_type") in self.model_types


class HuatuoVision7(_Huatuo):
    """HuatuoGPT-Vision-7B: a Qwen2."""

    name = "huatuogpt_vision_7b"
    text = "qwen2"
    model_types = ("llava_qwen2",)


class HuatuoVision34(_Huatuo):
    """HuatuoGPT-Vision-34B: a Yi, which is a Llama."""

    name = "huatuogpt_vision_34b"
    model_types = _LLAMAS


class HuatuoBio(_Huatuo):
    """HuatuoGPT-V-Bio: a Huatuo with BiomedCLIP's ViT-B/16 as its tower. Hypothetical: no weights are public."""

    name = "huatuogpt_v_bio"
    text = "qwen2"
    remarks = (
        "Hypothetical: HuatuoGPT-V-Bio has no public weights; its layout is taken to be HuatuoGPT-Vision's with "
        "BiomedCLIP's ViT-B/16 for a tower.",
    )

    def claims(self, folder: Path, raw: Mapping[str, Any]) -> bool:
        """Whether it is a Qwen2 whose tower is named BiomedCLIP."""
        return raw.get("model_type") == "llava_qwen2" and "biomedclip" in str(raw["mm_vision_tower"]).lower()


class LlavaLora(OriginalLlava):
    """LLaVA-Rad and other LoRA checkpoints of LLaVA's code: an adapter and a projector for a base language model.

    Source: github.com/microsoft/LLaVA-Rad, model/builder.py, model/multimodal_encoder/open_clip_encoder.
    """

    name = "llava_lora"
    conversation = VICUNA
    remarks = ("The adapter is merged into its base, in float32, rounded to the base's dtype.",)

    def claims(self, folder: Path, raw: Mapping[str, Any]) -> bool:
        """Whether it is a Llama with a PEFT adapter."""
        return (folder / "adapter_config.json").is_file() and raw.get("model_type") in _LLAMAS

    def files(self, folder: Path, raw: Mapping[str, Any], *, download: bool) -> Sources:
        """Returns the base's tensors with the adapter merged, and the base's tokenizer."""
        named = adapter_config(folder).get("base_model_name_or_path")
        base = find_part("base model", named, folder, None, download=download)
        return Sources(folder, raw, merged(folder, read_folder(base)), None, base)

    def outer_tower(self, files: Sources, given: str | Path | None, *, download: bool) -> Tower:
        """Returns LLaVA-Rad's own open_clip files if the config names them; otherwise as in the other layouts."""
        config, weights = (files.raw.get(f"mm_vision_tower_{what}") for what in ("config", "checkpoint"))
        if given is not None or not config or not weights:
            return super().outer_tower(files, given, download=download)
        places = [files.folder / Path(str(named)).name for named in (config, weights)]
        absent = [place.name for place in places if not place.is_file()]
        if absent:
            raise ModelError(
                f"{files.folder} should hold the files of its vision tower, but {' and '.join(absent)} are not there. "
                "Copy them into it, or pass vision_tower= with a folder or hub id."
            )
        return open_clip_tower(json.loads(places[0].read_text("utf-8")), places[1])


_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_TRAINED = "non_lora_trainables.bin"
_UNKNOWN = ("rank_pattern", "alpha_pattern", "modules_to_save", "use_dora", "layer_replication")
"""Settings that change the arithmetic. No LLaVA adapter uses them."""


@dataclass(frozen=True, eq=False)
class Merged:
    """A base's tensors; some are replaced, and some have W + scale · B A instead of W.

    Attributes:
        base: The base model's tensors.
        low: Name of the changed weight → the adapter's names of A and B.
        adapter: The adapter's tensors.
        trained: Tensors that replace the base's or are new: name in the base → name in their file.
        replacing: The tensors of that file.
        scale: The factor of the product.
    """

    base: Tensors
    adapter: Tensors
    low: dict[str, tuple[str, str]]
    replacing: Tensors
    trained: dict[str, str]
    scale: float

    @cached_property
    def lost(self) -> frozenset[str]:
        """Returns the adapter's names whose weight the base lacks."""
        known = set(self.base.names())
        return frozenset(one for name, pair in self.low.items() if name not in known for one in pair)

    def names(self) -> Sequence[str]:
        """Returns the base's names and then the new ones; changes of unknown weights keep their own names."""
        known = set(self.base.names())
        new = [name for name in self.trained if name not in known]
        return [*self.base.names(), *new, *sorted(self.lost)]

    def meta(self, name: str) -> Tensor:
        """Returns shape and dtype of a tensor."""
        if name in self.trained:
            return self.replacing.meta(self.trained[name])
        return self.adapter.meta(name) if name in self.lost else self.base.meta(name)

    def read(self, name: str) -> Tensor:
        """Returns a tensor; a changed one is summed in float32 and rounded to the base's dtype."""
        if name in self.trained:
            return self.replacing.read(self.trained[name])
        if name not in self.low:
            return self.base.read(name)
        a, b = (self.adapter.read(one).float() for one in self.low[name])
        weight = self.base.read(name)
        if (len(b), a.shape[1]) != tuple(weight.shape) or len(a) != b.shape[1]:
            raise ModelError(
                f"the adapter's {tuple(b.shape)} × {tuple(a.shape)} for {name} does not fit the base's "
                f"{tuple(weight.shape)}. Is it an adapter of another base?"
            )
        return (weight.float() + self.scale * (b @ a)).to(weight.dtype)


def merged(folder: Path, base: Tensors) -> Merged:
    """Returns the base merged with the adapter in a folder and with its `non_lora_trainables.bin`.

    Raises:
        ModelError: Files are missing, or a setting is not supported.
    """
    settings = adapter_config(folder)
    path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if path is None or not (folder / _TRAINED).is_file():
        raise ModelError(
            f"{folder} should hold {' or '.join(_FILES)}, and {_TRAINED}. Is the download complete?"
        )
    adapter, replacing = read_file(path), read_file(folder / _TRAINED)
    return Merged(
        base=base,
        adapter=adapter,
        low=_pairs(adapter, path),
        replacing=replacing,
        trained={_plain(name): name for name in replacing.names()},
        scale=_scale(settings, folder),
    )


def adapter_config(folder: Path) -> dict[str, Any]:
    """Returns PEFT's settings of the adapter in a folder.

    Raises:
        ModelError: The file is not a JSON object.
    """
    try:
        return dict(json.loads((folder / "adapter_config.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{folder}/adapter_config.json cannot be read ({error}). Copy it again.") from error


def _scale(settings: dict[str, Any], folder: Path) -> float:
    unknown = [name for name in _UNKNOWN if settings.get(name)]
    if settings.get("fan_in_fan_out") or settings.get("bias", "none") != "none" or unknown:
        raise ModelError(
            f"{folder}/adapter_config.json asks for {', '.join(unknown) or 'fan_in_fan_out or trained biases'}, which "
            "this reader does not merge. Merge it with PEFT and load the result."
        )
    rank = settings["r"]
    return settings["lora_alpha"] / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _pairs(adapter: Tensors, path: Path) -> dict[str, tuple[str, str]]:
    """Returns a dict of weight → the names of its A and B."""
    names, pairs = set(adapter.names()), {}
    for name in adapter.names():
        stem, found, tail = name.partition(".lora_A.")
        other = f"{stem}.lora_B.{tail}"
        if found and other in names:
            pairs[_plain(stem) + ".weight"] = (name, other)
    used = {one for pair in pairs.values() for one in pair}
    if used != names:
        odd = sorted(names - used)
        raise ModelError(
            f"{path} should hold pairs of lora_A and lora_B; without a partner: {count(len(odd), 'tensor')}, "
            f"{', '.join(odd[:8])}. Was it cut off?"
        )
    return pairs


def _plain(name: str) -> str:
    """Returns a name as in the base, without PEFT's prefix."""
    bare = name.removeprefix("base_model.")
    return (
        bare.removeprefix("model.")
        if bare.startswith(("model.model.", "model.lm_head.")) or bare == "model.lm_head"
        else bare
    )
