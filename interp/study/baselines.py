"""Two baselines for every sample's score: the same map against other boxes, another map against the same boxes.

- `shuffled_boxes`: the sample's own map against another sample's boxes, of another group where the data allow
  it. A map that only shows where boxes usually lie scores the same against both.
- `centre_prior`: a map that does not depend on the model, against the sample's own boxes: a Gaussian over each
  image with its peak at the centre and σ = 0.25 of the image's side, per axis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from interp.indicators.baseline_maps import CentrePrior, centre_prior
from interp.inputs.masks import Mask
from interp.inputs.sample import Box, Sample

__all__ = [
    "CENTRE_SIGMA", "CONTROLS", "centre_prior", "has_one_image", "moved_boxes", "moved_masks", "partners",
    "with_image_of",
]  # fmt: skip

CONTROLS = ("boxes", "shuffled_boxes", "centre_prior")
CENTRE_SIGMA = CentrePrior().sigma


def partners(
    groups: Sequence[str],
    usable: Sequence[bool],
    pictures: Sequence[Sequence[str]] | None = None,
    *,
    seed: int = 0,
) -> tuple[int | None, ...]:
    """For every sample the index of the one whose boxes it borrows; None where there is none.

    Groups that share a picture count as one. The usable samples are put in random order, those of one group side by
    side, and each borrows from the sample m places further on, with m the size of the largest group: no sample borrows
    from its own group, and each lends once. When one group holds more than half of the samples that is impossible:
    samples then borrow from the next one of another group, so that some lend more than once; with a single group from
    the next one with other pictures. Nothing is borrowed from a sample that shows one of the sample's own pictures.

    Args:
        groups: The group of each sample.
        usable: Whether each sample can lend and borrow.
        pictures: The images of each sample, by content; by default each sample has its own.
        seed: Decides the order.
    """
    shown = [(str(index),) for index in range(len(groups))] if pictures is None else pictures
    random = np.random.default_rng(seed)
    able = [index for index in range(len(groups)) if usable[index]]
    joined = _joined(groups, shown)
    names = sorted({joined[index] for index in able})
    group_rank = dict(zip(names, random.permutation(len(names)).tolist(), strict=True))
    place = dict(zip(able, random.permutation(len(able)).tolist(), strict=True))
    order = sorted(able, key=lambda index: (group_rank[joined[index]], place[index]))
    largest = max(Counter(joined[index] for index in able).values(), default=0)
    found: list[int | None] = [None] * len(groups)
    if 2 * largest <= len(order):
        for position, index in enumerate(order):
            found[index] = order[(position + largest) % len(order)]
        return tuple(found)
    twice, half = order * 2, len(order) // 2
    tests = _tests(groups, joined, shown, able)
    for position, index in enumerate(order):
        start = (position + half) % len(order)
        others = twice[start : start + len(order)]
        found[index] = next((o for test in tests for o in others if o != index and test(index, o)), None)
    return tuple(found)


def _joined(groups: Sequence[str], pictures: Sequence[Sequence[str]]) -> list[str]:
    """The group of each sample after joining groups that share a picture, named by the first of their names."""
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = group = parent[parent[group]]
        return group

    owner: dict[str, str] = {}
    for group, shown in zip(groups, pictures, strict=True):
        for picture in shown:
            one, other = sorted((root(group), root(owner.setdefault(picture, group))))
            parent[other] = one
    return [root(group) for group in groups]


def _tests(
    groups: Sequence[str], joined: Sequence[str], pictures: Sequence[Sequence[str]], able: Sequence[int]
) -> list[Callable[[int, int], bool]]:
    """Whether one sample may borrow from another, the best reason first; tests that no pair can pass are left out."""

    def apart(one: int, other: int) -> bool:
        return set(pictures[one]).isdisjoint(pictures[other])

    tests: list[tuple[Sequence[Any], Callable[[int, int], bool]]] = [
        (joined, lambda one, other: joined[one] != joined[other]),
        (groups, lambda one, other: groups[one] != groups[other] and apart(one, other)),
        (pictures, apart),
    ]
    return [test for values, test in tests if len({str(values[index]) for index in able}) > 1]


def moved_boxes(
    boxes: Sequence[Box],
    sizes: Sequence[tuple[int, int]],
    new_sizes: Sequence[tuple[int, int]],
    *,
    video: bool = False,
) -> tuple[Box, ...]:
    """Boxes at the same relative place in other images; sizes are (width, height).

    A box of image i lands on image i, or on the last one when there are fewer. So do those of frames; `video` says
    whether the new images are frames.
    """
    moved = []
    for box in boxes:
        image = min(box.image, len(new_sizes) - 1)
        (width, height), (new_width, new_height) = sizes[box.image], new_sizes[image]
        x, y = new_width / width, new_height / height
        moved.append(Box(box.x0 * x, box.y0 * y, box.x1 * x, box.y1 * y, image, pixels=True))
    return tuple(replace(box, frame=box.image) if video else box for box in moved)


def moved_masks(masks: Sequence[Mask], new_sizes: Sequence[tuple[int, int]]) -> tuple[Mask, ...]:
    """Masks stretched over other images, by nearest neighbours; sizes are (width, height). Images as `moved_boxes`.

    A mask that is so thin that no pixel of the smaller image falls into it is left out.
    """
    moved = []
    for mask in masks:
        image = min(mask.image, len(new_sizes) - 1)
        inside = Image.fromarray(mask.inside).resize(new_sizes[image], Image.Resampling.NEAREST)
        if inside.getbbox():
            moved.append(Mask(np.asarray(inside), image))
    return tuple(moved)


def has_one_image(sample: Sample) -> bool:
    """Whether a sample shows one image and no video, so that its image can be lent and replaced."""
    return sample.video is None and len(sample.images) == 1


def with_image_of(sample: Sample, lender: Sample) -> Sample:
    """The sample's question on the lender's image, without boxes and masks, which belong to its own image."""
    return sample.replace(image=lender.images[0], boxes=(), masks=(), id=None, group=None)
