from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from interp.errors import ModelError, RunError
from interp.run import run_task
from interp.run.prepare import Unit
from interp.run.sessions import begin_session, code_fingerprint
from interp.run.shards import Job
from interp.run.store import RunFolder, StoredPlan, store_plan
from interp.run.workers import store_sent_files
from interp.run.workers.worker import Worker, raised
from tests.run.fake_task import Roots
from tests.run.run_fingerprints import fingerprints
from tests.run.workers.placed_task import Placed


def begun(task: Roots, out: Path) -> tuple[RunFolder, bytes]:
    """A run's folder without shards, and its pickled job."""
    folder = RunFolder.create(out, task.name, task.to_dict())
    store_plan(folder.path, folder.digest, StoredPlan.of(task))
    return folder, pickle.dumps([Job(task, folder, begin_session(folder, {}))])


def test_sent_files_make_the_folder_that_one_process_writes(tmp_path: Path) -> None:
    task = Roots(bad=(5, 9))
    folder, packed = begun(task, tmp_path / "sent")
    elsewhere = tmp_path / "sent-as-seen-from-elsewhere"
    (tmp_path / "sent").rename(elsewhere)  # the worker cannot see the driver's folder
    worker = Worker({0: packed}.__getitem__, sends=True)
    outcomes = [worker.outcome(Unit(0, (0,), shard)) for shard in range(8)]
    assert [kind for kind, _ in outcomes] == ["done"] * 8
    assert not (tmp_path / "sent").exists()
    elsewhere.rename(tmp_path / "sent")
    for shard, (_, files) in enumerate(outcomes):
        own = [name for name in files[0] if name.startswith("shards/")]
        assert own
        assert all(name.startswith(f"shards/{shard:05d}.") for name in own)  # what was sent is not sent again
        *_, last = files[0]
        assert last.endswith(".json")  # the seal, which makes the shard complete
        store_sent_files(folder, files[0])
    resumed = Roots(bad=(5, 9))
    run_task(resumed, tmp_path / "sent", progress=False)
    run_task(Roots(bad=(5, 9)), tmp_path / "whole", progress=False)
    assert resumed.calls == []
    assert fingerprints(tmp_path / "sent") == fingerprints(tmp_path / "whole")
    assert folder.read_json("cost.json", {})["total"]["seconds"] == 0.5 * 15


def test_a_folder_that_is_gone_takes_no_sent_files(tmp_path: Path) -> None:
    folder, _ = begun(Roots(), tmp_path)
    (folder.path / "study.json").unlink()
    with pytest.raises(RunError, match="is gone"):
        store_sent_files(folder, {"shards/00000.json": b"{}"})
    assert not (folder.path / "shards").exists()


def test_a_worker_elsewhere_checks_the_files_of_its_samples(tmp_path: Path) -> None:
    task = Placed(file=str(tmp_path / "image.png"))
    _, packed = begun(task, tmp_path)
    kind, value = Worker({0: packed}.__getitem__, sends=True).outcome(Unit(0, (0,), 1))
    assert kind == "failed"
    assert str(raised(value)).startswith(f"samples {sorted(task.plan().indices(1))} need")
    here = Worker({0: packed}.__getitem__)
    assert here.outcome(Unit(0, (0,), 1))[0] == "done"  # on this machine the files are those of the driver


def test_a_worker_takes_its_own_device(tmp_path: Path) -> None:
    _, packed = begun(Placed(diary=str(tmp_path / "diary")), tmp_path)
    Worker({0: packed}.__getitem__, device="fake:3").outcome(Unit(0, (0,), 0))
    assert set((tmp_path / "diary").read_text().split()) == {"fake:3"}


def test_a_worker_has_the_threads_of_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    Worker({}.__getitem__, threads=3)
    Worker({}.__getitem__)
    assert given == [3]


def test_a_device_of_another_type_is_another_study(tmp_path: Path) -> None:
    _, packed = begun(Placed(), tmp_path)
    kind, value = Worker({0: packed}.__getitem__, device="other:0").outcome(Unit(0, (0,), 0))
    assert kind == "failed"
    with pytest.raises(RunError, match=r"but it finds the study .*process \d+ on .*different devices"):
        raise raised(value)


def test_a_task_that_cannot_be_opened_there_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, packed = begun(Roots(), tmp_path)

    def closed(self: Roots) -> None:
        raise ModelError("no weights here")

    monkeypatch.setattr(Roots, "to_dict", closed)
    kind, value = Worker({0: packed}.__getitem__).outcome(Unit(0, (0,), 0))
    assert kind == "failed"
    with pytest.raises(
        RunError, match=rf"cannot open the task of {folder.path} \(process \d+ on .*no weights here"
    ):
        raise raised(value)


def test_a_worker_checks_each_job_once_and_only_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [Roots(n=8), Roots(n=12)]
    folders = [RunFolder.create(tmp_path, task.name, task.to_dict()) for task in tasks]
    packed = pickle.dumps([Job(task, folder, "s") for task, folder in zip(tasks, folders, strict=True)])
    checked, read = list[int](), list[int]()
    describe = Roots.to_dict

    def noted(self: Roots) -> dict[str, object]:
        checked.append(self.n)
        return describe(self)

    def fetch(group: int) -> bytes:
        read.append(group)
        return packed

    monkeypatch.setattr(Roots, "to_dict", noted)
    worker = Worker(fetch)
    for group, place, shard in ((0, 1, 0), (0, 1, 1), (0, 0, 0), (1, 0, 1)):
        assert worker.outcome(Unit(group, (place,), shard))[0] == "done"
    assert checked == [12, 8, 8]
    assert read == [0, 1]
    assert [folder.has_shard(shard, ["scores"]) for folder in folders for shard in (0, 1)] == [True] * 4


def test_an_error_that_cannot_travel_keeps_its_text(tmp_path: Path) -> None:
    class LocalError(Exception):
        pass

    class Faulty(Roots):
        def compute(self, indices: tuple[int, ...]) -> None:
            raise LocalError("no class that another process knows")

    folder = RunFolder.create(tmp_path, "roots", Faulty().to_dict())
    worker = Worker({}.__getitem__)
    worker._group, worker._jobs = 0, [Job(Faulty(), folder, "session")]
    kind, value = worker.outcome(Unit(0, (0,), 0))
    error = raised(value)
    assert kind == "failed"
    assert isinstance(error, RunError)
    assert "LocalError: no class that another process knows" in str(error)
    assert "in run" in str(error)  # the note that names the samples
    assert "compute_shard" in str(error.__cause__)


def test_a_changed_file_changes_the_hash_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("run", "study"):
        (tmp_path / name).mkdir()
    (tmp_path / "run" / "sessions.py").write_text("a = 1\n")
    monkeypatch.setattr("interp.run.sessions.__file__", str(tmp_path / "run" / "sessions.py"))
    found = []
    for text in ("b = 1\n", "b = 2\n", "b = 1\n"):
        (tmp_path / "study" / "other.py").write_text(text)
        code_fingerprint.cache_clear()
        found.append(code_fingerprint())
    code_fingerprint.cache_clear()
    assert found[0] == found[2] != found[1]
