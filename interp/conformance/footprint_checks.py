"""Checks of the token map: are its positions the image tokens, and do their footprints match the pixels?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from interp.conformance.check_result import Measured
from interp.conformance.subject import Subject, inner_box, places, repainted
from interp.errors import ModelError
from interp.inputs.footprints import Footprints, check_layout, covered_area
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing import Mllm

__all__ = [
    "LIMITS",
    "Groups",
    "Probed",
    "choose",
    "groups_of",
    "image_tokens",
    "locality",
    "probe",
    "several_images",
    "tiling",
]

_GAP = 0.99
"""In cells; a gap of one cell means that a token is missing."""


def image_tokens(subject: Subject) -> Measured:
    """Checks that the picture changes the features of the map's tokens; the text's embeddings must stay bit-equal.

    Tokens without area (newlines, class tokens) may change or not.
    """
    wrong, total, where = 0, 0, []
    for picture in subject.pictures:
        other = subject.picture((picture.shape[1], picture.shape[0]), subject.seed + 91)
        batch = subject.mllm.encode([Sample(image, "where is it?") for image in (picture, other)])
        tokens, shown = batch.tokens[0], places(subject.mllm, batch)[0]
        embeddings = subject.mllm.embeddings(batch)
        text = (embeddings[0] != embeddings[1]).any(dim=-1).cpu().numpy()[tokens.positions("text")]
        features = subject.mllm.image_features(batch)
        moved = (features[0] != features[1]).any(dim=-1).cpu().numpy()
        area = ~np.isnan(shown.footprints).any(axis=1)
        bad = int((~moved[area]).sum() + text.sum())
        wrong, total = wrong + bad, total + shown.n
        where += [f"{bad} in a {_size(picture)} image"] if bad else []
    detail = f"{total} image tokens in {len(subject.pictures)} images change with the picture"
    return Measured(wrong, "positions that disagree with the map", 0, "; ".join(where) or detail)


def tiling(subject: Subject) -> Measured:
    """Checks that footprints of a view do not overlap, that no token is missing, and that a single grid is row-major.

    Strips narrower than a cell may be uncovered, because a tower leaves out pixels that do not fill a patch.

    Raises:
        ModelError: `check_layout` found an error in the footprints.
    """
    gaps, shares = [0.0], []
    for picture in subject.pictures:
        tokens = places(subject.mllm, subject.mllm.encode(Sample(picture, "where is it?")))[0]
        check_layout(
            Footprints(tokens.footprints, tokens.grid, tokens.views, tokens.image_index), tokens.sizes
        )
        for boxes in _views(tokens):
            gaps.append(_widest_gap(boxes))
            shares.append(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).sum() / np.prod(tokens.sizes[0]))
    detail = (
        f"views cover from {min(shares):.0%} to {max(shares):.0%} of their image"
        if shares
        else "no token has an area"
    )
    return Measured(max(gaps), "widest gap in a view, in cells", _GAP, detail, holds=bool(shares))


def _widest_gap(boxes: Float[np.ndarray, "token 4"]) -> float:
    """Returns the widest gap between the footprints of one view, across or down, in cells."""
    cell = np.median(boxes[:, 2:] - boxes[:, :2], axis=0)
    xs, ys = (np.unique(np.round(boxes[:, [axis, axis + 2]], 6)) for axis in (0, 1))
    x0, y0 = (grid.reshape(-1) for grid in np.meshgrid(xs[:-1], ys[:-1]))
    x1, y1 = (grid.reshape(-1) for grid in np.meshgrid(xs[1:], ys[1:]))
    pieces = np.stack([x0, y0, x1, y1], axis=1)
    sides = pieces[:, 2:] - pieces[:, :2]
    free = covered_area(pieces, boxes) < 0.5 * sides.prod(axis=1)
    return float((sides / cell).min(axis=1)[free].max(initial=0.0))


def _views(tokens: TokenMap) -> list[np.ndarray]:
    """Returns the footprints of each view that has any."""
    area = ~np.isnan(tokens.footprints).any(axis=1)
    return [tokens.footprints[area & (tokens.views == view)] for view in np.unique(tokens.views[area])]


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}×{picture.shape[0]}"


Groups: TypeAlias = dict[str, Int[np.ndarray, " _"]]
"""Name of a group → indices of its probes."""

_SLIVER = 0.3
"""Share of the median footprint of the view; smaller footprints, which are cut at a border, are not probed."""


def choose(
    tokens: TokenMap, n: int, seed: int, image: int = 0, per_line: int = 3
) -> Int[np.ndarray, " probe"]:
    """Chooses the tokens of one image to probe: about `n` of each view at most, spread over its rows and columns.

    In a view with many rows or columns, each of them gets `per_line` probes.
    """
    areas = np.prod(tokens.footprints[:, 2:] - tokens.footprints[:, :2], axis=1)
    mine = (areas > 0) & (tokens.image_index == image)
    found = [np.empty(0, int)]
    for view in np.unique(tokens.views[mine]):
        here = np.flatnonzero(mine & (tokens.views == view))
        here = here[areas[here] >= _SLIVER * np.median(areas[here])]
        rows, columns = (_lines(tokens.footprints[here, edge]) for edge in (1, 0))
        budget = max(n, per_line * max(len(np.unique(rows)), len(np.unique(columns))))
        found.append(here[_spread(rows, columns, budget, seed)])
    return np.sort(np.concatenate(found))


def _spread(
    rows: Int[np.ndarray, " token"], columns: Int[np.ndarray, " token"], n: int, seed: int
) -> Int[np.ndarray, " chosen"]:
    """Picks tokens one after another from the rows and columns that have the fewest so far."""
    if len(rows) <= n:
        return np.arange(len(rows))
    order = np.random.default_rng(seed).random(len(rows))
    in_row, in_column = np.zeros(rows.max() + 1), np.zeros(columns.max() + 1)
    taken = np.zeros(len(rows), bool)
    for _ in range(n):
        cost = in_row[rows] + in_column[columns] + 0.5 * order
        token = int(np.where(taken, np.inf, cost).argmin())
        taken[token] = True
        in_row[rows[token]] += 1
        in_column[columns[token]] += 1
    return np.flatnonzero(taken)


def groups_of(tokens: TokenMap, probes: Int[np.ndarray, " probe"]) -> Groups:
    """Returns the probes of each row, column and run of tokens of one view and image.

    A run is a part of the sequence in which footprints never move up. In families that order tokens tile by tile it is
    a tile; in others it is the whole view.
    """
    boxes = tokens.footprints
    view = np.flatnonzero(
        (tokens.views == tokens.views[probes[0]])
        & (tokens.image_index == tokens.image_index[probes[0]])
        & ~np.isnan(boxes).any(axis=1)
    )
    at = np.searchsorted(view, probes)
    up = np.diff(boxes[view, 1]) < -1e-6
    runs = np.concatenate([[0], np.cumsum(up)])[at]
    lines = {"row": _lines(boxes[view, 1])[at], "column": _lines(boxes[view, 0])[at], "run": runs}
    return {
        f"{name} {number}": np.flatnonzero(numbers == number)
        for name, numbers in lines.items()
        for number in np.unique(numbers)
    }


def _lines(edges: np.ndarray) -> Int[np.ndarray, " token"]:
    """Returns the number of the row or column that begins at each edge."""
    return np.unique(np.round(edges, 6), return_inverse=True)[1].reshape(-1)


_QUESTION = "where is it?"
_BYTES = 2**27
"""Approximate size of the embeddings held at once."""

_PER_LINE = {False: 3, True: 4}
"""Whether the weights are trained → how many probes each row and column gets. Some probes of a trained tower miss by
chance; in one line, four hardly ever do."""

LIMITS = {False: (0.9, 0.5, 2), True: (0.7, 0.25, 3)}
"""Whether the weights are trained → the share of probes that must hit, the share that must hit in each row, column and
run of tokens, and the smallest number of probes by which a group is judged."""


@dataclass(frozen=True, eq=False)
class Probed:
    """The results of the probes of one picture.

    Attributes:
        name: The picture and the view.
        hits: For each probe, whether the token of that view that changed most lies in the painted box.
        groups: The probes of each row, column and run.
    """

    name: str
    hits: Bool[np.ndarray, " probe"]
    groups: Groups


def locality(subject: Subject) -> Measured:
    """Checks that the token that changes most when a box is painted over has a footprint that meets the box.

    The change of a token is the norm of the difference of its features (`Mllm.image_features`). The median over all
    probes is subtracted, which removes what changes with any probe, and the result is divided by the change when the
    whole picture changes, which makes tokens comparable. Every view of the picture is judged separately, and so are
    each row, column and run of tokens, so that two exchanged tiles or one reversed row do not vanish in the average.
    """
    share, in_group, least = LIMITS[subject.trained]
    found = [p for picture in subject.pictures for p in probe(subject, picture)]
    hits = np.concatenate([p.hits for p in found]) if found else np.zeros(0, bool)
    bad = [
        (int((~p.hits[at]).sum()), f"{p.name}, {name}: {int(p.hits[at].sum())} of {len(at)}")
        for p in found
        for name, at in p.groups.items()
        if len(at) >= least and p.hits[at].mean() < in_group
    ]
    detail = (
        f"{int(hits.sum())} of {len(hits)} pairs of a probe and a view in {len(subject.pictures)} images hit"
    )
    if bad:
        worst = [text for _, text in sorted(bad, key=lambda one: -one[0])[:3]]
        detail += f"; below {in_group:g} in {len(bad)} groups, such as {'; '.join(worst)}"
    value = float(hits.mean()) if len(hits) else float("nan")
    return Measured(value, "share of probes that hit", share, detail, at_least=True, holds=not bad)


def probe(subject: Subject, picture: np.ndarray) -> list[Probed]:
    """Paints over the pixels of the chosen tokens one after another; returns one `Probed` per pair of views."""
    sample = Sample(picture, _QUESTION)
    tokens = places(subject.mllm, subject.mllm.encode(sample))[0]
    chosen = choose(tokens, subject.probes, subject.seed, per_line=_PER_LINE[subject.trained])
    if not len(chosen):
        return []
    boxes = [inner_box(tokens.footprints[token]) for token in chosen]
    moved = movement(subject, [picture], [[repainted(picture, box)] for box in boxes])
    found = []
    for view in np.unique(tokens.views[~np.isnan(tokens.footprints).any(axis=1)]):
        candidates = np.flatnonzero(tokens.views == view)
        winners = candidates[moved[:, candidates].argmax(axis=1)]
        hits = np.array([_meets(tokens, int(w), box) for w, box in zip(winners, boxes, strict=True)])
        for source in np.unique(tokens.views[chosen]):
            own = tokens.views[chosen] == source
            name = f"{_size(picture)} image" + (f", {source} → {view}" if view or source else "")
            found.append(Probed(name, hits[own], groups_of(tokens, chosen[own])))
    return found


def movement(
    subject: Subject, pictures: Sequence[np.ndarray], painted: Sequence[Sequence[np.ndarray]]
) -> Float[np.ndarray, "probe token"]:
    """Returns the change of each image token of a sample with each probe; `locality` defines it.

    Args:
        subject: The model under test.
        pictures: The sample's pictures.
        painted: For each probe the pictures of the sample, one of them painted.
    """
    mllm = subject.mllm
    before = next(embedded(mllm, [pictures]))
    sizes = [(one.shape[1], one.shape[0]) for one in pictures]
    whole = [[subject.picture(size, subject.seed + 101 + i) for size in sizes] for i in range(3)]
    reach = np.mean([_distance(e, before) for e in embedded(mllm, whole)], axis=0)
    moved = np.stack([_distance(e, before) for e in embedded(mllm, painted)])
    moved = np.maximum(moved - (np.median(moved, axis=0) if len(moved) > 4 else 0), 0)
    return np.divide(moved, reach, out=np.zeros_like(moved), where=reach > 1e-6 * reach.max())


def embedded(
    mllm: Mllm, pictures: Sequence[Sequence[np.ndarray]]
) -> Iterator[Float[torch.Tensor, "token hidden"]]:
    """Yields the features of each sample's image tokens; runs a few samples at a time."""
    at_once = 1
    start = 0
    while start < len(pictures):
        group = pictures[start : start + at_once]
        batch = mllm.encode([Sample(images=list(images), question=_QUESTION) for images in group])
        features = mllm.image_features(batch)
        yield from (one.float() for one in features)
        start += len(group)
        at_once = int(np.clip(_BYTES // (4 * features[0].numel()), 1, 16))


def several_images(subject: Subject) -> Measured:
    """Checks that painting in one of two pictures changes most a token of that picture, at the painted box.

    Where a sample may show one image alone, two must be refused.
    """
    if not getattr(subject.mllm.adapter, "several_images", True):
        return _one_image(subject)
    pictures = [subject.pictures[0], subject.pictures[1 % len(subject.pictures)]]
    tokens = places(subject.mllm, subject.mllm.encode(Sample(images=pictures, question=_QUESTION)))[0]
    probes = [
        (image, inner_box(tokens.footprints[token]))
        for image in (0, 1)
        for token in choose(tokens, 8, subject.seed, image=image)
    ]
    painted = [
        [repainted(one, box) if i == image else one for i, one in enumerate(pictures)]
        for image, box in probes
    ]
    winners = movement(subject, pictures, painted).argmax(axis=1) if probes else []
    hits = [
        int(tokens.image_index[winner]) == image and _meets(tokens, int(winner), box)
        for winner, (image, box) in zip(winners, probes, strict=True)
    ]
    return Measured(
        float(np.mean(hits)) if hits else float("nan"),
        "share of probes that change most a token of their own image, at the painted box",
        LIMITS[subject.trained][0],
        f"{sum(hits)} of {len(hits)} probes hit in a sample of two images",
        at_least=True,
    )


def _one_image(subject: Subject) -> Measured:
    try:
        subject.mllm.encode(Sample(images=[subject.pictures[0]] * 2, question=_QUESTION))
    except ModelError as error:
        return Measured(0, "samples of two images that are taken", 0, f"one image a sample: {error}")
    return Measured(1, "samples of two images that are taken", 0, "the adapter says several_images=False")


def _distance(
    after: Float[torch.Tensor, "token hidden"], before: Float[torch.Tensor, "token hidden"]
) -> Float[np.ndarray, " token"]:
    return (after - before).norm(dim=-1).cpu().numpy().astype(float)


def _meets(tokens: TokenMap, token: int, box: Sequence[int]) -> bool:
    """Whether a token's footprint shares area with a box; never for a token without area."""
    return bool(covered_area(np.array([box], float), tokens.footprints[[token]])[0] > 0)
