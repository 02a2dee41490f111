"""Indicators turn samples into maps over image tokens: where the model looks. Others say attribution method."""

from __future__ import annotations

from interp.indicators.answer_maps import AnswerMaps, answer_maps
from interp.indicators.attention import Attention, Rollout, ValueWeightedAttention
from interp.indicators.attention_gradient import AttentionGradient
from interp.indicators.baseline_maps import CentrePrior, RandomMap
from interp.indicators.feature_map import FeatureMap
from interp.indicators.input_gradients import InputGradient, IntegratedGradients, SmoothGrad
from interp.indicators.map_masks import map_mask, otsu_threshold, upsampled
from interp.indicators.maps import Maps, load_maps
from interp.indicators.names import NAMED, indicator_named
from interp.indicators.occlusion import Occlusion, RandomMasks
from interp.indicators.patching import ActivationPatching, AttributionPatching
from interp.indicators.removals import HideTokens, PaintPixels, Removal, Removed, ReplaceEmbeddings
from interp.indicators.token_removal import EmbeddingReplacement, TokenKnockout
from interp.indicators.vision_attention import VisionAttention

__all__ = [
    "NAMED",
    "ActivationPatching",
    "AnswerMaps",
    "Attention",
    "AttentionGradient",
    "AttributionPatching",
    "CentrePrior",
    "EmbeddingReplacement",
    "FeatureMap",
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
    "VisionAttention",
    "answer_maps",
    "indicator_named",
    "load_maps",
    "map_mask",
    "otsu_threshold",
    "upsampled",
]
