"""How well a map agrees with boxes, and with what the model relies on.

Metrics of agreement with boxes are functions (map (..., token), mask (token,)) → float64 (...).
"""

from __future__ import annotations

from interp.metrics import scorers as scorers
from interp.metrics.faithfulness import (
    comprehensiveness,
    curve_area,
    kendall,
    most_important,
    normalised,
    spearman,
    sufficiency,
    tokens_first,
)
from interp.metrics.localisation import (
    attention_ratio,
    attention_ratio_sliding,
    auroc,
    average_precision,
    box_iou,
    js_divergence,
    kl_divergence,
    kl_gain,
    pointing_game,
)
from interp.metrics.map_and_mask import positive_part
from interp.metrics.mask_overlap import boxes_iou, mask_recall, pixel_iou
from interp.metrics.metric import METRICS, Metric, named

__all__ = [
    "METRICS",
    "Metric",
    "attention_ratio",
    "attention_ratio_sliding",
    "auroc",
    "average_precision",
    "box_iou",
    "boxes_iou",
    "comprehensiveness",
    "curve_area",
    "js_divergence",
    "kendall",
    "kl_divergence",
    "kl_gain",
    "mask_recall",
    "most_important",
    "named",
    "normalised",
    "pixel_iou",
    "pointing_game",
    "positive_part",
    "spearman",
    "sufficiency",
    "tokens_first",
]
