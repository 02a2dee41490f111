"""What is deleted while a task runs is told, and what is left is kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from interp.errors import RunError
from interp.run import Plan, RunFolder, run_task
from interp.run.prepare import MOST_TOGETHER, Progress, Unit, units_of
from interp.tracing.passes.progress_bar import bars
from tests.run.fake_task import Roots
from tests.run.run_fingerprints import fingerprints

TASK = Roots(n=12)


def after_shard(monkeypatch: pytest.MonkeyPatch, shard: int, damage: Callable[[RunFolder], Any]) -> None:
    """Somebody deletes something once a shard is stored."""
    real = RunFolder.write_shard

    def stored(self: RunFolder, number: int, tables: Any) -> None:
        real(self, number, tables)
        if number == shard:
            damage(self)

    monkeypatch.setattr(RunFolder, "write_shard", stored)


def drop_shard(folder: RunFolder) -> None:
    for file in folder.path.glob("shards/00000.*"):
        file.unlink()


DAMAGE = {
    "folder": (lambda folder: shutil.rmtree(folder.path), r"study.json, but it is gone.*Run the study again"),
    "study": (lambda folder: (folder.path / "study.json").unlink(), "study.json, but it is gone"),
    "edited": (
        lambda folder: (folder.path / "study.json").write_text("{}"),
        "study.json, but it was changed",
    ),
    "table": (
        lambda folder: folder.shard_file(0, "maps").unlink(),
        r"\[0\].* are gone. Did another program",
    ),
    "shards": (
        lambda folder: shutil.rmtree(folder.path / "shards"),
        r"\[0\].* are gone. Did another program",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("part", [None, (1, 3)])
def test_a_run_does_not_end_well_over_a_broken_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, part: Any
) -> None:
    damage, message = DAMAGE[what]
    with monkeypatch.context() as patch:
        after_shard(patch, 0, damage)
        with pytest.raises(RunError, match=message):
            run_task(TASK, tmp_path / "out", progress=False, part=part)
    left = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert what != "folder" or left == []  # nothing is written into a folder that is gone


@pytest.mark.parametrize("what", ["folder", "study", "shards"])
def test_the_next_run_computes_only_what_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    run_task(TASK, tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        after_shard(patch, 1, DAMAGE[what][0])
        with pytest.raises(RunError):
            run_task(TASK, tmp_path / "out", progress=False)
    again = Roots(n=12)
    run_task(again, tmp_path / "out", progress=False)
    assert fingerprints(tmp_path / "out") == fingerprints(tmp_path / "whole")
    assert len(again.calls) == {"folder": 6, "study": 2, "shards": 4}[what]


def test_a_deleted_plan_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after_shard(monkeypatch, 0, lambda folder: (folder.path / "plan.json").unlink())
    assert (run_task(TASK, tmp_path, progress=False).path / "plan.json").is_file()


def test_tables_are_joined_anew_once_a_shard_is_computed_anew(tmp_path: Path) -> None:
    folder = run_task(TASK, tmp_path, progress=False)
    whole = folder.read_table("scores")
    folder.write_table("scores", whole[:1])  # as of other shards
    run_task(TASK, tmp_path, progress=False)
    assert folder.n_rows("scores") == 1  # nothing was missing
    drop_shard(folder)
    run_task(TASK, tmp_path, progress=False)
    assert folder.read_table("scores").equals(whole)


@pytest.mark.parametrize(("part", "missing"), [(None, 3), ((1, 2), 2), ((2, 2), 1)])
def test_a_session_says_how_much_it_had_to_do(tmp_path: Path, part: Any, missing: int) -> None:
    folder = run_task(TASK, tmp_path, progress=False, part=part)
    (session,) = folder.read_json("manifest.json", {})["sessions"]
    assert session["shards"] == {"missing": missing, "total": 3} | ({"part": list(part)} if part else {})


def test_at_most_16_tasks_are_computed_together(unchecked: None) -> None:
    def order(key: str, *missing: int) -> Any:
        return SimpleNamespace(sharing_key=key, missing=list(missing))

    orders = [order("a", 0), order("b", 1, 0), order("a"), *[order("a", 0)] * 15, order("a", 0, 2)]
    first = (0, *range(3, 18))
    assert len(first) == MOST_TOGETHER == 16
    assert units_of(5, orders) == [
        Unit(5, first, 0), Unit(5, (1,), 0), Unit(5, (1,), 1), Unit(5, (18,), 0), Unit(5, (18,), 2)
    ]  # fmt: skip


def test_progress_is_told_at_each_quarter(capsys: Any) -> None:
    plan = Plan(tuple(((place,),) for place in range(8)))
    track = Progress().track("run", plan, [*range(1, 8)], own=range(8))
    for shard in range(1, 8):
        track.advance(shard)
    said = [line.partition(" s")[0] for line in capsys.readouterr().err.splitlines()]
    assert said[0] == "run: 8"
    assert [line.split(",")[0] for line in said[1:]] == ["run: 2/8", "run: 4/8", "run: 6/8", "run: 8/8"]
    Progress().track("run", plan, [7], own=range(8))
    Progress().track("run", plan, [7], own=[7])
    assert capsys.readouterr().err == "run: 8 samples, 7 kept from before\nrun: 1 sample\n"
    half = Progress().track("run", plan, [4, 5, 6, 7], own=range(8))
    half.advance(4)  # 5 of 8: the half was there before
    half.advance(5)
    said = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in said] == ["run: 8 samples", "run: 6/8 samples"]
    hidden = Progress(show=False)
    hidden.track("run", plan, [7], own=[7]).advance(7)
    hidden.say("more")
    assert capsys.readouterr() == ("", "")


def test_a_line_above_the_bars_is_plain_text() -> None:
    written = StringIO()
    progress = Progress(show=False)
    progress.bars = bars(Console(file=written, force_terminal=True, width=20))
    progress.say("[b]3 of 'x', and more than twenty columns")
    assert written.getvalue() == "[b]3 of 'x', and more than twenty columns\n"


def test_the_bar_of_a_terminal_counts_samples(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.bars = bars(Console(file=StringIO(), force_terminal=True))
    plan = Plan((((0,),), ((1, 2),), ((3, 4), (5,))))
    with progress:
        assert progress.bars.live.is_started
        track = progress.track("run", plan, [1, 2], own=range(3))
        (bar,) = progress.bars.tasks
        assert (bar.description, bar.completed, bar.total) == ("run", 1, 6)
        track.advance(2)
        assert bar.completed == 4
    assert not progress.bars.live.is_started
    assert capsys.readouterr().err == ""  # no lines beside the bar
