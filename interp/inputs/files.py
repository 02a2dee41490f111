"""Files: whether a path can be read, writing that is whole or absent, checksums, and JSON with one text per value."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import stat
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from interp.errors import RunError
from interp.inputs.text import brief

__all__ = [
    "as_path",
    "canonical",
    "checked_content",
    "checksum",
    "digest",
    "file_checksum",
    "file_content",
    "file_state",
    "read_canonical",
    "read_json",
    "remove_leftovers",
    "temporary_name",
    "unreadable",
    "write_atomically",
    "written_atomically",
]


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_KERNEL = ("/proc/", "/sys/")


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
    """Returns the name of a temporary file beside a path; `remove_leftovers` knows it by its form."""
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


def unreadable(path: str | os.PathLike[str]) -> str | None:
    """Says why a path does not name a regular file, as the end of a sentence; None where it does. Opens nothing.

    Pipes, devices and sockets can wait or deliver without end; files of /proc and /sys are made by the kernel.

    >>> unreadable("/dev/zero")
    'is a device, not a regular file. Copy the data to a file first.'
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return "does not exist. Check the path; URLs are not fetched."
    except (
        OSError,
        ValueError,
    ) as error:  # too long, a loop of links, no permission; a null byte, a lone surrogate
        reason = getattr(error, "strerror", None) or brief(str(error))
        return f"is not a path that can be read ({reason}). Check the path."
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a special file")
        return f"is {kind}, not a regular file. Copy the data to a file first."
    if found.st_blocks == 0 and os.path.realpath(path).startswith(_KERNEL):  # they take no room on a disk
        return "is made by the kernel (/proc, /sys), not a regular file. Copy the data to a file first."
    return None


def canonical(value: Mapping[str, Any]) -> str:
    """Returns the canonical JSON text of a value: sorted keys, no unnecessary spaces, no NaN."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def digest(value: Mapping[str, Any]) -> str:
    """Returns the sha256 of a value's canonical JSON, in hex."""
    return checksum(canonical(value).encode())


def checksum(data: bytes) -> str:
    """Returns the sha256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def file_state(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Time and size of a file, which tell that it was written anew; zeros for one that is not there."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return 0, 0
    return found.st_mtime_ns, found.st_size


def file_content(path: Path) -> bytes:
    """Returns the bytes of a regular file; a pipe or a device could be read without end.

    Raises:
        OSError: There is none, or it cannot be read.
    """
    _check_regular(path)
    return path.read_bytes()


def checked_content(path: Path, expected: str) -> bytes | None:
    """Returns the bytes of a regular file; None if it cannot be read or its sha256 is not the expected one."""
    try:
        data = file_content(path)
    except OSError:
        return None
    return data if checksum(data) == expected else None


def _check_regular(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no regular file")


def file_checksum(path: Path) -> str:
    """Returns the sha256 of a regular file, in hex; it is read piece by piece."""
    _check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file; None if it is absent or damaged."""
    try:
        return json.loads(file_content(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def read_canonical(path: Path) -> Any:
    """Returns the content of a JSON file that `canonical` wrote; None if it is absent, damaged or of another form."""
    try:
        data = file_content(path)
        value = json.loads(data.decode("utf-8"))
        return value if canonical(value).encode() == data else None
    except (OSError, ValueError, RecursionError):
        return None


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files of processes on this machine that have ended."""
    host = socket.gethostname()
    for file in folder.glob(f"**/.*.{host}.*.tmp"):
        process = file.name.split(".")[-3]
        if process.isdigit() and not _alive(int(process)):
            with contextlib.suppress(OSError):  # the folder of a finished run may be read-only
                file.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    """Whether a process runs; one that was killed and that its parent has not collected yet does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    try:
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[:1]
    except OSError:  # another system, or it ended just now
        return True
    return state != [b"Z"]
