"""Two baselines for every sample's score: the same map against other boxes, another map against the same boxes.

- `shuffled_boxes`: the sample's own map against another sample's boxes, of another group where the data allow
  it. A map that only shows where boxes usually lie scores the same against both.
- `centre_prior`: a map that does not depend on the model, against the sample's own boxes: a Gaussian over each
  image with its peak at the centre and σ = 0.25 of the image's side, per axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from interp.indicators.baseline_maps import CentrePrior, centre_prior
from interp.inputs.sample import Box

__all__ = ["CENTRE_SIGMA", "CONTROLS", "centre_prior", "moved_boxes", "partners"]

CONTROLS = ("boxes", "shuffled_boxes", "centre_prior")
CENTRE_SIGMA = CentrePrior().sigma


def partners(groups: Sequence[str], usable: Sequence[bool], *, seed: int = 0) -> tuple[int | None, ...]:
    """For every sample the index of the one whose boxes it borrows; None where there is none.

    The usable samples are put in random order, those of one group side by side, and each borrows from the
    sample m places further on, with m the size of the largest group: no sample borrows from its own group, and
    each lends once. When one group holds more than half of the samples that is impossible; m is then half their
    number and some samples borrow within their group, but never from themselves.
    """
    random = np.random.default_rng(seed)
    able = [index for index in range(len(groups)) if usable[index]]
    names = sorted({groups[index] for index in able})
    group_rank = dict(zip(names, random.permutation(len(names)).tolist(), strict=True))
    place = dict(zip(able, random.permutation(len(able)).tolist(), strict=True))
    order = sorted(able, key=lambda index: (group_rank[groups[index]], place[index]))
    largest = max((sum(groups[index] == name for index in able) for name in names), default=0)
    step = min(largest, len(order) // 2)
    found: list[int | None] = [None] * len(groups)
    if step:
        for position, index in enumerate(order):
            found[index] = order[(position + step) % len(order)]
    return tuple(found)


def moved_boxes(
    boxes: Sequence[Box], sizes: Sequence[tuple[int, int]], new_sizes: Sequence[tuple[int, int]]
) -> tuple[Box, ...]:
    """Boxes at the same relative place in other images; sizes are (width, height).

    A box of image i lands on image i, or on the last one when there are fewer.
    """
    moved = []
    for box in boxes:
        image = min(box.image, len(new_sizes) - 1)
        (width, height), (new_width, new_height) = sizes[box.image], new_sizes[image]
        x, y = new_width / width, new_height / height
        moved.append(Box(box.x0 * x, box.y0 * y, box.x1 * x, box.y1 * y, image))
    return tuple(moved)
