"""Boxes that a model names in its thought are not stated: only those of its answer are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from interp.indicators import CentrePrior
from interp.study import StatedBoxes
from interp.study.stated_boxes.task import StatedTask, _truth
from tests.study.planted import sample, token_map
from tests.tracing.scripted import ids, picture, scripted

BOXES = {"w90": "[0.25, 0.25, 0.75, 0.75]", "w91": "[0.5, 0.5, 1.0, 1.0]"}
"""Words of the tiny vocabulary → the boxes that they stand for, as fractions."""


@pytest.mark.parametrize(("answer", "boxes"), [("w91 </s>", [[28, 28, 56, 56]]), ("no </s>", [])])
def test_a_box_of_the_thought_is_not_stated(tmp_path: Path, answer: str, boxes: list[list[int]]) -> None:
    mllm, script = scripted()
    tokenizer = mllm.processor.tokenizer
    decode = tokenizer.decode

    def spelled(tokens: Any, **options: Any) -> str:
        text = str(decode(tokens, **options))
        for word, box in BOXES.items():
            text = text.replace(word, box)
        return text

    tokenizer.decode = spelled
    data = [picture().replace(boxes=[(28, 28, 56, 56)])]
    study = StatedBoxes(data=data, model=mllm, convention="fractions", indicator=CentrePrior(), generate=8)
    script.say(ids(mllm, f"<think> w90 </think> {answer}"))
    found = study.run(tmp_path, progress=False)
    row = found.samples.iloc[0]
    assert json.loads(row["boxes"]) == boxes
    assert BOXES["w90"] not in row["said"]


@pytest.mark.usefixtures("unchecked")
def test_tokens_without_a_footprint_are_in_no_mean() -> None:
    """Of 20 tokens the last ten have none. Two of the ten others are in the box, with 4 for 1: 4 / (16 / 10)."""
    whole = token_map(sample(0))
    tokens = replace(whole, footprints=np.where(np.arange(20)[:, None] < 10, whole.footprints, np.nan))
    values = np.array([4.0, 4.0] + [1.0] * 8 + [50.0] * 10)
    task: Any = SimpleNamespace(study=SimpleNamespace(rule="touch"))
    boxes = sample(0).boxes
    assert StatedTask._ratio(task, values, tokens, boxes) == pytest.approx(2.5)
    assert np.isnan(StatedTask._ratio(task, values, tokens, ()))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("layers", "mean"), [(None, [2.0, 5.0]), ((3,), [1.0, 6.0]), ((3, 7), [1.5, 3.0])])
def test_the_map_is_the_mean_of_the_layers_asked_for(
    layers: tuple[int, ...] | None, mean: list[float]
) -> None:
    task: Any = SimpleNamespace(study=SimpleNamespace(layers=layers))
    lines = xr.DataArray([[1.0, 6.0], [3.0, 9.0], [2.0, 0.0]], {"layer": [3, 5, 7]}, dims=("layer", "token"))
    other = xr.DataArray([0.5, 0.25], dims="token")  # without layers there is nothing to choose
    maps: Any = [other, lines]
    assert StatedTask._map(task, maps, 1).tolist() == mean
    assert StatedTask._map(task, maps, 0).tolist() == [0.5, 0.25]


def test_masks_are_the_truth_where_there_are_any() -> None:
    """The box covers 40 × 20 of 100 × 80 pixels, the mask a quarter of it."""
    one = sample(0)
    inside = np.zeros((80, 100), bool)
    inside[:10, :20] = True
    assert _truth(one, (100, 80)).sum() == 800
    assert _truth(one.replace(masks=[inside]), (100, 80)).sum() == 200


@pytest.mark.usefixtures("unchecked")
def test_borrowed_boxes_keep_their_relative_place() -> None:
    """The lender's box is on the right half of 100 × 80 pixels, so it is on that of 56 × 56."""
    data = [picture(), sample(0, boxes=[(50, 0, 100, 80)])]
    task: Any = SimpleNamespace(study=SimpleNamespace(data=data), _partners=[1, None])
    (box,) = StatedTask._borrowed(task, 0)
    assert box.as_tuple() == pytest.approx((28, 0, 56, 56))
    assert StatedTask._borrowed(task, 1) == []
