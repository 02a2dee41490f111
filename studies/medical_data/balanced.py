"""The balanced questions: made in pairs, so that neither a name nor a frequent answer gives them away.

Nuclei by the rules of nuclei.py; presence of structures that are there and of as many that certainly are
not (absence.py). In train only what the plain rows lack: absence where they have none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from interp.data import build
from studies.medical_data.absence import certainly_absent
from studies.medical_data.nuclei import Tile, empty_tiles, side_pairs, size_pairs
from studies.medical_data.readers import Item, Source, field_2d, planes_3d, split_3d, tile_of

__all__ = ["Asked", "Presence", "nuclei_questions"]

PER_SLICE = {"CT": 2, "MR": 2, "microscopy": 1}
"""Structures asked about in a held-out slice that are there, and as many that are not."""
ABSENT_IN_TRAIN = {"CT": 1, "MR": 2, "microscopy": 2}
TRAIN_EMPTY = 32

Row = dict[str, Any]
Asked = list[tuple[build.Question, str, list[build.BoxTuple]]]
NUCLEUS = "largest nucleus"


@dataclass
class Presence:
    """Chooses which structures are asked for; counts what was, so that a name says little about the answer."""

    lottery: Callable[..., int]
    there: Counter[str] = field(default_factory=Counter)
    away: Counter[str] = field(default_factory=Counter)

    def absent(self, item: Item, own: set[str], others: set[str], n: int) -> list[str]:
        """Returns `n` absent labels: of the slice's own volume first, then those most often there elsewhere."""

        def key(label: str) -> tuple[bool, int, int]:
            owed = self.away[label] - self.there[label]
            return label not in own, owed, self.lottery(item.name, label, "balanced")

        chosen = sorted(own | others, key=key)[:n]
        self.away.update(chosen)
        return chosen

    def rows(
        self, source: Source, items: list[Item], plain: list[Row], labels: set[str]
    ) -> Iterator[tuple[Row, build.Question, str, list[Any]]]:
        """Yields (a plain row of the slice, question, label, boxes) for every slice of a source."""
        of_slice: dict[str, list[Row]] = {}
        for row in plain:
            of_slice.setdefault(row["image"], []).append(row)
        for item in items:
            rows = of_slice.get(f"images/{item.name}.png", [])
            if not rows:
                continue
            boxes = {row["label"]: row["boxes"] for row in rows if row["boxes"]}
            asked = {row["label"] for row in rows if row["question"].startswith("Is ")}
            chosen = sorted(
                boxes.keys() - asked, key=lambda x: (self.there[x], self.lottery(item.name, x, "balanced"))
            )
            own, others = certainly_absent(source, item, items, labels)
            n = min(PER_SLICE[source.modality], len(chosen), len(own | others))
            if item.split == "train":
                chosen, n = [], ABSENT_IN_TRAIN[source.modality]
                own = set()  # the plain rows have those
            self.there.update(chosen[:n])
            for label in chosen[:n]:
                yield rows[0], visible(label), label, boxes[label]
            for label in self.absent(item, own, others, n):
                yield rows[0], build.absent(label), label, []


def visible(label: str) -> build.Question:
    """Returns the presence question of a label that is in the slice."""
    return build.Question("localization", f"Is the {label} visible?", "yes")


def nuclei_questions(
    key: str, work: Path, presence: Presence, labels: set[str]
) -> Iterator[tuple[Item, Asked]]:
    """Yields the balanced tiles of a source with what is asked about them; nothing for the other sources."""
    if key == "nuclei-2d":
        yield from _test_tiles(key, *field_2d(work), presence, labels)
    elif key == "nuclei-3d":
        for z, grey, marks in planes_3d(work):
            for tile in empty_tiles(grey, marks, TRAIN_EMPTY):
                if split_3d(tile.side, tile.y, tile.x) == "train":
                    yield _item(f"{key}-{z}", "train", "unstated", tile, grey, marks), _nothing()


def _test_tiles(
    key: str, grey: np.ndarray, marks: np.ndarray, presence: Presence, labels: set[str]
) -> Iterator[tuple[Item, Asked]]:
    """Sides and sizes in pairs; presence in as many tiles that show a nucleus as questions about absent things."""
    wanted: dict[Tile, set[str]] = {}
    pairs, empty = side_pairs(marks), empty_tiles(grey, marks)
    for what, chosen in (("Which", pairs), ("What", size_pairs(marks))):
        for tile in (tile for pair in chosen for tile in pair):
            wanted.setdefault(tile, set()).add(what)
    order = sorted((t for pair in pairs for t in pair), key=lambda t: presence.lottery(str(t.at), "presence"))
    shown = order[: 2 * len(empty)]
    for tile in shown:
        wanted[tile].add("Is")
    others = labels - {NUCLEUS}
    for tile, words in wanted.items():
        item = _item(key, "test", "manual", tile, grey, marks)
        finding = build.Finding(NUCLEUS, tile.box, tile.share)
        asked: Asked = [
            (question, NUCLEUS, [tile.box])
            for question in build.questions(finding, tile.side)
            if question.text.split()[0] in words
        ]
        if tile in shown[: len(empty)]:
            asked += [(build.absent(x), x, []) for x in presence.absent(item, set(), others, 1)]
        presence.there[NUCLEUS] += "Is" in words
        yield item, asked
    for tile in empty:
        presence.away[NUCLEUS] += 1
        yield _item(f"{key}-empty", "test", "manual", tile, grey, marks), _nothing()


def _nothing() -> Asked:
    return [(build.absent(NUCLEUS), NUCLEUS, [])]


def _item(start: str, split: str, origin: str, tile: Tile, grey: np.ndarray, marks: np.ndarray) -> Item:
    name = f"{start}-{tile.side}-{tile.y:03d}-{tile.x:03d}"
    return Item(name, split, origin, tile_of(grey[tile.at], marks[tile.at], tile.nucleus))
