"""Tiny random models of every built-in family, each with its true processor: seconds to build, nothing to download."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import transformers

from interp.conformance.tiny.kit import TinyFamily, build
from interp.errors import ModelError
from interp.models.adapter import built_in, is_available
from interp.models.base import Maps

__all__ = ["families", "recipe", "tiny"]

_HOMES = {
    "mixtures": ("glm46v", "glm4v", "glm4v_moe", "llama4", "qwen3_vl_moe"),
    "grids": ("aya_vision", "cohere2_vision", "gemma4", "gemma4_unified", "molmo2"),
    "documents": (
        "deepseek_vl",
        "deepseek_vl_hybrid",
        "fast_vlm",
        "got_ocr2",
        "lighton_ocr",
        "ovis2",
        "vipllava",
    ),
    "one_grid": ("gemma3", "llava", "mistral3", "paligemma", "vila"),
    "qwen_vl": ("qwen2_5_vl", "qwen2_vl", "qwen3_vl"),
    "resamplers": ("aria", "blip-2", "idefics2", "instructblip", "mllama"),
    "decoders": ("gemma3n", "kimi_k25", "lfm2_vl", "minicpmv4_6", "qwen3_5", "qwen3_5_moe"),
    "tiles": ("idefics3", "internvl", "llava_next", "llava_next_video", "llava_onevision", "smolvlm"),
}
_HOME = {family: home for home, names in _HOMES.items() for family in names}


def families(maps: Maps | None = None) -> list[str]:
    """Returns the names of the families that have a tiny model and that the installed transformers has.

    Args:
        maps: Of those alone whose maps are made so (`interp.models.base.Maps`).
    """
    return sorted(
        adapter.name
        for adapter in built_in()
        if adapter.name in _HOME
        and is_available(adapter)
        and maps in (None, getattr(adapter, "maps", "self"))
    )


def recipe(family: str) -> TinyFamily:
    """Returns how the tiny model of a family is made.

    Args:
        family: One of `families()`.

    Raises:
        ModelError: The family has no tiny model.
    """
    if isinstance(family, str) and family in _HOME and family not in families():
        raise ModelError(
            f"transformers {transformers.__version__} has no {family}; a newer one does. It has: "
            f"{', '.join(families())}."
        )
    if not isinstance(family, str) or family not in _HOME:
        raise ModelError(f"no tiny model of the family {family!r}; there are: {', '.join(families())}.")
    return import_module(f"{__name__}.{_HOME[family]}").FAMILIES[family]


def tiny(family: str, attention: str = "sdpa", seed: int = 0) -> tuple[Any, Any]:
    """Returns a new model of the family with random weights, and its processor.

    Args:
        family: One of `families()`.
        attention: The model's attention implementation.
        seed: The seed of the weights; the same seed gives the same weights.

    Raises:
        ModelError: The family has no tiny model, or an implementation or a seed that cannot be used.
    """
    made = recipe(family)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ModelError(f"seed is a whole number of at least 0; got {seed!r}.")
    if not isinstance(attention, str):
        raise ModelError(f'attention is the name of an implementation such as "sdpa"; got {attention!r}.')
    try:
        model = build(made.model, made.config(), attention, seed, whole=made.whole)
    except (ValueError, ImportError) as error:  # transformers' words for an implementation that it lacks
        raise ModelError(
            f"attention={attention!r} cannot be used for the tiny {family} ({error})."
        ) from error
    return model, made.processor()
