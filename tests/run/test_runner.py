from __future__ import annotations

import hashlib
import json
import math
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from interp.errors import RunError
from interp.run import RunFolder, run_task
from tests.run.fake_task import Roots


def fingerprints(folder: Path) -> dict[str, str]:
    """sha256 of every Parquet file under a run's folder."""
    files = sorted(folder.glob("**/*.parquet"))
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def run(task: Roots, out: Path, **options: int) -> RunFolder:
    return run_task(task, out, progress=False, **options)


def test_tables_hold_every_sample_in_order(tmp_path: Path) -> None:
    table = run(Roots(), tmp_path).read_table("scores").to_pydict()
    assert not list(tmp_path.glob("*/tables/maps.parquet"))
    assert table["index"] == [index for index in range(30) for _ in (0, 1)]
    assert table["layer"] == [0, 1] * 30
    assert table["value"] == [math.sqrt(index + layer) for index in range(30) for layer in (0, 1)]


def test_a_second_run_computes_nothing_and_changes_no_byte(tmp_path: Path) -> None:
    folder = run(Roots(), tmp_path)
    before = {file: file.read_bytes() for file in folder.path.glob("**/*") if file.is_file()}
    again = Roots()
    assert run(again, tmp_path) == folder
    assert again.calls == []
    assert {file: file.read_bytes() for file in folder.path.glob("**/*") if file.is_file()} == before


@pytest.mark.parametrize("harm", ["delete", "truncate"])
def test_only_the_harmed_shard_is_computed_again(tmp_path: Path, harm: str) -> None:
    folder = run(Roots(), tmp_path)
    before = fingerprints(folder.path)
    file = folder.shard_file(1, "maps")
    if harm == "delete":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-7])
    again = Roots()
    run(again, tmp_path)
    assert sorted(again.calls) == sorted(Roots().plan().shards[1])
    assert fingerprints(folder.path) == before


def test_a_harmed_joined_table_is_joined_again_without_computing(tmp_path: Path) -> None:
    folder = run(Roots(), tmp_path)
    before = fingerprints(folder.path)
    (folder.path / "tables" / "scores.parquet").write_bytes(b"PAR1")
    again = Roots()
    run(again, tmp_path)
    assert again.calls == []
    assert fingerprints(folder.path) == before


def test_bad_samples_become_failures_and_the_rest_is_run_without_them(tmp_path: Path) -> None:
    task = Roots(bad=(4, 5, 9))
    folder = run(task, tmp_path)
    failures = folder.read_table("failures").to_pylist()
    assert [(row["index"], row["sample"], row["group"], row["error"]) for row in failures] == [
        (4, "sample-4", "group-2", "ImageError"),
        (5, "sample-5", "group-2", "ImageError"),
        (9, "sample-9", "group-4", "ImageError"),
    ]
    assert failures[0]["reason"] == "image of 4 is broken."
    assert failures[0]["layer"] is None
    kept = set(folder.read_table("scores").column("index").to_pylist())
    assert kept == set(range(30)) - {4, 5, 9}
    partner = next(set(batch) - {9} for batch in sum(task.plan().shards, ()) if 9 in batch)
    assert tuple(partner) in task.calls


def test_a_batch_that_fails_only_together_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="each passes"):
        run(Roots(together=(0, 3)), tmp_path)


def test_a_bug_stops_the_run_with_context_and_finished_shards_are_kept(tmp_path: Path) -> None:
    last = Roots().plan().shards[-1][-1][-1]
    with pytest.raises(ZeroDivisionError) as caught:
        run(Roots(bug=last), tmp_path)
    note = caught.value.__notes__[0]
    assert f"sample-{last}" in note
    assert "run again to resume" in note
    again = Roots()
    run(again, tmp_path)
    assert sorted(again.calls) == sorted(again.plan().shards[-1])


def test_processes_give_the_same_bytes_and_an_error_arrives_with_its_context(tmp_path: Path) -> None:
    alone = run(Roots(bad=(5,)), tmp_path / "one")
    last = Roots().plan().shards[-1][-1][-1]
    with pytest.raises(ZeroDivisionError) as caught:
        run(Roots(bad=(5,), bug=last), tmp_path / "two", workers=2)
    assert any(f"sample-{last}" in note for note in caught.value.__notes__)
    finish = Roots(bad=(5,))
    many = run(finish, tmp_path / "two")
    assert sorted(finish.calls) == sorted(finish.plan().shards[-1])  # the processes did all the rest
    assert fingerprints(many.path) == fingerprints(alone.path)
    assert json.loads((many.path / "cost.json").read_text())["total"]["peak_bytes"] == 29


def test_kills_at_any_moment_leave_the_same_bytes(tmp_path: Path) -> None:
    whole = run(Roots(bad=(5, 9)), tmp_path / "whole")
    chance = random.Random(0)
    command = [sys.executable, str(Path(__file__).with_name("fake_task.py")), str(tmp_path / "killed")]
    survived = 0
    for _ in range(4):
        process = subprocess.Popen(command)
        _await_study(tmp_path / "killed", process)
        time.sleep(chance.uniform(0.0, 0.25))
        process.send_signal(signal.SIGKILL)
        survived += process.wait() == 0
    assert survived < 4, "no kill hit a run at work"
    killed = run(Roots(bad=(5, 9)), tmp_path / "killed")
    assert fingerprints(killed.path) == fingerprints(whole.path)
    assert not list(killed.path.glob("**/*.tmp"))


def _await_study(out: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the process has begun to work, so that the kill falls on shards and not on imports."""
    known = set(out.glob("*/manifest.json"))
    sessions = sum(len(json.loads(file.read_text())["sessions"]) for file in known)
    while process.poll() is None:
        files = list(out.glob("*/manifest.json"))
        if files and len(json.loads(files[0].read_text())["sessions"]) > sessions:
            return
        time.sleep(0.01)


def test_seconds_and_dates_live_outside_the_shards(tmp_path: Path) -> None:
    folder = run(Roots(), tmp_path)
    cost = json.loads((folder.path / "cost.json").read_text())
    assert cost["total"]["seconds"] == pytest.approx(0.5 * 15 + 0.5 * 0)
    assert set(cost["shards"]) == {str(shard) for shard in range(8)}
    manifest = json.loads((folder.path / "manifest.json").read_text())
    assert manifest["run"] == folder.digest
    assert manifest["model"] == {"id": "none"}
    session = manifest["sessions"][0]
    assert session["shards"] == {"missing": 8, "total": 8}
    assert {"python", "torch", "transformers", "nnsight"} <= set(session["versions"])


def test_progress_is_a_few_lines_on_stderr_when_it_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_task(Roots(), tmp_path, label="roots")
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0] == "roots: 30 samples"
    assert lines[-1].startswith("roots: 30/30 samples")
    assert len(lines) <= 5
    run_task(Roots(), tmp_path / "quiet", progress=False)
    assert capsys.readouterr().err == ""


def test_zero_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="workers ≥ 1, got 0"):
        run(Roots(), tmp_path, workers=0)
