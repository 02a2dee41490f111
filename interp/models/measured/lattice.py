"""Regular grids through consecutive tokens: where each begins and ends, its order, its origin and its pitch.

The tokens are cut into grids by dynamic programming. Each grid has a price, and each token costs its weight times its
distance from the place that its grid gives it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["SLIVER", "Lattice", "cut_into_lattices", "single_lattices", "weighted_median"]

_PRICE = 3.0
"""What a grid costs, in mean tokens that lie a whole cell off."""
_LINE_PRICE = 9.0
"""What a grid of a single row or column costs: layouts hardly ever have one, and noise looks like one."""
_WEAK = 0.5
"""Two grids become one if that costs less than this for each token of the smaller grid."""
_UNPLACED = 1.5
"""What a token without a grid costs."""
_HOPELESS = 12.0
"""A grid whose tokens cost more than this, and more than half of their weight, is not made longer."""
_SURE = 0.1
"""Weight, relative to the mean, above which a token's place says where rows end."""
SLIVER = 0.05
"""Share of a cell's side that must lie in the image; less is padding."""
_RUNS = 4
_ROUNDS = 4
_WHOLE = 0.4
"""In cells: the least distance of a cell's centre from the image's border if the border does not cut the cell."""


@dataclass(frozen=True, eq=False)
class Lattice:
    """A grid of equal cells that consecutive tokens run through.

    Attributes:
        start: The first token.
        stop: The token after the last.
        fast: Tokens of a row (of a column, where tokens run down the columns).
        order: "rows" if tokens run along rows, "columns" if they run down columns.
        origin: x and y of the first cell's corner, in pixels of the image; may lie outside it.
        pitch: Width and height of a cell.
        loss: (token,) how far each token by itself is from its cell: 0 at its centre, 1 a cell away or more.
    """

    start: int
    stop: int
    fast: int
    order: Literal["rows", "columns"]
    origin: Float[np.ndarray, " 2"]
    pitch: Float[np.ndarray, " 2"]
    loss: Float[np.ndarray, " token"]

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        slow = -(-(self.stop - self.start) // self.fast)
        return (slow, self.fast) if self.order == "rows" else (self.fast, slow)

    @property
    def places(self) -> Int[np.ndarray, "token 2"]:
        """Column and row of each token."""
        return _places(self.stop - self.start, self.fast, self.order)


@dataclass(frozen=True, eq=False)
class _Tokens:
    """What the search works on: each token's centre, size and weight (mean 1), where other tokens stand between, and
    the image's width and height."""

    centre: Float[np.ndarray, "token 2"]
    size: Float[np.ndarray, "token 2"]
    weight: Float[np.ndarray, " token"]
    gaps: Bool[np.ndarray, " between"]
    image: tuple[float, float]

    def __len__(self) -> int:
        return len(self.weight)

    def whole(self, start: int, stop: int, fast: int) -> bool:
        """Whether a grid may run through tokens: no other token stands between them, or one stands behind each row.

        Tiles with a separator between them are grids of their own.
        """
        inside = self.gaps[start : stop - 1]
        behind = np.zeros(len(inside), bool)
        behind[fast - 1 :: fast] = True
        return not inside.any() or bool((inside == behind).all())


def cut_into_lattices(
    boxes: Float[np.ndarray, "token 4"],
    weight: Float[np.ndarray, " token"],
    gaps: Bool[np.ndarray, " between"],
    image: tuple[float, float],
) -> list[Lattice | tuple[int, int]]:
    """Returns the grids that explain the tokens' boxes at the least cost, in order; (start, stop) of tokens in none.

    Args:
        boxes: The rectangle of each token by itself, xyxy in pixels.
        weight: How far each rectangle can be trusted; 0 for not at all.
        gaps: Whether other tokens stand between a token and the next.
        image: Width and height of the image.
    """
    tokens = _tokens(boxes, weight, gaps, image)
    turns = _turns(tokens)
    runs = _run_lengths(tokens, turns)
    return _cheapest(tokens, turns, runs, _cuts(len(tokens), turns, runs, gaps))


def single_lattices(
    boxes: Float[np.ndarray, "token 4"],
    weight: Float[np.ndarray, " token"],
    gaps: Bool[np.ndarray, " between"],
    image: tuple[float, float],
) -> list[Lattice]:
    """Returns the grids that run through all tokens, one for each likely length of a row; as `cut_into_lattices`."""
    tokens = _tokens(boxes, weight, gaps, image)
    n, runs = len(tokens), _run_lengths(tokens, _turns(tokens))
    fasts = [fast for fast in runs if 1 < fast < n and n % fast == 0 and tokens.whole(0, n, fast)]
    fits = [_fitted(tokens, 0, n, fast, order)[0] for fast in fasts for order in ("rows", "columns")]
    return [one for one in fits if one is not None]


def _tokens(
    boxes: Float[np.ndarray, "token 4"],
    weight: Float[np.ndarray, " token"],
    gaps: Bool[np.ndarray, " between"],
    image: tuple[float, float],
) -> _Tokens:
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    return _Tokens(centre, size, (weight + 1e-9) / (weight + 1e-9).mean(), gaps, image)


def _turns(tokens: _Tokens) -> list[int]:
    """Returns the tokens at which a row or a grid may begin, and the number of tokens."""
    sure = np.flatnonzero(tokens.weight > _SURE)
    low, high = sure[:-1], sure[1:]
    small = np.maximum(np.minimum(tokens.size[low], tokens.size[high]), 0.6 * _around(tokens.size[sure])[:-1])
    back = ((tokens.centre[high] - tokens.centre[low]) / small < -0.5).any(axis=1)
    other = np.abs(np.log(tokens.size[high] / tokens.size[low])).max(axis=1) > 0.8
    found = {0, len(tokens), *high[back | other].tolist(), *(np.flatnonzero(tokens.gaps) + 1).tolist()}
    return sorted(found)


def _around(size: Float[np.ndarray, "token 2"], reach: int = 4) -> Float[np.ndarray, "token 2"]:
    """Returns the median size of each token's neighbours in the sequence: one token by itself may look narrow."""
    padded = np.pad(size, ((reach, reach), (0, 0)), mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0), axis=-1)


def _run_lengths(tokens: _Tokens, turns: list[int]) -> list[int]:
    """Returns the likely numbers of tokens in a row, by two signs.

    A token so many places later often lies one row further on, or turns often follow each other at that distance.
    """
    n, votes = len(tokens), {}
    for c in range(2, n // 2 + 1):
        step = np.abs(tokens.centre[c:] - tokens.centre[:-c])
        step = step / np.minimum(tokens.size[c:], tokens.size[:-c])
        both = np.minimum(tokens.weight[c:], tokens.weight[:-c])
        votes[c] = max(
            (both * ((step[:, a] < 0.35) & (np.abs(step[:, 1 - a] - 0.95) < 0.5))).sum() for a in (0, 1)
        )
    voted = sorted((c for c in votes if votes[c] > 0), key=lambda c: -votes[c])[:_RUNS]
    counts = np.bincount(np.diff(turns), minlength=2)
    common = np.argsort(-counts * np.arange(len(counts)), kind="stable")[:3]
    return list(dict.fromkeys([*voted, *(int(c) for c in common if c and counts[c])]))


def _cuts(n: int, turns: list[int], runs: list[int], gaps: Bool[np.ndarray, " between"]) -> list[int]:
    """Returns the tokens at which a grid may begin or end: turns that repeat after a run, and runs from both ends."""
    known = set(turns)
    paired = {t for t in turns if any(t - c in known or t + c in known for c in runs)}
    near = {t + s for t in paired for c in runs[:1] for s in (c, -c)}
    chains = {s for c in runs[:2] for s in (*range(0, n, c), *range(n, 0, -c))}
    behind = (np.flatnonzero(gaps) + 1).tolist()
    return sorted(s for s in {0, n, *paired, *near, *chains, *behind} if 0 <= s <= n)


def _cheapest(
    tokens: _Tokens, turns: list[int], runs: list[int], cuts: list[int]
) -> list[Lattice | tuple[int, int]]:
    n, total = len(tokens), np.concatenate([[0.0], np.cumsum(tokens.weight)])
    cost = np.full(n + 1, np.inf)
    cost[0], allowed = 0.0, np.isin(np.arange(n + 1), cuts)
    came: list[Any] = [None] * (n + 1)
    for i, after in pairwise(cuts):
        options = [(after, _PRICE + _UNPLACED * (total[after] - total[i]), (i, after))]
        later = [t - i for t in turns if t > i][:2]
        for fast in dict.fromkeys([*runs, *later, n - i]):
            options += [(one.stop, paid, one) for one, paid in _growing(tokens, i, fast, allowed, total)]
        for stop, price, found in options:
            if cost[i] + price < cost[stop]:
                cost[stop], came[stop] = cost[i] + price, (i, found)
    parts, stop = [], n
    while stop > 0:
        stop, found = came[stop]
        parts.insert(0, found)
    return _merged(tokens, parts)


def _merged(tokens: _Tokens, parts: list[Lattice | tuple[int, int]]) -> list[Lattice | tuple[int, int]]:
    """Returns the grids; a grid is continued over the next one where that costs little.

    Tokens that see only padding change by leakage, and a grid of their own may fit that.
    """
    merged: list[Lattice | tuple[int, int]] = []
    for part in parts:
        merged.append(part)
        while len(merged) > 1:
            one, two = merged[-2:]
            if not (isinstance(one, Lattice) and isinstance(two, Lattice)) or one.fast != two.fast:
                break
            if not tokens.whole(one.start, two.stop, one.fast):
                break
            whole, cost = _fitted(tokens, one.start, two.stop, one.fast, one.order)
            apart = sum(float((tokens.weight[g.start : g.stop] * g.loss).sum()) for g in (one, two))
            least = min(g.stop - g.start for g in (one, two))
            if whole is None or cost - apart > _WEAK * least:
                break
            merged[-2:] = [whole]
    return merged


def _growing(
    tokens: _Tokens, start: int, fast: int, allowed: Bool[np.ndarray, " cut"], total: np.ndarray
) -> Iterator[tuple[Lattice, float]]:
    """Yields grids from `start` with rows of `fast` tokens, each a row longer than the one before, and their costs."""
    for stop in range(start + fast, len(tokens) + 1, fast):
        if not allowed[stop] or not tokens.whole(start, stop, fast):
            continue
        found = min((_fitted(tokens, start, stop, fast, o) for o in ("rows", "columns")), key=lambda f: f[1])
        if found[0] is not None:
            yield found[0], found[1] + (_LINE_PRICE if min(found[0].shape) == 1 else _PRICE)
        if stop - start >= 4 * fast and found[1] > max(_HOPELESS, 0.5 * (total[stop] - total[start])):
            return


def _places(n: int, fast: int, order: str) -> Int[np.ndarray, "token 2"]:
    slow, place = np.divmod(np.arange(n), fast)
    return np.stack([place, slow] if order == "rows" else [slow, place], axis=1)


def _fitted(tokens: _Tokens, start: int, stop: int, fast: int, order: Any) -> tuple[Lattice | None, float]:
    """Returns the grid of that shape that fits the tokens best, and their cost; infinite if none fits."""
    part, places = slice(start, stop), _places(stop - start, fast, order)
    centre, size, weight = tokens.centre[part], tokens.size[part], tokens.weight[part]
    usual = np.array([weighted_median(size[:, a], weight) for a in (0, 1)])
    lags = (1, fast) if order == "rows" else (fast, 1)
    lines = [_line(places[:, a], centre[:, a], usual[a], weight, lags[a], tokens.image[a]) for a in (0, 1)]
    origin, pitch = np.array(lines).T
    if (pitch <= 0.3 * usual).any() or (pitch >= 3 * usual).any():
        return None, np.inf
    low, high = (np.clip(origin + pitch * (places + end), 0, tokens.image) for end in (0, 1))
    away = np.abs((centre - (low + high) / 2) / pitch).max(axis=1)
    inside = high - low
    inside = np.where(inside > SLIVER * pitch, inside, size)  # what leaks into a cell outside has any size
    unlike = np.maximum(np.abs(np.log(size / inside)).max(axis=1) - 0.5, 0)
    loss = np.minimum(np.maximum(away, unlike), 1)
    return Lattice(start, stop, fast, order, origin, pitch, loss), float((weight * loss).sum())


def _line(
    place: Int[np.ndarray, " token"],
    centre: Float[np.ndarray, " token"],
    usual: float,
    weight: Float[np.ndarray, " token"],
    lag: int,
    length: float,
) -> tuple[float, float]:
    """Returns the origin and the pitch of evenly spaced cells: medians first, then reweighted least squares.

    Cells that the image's border cuts, and cells outside the image, do not count: what is seen of them lies inside.
    """
    middle, pitch = place + 0.5, usual
    if not place.any():
        return weighted_median(centre - pitch * middle, weight), pitch
    next_to = place[lag:] - place[:-lag] == 1
    steps = (centre[lag:] - centre[:-lag])[next_to]
    pitch = weighted_median(steps, np.minimum(weight[lag:], weight[:-lag])[next_to])
    if pitch <= 0:
        return 0.0, -1.0
    origin = weighted_median(centre - pitch * middle, weight)
    for _ in range(_ROUNDS):
        expected = origin + pitch * middle
        whole = (expected > _WHOLE * pitch) & (expected < length - _WHOLE * pitch)
        trust = weight / (1 + ((centre - expected) / (0.15 * pitch)) ** 2)
        trust = trust * whole if whole.any() and np.ptp(place[whole]) else trust
        trust = trust / trust.sum()
        across = middle - (trust * middle).sum()
        spread = (trust * across**2).sum()
        slope = (trust * across * centre).sum() / spread if spread > 1e-9 else pitch
        if slope <= 0:
            break
        pitch = float(slope)
        origin = float((trust * (centre - pitch * middle)).sum())
    return origin, pitch


def weighted_median(values: Float[np.ndarray, " value"], weight: Float[np.ndarray, " value"]) -> float:
    """Returns the value below which half of the weight lies."""
    order = values.argsort()
    sums = np.cumsum(weight[order])
    return float(values[order][min(np.searchsorted(sums, sums[-1] / 2), len(values) - 1)])
