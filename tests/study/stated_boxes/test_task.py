"""Boxes that a model names in its thought are not stated: only those of its answer are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from interp.indicators import CentrePrior
from interp.study import StatedBoxes
from interp.study.stated_boxes.task import StatedTask
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
