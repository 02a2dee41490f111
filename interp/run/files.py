"""Files that are absent or whole, seals that notice every changed bit, and JSON with one text per value."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.errors import RunError

__all__ = ["canonical", "checksum", "digest", "read_json", "remove_leftovers", "write_atomically"]


def canonical(value: Mapping[str, Any]) -> str:
    """The one JSON text of a value: sorted keys, no spaces to spare, no NaN."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def digest(value: Mapping[str, Any]) -> str:
    """The sha256 of a value's canonical JSON, in hex."""
    return checksum(canonical(value).encode())


def checksum(data: bytes) -> str:
    """The sha256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def read_json(path: Path) -> Any:
    """What a JSON file holds; None when it is absent or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is never seen half-written: temporary name, fsync, rename.

    Raises:
        RunError: The folder cannot be written to. What was there before is still there, and no temporary file.
    """
    temporary = path.with_name(
        f".{path.name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
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


def _sync_folder(path: Path) -> None:
    """Make a rename last, where the file system lets folders be opened and synced."""
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


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of writers on this machine that are dead."""
    host = socket.gethostname()
    for file in folder.glob(f"**/.*.{host}.*.tmp"):
        process = file.name.split(".")[-3]
        if process.isdigit() and not _alive(int(process)):
            with contextlib.suppress(OSError):  # a finished run may lie in a folder that is only read
                file.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
