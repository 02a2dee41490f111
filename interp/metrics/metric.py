"""The metrics by short name, with their direction, chance level, label and formula."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from interp.errors import StudyError
from interp.inputs.text import meant
from interp.metrics.localisation import (
    attention_ratio,
    attention_ratio_sliding,
    auroc,
    average_precision,
    box_iou,
    js_divergence,
    kl_divergence,
    kl_gain,
    pointing_game,
)

__all__ = ["METRICS", "Metric", "named"]

Grid = tuple[int, int] | None


@dataclass(frozen=True)
class Metric:
    """One metric under its short name, callable as `metric(map, mask, grid)` whether it needs the grid or not.

    Attributes:
        name: The short name, used in studies and in the `metric` column.
        function: The public function, of (map, mask), or of (map, mask, grid) with `needs_grid`.
        better: The better direction, "higher" or "lower".
        chance: The score of a uniform map, in words.
        chance_value: The score of a uniform map if it is one number for all boxes, else None.
        label: The heading of an axis or a table column.
        formula: The definition on one line.
        needs_grid: Whether the function takes the token grid, and so refuses maps without one.
    """

    name: str
    function: Callable[..., np.ndarray]
    better: Literal["higher", "lower"]
    chance: str
    chance_value: float | None
    label: str
    formula: str
    needs_grid: bool = False

    def __call__(self, map: ArrayLike, mask: ArrayLike, grid: Grid = None) -> np.ndarray:
        """The metric of each map (..., token) under the mask, float64 (...); grid is (rows, cols) or None."""
        return self.function(map, mask, grid) if self.needs_grid else self.function(map, mask)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="ar",
            function=attention_ratio,
            better="higher",
            chance="1",
            chance_value=1.0,
            label="attention ratio",
            formula="(Σ_B R / |B|) / (Σ R / N)",
        ),
        Metric(
            name="ar_sliding",
            function=attention_ratio_sliding,
            better="higher",
            chance="1",
            chance_value=1.0,
            label="attention ratio, sliding box",
            formula="Σ_B R / mean of Σ_b R over all placements b of the boxes on the grid",
            needs_grid=True,
        ),
        Metric(
            name="kl",
            function=kl_divergence,
            better="lower",
            chance="ln(N / |B|), so it depends on the boxes' size",
            chance_value=None,
            label="KL divergence (nats)",
            formula="Σ_B (1/|B|) ln((1/|B|) / Â), Â = R / Σ R",
        ),
        Metric(
            name="js",
            function=js_divergence,
            better="lower",
            chance="between 0 and ln 2, depending on the boxes' size",
            chance_value=None,
            label="JS divergence (nats)",
            formula="½ KL(Â ‖ M) + ½ KL(G ‖ M), M = ½ (Â + G), G uniform inside the boxes",
        ),
        Metric(
            name="kl_gain",
            function=kl_gain,
            better="higher",
            chance="0",
            chance_value=0.0,
            label="KL gain over a uniform map (nats)",
            formula="ln(N / |B|) − KL",
        ),
        Metric(
            name="pointing",
            function=pointing_game,
            better="higher",
            chance="|B| / N, the boxes' share of the tokens",
            chance_value=None,
            label="pointing game",
            formula="1 if argmax R is in B, else 0; ties by the share inside",
        ),
        Metric(
            name="iou",
            function=box_iou,
            better="higher",
            chance="|B| / (2N − |B|)",
            chance_value=None,
            label="box IoU",
            formula="|B ∩ T| / |B ∪ T|, T = the |B| largest tokens of R",
        ),
        Metric(
            name="auroc",
            function=auroc,
            better="higher",
            chance="0.5",
            chance_value=0.5,
            label="AUROC",
            formula="P(R inside > R outside) + ½ P(equal)",
        ),
        Metric(
            name="ap",
            function=average_precision,
            better="higher",
            chance="|B| / N, the boxes' share of the tokens",
            chance_value=None,
            label="average precision",
            formula="mean over B of the precision among tokens at least as high",
        ),
    )
}


def named(names: str | Iterable[str]) -> tuple[Metric, ...]:
    """The metrics of these short names, in the order given.

    Raises:
        StudyError: A name that is not in `METRICS`, or the same name twice.
    """
    wanted = tuple(names) if isinstance(names, Iterable) and not isinstance(names, str) else (names,)
    unknown = [name for name in wanted if not isinstance(name, str) or name not in METRICS]
    if unknown:
        raise StudyError(
            f"metrics are named {', '.join(METRICS)}; got {', '.join(map(repr, unknown))}."
            f"{meant(unknown, METRICS)} Use those short names."
        )
    if len(set(wanted)) != len(wanted):
        raise StudyError(f"each metric is named once; got {', '.join(wanted)}. Drop the repeated names.")
    return tuple(METRICS[name] for name in wanted)
