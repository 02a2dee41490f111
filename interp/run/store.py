"""What a finished run's folder holds: the plan and its tables, stored so that parts can be joined without a model.

`plan.json` is a function of the task alone. It carries its own sha256, so that a damaged one is told from
another plan.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from interp.errors import RunError
from interp.run.files import canonical, checksum, digest, read_json, remove_leftovers, write_atomically
from interp.run.plan import Plan
from interp.run.store_version import SCHEMA_VERSION, check_version, note_other_versions
from interp.run.task import FAILURES, Task

__all__ = [
    "SCHEMA_VERSION",
    "Layout",
    "RunFolder",
    "canonical",
    "digest",
    "folder_name",
    "join_tables",
    "read_layout",
    "settle",
    "stored_version",
    "write_atomically",
]

FILE = "plan.json"


@dataclass(frozen=True)
class Layout:
    """The plan, the names of a shard's tables, and which of them are joined over all shards."""

    plan: Plan
    tables: tuple[str, ...]
    joined: tuple[str, ...]

    @classmethod
    def of(cls, task: Task) -> Layout:
        """The layout of a task's run."""
        return cls(task.plan(), tuple(sorted((*task.schemas(), FAILURES))), (*task.joined(), FAILURES))

    def encode(self, run: str) -> bytes:
        """The bytes of `plan.json` for the run with this hash."""
        value = {
            "version": SCHEMA_VERSION,
            "run": run,
            "shards": [[list(batch) for batch in shard] for shard in self.plan.shards],
            "tables": list(self.tables),
            "joined": list(self.joined),
        }
        return (json.dumps({**value, "sha256": digest(value)}, sort_keys=True) + "\n").encode()


def read_layout(path: Path, run: str) -> Layout | None:
    """The layout stored in a run's folder; None when it is absent, damaged or another run's."""
    value = _whole(path)
    if value is None or value.get("run") != run or value.get("version") != SCHEMA_VERSION:
        return None
    shards = tuple(tuple(tuple(batch) for batch in shard) for shard in value["shards"])
    return Layout(Plan(shards), tuple(value["tables"]), tuple(value["joined"]))


def stored_version(path: Path) -> Any:
    """The version of the store that planned a folder; None when its plan is absent or damaged."""
    value = _whole(path)
    return None if value is None else value.get("version")


def settle(path: Path, run: str, layout: Layout) -> None:
    """Store the layout, or see that the one stored is the same.

    Raises:
        RunError: Another plan is stored: shards of two plans must not be mixed. Or it cannot be written.
    """
    stored = read_layout(path, run)
    if stored is None:
        write_atomically(path / FILE, layout.encode(run))
    elif stored != layout:
        raise RunError(
            f"expected {path / FILE} to hold the plan of this study, but it holds another: interp's way of "
            f"batching has changed since. Move {path} away and run the study again, or use the interp that "
            f"wrote it (the commit is in its manifest.json)."
        )


def _whole(path: Path) -> Mapping[str, Any] | None:
    value = read_json(path / FILE)
    if not isinstance(value, dict):
        return None
    rest = {key: part for key, part in value.items() if key != "sha256"}
    return rest if value.get("sha256") == digest(rest) else None


def folder_name(name: str, study: Mapping[str, Any]) -> str:
    """What the folder of a study's run is called: "<name>-<first 12 hex digits of the hash>"."""
    return f"{name}-{digest(study)[:12]}"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, named by the hash of its study."""

    path: Path
    digest: str

    @classmethod
    def create(cls, out: str | os.PathLike[str], name: str, study: Mapping[str, Any]) -> RunFolder:
        """The folder for a study, made if it is not there, with its `study.json`.

        Raises:
            RunError: The folder cannot be made or read, or holds another study or another store version.
        """
        path = Path(out) / folder_name(name, study)
        text, stored = canonical(study).encode(), path / "study.json"
        try:
            held = stored.read_bytes()
        except FileNotFoundError:
            held = None
            note_other_versions(Path(out), name, study)
            write_atomically(stored, text)
        except OSError as error:
            raise RunError(f"expected to read {stored}, got: {error}. Pass another out=.") from error
        if held not in (None, text):
            raise RunError(
                f"expected {stored} to hold the study that names its folder, but it differs: it was "
                f"edited or copied. Move {path} away or pass another out=."
            )
        folder = cls(path, digest(study))
        folder.check_version()
        remove_leftovers(path)
        return folder

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """An existing run's folder.

        Raises:
            RunError: There is no readable `study.json` in it, or another version of the store wrote it.
        """
        file = Path(path) / "study.json"
        try:
            text = file.read_bytes()
        except OSError as error:
            raise RunError(f"expected a run's folder with a study.json at {path}, got: {error}.") from error
        study = read_json(file)
        if isinstance(study, dict) and "schema" in study:
            check_version(study["schema"], Path(path))
        folder = cls(Path(path), checksum(text))
        folder.check_version()
        return folder

    def check_version(self) -> None:
        """Refuse a folder whose plan or shards another version of the store wrote.

        Raises:
            RunError: The version found is older or newer.
        """
        stored = stored_version(self.path)
        if stored is None:
            first = next(iter(sorted(self.path.glob("shards/*.parquet"))), None)
            table = None if first is None else _parse(_bytes(first))
            if table is None:
                return
            stored = int((table.schema.metadata or {}).get(b"version", 1))
        check_version(stored, self.path)

    def shard_file(self, shard: int, table: str) -> Path:
        """Where one table of one shard lies."""
        return self.path / "shards" / f"{shard:05d}.{table}.parquet"

    def seal_file(self, shard: int) -> Path:
        """Where a shard's seal lies."""
        return self.path / "shards" / f"{shard:05d}.json"

    def write_shard(self, shard: int, tables: Mapping[str, pa.Table]) -> None:
        """Store every table of a shard, each by temporary name and rename, and then the seal."""
        sums = {}
        for name, table in tables.items():
            data = self._encode(table, str(shard))
            write_atomically(self.shard_file(shard, name), data)
            sums[name] = checksum(data)
        self._write_seal(self.seal_file(shard), str(shard), sums)

    def read_shard(self, shard: int, tables: Mapping[str, pa.Schema]) -> dict[str, pa.Table] | None:
        """Some tables of a shard, or None when one is absent, damaged, of another run or of another schema."""
        sums = self._read_seal(self.seal_file(shard), str(shard))
        found: dict[str, pa.Table] = {}
        for name, schema in tables.items():
            table = _parse(_sealed(self.shard_file(shard, name), sums.get(name)))
            if table is None or not table.schema.equals(schema, check_metadata=False):
                return None
            found[name] = table
        return found

    def shard_bytes(self, shard: int, tables: Sequence[str]) -> dict[str, bytes] | None:
        """A whole shard as it lies on disk, file name → bytes with the seal last; None as for `read_shard`."""
        sums = self._read_seal(self.seal_file(shard), str(shard))
        found = {}
        for name in tables:
            data = _sealed(self.shard_file(shard, name), sums.get(name))
            if data is None:
                return None
            found[self.shard_file(shard, name).name] = data
        seal = self._seal_text(str(shard), {name: sums[name] for name in tables})
        return {**found, self.seal_file(shard).name: seal}

    def find(self, table: str, **values: Sequence[int]) -> pa.Table:
        """The rows of a shards' table whose columns hold one of the values; nothing else is kept.

        Raises:
            RunError: No shard holds the table, or one is damaged.
        """
        wanted = [(column, "in", list(found)) for column, found in values.items()]
        files = sorted(self.path.glob(f"shards/*.{table}.parquet"))
        try:
            parts = [pq.read_table(file, filters=wanted, page_checksum_verification=True) for file in files]
            return pa.concat_tables([part.replace_schema_metadata() for part in parts])
        except (OSError, pa.ArrowException) as error:
            raise RunError(
                f"expected whole shards with a table {table} in {self.path}, got: {error}. Run the study again: "
                f"only what is missing is computed."
            ) from error

    def write_table(self, name: str, table: pa.Table) -> None:
        """Store a joined table, and then its seal."""
        file, data = self._table_file(name), self._encode(table, "all")
        write_atomically(file, data)
        self._write_seal(file.with_suffix(".json"), "all", {name: checksum(data)})

    def read_table(self, name: str) -> pa.Table:
        """A joined table.

        Raises:
            RunError: The table is absent or damaged.
        """
        table = self._joined(name)
        if table is None:
            raise RunError(
                f"expected a whole table {name} in {self.path}, but it is absent or damaged. Run the study "
                f"again: only what is missing is computed. If parts of it were run elsewhere, join them with "
                f"`interp merge`."
            )
        return table

    def has_table(self, name: str) -> bool:
        """Whether a joined table is there and whole."""
        return self._joined(name) is not None

    def _joined(self, name: str) -> pa.Table | None:
        file = self._table_file(name)
        sums = self._read_seal(file.with_suffix(".json"), "all")
        return _parse(_sealed(file, sums.get(name)))

    def _table_file(self, name: str) -> Path:
        return self.path / "tables" / f"{name}.parquet"

    def _encode(self, table: pa.Table, shard: str) -> bytes:
        marks = {"run": self.digest, "shard": shard, "version": str(SCHEMA_VERSION)}
        buffer = BytesIO()
        marked = table.replace_schema_metadata(marks)
        pq.write_table(marked, buffer, compression="zstd", write_page_checksum=True)
        return buffer.getvalue()

    def _write_seal(self, file: Path, shard: str, sums: Mapping[str, str]) -> None:
        write_atomically(file, self._seal_text(shard, sums))

    def _seal_text(self, shard: str, sums: Mapping[str, str]) -> bytes:
        marks = {"run": self.digest, "shard": shard, "version": SCHEMA_VERSION}
        return canonical({**marks, "sha256": dict(sums)}).encode()

    def _read_seal(self, file: Path, shard: str) -> dict[str, str]:
        """The sha256 per table that a seal names; nothing when it is absent, damaged, foreign or outdated."""
        seal = read_json(file)
        sums = seal.get("sha256") if isinstance(seal, dict) else None
        if not isinstance(sums, dict) or _bytes(file) != self._seal_text(shard, sums):
            return {}
        return {str(name): str(hexadecimal) for name, hexadecimal in sums.items()}

    def write_json(self, name: str, value: Any) -> None:
        """Store a JSON file beside the shards."""
        write_atomically(self.path / name, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())

    def read_json(self, name: str, default: Any) -> Any:
        """A JSON file beside the shards, or `default` when it is absent or damaged."""
        value = read_json(self.path / name)
        return default if value is None else value


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _sealed(path: Path, expected: str | None) -> bytes | None:
    data = None if expected is None else _bytes(path)
    return data if data is not None and checksum(data) == expected else None


def _parse(data: bytes | None) -> pa.Table | None:
    try:
        return None if data is None else pq.read_table(BytesIO(data), page_checksum_verification=True)
    except (OSError, pa.ArrowException):
        return None


def join_tables(folder: RunFolder, n_shards: int, schemas: Mapping[str, pa.Schema]) -> None:
    """Store each table over all shards, its rows in the order of the samples.

    Raises:
        RunError: A shard is no longer whole, or a table cannot be written.
    """
    parts: dict[str, list[pa.Table]] = {name: [] for name in schemas}
    for shard in range(n_shards):
        tables = folder.read_shard(shard, schemas)
        if tables is None:
            raise RunError(
                f"expected shard {shard} of {folder.path} to be whole after it was written. Is the disk "
                f"failing, or does another program write there? Run again."
            )
        for name, table in tables.items():
            parts[name].append(table)
    for name, tables in parts.items():
        joined = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
        order = np.argsort(joined.column("index").to_numpy(), kind="stable")
        folder.write_table(name, joined.take(order).combine_chunks())
