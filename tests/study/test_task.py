"""What every study's task says of itself: what its numbers depend on, who shares with it, and which errors stop it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interp.data import Samples
from interp.errors import RunError, StudyError
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.run.store import SCHEMA_VERSION
from interp.study import Grid, GridResult
from interp.study.study import as_tuple, is_level
from interp.study.task import _asks_for_labels, data_identity, edited, fault, model_identity
from interp.tracing import Knockout, Site
from tests.study.fake_study import Lengths, LengthTask
from tests.study.planted import Model, sample, samples, sweep

CHANGES: dict[str, dict[str, Any]] = {
    "content": {"data": Samples([sample(0), sample(1), sample(9, id="s2")])},
    "id": {"data": Samples([sample(0), sample(1), sample(2, id="other")])},
    "order": {"data": Samples([sample(1), sample(0), sample(2)])},
    "number": {"data": samples(4)},
    "weights": {"model": Model(fingerprint="e" * 64)},
    "dtype": {"model": Model(dtype="torch.float16")},
    "device": {"model": Model(device="cuda:0")},
    "prompt": {"prompt": Prompt(template="{question}!")},
    "batch": {"batch": 3},
    "own": {"unit": "letters"},
}


def told(**changes: Any) -> dict[str, Any]:
    return Lengths(**{"data": samples(3), **changes}).to_dict()


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_numbers_depend_on_changes_the_study(name: str) -> None:
    assert told(**CHANGES[name]) != told()


def test_what_numbers_do_not_depend_on_does_not() -> None:
    own = told(model=Model(device="cuda:0"))
    assert told(model=Model(device="cuda:1")) == own
    assert told(data=Samples(samples(3), "another name")) == told()
    assert (own["study"], own["schema"], own["model"]["device"]) == ("lengths", SCHEMA_VERSION, "cuda")


@pytest.mark.parametrize("name", CHANGES)
def test_tasks_share_of_one_model_and_the_same_batches(name: str) -> None:
    study, other = Lengths(data=samples(3)), Lengths(**{"data": samples(3), **CHANGES[name]})
    same = study.task(study.model).sharing_key == other.task(other.model).sharing_key
    assert same == (name in ("prompt", "own"))


class Lost(LengthTask):
    def rows(self, place: int, index: int) -> Any:
        raise RunError("the server is gone.")


def test_an_error_of_the_run_is_no_failure_of_a_sample() -> None:
    study = Lengths(data=samples(2))
    task = Lost(study, study.model)
    with pytest.raises(RunError, match="the server is gone"):
        task.compute((0, 1))


def test_a_sample_needs_boxes_only_where_a_study_does() -> None:
    none = sample(0, boxes=[])
    assert fault(none, boxes=False) is None
    found = fault(none)
    assert found is not None
    assert found[0] == "SampleError"
    assert fault(sample(0)) is None
    assert fault(Sample.unusable("no row", id="x"), boxes=False) is not None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"queries": "label"}, True),
        ({"queries": "last"}, False),
        ({"a": 1, "inner": [{"queries": "last"}, {"queries": "label"}]}, True),
        ({"inner": ({"parts": {"queries": "label"}},)}, True),
        ({"name": "label"}, False),
    ],
)
def test_labels_are_asked_for_however_deep(value: Any, expected: bool) -> None:
    assert _asks_for_labels(value) is expected


@pytest.mark.parametrize("value", [{1, 2}, "ab", b"ab", {"a": 1}, 3])
def test_what_has_no_order_becomes_no_tuple(value: Any) -> None:
    assert as_tuple(value) is value
    assert as_tuple(range(2)) == as_tuple([0, 1]) == (0, 1)


@pytest.mark.parametrize("value", [0, 1, True, -0.1, "0.5", None])
def test_a_level_lies_between_0_and_1(value: Any) -> None:
    with pytest.raises(StudyError, match="level is between 0 and 1"):
        is_level("level", value)
    is_level("level", 0.001)


def growing(**changes: Any) -> Lengths:
    """Questions of 1, 4, 9 … 144 words, 650 together."""
    data = Samples([sample(i, question="word " * (i + 1) ** 2, group=f"g{i}") for i in range(12)], "growing")
    return Lengths(data=data, **changes)


def test_each_level_and_seed_has_its_own_summary(tmp_path: Path) -> None:
    result = growing().run(tmp_path, progress=False)
    wide, half = result.summary().iloc[0], result.summary(0.5).iloc[0]
    assert wide["mean"] == half["mean"] == pytest.approx(650 / 12)
    assert wide.low < half.low < half.high < wide.high
    assert result.summary(0.95).iloc[0].low == wide.low
    mine = result.summary()
    mine["mean"] = 0.0  # a copy
    assert result.summary()["mean"][0] == wide["mean"]
    other = growing(seed=1).run(tmp_path, progress=False).summary().iloc[0]
    assert (other.low, other.high) != (wide.low, wide.high)


def test_results_that_have_runs_take_no_other_names(tmp_path: Path, unchecked: None) -> None:
    one = Lengths(data=samples(2)).run(tmp_path, progress=False)
    named = GridResult.join([one, one], runs=["a", "b"])
    assert named.axes == ("run", "model", "data")
    assert named.n_samples == 2  # of the same data: each counts once
    with pytest.raises(StudyError, match="already have an axis 'run'"):
        GridResult.join([named], runs=["c"])
    with pytest.raises(StudyError, match="takes a list of results; got one"):
        GridResult.join(one)  # pyright: ignore[reportArgumentType]


def test_labels_of_an_axis_are_made_from_its_values() -> None:
    edit = Knockout(Site(layers=[1], queries="last", keys="image"))
    grid = Grid(sweep(), prompt=[Prompt(template="{question}!")], edits=[(), [edit]], metrics=[("kl", "ar")])
    assert [list(values) for values in grid.axes.values()] == [
        ["{question}!"],
        ["none", repr(edit)],
        ["kl, ar"],
    ]


def test_a_model_is_named_by_its_fingerprint_dtype_and_place() -> None:
    model = Model(dtype="torch.float16", device="cuda:1")
    assert model_identity(model) == {"fingerprint": "f" * 64, "dtype": "float16", "device": "cuda:1"}


def test_data_are_named_by_content_ids_and_where_asked_labels() -> None:
    plain, labelled = samples(2), Samples([sample(0, meta={"label": "nodule"}), sample(1)])
    assert data_identity(plain) == data_identity(labelled)
    assert data_identity(plain)["n"] == 2
    assert "labels" not in data_identity(plain)
    own = [data_identity(one, labels=True)["labels"] for one in (plain, labelled)]
    assert own[0] != own[1]
    lost = [Samples([Sample(f"/nowhere/{name}.png", "?", id="x")]) for name in "ab"]
    assert data_identity(lost[0]) == data_identity(lost[1])  # an unreadable image counts by its id


def test_without_edits_a_model_stays_itself() -> None:
    model = Model()
    assert edited(model, ()) is model
    with pytest.raises(StudyError, match=r"edits need a model of interp.load or interp.wrap; got Model"):
        edited(model, (Knockout(Site(layers=[1], queries="last", keys="image")),))


def test_unusable_samples_fail_before_anything_is_measured() -> None:
    seen: list[tuple[int, ...]] = []

    class Watching(LengthTask):
        def measure(self, indices: tuple[int, ...]) -> Any:
            seen.append(indices)
            return super().measure(indices)

    data = Samples([sample(0), Sample.unusable("no row", id="gone"), sample(2, question=""), sample(3)])
    task = Watching(Lengths(data=data), Lengths().model)
    outcome = task.compute((0, 1, 2, 3))
    assert seen == [(0, 2, 3)]
    failures = list(outcome.rows["failures"])
    assert [(row["sample"], row["error"]) for row in failures] == [
        ("gone", "SampleError"),
        ("s2", "SampleError"),
    ]
    assert [row["index"] for row in outcome.rows["samples"]] == [0, 3]
    assert [row["group"] for row in outcome.rows["samples"]] == ["patient-0", "patient-1"]
    nothing = task.compute((1,))
    assert len(seen) == 1
    assert (list(nothing.rows["scores"]), nothing.cost) == ([], {})
    assert [row["reason"] for row in nothing.rows["failures"]] == [row["reason"] for row in failures[:1]]


def test_a_run_says_which_model_and_data_it_was_made_of() -> None:
    study = Lengths(data=samples(3, "three"), model=Model(device="cuda:1"))
    task = study.task(study.model)
    told = task.provenance()
    assert told["data"]["name"] == "three"
    assert told["data"]["n"] == 3
    assert told["device"] == "cuda:1"
    assert task.to_dict()["model"]["device"] == "cuda"
    assert task.to_dict()["plan"]["shard"] == 4 * study.batch
    assert task.device == "cuda:1"


def test_a_model_that_changes_while_it_runs_is_noticed() -> None:
    study = Lengths(data=samples(2), model=Model())
    task = study.task(study.model)
    task.check_unchanged()
    task._mllm = Model(fingerprint="e" * 64, dtype="torch.float16", device="cuda:0")
    with pytest.raises(RunError, match="but its fingerprint and dtype changed while the study ran"):
        task.check_unchanged()
