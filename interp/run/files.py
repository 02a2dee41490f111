"""Files that are either absent or complete, checksums, and JSON with exactly one text per value."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.inputs.atomic_files import as_path, temporary_name, write_atomically, written_atomically

__all__ = [
    "as_path",
    "canonical",
    "checksum",
    "digest",
    "file_checksum",
    "file_content",
    "read_json",
    "remove_leftovers",
    "temporary_name",
    "write_atomically",
    "written_atomically",
]


def canonical(value: Mapping[str, Any]) -> str:
    """Returns the canonical JSON text of a value: sorted keys, no unnecessary spaces, no NaN."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def digest(value: Mapping[str, Any]) -> str:
    """Returns the sha256 of a value's canonical JSON, in hex."""
    return checksum(canonical(value).encode())


def checksum(data: bytes) -> str:
    """Returns the sha256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def file_content(path: Path) -> bytes:
    """Returns the bytes of a regular file; a pipe or a device could be read without end.

    Raises:
        OSError: There is none, or it cannot be read.
    """
    _check_regular(path)
    return path.read_bytes()


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
