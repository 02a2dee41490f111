"""The check that finds wrong footprints: paint over one token's pixels and see which tokens move."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from interp.conformance.pictures import inner_box, repainted, smooth
from interp.conformance.probes import Groups, choose, groups_of
from interp.conformance.result import Measured
from interp.conformance.subject import Subject
from interp.footprints import covered_area
from interp.sample import Sample
from interp.tokens import TokenMap
from interp.tracing import Mllm

__all__ = ["LIMITS", "Probed", "locality", "probe", "several_images"]

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
