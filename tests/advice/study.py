# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of study, run, methods and indicators."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from interp.errors import RunError
from interp.run import Outcome, RunFolder, merge, run_task
from interp.run.files import as_path, write_atomically
from interp.run.shards import schemas_of
from interp.run.store import join_tables
from tests.run.fake_task import Roots
from tests.run.other_versions import newer, older

RUNS: list[tuple[str, str, str]] = [
    ("write_atomically(place(), b'page')", "it is a folder, name a file in it", "write_atomically(place() / 'page.html', b'page')"),
    ("write_atomically(pipe(), b'page')", "name an ordinary file", "write_atomically(pipe().with_name('page.html'), b'page')"),
    ("write_atomically(protected(), b'page')", "make it writable", "write_atomically(writable(protected()), b'page')"),
    ("write_atomically(protected(), b'page')", "or name another", "write_atomically(protected().with_name('page.html'), b'page')"),
    ("write_atomically(file() / 'page.html', b'page')", "pass another out=", "write_atomically(place() / 'page.html', b'page')"),
    ("as_path('out', 5)", 'such as "runs"', "as_path('out', 'runs')"),
    ("merge(5, place())", "Pass the folders of the parts", "merge(parts(), place())"),
    ("merge([], place())", "Pass the folders of the parts", "merge(parts(), place())"),
    ("merge([ran().path, ran(n=4).path], place())", "merge each run's parts separately", "[merge([one.path], place()) for one in (ran(), ran(n=4))]"),
    ("merged(broken('headless'))", "Run that part again", "merged(again(broken('headless')))"),
    ("merged([ran().path.parent, broken('headless')[1]])", "delete the folder to leave it out", "merged(emptied([ran().path.parent, broken('headless')[1]]))"),
    ("merged([place()])", "was the out= of a run", "merged([ran(place()).path.parent])"),
    ("merged(broken('plan'))", "run them again with one version", "merged(parts())"),
    ("merged(parts()[:1])", "Pass the missing parts as well", "merged(parts())"),
    ("merged(broken('shard'))", "run the unfinished parts again", "merged(again(broken('shard')))"),
    ("merged(broken('record'))", "merge again when they can be read", "merged(readable(broken('record')))"),
    ("merged(broken('renamed'))", "Rename the folder back", "merged(renamed_back(broken('renamed')))"),
    ("merged(broken('no plan')[1:])", "Run the part again", "merged(again(broken('no plan')))"),
    ("merged(broken('columns'))", "run the parts again with one version", "merged(again(broken('columns')))"),
    ("ran(part=(0, 3))", "such as (1, 3)", "ran(part=(1, 3))"),
    ("ran(part=(0, 3))", 'reads a text such as "1/3"', "ran(part=as_part('1/3'))"),
    ("lose(place())", "Run again: only what is missing", "ran(lost(place()))"),
    ("ran(ran(moved=True).path.parent)", "away and run the study again", "ran(away(ran(moved=True)))"),
    ("ran(edited(ran()).path.parent)", "away or pass another out=", "ran(away(edited(ran())))"),
    ("ran(edited(ran()).path.parent)", "pass another out=", "ran(place())"),
    ("ran(part=(1, 2)).read_table('scores')", "Run the study again", "ran(ran(part=(1, 2)).path.parent).read_table('scores')"),
    ("ran(part=(1, 2)).read_table('scores')", "`interp merge`", "merged(parts())[0].read_table('scores')"),
    ("edited(ran()).study()", "Run the study again: shards that are still there are kept", "ran(away(edited(ran()))).study()"),
    ("join_tables(ran(part=(1, 2)), 2, SCHEMAS)", "Run again", "join_tables(ran(ran(part=(1, 2)).path.parent), 2, SCHEMAS)"),
    ("ran(file())", "Pass another out=", "ran(place())"),
    ("RunFolder.open(place())", "a run's folder with a study.json", "RunFolder.open(ran().path)"),
    ("damaged(ran()).find('scores', index=[1])", "Run the study again", "ran(damaged(ran()).path.parent).find('scores', index=[1])"),
    ("ran(as_of(older).path.parent)", "away and run the study again", "ran(away(as_of(older)))"),
    ("ran(as_of(newer).path.parent)", "pass another out=", "ran(place())"),
]  # fmt: skip
ROWS: list[tuple[str, str, str]] = [
    *RUNS
]  # (a call that fails, words of its message, a call that follows them)

ELSEWHERE: dict[str, str] = {  # the beginning of a message: why no row follows it, or the test that does
    "it is a folder, name a file in it": "a row: the words stand within 'expected to write …'",
    "it is a device, a pipe or a link to itself": "a row: the words stand within 'expected to write …'",
    "the file is write-protected": "a row: the words stand within 'expected to write …'",
}


@cache
def _root() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="advice-")


def place() -> Path:
    """A new empty folder, which goes when the tests end."""
    return Path(tempfile.mkdtemp(dir=_root().name))


def file() -> Path:
    """A file."""
    path = place() / "file"
    path.write_text("text")
    return path


def protected() -> Path:
    """A file that is write-protected."""
    path = file()
    path.chmod(0o444)
    return path


def writable(path: Path) -> Path:
    """The file, which may now be written."""
    path.chmod(0o644)
    return path


def pipe() -> Path:
    """A link to itself, which no more than a pipe can be written."""
    path = place() / "link"
    path.symlink_to(path)
    return path


def ran(out: Path | None = None, part: tuple[int, int] | None = None, **changes: Any) -> RunFolder:
    """The folder of a run of eight roots, in two shards."""
    return run_task(Roots(**{"n": 8, **changes}), out or place(), progress=False, part=part)


def parts() -> list[Path]:
    """The `out` of both halves of a run."""
    return again([place(), place()])


def again(places: list[Path]) -> list[Path]:
    """The halves, run (again)."""
    for number, one in enumerate(places, 1):
        ran(one, part=(number, 2))
    return places


def merged(places: list[Path]) -> tuple[RunFolder, ...]:
    """The runs in a new folder."""
    return merge(places, place())


def broken(how: str) -> list[Path]:
    """The halves of a run, of which the second is not as it was written."""
    places = parts()
    path = next(places[1].iterdir())
    folder = RunFolder.open(path)
    if how == "headless":
        (path / "study.json").unlink()
    elif how == "plan":
        shutil.rmtree(path)
        ran(places[1], part=(2, 2), moved=True)
    elif how == "shard":
        folder.seal_file(1).unlink()
    elif how == "record":
        record = next(path.glob("sessions/*/manifest.json"))
        record.rename(record.with_name("kept"))
        record.mkdir()
    elif how == "renamed":
        path.rename(path.with_name("roots-0123456789ab"))
    elif how == "no plan":
        (path / "plan.json").unlink()
    elif how == "columns":
        table = pa.table({"index": list(Roots(n=8).plan().indices(1))})
        folder.write_shard(1, dict.fromkeys(("failures", "maps", "scores"), table))
    return places


def readable(places: list[Path]) -> list[Path]:
    """The halves of `broken("record")`, with the record back."""
    for kept in places[1].glob("*/sessions/*/kept"):
        kept.with_name("manifest.json").rmdir()
        kept.rename(kept.with_name("manifest.json"))
    return places


def renamed_back(places: list[Path]) -> list[Path]:
    """The halves of `broken("renamed")`, with the name as it was."""
    next(places[1].iterdir()).rename(places[1] / next(places[0].iterdir()).name)
    return places


def emptied(places: list[Path]) -> list[Path]:
    """The parts, without the folder of the second, which is `broken("headless")`."""
    shutil.rmtree(places[1])
    return places[:1]


def away(folder: RunFolder) -> Path:
    """The `out` of a run that was moved away."""
    folder.path.rename(place() / "moved")
    return folder.path.parent


def edited(folder: RunFolder) -> RunFolder:
    """The run, with a change in its study.json."""
    stored = folder.path / "study.json"
    stored.write_text(json.dumps(json.loads(stored.read_text()) | {"n": 9}))
    return folder


def damaged(folder: RunFolder) -> RunFolder:
    """The run, with half of a table of a shard."""
    table = folder.shard_file(1, "scores")
    table.write_bytes(table.read_bytes()[:-20])
    return folder


def as_of(version: Any) -> RunFolder:
    """A run that another version of the store wrote."""
    folder = ran()
    version(folder.path)
    return folder


class Losing(Roots):
    """Another program deletes the first shard while the second is computed."""

    out: Path | None = None

    def compute(self, indices: tuple[int, ...]) -> Outcome:
        for seal in [] if self.out is None else self.out.glob("*/shards/00000.*"):
            seal.unlink()
        return super().compute(indices)


def lose(out: Path) -> None:
    """Run the study there while another program deletes what it wrote."""
    task = Losing(n=8)
    task.out = out
    run_task(task, out, progress=False)


def lost(out: Path) -> Path:
    """The folder after such a run."""
    with contextlib.suppress(RunError):
        lose(out)
    return out


def names() -> dict[str, Any]:
    """What the calls use, beside the names of `tests/test_advice.py`."""
    helpers = (place, file, protected, pipe, ran, parts, again, merged, broken, readable, renamed_back)
    more = (
        lose,
        lost,
        emptied,
        away,
        edited,
        damaged,
        as_of,
        older,
        newer,
        write_atomically,
        as_path,
        merge,
        run_task,
    )
    return {one.__name__: one for one in (*helpers, *more, RunFolder, join_tables)} | {
        "SCHEMAS": {"scores": schemas_of(Roots(n=8))["scores"]},
    }
