"""Comparing methods, groups, joined results, what differs between methods, and what is chosen on validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.data import Samples, bundled
from interp.errors import StudyError
from interp.indicators import Attention
from interp.inputs.prompt import GENERIC_PROMPT
from interp.stats import holm, paired_test
from interp.study import Grid, ModelSpec, RefinementResult
from interp.study.dataframes import records
from interp.study.refinement.method_choice import Grounding, best_method, grounding
from interp.study.refinement.method_comparison import change
from interp.study.refinement.parameter_sweeps import fixed_values
from interp.study.refinement.result import numeric_pair, varied
from interp.tracing import load
from tests.study.planted import sample, samples
from tests.study.planted_methods import Answering, Swap, named, planted_plain, refinement

__all__ = ["planted_plain"]

METHODS = {
    "none": Swap(),
    "helps": Swap(changes=named(0, 1, 2)),
    "hurts": Swap(changes=named(8, 9, 10, 11)),
}


@pytest.fixture
def result(tmp_path: Path) -> RefinementResult:
    study = refinement(model=Answering(wrong=named(0, 1, 2, 3)), batch=4)
    return Grid(study, method=METHODS).run(tmp_path, progress=False)


def test_methods_are_compared_on_the_same_samples_with_holms_p(result: RefinementResult) -> None:
    found = {(row["a"], row["b"]): row for row in records(result.compare("correct"))}
    assert list(found) == [("none", "helps"), ("none", "hurts"), ("helps", "hurts")]
    last = found["helps", "hurts"]
    assert (last["mean_a"], last["mean_b"]) == (pytest.approx(11 / 12), pytest.approx(4 / 12))
    assert last["difference"] == pytest.approx(7 / 12)
    assert (last["only_a_right"], last["only_b_right"], last["left_out"]) == (7, 0, 0)
    helps = np.array([1, 1, 1, 0, *np.ones(8)])
    hurts = np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0])
    groups = [f"g{number // 2}" for number in range(12)]
    assert last["p"] == pytest.approx(paired_test(helps, hurts, groups).p)
    ps = [row["p"] for row in found.values()]
    assert [row["p_holm"] for row in found.values()] == pytest.approx(holm(ps).tolist())


def test_holm_in_the_summary_goes_measure_by_measure(result: RefinementResult) -> None:
    summary = result.summary()
    for measure in ("correct", "logprob", "probability"):
        own = summary[summary.measure == measure]
        assert len(own) == 3
        assert own.p_holm.tolist() == pytest.approx(holm(own.p.to_numpy()).tolist())


def test_a_sample_missing_on_one_side_is_left_out_of_the_pair(tmp_path: Path) -> None:
    methods = {"a": Swap(fails=named(1)), "b": Swap(changes=named(1))}
    result = Grid(refinement(), method=methods).run(tmp_path, progress=False)
    row = records(result.compare("correct"))[0]
    assert (row["n"], row["left_out"], row["difference"]) == (11, 1, 0)


def test_group_by_group_where_groups_are_few(result: RefinementResult) -> None:
    """Groups are pairs of samples: s0, s1 are both wrong before; s2 of the second turns right, s3 stays wrong."""
    rows = [row for row in records(result.per_group()) if row["method"] == "helps"]
    assert [row["group"] for row in rows] == [f"patient-{number}" for number in range(6)]
    assert [(row["before"], row["after"], row["n"]) for row in rows[:3]] == [
        (0, 1, 2),
        (0, 0.5, 2),
        (1, 1, 2),
    ]


def test_no_groups_are_listed_where_there_are_enough(tmp_path: Path) -> None:
    data = Samples([sample(number, group=f"g{number}") for number in range(20)])
    assert refinement(data=data, batch=10).run(tmp_path, progress=False).per_group().empty


def test_results_of_several_data_sets_are_joined(tmp_path: Path) -> None:
    parts = [
        refinement(data=samples(4, name=name, start=start)).run(tmp_path, progress=False)
        for name, start in (("a", 0), ("b", 20))
    ]
    joined = RefinementResult.join(parts)
    assert [cell.labels["data"] for cell in joined.cells] == ["a", "b"]
    assert len(joined.frame) == 16
    assert joined.summary().data.tolist() == ["a"] * 3 + ["b"] * 3
    with pytest.raises(StudyError, match="got two cells of the same labels"):
        RefinementResult.join([parts[0], parts[0]])
    grid = Grid(refinement(), batch=[2, 4]).run(tmp_path, progress=False)
    with pytest.raises(StudyError, match=r"join takes results of the same axes"):
        RefinementResult.join([parts[0], grid])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "ar"}, "measure is one of correct, logprob, probability; got 'ar'"),
        ({"over": "layer"}, "over is one of the axes model, data, method"),
        ({"over": "data"}, "nothing to compare over data"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    result: RefinementResult, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        result.compare(**options)


def test_parameters_are_those_that_differ_between_methods() -> None:
    methods = [
        {"method": "V", "heads": [[0, 1]] * k, "percentile": p, "layers": [3], "mode": "zero"}
        for k in (1, 5)
        for p in (30.0, 50.0)
    ]
    table = varied([({"method": str(place)}, method) for place, method in enumerate(methods)])
    assert list(table.columns) == ["method", "k", "percentile"]
    assert table[["k", "percentile"]].to_numpy().tolist() == [[1, 30], [1, 50], [5, 30], [5, 50]]
    assert numeric_pair(table, ["method"]) == ("k", "percentile")


def test_methods_that_differ_in_words_make_no_pair_of_numbers() -> None:
    methods = [{"mode": "zero", "percentile": 30.0}, {"mode": "renormalise", "percentile": 50.0}]
    table = varied([({"method": str(place)}, method) for place, method in enumerate(methods)])
    assert numeric_pair(table, ["method"]) is None
    one = varied([({"method": "a"}, {"k": 1}), ({"method": "b"}, {"k": 2})])
    assert numeric_pair(one, ["method"]) is None


def validation(n: int = 12) -> Samples:
    return Samples([sample(number, meta={"split": "validation"}) for number in range(n)], "validation")


def test_the_best_method_has_the_best_accuracy_then_log_p(tmp_path: Path) -> None:
    study = refinement(data=validation(), model=Answering(wrong=named(0, 1, 2)))
    best, _ = best_method(study, METHODS, out=tmp_path)
    assert best == METHODS["helps"]
    tie = {"first": Swap(changes=named(0, 5)), "second": Swap(changes=named(1, 6), rules_out=())}
    assert best_method(study, tie, out=tmp_path)[0] == tie["first"]  # equal in both: the order given


def test_nothing_is_chosen_on_test_samples_or_without_answers(tmp_path: Path) -> None:
    test = Samples([sample(0, meta={"split": "test"})], "held out")
    with pytest.raises(
        StudyError, match="expected samples of a validation split to choose a method's parameters"
    ):
        best_method(refinement(data=test), METHODS, out=tmp_path)
    mute = Samples([sample(number, answer=None) for number in range(2)], "mute")
    with pytest.raises(StudyError, match="the samples of mute have no answers"):
        best_method(refinement(data=mute), METHODS, out=tmp_path)


def test_published_heads_need_no_validation_samples() -> None:
    found = grounding(ModelSpec("FreedomIntelligence/HuatuoGPT-Vision-7B-hf"), None)
    assert (len(found.heads), found.layer, found.read_layer, found.n_heads) == (20, 16, 17, 20)
    assert found.top(2).pairs == ((15, 4), (16, 5))
    assert "published" in found.said
    with pytest.raises(
        StudyError, match="no heads are published for FreedomIntelligence/HuatuoGPT-Vision-7B-Qwen2"
    ):
        grounding(ModelSpec("FreedomIntelligence/HuatuoGPT-Vision-7B-Qwen2.5VL"), None)


def test_heads_and_layer_are_found_on_validation_samples(tmp_path: Path) -> None:
    data = bundled("natural", split="validation", n=6)
    found: Grounding = grounding(ModelSpec("organism"), data, out=tmp_path, k=3, metric="ar")
    assert found.n_heads == 48
    assert found.heads.k == 3
    assert found.top(5).k == 5
    assert found.read_layer == min(found.layer + 1, 5)
    assert "the top 3 of 48 heads by ar" in found.said
    with pytest.raises(StudyError, match="validation split to choose heads and a layer"):
        grounding(ModelSpec("organism"), bundled("natural", n=2), out=tmp_path)
    lowest: Grounding = grounding(
        ModelSpec("organism"), data, out=tmp_path, k=3, metric="ar", layer_by="kl", rule="stretch"
    )
    assert lowest.layer == layer_of_lowest_kl(data)
    assert f"layer {lowest.layer} by KL divergence" in lowest.said


def layer_of_lowest_kl(data: Samples) -> int:
    """The paper's choice by its official formula, in numpy: Σ G ln(G/Â), both clipped to [1e-12, 1]."""
    maps, means = Attention(relative_to=GENERIC_PROMPT)(load("organism"), list(data)), []
    for one, found, tokens in zip(data, maps, maps.tokens, strict=True):
        (width, height), (rows, columns) = one.sizes[0], tokens.grid
        inside = np.zeros((rows, columns))
        for box in one.boxes:
            x, y = columns / width, rows / height
            left, top = int(np.floor(box.x0 * x)), int(np.floor(box.y0 * y))
            right, bottom = (int(np.ceil(edge)) for edge in (box.x1 * x, box.y1 * y))
            inside[top:bottom, left:right] = 1
        g = np.clip(inside.ravel() / inside.sum(), 1e-12, 1)
        shares = found.values / (found.values.sum(axis=1, keepdims=True) + 1e-8)
        means.append((g * np.log(g / np.clip(shares, 1e-12, 1))).sum(axis=1))
    return int(np.mean(means, axis=0).argmin())


def test_published_heads_are_for_their_checkpoint_alone(tmp_path: Path) -> None:
    copy = tmp_path / "HuatuoGPT-Vision-7B-hf"
    copy.mkdir()
    with pytest.raises(StudyError, match=r"nothing else says that .*: --published-heads huatuogpt-vision-7b"):
        grounding(ModelSpec(str(copy)), None)
    found = grounding(ModelSpec(str(copy)), None, published="huatuogpt-vision-7b", k=5)
    assert (len(found.heads), found.layer) == (5, 16)
    with pytest.raises(StudyError, match="heads are published for huatuogpt-vision-7b; got 'huatuo'"):
        grounding(ModelSpec(str(copy)), None, published="huatuo")
    with pytest.raises(StudyError, match=r"either ranked or published; got rank=True and published="):
        grounding(ModelSpec(str(copy)), None, published="huatuogpt-vision-7b", rank=True)
    with pytest.raises(StudyError, match="ranked on validation samples, but there are none"):
        grounding(ModelSpec("FreedomIntelligence/HuatuoGPT-Vision-7B-hf"), None, rank=True)


def test_a_change_is_of_samples_with_both_values() -> None:
    """Of seven samples two are undefined and two are ruled out, before or after; the means are of the other three."""
    before, after = [1.0, 4.0, 0.0, np.nan, -np.inf, 7.0, 50.0], [3.0, 2.0, 3.0, 9.0, 9.0, -np.inf, np.nan]
    rows = pd.DataFrame({"before": before, "after": after, "group": list("aabcdef")})
    found = change(rows, "logprob", level=0.95, seed=0)
    assert (found["before"], found["after"], found["difference"]) == (5 / 3, 8 / 3, pytest.approx(1))
    assert [found[name] for name in ("n", "n_groups", "n_undefined", "n_ruled_out")] == [3, 2, 2, 2]
    assert [found[name] for name in ("wrong_to_right", "right_to_wrong", "p_flips")] == [None] * 3
    assert "2 samples left out because the answer was ruled out" in found["note"]
    marks = change(
        rows.assign(before=[0, 1, 0, 1, 0, 1, 1], after=[1, 1, 0, 0, 1, 0, 1]), "correct", level=0.95, seed=0
    )
    assert (marks["wrong_to_right"], marks["right_to_wrong"], marks["p_flips"]) == (2, 2, 1.0)


def test_a_parameter_is_held_at_the_nearest_or_larger_value() -> None:
    assert fixed_values({"k": 20, "p": 50}, {"k": {10, 30, 60}, "p": {50, 51}}) == {"k": 30, "p": 50}


def lines_of(table: str) -> dict[str, list[str]]:
    """The first cell of each line of the printed tables → the other cells."""
    lines = [line for line in table.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    return {one[0]: one[1:] for one in reversed(cells)}  # of equal names the first, of the upper table


def test_a_table_has_each_methods_marks_tests_and_cost(result: RefinementResult) -> None:
    """Of 12 in six groups 4 are wrong before; three flips one way: McNemar p is 2 / 2³, four: 2 / 2⁴."""
    text = result.table()
    found = lines_of(text)
    step = np.log(0.6) - np.log(0.08)
    p = {
        row["method"]: f"{row['p_holm']:.3f}"
        for row in records(result.summary())
        if row["measure"] == "correct"
    }
    cost = ["×3.00", "×2.50", "×1.50"]
    changes = {
        name: [f"{three * step / 12:+.3f} (6 groups)", *cost] for name, three in (("helps", 3), ("hurts", -4))
    }
    assert found["helps"] == [
        *("0.667", "0.917", "+0.250 (6 groups)", "+3 −0", "0.250", p["helps"]), *changes["helps"]
    ]  # fmt: skip
    assert found["hurts"] == [
        *("0.667", "0.333", "-0.333 (6 groups)", "+0 −4", "0.125", p["hurts"]), *changes["hurts"]
    ]  # fmt: skip
    assert found["none"][:4] == ["0.667", "0.667", "+0.000 (6 groups)", "+0 −0"]
    below = lines_of(text[text.index("Group by group") :])
    assert below["helps"][:3] == ["0.00 → 1.00 (2)", "0.00 → 0.50 (2)", "1.00 → 1.00 (2)"]
    assert below["hurts"][4:] == ["1.00 → 0.00 (2)"] * 2
    assert "Accuracy, plain model → method" in text
    notes = [line for line in text.splitlines() if line.startswith("Only 6 groups")]
    assert len(notes) == len(set(notes)) == 2  # one also says that no mark changed


def test_pairs_of_methods_as_text(result: RefinementResult) -> None:
    found = lines_of(result.pairs_table())
    holm_p = {(row["a"], row["b"]): row for row in records(result.compare("correct"))}
    row = holm_p["helps", "hurts"]
    assert found["helps − hurts"] == [
        *("0.917, 0.333", "+0.583 (6 groups)", "7, 0", f"{row['p']:.3f}", f"{row['p_holm']:.3f}")
    ]
    assert list(found) == ["helps − hurts", "none − hurts", "none − helps"]


def test_many_groups_have_an_interval_and_no_lines(tmp_path: Path) -> None:
    data = Samples([sample(number, group=f"g{number}") for number in range(20)], "planted")
    study = refinement(data=data, batch=10, method=Swap(changes=tuple(f"s{n}" for n in range(20))))
    text = study.run(tmp_path, progress=False).table()
    assert lines_of(text)["Swap"][:4] == ["1.000", "0.000", "-1.000 [-1.000, -1.000]", "+0 −20"]
    assert "Group by group" not in text
    assert text.endswith("planted: 20 samples in 20 groups.")


def test_groups_of_another_measure_and_of_none(result: RefinementResult, tmp_path: Path) -> None:
    found = result.per_group("probability")
    own = found[found.method == "helps"].iloc[0]
    assert (own.before, own.after, own.difference) == pytest.approx((0.08, 0.6, 0.52))
    assert list(found.columns) == ["model", "data", "method", "group", "n", "before", "after", "difference"]
    with pytest.raises(StudyError, match="measure is one of correct, logprob, probability, ar; got 'size'"):
        result.per_group("size")
    assert set(result.tables()) == {"summary", "groups"}


def test_costs_over_a_plain_model_of_no_cost_have_no_ratio(
    result: RefinementResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = {"plain_seconds": 0.0, "method_seconds": 2.0, "plain_tokens": 4.0, "method_tokens": 6.0}
    monkeypatch.setattr("interp.study.refinement.result.cost_of", lambda folder: spent)
    found = result.costs()
    assert found.method.tolist() == list(METHODS)
    assert np.isnan(found.seconds_ratio).all()
    assert found.tokens_ratio.tolist() == [1.5] * 3
    assert np.isnan(found.forwards_ratio).all()


def test_what_only_some_methods_have_is_none_for_the_others() -> None:
    cells = [
        ({"method": "a"}, {"method": "A", "mode": "zero", "layers": [3, 4], "on": True}),
        ({"method": "b"}, {"method": "B", "mode": "zero", "gain": 2.0, "layers": [5], "on": True}),
    ]
    table = varied(cells)
    assert list(table.columns) == ["method", "layers", "gain"]
    assert table.layers.tolist() == ["[3, 4]", "[5]"]
    assert table.gain.isna().tolist() == [True, False]
    assert numeric_pair(pd.DataFrame({"method": "ab", "k": [1, 2], "p": [1.0, np.nan]}), ["method"]) is None
    assert numeric_pair(pd.DataFrame({"method": "ab", "k": [1, 2], "p": [1.0, 2.0]}), ["method"]) == (
        "k",
        "p",
    )
