from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.data import Samples
from interp.errors import RunError, StudyError
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.study import LayerSweep, ModelSpec
from interp.study.layer_sweep.task import SweepTask
from tests.study.planted import Model, Planted, sample, samples, sweep


def run(study: LayerSweep, out: Path) -> Any:
    return study.run(out, progress=False)


def test_scores_equal_what_the_planted_map_must_score(tmp_path: Path) -> None:
    scores = run(sweep(), tmp_path).scores
    assert list(scores.columns) == ["model", "data", "sample", "group", "layer", "metric", "control", "value"]
    assert len(scores) == 12 * 3 * 3 * 3
    own = scores[(scores.control == "boxes") & (scores.metric == "ar")]
    # 2 of 20 tokens hold 1 + g, the others 1: AR = (1 + g) · 20 / (20 + 2 g)
    for layer, gain in enumerate((0.0, 3.0, 1.0)):
        values = own[own.layer == layer].value.to_numpy()
        assert values == pytest.approx(np.full(12, (1 + gain) * 20 / (20 + 2 * gain)))
    even = scores[(scores.layer == 0) & (scores.metric == "kl_gain") & (scores.control != "centre_prior")]
    assert even.value.to_numpy() == pytest.approx(np.zeros(24), abs=1e-9)


def test_shuffled_boxes_are_the_partners_on_the_own_map(tmp_path: Path) -> None:
    result = run(sweep(), tmp_path)
    boxes = {found.id: found.boxes for found in result.study.data}
    lenders = result.samples.set_index("sample").partner
    scores = result.scores.set_index(["sample", "layer", "metric", "control"]).value
    for name, lender in lenders.items():
        assert lender != name
        same = boxes[name] == boxes[lender]
        found = scores[name, 1, "ar", "shuffled_boxes"]
        overlap = _shared_tokens(boxes[name][0].as_tuple(), boxes[lender][0].as_tuple())
        assert found == pytest.approx((2 + 3 * overlap) / 2 * 20 / 26)
        assert not same or overlap == 2


def _shared_tokens(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    return width / 20 if a[1] == b[1] else 0.0


def test_the_centre_prior_rewards_central_boxes_in_every_layer(tmp_path: Path) -> None:
    scores = run(sweep(), tmp_path).scores
    prior = scores[(scores.control == "centre_prior") & (scores.metric == "ar")]
    assert prior.groupby("sample").value.nunique().max() == 1
    by_sample = prior.drop_duplicates("sample").set_index("sample").value
    assert by_sample["s5"] > 1 > by_sample["s0"]  # s5's box is at the middle, s0's in the corner


def test_answers_and_token_counts_are_kept_per_sample(tmp_path: Path) -> None:
    table = run(sweep(), tmp_path).samples.set_index("sample")
    assert table.loc["s0", "n_tokens"] == 20
    assert table.loc["s0", "n_box_tokens"] == 2
    assert (table.predicted == "left").all()
    assert table.correct.tolist() == [True, False] * 6
    assert table.loc["s1", "logprob"] == pytest.approx(np.log(0.2))


def test_maps_and_token_maps_come_back_as_they_were(tmp_path: Path) -> None:
    result = run(sweep(), tmp_path)
    cell = result.cells[0]
    tokens = cell.tokens(3)
    inside = tokens.mask(result.study.data[3].boxes)
    maps = cell.maps([3, 9], 1)
    assert maps[3] == pytest.approx(1 + 3.0 * inside)
    assert maps[9] == pytest.approx(1 + 3.0 * cell.tokens(9).mask(result.study.data[9].boxes))
    assert tokens.to_pixels(maps[3]).shape == (80, 100)
    with pytest.raises(StudyError, match=r"samples \[3\] of planted · planted have no map at layer 7"):
        cell.maps([3], 7)


def test_the_sweeps_folder_is_the_hash_of_its_inputs(tmp_path: Path) -> None:
    base = sweep()
    folder = run(base, tmp_path).folder
    text = (folder / "study.json").read_text()
    assert text == base.to_json()
    assert folder.name == "layer-sweep-" + hashlib.sha256(text.encode()).hexdigest()[:12]
    others = [
        base.replace(seed=1),
        base.replace(rule="center"),
        base.replace(metrics=("ar",)),
        base.replace(batch=4),
        base.replace(prompt=Prompt(template="{question}")),
        base.replace(indicator=Planted((0.0, 1.0, 1.0))),
        base.replace(model=Model(fingerprint="e" * 64)),
        base.replace(model=Model(dtype="torch.bfloat16")),
        base.replace(data=samples(11)),
        base.replace(data=Samples([found.replace(id=f"other {i}") for i, found in enumerate(base.data)])),
    ]
    assert len({study.to_json() for study in [base, *others]}) == len(others) + 1
    assert base.replace(data=Samples(base.data, "another name")).to_json() == base.to_json()


def test_a_finished_study_is_read_not_run(tmp_path: Path) -> None:
    first = run(sweep(), tmp_path)
    again = sweep()
    assert run(again, tmp_path).scores.equals(first.scores)
    assert again.indicator.calls == []


def test_unusable_samples_are_failures_with_reasons(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    sample(2).load().save(broken)
    broken.write_bytes(broken.read_bytes()[:-2000])
    data = [sample(number) for number in range(10)]
    data[1] = data[1].replace(boxes=[(90, 10, 140, 30)])
    data[2] = data[2].replace(image=str(broken))
    data[3] = data[3].replace(image=str(tmp_path / "absent.png"))
    data[4] = data[4].replace(boxes=[])
    study = sweep(data=Samples(data), indicator=Planted(mismatch="s6", nan="s8"))
    result = run(study, tmp_path / "runs")
    failures = result.failures.set_index("sample")
    errors = {"s1": "BoxError", "s2": "ImageError", "s3": "ImageError", "s4": "SampleError"}
    assert failures.error.to_dict() == errors | {"s6": "ImageTokenMismatch", "s8": "MapError"}
    assert "broken.png" in failures.reason["s2"]
    assert "absent.png" in failures.reason["s3"]
    assert "outside" in failures.reason["s1"]
    assert "no box" in failures.reason["s4"]
    assert "19 image tokens" in failures.reason["s6"]
    assert "NaN or infinity at layers [1]" in failures.reason["s8"]
    assert set(result.samples["sample"]) == {"s0", "s5", "s7", "s9"}
    assert set(result.samples.partner) <= {f"s{number}" for number in (0, 2, 5, 6, 7, 8, 9)}


def test_bad_rows_and_names_that_are_not_utf8_stop_nothing(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\x1b.png")
    with open(name, "wb") as file:
        sample(1).load().save(file, "png")
    os.mkfifo(tmp_path / "pipe\udce9.png")
    data = [sample(number) for number in range(5)]
    data[1] = data[1].replace(image=name, group=None)
    data[2] = data[2].replace(image=str(tmp_path / "pipe\udce9.png"), group=None)
    data[3] = Sample.unusable("rows.jsonl, line 4: question holds the lone surrogate '\ud83d'", id="rows:4")
    data[4] = data[4].replace(image=str(tmp_path / "small\udce9.png"), boxes=[(0.1, 0.1, 0.5, 0.5)])
    with open(tmp_path / "small\udce9.png", "wb") as file:
        sample(4).load().save(file, "png")
    result = run(sweep(data=data), tmp_path / "runs")
    reasons = result.failures.set_index("sample").reason
    assert sorted(reasons.index) == ["rows:4", "s2", "s4"]
    assert "line 4: question holds the lone surrogate" in reasons["rows:4"]
    assert "is a named pipe" in reasons["s2"]
    assert "at most 1" in reasons["s4"]
    assert set(result.samples["sample"]) == {"s0", "s1"}
    assert result.report(tmp_path / "page.html").read_text(encoding="utf-8")


def test_no_box_is_borrowed_from_the_same_picture(tmp_path: Path) -> None:
    first, other = sample(0, group=None), sample(1, group=None)
    data = [first.replace(question=word, id=word) for word in "abc"] + [other]
    partner = run(sweep(data=data), tmp_path).samples.set_index("sample").partner
    assert partner[["a", "b", "c"]].tolist() == ["s1"] * 3
    alone = run(sweep(data=data[:3]), tmp_path)
    assert alone.samples.partner.isna().all()
    assert alone.samples.group.nunique() == 1
    assert set(alone.scores.control) == {"boxes", "centre_prior"}


def test_an_undefined_value_is_nan_and_a_failure_of_that_layer(tmp_path: Path) -> None:
    result = run(sweep(indicator=Planted(silent="s3")), tmp_path)
    failures = result.failures
    assert set(zip(failures["sample"], failures.layer, strict=True)) == {("s3", 2)}
    assert set(failures.control) == {"boxes", "shuffled_boxes"}
    summary = result.summary().set_index(["layer", "metric", "control"])
    assert summary.loc[(2, "ar", "boxes"), ["n", "n_undefined"]].tolist() == [11, 1]
    assert summary.loc[(1, "ar", "boxes"), ["n", "n_undefined"]].tolist() == [12, 0]


def test_when_nothing_can_be_measured_the_study_says_why(tmp_path: Path) -> None:
    data = Samples([sample(number, boxes=[]) for number in range(3)], "empty")
    with pytest.raises(
        StudyError, match=r"3 samples of planted · empty.*all failed.*SampleError: the sample"
    ):
        run(sweep(data=data), tmp_path)


def test_a_bug_is_not_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run(sweep(indicator=Planted(bug="s5")), tmp_path)
    assert "s5" in caught.value.__notes__[0]


def test_samples_without_a_group_belong_to_their_image(tmp_path: Path) -> None:
    sample(0).load().save(tmp_path / "one.png")
    data = [sample(number, image=str(tmp_path / "one.png"), group=None) for number in range(2)]
    result = run(sweep(data=Samples([*data, sample(4, group=None)])), tmp_path / "runs")
    first, second, other = result.samples.group
    assert first == second != other
    assert first == f"one.png ({data[0].image_fingerprints[0][:8]})"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": Samples([], "none")}, "hold no sample"),
        ({"data": "medical"}, "data is Samples or a list"),
        ({"metrics": ("ar", "beauty")}, "beauty"),
        ({"metrics": ()}, "metrics takes at least one of ar, "),
        ({"rule": "near"}, "rule is one of touch, center, stretch"),
        ({"prompt": "{question}"}, "prompt is an interp.Prompt"),
        ({"indicator": "atention"}, "Did you mean 'attention'"),
        ({"indicator": 5}, "indicator is one of"),
        ({"batch": 0}, "batch is a whole number ≥ 1"),
        ({"model": 7}, "model is an id"),
        ({"model": " "}, "model's id is a text"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        sweep().replace(**changes)


def test_a_per_head_indicator_is_refused() -> None:
    from interp.indicators import Attention

    with pytest.raises(StudyError, match="per_head=False"):
        sweep(indicator=Attention(per_head=True))


def test_an_indicator_without_layers_is_refused() -> None:
    from interp.indicators import TokenKnockout

    with pytest.raises(StudyError, match=r"needs maps per layer; TokenKnockout gives one map \(token\)"):
        sweep(indicator=TokenKnockout())


def test_the_default_is_relative_attention_on_the_organism() -> None:
    study = LayerSweep(data=[sample(0)])
    assert study.model == ModelSpec("organism")
    assert study.metrics == ("ar", "kl_gain", "js")
    assert study.indicator.relative_to.template.startswith("Write a general description")
    assert isinstance(study.data, Samples)


def test_a_task_is_pickled_without_its_opened_model() -> None:
    with pytest.raises(RunError, match=r"workers=1"):
        pickle.dumps(SweepTask(sweep(), Model()))
    task = SweepTask(sweep(model=ModelSpec("somewhere")), Model())
    assert task.__getstate__()["_mllm"] is None


def test_provenance_is_beside_the_numbers(tmp_path: Path) -> None:
    result = run(sweep(), tmp_path)
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["data"]["name"] == "planted"
    assert manifest["model"]["family"] == "planted"
    assert result.cost.forwards.tolist() == [6]
    assert result.cost.peak_bytes.tolist() == [1000]
