"""Sweeps of one of two parameters, beside published numbers."""

from __future__ import annotations

import html
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from interp.data import Samples
from interp.errors import StudyError
from interp.study import Grid, RefinementResult
from interp.study.refinement.parameter_sweeps import fixed_values, sweep, write_sweeps
from tests.golden.parsed import Page
from tests.study.planted import sample
from tests.study.planted_methods import Answering, Swap, named, planted_plain, refinement

__all__ = ["planted_plain"]

FIXED = {"k": 4, "percentile": 50.0}


def grid_of(out: Path, data: list[Samples], **changes: Any) -> RefinementResult:
    """k of 1 and 4 by percentiles of 50 and 30: of 20 samples, two are mended by k = 4 and one spoilt at 30."""
    methods = {
        f"k = {k}, p = {p}": Swap(
            changes=named(*(range(2) if k == 4 else ()), *((9,) if p == 30 else ())),
            strength=float(p),
            heads=tuple((0, h) for h in range(k)),
        )
        for k in (4, 1)
        for p in (50, 30)
    }
    study = refinement(model=Answering(wrong=named(0, 1, 2, 3)), batch=10, **changes)
    result = Grid(study, method=methods, data=data).run(out, progress=False)
    names = {"strength": "percentile"}
    parameters = result.parameters.drop(columns="changes").rename(columns=names)
    object.__setattr__(result, "parameters", parameters)
    return result


def twenty(name: str = "planted", **changes: Any) -> Samples:
    return Samples([sample(n, group=f"g{n}", **changes) for n in range(20)], name)


@pytest.fixture
def result(tmp_path: Path) -> RefinementResult:
    return grid_of(tmp_path, [twenty()])


def test_a_sweep_holds_the_other_parameter(result: RefinementResult) -> None:
    by_k, by_percentile = (sweep(result, along, FIXED) for along in FIXED)
    assert by_k[["k", "percentile", "after"]].to_numpy().tolist() == [[1, 50, 0.8], [4, 50, 0.9]]
    assert by_percentile[["k", "percentile", "after"]].to_numpy().tolist() == [[4, 30, 0.85], [4, 50, 0.9]]
    assert set(by_k.measure) == {"correct"}


@pytest.mark.parametrize(
    ("along", "fixed"), [("k", {"k": 4, "strength": 50.0}), ("k", {"k": 4}), ("size", FIXED)]
)
def test_a_sweep_over_other_parameters_is_refused(
    result: RefinementResult, along: str, fixed: dict[str, float]
) -> None:
    with pytest.raises(StudyError, match="the methods here differ in k, percentile"):
        sweep(result, along, fixed)


def test_methods_that_differ_in_one_number_are_no_sweep(tmp_path: Path) -> None:
    methods = {"a": Swap(strength=1.0), "b": Swap(strength=2.0)}
    one = Grid(refinement(), method=methods).run(tmp_path, progress=False)
    with pytest.raises(StudyError, match="over k and percentile; the methods here differ in other things"):
        sweep(one, "k", FIXED)


def test_a_sweep_without_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="the samples have no answers"):
        sweep(grid_of(tmp_path, [twenty(answer=None)]), "k", FIXED)


def test_of_two_values_as_near_the_larger_is_held() -> None:
    assert fixed_values({"k": 20}, {"k": {15.0, 25.0, 40.0}}) == {"k": 25.0}
    assert fixed_values({"k": 20, "percentile": 50}, {"k": {19.0, 90.0}, "percentile": {50.0}}) == {
        "k": 19.0,
        "percentile": 50.0,
    }


def test_the_page_sets_each_parameter_beside_the_papers(result: RefinementResult, tmp_path: Path) -> None:
    columns = ["value", "accuracy"]
    published = {
        name: SimpleNamespace(frame=pd.DataFrame(columns=columns), cells=[[name, number]], note=note)
        for name, number, note in (("k", "70.1", "the mean does not add up"), ("percentile", "66.6", ""))
    }
    path = write_sweeps(result, tmp_path / "page.html", fixed=FIXED, published=published)
    page = Page(path)
    by_k, by_percentile = page.table(r"^\s*k$", "planted"), page.table(r"^\s*p$", "planted")
    assert [[row.cells[0], row.cells[1].split(" (")[0]] for row in by_k.rows] == [
        ["plain model", "80.0"],
        ["1", "80.0"],
        ["4", "90.0"],
    ]
    assert [row.cells[0] for row in by_percentile.rows] == ["plain model", "30", "50"]
    assert by_percentile.rows[1].cells[1].startswith("85.0 (+5.0 [")
    text = " ".join(html.unescape(path.read_text()).split())
    assert text.index("k, at p = 50") < text.index("70.1") < text.index("p, at k = 4") < text.index("66.6")
    assert text.count("Of these numbers:") == 1
    assert "Of these numbers: the mean does not add up." in text
