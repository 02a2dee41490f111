"""What pages must show, from a result's scores alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tests.golden import pages
from tests.golden.parsed import Figure, Node, Page, Trace, check, near, picture

MIN_GROUPS = 20


def pick(frame: pd.DataFrame, **where: Any) -> pd.DataFrame:
    """The rows whose columns have these values."""
    keep = np.ones(len(frame), bool)
    for name, value in where.items():
        keep &= (frame[name] == value).to_numpy(bool, na_value=False)
    return frame.loc[keep]


def one(frame: pd.DataFrame, **where: Any) -> Any:
    """The only such row."""
    found = pick(frame, **where)
    assert len(found) == 1, f"expected one row with {where}, got {len(found)}"
    return found.iloc[0]


def means(scores: pd.DataFrame, *keys: str) -> dict[Any, float]:
    """Mean value of each key over samples."""
    found = scores.groupby(list(keys) if len(keys) > 1 else keys[0]).value.mean()
    return {key: float(value) for key, value in found.items()}


def group_means(scores: pd.DataFrame, *keys: str) -> dict[Any, dict[Any, float]]:
    """Group → key → mean."""
    return {group: means(part, *keys) for group, part in scores.groupby("group")}


def same_points(trace: Trace, expected: dict[Any, float]) -> None:
    """The line goes through these points and no others."""
    found = trace.points
    assert set(found) == set(expected), f"{trace.name}: x is {sorted(found)}, expected {sorted(expected)}"
    for x, value in expected.items():
        assert near(value, found[x]), f"{trace.name} at {x}: expected {value}, got {found[x]}"


def same_cells(trace: Trace, expected: dict[tuple[Any, Any], float]) -> None:
    """The heat map has these values at (x, y), and is blank elsewhere."""
    found = trace.cells
    assert set(expected) <= set(found)
    for place, value in found.items():
        assert near(expected.get(place, float("nan")), value), (
            f"cell {place}: {expected.get(place)}, got {value}"
        )


def has_band(
    figure: Figure, line: Trace, expected: dict[Any, tuple[float, float]], panel: str | None = None
) -> None:
    """A band of the line's colour lies between these (low, high), and has a width where they differ."""
    found = [band for band, colour in figure.coloured_bands(panel) if colour == line.colour]
    assert any(_same_band(band, expected) for band in found), f"no band of {line.name}: {expected} in {found}"


def _same_band(band: dict[Any, tuple[float, float]], expected: dict[Any, tuple[float, float]]) -> bool:
    if set(band) != set(expected):
        return False
    ends = [(sorted(band[x]), expected[x]) for x in expected]
    return all(near(low, a) and near(high, b) and a <= b for (a, b), (low, high) in ends)


def ends(summary: pd.DataFrame, x: str = "layer") -> dict[Any, tuple[float, float]]:
    """x → (low, high); the interval holds the mean, and has a width unless all values are alike."""
    assert (summary.low <= summary["mean"] + 1e-12).all()
    assert (summary["mean"] <= summary.high + 1e-12).all()
    assert (summary.high > summary.low).any()
    return {row[x]: (row["low"], row["high"]) for _, row in summary.iterrows()}


def check_mean(
    text: str, row: Any, *, digits: int = 2, scale: float = 1.0, mean: float | None = None
) -> None:
    """ "mean [low, high]", or the mean alone where groups are too few."""
    middle = scale * (row["mean"] if mean is None else mean)
    if row["n_groups"] < MIN_GROUPS:
        check(text, middle, digits=digits)
    else:
        check(text, middle, scale * row["low"], scale * row["high"], digits=digits)


def shown_layer(cell: Any, card: Node, index: int) -> int:
    """The layer whose map over the sample's image is nearest to a picture of the card."""
    sample, shown = cell.study.data[index], [picture(node) for node in card.all("img")]
    image = sample.boxes[0].image if sample.boxes else 0
    distances = {}
    for layer in sorted(set(cell.frame("scores").layer)):
        drawn = pages.overlay(sample, cell.tokens(index), cell.maps([index], layer)[index], image)
        both = [
            (np.asarray(drawn.resize(one.size).convert("RGB"), float), np.asarray(one, float))
            for one in shown
        ]
        distances[layer] = min(float(abs(a - b).mean()) for a, b in both)
    return min(distances, key=lambda layer: distances[layer])


def same_figures(page: Page, figures: Mapping[str, Any]) -> None:
    """The page draws the figures that the result gives, and no others; it adds their layouts for a narrow screen."""
    assert set(page.figures) == {f"figure-{name}" for name in figures}
    for name, figure in figures.items():
        drawn = page.figure(name).content
        drawn["layout"].get("meta", {}).pop("narrow", None)
        assert drawn == json.loads(figure.to_json()), name
