from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from interp.errors import RunError
from interp.run import run_task
from interp.run.workers import dispatch
from tests.run.fake_task import Roots
from tests.run.run_fingerprints import fingerprints, leftovers

HERE = Path(__file__).parent
TASK = Roots(n=16, bad=(5, 9))


def experiments(kind: str, out: Path, n: int) -> list[dict[str, Any]]:
    """What the killer did, one entry per experiment."""
    command = [sys.executable, str(HERE / "killed_runs.py"), kind, str(out), str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_same(found: list[dict[str, Any]], whole: dict[str, str]) -> None:
    for experiment in found:
        out = Path(experiment["out"])
        assert fingerprints(out) == whole, experiment
        assert leftovers(out) == []


MANY = pytest.mark.slow


@pytest.mark.parametrize(
    ("kind", "n"),
    [
        ("moments", 10),
        ("behind", 4),
        ("writes", 12),
        pytest.param("moments", 50, marks=MANY),
        pytest.param("behind", 50, marks=MANY),
        pytest.param("writes", 24, marks=MANY),
    ],
)
def test_a_run_killed_anywhere_ends_with_the_same_bytes(tmp_path: Path, kind: str, n: int) -> None:
    run_task(TASK, tmp_path / "whole", progress=False)
    whole = fingerprints(tmp_path / "whole")
    found = experiments(kind, tmp_path / kind, n)
    assert len(found) == n
    check_same(found, whole)
    halfway = [experiment for experiment in found if 0 < _sealed(experiment) < 4]
    assert len(halfway) >= n // 4  # the kills fell on shards, not only on what comes before and after
    temporary = [name for experiment in found for name in experiment["left"] if name.endswith(".tmp")]
    assert kind != "writes" or len(temporary) >= n // 2  # they fell inside writes


def _sealed(experiment: dict[str, Any]) -> int:
    return sum("shards" in name and name.endswith(".json") for name in experiment["left"])


def test_two_runs_on_one_folder_end_well_and_lose_no_cost(tmp_path: Path) -> None:
    run_task(Roots(n=16), tmp_path / "whole", progress=False)
    found = experiments("together", tmp_path / "both", 8)
    check_same(found, fingerprints(tmp_path / "whole"))
    sessions = []
    for experiment in found:
        assert experiment["well"] == [True, True]
        (folder,) = Path(experiment["out"]).iterdir()
        manifest, cost = (json.loads((folder / name).read_text()) for name in ("manifest.json", "cost.json"))
        computed = Path(experiment["out"] + ".log").read_text().splitlines()
        assert cost["spent"]["seconds"] == 0.5 * len(computed)  # what the two really did, each of its own
        assert cost["total"]["seconds"] == 0.5 * 8  # what one alone would have done
        assert len(manifest["sessions"]) == len(list((folder / "sessions").iterdir()))
        sessions.append(len(manifest["sessions"]))
    assert max(sessions) == 2, "no two runs worked at once"


def test_a_killed_run_ends_its_workers_and_can_be_resumed(tmp_path: Path) -> None:
    run_task(Roots(bad=(5, 9)), tmp_path / "whole", progress=False)
    chance, survived = random.Random(3), 0
    for _ in range(2):
        command = [sys.executable, str(HERE / "fake_task.py"), str(tmp_path / "killed"), "2"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        _await_session(tmp_path / "killed", process)
        time.sleep(chance.uniform(0.1, 0.9))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)  # workers hold the other end of this pipe until they are gone
        survived += process.returncode == 0
    assert survived < 2, "no kill hit a run at work"
    killed = run_task(Roots(bad=(5, 9)), tmp_path / "killed", progress=False)
    assert fingerprints(tmp_path / "killed") == fingerprints(tmp_path / "whole")
    assert leftovers(killed.path) == []


def _await_session(out: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the process has begun to work, so that the kill falls on shards and not on imports."""
    known = set(out.glob("*/sessions/*/manifest.json"))
    while process.poll() is None and set(out.glob("*/sessions/*/manifest.json")) == known:
        time.sleep(0.01)


def test_a_worker_that_sees_another_study_computes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "n_threads", lambda: None)
    with pytest.raises(
        RunError, match=r"expected a worker process to compute the study .* different devices"
    ):
        run_task(Roots(blind=True), tmp_path, workers=2, progress=False)
    (folder,) = tmp_path.iterdir()
    assert not (folder / "shards").exists()
