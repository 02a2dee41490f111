"""Run folders as an older or a newer interp would have left them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from interp.run import digest


def older(path: Path) -> None:
    """Make a folder look like one of version 1: no plan, no seals, nothing in the Parquet files' marks."""
    (path / "plan.json").unlink()
    for file in path.glob("shards/*"):
        if file.suffix == ".json":
            file.unlink()
        else:
            table = pq.read_table(file)
            marks = {key: value for key, value in table.schema.metadata.items() if key != b"version"}
            pq.write_table(table.replace_schema_metadata(marks), file)


def newer(path: Path) -> None:
    plan = json.loads((path / "plan.json").read_text())
    plan = {key: value for key, value in plan.items() if key != "sha256"} | {"version": 99}
    (path / "plan.json").write_text(json.dumps({**plan, "sha256": digest(plan)}))
