"""Sentences, tables and the page of knockout sweeps whose every probability is given."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from interp.data import Samples
from interp.errors import StudyError
from interp.run import RunFolder
from interp.run.task import FAILURE_SCHEMA
from interp.stats import bootstrap
from interp.study import KnockoutResult, KnockoutSweep
from interp.study.knockout_sweep.result import passes_frame
from interp.study.knockout_sweep.task import PASSES, SAMPLES, SIZES
from interp.study.runs import GridCell
from tests.golden.parsed import Page
from tests.study.planted import Model, sample

WINDOWS = {0: (0, 1), 1: (0, 2), 2: (2, 2)}
"""Centre of each window → its ends."""
FLOWS = ("question→last", "image→last", "box→last", "elsewhere→last")
Changes = Mapping[tuple[str, int], float | Sequence[float]]


def result_of(
    out: Path,
    changes: Changes,
    *,
    n: int = 20,
    n_groups: int = 20,
    wrong: Mapping[tuple[str, int], int] | None = None,
    right: int | None = None,
    name: str = "planted",
    **options: Any,
) -> KnockoutResult:
    """Probabilities of 0.5 that change by so many percent, by flow and layer, or by flow, layer and head.

    All samples are answered, the first `right` of them rightly; a flow in `wrong` spoils the first so many answers.
    """
    data = Samples([sample(i, group=f"{name}{i % n_groups}") for i in range(n)], name)
    study = KnockoutSweep(data=data, model=Model(), flows=FLOWS, **options)
    folder = RunFolder.create(out, name, {"changes": str(changes), "n": n, "options": str(options)})
    rights = [i < (n if right is None else right) for i in range(n)]
    passes = []
    for place, change in changes.items():
        flow, layer, *head = place
        first, last = WINDOWS[layer] if study.by == "layer window" else (layer, layer)
        for i, percent in enumerate(np.broadcast_to(change, n)):
            spoilt = i < (wrong or {}).get(place, 0)
            passes.append(
                {"index": i, "flow": flow, "layer": layer, "head": head[0] if head else None}
                | {"first": first, "last": last, "logprob": math.log(0.5 * (1 + percent / 100))}
                | {"correct": rights[i] and not spoilt, "flipped": spoilt}
            )
    samples = [
        {"index": i, "sample": one.id, "group": one.group, "question": one.question, "answer": one.answer}
        | {
            "predicted": "left",
            "token": "left",
            "token_id": 2,
            "correct": rights[i],
            "logprob": math.log(0.5),
        }
        | {"n_tokens": 20, "n_prefix": 20, "n_prompt": 24}
        for i, one in enumerate(data)
    ]
    flows = dict.fromkeys(place[0] for place in changes)
    sizes = [{"index": i, "flow": flow, "n_queries": 1, "n_keys": 2} for i in range(n) for flow in flows]
    for table, rows, schema in (
        ("passes", passes, PASSES),
        ("samples", samples, SAMPLES),
        ("sizes", sizes, SIZES),
    ):
        folder.write_table(table, pa.Table.from_pylist(rows, schema=schema))
    folder.write_table("failures", FAILURE_SCHEMA.empty_table())
    return KnockoutResult(study, (GridCell(study.labels, study, folder),), folder.path)


def ends(values: Sequence[float], digits: int = 1) -> str:
    """“[low, high]” of values that are each a group of their own."""
    found = bootstrap(np.asarray(values, float), [f"planted{i}" for i in range(len(values))])
    return f"[{found.low:.{digits}f}, {found.high:.{digits}f}]".replace("-", "−")


SPREAD = [-40.0, -60.0] * 10


@pytest.fixture
def result(tmp_path: Path) -> KnockoutResult:
    """The image matters most in the middle, the box in the last layer; the question only helps when blocked."""
    changes = {
        ("question→last", 0): 3.0,
        ("question→last", 1): 1.0,
        ("image→last", 0): -20.0,
        ("image→last", 1): SPREAD,
        ("image→last", 2): 10.0,
        ("box→last", 0): -10.0,
        ("box→last", 2): -30.0,
        ("elsewhere→last", 0): -80.0,
        ("elsewhere→last", 2): -4.0,
    }
    wrong = {("image→last", 0): 20, ("image→last", 1): 5, ("box→last", 2): 20}
    return result_of(tmp_path, changes, wrong=wrong)


def test_a_sentence_is_of_the_window_where_a_flow_matters_most(result: KnockoutResult) -> None:
    spoilt = ends([-100.0] * 5 + [0.0] * 15)
    assert result.sentences() == [
        "planted · planted · question→last: nowhere does the mean of p fall by 0.1 % (20 samples).",
        f"planted · planted · image→last: lowest at layers 0–2, p −50.0% {ends(SPREAD)}, accuracy −25.0 points "
        f"{spoilt} (20 samples, 20 groups).",
        "planted · planted · box→last: lowest at layer 2, p −30.0% [−30.0, −30.0], accuracy −100.0 points "
        "[−100.0, −100.0]; as many tokens elsewhere −4.0% [−4.0, −4.0] (20 samples, 20 groups).",
    ]


@pytest.mark.parametrize(("lowest", "falls"), [(-0.05, False), (-0.15, True), (0.15, False), (5.0, False)])
def test_a_mean_has_to_fall_by_a_tenth_of_a_percent(tmp_path: Path, lowest: float, falls: bool) -> None:
    (said,) = result_of(tmp_path, {("image→last", 0): lowest, ("image→last", 1): 20.0}).sentences()
    assert ("nowhere" in said) is not falls
    assert ("lowest at layers 0–1" in said) is falls


def test_few_groups_have_no_interval_in_a_sentence(tmp_path: Path) -> None:
    found = result_of(tmp_path, {("image→last", 0): -20.0}, n=6, n_groups=3)
    (said,) = found.sentences()
    assert said.endswith(
        "p −20.0% (too few groups), accuracy 0.0 points (too few groups) (6 samples, 3 groups)."
    )


def test_a_sentence_counts_the_samples_of_its_own_measure(tmp_path: Path) -> None:
    """Twelve of 20 are right before: probabilities are of these."""
    found = result_of(tmp_path, {("image→last", 0): -20.0}, right=12)
    assert found.sentences()[0].endswith("(12 samples, 12 groups).")
    assert found.n_counted(found.cells[0]) == (12, 20)


def test_a_sentence_names_the_head_and_takes_its_numbers(tmp_path: Path) -> None:
    changes = {
        ("box→last", 0, 0): -5.0,
        ("box→last", 1, 0): -10.0,
        ("box→last", 1, 2): -40.0,
        ("elsewhere→last", 1, 0): -7.0,
        ("elsewhere→last", 1, 2): -2.0,
    }
    found = result_of(tmp_path, changes, wrong={("box→last", 1, 2): 20}, by="head")
    assert found.by_head
    (said,) = found.sentences()
    assert "lowest at layer 1, head 2, p −40.0% [−40.0, −40.0], accuracy −100.0 points" in said
    assert "as many tokens elsewhere −2.0% [−2.0, −2.0]" in said
    rows = found.scores[(found.scores.measure == "relative") & (found.scores.layer == 1)]
    means = rows.groupby(["flow", "head"]).value.mean().round(6).to_dict()
    assert means == {place[::2]: value for place, value in changes.items() if place[1] == 1}


def test_a_control_of_other_layers_is_not_told(tmp_path: Path) -> None:
    changes = {("box→last", 0): -30.0, ("elsewhere→last", 1): -2.0, ("elsewhere→last", 2): -4.0}
    (said,) = result_of(tmp_path, changes).sentences()
    assert "lowest at layers 0–1" in said
    assert "elsewhere" not in said


def test_every_data_set_has_its_own_sentences(tmp_path: Path) -> None:
    found = KnockoutResult.join(
        [
            result_of(tmp_path, {("image→last", 0): -20.0}, name="a"),
            result_of(tmp_path, {("question→last", 1): 1.0, ("image→last", 2): -30.0}, name="b"),
        ]
    )
    assert [said.split(" (")[0] for said in found.sentences()] == [
        "planted · a · image→last: lowest at layers 0–1, p −20.0% [−20.0, −20.0], accuracy 0.0 points [0.0, 0.0]",
        "planted · b · question→last: nowhere does the mean of p fall by 0.1 %",
        "planted · b · image→last: lowest at layer 2, p −30.0% [−30.0, −30.0], accuracy 0.0 points [0.0, 0.0]",
    ]
    tests = found.tests()
    assert tests.groupby("data").flow.unique().map(list).to_dict() == {
        "a": ["image→last"],
        "b": ["question→last", "image→last"],
    }


def test_tests_have_the_level_and_the_seed(tmp_path: Path) -> None:
    changes = {("image→last", 0): np.random.default_rng(0).uniform(-20, 18, 20).tolist()}
    found, other = (result_of(tmp_path, changes, seed=seed) for seed in (0, 2))
    wide, half, seeded = (one.iloc[0] for one in (found.tests(), found.tests(0.5), other.tests()))
    assert half.high - half.low < wide.high - wide.low
    assert (wide.difference, wide.p) == (half.difference, half.p)
    assert seeded.difference == wide.difference
    assert (seeded.low, seeded.high) != (wide.low, wide.high)
    assert seeded.p != wide.p


def lines_of(table: str) -> dict[str, list[str]]:
    """The first word of each line of a table → its cells."""
    cells = (re.split(r"\s*[│┃]\s*", line.strip("│┃ ")) for line in table.splitlines())
    return {one[0]: one[1:] for one in cells if len(one) > 1}


def test_a_table_has_a_line_per_window_and_dashes(result: KnockoutResult) -> None:
    found = lines_of(result.table())
    assert found["layers"] == list(FLOWS)
    assert found["0–1"] == [
        *("+3.0 [3.0, 3.0]", "−20.0 [−20.0, −20.0]", "−10.0 [−10.0, −10.0]", "−80.0 [−80.0, −80.0]")
    ]
    assert found["0–2"] == ["+1.0 [1.0, 1.0]", f"−50.0 {ends(SPREAD)}", "–", "–"]
    assert found["2"] == ["–", "+10.0 [10.0, 10.0]", "−30.0 [−30.0, −30.0]", "−4.0 [−4.0, −4.0]"]
    title = result.table().splitlines()[0].strip()
    assert title == "planted · planted: change of the answer's probability, %, 20 of 20 samples"


def test_a_table_of_another_measure_says_which_and_of_how_many(tmp_path: Path) -> None:
    found = result_of(tmp_path, {("image→last", 0): -50.0}, right=12, wrong={("image→last", 0): 6})
    delta, accuracy = (found.table(measure) for measure in ("delta", "accuracy"))
    said = " ".join((delta + accuracy + found.table("flipped")).split())
    assert "change of the answer's log-probability, nats, 12 of 20 samples; 12 groups are too few" in said
    assert lines_of(delta)["0–1"] == ["−0.7"]
    assert "change of accuracy, percentage points, 20 of 20 samples" in said
    assert lines_of(accuracy)["0–1"][0].startswith("−30.0 [")
    assert "first token changed, % of samples, 20 of 20 samples" in said
    one = result_of(tmp_path, {("image→last", 0): -50.0}, n=2, n_groups=1)
    assert "2 of 2 samples; 1 group is too few for intervals" in " ".join(one.table().split())
    with pytest.raises(StudyError, match=r"one of relative, delta, accuracy, flipped .*; got 'p'"):
        found.table("p")


def test_a_probability_of_zero_has_no_relative_change(tmp_path: Path) -> None:
    """A greedy target counts whatever was right; an answer that was impossible before cannot become less likely."""
    found = result_of(tmp_path, {("image→last", 0): -50.0}, n=3, right=0, target="greedy")
    assert found.passes.counted.tolist() == [True] * 3
    np.testing.assert_allclose(found.passes.relative, -50)
    np.testing.assert_allclose(found.passes.delta, np.log(0.5))
    samples = found.cells[0].named_frame("samples").assign(logprob=[-np.inf, np.log(0.5), np.log(0.25)])
    passes = pd.DataFrame(found.cells[0].frame("passes"))
    both = passes_frame(passes, samples, ["model", "data"], only_right=True)
    np.testing.assert_allclose(both.relative, [np.nan, -50, 0], atol=1e-9)
    assert both.counted.tolist() == [False] * 3


def test_the_page_says_nowhere_where_no_mean_falls(result: KnockoutResult, tmp_path: Path) -> None:
    table = Page(result.report(tmp_path / "page.html")).table("flow", "probability", "accuracy", "layers")
    rows = table.records(flow="flow", layers="layers", probability="probability&%", n="samples")
    assert [(row["flow"], row["layers"]) for row in rows] == [
        *(("question→last", "nowhere"), ("image→last", "0–2"), ("box→last", "2"), ("elsewhere→last", "0–1"))
    ]
    assert rows[0]["probability"] == "+1.0 [1.0, 1.0]"
