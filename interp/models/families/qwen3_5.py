"""Qwen3.5 and its mixture of experts: Qwen3-VL's tokens before a decoder of gated DeltaNet and attention layers."""

from __future__ import annotations

from interp.models.families.qwen import Qwen3Vl

__all__ = ["Qwen35", "Qwen35Moe"]


class Qwen35(Qwen3Vl):
    """The `qwen3_5` family: three layers of gated DeltaNet (`linear_attn`) to one of attention (`self_attn`).

    Its image processor and its merged patches are Qwen3-VL's; nothing of the tower is added to later layers.
    """

    name = "qwen3_5"
    model_types = ("qwen3_5",)
    examples = ("Qwen/Qwen3.5-9B",)


class Qwen35Moe(Qwen35):
    """The `qwen3_5_moe` family: Qwen3.5 with a mixture of experts in each layer."""

    name = "qwen3_5_moe"
    model_types = ("qwen3_5_moe",)
    examples = ("Qwen/Qwen3.5-35B-A3B",)
