"""Joins the shards of a run in the order of the samples, and parts of runs from several machines.

Rows that take less than `BUDGET` bytes are sorted at once. Larger tables are first split into ranges of samples,
one temporary file each; then the ranges are sorted and written one after the other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from interp.errors import RunError
from interp.inputs.files import as_path, file_content, remove_leftovers, temporary_name, write_atomically
from interp.run.sessions import manifest_of, publish
from interp.run.store import RunFolder, StoredPlan, read_plan, store_plan

__all__ = ["BUDGET", "join_tables", "merge"]


BUDGET = 2**26
"""Bytes of a table that are sorted at once."""
DECLARED = ("declared.json", "samples-*.jsonl")
"""The files beside the tables that say what a run was made of (`interp.study.runs`), for its page."""
MOST_RANGES = 256
"""The largest number of temporary files of a table, which are open at the same time."""


@dataclass(frozen=True)
class _Merged:
    """One run: its folders, its plan (None for a study without shards of its own), and the folder of each shard."""

    target: RunFolder
    parts: tuple[RunFolder, ...]
    layout: StoredPlan | None
    holders: Mapping[int, RunFolder]
    schemas: Mapping[str, pa.Schema]


def merge(parts: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> tuple[RunFolder, ...]:
    """Joins `parts` and returns the runs' folders under `out`, byte for byte those of a single run.

    Every run in the parts is merged: the cells of a grid and the grid itself. Runs that already lie under `out` count
    as a part, so complete parts may be merged one after the other, and a merge that was killed can be repeated.
    Nothing is written before every run is known to be complete. A shard that several parts hold must be identical in
    all of them, byte for byte; a damaged shard counts as absent. The records of cost and sessions of all parts are
    kept.

    Args:
        parts: Folders that parts were written to (their `out`), or folders of single runs, which must all be of the
            same run.
        out: The folder for the whole runs.

    Raises:
        RunError: There are no parts or no runs in them; a part belongs to another run or another store version;
            shards are missing or differ between parts; or `out` cannot be written.
    """
    target, found = as_path("out", out), {}
    for folder in _runs([as_path("parts", part) for part in _listed(parts)]):
        found.setdefault(folder.path.name, []).append(folder)
    try:
        merged = [_planned(target / name, folders) for name, folders in sorted(found.items())]
        for run in merged:
            _write(run)
            remove_leftovers(run.target.path)
    except OSError as error:
        raise RunError(
            f"expected to read the parts and to write {target}, got: {error}. Nothing in the parts was changed: merge "
            f"again when they can be read."
        ) from error
    return tuple(run.target for run in merged)


def _listed(parts: Any) -> Sequence[Any]:
    """The parts as a list; one path alone is a list of one."""
    if isinstance(parts, str | os.PathLike):
        return [parts]
    if not isinstance(parts, Iterable):
        raise RunError(f"expected a list of folders to merge, got {parts!r}. Pass the folders of the parts.")
    return list(parts)


def _runs(parts: Sequence[Path]) -> list[RunFolder]:
    """Returns the runs' folders in the parts after checking each against its name."""
    if not parts:
        raise RunError("expected at least one part to merge, got none. Pass the folders of the parts.")
    single = [RunFolder.open(path) for path in parts if (path / "study.json").is_file()]
    if len({folder.digest for folder in single}) > 1:
        listed = ", ".join(str(folder.path) for folder in single)
        raise RunError(
            f"expected parts of one run, got different ones: {listed}. Their studies differ (compare their "
            f"study.json); merge each run's parts separately."
        )
    several = [folder for path in parts for folder in _runs_under(path)]
    for folder in (*single, *several):
        if not folder.path.name.endswith(f"-{folder.digest[:12]}"):
            raise RunError(
                f"expected {folder.path} to be named by the hash of its study.json, {folder.digest[:12]}, but "
                f"it is not: it was edited or renamed. Rename the folder back or leave it out."
            )
    return [*single, *several]


def _runs_under(path: Path) -> list[RunFolder]:
    if (path / "study.json").is_file():
        return []
    folders = [RunFolder.open(file.parent) for file in sorted(path.glob("*/study.json"))]
    headless = sorted(
        {file.parents[1] for file in path.glob("*/shards/*.json")} - {one.path for one in folders}
    )
    if headless:
        raise RunError(
            f"expected a study.json in every run's folder, but it is absent from {', '.join(map(str, headless))}, "
            f"which holds shards. Run that part again (finished shards are kept), or delete the folder to leave it out."
        )
    if not folders:
        raise RunError(
            f"expected runs in {path}, such as {path}/layer-sweep-0123456789ab/study.json, got none. A part is "
            f"a folder that was the out= of a run."
        )
    return folders


def _planned(target: Path, parts: list[RunFolder]) -> _Merged:
    """Decides which folder provides each shard; writes nothing."""
    there = [RunFolder.open(target)] if (target / "study.json").is_file() else []
    folders = (*there, *parts)
    if len({folder.digest for folder in folders}) > 1:
        raise RunError(
            f"expected {target} and its parts to hold one study.json, but they differ. Merge into an empty folder, "
            "or run the part again whose study.json was changed."
        )
    layouts = {folder.path: read_plan(folder.path, folder.digest) for folder in folders}
    known = [layout for layout in layouts.values() if layout is not None]
    own = RunFolder(target, parts[0].digest)
    if any(layout != known[0] for layout in known):
        listed = ", ".join(str(path) for path in layouts)
        raise RunError(
            f"expected one plan.json in the parts of {target.name}, got different ones: {listed}. They come "
            f"from different versions of interp: run them again with one version."
        )
    if not known:
        _refuse_shards_without_plan(folders)
        return _Merged(own, tuple(parts), None, {}, {})
    holders = _holders(target.name, folders, known[0])
    return _Merged(own, tuple(parts), known[0], holders, _schemas(holders, known[0]))


def _refuse_shards_without_plan(folders: Iterable[RunFolder]) -> None:
    for folder in folders:
        if any(folder.path.glob("shards/*")):
            raise RunError(
                f"expected a whole plan.json beside the shards of {folder.path}, but it is absent or damaged. "
                f"Run the part again: finished shards are kept."
            )


def _holders(name: str, folders: Sequence[RunFolder], layout: StoredPlan) -> dict[int, RunFolder]:
    """Returns for each shard the first folder in which it is complete.

    Raises:
        RunError: A shard is complete in no folder, or differs between two folders.
    """
    holders: dict[int, RunFolder] = {}
    missing = []
    for shard in range(len(layout.plan.shards)):
        seals: dict[bytes, RunFolder] = {}
        for folder in folders:
            files = folder.shard_bytes(shard, layout.tables)
            if files is not None:
                seals.setdefault(files[folder.seal_file(shard).name], folder)
        if len(seals) > 1:
            listed = " and ".join(str(folder.path) for folder in seals.values())
            raise RunError(
                f"expected every part to hold the same shard {shard} of {name}, but {listed} differ. They were "
                f"computed on different devices or versions, or one was split for lack of memory (see their "
                f"manifest.json). Remove the files shards/{shard:05d}.* from the part you trust less. Nothing "
                f"was written."
            )
        if seals:
            holders[shard] = next(iter(seals.values()))
        else:
            missing.append(shard)
    if missing:
        listed = ", ".join(str(folder.path) for folder in folders)
        raise RunError(
            f"expected the parts to hold all {len(layout.plan.shards)} shards of {name}, but shards {missing} "
            f"are absent or damaged in {listed}{_hint(folders, missing)}. Pass the missing parts as well, or "
            f"run the unfinished parts again. Nothing was written."
        )
    return holders


def _hint(folders: Sequence[RunFolder], missing: list[int]) -> str:
    """Returns which parts the missing shards belong to, if the sessions agree on the number of parts."""
    sessions = [session for folder in folders for session in manifest_of(folder).get("sessions", [])]
    counts = {session["shards"]["part"][1] for session in sessions if "part" in session.get("shards", {})}
    if len(counts) != 1:
        return ""
    (of,) = counts
    return f" (--shard {', '.join(f'{number + 1}/{of}' for number in sorted({s % of for s in missing}))})"


def _schemas(holders: Mapping[int, RunFolder], layout: StoredPlan) -> dict[str, pa.Schema]:
    """Returns the columns of the tables to join after checking that they are the same in every shard."""
    found: dict[str, pa.Schema] = {}
    for shard, folder in sorted(holders.items()):
        for name in layout.joined:
            schema = pq.read_schema(folder.shard_file(shard, name)).remove_metadata()
            if not schema.equals(found.setdefault(name, schema)):
                raise RunError(
                    f"expected the table {name} to have the same columns in every shard, but those of shard "
                    f"{shard} in {folder.path} differ. Different versions of interp wrote them: run the parts "
                    f"again with one version. Nothing was written."
                )
    return found


def _write(run: _Merged) -> None:
    """Copies what the target lacks and then joins; in this order a kill leaves nothing that looks finished."""
    target = run.target
    if not (target.path / "study.json").is_file():
        write_atomically(target.path / "study.json", file_content(run.parts[0].path / "study.json"))
    _copy_declared(run.parts, target.path)
    for part in run.parts:
        _copy_sessions(part.path / "sessions", target.path / "sessions")
    if run.layout is None:
        return
    store_plan(target.path, target.digest, run.layout)
    foreign = {shard: folder for shard, folder in run.holders.items() if folder.path != target.path}
    for shard, folder in foreign.items():
        files = folder.shard_bytes(shard, run.layout.tables)
        if files is None:
            raise RunError(
                f"expected shard {shard} of {folder.path} to stay whole while it was merged; its files changed or "
                "disappeared. Run that part again, then merge again."
            )
        for name, data in files.items():
            write_atomically(target.path / "shards" / name, data)
    publish(target)
    if foreign or not all(target.has_table(name) for name in run.layout.joined):
        plan = run.layout.plan
        join_tables(target, len(plan.shards), run.schemas, n_samples=plan.n_samples)


def _copy_declared(parts: Sequence[RunFolder], target: Path) -> None:
    """Copies what the first part that has it says of how the run was made, unless the target has it."""
    held = next((part.path for part in parts if (part.path / DECLARED[0]).is_file()), target)
    if held != target and not (target / DECLARED[0]).is_file():
        for file in (file for name in reversed(DECLARED) for file in sorted(held.glob(name))):
            write_atomically(target / file.name, file_content(file))


def _copy_sessions(source: Path, target: Path) -> None:
    """Copies the records of sessions. Records only grow, so of two copies the longer one is the later one."""
    for file in sorted(source.glob("*/**/*.json")):
        copy, data = target / file.relative_to(source), file_content(file)
        if not copy.is_file() or copy.stat().st_size < len(data):
            write_atomically(copy, data)


def join_tables(
    folder: RunFolder,
    n_shards: int,
    schemas: Mapping[str, pa.Schema],
    *,
    n_samples: int | None = None,
    budget: int = BUDGET,
) -> None:
    """Joins each table over all shards, with its rows in the order of the samples, and stores it.

    Args:
        folder: The run's folder.
        n_shards: How many shards the run has.
        schemas: The columns of each table to join.
        n_samples: How many samples the run has, where that is known; ranges of samples are cut more evenly then.
        budget: Bytes of a table that are held in memory at once.

    Raises:
        RunError: A shard is no longer complete, or a table cannot be written.
    """
    with ExitStack() as stack:
        sorters = {
            name: _Sorter(folder, name, schema, (n_shards, n_samples), budget, stack)
            for name, schema in schemas.items()
        }
        for shard in range(n_shards):
            tables = folder.read_shard(shard, schemas)
            if tables is None:
                raise RunError(
                    f"expected shard {shard} of {folder.path} to be whole after it was written. Is the disk "
                    f"failing, or does another program write there? Run again."
                )
            for name, table in tables.items():
                sorters[name].add(table.replace_schema_metadata(None))
        for name, sorter in sorters.items():
            folder.write_rows(name, sorter.parts())


class _Sorter:
    """One table's rows, shard by shard, to be given back in the order of the samples."""

    def __init__(
        self,
        folder: RunFolder,
        name: str,
        schema: pa.Schema,
        sizes: tuple[int, int | None],
        budget: int,
        stack: ExitStack,
    ) -> None:
        self._schema, self._budget, self._stack = schema, budget, stack
        self._n_shards, self._n_samples = sizes
        self._place = folder.path / "tables" / name
        self._held: list[pa.Table] = []
        self._n_bytes = 0
        self._ends = np.empty(0)
        """The first sample of each range but the first."""
        self._files: list[Path] = []
        self._writers: list[Any] = []

    def add(self, table: pa.Table) -> None:
        """Takes the rows of the next shard."""
        if not self._writers:
            self._held.append(table)
            self._n_bytes += table.nbytes
            if self._n_bytes > self._budget:
                self._spill()
        else:
            self._part(table)

    def parts(self) -> Iterator[pa.Table]:
        """Yields all rows in order: at once, or one range of samples after the other if they exceed the budget."""
        if not self._writers:
            yield _sorted(pa.concat_tables(self._held or [self._schema.empty_table()]))
            return
        for writer in self._writers:
            writer.close()
        for file in self._files:
            with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as reader:
                yield _sorted(reader.read_all())
            file.unlink()

    def _spill(self) -> None:
        """Moves the rows held so far to temporary files, one for each range of samples; later rows go there at once."""
        share = self._n_shards / len(self._held)
        largest = max(int(table.column("index").to_numpy().max(initial=0)) for table in self._held)
        n_samples = self._n_samples or share * (largest + 1)
        n = min(MOST_RANGES, 1 + int(2 * share * self._n_bytes / self._budget))
        self._ends = np.linspace(0, n_samples, n + 1)[1:-1]
        for _ in range(n):
            file = temporary_name(self._place)
            self._stack.callback(file.unlink, missing_ok=True)
            self._files.append(file)
            file.parent.mkdir(parents=True, exist_ok=True)
            sink = self._stack.enter_context(pa.OSFile(str(file), "wb"))
            self._writers.append(self._stack.enter_context(pa.ipc.new_stream(sink, self._schema)))
        for table in self._held:
            self._part(table)
        self._held.clear()

    def _part(self, table: pa.Table) -> None:
        at = np.searchsorted(self._ends, table.column("index").to_numpy(), side="right")
        for number in np.unique(at).tolist():
            self._writers[number].write_table(table.filter(pa.array(at == number)).combine_chunks())


def _sorted(table: pa.Table) -> pa.Table:
    """The rows by sample; those of one sample keep their order."""
    order = np.argsort(table.column("index").to_numpy(), kind="stable")
    return table.take(order).combine_chunks()
