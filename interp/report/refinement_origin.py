"""What a refinement could not measure, and where its numbers come from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from interp.report.words import card, cards, rows_table, safe, size_of, tag
from interp.study.frames import records

if TYPE_CHECKING:
    from interp.study.refinement_result import RefinementCell, RefinementResult

__all__ = ["failures", "provenance"]

SHOWN = 20
SHOWN_RUNS = 12


def failures(result: RefinementResult) -> str:
    """The samples that could not be answered, and why."""
    found = result.failures
    if found.empty:
        return tag("h2", "Failures") + tag("p", "None: every sample was answered both times.", kind="soft")
    varied = [axis for axis in result.axes if len({cell.labels[axis] for cell in result.cells}) > 1]
    rows = found.drop_duplicates([*varied, "error", "reason"]).head(SHOWN)
    listed = rows_table(
        (
            " · ".join([*(str(row[axis]) for axis in varied), str(row["sample"])]),
            f"{row['error']}: {row['reason']}",
        )
        for row in records(rows)
    )
    words = f"Left out, over all runs: {len(found)}. Means are over the rest. The first of each kind:"
    return tag("h2", "Failures") + tag("p", safe(words), kind="wide") + card(listed)


def provenance(result: RefinementResult) -> str:
    """Where each run's numbers come from and what it cost."""
    shown = [
        card(tag("h3", safe(" · ".join(cell.key))), rows_table(_origin(cell)))
        for cell in result.cells[:SHOWN_RUNS]
    ]
    left = len(result.cells) - len(shown)
    more = tag("p", f"And {left} more runs like these.", kind="soft") if left > 0 else ""
    return tag("h2", "Provenance and cost") + tag(
        "details", tag("summary", f"{len(result.cells)} run(s)"), cards(shown, "top"), more
    )


def _origin(cell: RefinementCell) -> list[tuple[str, Any]]:
    manifest, study = cell.folder.read_json("manifest.json", {}), cell.study
    session = (manifest.get("sessions") or [{}])[-1]
    model, data = manifest.get("model", {}), manifest.get("data", {})
    total = cell.folder.read_json("cost.json", {}).get("total", {})
    versions = ", ".join(f"{name} {version}" for name, version in session.get("versions", {}).items())
    spent = f"{total.get('wall_seconds', 0):.1f} s, {total.get('forwards', 0):.0f} forward passes"
    return [
        ("run", cell.folder.path.name),
        (
            "model",
            f"{model.get('id') or model.get('family')}, fingerprint {str(model.get('fingerprint'))[:16]}",
        ),
        (
            "data",
            f"{data.get('name')}, {data.get('n')} samples, fingerprint {str(data.get('fingerprint'))[:16]}",
        ),
        ("method", json.dumps(cell.method, ensure_ascii=False)),
        ("prompt", json.dumps(study.prompt.to_dict(), ensure_ascii=False)),
        ("tokens, seed, batch", f"{study.max_new_tokens}, {study.seed}, {study.batch}"),
        ("device", f"{manifest.get('device')}; {session.get('machine')}"),
        ("computed", f"{session.get('started')}, {len(manifest.get('sessions', []))} session(s)"),
        ("versions", versions),
        ("commit", session.get("commit")),
        ("time", spent),
        ("peak memory", size_of(total["peak_bytes"]) if total.get("peak_bytes") else None),
    ]
