from __future__ import annotations

import datetime
import json
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from interp.run import RunFolder, run_task, sessions
from interp.run.sessions import Ledger, begin_session, cost_of, manifest_of, publish
from tests.run.fake_task import Roots


def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "s", {"study": "s"})


def test_costs_of_two_writers_add_and_a_shard_counts_once(tmp_path: Path) -> None:
    run = folder(tmp_path)
    first, second = (
        Ledger(run, begin_session(run, {"who": who}, missing=2, total=2)) for who in ("first", "second")
    )
    first.add(0, {"seconds": 1.0, "peak_bytes": 7.0}, [])
    second.add(0, {"seconds": 2.0, "peak_bytes": 5.0}, [])
    second.add(1, {"seconds": 4.0, "peak_bytes": 3.0}, [])
    first.add(1, {"seconds": 8.0, "peak_bytes": 1.0}, [])
    publish(run)
    cost = run.read_json("cost.json", {})
    assert cost["spent"] == {"seconds": 15.0, "peak_bytes": 7.0}
    assert cost["total"] == {"seconds": 6.0, "peak_bytes": 5.0}  # the later session's account of each shard
    manifest = run.read_json("manifest.json", {})
    assert manifest["who"] == "second"
    assert len(manifest["sessions"]) == 2


def test_the_last_to_publish_has_read_the_other_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = folder(tmp_path)
    slow, quick = (Ledger(run, begin_session(run, {}, missing=1, total=2)) for _ in range(2))
    slow.add(0, {"seconds": 1.0}, [])
    read, met = sessions._accounts, []

    def overtaken(where: RunFolder) -> object:
        found = read(where)
        if not met:  # between the slow one's reading and its writing the quick one ends
            met.append(1)
            quick.add(1, {"seconds": 2.0}, [])
            publish(where)
        return found

    monkeypatch.setattr(sessions, "_accounts", overtaken)
    publish(run)
    assert run.read_json("cost.json", {})["spent"] == {"seconds": 3.0}


def test_the_cost_of_a_shard_is_written_before_the_shard(tmp_path: Path) -> None:
    task = Roots(n=4)
    run = run_task(task, tmp_path, progress=False)
    (account,) = run.path.glob("sessions/*/*/cost.json")
    assert account.stat().st_mtime_ns <= run.shard_file(0, "scores").stat().st_mtime_ns
    assert set(json.loads(account.read_text())["shards"]) == {"0"}


def test_a_damaged_account_is_left_out(tmp_path: Path) -> None:
    run = run_task(Roots(n=4), tmp_path, progress=False)
    before = run.read_json("cost.json", {})
    place = run.path / "sessions" / "20200101T000000000000-00000000"
    place.mkdir()
    (place / "manifest.json").write_text('{"session": ')
    publish(run)
    assert run.read_json("cost.json", {}) == before
    assert len(run.read_json("manifest.json", {})["sessions"]) == 1


def test_what_numbers_may_depend_on_is_recorded() -> None:
    expected = {"python", "interp", "torch", "transformers", "nnsight", "numpy", "pyarrow", "pillow"}
    assert set(sessions.versions()) == expected


def test_a_commit_says_whether_files_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"rev-parse": "abc", "status": ""}
    monkeypatch.setattr(sessions, "_git", lambda folder, name, *_: answers[name])
    assert sessions.git_commit(tmp_path) == "abc"
    answers["status"] = " M interp/cli.py"
    assert sessions.git_commit(tmp_path / "changed") == "abc+changes"
    answers["rev-parse"] = ""
    assert sessions.git_commit(tmp_path / "none") is None


def test_a_file_that_git_does_not_know_is_no_change(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false", *words]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    sessions.git_commit.cache_clear()
    assert sessions.git_commit(tmp_path) is None  # no repository yet
    git("init", "-q")
    (tmp_path / "known").write_text("1")
    git("add", "known")
    git("commit", "-qm", "first")
    (tmp_path / "unknown").write_text("1")
    head = git("rev-parse", "HEAD")
    sessions.git_commit.cache_clear()
    assert sessions.git_commit(tmp_path) == head
    (tmp_path / "known").write_text("2")
    sessions.git_commit.cache_clear()
    assert sessions.git_commit(tmp_path) == f"{head}+changes"
    sessions.git_commit.cache_clear()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["/usr/bin/python", "-c", "import interp"], None),
        (["/usr/bin/python"], None),
        (["/usr/bin/python", "-m", "ipykernel_launcher"], None),
        (["/usr/bin/python", "my study.py", "--out", "x"], "python 'my study.py' --out x"),
        (["/usr/bin/python", "study.py"], "python study.py"),
        (["/usr/bin/python", "study.py", "-c", "gpu.toml"], "python study.py -c gpu.toml"),
    ],
)
def test_the_command_is_that_of_a_script(
    given: list[str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.orig_argv", given)
    monkeypatch.setattr("sys.argv", given[1:2] if given[1:] else [""])
    assert sessions.command() == expected


def test_splits_of_every_shard_are_kept(tmp_path: Path) -> None:
    run = folder(tmp_path)
    ledger = Ledger(run, begin_session(run, {}, missing=2, total=2))
    for shard in (0, 1):
        ledger.add(shard, {"seconds": 1.0}, [{"samples": [shard]}])
    publish(run)
    assert [one["shard"] for one in run.read_json("manifest.json", {})["splits"]] == [0, 1]


WRONG = ("5", "[]", "null", '{"shards": 5}', '{"shards": {"0": {"seconds": "x"}}}', '{"splits": {"a": 1}}',
         '{"splits": [1]}', '{"session": 1, "provenance": 2}', '{"session": {"versions": []}, "provenance": {}}',
         '{"total": [1]}', '{"session": {"shards": {"part": 3}}, "provenance": {}}', '{"sessions": [4]}',
         '{"session": {}, "provenance": {"model": 3}}', '{"sessions": 4, "model": [], "total": {"seconds": null}}',
         '{"shards": {"0": {"s": NaN}}}', '{"splits": [{"shard": NaN}]}', "[" * 50_000)  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
@pytest.mark.parametrize("place", ["", "sessions/*/", "sessions/*/*/"])
def test_records_of_another_form_count_as_absent(tmp_path: Path, place: str, text: str) -> None:
    run = run_task(Roots(n=4), tmp_path, progress=False)
    for file in [*run.path.glob(f"{place}cost.json"), *run.path.glob(f"{place}manifest.json")]:
        file.write_text(text)
    assert cost_of(run).get("seconds", 1.0) == 1.0
    assert isinstance(manifest_of(run).get("sessions", []), list)
    task = Roots(n=4)
    run_task(task, tmp_path, progress=False)
    assert task.calls == []  # no number depends on them
    if not place:  # what is made from the sessions is made again
        assert run.read_json("cost.json", {})["total"]["seconds"] == 1.0
        assert len(run.read_json("manifest.json", {})["sessions"]) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"sessions": []},
        {"layers": 3},
        {"layers": {"a": 1}},
        {"model": {"n_layers": "3"}},
        {"data": []},
        {"sessions": [{"versions": []}]},
        {"sessions": [{"shards": {"part": [1]}}]},
        {"sessions": [{"shards": {"part": [0, 2]}}]},
        {"sessions": [{"shards": {"part": ["1", 2]}}]},
        {"sessions": [{}, 3]},
    ],
)
def test_a_manifest_that_no_report_can_read_is_made_anew(tmp_path: Path, wrong: dict[str, Any]) -> None:
    run = folder(tmp_path)
    begin_session(run, {"who": "first"}, missing=1, total=1)
    whole = run.read_json("manifest.json", {})
    run.write_json("manifest.json", {"sessions": [{}], **wrong})
    assert manifest_of(run) == whole
    run.write_json("manifest.json", {"sessions": [{"shards": {"part": [1, 2]}}], "layers": {"a": "b"}})
    assert manifest_of(run)["layers"] == {"a": "b"}  # one that is whole is taken as it stands


@pytest.mark.parametrize(
    "wrong", [{"seconds": "2"}, {"seconds": 1e301}, {"seconds": -1e301}, {"seconds": None}]
)
def test_a_cost_that_is_none_is_added_up_anew(tmp_path: Path, wrong: dict[str, Any]) -> None:
    run = folder(tmp_path)
    Ledger(run, begin_session(run, {}, missing=1, total=1)).add(0, {"seconds": 2.0}, [])
    run.write_json("cost.json", {"total": wrong})
    assert cost_of(run) == {"seconds": 2.0}
    run.write_json("cost.json", {"total": {"seconds": 5}})
    assert cost_of(run) == {"seconds": 5}


@pytest.mark.parametrize(("threads", "said"), [(3, "3 threads"), (None, "1 threads")])
def test_a_session_says_when_where_and_with_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int | None, said: str
) -> None:
    for name, value in (("git_commit", "abc"), ("command", "python x.py"), ("n_threads", threads)):
        monkeypatch.setattr(sessions, name, lambda *_, value=value: value)
    run, before = folder(tmp_path), datetime.datetime.now(datetime.UTC)
    name = begin_session(run, {"who": "me"}, missing=2, total=3, part=[1, 2])
    (session,) = run.read_json("manifest.json", {})["sessions"]
    assert not (run.path / "cost.json").exists()  # nothing was computed yet
    started = datetime.datetime.fromisoformat(session.pop("started"))
    assert -1 < (started - before).total_seconds() < 60
    assert name.startswith(f"{started:%Y%m%dT%H%M%S}")
    assert session == {
        "machine": f"{platform.system()} {platform.machine()}, {said}",
        "versions": sessions.versions(),
        "commit": "abc",
        "command": "python x.py",
        "shards": {"missing": 2, "total": 3, "part": [1, 2]},
    }


def test_threads_are_those_of_torch_where_it_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(get_num_threads=lambda: 5))
    assert sessions.n_threads() == 5
    monkeypatch.delitem(sys.modules, "torch")
    assert sessions.n_threads() is None


def test_a_run_that_nobody_began_has_no_records(tmp_path: Path) -> None:
    run = folder(tmp_path)
    publish(run)
    assert (manifest_of(run), cost_of(run)) == ({}, {})
    assert [file.name for file in run.path.iterdir()] == ["study.json"]
