"""Which heads, layer and method are chosen, and how that is said, on scores that are given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.data import Samples
from interp.errors import StudyError
from interp.study import ModelSpec
from interp.study.head_ranking.result import HeadResult
from interp.study.head_ranking.study import HeadRanking
from interp.study.layer_sweep.result import Result
from interp.study.layer_sweep.study import LayerSweep
from interp.study.refinement.method_choice import Grounding, best_method, grounding
from tests.study import planted
from tests.study.planted import sample
from tests.study.planted_heads import made, ranking
from tests.study.planted_methods import Swap, named, planted_plain, refinement

__all__ = ["planted_plain"]


def validation(n: int = 4) -> Samples:
    return Samples([sample(number, meta={"split": "validation"}) for number in range(n)], "held out")


def chosen(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    heads: np.ndarray,
    gain: tuple[float, ...],
    **options: Any,
) -> tuple[Grounding, dict[str, Any]]:
    """The choice from heads of these ar and layers of this gain, and what ranking and sweep were asked for."""
    asked: dict[str, Any] = {}
    run = LayerSweep.run

    def rank(study: HeadRanking, out: Any, **more: Any) -> HeadResult:
        asked["ranking"] = study
        found = made(tmp_path / "heads", heads, name="held out", metric=study.metric, heads=8)
        return replace(found, study=ranking(data=study.data, metric=study.metric))

    def sweep(study: LayerSweep, out: Any, **more: Any) -> Result:
        asked["sweep"] = study
        own = planted.sweep(data=study.data, indicator=planted.Planted(gain=gain), metrics=study.metrics)
        return run(own, tmp_path / "layers", progress=False)

    monkeypatch.setattr(HeadRanking, "run", rank)
    monkeypatch.setattr(LayerSweep, "run", sweep)
    options = {"model": ModelSpec("some/model"), "metric": "ar", **options}
    return grounding(validation=validation(), out=tmp_path, **options), asked


def test_an_eighth_of_the_ranked_heads_and_at_most_twenty(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scores = np.arange(40.0)[None] + np.ones((4, 1))
    scores[:, 32:] = np.nan  # eight heads have no score
    found, _ = chosen(monkeypatch, tmp_path / "a", scores, (0.0, 3.0, 1.0))
    assert (found.n_heads, found.heads.k) == (32, 4)
    many, _ = chosen(monkeypatch, tmp_path / "b", np.ones((4, 400)), (0.0, 3.0, 1.0))
    assert (many.n_heads, many.heads.k) == (400, 20)
    few, _ = chosen(monkeypatch, tmp_path / "c", np.ones((4, 3)), (0.0, 3.0, 1.0))
    assert (few.n_heads, few.heads.k) == (3, 1)


@pytest.mark.parametrize(
    ("gain", "layer", "read_layer"),
    [((0.0, 3.0, 1.0), 1, 2), ((0.0, 1.0, 3.0), 2, 2), ((3.0, 0.0, 1.0), 0, 1)],
)
def test_the_layer_read_comes_after_the_masked_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gain: tuple[float, ...], layer: int, read_layer: int
) -> None:
    found, _ = chosen(monkeypatch, tmp_path, np.ones((4, 3)), gain)
    assert (found.layer, found.read_layer) == (layer, read_layer)


def test_how_heads_and_layer_were_chosen_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scores = np.array([[0.5, 2.0, 3.0]]) * np.ones((4, 1))
    found, asked = chosen(monkeypatch, tmp_path, scores, (0.0, 3.0, 1.0), k=2, rule="center", batch=3, seed=7)
    assert found.said.startswith(
        "held out: the top 2 of 3 heads by ar, and layer 1 by attention ratio, on 4 validation samples."
    )
    assert "2 of the top 2 heads and 2 of all 3 are better." in found.said
    assert "no head is better" not in found.said
    assert (found.heads.ranking.rule, found.heads.ranking.batch, found.heads.k) == ("center", 3, 2)
    assert (asked["sweep"].rule, asked["sweep"].batch, asked["sweep"].seed) == ("center", 3, 7)
    assert found.top(3).k == 3
    assert found.top(3).ranking is found.heads.ranking


def test_heads_no_better_than_even_are_called_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, _ = chosen(monkeypatch, tmp_path, np.full((4, 3), 0.5), (0.0, 3.0, 1.0))
    assert "no head is better than a uniform map" in found.said
    assert "0 of the top 1 heads and 0 of all 3 are better." in found.said


def test_a_published_set_says_how_many_and_whence() -> None:
    model = ModelSpec("FreedomIntelligence/HuatuoGPT-Vision-7B-hf")
    whole, five = (grounding(model, None, k=k) for k in (None, 5))
    assert five.said.startswith("5 published heads, layer 16 (")
    assert five.heads.pairs == whole.heads.pairs[:5]
    assert (five.heads.name, five.heads.source) == (whole.heads.name, whole.heads.source)
    assert (five.top(2).name, five.top(2).source) == (whole.heads.name, whole.heads.source)


def test_no_samples_are_no_validation_samples() -> None:
    with pytest.raises(StudyError, match=r"no heads are published for some/model.*but there are none"):
        grounding(ModelSpec("some/model"), Samples([], "nothing"))


@pytest.mark.usefixtures("unchecked")
def test_of_equal_accuracies_the_likelier_answer_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [
        ("first", "correct", 0.5),
        ("second", "correct", 0.75),
        ("third", "correct", 0.75),
        ("fourth", "correct", 0.75),
        ("first", "logprob", -0.1),
        ("second", "logprob", -3.0),
        ("third", "logprob", -2.0),
        ("fourth", "logprob", -2.0),
    ]
    table = pd.DataFrame(rows, columns=["method", "measure", "after"]).assign(before=9.0)
    given = SimpleNamespace(summary=lambda: table)
    monkeypatch.setattr("interp.study.grid.Grid.run", lambda *_, **__: given)
    methods = {name: Swap(changes=named(place)) for place, name in enumerate(("first", "second", "third"))}
    methods["fourth"] = Swap(changes=named(9))
    best, found = best_method(refinement(data=validation()), methods, out=tmp_path)
    assert best is methods["third"]
    assert found is given


def test_what_the_paper_did_not_publish_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = ModelSpec("FreedomIntelligence/HuatuoGPT-Vision-34B")
    found, _ = chosen(monkeypatch, tmp_path, np.ones((4, 3)), (0.0, 3.0, 1.0), model=model)
    assert "The paper masks several layers of this model" in found.said
