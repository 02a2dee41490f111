"""The licence a folder states."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["licence"]


def licence(folder: Path) -> str | None:
    """What a model card's header, or else the first line of a licence file, says; None without either."""
    card = folder / "README.md"
    head = card.read_text("utf-8", errors="replace") if card.is_file() else ""
    if head.startswith("---"):
        header = head[3:].split("\n---", 1)[0]
        named = re.search(r"^license(?:_name)?:\s*(\S.*)$", header, re.MULTILINE)
        if named is not None:
            return named.group(1).strip().strip("'\"")
    for path in sorted(folder.glob("LICEN[SC]E*")):
        lines = [line.strip() for line in path.read_text("utf-8", errors="replace").splitlines()]
        first = next((line for line in lines if line), None)
        if first is not None:
            return first
    return None
