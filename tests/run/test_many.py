"""Several tasks in one go: abreast where they are of one kin, over one pool, with the bytes of each alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from interp.errors import RunError
from interp.run import Outcome, ProcessCache, Workers, prepare, run_task, run_tasks, runner
from interp.run.prepare import Unit
from interp.run.workers import Computed, dispatch
from interp.run.workers.worker import Worker
from tests.run.fake_task import Roots
from tests.run.run_fingerprints import fingerprints, leftovers


@dataclass
class Kin(Roots):
    """A task that opens a "model" in each process, and notes it, and what it computes, in a file."""

    tag: str = "a"
    model: str = "one"
    diary: str = ""
    shelf: ProcessCache = field(default_factory=ProcessCache)

    @property
    def sharing_key(self) -> str:
        return f"{self.model} {self.n}"

    def use(self, shelf: ProcessCache) -> None:
        self.shelf = shelf

    def to_dict(self) -> dict[str, Any]:
        self.shelf.model(self.model, self._open)
        return {**super().to_dict(), "tag": self.tag, "model": self.model}

    def compute(self, indices: tuple[int, ...]) -> Outcome:
        self._note(f"batch {self.tag} {indices}")
        outcome = super().compute(indices)
        _, found = self.shelf.once(f"prefix {indices}", lambda: self._note(f"prefix {indices}"), lambda _: 1)
        return Outcome(outcome.rows, {**outcome.cost, "forwards": 1.0 if found else 2.0})

    def _open(self) -> str:
        self._note(f"open {self.model} {os.getpid()}")
        return self.model

    def _note(self, line: str) -> None:
        if self.diary:
            with open(self.diary, "a") as file:
                file.write(f"{line}\n")


def group(*tasks: Roots) -> list[tuple[str, Roots]]:
    return [(f"task {place}", task) for place, task in enumerate(tasks)]


def lines(diary: Path, kind: str) -> list[str]:
    return [line for line in diary.read_text().splitlines() if line.startswith(kind)]


def kins(
    diary: Path | str, *, models: Sequence[str] = ("one",), **given: Any
) -> list[list[tuple[str, Roots]]]:
    return [
        group(*(Kin(tag=tag, model=model, diary=str(diary), **given) for tag in "abc")) for model in models
    ]


def test_tasks_of_one_kin_are_computed_abreast(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    folders = run_tasks(kins(diary, n=6), tmp_path / "out", progress=False)
    batches = [batch for shard in Roots(n=6).plan().shards for batch in shard]
    assert lines(diary, "batch") == [f"batch {tag} {batch}" for batch in batches for tag in "abc"]
    assert lines(diary, "prefix") == [f"prefix {batch}" for batch in batches]
    costs = [json.loads((folder.path / "cost.json").read_text())["total"]["forwards"] for folder in folders]
    assert costs == [2.0 * len(batches), 1.0 * len(batches), 1.0 * len(batches)]


def test_each_task_has_the_bytes_and_the_folder_it_has_alone(tmp_path: Path) -> None:
    folders = run_tasks(kins("", n=10, bad=(5,)), tmp_path / "together", progress=False)
    for folder, (_, task) in zip(folders, kins("", n=10, bad=(5,))[0], strict=True):
        assert run_task(task, tmp_path / "alone", progress=False).path.name == folder.path.name
    assert fingerprints(tmp_path / "together") == fingerprints(tmp_path / "alone")


def test_one_pool_opens_each_model_once_per_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "n_threads", lambda: None)  # so that the workers need not import torch
    diary = tmp_path / "diary"
    groups = kins(diary, models=("one", "two"), n=16)
    run_tasks(groups, tmp_path / "two", workers=2, progress=False)
    opened = [line.split()[1:] for line in lines(diary, "open")]
    elsewhere = [(model, process) for model, process in opened if int(process) != os.getpid()]
    assert len(elsewhere) == len(set(elsewhere)) <= 4
    assert len({process for _, process in elsewhere}) <= 2
    batches = [batch for shard in Roots(n=16).plan().shards for batch in shard]
    assert sorted(lines(diary, "prefix")) == sorted(f"prefix {batch}" for batch in batches for _ in range(2))
    run_tasks(kins("", models=("one", "two"), n=16), tmp_path / "one", progress=False)
    assert fingerprints(tmp_path / "two") == fingerprints(tmp_path / "one")
    assert leftovers(tmp_path) == []


def test_a_group_is_asked_for_when_the_one_before_is_done(tmp_path: Path) -> None:
    asked: list[int] = []

    def groups() -> Iterator[list[tuple[str, Roots]]]:
        for number in (4, 6):
            asked.append(len(list(tmp_path.glob("*/tables/scores.parquet"))))
            yield group(Roots(n=number))

    run_tasks(groups(), tmp_path, progress=False)
    assert asked == [0, 1]


def test_what_one_task_lacks_is_computed_for_it_alone(tmp_path: Path) -> None:
    folders = run_tasks(kins("", n=10), tmp_path / "out", progress=False)
    before = fingerprints(tmp_path / "out")
    folders[1].seal_file(1).unlink()
    folders[2].seal_file(0).unlink()
    diary = tmp_path / "diary"
    run_tasks(kins(diary, n=10), tmp_path / "out", progress=False)
    shards = Roots(n=10).plan().shards
    expected = [f"batch c {batch}" for batch in shards[0]] + [f"batch b {batch}" for batch in shards[1]]
    assert sorted(lines(diary, "batch")) == sorted(expected)
    assert fingerprints(tmp_path / "out") == before


def test_parts_of_many_tasks_make_the_whole(tmp_path: Path) -> None:
    for number in (1, 2):
        run_tasks(kins("", n=16), tmp_path / "parts", progress=False, part=(number, 2))
    run_tasks(kins("", n=16), tmp_path / "whole", progress=False)
    parts, whole = fingerprints(tmp_path / "parts"), fingerprints(tmp_path / "whole")
    assert parts == whole


def test_no_more_than_so_many_tasks_are_computed_abreast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "MOST_TOGETHER", 2)
    diary = tmp_path / "diary"
    run_tasks(kins(diary, n=4), tmp_path / "out", progress=False)
    batches = Roots(n=4).plan().shards[0]
    pairs = [f"batch {tag} {batch}" for batch in batches for tag in "ab"]
    assert lines(diary, "batch") == [*pairs, *(f"batch c {batch}" for batch in batches)]


def test_every_task_has_its_own_line_of_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_tasks(kins("", n=4), tmp_path)
    said = capsys.readouterr().err.splitlines()
    for place in range(3):
        own = [line for line in said if line.startswith(f"task {place}: ")]
        assert own[0] == f"task {place}: 4 samples"
        assert own[-1].startswith(f"task {place}: 4/4 samples")


def test_shared_memory_is_freed_before_a_batch_is_split(tmp_path: Path) -> None:
    class Crowded(Kin):
        def compute(self, indices: tuple[int, ...]) -> Outcome:
            if self.tag == "b" and self.shelf.n_bytes:
                raise MemoryError("no room beside what the others need")
            return super().compute(indices)

    tasks = [Kin(n=4, tag="a"), Crowded(n=4, tag="b")]
    folders = run_tasks([group(*tasks)], tmp_path, progress=False)
    for folder in folders:
        assert folder.read_table("scores").num_rows == 8
        assert "splits" not in json.loads((folder.path / "manifest.json").read_text())


def test_no_tasks_are_no_folders_and_zero_workers_are_refused(tmp_path: Path) -> None:
    assert run_tasks([], tmp_path, progress=False) == ()
    with pytest.raises(RunError, match="workers ≥ 1, got 0"):
        run_tasks([group(Roots())], tmp_path, workers=0)


def computed_here(monkeypatch: pytest.MonkeyPatch, at_the_end: Callable[[], object] = lambda: None) -> None:
    """Units that are handed to workers are computed by one in this process."""

    def compute(
        groups: Sequence[bytes], units: Sequence[Unit], workers: Workers, **_: Any
    ) -> Iterator[Computed]:
        worker = Worker(groups.__getitem__)
        for unit in units:
            kind, value = worker.outcome(unit)
            assert kind == "done"
            yield unit, value
        at_the_end()

    monkeypatch.setattr(runner, "compute_units", compute)


def test_a_single_shard_starts_no_worker(tmp_path: Path) -> None:
    task = Roots(n=4)
    run_task(task, tmp_path, workers=2, progress=False)
    assert sorted(task.calls) == sorted(task.plan().shards[0])


def test_a_run_that_lacks_tables_alone_is_joined_beside_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = run_tasks(kins("", n=10), tmp_path, progress=False)
    before = fingerprints(tmp_path)
    (folders[0].path / "tables" / "scores.parquet").unlink()
    for shard in (0, 1, 2):
        folders[1].seal_file(shard).unlink()
    dead = folders[1].path / "shards" / f".00000.json.{os.uname().nodename}.{2**22 + 1}.0123abcd.tmp"
    computed_here(monkeypatch, dead.touch)  # a worker that was killed while it wrote
    diary = tmp_path / "diary"
    run_tasks(kins(diary, n=10), tmp_path, workers=2, progress=False)
    assert {line.split()[1] for line in lines(diary, "batch")} == {"b"}
    assert fingerprints(tmp_path) == before
    assert leftovers(tmp_path) == []


def test_a_run_is_joined_as_soon_as_its_last_shard_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[int] = []

    def count() -> None:
        joined.append(len(list(tmp_path.glob("*/tables/scores.parquet"))))

    computed_here(monkeypatch, count)
    groups = [*kins("", models=("one", "two"), n=10)]
    for folder in run_tasks(groups, tmp_path, workers=2, progress=False):
        assert folder.n_rows("scores") == 20
    assert joined == [6]
