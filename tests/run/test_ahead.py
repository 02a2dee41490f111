from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from interp.errors import RunError, SampleError
from interp.run import Outcome, RunFolder, run_task
from interp.run.ahead import Ahead
from tests.run.fake_task import Roots
from tests.run.run_fingerprints import fingerprints


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


@pytest.mark.parametrize("loaders", [-1, True, 65])
def test_a_number_of_loaders_is_checked(tmp_path: Path, loaders: Any) -> None:
    with pytest.raises(RunError, match=f"expected a whole number of loaders from 0 to 64, got {loaders!r}"):
        run_task(Roots(), tmp_path, progress=False, loaders=loaders)


def test_without_loaders_no_thread_starts() -> None:
    with Ahead(0) as ahead:
        ahead.start(Prepared(), [(0, 1)])
        done: list[int] = []
        ahead.write(lambda: done.append(threading.get_ident()))
    assert done == [threading.get_ident()]
