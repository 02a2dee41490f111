"""Where a model looks: indicators turn samples into maps over image tokens."""

from __future__ import annotations

from interp.indicators.attention import Attention
from interp.indicators.attention_gradient import AttentionGradient
from interp.indicators.attribution_patching import AttributionPatching
from interp.indicators.input_gradient import InputGradient
from interp.indicators.integrated_gradients import IntegratedGradients
from interp.indicators.maps import Maps
from interp.indicators.rollout import Rollout
from interp.indicators.smooth_grad import SmoothGrad
from interp.indicators.value_weighted import ValueWeightedAttention

__all__ = [
    "Attention",
    "AttentionGradient",
    "AttributionPatching",
    "InputGradient",
    "IntegratedGradients",
    "Maps",
    "Rollout",
    "SmoothGrad",
    "ValueWeightedAttention",
]
