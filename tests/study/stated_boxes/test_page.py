"""What the page of stated boxes tells of each sample and each run, on runs whose tables are written by hand."""

from __future__ import annotations

import html
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageColor

from interp.inputs.prompt import PAPER_PROMPT
from interp.study.stated_boxes import page
from interp.study.stated_boxes.page import COLOUR, _short, _told, _unparsed, _with_stated

pytestmark = pytest.mark.usefixtures("unchecked")


def text(markup: object) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", str(markup))).split())


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ('["nodule", "a lung"]', "boxes read: 2 (nodule, a lung); unparsed: 1"),
        ('[null, "lung"]', "boxes read: 2 (lung); unparsed: 1"),
        ("[null, null]", "boxes read: 2; unparsed: 1"),
    ],
)
def test_boxes_are_counted_with_the_labels_that_they_have(labels: str, said: str) -> None:
    assert _told({"labels": labels, "n_stated": 2, "n_unparsed": 1}) == said


def test_a_long_answer_is_cut_and_none_is_said() -> None:
    assert _short(None) == _short(float("nan")) == "(nothing)"
    assert _short("x" * 160) == "x" * 160
    assert _short("x" * 161) == "x" * 159 + "…"


def cell(model: str, n_stated: list[int], n_unparsed: list[int]) -> Any:
    frame = pd.DataFrame(
        {
            "sample": [f"{model}{i}" for i in range(len(n_stated))],
            "n_stated": n_stated,
            "n_unparsed": n_unparsed,
            "unparsed": [f"reason {i}: <box>" for i in range(len(n_stated))],
        }
    )
    return SimpleNamespace(key=(model, "four"), measured=bool(n_stated), frame=lambda _: frame)


def test_what_could_not_be_read_is_told_run_by_run() -> None:
    """Of four samples two have three unread parts; a third has no box at all, and the fourth has one."""
    one, silent = cell("a", [1, 0, 0, 1], [1, 2, 0, 0]), cell("b", [0, 0], [0, 0])
    said = [text(part) for part in _unparsed(SimpleNamespace(cells=[one]))]  # pyright: ignore[reportArgumentType]
    assert said == [
        "3 parts in 2 of 4 samples. 1 other sample without any box.",
        "sample reason and text a0 reason 0: <box> a1 reason 1: <box>",
    ]
    both: Any = SimpleNamespace(cells=[one, silent, cell("c", [], [])])
    told = [text(part) for part in _unparsed(both)]
    assert told[0].startswith("a · four: 3 parts in 2 of 4")
    assert told[2:] == ["b · four: 0 parts in 0 of 2 samples. 2 other samples without any box."]


def test_every_stated_box_is_drawn_on_its_image() -> None:
    """Two images of 40 × 20 and 80 × 20 pixels; the second is shown at half its width."""
    boxes = [[0, 0, 20, 10], [40, 10, 80, 20]]
    drawn = _with_stated(lambda _: Image.new("RGB", (40, 20)), boxes, [(40, 20), (80, 20)], 1)
    found = (np.asarray(drawn) == ImageColor.getrgb(COLOUR)).all(axis=-1)
    assert found[0, :10].all()
    assert found[19, 20:].all()
    assert not found[:10, 11:].any()
    assert not found[10:, :20].any()


def test_at_most_ten_unread_parts_are_listed() -> None:
    (_, listed) = map(text, _unparsed(SimpleNamespace(cells=[cell("a", [0] * 12, [1] * 12)])))  # pyright: ignore
    assert re.findall(r"a\d+", listed) == [f"a{i}" for i in range(10)]


def test_the_origin_gives_the_convention_and_the_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.json").write_text('{"convention": {"name": "qwen2_5_vl"}}')
    monkeypatch.setattr(page, "origin", lambda _, lines: dict(lines))
    study = SimpleNamespace(
        prompt=PAPER_PROMPT, indicator=3, layers=(1, 2), upsample="nearest", threshold=0.9, rule="center",
        generate=64, seed=5, batch=2,
    )  # fmt: skip
    own: Any = SimpleNamespace(study=study, folder=SimpleNamespace(path=tmp_path))
    told: Any = page._origin(own)
    assert told["upsampling, threshold, rule, tokens, seed, batch"] == "nearest, 0.9, center, 64, 5, 2"
    assert told["indicator, layers"].endswith(", (1, 2)")
    assert "QwenLM" in told["convention"]
    study.layers = None
    (tmp_path / "study.json").write_text('{"convention": {"name": "mine"}}')
    again: Any = page._origin(own)
    assert again["indicator, layers"].endswith(", all")
    assert again["convention"].endswith("; ")
