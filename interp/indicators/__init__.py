"""Where a model looks: indicators turn samples into maps over image tokens."""

from __future__ import annotations

from interp.indicators.attention import Attention
from interp.indicators.attention_gradient import AttentionGradient
from interp.indicators.attribution_patching import AttributionPatching
from interp.indicators.baselines import CentrePrior, RandomMap
from interp.indicators.input_gradient import InputGradient
from interp.indicators.integrated_gradients import IntegratedGradients
from interp.indicators.knockout import EmbeddingReplacement, TokenKnockout
from interp.indicators.maps import Maps
from interp.indicators.occlusion import Occlusion
from interp.indicators.patching import ActivationPatching
from interp.indicators.random_masks import RandomMasks
from interp.indicators.removal import Removal, Removed
from interp.indicators.removal_embeddings import ReplaceEmbeddings
from interp.indicators.removal_hide import HideTokens
from interp.indicators.removal_pixels import PaintPixels
from interp.indicators.rollout import Rollout
from interp.indicators.smooth_grad import SmoothGrad
from interp.indicators.value_weighted import ValueWeightedAttention

__all__ = [
    "ActivationPatching",
    "Attention",
    "AttentionGradient",
    "AttributionPatching",
    "CentrePrior",
    "EmbeddingReplacement",
    "HideTokens",
    "InputGradient",
    "IntegratedGradients",
    "Maps",
    "Occlusion",
    "PaintPixels",
    "RandomMap",
    "RandomMasks",
    "Removal",
    "Removed",
    "ReplaceEmbeddings",
    "Rollout",
    "SmoothGrad",
    "TokenKnockout",
    "ValueWeightedAttention",
]
