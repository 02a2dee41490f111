"""A run's folder: shards in Parquet written by temporary name and rename, JSON beside them.

    <out>/<name>-<hash12>/
        study.json        the canonical JSON whose sha256 names the folder
        manifest.json     who computed it, when and with which versions (one entry per session that computed)
        cost.json         seconds, bytes and forwards per shard
        shards/00003.scores.parquet …
        tables/scores.parquet …     the small tables joined, in the order of the samples

A file is either absent or whole: it appears by `os.replace` after its bytes were synced, so two processes
may work on one folder and a kill leaves at most a temporary file. Pages carry checksums, and the schema's
metadata names the run and the shard, so a truncated, damaged or foreign file is noticed and computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from interp.errors import RunError

__all__ = ["SCHEMA_VERSION", "RunFolder", "canonical", "digest", "folder_name", "write_atomically"]

SCHEMA_VERSION = 1
"""Raised when the meaning of a stored table changes; part of every study's hash."""


def canonical(value: Mapping[str, Any]) -> str:
    """The one JSON text of a value: sorted keys, no spaces to spare, no NaN."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def digest(value: Mapping[str, Any]) -> str:
    """The sha256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def folder_name(name: str, study: Mapping[str, Any]) -> str:
    """What the folder of a study's run is called: "<name>-<first 12 hex digits of the hash>"."""
    return f"{name}-{digest(study)[:12]}"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is never seen half-written: temporary name, fsync, rename.

    Raises:
        RunError: The folder cannot be written to.
    """
    temporary = path.with_name(
        f".{path.name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True) if path.parent.is_dir() else None
        raise RunError(f"expected to write {path}, got: {error}. Free space or pass another out=.") from error


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system lets a folder be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, named by the hash of its study."""

    path: Path
    digest: str

    @classmethod
    def create(cls, out: str | os.PathLike[str], name: str, study: Mapping[str, Any]) -> RunFolder:
        """The folder for a study, made if it is not there, with its `study.json`.

        Raises:
            RunError: The folder cannot be made, or holds another study.
        """
        key = digest(study)
        path = Path(out) / folder_name(name, study)
        text = canonical(study).encode()
        stored = path / "study.json"
        if stored.exists() and stored.read_bytes() != text:
            raise RunError(
                f"expected {stored} to hold the study that names its folder, but it differs: it was "
                f"edited or copied. Move {path} away or pass another out=."
            )
        folder = cls(path, key)
        if not stored.exists():
            write_atomically(stored, text)
        folder._remove_leftovers()
        return folder

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """An existing run's folder.

        Raises:
            RunError: There is no readable `study.json` in it.
        """
        file = Path(path) / "study.json"
        try:
            return cls(Path(path), hashlib.sha256(file.read_bytes()).hexdigest())
        except OSError as error:
            raise RunError(f"expected a run's folder with a study.json at {path}, got: {error}.") from error

    def _remove_leftovers(self) -> None:
        """Remove temporary files of writers on this machine that are dead."""
        host = socket.gethostname()
        for file in self.path.glob(f"**/.*.{host}.*.tmp"):
            if not _alive(process=int(file.name.split(".")[-3])):
                file.unlink(missing_ok=True)

    def shard_file(self, shard: int, table: str) -> Path:
        """Where one table of one shard lies."""
        return self.path / "shards" / f"{shard:05d}.{table}.parquet"

    def write_shard(self, shard: int, tables: Mapping[str, pa.Table]) -> None:
        """Store every table of a shard, each by temporary name and rename."""
        for name, table in tables.items():
            write_atomically(self.shard_file(shard, name), self._encode(table, str(shard)))

    def read_shard(self, shard: int, tables: Mapping[str, pa.Schema]) -> dict[str, pa.Table] | None:
        """Every table of a shard, or None when one is absent, damaged, or another run's."""
        found: dict[str, pa.Table] = {}
        for name, schema in tables.items():
            table = _read(self.shard_file(shard, name))
            if table is None or not table.schema.equals(schema, check_metadata=False):
                return None
            marks = table.schema.metadata or {}
            if marks.get(b"run") != self.digest.encode() or marks.get(b"shard") != str(shard).encode():
                return None
            found[name] = table
        return found

    def find(self, table: str, **values: Sequence[int]) -> pa.Table:
        """The rows of a shards' table whose columns hold one of the values; nothing else is kept."""
        wanted = [(column, "in", list(found)) for column, found in values.items()]
        files = sorted(self.path.glob(f"shards/*.{table}.parquet"))
        return pa.concat_tables(
            [pq.read_table(file, filters=wanted).replace_schema_metadata() for file in files]
        )

    def write_table(self, name: str, table: pa.Table) -> None:
        """Store a joined table."""
        write_atomically(self.path / "tables" / f"{name}.parquet", self._encode(table, "all"))

    def read_table(self, name: str) -> pa.Table:
        """A joined table.

        Raises:
            RunError: The table is absent or damaged.
        """
        table = self._joined(name)
        if table is None:
            raise RunError(
                f"expected a whole table {name} in {self.path}, but it is absent or damaged. Run the study "
                f"again: only what is missing is computed."
            )
        return table

    def has_table(self, name: str) -> bool:
        """Whether a joined table is there and whole."""
        return self._joined(name) is not None

    def _joined(self, name: str) -> pa.Table | None:
        return _read(self.path / "tables" / f"{name}.parquet")

    def _encode(self, table: pa.Table, shard: str) -> bytes:
        marked = table.replace_schema_metadata({"run": self.digest, "shard": shard})
        buffer = BytesIO()
        pq.write_table(marked, buffer, compression="zstd", write_page_checksum=True)
        return buffer.getvalue()

    def write_json(self, name: str, value: Any) -> None:
        """Store a JSON file beside the shards."""
        write_atomically(self.path / name, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())

    def read_json(self, name: str, default: Any) -> Any:
        """A JSON file beside the shards, or `default` when it is absent or damaged."""
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, ValueError):
            return default


def _read(path: Path) -> pa.Table | None:
    try:
        with open(path, "rb") as file:
            return pq.read_table(BytesIO(file.read()), page_checksum_verification=True)
    except (OSError, pa.ArrowException):
        return None


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
