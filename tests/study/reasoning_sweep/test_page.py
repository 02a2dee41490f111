"""What the page of a reasoning sweep says of each sample, on runs whose tables are written by hand."""

from __future__ import annotations

import html
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.study.reasoning_sweep.page import _examples, _until, figures
from interp.study.reasoning_sweep.task import SHARES, ReasoningTask
from tests.study.planted import samples

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.parametrize(
    ("until", "said"),
    [
        (0.0, "no longer matters from the first sentence on."),
        (0.25, "no longer matters after 25 % of the sentences."),
        (1.0, "no longer matters after 100 % of the sentences."),
        (float("nan"), "matters to the end, even from the answer alone."),
    ],
)
def test_it_says_when_the_image_stops_mattering(until: float, said: str) -> None:
    assert _until(until) == f"Hiding the image {said}"


def cell(model: str, n: int) -> Any:
    """A run of n samples with a sentence and an answer each."""
    data = samples(n)
    rows = {
        "index": range(n), "sample": [one.id for one in data], "group": data.groups, "question": "?",
        "answer": "left", "said": "right", "correct": False, "until": 0.0,
    }  # fmt: skip
    lines = pd.DataFrame(
        [
            {"index": i, "sentence": k, "text": text, "change": change}
            for i in range(n)
            for k, (text, change) in enumerate((("<i>so", -float(i) - 0.5), (None, 0.25)))
        ]
    )
    labels = {"model": model, "data": "thoughts"}
    return SimpleNamespace(
        labels=labels, key=tuple(labels.values()), measured=n > 0, study=SimpleNamespace(data=data),
        frame=lambda _: lines, named_frame=lambda _: pd.DataFrame(rows).assign(**labels),
    )  # fmt: skip


def text(markup: object) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", str(markup))).split())


def test_first_samples_are_shown_with_their_own_sentences() -> None:
    result: Any = SimpleNamespace(cells=[cell("one", 5), cell("none", 0), cell("two", 1)])
    first, second = map(text, _examples(result))
    assert first.count("Which side") == 3
    assert second.count("Which side") == 1
    for i, change in enumerate(("−0.50", "−1.50", "−2.50")):
        assert f"s{i}" in first
        assert first.count(f"<i>so {change} (the answer alone) +0.25") == 1
    assert "left" in second
    assert "right" in second


def test_a_line_is_drawn_over_shares_for_each_run() -> None:
    means = {"one": -1.0, "two": -2.0}
    labels = [{"model": model, "data": "d"} for model in means]
    keys = [
        {**own, "seen": seen, "measure": m}
        for own in labels
        for seen in SHARES
        for m in ("logprob", "change")
    ]
    frame = pd.DataFrame(keys)
    value = frame.model.map(means) * (1 - frame.seen) - 9 * (frame.measure == "logprob")
    summary = frame.assign(
        mean=value, low=value - 1, high=value + 1, n=30, n_groups=30, n_undefined=0, note=""
    )
    cells = [SimpleNamespace(labels=own, key=tuple(own.values()), measured=True) for own in labels]
    scores = frame.assign(value=value, group="g", sample="s")
    result: Any = SimpleNamespace(cells=cells, summary=lambda: summary, scores=scores)
    figure = figures(result)["change"]
    named = [
        trace for trace in figure.data if trace.name == "image hidden from there on" and trace.line.width
    ]
    assert [note.text for note in figure.layout.annotations] == ["one · d", "two · d"]
    lines = [trace for trace in named if len(trace.x) == len(SHARES)]
    assert [list(trace.x) for trace in lines[:2]] == [list(SHARES)] * len(lines[:2])
    np.testing.assert_allclose(lines[0].y, [seen - 1 for seen in SHARES])
    np.testing.assert_allclose(lines[-1].y, [2 * seen - 2 for seen in SHARES])


def test_given_thoughts_are_part_of_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.study import ReasoningSweep
    from interp.study.task import StudyTask

    monkeypatch.setattr(StudyTask, "to_dict", lambda _: {})

    def told(*thoughts: Any, **fields: Any) -> dict[str, Any]:
        data = [
            one.replace(meta={"reasoning": t})
            for one, t in zip(samples(len(thoughts)), thoughts, strict=True)
        ]
        task: Any = object.__new__(ReasoningTask)
        task.study = ReasoningSweep(data=data, **fields)
        return task.to_dict()

    own = told("a", "b", thoughts="given")
    assert own != told("b", "a", thoughts="given")
    assert told("a") == told("b")  # its own thoughts need none
    for change in ({"batch": 3}, {"max_new_tokens": 9}, {"answer_tokens": 3}):
        assert told("a", **change) != told("a")
    assert told("a", seed=3) == told("a")  # of the intervals alone
