"""Refinement on a planted model: every answer before and after is known, so every number is known by hand."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.data import Samples, bundled
from interp.errors import StudyError
from interp.methods import HGAI, AdaptVis, Plain, VGRefine
from interp.study import Grid, HeadRanking, ModelSpec, Refinement, RefinementResult
from interp.study.dataframes import records, where
from interp.study.head_ranking.head_set import HeadSet, published_heads
from tests.study.planted import sample, samples
from tests.study.planted_heads import PlantedHeads
from tests.study.planted_methods import (
    LIKELY,
    UNLIKELY,
    Answering,
    Looking,
    Swap,
    named,
    planted_plain,
    refinement,
)

__all__ = ["planted_plain"]

STEP = np.log(LIKELY) - np.log(UNLIKELY)


def summary_of(result: RefinementResult, measure: str) -> dict[str, Any]:
    found = result.summary()
    return records(where(found, found.measure == measure))[0]


def test_accuracy_and_flips_are_those_planted(tmp_path: Path) -> None:
    """12 samples, 5 wrong before; the method turns four of them right and one right one wrong."""
    study = refinement(model=Answering(wrong=named(0, 1, 2, 3, 4)), method=Swap(changes=named(0, 1, 2, 3, 7)))
    result = study.run(tmp_path, progress=False)
    own = summary_of(result, "correct")
    assert (own["before"], own["after"]) == (pytest.approx(7 / 12), pytest.approx(10 / 12))
    assert own["difference"] == pytest.approx(3 / 12)
    assert (own["wrong_to_right"], own["right_to_wrong"]) == (4, 1)
    assert own["p_flips"] == pytest.approx(
        2 * (1 + 5) / 2**5
    )  # at most 1 of 5 flips to one side, either side
    logprob = summary_of(result, "logprob")
    assert logprob["difference"] == pytest.approx(3 * STEP / 12)
    assert summary_of(result, "probability")["difference"] == pytest.approx(3 * (LIKELY - UNLIKELY) / 12)
    assert own["n"] == 12
    assert own["n_groups"] == 6
    assert "Only 6 groups" in own["note"]


def test_the_frame_has_a_row_per_sample_and_time(tmp_path: Path) -> None:
    study = refinement(data=samples(3), model=Answering(wrong=named(1)), method=Swap(changes=named(1, 2)))
    frame = study.run(tmp_path, progress=False).frame
    assert list(frame.columns) == [
        *("model", "data", "method", "sample", "group", "when", "text", "correct", "logprob", "probability")
    ]
    found = [tuple(row) for row in frame[["sample", "when", "text", "correct"]].to_numpy()]
    assert found == [
        ("s0", "before", "left", 1.0),
        ("s0", "after", "left", 1.0),
        ("s1", "before", "left", 0.0),
        ("s1", "after", "right", 1.0),
        ("s2", "before", "left", 1.0),
        ("s2", "after", "right", 0.0),
    ]
    assert frame.probability.tolist() == pytest.approx([LIKELY, LIKELY, UNLIKELY, LIKELY, LIKELY, UNLIKELY])


def test_samples_of_one_id_are_not_mixed_up(tmp_path: Path) -> None:
    twice = Samples([sample(0), sample(1, id="s0")])
    result = refinement(data=twice, method=Swap(changes=("s0",))).run(tmp_path, progress=False)
    assert result.frame.text.tolist() == ["left", "right", "right", "left"]
    assert summary_of(result, "correct")["n"] == 2


def test_what_the_method_did_is_stored(tmp_path: Path) -> None:
    result = refinement(data=samples(2)).run(tmp_path, progress=False)
    row = records(result.samples)[1]
    assert (row["n_tokens"], row["n_kept"], row["confidence"], row["weight"]) == (20, 5, 0.25, 1.5)
    assert row["crop"].tolist() == [10, 10, 60, 50]
    cell = result.cells[0]
    maps = cell.maps([1])[1]
    assert set(maps) == {"method", "kept"}
    inside = cell.tokens(1).mask(samples(2)[1].boxes)
    np.testing.assert_array_equal(maps["method"], 1.0 + inside)
    np.testing.assert_array_equal(maps["kept"], np.arange(20) < 5)


def test_attention_is_read_before_and_under_repeated_edits(tmp_path: Path) -> None:
    """Even attention has ratio 1; with 3 at token 0, sample 0's box over tokens 0 and 1 has (4/2) / (22/20)."""
    result = refinement(data=samples(2), method=Looking(), read_layer=1).run(tmp_path, progress=False)
    rows = {(row["sample"], row["when"]): row["ar"] for row in records(result.frame)}
    assert rows["s0", "before"] == rows["s1", "before"] == pytest.approx(1.0)
    assert rows["s0", "after"] == pytest.approx((4 / 2) / (22 / 20))
    assert rows["s1", "after"] == pytest.approx(1 / (22 / 20))
    maps = result.cells[0].maps([0])[0]
    np.testing.assert_array_equal(maps["after"], [3.0, *np.ones(19)])


def test_no_attention_is_read_after_a_method_without_edits(tmp_path: Path) -> None:
    result = refinement(data=samples(2), read_layer=1).run(tmp_path, progress=False)
    after = where(result.frame, result.frame.when == "after")
    assert after.ar.isna().all()
    assert "ar" not in set(result.summary().measure)
    assert set(result.cells[0].maps([0])[0]) == {"method", "kept", "before"}


def test_a_sample_that_fails_is_a_row_with_its_reason(tmp_path: Path) -> None:
    result = refinement(method=Swap(fails=named(3))).run(tmp_path, progress=False)
    assert result.failures[["sample", "error"]].to_numpy().tolist() == [["s3", "ImageTokenMismatch"]]
    assert summary_of(result, "correct")["n"] == 11


def test_samples_need_neither_answers_nor_boxes(tmp_path: Path) -> None:
    data = Samples([sample(0, answer=None), sample(1, boxes=[]), sample(2)])
    result = refinement(data=data, method=Looking(changes=named(0, 1)), read_layer=0).run(
        tmp_path, progress=False
    )
    assert result.failures.empty
    own = summary_of(result, "correct")
    assert (own["n"], own["n_undefined"]) == (2, 1)
    assert summary_of(result, "ar")["n"] == 2  # of the one without an answer too
    first = records(result.frame)[:2]
    assert [row["text"] for row in first] == ["yes", "no"]
    assert all(np.isnan(row["correct"]) for row in first)


def test_an_answer_ruled_out_is_counted_and_has_no_logprob(tmp_path: Path) -> None:
    study = refinement(method=Swap(changes=named(0), rules_out=named(0)))
    result = study.run(tmp_path, progress=False)
    own = summary_of(result, "logprob")
    assert (own["n"], own["n_ruled_out"], own["n_undefined"]) == (11, 1, 0)
    assert own["difference"] == pytest.approx(0.0)
    assert "1 sample left out because the answer was ruled out" in own["note"]
    assert summary_of(result, "probability")["difference"] == pytest.approx(-LIKELY / 12)


def test_nothing_changed_is_not_certainty(tmp_path: Path) -> None:
    data = Samples([sample(number, group=f"g{number}") for number in range(24)])
    own = summary_of(refinement(data=data, batch=8).run(tmp_path, progress=False), "correct")
    assert (own["low"], own["high"], own["p_flips"]) == (0, 0, 1.0)
    assert f"up to {100 * (1 - 0.025 ** (1 / 24)):.1f} % of the groups is not excluded" in own["note"]


def test_lettered_options_are_right_by_letter(tmp_path: Path) -> None:
    asked = sample(0, question="Which?", options=("left", "right"), answer="right")
    result = refinement(data=Samples([asked]), method=Swap(changes=named(0))).run(tmp_path, progress=False)
    assert result.frame[["text", "correct"]].to_numpy().tolist() == [["B", 1.0], ["A", 0.0]]


def test_costs_are_the_methods_over_the_plain_models(tmp_path: Path) -> None:
    """Six batches: the plain model takes 1 s, 2 passes, 100 positions each; the method 3 s, 5 passes, 150."""
    row = records(refinement().run(tmp_path, progress=False).costs())[0]
    assert (row["plain_seconds"], row["method_seconds"], row["seconds_ratio"]) == (6, 18, 3)
    assert (row["plain_forwards"], row["method_forwards"], row["forwards_ratio"]) == (12, 30, 2.5)
    assert row["tokens_ratio"] == 1.5
    assert np.isnan(row["backwards_ratio"])


def test_cells_share_the_plain_models_answers(tmp_path: Path) -> None:
    methods = {"none": Swap(), "one": Swap(changes=named(0)), "look": Looking(changes=named(5))}
    model = Answering(wrong=named(2))
    grid = Grid(refinement(model=model), method=methods)
    result = grid.run(tmp_path / "grid", progress=False)
    generated = [found for found in model.traced if len(found) == 2]
    assert len(generated) == 6  # each batch once, for three cells
    for method, cell in zip(methods.values(), result.cells, strict=True):
        alone = refinement(model=model, method=method).run(tmp_path / "alone", progress=False)
        assert _hashes(cell.folder.path) == _hashes(alone.cells[0].folder.path)
    costs = result.costs()
    assert costs.plain_forwards.tolist() == [12, 12, 12]
    assert costs.seconds_ratio.tolist() == [3, 3, 3]
    assert result.cost.forwards.tolist() == [42, 30, 30]


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(folder.glob("*/*.parquet"))
    assert len(files) > 5
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def ranking(model: Any, indicator: PlantedHeads) -> HeadRanking:
    data = samples(4, name="validation", start=40)
    return HeadRanking(data=data, model=model, indicator=indicator, metric="ar", batch=2)


def test_methods_cost_in_a_grid_what_they_cost_alone(tmp_path: Path) -> None:
    """Cells share the image prefix, so what is spent is less; what each would take is the same to the token."""
    methods = {"vgrefine": VGRefine(heads=[(1, 0)], layers=[1]), "hgai": HGAI(), "adaptvis": AdaptVis()}
    study = refinement(data=bundled("natural", n=4), model="organism", max_new_tokens=2, batch=4)
    result = Grid(study, method=methods).run(tmp_path / "grid", progress=False)
    alone = [study.replace(method=one).run(tmp_path / "alone", progress=False) for one in methods.values()]
    counts = ["plain_forwards", "plain_tokens", "method_forwards", "method_tokens"]
    expected = [records(one.costs())[0] for one in alone]
    assert result.costs()[counts].to_numpy().tolist() == [[row[name] for name in counts] for row in expected]
    row = records(result.costs())[1]
    assert row["method_forwards"] == row["plain_forwards"]  # HGAI is one generation
    assert row["seconds_ratio"] > 0.4  # not the time of a generation whose image someone else had seen
    spent = result.cost.tokens.tolist()
    assert spent[1] < 0.5 * alone[1].costs().method_tokens.iloc[0]
    for one, cell in zip(alone, result.cells, strict=True):
        assert _hashes(cell.folder.path) == _hashes(one.cells[0].folder.path)


def test_a_grid_over_heads_and_percentiles_ranks_heads_once(tmp_path: Path) -> None:
    model, indicator = Answering(), PlantedHeads()
    heads = ranking(model, indicator)
    methods = {
        f"k = {k}, p = {p}": Swap(heads=heads.top(k), strength=float(p)) for k in (1, 3) for p in (30, 50, 70)
    }
    result = Grid(refinement(model=model), method=methods).run(tmp_path, progress=False)
    assert len(indicator.calls) == 2  # 4 samples in batches of 2
    assert len(list(tmp_path.glob("head-ranking-*"))) == 1
    named_heads = {tuple(map(tuple, cell.method["heads"])) for cell in result.cells}
    assert named_heads == {((1, 1),), ((1, 1), (0, 1), (2, 0))}  # gains 7, 3, 3
    assert result.parameters[["k", "strength"]].to_numpy().tolist() == [
        [k, p] for k in (1, 3) for p in (30.0, 50.0, 70.0)
    ]
    assert result.sentences() == [
        "planted: the top 1, 3 heads by mean attention ratio on samples of validation that share no group with these."
    ]


def test_heads_by_reference_give_the_run_of_their_pairs(tmp_path: Path) -> None:
    model = Answering()
    by_name = refinement(model=model, method=Swap(heads=ranking(model, PlantedHeads()).top(2)))
    pairs = refinement(model=model, method=Swap(heads=((1, 1), (0, 1))))
    assert (
        by_name.run(tmp_path, progress=False).cells[0].folder
        == pairs.run(tmp_path, progress=False).cells[0].folder
    )
    assert by_name.resolved(tmp_path, progress=False).to_json() == pairs.to_json()


def test_a_study_with_unresolved_heads_has_no_hash(tmp_path: Path) -> None:
    model = Answering()
    study = refinement(model=model, method=Swap(heads=ranking(model, PlantedHeads()).top(2)))
    with pytest.raises(StudyError, match=r"known once their ranking has run.*study.resolved\(\"runs\"\)"):
        study.to_dict()


def test_heads_of_another_model_are_refused() -> None:
    heads = ranking(Answering(fingerprint="e" * 64), PlantedHeads()).top(1)
    with pytest.raises(StudyError, match="ranked on the model that uses them"):
        refinement(method=Swap(heads=heads))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": Samples([], "nothing")}, "hold no sample"),
        ({"data": "medical"}, "data is Samples or a list of Sample"),
        ({"method": "VGRefine"}, "VGRefine needs heads of the model"),
        ({"method": 5}, "method is one of interp.methods"),
        ({"prompt": "{question}"}, "prompt is an interp.Prompt"),
        ({"max_new_tokens": 0}, "max_new_tokens is a whole number ≥ 1; got 0"),
        ({"read_layer": -1}, "read_layer is a whole number ≥ 0, or None; got -1"),
        ({"batch": True}, "batch is a whole number ≥ 1; got True"),
        ({"seed": -1}, "seed is a whole number ≥ 0; got -1"),
    ],
)
def test_what_makes_no_study_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        refinement(**changes)


def test_a_layer_the_model_lacks_is_refused_at_once(tmp_path: Path) -> None:
    model = Answering()
    with pytest.raises(StudyError, match=r"read_layer is one of 0 … 2 in this model; got 3"):
        refinement(model=model, read_layer=3).run(tmp_path, progress=False)
    assert not model.traced


def test_every_parameter_that_matters_is_in_the_hash() -> None:
    base = refinement()
    changed = [
        base.replace(method=Swap(strength=2.0)),
        base.replace(max_new_tokens=1),
        base.replace(read_layer=0),
        base.replace(batch=4),
        base.replace(data=samples(11)),
    ]
    assert len({study.to_json() for study in [base, *changed]}) == 6
    assert base.replace(seed=5).to_json() == base.to_json()


@pytest.mark.slow  # the runner's and the prefixes' own tests hold workers and kills to the byte
def test_two_workers_and_a_resumed_run_give_the_same_bytes(tmp_path: Path) -> None:
    """A model that a worker can open: two shards of four samples."""
    study = refinement(
        data=bundled("natural", n=8),
        model=ModelSpec("organism"),
        method=VGRefine(heads=[(1, 0), (2, 3)], layers=[1]),
        read_layer=2,
        max_new_tokens=2,
        batch=1,
    )
    one = study.run(tmp_path / "one", progress=False).cells[0].folder.path
    assert json.loads((one / "study.json").read_text())["method"]["heads"] == [[1, 0], [2, 3]]
    study.run(tmp_path / "two", workers=2, progress=False)
    expected = _hashes(one)
    two = tmp_path / "two" / one.name
    assert _hashes(two) == expected
    for file in two.glob("shards/00001.*"):
        file.unlink()
    study.run(tmp_path / "two", progress=False)
    assert _hashes(two) == expected


def test_the_plain_organism_beside_itself_changes_nothing(tmp_path: Path) -> None:
    study = refinement(data=bundled("medical", n=4), model="organism", method=Plain(), read_layer=2, batch=4)
    result = study.run(tmp_path, progress=False)
    assert len(result.pairs) == 4 * 4  # correct, logprob, probability, ar
    assert (result.pairs.before == result.pairs.after).all()
    assert result.costs().forwards_ratio.tolist() == [1.0]
    assert result.summary().p.isna().all()  # nothing is tested


def test_vgrefine_by_name_takes_the_published_heads_and_layer() -> None:
    model = ModelSpec("FreedomIntelligence/HuatuoGPT-Vision-7B-hf")
    method = Refinement(data=samples(2), model=model, method="VGRefine").method
    assert isinstance(method, VGRefine)
    assert method.heads == published_heads("huatuogpt-vision-7b")
    assert method.layers == (16,)


def test_the_last_layer_can_be_read(tmp_path: Path) -> None:
    study = refinement(data=samples(2), method=Looking(), read_layer=2)
    assert study.run(tmp_path, progress=False).failures.empty
    assert study.labels == {"model": "planted", "data": "planted", "method": "Looking"}
    assert study.question == "Is the model right more often with Looking than without?"


def test_heads_of_a_list_or_of_the_same_model_are_taken() -> None:
    model = Answering()
    for heads in (HeadSet.of([(1, 0)]), ranking(model, PlantedHeads()).top(1)):
        assert refinement(model=model, method=Swap(heads=heads)).unresolved
    assert not refinement(method=Swap(heads=((1, 0),))).unresolved
