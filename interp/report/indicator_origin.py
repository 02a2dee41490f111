"""What a comparison of indicators could not measure, and where its numbers come from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from interp.report.words import card, cards, rows_table, safe, size_of, tag
from interp.study.frames import records

if TYPE_CHECKING:
    from interp.study.indicator_result import IndicatorCell, IndicatorResult

__all__ = ["failures", "provenance"]

SHOWN = 24


def failures(result: IndicatorResult) -> str:
    """What could not be had of a sample, and why."""
    found = result.failures
    if found.empty:
        return tag("h2", "Failures") + tag(
            "p", "None: every map was made and every value defined.", kind="soft"
        )
    axes = [axis for axis in result.axes if len({cell.labels[axis] for cell in result.cells}) > 1]
    keys = [*axes, "control", "metric", "error", "reason"]
    counted = (
        found.fillna({"control": "", "metric": ""})
        .groupby(keys, sort=False)
        .agg(n=("sample", "size"), sample=("sample", "first"))
    )
    listed = rows_table(
        (
            " · ".join(str(row[name]) for name in (*axes, "control", "metric") if row[name]) or row["sample"],
            f"{row['n']}×, first {row['sample']}. {row['error']}: {row['reason']}",
        )
        for row in records(counted.reset_index())[:SHOWN]
    )
    words = f"{len(found)} in all, samples and single values; means are over the rest. By kind:"
    return tag("h2", "Failures") + tag("p", words, kind="wide") + card(listed)


def provenance(result: IndicatorResult) -> str:
    """Where each run's numbers come from and what it cost."""
    shown = [card(tag("h3", safe(" · ".join(cell.key))), rows_table(_origin(cell))) for cell in result.cells]
    inner = tag("details", tag("summary", f"{len(shown)} run(s)"), cards(shown, "top"))
    return tag("h2", "Provenance") + inner


def _origin(cell: IndicatorCell) -> list[tuple[str, Any]]:
    manifest, study = cell.folder.read_json("manifest.json", {}), cell.folder.read_json("study.json", {})
    session = (manifest.get("sessions") or [{}])[-1]
    model, data = manifest.get("model", {}), manifest.get("data", {})
    total = cell.folder.read_json("cost.json", {}).get("total", {})
    versions = ", ".join(f"{name} {version}" for name, version in session.get("versions", {}).items())
    named = {name: _json(value) for name, value in study.get("indicators", {}).items()}
    removals = {name: _json(value) for name, value in study.get("removals", {}).items()}
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
        *named.items(),
        *removals.items(),
        ("target, prompt", f"{_json(study.get('target'))}, {_json(study.get('prompt'))}"),
        ("steps", _json(study.get("steps"))),
        ("seed, batch", f"{study.get('seed')}, {cell.study.batch}"),
        ("device", f"{manifest.get('device')}; {session.get('machine')}"),
        ("computed", f"{session.get('started')}, {len(manifest.get('sessions', []))} session(s)"),
        ("versions", versions),
        ("commit", session.get("commit")),
        ("time", f"{total.get('wall_seconds', 0):.1f} s, {total.get('forwards', 0):.0f} forward passes"),
        ("peak memory", size_of(total["peak_bytes"]) if total.get("peak_bytes") else None),
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
