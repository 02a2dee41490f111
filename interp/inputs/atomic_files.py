"""Files that are either absent or complete."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from interp.errors import RunError

__all__ = ["as_path", "temporary_name", "write_atomically", "written_atomically"]


def as_path(name: str, value: Any, *, endings: Sequence[str] = (), what: str = "") -> Path:
    """Returns a path from a text or a path.

    Args:
        name: The argument's name, for the message.
        value: What was given.
        endings: What the file's name must end in, in any case; empty for whatever it is.
        what: What is written, where `endings` are given, and how to get something else.

    Raises:
        RunError: Anything else, a text that no file system takes as a name, or a name with another ending.
    """
    try:
        path = Path(value)
        if not os.fspath(value) or b"\0" in os.fsencode(path):
            raise ValueError("it is empty or holds a null character")
    except (TypeError, ValueError) as error:
        raise RunError(
            f'expected {name} to be a path, such as "runs" or "report.html", got {value!r}: {error}.'
        ) from error
    if endings and path.suffix.lower() not in endings:
        raise RunError(
            f'expected {name} to end in {" or ".join(endings)}, such as "{path.stem or "file"}{endings[0]}"; got '
            f'"{path}". {what}'
        )
    return path


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file under a temporary name, syncs it and renames it, so that no reader sees half a file.

    A kill at any moment leaves the old file or the new one. A link is followed: the file it points to is replaced.

    Raises:
        RunError: The path cannot be written to: a folder, a device, a file that is write-protected, a folder that is
            read-only or full. Its previous content is unchanged and no temporary file is left.
    """
    with written_atomically(path) as file:
        file.write(data)


@contextlib.contextmanager
def written_atomically(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Gives the block a temporary file to write to, which then takes its place as `write_atomically` says.

    Raises:
        RunError: As for `write_atomically`.
    """
    path = Path(os.path.realpath(as_path("path", path)))
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_replaceable(path)
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise RunError(
            f"expected to write {path}, got: {error}. Free space, make the folder writable, or pass another "
            f"out=. Finished shards are kept: run again to resume."
        ) from error


def temporary_name(path: Path) -> Path:
    """Returns the name of a temporary file beside a path; `interp.run.files.remove_leftovers` knows it by its form."""
    return path.with_name(
        f".{path.name[:40]}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
    )


def _check_replaceable(path: Path) -> None:
    """Raises an `OSError` for what a rename would replace although it must stay."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder, name a file in it")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a device, a pipe or a link to itself, name an ordinary file")
    if not mode & 0o222:
        raise PermissionError(errno.EACCES, "the file is write-protected, make it writable or name another")


def _sync_folder(path: Path) -> None:
    """Syncs the folder, so that a rename survives a crash, where the file system allows it."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise
    finally:
        os.close(handle)
