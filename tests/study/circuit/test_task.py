"""The order of edges, the images that are tried, and the rows of a circuit, without a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from interp.errors import SampleError, StudyError
from interp.study import Circuit
from interp.study.circuit import task
from interp.study.circuit.page import _places
from interp.study.circuit.result import CircuitResult
from interp.study.circuit.task import CircuitTask, _edges, _kept
from tests.study.planted import Model, samples

pytestmark = pytest.mark.usefixtures("unchecked")

GRAPH: Any = SimpleNamespace(
    sources=["image", "L0H0"], receivers=["L0H0", "answer"], edges=np.array([[True, True], [False, True]])
)
EFFECTS = np.array([[1.0, -3.0], [5.0, 2.0]])


def order_of(graph: Any) -> list[int]:
    own: Any = SimpleNamespace(
        study=SimpleNamespace(graph=graph), mllm=SimpleNamespace(n_layers=1, n_heads=1)
    )
    return CircuitTask._order(own, GRAPH, EFFECTS).tolist()


def test_edges_stand_by_size_of_effect_and_others_are_none() -> None:
    assert order_of(None) == [1, 3, 0]  # |−3|, 2, 1; the largest is of no edge


def test_a_given_graph_keeps_its_order() -> None:
    assert order_of((("L0H0", "answer"), ("image", "L0H0"))) == [3, 0]
    with pytest.raises(StudyError, match="no edge from 'L0H0' to 'L0H0'"):
        order_of((("L0H0", "L0H0"),))
    with pytest.raises(StudyError, match="no edge from 'answer' to 'image'"):
        order_of((("answer", "image"),))


def test_an_edges_row_has_its_names_and_both_effects() -> None:
    exact = np.array([[np.nan, -2.5], [np.nan, np.nan]])
    rows = list(_edges(7, GRAPH, GRAPH.edges, EFFECTS, exact))
    assert [(row["index"], row["source"], row["receiver"], row["effect"]) for row in rows] == [
        (7, "image", "L0H0", 1.0),
        (7, "image", "answer", -3.0),
        (7, "L0H0", "answer", 2.0),
    ]
    np.testing.assert_array_equal([row["exact"] for row in rows], [np.nan, -2.5, np.nan])
    assert _kept(GRAPH.edges, np.array([1, 3])).tolist() == [[False, True], [False, True]]


def tries(monkeypatch: pytest.MonkeyPatch, lenders: list[int], fits: int) -> tuple[int, list[int]]:
    """The lender that was taken, where only one fits (−1: none was), and all that were tried."""
    tried: list[int] = []

    def of(mllm: Any, batch: Any, other: Any, *args: Any, **options: Any) -> str:
        assert batch == (3, 3)
        tried.append(other[1])
        if other[1] != fits:
            raise SampleError(f"not {other[1]}")
        return "found"

    monkeypatch.setattr(task.EdgePass, "of", of)
    own: Any = SimpleNamespace(
        _run_layers=None, _asked=lambda *at: at, _lenders=lambda _: lenders, _more=lambda *_: [], mllm=None
    )
    own.study = SimpleNamespace(against="image")
    meter: Any = None
    if fits in lenders[:6]:
        return CircuitTask._pass(own, 3, meter)[0], tried
    with pytest.raises(SampleError, match=r"not 25|no other sample has one image"):
        CircuitTask._pass(own, 3, meter)
    return -1, tried


def test_images_are_tried_until_one_fits_and_at_most_six(monkeypatch: pytest.MonkeyPatch) -> None:
    lenders = list(range(20, 30))
    assert tries(monkeypatch, lenders, 22) == (22, [20, 21, 22])
    assert tries(monkeypatch, lenders, 25) == (25, [20, 21, 22, 23, 24, 25])
    assert tries(monkeypatch, lenders, 26) == (-1, [20, 21, 22, 23, 24, 25])
    assert tries(monkeypatch, [], 1) == (-1, [])


@pytest.mark.parametrize(("against", "found"), [("mean", [11, 13]), ("image", [])])
def test_a_mean_is_over_prompts_as_long(against: str, found: list[int]) -> None:
    def batch(lender: int) -> Any:
        return SimpleNamespace(lender=lender, tokens=[SimpleNamespace(length=24 + lender % 2)])

    own: Any = SimpleNamespace(study=SimpleNamespace(against=against, n_images=3))
    own._asked = lambda index, lender: batch(lender)
    more = CircuitTask._more(own, 1, [10, 11, 12, 13, 15], batch(1))
    assert [one.lender for one in more] == found


def test_a_graph_and_its_heads_are_of_one_run() -> None:
    several: Any = SimpleNamespace(cells=(1, 2))
    with pytest.raises(StudyError, match="a graph is of one run; this result has 2"):
        CircuitResult.graph(several, 1)


def test_nodes_stand_by_layer_and_head_and_ends_outside() -> None:
    places = _places(["image", "L02H03", "L00H11", "L01MLP", "answer", "text"])
    assert places == {
        "L02H03": (2.0, 3.0),
        "L00H11": (0.0, 11.0),
        "L01MLP": (1.5, 12.5),
        "image": (-1.0, 6.25),
        "text": (-1.0, 0.0),
        "answer": (3.0, 6.25),
    }


def test_a_graph_and_sizes_are_kept_as_values() -> None:
    data = samples(2)
    study = Circuit(data=data, graph=[["image", "L0H0"], ("L0H0", "answer")], sizes=[0, 7, 7])
    assert study.graph == (("image", "L0H0"), ("L0H0", "answer"))
    assert study.sizes == (0, 7)
    assert Circuit(data=data).graph is None


def test_the_number_of_images_is_in_the_hash_of_a_mean_alone() -> None:
    def told(**changes: Any) -> dict[str, Any]:
        study = Circuit(data=samples(2), model=Model(), **changes)
        return CircuitTask(study, Model()).to_dict()

    assert told(n_images=4) == told(n_images=5)
    assert told(against="mean", n_images=4) != told(against="mean", n_images=5)
    base = told()
    changes: list[dict[str, Any]] = [
        {"against": "zero"}, {"sizes": [5]}, {"exact": 1}, {"graph": [("image", "answer")]}, {"seed": 1},
        {"executor": "transformer_lens"},
    ]  # fmt: skip
    assert all(told(**change) != base for change in changes)
