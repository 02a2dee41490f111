"""Draws from many candidates so that modalities, body regions, labels and volumes are as even as they can be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from interp.data.build.templates import lottery

__all__ = ["diverse"]


def diverse(levels: Sequence[Sequence[Hashable]], n: int | None = None, seed: int = 0) -> list[int]:
    """Returns the indices of `n` candidates, in the order in which they are drawn.

    The rule: among all candidates that are left, take one of the first level's value (such as modality and body region)
    that was drawn least often so far; within it, one of the second level's value (such as the label) that was drawn
    least often within it; and so on. Ties, and the last choice, are drawn by a hash of the seed, the value and the
    candidate's place. So no stratum gets a second candidate before every other has its first, as long as it has any.

    Args:
        levels: For each candidate its values, coarse to fine; all of the same length.
        n: How many to draw; None, or more than there are, draws all.
        seed: Changes the ties.
    """
    tree = _Node()
    for place, values in enumerate(levels):
        tree.add(tuple(values), place, seed)
    wanted = len(levels) if n is None else min(n, len(levels))
    return [tree.draw(seed) for _ in range(wanted)]


class _Node:
    """The candidates that share their coarser values."""

    def __init__(self) -> None:
        self.parts: dict[Hashable, _Node] = {}
        self.places: list[tuple[int, int]] = []
        self.drawn: Counter[Hashable] = Counter()
        self.left = 0

    def add(self, values: tuple[Hashable, ...], place: int, seed: int) -> None:
        """Adds a candidate below the parts that its values name."""
        self.left += 1
        if values:
            self.parts.setdefault(values[0], _Node()).add(values[1:], place, seed)
        else:
            self.places.append((lottery(str(seed), str(place)), place))

    def draw(self, seed: int) -> int:
        """Removes a candidate of the part that was drawn from least, and returns its place."""
        self.left -= 1
        if not self.parts:
            self.places.sort(reverse=True)
            return self.places.pop()[1]
        open_ = (value for value, part in self.parts.items() if part.left)
        chosen = min(open_, key=lambda value: (self.drawn[value], lottery(str(seed), str(value))))
        self.drawn[chosen] += 1
        return self.parts[chosen].draw(seed)
