"""Boxes that a model names in its thought are not stated: only those of its answer are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from interp.indicators import CentrePrior
from interp.study import StatedBoxes
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
