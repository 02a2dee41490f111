"""Joins parts of runs from several machines into the folders that one machine would have written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from interp.errors import RunError
from interp.run.files import as_path, file_content, remove_leftovers, write_atomically
from interp.run.join import join_tables
from interp.run.sessions import manifest_of, publish
from interp.run.store import RunFolder, StoredPlan, read_plan, store_plan

__all__ = ["merge"]


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
                "went. Run that part again, then merge again."
            )
        for name, data in files.items():
            write_atomically(target.path / "shards" / name, data)
    publish(target)
    if foreign or not all(target.has_table(name) for name in run.layout.joined):
        plan = run.layout.plan
        join_tables(target, len(plan.shards), run.schemas, n_samples=plan.n_samples)


def _copy_sessions(source: Path, target: Path) -> None:
    """Copies the records of sessions. Records only grow, so of two copies the longer one is the later one."""
    for file in sorted(source.glob("*/**/*.json")):
        copy, data = target / file.relative_to(source), file_content(file)
        if not copy.is_file() or copy.stat().st_size < len(data):
            write_atomically(copy, data)
