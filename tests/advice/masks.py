# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of masks, grounded answers and boxes in texts."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

import interp
from interp.conformance.tiny import tiny
from interp.indicators import Attention
from interp.indicators.map_masks import upsampled
from interp.inputs.box_text import written
from interp.inputs.boxes import Box
from interp.metrics import boxes_iou, mask_recall, pixel_iou
from interp.study import StatedBoxes
from tests.models.tiny_sam import tiny_sam

ROWS: list[tuple[str, str, str]] = [
    ("map_mask(MAP, 5)", "between 0 and 1, such as 0.9", "map_mask(MAP, 0.9)"),
    ("map_mask(MAP, 5)", '"otsu", "positive"', "[map_mask(MAP, 'otsu'), map_mask(MAP, 'positive')]"),
    ("parse_boxes('x', 'yolo', (9, 9))", "an interp.BoxConvention", "parse_boxes('x', interp.BoxConvention('yolo', 'lists', 1), (9, 9))"),
    ("parse_boxes('x', 'qwen2_5_vl', (9, 9))", "Pass resized=(width, height)", "parse_boxes('x', 'qwen2_5_vl', (9, 9), resized=(28, 28))"),
    ("written(BOX, 'qwen2_5_vl', (9, 9))", "Pass resized=(width, height)", "written(BOX, 'qwen2_5_vl', (9, 9), resized=(28, 28))"),
    ("written(BOX, 'kosmos2', (9, 9))", "Take another convention, such as 'internvl'", "written(BOX, 'internvl', (9, 9))"),
    ("parse_boxes('x', None, (9, 9))", "Name the one that this model was trained with", "parse_boxes('x', 'llava', (9, 9))"),
    ("pixel_iou(MASK_2D, MASK_2D[:2])", "Give both in pixels of the original image", "pixel_iou(MASK_2D, MASK_2D)"),
    ("mask_recall(interp.Mask(MASK_2D), [MASK_2D])", "Write [mask] for one", "mask_recall([interp.Mask(MASK_2D)], [MASK_2D])"),
    ("pixel_iou(MASK_2D * 0.7, MASK_2D)", "Threshold numbers first: mask > 0.5", "pixel_iou(MASK_2D * 0.7 > 0.5, MASK_2D)"),
    ("interp.Segmenter(1, 2)", "a SAM of transformers with its processor", "interp.Segmenter(*tiny_sam())"),
    ("interp.ground(mllm, [one])", "ground takes one interp.Sample", "interp.ground(mllm, one, generate=2)"),
    ("interp.ground(mllm, VIDEO)", "Sample(images=[…], question=…)", "interp.ground(mllm, interp.Sample(images=[PIC], question='where is the nodule?'), generate=2)"),
    ("interp.ground(mllm, one, refine=tiny_sam()[0])", "interp.Segmenter(model, processor)", "interp.ground(mllm, one, generate=2, refine=interp.Segmenter(*tiny_sam()))"),
    ("interp.ground(mllm, one, 5)", '["nodule", "left lung"]', "interp.ground(mllm, one, ['nodule', 'left lung'], generate=2)"),
    ("interp.ground(mllm, one, 5)", "a function that finds them", "interp.ground(mllm, one, str.split, generate=2)"),
    ("StatedBoxes(data=[one], layers=5)", "such as [14, 15], or None for all", "[StatedBoxes(data=[one], layers=[14, 15]), StatedBoxes(data=[one], layers=None)]"),
    ("stated(per_head=True)", "Use per_head=False", "stated(per_head=False)"),
    ("stated(layers=[0, 99])", "not [99]. Leave these out", "stated(layers=[0])"),
    ("upsampled(NAN_MAP, TOKENS)", "Use how=\"nearest\"", "upsampled(NAN_MAP, TOKENS, how='nearest')"),
]  # fmt: skip

ELSEWHERE: dict[str, str] = {
    "a segmenter is a SAM (model types": "needs a folder of another model; tests/models/test_segmenter.py::test_what_is_no_sam_is_refused",
}


def stated(per_head: bool = False, layers: Any = None) -> Any:
    """What a study of stored texts with such maps stores; the error of its only sample where it fails."""
    one = interp.Sample(_picture(), "where is the nodule ?", [(4, 4, 40, 40)], id="one")
    study = StatedBoxes(
        data=[one],
        model=_mllm(),
        convention="internvl",
        answers={"one": ""},
        indicator=Attention(per_head=per_head),
        layers=layers,
    )
    task = study.task(_mllm())
    return task.measure((0,))


@cache
def _mllm() -> interp.Mllm:
    return interp.wrap(*tiny("llava"))


def _picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)


def names() -> dict[str, Any]:
    """What these rows know."""
    video = interp.Sample(video=[_picture(), _picture()], question="is it red ?", fps=1.0)
    encoded = _mllm().encode([interp.Sample(_picture(), "is it red ?")])
    tools = {"written": written, "boxes_iou": boxes_iou, "mask_recall": mask_recall, "pixel_iou": pixel_iou}
    return {
        **tools,
        "BOX": Box(1, 2, 3, 4),
        "MASK_2D": np.eye(4, dtype=bool),
        "VIDEO": video,
        "TOKENS": (tokens := encoded.tokens[0]),
        "NAN_MAP": np.where(np.arange(tokens.n) == 1, np.nan, 1.0),
        "upsampled": upsampled,
        "stated": stated,
        "tiny_sam": tiny_sam,
        "StatedBoxes": StatedBoxes,
    }
