from __future__ import annotations

import builtins
import errno
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interp.errors import RunError
from interp.inputs import files
from interp.run import merge, run_task
from tests.run.fake_task import Roots
from tests.run.run_fingerprints import fingerprints, leftovers

TASK = Roots(n=8, bad=(5,))


def failing(real: Callable[..., Any], number: int, code: int) -> Callable[..., Any]:
    """A call that fails from the n-th time on, as a full disk does."""
    calls = [0]

    def call(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] >= number:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    return call


class FullFile:
    """A file on a disk that has room for half of what is written."""

    def __init__(self, file: Any, full: Callable[[], None]) -> None:
        self.file, self.full = file, full

    def __enter__(self) -> FullFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: bytes) -> None:
        self.file.write(data[: len(data) // 2])
        self.full()
        self.file.write(data[len(data) // 2 :])


def fill(monkeypatch: pytest.MonkeyPatch, where: str, number: int) -> None:
    """Make the disk full from the n-th write, sync or rename on."""
    if where == "write":
        full = failing(lambda: None, number, errno.ENOSPC)
        opened = lambda path, mode: FullFile(builtins.open(path, mode), full)  # noqa: E731, SIM115
        monkeypatch.setattr(files, "open", opened, raising=False)
    else:
        name = {"fsync": "fsync", "rename": "replace"}[where]
        monkeypatch.setattr(os, name, failing(getattr(os, name), number, errno.ENOSPC))


@pytest.mark.parametrize("where", ["write", "fsync", "rename"])
def test_a_full_disk_says_so_and_leaves_whole_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    run_task(TASK, tmp_path / "whole", progress=False)
    whole = fingerprints(tmp_path / "whole")
    reached = set()
    for number in (1, 2, 4, 6, 9, 13, 17, 19):
        out = tmp_path / f"{where}-{number}"
        with monkeypatch.context() as patch:
            fill(patch, where, number)
            with pytest.raises(RunError, match=r"expected to write .*No space left.*Free space.*run again"):
                run_task(TASK, out, progress=False)
        left = fingerprints(out) if out.exists() else {}
        assert left == {name: whole[name] for name in left}
        assert leftovers(out) == []
        reached.add(len(left))
        run_task(TASK, out, progress=False)
        assert fingerprints(out) == whole
    assert len(reached) > 4


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.json"
    files.write_atomically(file, b"old")
    fill(monkeypatch, "fsync", 1)
    with pytest.raises(RunError, match="No space left on device"):
        files.write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_rename_that_may_not_last_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, code = os.fsync, errno.EIO

    def synced(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        real(handle)

    monkeypatch.setattr(os, "fsync", synced)
    with pytest.raises(RunError, match="Input/output error"):
        files.write_atomically(tmp_path / "x.json", b"new")
    code = errno.EINVAL
    files.write_atomically(tmp_path / "x.json", b"newer")
    assert (tmp_path / "x.json").read_bytes() == b"newer"


def test_an_interrupt_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(tmp_path / "x.json", b"new")
    assert list(tmp_path.iterdir()) == []


def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that changes a folder fails, as on a read-only file system (root may write anywhere else)."""
    for module, name in ((os, "replace"), (os, "mkdir"), (os, "unlink"), (os, "remove")):
        monkeypatch.setattr(module, name, failing(getattr(module, name), 1, errno.EROFS))
    for name in ("unlink", "mkdir"):
        monkeypatch.setattr(Path, name, failing(getattr(Path, name), 1, errno.EROFS))


def opened_to_read(path: Any, mode: str) -> Any:
    if "w" in mode:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    return builtins.open(path, mode)


def test_a_read_only_folder_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        read_only(patch)
        with pytest.raises(RunError, match=r"Read-only file system.*make the folder writable.*another out="):
            run_task(TASK, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file.*another out="):
        run_task(TASK, tmp_path / "file", progress=False)
    run_task(TASK, tmp_path / "out", progress=False)
    assert (tmp_path / "out").is_dir()


def test_a_finished_run_is_read_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_task(TASK, tmp_path, progress=False)
    host = os.uname().nodename
    (folder.path / f".x.json.{host}.{2**22 + 1}.0123abcd.tmp").touch()  # of a dead process, in nobody's way
    read_only(monkeypatch)
    monkeypatch.setattr(files, "open", opened_to_read, raising=False)
    again = Roots(n=8, bad=(5,))
    assert run_task(again, tmp_path, progress=False).read_table("scores").num_rows == 14
    assert again.calls == []


def test_a_full_disk_stops_a_merge_that_is_then_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_task(TASK, tmp_path / "whole", progress=False)
    parts = [tmp_path / f"part-{number}" for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        run_task(TASK, part, progress=False, part=(number, 2))
    for number in (1, 4, 9, 14):
        with monkeypatch.context() as patch:
            fill(patch, "rename", number)
            with pytest.raises(RunError, match="No space left"):
                merge(parts, tmp_path / f"out-{number}")
        merge(parts, tmp_path / f"out-{number}")
        assert fingerprints(tmp_path / f"out-{number}") == fingerprints(tmp_path / "whole")


def test_leftovers_of_a_killed_child_are_removed(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    own = tmp_path / f".a.{socket.gethostname()}.{child.pid}.1.tmp"
    own.touch()
    files.remove_leftovers(tmp_path)
    assert own.exists()  # its writer lives
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has collected it
    files.remove_leftovers(tmp_path)
    assert not own.exists()
    child.communicate()
