"""Scores the maps of samples together: one metric call for all that have equally many tokens, not one for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from interp.metrics import Metric
from interp.metrics.map_and_mask import check
from interp.metrics.metric import Grid

__all__ = ["Scorable", "columns_of", "scored"]


@dataclass(frozen=True, eq=False)
class Scorable:
    """A sample's maps and what they are compared with, over the tokens that have a footprint.

    Attributes:
        maps: (map, token) a map for each layer, and last the centre prior.
        masks: (mask, token) the tokens inside the sample's own boxes or masks, then those inside the boxes or masks
            borrowed from its partner, if it has one.
        grid: The grid of the tokens; None where they have none, or some were left out.
    """

    maps: Float[np.ndarray, "map token"]
    masks: Bool[np.ndarray, "mask token"] | Float[np.ndarray, "mask token"]
    grid: Grid


def columns_of(metrics: Iterable[Metric], one: Scorable) -> list[tuple[str, str]]:
    """The (metric, control) of each column of the sample's scores."""
    borrowed = ("shuffled_boxes",) if len(one.masks) > 1 else ()
    return [(metric.name, control) for metric in metrics for control in ("boxes", "centre_prior", *borrowed)]


def scored(metrics: Sequence[Metric], samples: Sequence[Scorable]) -> list[Float[np.ndarray, "layer column"]]:
    """Each sample's scores at every layer, with the columns of `columns_of`.

    Raises:
        MapError: A metric that does not take these maps, such as one that needs a grid.
    """
    found: dict[int, np.ndarray] = {}
    groups: dict[tuple[tuple[int, ...], tuple[int, ...], Grid], list[int]] = {}
    for i, one in enumerate(samples):
        groups.setdefault((one.maps.shape, one.masks.shape, one.grid), []).append(i)
    for (_, _, grid), at in groups.items():
        maps = np.stack([samples[i].maps for i in at])[:, :, None]
        masks = np.stack([samples[i].masks for i in at])[:, None]
        pair, columns = check(maps, masks), []
        for metric in metrics:
            scores = metric(pair, masks, grid)  # (sample, map, mask)
            own, prior = scores[:, :-1], scores[:, -1:, 0]
            columns += [own[..., 0], np.broadcast_to(prior, own.shape[:2]), *np.moveaxis(own[..., 1:], -1, 0)]
        found.update(zip(at, np.stack(columns, axis=-1), strict=True))
    return [found[i] for i in range(len(samples))]
