"""Whether there are as many image tokens as the map says, where it says, and whether they tile the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from interp.conformance.check_result import Measured
from interp.conformance.subject import Subject, inner_box, repainted, smooth
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
"""Cells: a gap of one cell is a token that is missing."""


def image_tokens(subject: Subject) -> Measured:
    """Positions that move with the picture are those of the map; all others stay bit-equal.

    Tokens without area (newlines, class tokens) may do either.
    """
    wrong, total, where = 0, 0, []
    for picture in subject.pictures:
        other = smooth((picture.shape[1], picture.shape[0]), subject.seed + 91)
        batch = subject.mllm.encode([Sample(image, "where is it?") for image in (picture, other)])
        tokens = batch.tokens[0]
        embeddings = subject.mllm.embeddings(batch)
        moved = (embeddings[0] != embeddings[1]).any(dim=-1).cpu().numpy()
        area = ~np.isnan(tokens.footprints).any(axis=1)
        text = np.setdiff1d(np.arange(tokens.length), tokens.image)
        bad = int((~moved[tokens.image[area]]).sum() + moved[text].sum())
        wrong, total = wrong + bad, total + tokens.n
        where += [f"{bad} in a {_size(picture)} image"] if bad else []
    detail = f"{total} image tokens in {len(subject.pictures)} images take what the picture changes"
    return Measured(wrong, "positions that disagree with the map", 0, "; ".join(where) or detail)


def tiling(subject: Subject) -> Measured:
    """In each view, footprints do not overlap and no token is missing; a single grid runs row-major.

    Strips narrower than a cell may stay free: a tower leaves out the pixels that fill no patch.

    Raises:
        ModelError: From `check_layout`, naming what is wrong.
    """
    gaps, shares = [0.0], []
    for picture in subject.pictures:
        tokens = subject.mllm.encode(Sample(picture, "where is it?")).tokens[0]
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
    """How much of a cell, across or down, fits between the footprints of one view."""
    cell = np.median(boxes[:, 2:] - boxes[:, :2], axis=0)
    xs, ys = (np.unique(np.round(boxes[:, [axis, axis + 2]], 6)) for axis in (0, 1))
    x0, y0 = (grid.reshape(-1) for grid in np.meshgrid(xs[:-1], ys[:-1]))
    x1, y1 = (grid.reshape(-1) for grid in np.meshgrid(xs[1:], ys[1:]))
    pieces = np.stack([x0, y0, x1, y1], axis=1)
    sides = pieces[:, 2:] - pieces[:, :2]
    free = covered_area(pieces, boxes) < 0.5 * sides.prod(axis=1)
    return float((sides / cell).min(axis=1)[free].max(initial=0.0))


def _views(tokens: TokenMap) -> list[np.ndarray]:
    """The footprints of each view that has some."""
    area = ~np.isnan(tokens.footprints).any(axis=1)
    return [tokens.footprints[area & (tokens.views == view)] for view in np.unique(tokens.views[area])]


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}×{picture.shape[0]}"


Groups: TypeAlias = dict[str, Int[np.ndarray, " _"]]
"""Name of a group → the probes in it, counted among those given."""

_SLIVER = 0.3
"""Of the median footprint of the view: smaller ones, cut at a border, are not probed."""


def choose(tokens: TokenMap, n: int, seed: int, image: int = 0) -> Int[np.ndarray, " probe"]:
    """Tokens of one image to probe: at most about `n` of each view, spread evenly over its rows and columns.

    A view with many rows or columns gets three probes in each of them.
    """
    areas = np.prod(tokens.footprints[:, 2:] - tokens.footprints[:, :2], axis=1)
    mine = (areas > 0) & (tokens.image_index == image)
    found = [np.empty(0, int)]
    for view in np.unique(tokens.views[mine]):
        here = np.flatnonzero(mine & (tokens.views == view))
        here = here[areas[here] >= _SLIVER * np.median(areas[here])]
        rows, columns = (_lines(tokens.footprints[here, edge]) for edge in (1, 0))
        budget = max(n, 3 * max(len(np.unique(rows)), len(np.unique(columns))))
        found.append(here[_spread(rows, columns, budget, seed)])
    return np.sort(np.concatenate(found))


def _spread(
    rows: Int[np.ndarray, " token"], columns: Int[np.ndarray, " token"], n: int, seed: int
) -> Int[np.ndarray, " chosen"]:
    """One token after another from the rows and columns that have the fewest so far."""
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
    """The probes of each row, each column and each run of tokens, of one view and image.

    A run is a stretch of the sequence in which footprints never go up: a tile, in families that lay out tile
    by tile; else the whole view.
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
    """The number of the row or column each edge begins."""
    return np.unique(np.round(edges, 6), return_inverse=True)[1].reshape(-1)


_QUESTION = "where is it?"
_BYTES = 2**27
"""Embeddings held at once, about."""

LIMITS = {False: (0.9, 0.5, 2), True: (0.7, 0.25, 3)}
"""By whether the weights are trained: the share of probes that must hit; the share in each row, column and run
of tokens; the fewest probes a group is judged by."""


@dataclass(frozen=True, eq=False)
class Probed:
    """What the probes of one picture showed.

    Attributes:
        name: the picture and the view.
        hits: for each probe, whether the token of that view that moved most lies where the paint is.
        groups: the probes of each row, column and run.
    """

    name: str
    hits: Bool[np.ndarray, " probe"]
    groups: Groups


def locality(subject: Subject) -> Measured:
    """The token that moves most when a box is painted over must have a footprint that meets the box.

    How far a token moved is the norm of the change of what enters the first decoder layer, less the median
    over all probes (what moves with anything), over how far it moves when the whole picture changes (what
    moves more than others). The picture's every view is judged on its own, and so is each row, column and run
    of tokens, so that two exchanged tiles or one reversed row cannot hide in the average.
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
    """Paints over the chosen tokens' pixels one after another; one `Probed` per pair of views."""
    sample = Sample(picture, _QUESTION)
    tokens = subject.mllm.encode(sample).tokens[0]
    chosen = choose(tokens, subject.probes, subject.seed)
    if not len(chosen):
        return []
    boxes = [inner_box(tokens.footprints[token]) for token in chosen]
    moved = movement(subject.mllm, picture, boxes, subject.seed)
    size = f"{picture.shape[1]}×{picture.shape[0]}"
    found = []
    for view in np.unique(tokens.views[~np.isnan(tokens.footprints).any(axis=1)]):
        candidates = np.flatnonzero(tokens.views == view)
        winners = candidates[moved[:, candidates].argmax(axis=1)]
        hits = np.array([_meets(tokens, int(w), box) for w, box in zip(winners, boxes, strict=True)])
        for source in np.unique(tokens.views[chosen]):
            own = tokens.views[chosen] == source
            name = f"{size} image" + (f", {source} → {view}" if view or source else "")
            found.append(Probed(name, hits[own], groups_of(tokens, chosen[own])))
    return found


def movement(
    mllm: Mllm, picture: np.ndarray, boxes: Sequence[Sequence[int]], seed: int
) -> Float[np.ndarray, "probe token"]:
    """How far each image token moves with each box, less what it moves with any, over what it can move."""
    size = (picture.shape[1], picture.shape[0])
    before = next(embedded(mllm, [[picture]]))
    whole = [[smooth(size, seed + 101 + i)] for i in range(3)]
    reach = np.mean([_distance(e, before) for e in embedded(mllm, whole)], axis=0)
    painted = [[repainted(picture, box)] for box in boxes]
    moved = np.stack([_distance(e, before) for e in embedded(mllm, painted)])
    moved = np.maximum(moved - (np.median(moved, axis=0) if len(moved) > 4 else 0), 0)
    return np.divide(moved, reach, out=np.zeros_like(moved), where=reach > 1e-6 * reach.max())


def embedded(
    mllm: Mllm, pictures: Sequence[Sequence[np.ndarray]]
) -> Iterator[Float[torch.Tensor, "token hidden"]]:
    """What enters the first decoder layer at each sample's image tokens; a few samples at a time."""
    at_once = 1
    start = 0
    while start < len(pictures):
        group = pictures[start : start + at_once]
        batch = mllm.encode([Sample(images=list(images), question=_QUESTION) for images in group])
        embeddings = mllm.embeddings(batch)
        for i, tokens in enumerate(batch.tokens):
            yield embeddings[i, torch.from_numpy(tokens.image + batch.pad[i]).to(embeddings.device)].float()
        start += len(group)
        at_once = int(np.clip(_BYTES // (4 * embeddings[0].numel()), 1, 16))


def several_images(subject: Subject) -> Measured:
    """With two pictures in a sample, painting in one moves most a token of that one, where the paint is."""
    pictures = [subject.pictures[0], subject.pictures[1 % len(subject.pictures)]]
    sample = Sample(images=pictures, question=_QUESTION)
    tokens = subject.mllm.encode(sample).tokens[0]
    before = next(embedded(subject.mllm, [pictures]))
    hits: list[bool] = []
    for image in (0, 1):
        chosen = choose(tokens, 8, subject.seed, image=image)
        boxes = [inner_box(tokens.footprints[token]) for token in chosen]
        painted = [[repainted(p, box) if i == image else p for i, p in enumerate(pictures)] for box in boxes]
        for box, after in zip(boxes, embedded(subject.mllm, painted), strict=True):
            winner = int(_distance(after, before).argmax())
            hits.append(int(tokens.image_index[winner]) == image and _meets(tokens, winner, box))
    return Measured(
        float(np.mean(hits)) if hits else float("nan"),
        "share of probes that move a token of their own image, where the paint is",
        LIMITS[subject.trained][0],
        f"{sum(hits)} of {len(hits)} probes hit in a sample of two images",
        at_least=True,
    )


def _distance(
    after: Float[torch.Tensor, "token hidden"], before: Float[torch.Tensor, "token hidden"]
) -> Float[np.ndarray, " token"]:
    return (after - before).norm(dim=-1).cpu().numpy().astype(float)


def _meets(tokens: TokenMap, token: int, box: Sequence[int]) -> bool:
    """Whether a token's footprint shares area with a box; never for a token without area."""
    return bool(covered_area(np.array([box], float), tokens.footprints[[token]])[0] > 0)
