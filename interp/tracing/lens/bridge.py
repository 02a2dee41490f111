"""A TransformerBridge of its own instance of a model, made without the network and without installing anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from interp.errors import ModelError
from interp.tracing.copies import second_instance

__all__ = ["HYBRID", "SUPPORTED", "UNEVEN", "UNSUPPORTED", "build_bridge"]

SUPPORTED: Mapping[str, str] = {
    "gemma3": "Gemma3ForConditionalGeneration",
    "glm4v": "Glm4vForConditionalGeneration",
    "idefics3": "Idefics3ForConditionalGeneration",
    "llama4": "Llama4ForConditionalGeneration",
    "llava": "LlavaForConditionalGeneration",
    "llava_next": "LlavaNextForConditionalGeneration",
    "llava_onevision": "LlavaOnevisionForConditionalGeneration",
    "mistral3": "Mistral3ForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
    "vila": "LlavaForConditionalGeneration",
}
"""Families → the class whose adapter TransformerLens 4.3 gives them. Each is tested: patterns and logits are those of
a trace. Our VILA is made of LLaVA's class."""

UNSUPPORTED: Mapping[str, str] = {
    "aria": "AriaForConditionalGeneration",
    "aya_vision": "AyaVisionForConditionalGeneration",
    "blip-2": "Blip2ForConditionalGeneration",
    "cohere2_vision": "Cohere2VisionForConditionalGeneration",
    "deepseek_vl": "DeepseekVLForConditionalGeneration",
    "deepseek_vl_hybrid": "DeepseekVLHybridForConditionalGeneration",
    "fast_vlm": "FastVlmForConditionalGeneration",
    "glm46v": "Glm46VForConditionalGeneration",
    "glm4v_moe": "Glm4vMoeForConditionalGeneration",
    "got_ocr2": "GotOcr2ForConditionalGeneration",
    "idefics2": "Idefics2ForConditionalGeneration",
    "instructblip": "InstructBlipForConditionalGeneration",
    "internvl": "InternVLForConditionalGeneration",
    "kimi_k25": "Kimi_K25ForConditionalGeneration",
    "lighton_ocr": "LightOnOcrForConditionalGeneration",
    "llava_next_video": "LlavaNextVideoForConditionalGeneration",
    "mllama": "MllamaForConditionalGeneration",
    "molmo2": "Molmo2ForConditionalGeneration",
    "ovis2": "Ovis2ForConditionalGeneration",
    "paligemma": "PaliGemmaForConditionalGeneration",
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "smolvlm": "SmolVLMForConditionalGeneration",
    "vipllava": "VipLlavaForConditionalGeneration",
}
"""Families of `interp` that TransformerLens 4.3 has no adapter for: `to_lens` refuses them."""


HYBRID = ("lfm2_vl", "minicpmv4_6", "qwen3_5", "qwen3_5_moe")
"""Families some of whose layers have no pattern of attention: `to_lens` refuses them, whatever TransformerLens has."""

UNEVEN = {
    "gemma3n": "which pass on four streams, not one",
    "gemma4": "whose heads differ in size",
    "gemma4_unified": "whose heads differ in size",
}
"""Families whose layers' values the caches of a lens cannot stack, with the reason: `to_lens` refuses them."""

VISION = ("vision_encoder", "vision_projector")
"""TransformerLens' names of the parts that are left out of the bridge where the model has other ones."""


def build_bridge(hf: Any, family: str, change: Callable[[Any], None] | None = None) -> Any:
    """The bridge on a second instance of a model that shares its weights; the model itself is not touched.

    The bridge is put together from TransformerLens's parts and not booted: booting asks the hub for a processor,
    and installs torchvision where that fails. It has no tokenizer. Adapters that ask for torchvision do not get
    to: it serves their own loading of images, and batches come encoded.

    Args:
        hf: The transformers model.
        family: Its family.
        change: Is given the second instance before the bridge is made, to change it in place.

    Raises:
        ModelError: transformer-lens is not installed, has no adapter for the model, or cannot wrap it.
    """
    try:
        from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
        from transformer_lens.model_bridge import TransformerBridge
        from transformer_lens.model_bridge.sources import build_bridge_config_from_hf
    except ImportError as error:
        raise ModelError(
            f'to_lens needs TransformerLens ({error}). Install it: pip install "interp[lens]".'
        ) from error
    kind = _kind(hf, family, SUPPORTED_ARCHITECTURES)
    second = second_instance(hf, "eager")
    if change is not None:
        change(second)
    known = SUPPORTED_ARCHITECTURES[kind]
    bare: Any = type(known.__name__, (known,), {"required_libraries": []})
    adapter = bare(build_bridge_config_from_hf(second.config, kind, family, hf.dtype))
    adapter.cfg.device = str(hf.device)
    parts, own = adapter.component_mapping.items(), kind == type(hf).__name__
    adapter.component_mapping = {k: v for k, v in parts if k not in VISION or (own and _fits(v, second))}
    adapter.prepare_model(second)
    return TransformerBridge(second, adapter, None).eval()


def _fits(part: Any, around: Any) -> bool:
    """Whether a module has every submodule that a part of a bridge looks for.

    TransformerLens' adapters know one or two towers of a class; a LLaVA may have any (DINOv2, ViT, Pixtral).

    Args:
        part: The part of the bridge, whose `name` is a path.
        around: The module that the path starts from.
    """
    found = around
    for name in (part.name or "").split("."):
        if name == "vision_model" and not hasattr(found, name):
            continue  # CLIP's tower lost this level in transformers 5.6; TransformerLens steps over it too
        if name and getattr(part, "optional", False) and not hasattr(found, name):
            return True
        found = getattr(found, name, None) if name else found
    if found is None:
        return False
    inner = found[0] if getattr(part, "is_list_item", False) and len(found) else found
    return all(_fits(one, inner) for one in part.submodules.values())


def _kind(hf: Any, family: str, known: Mapping[str, Any]) -> str:
    """The model's class, or the nearest class it is made of, that TransformerLens has an adapter for."""
    if family in UNEVEN:
        raise ModelError(
            f"to_lens cannot stack the values of {family}'s layers, {UNEVEN[family]}. mllm.trace and mllm.tap read "
            "and edit it."
        )
    found = next((kind.__name__ for kind in type(hf).__mro__ if kind.__name__ in known), None)
    if found is None:
        raise ModelError(
            f"TransformerLens has no adapter for {type(hf).__name__} (family {family}). It has one for these families "
            f"of interp: {', '.join(SUPPORTED)}. mllm.trace and mllm.tap read and edit every family."
        )
    devices = set((getattr(hf, "hf_device_map", None) or {}).values())
    if len(devices) > 1:
        raise ModelError(
            f"to_lens takes a model on one device; this one is on {len(devices)}. Load it with device= one of them."
        )
    return found
