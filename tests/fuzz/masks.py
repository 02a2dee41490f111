"""Public functions of masks and of boxes in texts, with arguments that they take, for the other tables."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

import interp
from interp import indicators, metrics
from tests.fuzz.trials import Call
from tests.models.tiny_sam import tiny_sam

__all__ = ["model_masks", "value_masks"]

EYE = np.eye(3, dtype=bool)


def value_masks() -> list[Call]:
    """What needs no model."""
    text = {"text": "<box>[[1, 2, 3, 4]]</box>", "convention": "internvl", "size": (64, 48)}
    boxes = {"boxes": [(0, 0, 2, 2)], "others": [(1, 0, 3, 2)]}
    own = {"name": "mine", "syntax": "json", "scale": 1000}
    return [
        Call("BoxConvention", interp.BoxConvention, lambda: dict(own)),
        Call("parse_boxes", interp.parse_boxes, lambda: dict(text)),
        Call("pixel_iou", metrics.pixel_iou, lambda: {"mask": EYE, "truth": EYE}),
        Call("mask_recall", metrics.mask_recall, lambda: {"masks": [EYE], "truths": [EYE]}),
        Call("boxes_iou", metrics.boxes_iou, lambda: dict(boxes)),
        Call("map_mask", indicators.map_mask, lambda: {"pixels": np.array([[0.1, 0.7], [0.2, 0.4]])}),
        Call("otsu_threshold", indicators.otsu_threshold, lambda: {"values": np.array([0.1, 0.7, 0.2])}),
    ]


def model_masks(mllm: Any, sample: Any, tokens: Any) -> list[Call]:
    """What runs a model on one sample, or knows where its tokens are. A finder's own errors come through."""
    own = {"mllm": mllm, "sample": sample, "generate": 2}
    spared = frozenset({"phrases=function", "phrases=class"})
    sam = dict(zip(("model", "processor"), _sam(), strict=True))
    return [
        Call("ground", interp.ground, lambda: {**own, "phrases": ["red"]}, spared),
        Call("answer_maps", indicators.answer_maps, lambda: dict(own)),
        Call("upsampled", indicators.upsampled, lambda: {"values": np.ones(tokens.n), "tokens": tokens}),
        Call("Segmenter", interp.Segmenter, lambda: dict(sam)),
        Call(
            "Segmenter.mask",
            interp.Segmenter(**sam).mask,
            lambda: {"image": sample.load(), "point": (3.0, 4.0)},
        ),
        Call("Segmenter.load", interp.Segmenter.load, lambda: {"name": "nowhere"}),
    ]


@cache
def _sam() -> tuple[Any, Any]:
    return tiny_sam()
