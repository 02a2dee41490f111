"""What is deleted while a task runs is told, and what is left is kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interp.errors import RunError
from interp.run import RunFolder, run_task
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
