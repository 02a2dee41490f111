"""What a benchmark asks, which fields it refuses, and how long its answers are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from interp.errors import StudyError
from interp.methods import Plain
from interp.metrics.scorers import OpenRecall, Strict
from interp.study import BenchmarkResult, paper_table
from interp.tracing import Knockout, Site
from tests.study.benchmark.planted_benchmark import benchmark
from tests.study.planted_methods import Swap

pytestmark = pytest.mark.usefixtures("unchecked")
CUT = Knockout(Site(queries="after_image", keys="image"))


def test_a_benchmark_asks_whether_the_change_helps() -> None:
    plain, method, edits = benchmark(method=Plain()), benchmark(), benchmark(method=Plain(), edits=[CUT, CUT])
    assert [one.changes for one in (plain, method, edits)] == [False, True, True]
    assert plain.question == "How often is the model right?"
    assert method.question == "Is the model right more often with Swap than without?"
    assert edits.question == "Is the model right more often with Knockout than without?"
    assert [one.labels["method"] for one in (plain, method, edits)] == ["Plain", "Swap", "Knockout"]
    assert list(plain.labels) == ["model", "data", "method"]


def test_one_scorer_or_edit_is_a_list_of_one() -> None:
    study = benchmark(method=Plain(), edits=CUT, scorer=OpenRecall())
    assert (study.edits, study.scorer) == ((CUT,), (OpenRecall(),))
    assert benchmark(scorer="strict").scorer == (Strict(),)


def cell(*texts: Any, limit: int = 4) -> tuple[Any, pd.DataFrame]:
    labels = {"model": "m", "data": "d"}
    frame = pd.DataFrame(
        {**{a: [b] * len(texts) for a, b in labels.items()}, "text_before": "x", "text_after": texts}
    )
    return SimpleNamespace(labels=labels, study=SimpleNamespace(max_new_tokens=limit)), frame


def lengths(*texts: Any) -> list[dict[str, Any]]:
    own, frame = cell(*texts)
    made: Any = SimpleNamespace(cells=[own], samples=frame)
    return BenchmarkResult.lengths(made).to_dict("records")


def test_lengths_count_words_of_the_answers_that_came() -> None:
    before, after = lengths("two words", "", None, "three more words", float("nan"))
    assert (before["when"], before["n"], before["n_missing"], before["n_empty"]) == ("before", 5, 0, 0)
    assert after == {
        "model": "m", "data": "d", "when": "after", "n": 5, "n_missing": 2, "n_empty": 1,
        "mean_words": pytest.approx(5 / 3), "max_words": 3, "limit": 4,
    }  # fmt: skip
    _, nothing = lengths(None)
    assert pd.isna(nothing["mean_words"])
    assert nothing["max_words"] == 0


def written(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[Any]]:
    """A result that keeps which published tables its page is given."""
    made: Any = object.__new__(BenchmarkResult)
    kept: list[Any] = []
    monkeypatch.setattr(BenchmarkResult, "_write", lambda _, path, *, beside: kept.append((path, beside)))
    return made, kept


def test_published_tables_are_taken_by_name_or_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    made, kept = written(monkeypatch)
    own = paper_table("2")
    made.report("page.html", beside=["1", own])
    ((path, beside),) = kept
    assert path == "page.html"
    assert [one.name for one in beside] == ["1", "2"]
    assert beside[1] is own
    for wrong in ("1", 1, {"1"}):
        with pytest.raises(StudyError, match="beside is a list of published tables, such as"):
            made.report(beside=wrong)


def test_a_measure_is_one_of_the_scorers(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = object.__new__(BenchmarkResult)
    studies = [benchmark(scorer=(Strict(), OpenRecall())), benchmark(method=Swap(), scorer=OpenRecall())]
    object.__setattr__(made, "cells", tuple(SimpleNamespace(study=study) for study in studies))
    assert dict(made.measure_names) == {"strict": "accuracy", "recall": "recall"}
    assert [made._known(one) for one in (None, "recall")] == ["strict", "recall"]
    for wrong in ("bleu", 3):
        with pytest.raises(StudyError, match=f"measure is one of strict, recall; got {wrong!r}"):
            made._known(wrong)
    assert made.is_plain(SimpleNamespace(study=benchmark(method=Plain())))
    assert not made.is_plain(SimpleNamespace(study=benchmark()))
