"""The 44 source sets of VGMED (the paper's table C.2) and the samples of related works (table B.1), as facts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RELATED", "SOURCES", "RelatedWork", "SourceSet"]


@dataclass(frozen=True)
class SourceSet:
    """One source of VGMED.

    Attributes:
        name: As table C.2 writes it, without the citation ("AbdomenCT-1K" is misspelt there).
        modalities: Such as "CT" and "MR".
        regions: Body regions, of `regions.REGIONS`.
    """

    name: str
    modalities: tuple[str, ...]
    regions: tuple[str, ...]


@dataclass(frozen=True)
class RelatedWork:
    """A study of visual grounding: how many samples it looked at, and where they come from."""

    name: str
    n_samples: int
    data: str


_READ = json.loads(Path(__file__).with_name("sources.json").read_text(encoding="utf-8"))

SOURCES = tuple(
    SourceSet(one["name"], tuple(one["modalities"]), tuple(one["regions"])) for one in _READ["sources"]
)
"""Table C.2 of arXiv 2603.14323, in its order."""
RELATED = tuple(RelatedWork(**one) for one in _READ["related"])
"""Table B.1 of arXiv 2603.14323, in its order."""
