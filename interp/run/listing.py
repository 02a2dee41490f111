"""Which runs a folder holds: what each measured on what, and whether it is finished. Reads small JSON files only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import RunError
from interp.inputs.files import as_path, read_json
from interp.inputs.text import count

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "FINISHED", "listed_runs", "runs", "state_of"]

COLUMNS = ("study", "model", "data", "n", "state", "started", "folder")
FINISHED = "finished"
GRID = "grid of "


def runs(out: str | os.PathLike[str] = "runs") -> pd.DataFrame:
    """Returns the runs in a folder, the newest first: one row each, read without a model and without the data.

    Columns: `study`, the name of the study, such as "layer-sweep" ("grid of …" for several runs in one result);
    `model` and `data`, as tables call them; `n`, the number of samples asked for; `state`, "finished", "finished, none
    measured" where every sample failed, or how much is there; `started`, when it was last worked on; and `folder`,
    which `interp report` takes. A cell is empty where the folder does not say.

    Args:
        out: The folder that holds runs, as given to `study.run(out)`; folders in it are looked into too.

    Raises:
        RunError: There is no such folder.
    """
    import pandas as pd

    frame = pd.DataFrame([*listed_runs(as_path("out", out))], columns=list(COLUMNS))
    return frame.astype({"n": "Int64", "started": "datetime64[ns, UTC]"})


def listed_runs(out: Path) -> list[dict[str, Any]]:
    """The rows of `runs`, as dicts.

    Raises:
        RunError: There is no such folder.
    """
    if not os.path.isdir(out):  # also of a name that no file can have
        raise RunError(
            f"there is no folder {str(out)[:300]}. Runs lie in the folder that was given as --out or run(out=…), by "
            "default runs/."
        )
    files = [*out.glob("study.json"), *out.glob("*/study.json"), *out.glob("*/*/study.json")]
    rows = [_row(file.parent) for file in files]
    return sorted(rows, key=_age, reverse=True)


def _age(row: Mapping[str, Any]) -> tuple[datetime, bool, str]:
    """The sort key of rows: the newest run is last, and a grid comes after its own runs."""
    return row["started"] or _NEVER, str(row["study"]).startswith(GRID), str(row["folder"])


def _row(folder: Path) -> dict[str, Any]:
    study, manifest = (
        _mapping(read_json(folder / "study.json")),
        _mapping(read_json(folder / "manifest.json")),
    )
    if "cells" in study:
        return _grid_row(folder, study)
    model, data = _mapping(manifest.get("model")), _mapping(manifest.get("data"))
    state = state_of(folder)
    if state == FINISHED and _is_empty(folder / "tables" / "samples.parquet"):
        state = "finished, none measured"
    sessions = [_started(one) for one in manifest.get("sessions") or [] if isinstance(one, dict)]
    return {
        "study": str(study.get("study", folder.name.rpartition("-")[0])),
        "model": str(model.get("id") or model.get("family") or ""),
        "data": str(data.get("name") or ""),
        "n": _mapping(study.get("data")).get("n"),
        "state": state,
        "started": max((one for one in sessions if one is not None), default=None),
        "folder": str(folder),
    }


def _grid_row(folder: Path, study: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a grid, from those of its runs beside it."""
    named = [str(_mapping(cell).get("run")) for cell in study["cells"]]
    beside = [folder.parent / name for name in named]
    there = [one for one in beside if (one / "study.json").is_file() and not _is_grid(one)]
    rows = [_row(one) for one in there]
    labels = [_mapping(_mapping(cell).get("labels")) for cell in study["cells"]]
    data = [_mapping(_mapping(read_json(one / "study.json")).get("data")) for one in there]
    sizes = {
        str(one.get("fingerprint") or row["data"]): row["n"]
        for one, row in zip(data, rows, strict=True)
        if row["n"] is not None
    }
    return {
        "study": f"{GRID}{', '.join(_distinct(rows, 'study'))}",
        "model": ", ".join(_distinct(labels, "model")),
        "data": ", ".join(_distinct(labels, "data")),
        "n": sum(sizes.values()) if sizes else None,
        "state": state_of(folder),
        "started": max((row["started"] for row in rows if row["started"]), default=None),
        "folder": str(folder),
    }


def _distinct(rows: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    return [*dict.fromkeys(str(row[name]) for row in rows if row.get(name))]


def state_of(folder: Path) -> str:
    """Returns "finished", or how much of a run, or of a grid, is there. Tables are not read: a damaged one counts."""
    study = _mapping(read_json(folder / "study.json"))
    if "cells" in study:
        beside = [folder.resolve().parent / str(_mapping(cell).get("run")) for cell in study["cells"]]
        done = [state_of(one) for one in beside if not _is_grid(one)].count(FINISHED)
        return FINISHED if done == len(beside) else f"{done} of {count(len(beside), 'run')} finished"
    plan = _mapping(read_json(folder / "plan.json"))
    joined = plan.get("joined")
    if not isinstance(joined, list):
        return "begun"
    if all(_is_sealed(folder / "tables" / f"{name}.parquet") for name in joined):
        return FINISHED
    there = len([*folder.glob("shards/*.json")])
    whole = len(plan.get("shards", []))
    return f"{there} of {count(whole, 'shard')}" if there < whole else "not joined"


def _is_grid(folder: Path) -> bool:
    """Whether a folder belongs to a grid that is not one of its own runs: listing such a grid would never end."""
    return "cells" in _mapping(read_json(folder / "study.json"))


def _is_empty(table: Path) -> bool:
    """Whether a table is there and has no rows; a damaged one counts as full."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(table).num_rows == 0
    except (OSError, pa.ArrowException):
        return False


def _is_sealed(table: Path) -> bool:
    return table.is_file() and table.with_suffix(".json").is_file()


def _started(session: Mapping[str, Any]) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(session.get("started")))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


_NEVER = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
