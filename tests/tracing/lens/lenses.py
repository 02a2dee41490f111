"""Each family's tiny model as TransformerLens shows it."""

from __future__ import annotations

from functools import cache

from interp.conformance.tiny import tiny
from interp.tracing import wrap
from interp.tracing.lens import Lens

BY_DEFAULT = ("gemma3", "llama4", "llava", "qwen2_5_vl", "qwen3_vl")
"""Windows and norms behind, experts, plain, positions in three axes, features that are added after the first layers."""


@cache
def lens_of(family: str) -> Lens:
    return wrap(*tiny(family), family).to_lens()
