"""The kinds of LLaVA's original layout, which differ in code, prompt and tower."""

from __future__ import annotations

import json
from abc import ABC
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from interp.errors import ModelError
from interp.models.checkpoints.checkpoint import find_part
from interp.models.checkpoints.conversations import HUATUO, LLAMA3, MISTRAL, VICUNA
from interp.models.checkpoints.llava_layout import OriginalLlava, Sources
from interp.models.checkpoints.lora import adapter_config, merged
from interp.models.checkpoints.tensors import read_folder
from interp.models.checkpoints.towers import Tower, open_clip_tower

__all__ = ["HuatuoBio", "HuatuoVision7", "HuatuoVision34", "LlavaLora", "LlavaMed", "LlavaTri", "LlavaV15"]


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
