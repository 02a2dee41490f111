from __future__ import annotations

import hashlib
import importlib.util
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.data import Samples, bundled
from interp.errors import RunError, StudyError
from interp.indicators import Attention
from interp.inputs.prompt import GENERIC_PROMPT, Prompt
from interp.metrics import kl_divergence
from interp.stats import bootstrap
from interp.study import ModelSpec
from interp.study.head_ranking.result import HeadResult
from interp.study.head_ranking.study import HeadRanking
from interp.study.head_ranking.task import HeadTask
from interp.tracing import wrap
from tests import tiny
from tests.study.planted import Model, Planted, sample, samples
from tests.study.planted_heads import GAIN, PlantedHeads, made, ranking

SCRIPT = Path(__file__).parents[3] / "studies" / "figD1_head_ranking.py"


def run(study: HeadRanking, out: Path) -> HeadResult:
    return study.run(out, progress=False)


def ar(gain: float) -> float:
    """2 of 20 tokens hold 1 + g, the others 1."""
    return (1 + gain) * 20 / (20 + 2 * gain)


def test_scores_equal_what_each_head_was_planted_to_score(tmp_path: Path) -> None:
    scores = run(ranking(), tmp_path).scores
    assert list(scores.columns) == [*("model", "data", "sample", "group", "layer", "head", "metric", "value")]
    assert len(scores) == 12 * 3 * 2
    for layer, row in enumerate(GAIN):
        for head, gain in enumerate(row):
            own = scores[(scores.layer == layer) & (scores["head"] == head)]
            assert own.value.to_numpy() == pytest.approx(np.full(12, ar(gain)))
    assert set(scores.metric) == {"ar"}
    assert scores.set_index("sample").group["s5"].iloc[0] == "patient-2"


@pytest.mark.parametrize("metric", ["ar", "kl", "js", "auroc", "kl_gain"])
def test_the_best_head_is_the_same_for_every_metric(metric: str, tmp_path: Path) -> None:
    result = run(ranking(metric=metric), tmp_path)
    assert result.top(1) == ((1, 1),) or metric == "auroc"  # every head that looks has auroc 1
    assert result.ranked[["layer", "head"]].iloc[-1].tolist() == [0, 0]  # the even one
    assert result.ranked.gain.iloc[-1] == pytest.approx(0, abs=1e-9)
    assert result.ranked.gain.iloc[0] > 0
    assert result.even == pytest.approx({"ar": 1, "kl": np.log(10), "auroc": 0.5}.get(metric, result.even))


def test_equal_heads_keep_their_order_and_nan_comes_last(tmp_path: Path) -> None:
    result = run(ranking(indicator=PlantedHeads(silent=((1, 1),))), tmp_path)
    found = [(row.layer, row.head) for row in result.ranked.itertuples()]
    assert found == [(0, 1), (2, 0), (1, 0), (2, 1), (0, 0), (1, 1)]
    assert result.ranked["rank"].tolist() == [1, 2, 3, 4, 5, 0]
    assert result.n_unranked == 1
    assert result.ranked.n_undefined.tolist() == [0] * 5 + [12]
    assert result.table(6).endswith("Heads that are not ranked, because they have no defined score: 1 of 6.")
    assert result.top(5)[-1] == (0, 0)
    with pytest.raises(StudyError, match=r"has 5 ranked heads \(1 more have no defined score\); got k=6"):
        result.top(6)


def test_layers_are_named_by_their_coordinate(tmp_path: Path) -> None:
    result = run(ranking(indicator=PlantedHeads(layers=(4, 9, 2))), tmp_path)
    assert result.top(3) == ((9, 1), (2, 0), (4, 1))


def test_each_score_is_the_metric_of_the_indicators_own_map(tmp_path: Path) -> None:
    mllm = wrap(tiny.llava(), tiny.processor())
    data = Samples(
        [tiny.sample(f"is it {'very ' * i}red?", i, boxes=[(8, 8, 40, 30)], id=f"{i}") for i in range(3)]
    )
    result = HeadRanking(model=mllm, data=data, batch=2).run(tmp_path, progress=False)
    scores = result.scores.set_index(["sample", "layer", "head"]).value
    for found in data:
        maps = Attention(relative_to=GENERIC_PROMPT, per_head=True)(mllm, [found])
        inside = maps.tokens[0].mask(found.boxes)
        for layer in range(mllm.n_layers):
            for head in range(mllm.n_heads):
                expected = kl_divergence(maps[0].sel(layer=layer, head=head).values, inside)
                assert scores[found.id, layer, head] == pytest.approx(float(expected), rel=1e-3)
    assert result.study.metric == "kl"
    assert result.n_heads == mllm.n_layers * mllm.n_heads


def test_the_summary_is_the_bootstrap_over_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    groups = [f"g{i // 3}" for i in range(90)]
    values = rng.normal(size=(90, 8)) + np.repeat(rng.normal(size=(30, 8)), 3, axis=0)
    values[:40, 2] = np.nan
    values[1:, 3] = np.nan
    result = made(tmp_path, values, groups=groups)
    summary = result.summary().set_index(["layer", "head"])
    for pair in (0, 2):
        row, expected = summary.loc[divmod(pair, 4)], bootstrap(values[:, pair], groups, n=4000)
        assert row["mean"] == pytest.approx(expected.mean)
        width = expected.high - expected.low
        assert (row.low, row.high) == pytest.approx((expected.low, expected.high), abs=0.08 * width)
        assert (row.n, row.n_groups, row.n_undefined) == (expected.n, expected.n_groups, expected.n_nan)
    assert summary.loc[(0, 0), "note"] == ""
    assert summary.loc[(0, 2), "note"].startswith("Only 17 groups")
    alone = summary.loc[(0, 3)]
    assert alone["mean"] == pytest.approx(values[0, 3])
    assert np.isnan(alone.low)
    assert result.summary(0.5).set_index(["layer", "head"]).high[0, 0] < summary.high[0, 0]
    with pytest.raises(StudyError, match=r"level is between 0 and 1, such as 0\.95; got 95"):
        result.summary(95)


def test_sample_order_is_ignored_and_seeds_move_intervals_only(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(25, 4))
    groups = [f"g{i}" for i in range(25)]
    one = made(tmp_path / "1", values, groups=groups).summary()
    other = made(tmp_path / "2", values[::-1], groups=groups[::-1]).summary()
    assert one.low.to_numpy() == pytest.approx(other.low.to_numpy(), abs=1e-12)
    stored = made(tmp_path / "1", values, groups=groups)
    reseeded = replace(stored.cells[0], study=stored.study.replace(seed=1))
    again = HeadResult(reseeded.study, (reseeded,), stored.folder).summary()
    assert again["mean"].equals(one["mean"])
    assert not again.low.equals(one.low)


def test_the_rankings_folder_is_the_hash_of_its_inputs(tmp_path: Path) -> None:
    base = ranking()
    result = run(base, tmp_path)
    text = (result.folder / "study.json").read_text()
    assert text == base.to_json()
    assert result.folder.name == "head-ranking-" + hashlib.sha256(text.encode()).hexdigest()[:12]
    others = [
        base.replace(metric="kl"),
        base.replace(split="train"),
        base.replace(rule="center"),
        base.replace(batch=4),
        base.replace(prompt=Prompt(template="{question}")),
        base.replace(indicator=PlantedHeads(((1.0, 1.0),) * 3)),
        base.replace(model=Model(fingerprint="e" * 64)),
        base.replace(data=samples(11)),
    ]
    assert len({study.to_json() for study in [base, *others]}) == len(others) + 1
    assert base.replace(seed=5).to_json() == base.to_json()
    assert base.replace(seed=5) == base


def test_a_finished_ranking_is_read_an_interrupted_one_goes_on(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run(ranking(indicator=PlantedHeads(bug="s11")), tmp_path)
    resumed = ranking()
    result = run(resumed, tmp_path)
    assert {name for call in resumed.indicator.calls for name in call} == {f"s{i}" for i in range(8, 12)}
    assert len(result.samples) == 12
    again = ranking()
    assert run(again, tmp_path).scores.equals(result.scores)
    assert again.indicator.calls == []


def test_what_cannot_be_measured_is_a_failure_with_a_reason(tmp_path: Path) -> None:
    data = [sample(number) for number in range(10)]
    data[1] = data[1].replace(boxes=[])
    indicator = PlantedHeads(silent=((2, 0),), nan=("s4", 1, 0), dark="s6", mismatch="s8")
    result = run(ranking(data=Samples(data), indicator=indicator), tmp_path)
    failures = result.failures
    whole = failures[failures.layer.isna()].set_index("sample")
    assert whole.error.to_dict() == {"s1": "SampleError", "s6": "MapError", "s8": "ImageTokenMismatch"}
    assert "undefined at every head of sample s6" in whole.reason["s6"]
    part = failures[failures["sample"] == "s4"].set_index("layer").reason
    assert part[1] == "head 0: the map holds NaN or infinity; does it overflow in this dtype?"
    assert part[2].startswith("head 0: the metric is undefined: the map is zero everywhere")
    assert set(result.samples["sample"]) == {"s0", "s2", "s3", "s4", "s5", "s7", "s9"}
    summary = result.summary().set_index(["layer", "head"])
    assert summary.loc[(1, 0), ["n", "n_undefined"]].tolist() == [6, 1]
    assert summary.loc[(1, 1), ["n", "n_undefined"]].tolist() == [7, 0]
    assert summary.loc[(1, 0), "gain"] == pytest.approx(ar(1.0) - 1)


def test_maps_of_other_dimensions_end_the_run_at_once(tmp_path: Path) -> None:
    indicator = Planted()  # a map per layer
    with pytest.raises(
        RunError, match=r"a HeadRanking needs maps \(layer, head, token\); Planted gives \(layer, token\)"
    ):
        run(ranking(indicator=indicator), tmp_path)
    assert len(indicator.calls) == 1  # of six micro-batches


def test_samples_of_another_split_are_left_out() -> None:
    said = [sample(i, meta={"split": ("validation", "test")[i % 2]}) for i in range(6)]
    assert ranking(data=[*said, sample(7)]).data.sample_ids == ("s0", "s2", "s4", "s7")
    assert ranking(data=said, split="test").data.sample_ids == ("s1", "s3", "s5")
    with pytest.raises(
        StudyError, match=r"hold no sample of the split 'validation': all say they are of test"
    ):
        HeadRanking(data=bundled("medical", n=3))
    with pytest.raises(StudyError, match="hold no sample of the split 'train': there is none at all"):
        ranking(data=Samples([], "none"), split="train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "medical"}, "data is Samples or a list"),
        ({"metric": "beauty"}, "metric is one of ar, .*; got 'beauty'"),
        ({"metric": ("ar", "kl")}, r"got \('ar', 'kl'\)"),
        ({"split": "dev"}, "split is one of train, validation, test; got 'dev'"),
        ({"rule": "near"}, "rule is one of touch, center, stretch"),
        ({"prompt": "{question}"}, "prompt is an interp.Prompt"),
        ({"indicator": "atention"}, "Did you mean 'attention'"),
        ({"indicator": 5}, "indicator is one of"),
        ({"indicator": Attention()}, "per_head=True"),
        ({"batch": 0}, "batch is a whole number ≥ 1"),
        ({"seed": -1}, "seed is a whole number ≥ 0; got -1"),
        ({"model": 7}, "model is an id"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(
    changes: dict[str, Any], message: str, unchecked: None
) -> None:
    with pytest.raises(StudyError, match=message):
        ranking().replace(**changes)


def test_a_task_travels_without_its_model() -> None:
    with pytest.raises(RunError, match=r"workers=1"):
        pickle.dumps(HeadTask(ranking(), Model()))
    task = HeadTask(ranking(model=ModelSpec("somewhere")), Model())
    assert task.__getstate__()["_mllm"] is None


def test_the_verdict_warns_of_a_ranking_of_even_maps(tmp_path: Path) -> None:
    dull = PlantedHeads(gain=((-0.9, -0.8), (-0.5, 2.0), (-0.95, 0.0)))
    result = run(ranking(indicator=dull, metric="kl"), tmp_path)
    assert result.n_beating_even(6) == 1
    assert result.verdict(3).startswith(
        "A uniform map scores 2.303: 1 of the top 3 heads and 1 of all 6 are better."
    )
    assert "rank by ar or auroc too" in result.verdict(3)
    assert "rank by" not in result.verdict(1)


def test_a_map_as_good_as_a_uniform_one_is_no_better(tmp_path: Path) -> None:
    result = run(ranking(), tmp_path)  # one head of six is uniform
    assert (result.n_beating_even(6), result.none_beats_even()) == (5, "")
    even = run(ranking(indicator=PlantedHeads(gain=((0.0, 0.0), (-0.5, 0.0)), layers=(0, 1))), tmp_path)
    assert even.n_beating_even(4) == 0
    assert even.none_beats_even().startswith("planted · planted: no head is better than a uniform map")


def test_the_table_lists_the_best_heads_first(tmp_path: Path) -> None:
    lines = [line for line in run(ranking(), tmp_path).table(2).splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    assert [row[:4] for row in cells] == [["1", "1", "1", "4.706"], ["2", "0", "1", "3.077"]]
    assert cells[0][4:] == ["too few groups", "+3.706", "12", "6"]


def test_the_script_prints_the_agreement_and_leaves_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("figD1", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(out=tmp_path, n=8)
    first = capsys.readouterr().out
    assert "natural and medical, 48 heads by kl: rank correlation" in first
    assert "Top 6: overlap" in first
    assert (tmp_path / "figD1.html").stat().st_size > 1e6
    shards = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/shards/*")}
    module.main(out=tmp_path, n=8)
    assert capsys.readouterr().out == first
    assert shards == {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/shards/*")}
    tests = tmp_path / "tests.jsonl"
    sample(0).load().save(tmp_path / "a.png")
    tests.write_text('{"image": "a.png", "question": "Where?", "boxes": [[0, 0, 9, 9]], "split": "test"}')
    with pytest.raises(SystemExit, match=r"none of .*tests\.jsonl has validation samples"):
        module.main(out=tmp_path, data=(str(tests),))
