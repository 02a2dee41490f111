"""What must be the same in two folders of one run, and what may differ."""

from __future__ import annotations

import hashlib
from pathlib import Path

DIFFERS = ("cost.json", "manifest.json")
"""Files of seconds, dates and versions, in the run's folder and in those of its sessions."""


def fingerprints(folder: Path) -> dict[str, str]:
    """sha256 of every Parquet, CSV and JSON file under a folder, but for those of seconds and dates."""
    files = sorted(
        file
        for kind in ("parquet", "csv", "json")
        for file in folder.glob(f"**/*.{kind}")
        if file.name not in DIFFERS
    )
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def leftovers(folder: Path) -> list[Path]:
    """Temporary files."""
    return list(folder.glob("**/*.tmp"))
