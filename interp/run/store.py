"""The folder of a run: shards in Parquet with checksums, and JSON beside them.

    <out>/<name>-<hash12>/
        study.json        the canonical JSON whose sha256 names the folder
        plan.json         the shards, their micro-batches and their tables
        manifest.json     machine, time and versions of each session that computed
        cost.json         seconds, bytes and forwards per shard
        shards/00003.scores.parquet …     then 00003.json, the seal: the sha256 of each table's file
        tables/scores.parquet …           the small tables joined, in the order of the samples, and their seals
        sessions/<session>/…              what each session adds to manifest.json and cost.json

A file is either absent or complete: it is synced under a temporary name and then renamed with `os.replace`. So
several processes may work on one folder, and a kill leaves at most a temporary file. A shard counts as complete if
its seal belongs to this run, this shard and this version of the store, and every file has the checksum in the seal.
A truncated, damaged or foreign file is therefore detected and computed again.

`plan.json` is a function of the task alone. It holds its own sha256, so that a damaged file is not taken for another
plan.

`SCHEMA_VERSION` is the version of all this. A folder of another version is refused with what to do about it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from interp.errors import RunError
from interp.inputs.files import (
    as_path,
    canonical,
    checked_content,
    checksum,
    digest,
    file_checksum,
    file_content,
    read_canonical,
    read_json,
    remove_leftovers,
    write_atomically,
    written_atomically,
)
from interp.run.plan import Plan
from interp.run.task import FAILURES, Task

__all__ = [
    "SCHEMA_VERSION",
    "RunFolder",
    "StoredPlan",
    "canonical",
    "check_version",
    "digest",
    "folder_name",
    "note_other_versions",
    "read_plan",
    "store_plan",
    "stored_version",
    "write_atomically",
]


FILE = "plan.json"
ENCODING: dict[str, Any] = {"compression": "zstd", "use_dictionary": False, "write_page_checksum": True}
"""How tables are written. Without dictionaries they are smaller and written faster: most values are floats."""


SCHEMA_VERSION = 4
"""Raised when the meaning of what is stored changes; part of every study's hash.

4: boxes are never borrowed from the same picture; a sample without a group belongs to its image by content; signs such
   as < and + count in answers.
3: answers are matched by one rule (`interp.inputs.answers`), questions that share an image share its prefix.
2: every shard has a seal, the plan is stored, costs are kept per session.
1: no seals; nothing inside a folder names the version.
"""


@dataclass(frozen=True)
class StoredPlan:
    """The content of `plan.json`: the plan, the tables of a shard, and the tables joined over all shards."""

    plan: Plan
    tables: tuple[str, ...]
    joined: tuple[str, ...]

    @classmethod
    def of(cls, task: Task) -> StoredPlan:
        """Returns the stored plan of a task's run."""
        return cls(task.plan(), tuple(sorted((*task.schemas(), FAILURES))), (*task.joined(), FAILURES))

    def encode(self, run: str) -> bytes:
        """Returns the bytes of `plan.json` for the run with this hash."""
        value = {
            "version": SCHEMA_VERSION,
            "run": run,
            "shards": [[list(batch) for batch in shard] for shard in self.plan.shards],
            "tables": list(self.tables),
            "joined": list(self.joined),
        }
        return (json.dumps({**value, "sha256": digest(value)}, sort_keys=True) + "\n").encode()


def read_plan(path: Path, run: str) -> StoredPlan | None:
    """Returns the plan stored in a run's folder; None if it is absent, damaged or another run's."""
    value = _whole(path)
    if value is None or value.get("run") != run or value.get("version") != SCHEMA_VERSION:
        return None
    shards = tuple(tuple(tuple(batch) for batch in shard) for shard in value["shards"])
    return StoredPlan(Plan(shards), tuple(value["tables"]), tuple(value["joined"]))


def stored_version(path: Path) -> Any:
    """Returns the store version in a folder's plan; None if the plan is absent or damaged."""
    value = _whole(path)
    return None if value is None else value.get("version")


def store_plan(path: Path, run: str, layout: StoredPlan) -> None:
    """Stores the plan, or checks that the plan already stored is the same.

    Raises:
        RunError: Another plan is stored (shards of two plans must not be mixed), or the plan cannot be written.
    """
    stored = read_plan(path, run)
    if stored is None:
        write_atomically(path / FILE, layout.encode(run))
    elif stored != layout:
        raise RunError(
            f"expected {path / FILE} to hold the plan of this study, but it holds another plan: interp's way of "
            f"batching has changed since then. Move {path} away and run the study again, or use the interp that "
            f"wrote it (the commit is in its manifest.json)."
        )


def _whole(path: Path) -> Mapping[str, Any] | None:
    value = read_json(path / FILE)
    if not isinstance(value, dict):
        return None
    rest = {key: part for key, part in value.items() if key != "sha256"}
    try:
        return rest if value.get("sha256") == digest(rest) else None
    except ValueError:  # what no canonical JSON holds
        return None


def folder_name(name: str, study: Mapping[str, Any]) -> str:
    """Returns the name of a run's folder: "<name>-<first 12 hex digits of the study's hash>"."""
    return f"{name}-{digest(study)[:12]}"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, named by the hash of its study."""

    path: Path
    digest: str

    @classmethod
    def create(cls, out: str | os.PathLike[str], name: str, study: Mapping[str, Any]) -> RunFolder:
        """Returns the folder of a study, with its `study.json`; creates it if it is absent.

        Raises:
            RunError: The folder cannot be created or read, or holds another study or another store version.
        """
        path = as_path("out", out) / folder_name(name, study)
        text, stored = canonical(study).encode(), path / "study.json"
        try:
            held = file_content(stored)
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
        """Returns the folder of an existing run.

        Raises:
            RunError: The folder has no readable `study.json`, or another version of the store wrote it.
        """
        file = Path(path) / "study.json"
        try:
            text = file_content(file)
        except OSError as error:
            raise RunError(f"expected a run's folder with a study.json at {path}, got: {error}.") from error
        study = read_json(file)
        if isinstance(study, dict) and "schema" in study:
            check_version(study["schema"], Path(path))
        folder = cls(Path(path), checksum(text))
        folder.check_version()
        return folder

    def check_version(self) -> None:
        """Raises an error if another version of the store wrote the folder's plan or shards.

        Raises:
            RunError: The folder's version is older or newer.
        """
        stored = stored_version(self.path)
        if stored is None:
            first = next(iter(sorted(self.path.glob("shards/*.parquet"))), None)
            try:
                table = None if first is None else _parse(file_content(first))
            except OSError:
                table = None
            if table is None:
                return
            marked = (table.schema.metadata or {}).get(b"version", b"1")
            stored = int(marked) if marked.isdigit() else None
        check_version(stored, self.path)

    def shard_file(self, shard: int, table: str) -> Path:
        """Returns the path of one table of one shard."""
        return self.path / "shards" / f"{shard:05d}.{table}.parquet"

    def seal_file(self, shard: int) -> Path:
        """Returns the path of a shard's seal."""
        return self.path / "shards" / f"{shard:05d}.json"

    def write_shard(self, shard: int, tables: Mapping[str, pa.Table]) -> None:
        """Stores every table of a shard, each by temporary name and rename, and then the seal."""
        sums = {}
        for name, table in tables.items():
            data = self._encode(table, str(shard))
            self._write(self.shard_file(shard, name), data)
            sums[name] = checksum(data)
        self._write_seal(self.seal_file(shard), str(shard), sums)

    def has_shard(self, shard: int, tables: Sequence[str]) -> bool:
        """Whether a shard's seal and files are there; it does not read the files."""
        sums = self._read_seal(self.seal_file(shard), str(shard))
        return all(name in sums and self.shard_file(shard, name).is_file() for name in tables)

    def read_shard(self, shard: int, tables: Mapping[str, pa.Schema]) -> dict[str, pa.Table] | None:
        """Returns some tables of a shard; None if one is absent, damaged, of another run or of another schema."""
        sums = self._read_seal(self.seal_file(shard), str(shard))
        found: dict[str, pa.Table] = {}
        for name, schema in tables.items():
            table = _parse(_sealed(self.shard_file(shard, name), sums.get(name)))
            if table is None or not table.schema.equals(schema, check_metadata=False):
                return None
            found[name] = table
        return found

    def shard_bytes(self, shard: int, tables: Sequence[str]) -> dict[str, bytes] | None:
        """Returns a complete shard as stored, file name → bytes with the seal last; None as for `read_shard`."""
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
        """Returns the rows of a shards' table whose columns hold one of the values.

        Raises:
            RunError: No shard holds the table, or one is damaged.
        """
        wanted = [(column, "in", list(found)) for column, found in values.items()]
        files = sorted(self.path.glob(f"shards/*.{table}.parquet"))
        try:
            parts = [
                pq.read_table(
                    pa.BufferReader(file_content(file)), filters=wanted, page_checksum_verification=True
                )
                for file in files
            ]
            return pa.concat_tables([part.replace_schema_metadata() for part in parts])
        except (OSError, pa.ArrowException) as error:
            raise RunError(
                f"expected whole shards with a table {table} in {self.path}, got: {error}. Run the study again: "
                f"only what is missing is computed."
            ) from error

    def write_table(self, name: str, table: pa.Table) -> None:
        """Stores a joined table and then its seal."""
        self.write_rows(name, [table])

    def write_rows(self, name: str, parts: Iterable[pa.Table]) -> None:
        """Stores a joined table, given in one or more parts, and then its seal; one part is in memory at a time."""
        self.check_there()
        file, following = self._table_file(name), iter(parts)
        first = next(following).replace_schema_metadata(self._marks("all"))
        with written_atomically(file) as written:
            with pq.ParquetWriter(written, first.schema, **ENCODING) as writer:
                for part in chain([first], following):
                    writer.write_table(part.replace_schema_metadata(first.schema.metadata))
            written.flush()
            found = file_checksum(Path(written.name))
        self._write_seal(file.with_suffix(".json"), "all", {name: found})

    def read_table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Returns a joined table, or some of its columns.

        Raises:
            RunError: The table is absent or damaged.
        """
        table = self._joined(name, columns)
        if table is None:
            raise RunError(
                f"expected a whole table {name} in {self.path}, but it is absent or damaged. Run the study "
                f"again: only what is missing is computed. If parts of it were run elsewhere, join them with "
                f"`interp merge`."
            )
        return table

    def has_table(self, name: str) -> bool:
        """Whether a joined table is present and complete; its rows are not read."""
        return self.n_rows(name) is not None

    def n_rows(self, name: str) -> int | None:
        """Returns the number of rows of a joined table; None if it is absent or damaged."""
        file = self._table_file(name)
        sums = self._read_seal(file.with_suffix(".json"), "all")
        try:
            if name not in sums or file_checksum(file) != sums[name]:
                return None
            return pq.read_metadata(file).num_rows
        except (OSError, pa.ArrowException):
            return None

    def _joined(self, name: str, columns: Sequence[str] | None = None) -> pa.Table | None:
        file = self._table_file(name)
        sums = self._read_seal(file.with_suffix(".json"), "all")
        return _parse(_sealed(file, sums.get(name)), columns)

    def _table_file(self, name: str) -> Path:
        return self.path / "tables" / f"{name}.parquet"

    def _encode(self, table: pa.Table, shard: str) -> bytes:
        """The table as parquet."""
        buffer = BytesIO()
        pq.write_table(table.replace_schema_metadata(self._marks(shard)), buffer, **ENCODING)
        return buffer.getvalue()

    def _marks(self, shard: str) -> dict[str, str]:
        return {"run": self.digest, "shard": shard, "version": str(SCHEMA_VERSION)}

    def _write_seal(self, file: Path, shard: str, sums: Mapping[str, str]) -> None:
        self._write(file, self._seal_text(shard, sums))

    def _seal_text(self, shard: str, sums: Mapping[str, str]) -> bytes:
        return canonical(self._seal(shard, sums)).encode()

    def _seal(self, shard: str, sums: Mapping[str, str]) -> dict[str, Any]:
        return {"run": self.digest, "shard": shard, "version": SCHEMA_VERSION, "sha256": dict(sums)}

    def _read_seal(self, file: Path, shard: str) -> dict[str, str]:
        """Returns the sha256 of each table in a seal; empty if the seal is absent, damaged, foreign or outdated."""
        seal = read_canonical(file)
        sums = seal.get("sha256") if isinstance(seal, dict) else None
        if not isinstance(sums, dict) or not all(isinstance(one, str) for one in sums.values()):
            return {}
        return sums if canonical(seal) == canonical(self._seal(shard, sums)) else {}

    def write_json(self, name: str, value: Any) -> None:
        """Stores a JSON file beside the shards."""
        self._write(self.path / name, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())

    def read_json(self, name: str, default: Any) -> Any:
        """Returns a JSON file beside the shards, or `default` if it is absent, damaged or of another type."""
        value = read_json(self.path / name)
        return value if value is not None and (default is None or type(value) is type(default)) else default

    def study(self) -> dict[str, Any]:
        """Returns the content of `study.json`.

        Raises:
            RunError: It is absent, or no longer the study that names the run.
        """
        self.check_there()
        return read_json(self.path / "study.json")

    def check_there(self) -> None:
        """Raises an error if the folder no longer holds this run.

        Raises:
            RunError: `study.json` is absent or another one.
        """
        file = self.path / "study.json"
        if checked_content(file, self.digest) is None:
            what = "was changed" if os.path.isfile(file) else "is gone or cannot be read"
            raise RunError(
                f"expected {self.path} to hold the run's study.json, but it {what}. Was the folder deleted, moved or "
                f"edited while it was in use? Run the study again: shards that are still there are kept."
            )

    def _write(self, file: Path, data: bytes) -> None:
        """Writes a file of the run; nothing is written into a folder that was deleted meanwhile."""
        self.check_there()
        write_atomically(file, data)


def _sealed(path: Path, expected: str | None) -> bytes | None:
    return None if expected is None else checked_content(path, expected)


def _parse(data: bytes | None, columns: Sequence[str] | None = None) -> pa.Table | None:
    try:
        if data is None:
            return None
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            return file.read(columns=columns, use_threads=False)
    except (OSError, pa.ArrowException):
        return None


def check_version(found: Any, where: Path) -> None:
    """Refuse what another version of the store wrote.

    Raises:
        RunError: `found` is not this version; the message says what to do with an older and a newer one.
    """
    if found == SCHEMA_VERSION:
        return
    newer = isinstance(found, int) and found > SCHEMA_VERSION
    advice = (
        "A newer interp wrote it: update interp to read it, or pass another out= to compute it anew."
        if newer
        else f"An older interp wrote it: read it with that version (its commit is in manifest.json), or move "
        f"{where} away and run the study again; old and new shards are never mixed."
    )
    raise RunError(f"expected run store version {SCHEMA_VERSION} in {where}, got {found}. {advice}")


def note_other_versions(out: Path, name: str, study: Mapping[str, Any]) -> None:
    """Say on stderr that another version of the store already holds a study that is about to be computed."""
    if "schema" not in study:
        return
    own = _without_version(study)
    for file in sorted(out.glob(f"{name}-*/study.json")):
        other = read_json(file)
        if isinstance(other, dict) and other != study and _without_version(other) == own:
            print(
                f"{name}: {file.parent} holds this study in run store version {other.get('schema')}; this "
                f"interp keeps version {study['schema']} and computes it anew beside it. Remove the other "
                f"folder when you no longer need it.",
                file=sys.stderr,
            )


def _without_version(study: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps({key: value for key, value in study.items() if key != "schema"}))
