"""The footprints of one image's tokens, measured from outside: paint, run the tower, decode, fit lattices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from interp.errors import ModelError
from interp.inputs.footprints import Footprints
from interp.models.measured.consistency import (
    agreement,
    kept,
    lean,
    least_trust,
    line_trust,
    probability,
    spanned,
)
from interp.models.measured.embedder import Embedder
from interp.models.measured.lattice import Lattice, cut_into_lattices, single_lattices
from interp.models.measured.measured_views import View, laid, views_of
from interp.models.measured.patterns import Code, Profiles, Raw, painted, read_off, stripes, texture

__all__ = ["LEAST", "Measurement", "Scan", "decoded", "measure", "scan"]

LEAST = 0.6
"""The smallest mean confidence of a measurement that is used: of 0.3, 0.4, … the smallest at which no wrong measurement
was used on the half of the families that confidence was fitted on; on the other half none was used either."""
_STRAY = 0.1
"""The largest share of tokens outside every grid, or in grids of one row or column, in a measurement that is used."""
_LEANS = 0.12
"""How far tokens may lean to one side in a measurement that is used. Of the built-in families those that were measured
rightly lean by up to 0.11 (a trained organism, GOT-OCR's convolutions), DeepSeek-VL's two towers by 0.13 to 0.17."""
_VIEW = 0.5
"""The smallest mean confidence of the tokens of each view in a measurement that is used."""
_ROW = 0.35
"""The smallest mean confidence of the tokens of each row and column in a measurement that is used."""
_SPANS = 0.8
"""How much of the image's width and height the grids of each size of cell span, in a measurement that is used."""
_KEEPS, _MUCH = 0.5, 0.7
"""The share of what the tokens' own rectangles explain that their footprints must explain: in a measurement that is
used, and in one whose footprints explain much."""
_AGREES, _AGREES_WELL = 0.75, 0.8
"""How well two placements of each grid must agree: where footprints explain much, and where they explain less."""
_PAIRS = 2
"""Pairs of textures that are painted: two, so that chance can be told from what both show."""
_POWERS = (0.5, 1.0)
"""A token's change is its squared distance to this power. The first evens out a footprint's bright and dark places, the
second suppresses what leaks from the rest of a tile. The power with which lattices fit better is used."""
_SEED = 50

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was measured of one image of a sample.

    Attributes:
        size: (width, height) of the image.
        positions: (token,) the positions, in the measured prompt, of the tokens that change with the image.
        footprints: Their footprints.
        confidence: (token,) the probability that the footprint is right: that its intersection over union with the true
            one is at least 0.5 or, for a token without footprint, that the true one has none either
            (`interp.models.measured.consistency.probability`).
        raw: (token, 4) the rectangle of each token by itself, without a lattice, xyxy in pixels.
        views: The lattices.
        stray: The share of tokens outside every lattice, or in one of a single row or column.
        n_images: The number of pictures that were run.
        lean: How much more tokens see on one side of their cells than on the other, from 0 to 1 (`…consistency.lean`).
        least: The least mean confidence of any view, from 0 to 1 (`interp.models.measured.consistency.least_trust`).
        line: The least mean confidence of any row or column, from 0 to 1 (`…consistency.line_trust`).
        spanned: How much of the image the grids of each size of cell span, from 0 to 1 (`…consistency.spanned`).
        agreement: How well two placements of each grid agree, from 0 to 1 (`…consistency.agreement`).
        kept: The share of what the tokens' own rectangles explain that their cells explain too, from 0 to 1
            (`…consistency.kept`).
    """

    size: Size
    positions: Int[np.ndarray, " token"]
    footprints: Footprints
    confidence: Float[np.ndarray, " token"]
    raw: Float[np.ndarray, "token 4"]
    views: tuple[View, ...]
    stray: float
    n_images: int
    lean: float = 0.0
    least: float = 1.0
    line: float = 1.0
    spanned: float = 1.0
    agreement: float = 1.0
    kept: float = 1.0

    @property
    def trust(self) -> float:
        """The mean confidence of all tokens, the expected share of right ones; 0 where none has a footprint."""
        seen = ~np.isnan(self.footprints.boxes[:, 0])
        return float(self.confidence.mean()) if seen.any() else 0.0

    @property
    def sure(self) -> bool:
        """Whether the footprints can be used."""
        return not self.doubts

    @property
    def consistent(self) -> bool:
        """Whether every grid by itself is one that can be used."""
        grids = (
            self.least >= _VIEW
            and self.line >= _ROW
            and self.spanned >= _SPANS
            and self.agreement >= self._agrees
        )
        return grids and self.kept >= _KEEPS

    @property
    def _agrees(self) -> float:
        """How well two placements of each grid have to agree."""
        return _AGREES if self.kept >= _MUCH else _AGREES_WELL

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against using the footprints, each with its limit; empty if they can be used."""
        rules = (
            (
                self.trust >= LEAST,
                f"{self.trust:.0%} of its {len(self.raw)} tokens are expected to be right "
                f"(at least {LEAST:.0%} is needed)",
            ),
            (self.stray <= _STRAY, f"{self.stray:.0%} of them lie in no grid (at most {_STRAY:.0%} may)"),
            (
                self.lean < _LEANS,
                f"beside its cell a token sees {self.lean:.0%} more on one side than on the other "
                f"(less than {_LEANS:.0%} is needed), as tokens do that join two towers",
            ),
            (
                self.least >= _VIEW,
                f"of the tokens of one view {self.least:.0%} are expected to be right (at least {_VIEW:.0%} is needed)",
            ),
            (
                self.line >= _ROW,
                f"of the tokens of one row or column {self.line:.0%} are expected to be right "
                f"(at least {_ROW:.0%} is needed)",
            ),
            (
                self.spanned >= _SPANS,
                f"grids with cells of one size span {self.spanned:.0%} of the image (at least {_SPANS:.0%} is needed)",
            ),
            (
                self.agreement >= self._agrees,
                f"two ways of placing a grid agree to {self.agreement:.0%} (at least {self._agrees:.0%} is needed)",
            ),
            (
                self.kept >= _KEEPS,
                f"footprints explain {self.kept:.0%} of what each token's own rectangle does "
                f"(at least {_KEEPS:.0%} is needed)",
            ),
        )
        return tuple(text for holds, text in rules if not holds)

    @property
    def layout(self) -> str:
        """The lattices in words, such as "4×4 by rows, 8×8 by rows" (rows×columns)."""
        return ", ".join(
            f"{view.shape[0]}×{view.shape[1]} by {view.lattices[0].order}"
            + (f" in {len(view.lattices)} parts" if len(view.lattices) > 1 else "")
            for view in self.views
        )

    def check(self) -> None:
        """Raises `ModelError`, with each token's numbers, unless the footprints can be used."""
        if self.sure:
            return
        width, height = self.size
        lines = [
            f"{i}: [{', '.join('–' if np.isnan(edge) else f'{edge:.0f}' for edge in box)}] {c:.2f}"
            for i, (box, c) in enumerate(zip(self.raw, self.confidence, strict=True))
        ]
        shown = "; ".join(lines[:40]) + (f"; and {len(lines) - 40} more" if len(lines) > 40 else "")
        raise ModelError(
            f"the footprints of a {width}×{height} image could not be measured reliably: {'; '.join(self.doubts)}. "
            f"Grids found: {self.layout or 'none'}. Token by token, box in pixels and confidence: {shown}. A tower "
            "that mixes places strongly and tokens that stand for no place look like this. Write an adapter "
            "(docs/new_model.md), or measure a larger image."
        )


@dataclass(frozen=True, eq=False)
class Scan:
    """What the pictures of a scan changed.

    Attributes:
        size: (width, height) of the image.
        positions: (token,) the positions, in the measured prompt, of the tokens that change with the image.
        codes: The code of the x axis and the code of the y axis.
        energies: For each texture and axis (token, picture), the squared change of a token's embedding.
        n_images: The number of pictures that were run.
    """

    size: Size
    positions: Int[np.ndarray, " token"]
    codes: tuple[Code, Code]
    energies: list[list[np.ndarray]]
    n_images: int


def measure(embedder: Embedder, sizes: Sequence[Size], which: int = 0) -> Measurement:
    """Returns the footprints of the tokens of image `which` of a sample with images of these sizes: `scan`, `decoded`.

    Raises:
        ModelError: As `scan`.
    """
    return decoded(scan(embedder, sizes, which))


def scan(embedder: Embedder, sizes: Sequence[Size], which: int = 0) -> Scan:
    """Runs the pictures that tell where the tokens of image `which` of a sample with images of these sizes look.

    Args:
        embedder: The model with its processor.
        sizes: (width, height) of each image. The others stay as they are.
        which: The image that is painted.

    Raises:
        ModelError: No token changes with the image.
    """
    size, frames = sizes[which], [texture(one, _SEED + 90 + i) for i, one in enumerate(sizes)]

    def sample(picture: np.ndarray) -> list[np.ndarray]:
        return [picture if i == which else frame for i, frame in enumerate(frames)]

    pairs = [(texture(size, _SEED + 2 * k), texture(size, _SEED + 2 * k + 1)) for k in range(_PAIRS)]
    still = list(embedder(sample(picture) for pair in pairs for picture in pair))
    positions = np.flatnonzero((still[0] != still[1]).any(axis=1))
    if not len(positions):
        raise ModelError(
            "nothing that enters the language model changes with the image: the prompt holds no image token, or the "
            "image goes elsewhere (cross-attention). Such a model has no footprints to measure."
        )
    token = min(float(np.sqrt(size[0] * size[1] / len(positions))), min(size) / 2)
    codes = stripes(size[0], token), stripes(size[1], token)
    energies = [
        [
            _energies(
                embedder, (sample(p) for p in painted(*pair, codes[a], a)), still[2 * k], positions, codes[a]
            )
            for a in (0, 1)
        ]
        for k, pair in enumerate(pairs)
    ]
    return Scan(size, positions, codes, energies, _PAIRS * (2 + codes[0].n + codes[1].n))


def _energies(
    embedder: Embedder, samples: object, still: np.ndarray, positions: np.ndarray, code: Code
) -> Float[np.ndarray, "token picture"]:
    """Returns each token's squared change with each picture.

    A change that most tokens share is leakage, through attention to the whole image. Where few tokens see the stripes
    themselves, the median over tokens is that leakage, and it is subtracted.
    """
    found = []
    for moved, sparse in zip(embedder(samples), code.sparse, strict=True):  # pyright: ignore[reportArgumentType]
        change = (moved - still)[positions]
        change = change - np.median(change, axis=0) if sparse and len(positions) > 4 else change
        found.append((change**2).sum(axis=1))
    return np.stack(found, axis=1).astype(float)


def decoded(found: Scan) -> Measurement:
    """Returns the footprints that explain a scan.

    Where the tokens were cut into several grids, a grid through all of them is tried too, because padding may have cut
    a grid. Footprints whose grids are consistent are preferred, then the likelier ones.
    """
    size, positions, codes, energies = found.size, found.positions, found.codes, found.energies
    gaps, tried, seen = np.diff(positions) > 1, [], _seen(energies)
    for power in _POWERS:
        single = [read_off(_profiles([one], codes, power)) for one in energies]
        profiles = _profiles(energies, codes, power)
        raw = read_off(profiles)
        weight = raw.explained**4 * _agreement(single, raw) * seen**2
        parts = cut_into_lattices(raw.boxes, weight, gaps, size)
        tried.append((_cost(parts, weight), profiles, raw, weight, parts))
    _, profiles, raw, weight, parts = min(tried, key=lambda one: one[0])
    cut = [part for part in parts if isinstance(part, Lattice)]
    whole = single_lattices(raw.boxes, weight, gaps, size) if len(parts) > 1 else []
    made = [_made(found, profiles, raw, weight, seen, grids) for grids in (cut, *([one] for one in whole))]
    return max(made, key=lambda one: (one.stray <= _STRAY, one.consistent, one.trust))


def _made(
    found: Scan,
    profiles: Profiles,
    raw: Raw,
    weight: Float[np.ndarray, " token"],
    seen: Float[np.ndarray, " token"],
    lattices: Sequence[Lattice],
) -> Measurement:
    """Returns the measurement with these grids."""
    n = len(found.positions)
    views = views_of(lattices, profiles, weight)
    footprints = _footprints(views, n, found.size)
    stray = 1 - sum(one.stop - one.start for one in lattices if min(one.shape) > 1) / n
    confidence = probability(profiles, footprints.boxes, seen)
    return Measurement(
        found.size,
        found.positions,
        footprints,
        confidence,
        raw.boxes,
        tuple(views),
        _small(stray),
        found.n_images,
        lean(views, found.codes, found.energies),
        least_trust(views, confidence),
        line_trust(views, confidence),
        spanned(views, footprints.boxes),
        agreement(views, footprints.boxes, found.size),
        kept(profiles, footprints.boxes, raw, _change(found.energies)),
    )


def _seen(energies: Sequence[Sequence[np.ndarray]]) -> Float[np.ndarray, " token"]:
    """Returns how much each token changes with the image, as a share of the median token, 1 at most.

    A token that sees padding changes little, by leakage, but always at the same place.
    """
    change = _change(energies)
    return np.minimum(change / np.median(change), 1)


def _change(energies: Sequence[Sequence[np.ndarray]]) -> Float[np.ndarray, " token"]:
    """Returns each token's squared change in the mean over pictures, summed over textures and axes."""
    return np.sum([one[a].mean(axis=1) for one in energies for a in (0, 1)], axis=0)


def _small(stray: float) -> float:
    return 0.0 if stray < 1e-9 else stray


def _profiles(energies: list[list[np.ndarray]], codes: tuple[Code, Code], power: float) -> Profiles:
    found = [sum(one[a] for one in energies) ** power for a in (0, 1)]
    return Profiles(codes, tuple(e / (e.mean(axis=1, keepdims=True) + 1e-20) for e in found))  # pyright: ignore[reportArgumentType]


def _agreement(single: Sequence[Raw], raw: Raw) -> Float[np.ndarray, " token"]:
    """Returns how well a token's place agrees between the textures: 1 for the same, exp(−4) a cell apart."""
    first, second = ((one.boxes[:, :2] + one.boxes[:, 2:]) / 2 for one in (single[0], single[-1]))
    cell = raw.boxes[:, 2:] - raw.boxes[:, :2]
    cell = np.maximum(cell, np.median(cell, axis=0) / 2)
    return np.exp(-(((np.abs(first - second) / cell).max(axis=1) / 0.5) ** 2))


def _cost(parts: Sequence[Lattice | tuple[int, int]], weight: np.ndarray) -> float:
    """Returns how badly the lattices fit, in mean tokens a cell off, with something for each lattice."""
    share = weight / weight.mean()
    return sum(
        3 + 6 * (min(part.shape) == 1) + float((share[part.start : part.stop] * part.loss).sum())
        if isinstance(part, Lattice)
        else 10.0 * (part[1] - part[0])
        for part in parts
    )


def _footprints(views: Sequence[View], n: int, size: Size) -> Footprints:
    boxes, names = np.full((n, 4), np.nan), np.full(n, "", dtype="<U16")
    for number, view in enumerate(views):
        boxes[view.tokens] = laid(view, size)
        names[view.tokens] = f"view {number}" if len(views) > 1 else ""
    whole = len(views) == 1 and len(views[0].lattices) == 1 and len(views[0].tokens) == n
    grid = views[0].shape if whole and views[0].lattices[0].order == "rows" else None
    return Footprints(boxes, grid, names, np.zeros(n, int))
