"""A comparison of indicators where every number is known by hand, and on the organism where bytes must repeat."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from interp.data import Samples, bundled
from interp.errors import MapError, StudyError
from interp.indicators import Attention, CentrePrior, RandomMap
from interp.inputs.prompt import Target, diff
from interp.metrics import auroc, spearman
from interp.study import Grid, IndicatorComparison, IndicatorResult
from interp.study.dataframes import records, where
from interp.study.indicator_comparison.indicator_maps import one_map
from interp.tracing import load
from tests.study.planted import sample, token_map
from tests.study.planted_indicators import Knowing, Take, Truthful, comparison, scenes


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> IndicatorResult:
    return comparison(n_faithful=6).run(tmp_path_factory.mktemp("runs"), progress=False)


def test_a_list_names_itself_and_needs_baselines_for_verdicts(tmp_path: Path) -> None:
    listed = IndicatorComparison(data=scenes(), indicators=[Attention(), "random map", CentrePrior()])
    assert list(listed.indicators) == ["attention", "random map", "centre prior"]
    with pytest.raises(StudyError, match="two of the indicators have the same name"):
        IndicatorComparison(data=scenes(), indicators=["attention", Attention()])
    alone = comparison(indicators={"knows": Knowing()}, n_faithful=0, n_checked=0)
    result = alone.run(tmp_path, progress=False)
    assert "so none can get ✓ or ✗: add CentrePrior() and RandomMap()" in result.table()
    assert "No baseline among the indicators" in result.report(tmp_path / "page.html").read_text()


def mean(result: IndicatorResult, label: str, measure: str, against: str) -> dict[str, Any]:
    rows = result.summary()
    keep = (rows.indicator == label) & (rows.measure == measure) & (rows.against == against)
    (row,) = records(where(rows, keep))
    return row


def test_maps_are_scored_against_the_truth(result: IndicatorResult) -> None:
    row = mean(result, "knows", "auroc", "boxes")
    assert (row["mean"], row["n"], row["n_groups"], row["note"]) == (1.0, 24, 24, "")
    maps = result.cells[0].maps([3])[3]
    inside = token_map(scenes()[3]).mask(scenes()[3].boxes)
    expected = float(auroc(maps["off"], inside))
    own = where(result.scores, (result.scores["sample"] == "s3") & (result.scores.measure == "auroc"))
    assert own.set_index("indicator").value["off"] == pytest.approx(expected)


def test_curves_are_those_of_the_planted_answer(result: IndicatorResult) -> None:
    """Two of 20 tokens hold the answer: the map that knows takes both with the first 10 %, so the normalised deletion
    curve is 1, 0, 0, 0 at 0, 10, 50, 100 % and the insertion curve 0, 1, 1, 1."""
    for sample_id in ("deletion", "insertion"):
        row = mean(result, "knows", sample_id, "take")
        assert row["n"] == 6
        assert row["mean"] == pytest.approx({"deletion": 0.05, "insertion": 0.95}[sample_id])
    assert mean(result, "knows", "comprehensiveness", "take")["mean"] == pytest.approx(0.8)
    assert mean(result, "knows", "sufficiency", "take")["mean"] == pytest.approx(0.0)
    own = result.curves[(result.curves.indicator == "knows") & (result.curves.curve == "deletion")]
    first = own[own["sample"] == own["sample"].iloc[0]]
    assert first.height.tolist() == pytest.approx([1, 0, 0, 0])
    assert np.exp(first.value).tolist() == pytest.approx([0.9, 0.1, 0.1, 0.1])


def test_agreement_is_the_mean_of_each_samples_rank_correlation(result: IndicatorResult) -> None:
    maps = result.cells[0].maps(range(24))
    expected = np.mean([spearman(own["knows"], own["centre"]) for own in maps.values()])
    rows = result.agreement()
    (row,) = records(where(rows, (rows.indicator == "knows") & (rows.against == "centre")))
    assert row["mean"] == pytest.approx(float(expected))


def test_what_beats_every_baseline_finds_the_truth(result: IndicatorResult) -> None:
    found = result.found().set_index("indicator")
    assert found.finds.to_dict() == {"knows": True, "off": False}
    assert found.p_holm["knows"] < 0.01
    assert "✓: better than every baseline" in result.table()
    pairs = result.compare("auroc")
    assert len(pairs) == 6
    knows = records(where(pairs, (pairs.a == "knows") & (pairs.b == "random")))[0]
    assert knows["difference"] == pytest.approx(knows["mean_a"] - knows["mean_b"])
    assert knows["p_holm"] >= knows["p"]
    against = where(pairs, pairs.a.isin(found.index) & pairs.b.isin(["centre", "random"]))
    smaller, larger = sorted(against.groupby("a").p.max())  # the worst of both baselines, by Holm's rule
    assert sorted(found.p_holm) == pytest.approx([2 * smaller, max(2 * smaller, larger)])
    faithful = result.compare("deletion", "take")
    assert set(faithful.n) == {6}
    with pytest.raises(StudyError, match=r"one of the measures .*auroc.*; got 'kl'"):
        result.compare("kl")


def test_of_a_metric_that_is_better_low_the_lowest_wins(tmp_path: Path) -> None:
    study = comparison(metrics=("kl",), removals=(), n_checked=0, batch=24)
    found = study.run(tmp_path, progress=False)
    own = found.found().set_index("indicator")
    assert own.finds.to_dict() == {"knows": True, "off": False}
    baselines = [mean(found, name, "kl", "boxes")["mean"] for name in ("centre", "random")]
    assert own.best_baseline.tolist() == [pytest.approx(min(baselines))] * 2
    assert own["mean"]["knows"] < min(baselines)


def test_one_layer_of_an_indicators_map_is_chosen() -> None:
    lines = xr.DataArray([[1.0, 2.0], [3.0, 5.0]], {"layer": [3, 7]}, dims=("layer", "token"))
    assert one_map(lines, "it", {"it": 7}).tolist() == [3, 5]
    assert one_map(lines, "it", {"it": "sum"}).tolist() == [4, 7]
    assert one_map(lines[:1], "it", {"other": 7}).tolist() == [1, 2]
    for wrong, layers, said in (
        (lines, {}, r"each of the layers \[3, 7\]; got None"),
        (lines, {"it": 1}, r"each of the layers \[3, 7\]; got 1"),
        (lines.where(lines < 5), {"it": 7}, "NaN or infinity"),
        (lines.rename(layer="head"), {}, "per_head=False"),
    ):
        with pytest.raises(MapError, match=said):
            one_map(wrong, "it", layers)


def test_few_groups_carry_no_verdict(tmp_path: Path) -> None:
    found = comparison(data=scenes(6)).run(tmp_path, progress=False)
    assert found.found().finds.tolist() == [None, None]
    assert "6 groups are too few" in found.table()


def test_costs_are_counted_alone_and_per_sample(result: IndicatorResult) -> None:
    """Six batches of four: the plain model takes 1 s and 1 pass each, an indicator 3 s, 2 passes, 1 backward."""
    rows = result.costs().set_index("indicator")
    assert rows.loc["plain forward", "forwards"] == 1 / 4
    assert (rows.loc["knows", "seconds"], rows.loc["knows", "backwards"]) == (0.75, 0.25)
    assert rows.loc["knows", "seconds_ratio"] == 3
    assert rows.loc["knows", "tokens_ratio"] == 1.5
    assert result.cost.forwards.iloc[0] > 6 * (
        1 + 2 + 2
    )  # removals and checks are spent, but are no map's cost


def test_a_layer_is_chosen_on_validation_and_nowhere_else(tmp_path: Path) -> None:
    layered = Knowing(layers=3, good=2)
    study = comparison(indicators={"layered": layered, "random": RandomMap()}, data=scenes(6))
    with pytest.raises(
        StudyError, match=r"'layered' gives a map per layer, and one is compared\. Give validation="
    ):
        study.run(tmp_path, progress=False)
    with pytest.raises(StudyError, match="expected samples of a validation split"):
        study.replace(validation=scenes(4, start=50)).run(tmp_path, progress=False)
    held = study.replace(validation=scenes(4, "held out", "validation", start=50))
    with pytest.raises(StudyError, match="known once they are chosen on the validation samples"):
        held.to_dict()
    found = held.run(tmp_path, progress=False)
    assert found.cells[0].layers == {"layered": 2}
    assert mean(found, "layered", "auroc", "boxes")["mean"] == 1.0
    (line,) = found.sentences()
    assert (
        "layer of layered 2 (the best mean AUROC of all layers on 4 other samples of held out, sharing no group"
        in line
    )
    given = study.replace(layers={"layered": 2}).run(tmp_path, progress=False)
    assert given.cells[0].folder == found.cells[0].folder
    added = study.replace(layers={"layered": "sum"}).run(tmp_path, progress=False).cells[0]
    values = added.maps([0])[0]["layered"]
    np.testing.assert_allclose(values, -layered(Truthful(), [scenes(1)[0]])[0].values[2], rtol=1e-5)


def test_another_truth_is_scored_and_hashed(tmp_path: Path) -> None:
    """The marker is token 19 alone; the map that knows the box gives it the least of its slope."""
    study = comparison(truth=("marker", "boxes"), data=scenes(6))
    found = study.run(tmp_path, progress=False)
    assert mean(found, "knows", "auroc", "boxes")["mean"] == 1.0
    assert mean(found, "knows", "auroc", "marker")["mean"] == pytest.approx(0.0)
    assert mean(found, "centre", "pointing", "marker")["mean"] == 0.0
    moved = Samples(
        [one.replace(meta={**one.meta, "marker": [0, 0, 20, 20]}) for one in study.data], "planted"
    )
    assert study.replace(data=moved).to_json() != study.to_json()
    assert comparison(data=moved).to_json() == comparison(data=scenes(6)).to_json()
    with pytest.raises(
        StudyError, match=r"sample s0 has None under 'nodule' \(its meta holds 'split', 'marker'\)"
    ):
        comparison(truth="nodule")


def test_other_questions_and_few_samples(tmp_path: Path) -> None:
    """A dear indicator is asked of the 8 samples drawn first, and checked on an eighth of them: one."""
    dear = Knowing(gain=2.0)
    study = comparison(
        indicators={"dear": dear, "random": RandomMap()}, few={"dear": 8}, n_checked=5, n_faithful=4
    )
    found = study.run(tmp_path, progress=False)
    assert mean(found, "dear", "auroc", "boxes")["n"] == 8
    assert mean(found, "dear", "question", "spearman")["n"] == 1
    assert mean(found, "random", "question", "spearman")["n"] == 5
    assert mean(found, "dear", "deletion", "take")["n"] == 4
    checked = found.samples[found.samples.checked]
    assert (checked.question != checked.other_question).all()
    assert mean(found, "dear", "question", "spearman")["mean"] == pytest.approx(
        1.0
    )  # it does not read the question
    assert abs(mean(found, "random", "question", "spearman")["mean"]) < 0.9


def test_what_cannot_be_had_is_a_failure_of_its_own(tmp_path: Path) -> None:
    knows = Knowing(fails=("s1",))
    study = comparison(
        data=scenes(6),
        indicators={"knows": knows, "random": RandomMap()},
        removals=(Take(flat=("s2",)),),
        n_checked=0,
    )
    found = study.run(tmp_path, progress=False)
    lost = found.failures[["sample", "control", "error"]].astype(object).fillna("").drop_duplicates()
    assert lost.to_numpy().tolist() == [
        ["s1", "knows", "ImageTokenMismatch"],
        ["s2", "", "undefined"],
    ]
    assert found.failure_counts() == "1 failure (ImageTokenMismatch ×1), 1 undefined value"
    assert "in 6 groups, 1 failure (ImageTokenMismatch ×1), 1 undefined value" in repr(found)
    assert mean(found, "knows", "auroc", "boxes")["n"] == 5
    assert mean(found, "random", "auroc", "boxes")["n"] == 6
    assert mean(found, "random", "deletion", "take")["n_undefined"] == 1
    assert ("s1",) in knows.calls  # tried alone, so that the others of its batch are kept


def test_a_difference_of_answers_is_measured_in_nats(tmp_path: Path) -> None:
    found = comparison(data=scenes(4), target=Target(diff("left", "right"))).run(tmp_path, progress=False)
    assert mean(found, "knows", "comprehensiveness", "take")["mean"] == pytest.approx(np.log(9))


def test_cells_of_a_grid_join(tmp_path: Path) -> None:
    grids = [
        Grid(comparison(data=scenes(4, name), truth=truth), model={"one": Truthful()}).run(
            tmp_path, progress=False
        )
        for name, truth in (("natural", "boxes"), ("marked", ("marker", "boxes")))
    ]
    found = IndicatorResult.join(grids)
    assert [cell.key for cell in found.cells] == [("one", "natural"), ("one", "marked")]
    assert set(found.scores.data) == {"natural", "marked"}
    with pytest.raises(StudyError, match="two cells of the same labels"):
        IndicatorResult.join([grids[0], grids[0]])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"indicators": {}}, "mapping from label to indicator, at least one"),
        ({"indicators": {"a|b": RandomMap()}}, r"text without '\|'; got 'a\|b'"),
        ({"indicators": {"a": Attention(per_head=True)}}, "'a' has per_head=True"),
        ({"layers": {"other": 1}}, "labels of the indicators to a layer .*got 'other': 1"),
        ({"few": {"knows": 0}}, "number of samples ≥ 1; got 'knows': 0"),
        ({"removals": (Take(), Take())}, "a name of their own each; got take, take"),
        ({"removals": ("blur",)}, "removals are of interp.indicators"),
        ({"steps": (0.5, 0.1)}, "steps are increasing fractions"),
        ({"erased": (0.2,)}, "erased are some of the steps"),
        ({"randomised": (2.0,)}, r"shares of the layers in \(0, 1\], and 'all'"),
        ({"agreement": ("pearson",)}, "agreement takes at least one of spearman, kendall, each once"),
        ({"n_checked": -1}, "n_checked is a whole number ≥ 0, or None; got -1"),
        ({"least": 0.0}, "least is a number > 0"),
        ({"indicators": {" ": RandomMap()}}, r"text without '\|'; got ' '"),
        ({"layers": {"knows": -1}}, "got 'knows': -1"),
        ({"layers": {"knows": True}}, "got 'knows': True"),
        ({"layers": {"knows": "mean"}}, "got 'knows': 'mean'"),
        ({"few": {"other": 3}}, "got 'other': 3"),
        ({"few": {"knows": True}}, "got 'knows': True"),
        ({"steps": (0.0, 0.5)}, "both left out"),
        ({"steps": (0.5, 1.0)}, "both left out"),
        ({"steps": (0.1, 0.1)}, "increasing fractions"),
        ({"steps": ()}, "increasing fractions"),
        ({"erased": ()}, "erased are some of the steps"),
        ({"randomised": (0.0,)}, r"shares of the layers in \(0, 1\]"),
        ({"randomised": (True,)}, "got True"),
        ({"randomised": (0.5, "some")}, "got 'some'"),
        ({"least": float("inf")}, "least is a number > 0"),
        ({"least": True}, "least is a number > 0"),
        ({"truth": ("boxes", "boxes")}, "truth names one or more boxes, each once"),
        ({"truth": ()}, "truth names one or more boxes"),
        ({"choices": {"knows": 3}}, "how their layer was chosen"),
        ({"n_faithful": -1}, "n_faithful is a whole number ≥ 0"),
        ({"choose_by": "beauty"}, "choose_by is one of"),
        ({"rule": "near"}, "rule is one of"),
        ({"data": []}, "hold no sample"),
        ({"target": "left"}, "target is an interp.Target"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        comparison(**changes)


def test_bytes_repeat_in_another_process(tmp_path: Path) -> None:
    """A task that went through a pickle, as a worker's does, gives the same rows; shuffled weights change the map."""
    data = bundled("natural", n=2)
    indicators = {"attention": Attention(layers=[3]), "centre": CentrePrior(), "random": RandomMap()}
    study = IndicatorComparison(data=data, indicators=indicators, n_checked=1, batch=2)
    mllm = load("organism")
    before = {name: weight.clone() for name, weight in mllm.hf.named_parameters()}
    task = study.task(mllm)
    batch = task.plan().shards[0][0]
    first, second = task.compute(batch), pickle.loads(pickle.dumps(study.task(mllm))).compute(batch)
    assert first.rows == second.rows
    assert all((weight == before[name]).all() for name, weight in mllm.hf.named_parameters())
    rows = {
        (r["indicator"], r["against"]): r["value"] for r in first.rows["scores"] if r["measure"] == "weights"
    }
    assert abs(rows["attention", "all weights"]) < 0.6
    assert rows["centre", "all weights"] == rows["random", "top 50 % of layers"] == pytest.approx(1.0)
    costs = first.cost
    assert costs["flops|attention"] == pytest.approx(costs["flops|plain forward"])
    n_weights = sum(w.numel() for layer in mllm.adapter.layers(mllm.hf) for w in layer.parameters())
    lengths = [r["n_prompt"] for r in first.rows["samples"]]
    each = 2 * n_weights + 4 * 6 * 128 * np.mean(lengths)
    assert costs["flops|plain forward"] == pytest.approx(each * costs["tokens|plain forward"])


def test_samples_that_all_ask_the_same_have_no_other_question(tmp_path: Path) -> None:
    data = Samples([sample(i, group=f"g{i}", question="Which?") for i in range(3)])
    found = comparison(data=data).run(tmp_path, progress=False)
    assert "question" not in set(found.scores.measure)
