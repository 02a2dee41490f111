from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from interp.errors import RunError, SampleError
from interp.indicators import Maps
from interp.inputs.sample import Sample
from interp.run import Outcome, ProcessCache, RunFolder, run_task, run_tasks
from interp.run.sessions import Ledger
from interp.run.shards import Ahead, Job, check_loaders, compute_batch, compute_shard, finished, schemas_of
from interp.tracing.passes.out_of_memory import out_of_memory
from tests.run.fake_task import Roots
from tests.run.run_fingerprints import fingerprints
from tests.study import planted


def test_a_batch_too_large_for_memory_is_halved_until_it_fits() -> None:
    task, splits = Roots(room=2), []
    whole = Roots().compute((0, 1, 2, 3, 4))
    outcome = compute_batch(task, (0, 1, 2, 3, 4), splits)
    assert [call for call in task.calls if len(call) <= 2] == [(0, 1), (2,), (3, 4)]
    assert outcome.rows == {**whole.rows}
    assert outcome.cost == {"seconds": 1.5, "peak_bytes": 4.0}
    assert [(split["samples"], split["halves"]) for split in splits] == [
        ([0, 1, 2, 3, 4], [[0, 1, 2], [3, 4]]),
        ([0, 1, 2], [[0, 1], [2]]),
    ]
    assert splits[0]["error"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."


def test_a_bad_sample_in_a_halved_batch_is_a_failure() -> None:
    task = Roots(room=2, bad=(3,))
    rows = compute_batch(task, (0, 1, 2, 3), []).rows
    assert [row["index"] for row in rows["failures"]] == [3]
    assert sorted({row["index"] for row in rows["scores"]}) == [0, 1, 2]


def test_splits_are_in_the_manifest_and_change_no_byte(
    tmp_path: Path,
) -> None:
    whole = run_task(Roots(n=6), tmp_path / "whole", progress=False)
    split = run_task(Roots(n=6, room=1), tmp_path / "split", progress=False)
    assert fingerprints(split.path) == fingerprints(whole.path)
    assert "splits" not in whole.read_json("manifest.json", {})
    recorded = split.read_json("manifest.json", {})["splits"]
    assert [(entry["shard"], entry["samples"]) for entry in recorded] == [
        (0, [0, 3]),
        (0, [1, 4]),
        (1, [2, 5]),
    ]
    assert {entry["session"] for entry in recorded} == {path.name for path in split.path.glob("sessions/*")}


def test_one_sample_too_large_for_memory_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"sample 0 \(sample-0\) to fit in memory.*larger device") as caught:
        run_task(Roots(room=0), tmp_path, progress=False)
    assert "shard 0" in caught.value.__notes__[0]
    assert not list(tmp_path.glob("*/shards/*"))
    assert run_task(Roots(), tmp_path, progress=False).read_table("failures").num_rows == 0


class Unopened(Roots):
    """A task whose model is gone."""

    def compute(self, indices: tuple[int, ...]) -> Outcome:
        raise RunError("expected the model with fingerprint a, got b.")


def test_a_task_that_cannot_run_is_no_failure_of_its_samples(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="fingerprint a, got b"):
        run_task(Unopened(), tmp_path, progress=False)
    assert not list(tmp_path.glob("*/shards/*"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …"), True),
        (RuntimeError("shapes (2,) and (3,) cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    assert out_of_memory(error) is expected


@dataclasses.dataclass(frozen=True)
class Narrow:
    """An indicator for which more than some samples do not fit in memory."""

    inner: Any
    room: int

    def __call__(self, mllm: Any, samples: Sequence[Sample], **options: Any) -> Maps:
        if len(samples) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return self.inner(mllm, samples, **options)

    def to_dict(self) -> dict[str, Any]:
        return self.inner.to_dict()


def test_numbers_agree_however_batches_are_split(tmp_path: Path) -> None:
    from interp.indicators import Attention
    from interp.inputs.prompt import GENERIC_PROMPT
    from interp.study import LayerSweep
    from interp.tracing import wrap
    from tests import tiny

    mllm = wrap(tiny.llava(), tiny.processor())
    words = ("left", "left lung there", "right", "red circle in the right lung")
    samples = [
        planted.sample(number, question=f"what is in the {words[number % 4]}", answer="left")
        for number in range(10)
    ]
    indicator = Attention(relative_to=GENERIC_PROMPT)
    found = {
        room: LayerSweep(data=samples, model=mllm, indicator=Narrow(indicator, room), batch=8).run(
            tmp_path / str(room), progress=False
        )
        for room in (8, 3)
    }
    assert len(found[3].cells[0].folder.read_json("manifest.json", {})["splits"]) == 3
    values = [found[room].scores.value.to_numpy() for room in (8, 3)]
    assert len(values[0]) == 10 * 3 * 3 * 3
    np.testing.assert_allclose(values[1], values[0], rtol=1e-5, atol=1e-5)
    logprobs = [found[room].samples.logprob.to_numpy() for room in (8, 3)]
    np.testing.assert_allclose(logprobs[1], logprobs[0], rtol=1e-5, atol=1e-5)


@dataclass
class Prepared(Roots):
    """`Roots` whose micro-batches are prepared; it notes which, and in which thread."""

    fault: tuple[int, Exception] | None = None
    prepared: list[tuple[tuple[int, ...], str]] = field(default_factory=list)
    early: list[bool] = field(default_factory=list)

    def preparer(self, threads: int) -> Callable[[tuple[int, ...]], None]:
        def prepare(indices: tuple[int, ...]) -> None:
            if self.fault is not None and self.fault[0] in indices:
                raise self.fault[1]
            self.prepared.append((indices, threading.current_thread().name))

        return prepare

    def compute(self, indices: tuple[int, ...]) -> Outcome:
        if indices in [
            batch for shard in self.plan().shards for batch in shard
        ]:  # not a part of one that failed
            self.early.append(indices in [one for one, _ in self.prepared])
        return super().compute(indices)


@pytest.mark.parametrize("loaders", [1, 3])
def test_loaders_prepare_each_batch_once_and_change_no_byte(tmp_path: Path, loaders: int) -> None:
    run_task(Roots(bad=(5,)), tmp_path / "plain", progress=False)
    task = Prepared(bad=(5,))
    run_task(task, tmp_path / "ahead", progress=False, loaders=loaders)
    assert fingerprints(tmp_path / "ahead") == fingerprints(tmp_path / "plain")
    batches = [batch for shard in task.plan().shards for batch in shard]
    assert sorted(one for one, _ in task.prepared) == sorted(batches)
    assert all(name.startswith("interp-loader") for _, name in task.prepared)
    assert all(task.early)
    assert not [one for one in threading.enumerate() if one.name.startswith("interp-")]


def test_the_next_micro_batch_is_prepared_while_one_is_computed(tmp_path: Path) -> None:
    task = Prepared(n=8, pause=0.05)
    ahead: list[int] = []
    compute = Prepared.compute

    def counting(self: Prepared, indices: tuple[int, ...]) -> Outcome:
        outcome = compute(self, indices)
        ahead.append(len(self.prepared) - len(self.calls))
        return outcome

    task.compute = counting.__get__(task)  # type: ignore[method-assign]
    run_task(task, tmp_path, progress=False, loaders=1)
    assert ahead[:-1] == [1] * (len(ahead) - 1)


def test_what_a_loader_raises_names_the_samples(tmp_path: Path) -> None:
    task = Prepared(fault=(4, ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError, match="a bug") as found:
        run_task(task, tmp_path, progress=False, loaders=2)
    notes = "\n".join(found.value.__notes__)
    assert "raised by a loader" in notes
    assert "sample-4" in notes
    assert "run again to resume" in notes


@pytest.mark.parametrize("error", [SampleError("unreadable"), MemoryError()])
def test_what_the_computation_will_find_is_left_to_it(tmp_path: Path, error: Exception) -> None:
    run_task(Roots(), tmp_path / "plain", progress=False)
    run_task(Prepared(fault=(4, error)), tmp_path / "ahead", progress=False, loaders=1)
    assert fingerprints(tmp_path / "ahead") == fingerprints(tmp_path / "plain")


def test_a_shard_is_written_while_the_next_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, seen = Prepared(n=12), list[tuple[str, int]]()
    write = RunFolder.write_shard

    def slowly(self: RunFolder, shard: int, tables: Any) -> None:
        before = len(task.calls)
        time.sleep(0.1)
        seen.append((threading.current_thread().name, len(task.calls) - before))
        write(self, shard, tables)

    monkeypatch.setattr(RunFolder, "write_shard", slowly)
    folder = run_task(task, tmp_path, progress=False, loaders=1)
    assert folder.n_rows("scores") == 24
    assert all(name.startswith("interp-writer") for name, _ in seen)
    assert seen[0][1] > 0


def test_a_shard_that_cannot_be_written_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise RunError("expected to write, got: no space")

    monkeypatch.setattr(RunFolder, "write_shard", full)
    with pytest.raises(RunError, match="no space"):
        run_task(Roots(), tmp_path, progress=False, loaders=1)


def test_the_last_shard_of_a_part_must_be_written_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: RunFolder, shard: int, tables: Any) -> None:
        raise RunError("expected to write, got: no space")

    monkeypatch.setattr(RunFolder, "write_shard", full)
    with pytest.raises(RunError, match="no space"), Ahead(1) as ahead:
        ahead.write(lambda: full(RunFolder(tmp_path, ""), 0, {}))
    with pytest.raises(RunError, match="no space"):
        run_task(Roots(n=4), tmp_path, progress=False, loaders=1, part=(1, 2))


def test_loaders_prepare_each_task_as_its_own(tmp_path: Path) -> None:
    tasks = [Prepared(n=8), Prepared(n=12)]  # two tasks in one process, which share nothing
    run_tasks([[("one", tasks[0]), ("two", tasks[1])]], tmp_path, progress=False, loaders=1)
    for task in tasks:
        batches = [batch for shard in task.plan().shards for batch in shard]
        assert sorted(one for one, _ in task.prepared) == sorted(batches)
        assert all(task.early)


def test_a_shard_with_samples_of_another_is_not_finished(tmp_path: Path) -> None:
    folder, plan, schemas = (
        run_task(Roots(n=8), tmp_path, progress=False),
        Roots(n=8).plan(),
        schemas_of(Roots()),
    )
    assert finished(folder, plan, schemas, 0)
    tables = [folder.read_shard(shard, schemas) for shard in (0, 1)]
    folder.write_shard(0, {name: pa.concat_tables([one[name] for one in tables if one]) for name in schemas})
    assert not finished(folder, plan, schemas, 0)


@pytest.mark.parametrize("loaders", [-1, True, 65])
def test_a_number_of_loaders_is_checked(tmp_path: Path, loaders: Any) -> None:
    with pytest.raises(RunError, match=f"expected a whole number of loaders from 0 to 64, got {loaders!r}"):
        run_task(Roots(), tmp_path, progress=False, loaders=loaders)
    for allowed in (0, 64):
        check_loaders(allowed)


def test_without_loaders_no_thread_starts() -> None:
    with Ahead(0) as ahead:
        ahead.start(Prepared(), [(0, 1)])
        done: list[int] = []
        ahead.write(lambda: done.append(threading.get_ident()))
    assert done == [threading.get_ident()]


@pytest.mark.parametrize("loaders", [0, 1])
def test_an_error_of_the_writer_is_raised_once(loaders: int) -> None:
    written: list[int] = []

    def broken() -> None:
        raise RunError("the disk is full")

    def every(ahead: Ahead, *writes: Callable[[], None]) -> None:
        for write in writes:
            ahead.write(write)

    with pytest.raises(RunError, match="the disk is full"), Ahead(loaders) as ahead:
        ahead.write(broken)  # nothing follows it: told at the end
    with Ahead(loaders) as ahead:
        with pytest.raises(RunError, match="the disk is full"):
            every(ahead, broken, lambda: written.append(1))
        ahead.write(lambda: written.append(2))
    assert written == [2]


def test_what_went_wrong_first_is_told() -> None:
    def broken() -> None:
        raise RunError("the disk is full")

    def both() -> None:
        with Ahead(1) as ahead:
            ahead.write(broken)
            raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        both()


def test_a_shard_that_another_process_stored_is_left_alone(tmp_path: Path) -> None:
    tasks = [Roots(n=8), Roots(n=8, bad=(5,))]
    folders = [run_task(task, tmp_path, progress=False) for task in tasks]
    folders[1].seal_file(1).unlink()
    again = [Roots(n=8), Roots(n=8, bad=(5,))]
    jobs = [
        (Job(task, folder, "s"), Ledger(folder, "s")) for task, folder in zip(again, folders, strict=True)
    ]
    compute_shard(jobs, 0, ProcessCache())
    assert again[0].calls == again[1].calls == []
    compute_shard(jobs, 1, ProcessCache())
    assert again[0].calls == []
    assert {index for call in again[1].calls for index in call} == set(again[1].plan().indices(1))
    assert finished(folders[1], again[1].plan(), schemas_of(again[1]), 1)


def test_the_seconds_of_a_shard_are_those_of_its_batches(tmp_path: Path) -> None:
    folder = run_task(Roots(n=8, pause=0.02), tmp_path, progress=False)
    cost = folder.read_json("cost.json", {})
    assert all(0.04 <= one["wall_seconds"] < 10 for one in cost["shards"].values())
    total = sum(one["wall_seconds"] for one in cost["shards"].values())
    assert cost["total"]["wall_seconds"] == pytest.approx(total)
    largest = {str(shard): float(max(Roots(n=8).plan().indices(shard))) for shard in (0, 1)}
    assert {shard: one["peak_bytes"] for shard, one in cost["shards"].items()} == largest


def test_what_went_wrong_says_where_and_that_a_rerun_resumes(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run_task(Roots(n=8, bug=7), tmp_path, progress=False)
    (note,) = caught.value.__notes__
    (folder,) = tmp_path.iterdir()
    assert f"in run {folder}, shard 1, samples [" in note
    assert "(ids " in note
    assert note.endswith("Finished shards are kept: run again to resume.")
