"""What the task of a refinement reads, takes for the answer and counts as cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

import interp
from interp.data import Samples
from interp.inputs.prompt import GENERIC_PROMPT
from interp.methods import Plain
from interp.study import Refinement
from interp.study.refinement.task import (
    RefinementTask,
    generic_rows,
    last_rows,
    over,
    references,
    repeated,
    resolved,
    spent_columns,
)
from interp.tracing import Cost, Rows, Site
from tests.study.planted import sample, token_map
from tests.study.planted_methods import Swap
from tests.tracing.scripted import picture, scripted

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.parametrize("thinking", [True, False])
def test_a_thoughts_first_token_is_not_the_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thinking: bool
) -> None:
    monkeypatch.setattr(RefinementTask, "_warm", True)  # a warm-up would only take time
    mllm, _ = scripted()
    prompt = interp.Prompt(thinking=thinking)
    study = Refinement(
        data=Samples([picture()], "one"), model=mllm, method=Plain(), prompt=prompt, max_new_tokens=1
    )
    found = study.run(tmp_path, progress=False)
    assert len(found.failures) == 0
    for measure in ("logprob", "probability"):
        own = found.pairs[found.pairs.measure == measure]
        assert np.isnan(own[["before", "after"]].to_numpy(float)).all() == thinking, measure
    assert found.pairs[found.pairs.measure == "correct"].before.notna().all()


class Heard:
    """A model that only listens, and gives the rows that were put in."""

    def __init__(self, *weights: list[float]) -> None:
        self.weights, self.asked = weights, {}

    def trace(self, samples: Any, **asked: Any) -> Any:
        self.asked = asked
        return [SimpleNamespace(rows=xr.DataArray(np.array(own)[None, None])) for own in self.weights]


def test_the_last_row_is_read_at_the_layer_under_the_edits() -> None:
    mllm = Heard([0.25, 0.5], [0.125, 0.0])
    prompt, edit = interp.Prompt(system="be brief"), interp.Knockout(Site(keys="image"))
    rows = last_rows(mllm, [sample(0), sample(1)], prompt, 3, [edit])
    assert [row.tolist() for row in rows] == [[0.25, 0.5], [0.125, 0.0]]
    assert mllm.asked == {
        "prompt": prompt,
        "reads": [Rows(Site(layers=[3], queries="last", keys="image"), reduce="head")],
        "edits": [edit],
    }


def test_a_generic_prompt_keeps_the_order_and_the_system_text() -> None:
    mllm = Heard([1.0])
    prompt = interp.Prompt(template="Say: {question}", image_first=False, system="be brief")
    generic_rows(mllm, [sample(0)], prompt, 2)
    asked = mllm.asked["prompt"]
    assert (asked.image_first, asked.system, asked.template) == (False, "be brief", GENERIC_PROMPT.template)
    assert mllm.asked["edits"] == []


def test_relative_attention_is_question_over_generic() -> None:
    question, generic = (
        [np.array([2.0, 0.5, 0.0]), np.array([1.0])],
        [np.array([4.0, 0.25, 0.0]), np.array([4.0])],
    )
    assert [one.tolist() for one in over(question, generic)] == [[0.5, 2.0, 0.0], [0.25]]


def test_edits_are_repeated_where_a_method_gives_them() -> None:
    class Edits:
        def repeat(self, mllm: Any, answers: Any) -> Any:
            return (mllm, *answers)

    assert repeated(Edits(), 1, [2, 3]) == [1, 2, 3]
    assert repeated(object(), 1, [2, 3]) is None


def test_only_fields_that_resolve_are_references(tmp_path: Path) -> None:
    class Reference:
        def resolve(self, out: Path, **options: Any) -> Any:
            return out, options

    heads = Reference()
    method = Swap(heads=heads)
    assert references(method) == {"heads": heads}
    assert references(Swap()) == references(heads) == {}
    found = resolved(method, tmp_path, workers=2)
    assert found == Swap(heads=(tmp_path, {"workers": 2}))
    assert method.heads is heads


def test_costs_are_kept_by_side() -> None:
    spent, plain, method = (Cost(float(n), 1000 * n, 10 * n, n, 100 * n) for n in (1, 2, 3))
    assert spent_columns(spent, plain, method) == {
        "seconds": 1.0,
        "peak_bytes": 1000.0,
        "forwards": 10.0,
        "backwards": 1.0,
        "tokens": 100.0,
        "plain_seconds": 2.0,
        "plain_forwards": 20.0,
        "plain_backwards": 2.0,
        "plain_tokens": 200.0,
        "method_seconds": 3.0,
        "method_forwards": 30.0,
        "method_backwards": 3.0,
        "method_tokens": 300.0,
    }


def test_a_ratio_is_of_the_tokens_that_see_something() -> None:
    """Sample 0's box is over tokens 0 and 1 of 20; token 0 has no footprint, so 1 of 19 is inside."""
    one = sample(0)
    tokens = token_map(one)
    footprints = tokens.footprints.copy()
    footprints[0] = np.nan
    weights = np.ones(20)
    weights[0], weights[1] = 50.0, 3.0
    own: Any = SimpleNamespace(study=SimpleNamespace(data=[sample(9), one]))
    (row,) = RefinementTask._ratios(own, 1, replace(tokens, footprints=footprints), {"after": weights})
    assert (row["index"], row["measure"], row["when"]) == (1, "ar", "after")
    assert row["value"] == pytest.approx(3 / (21 / 19))
