"""What `interp check --all --record` found, kept with the package so that `interp models` can say it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from interp.conformance.result import Conformance

__all__ = ["PATH", "read", "write"]

PATH = Path(__file__).parent / "record.json"

_PACKAGES = ("torch", "transformers", "nnsight")


def read(path: Path = PATH) -> dict[str, dict[str, Any]]:
    """Family → its last recorded check: passed, total, failed, date, versions, checks. Empty without a record."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write(results: Iterable[Conformance], path: Path = PATH) -> None:
    """Replaces the record by these results, one per family."""
    now = datetime.datetime.now(datetime.UTC).date().isoformat()
    versions = {name: version(name) for name in _PACKAGES}
    record = {
        result.family: {
            "passed": sum(row.passed for row in result.rows),
            "total": len(result.rows),
            "failed": [row.name for row in result.failures],
            "checks": [row.name for row in result.rows],
            "date": now,
            "versions": versions,
        }
        for result in results
    }
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
