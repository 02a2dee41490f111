"""Maps and tables of head roles on heads that are given."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.study.head_roles.page import _tables, figures
from tests.golden.parsed import Page

pytestmark = pytest.mark.usefixtures("unchecked")
MEASURES = ("image_share", "sink_share", "position", "entropy", "ablation", "copying")


def heads() -> pd.DataFrame:
    """Twelve heads of two layers; the larger its number the higher each measure, and ablation from −3 to 2.5."""
    at = np.arange(12)
    frame = pd.DataFrame({"data": "a", "layer": at // 6, "head": at % 6})
    frame = frame.assign(
        name=[f"L{layer:02d}H{head:02d}" for layer, head in zip(at // 6, at % 6, strict=True)]
    )
    for name in MEASURES:
        frame[name] = at / 24 if name not in ("ablation", "copying") else at / 2 - 3
        if name != "copying":
            frame[f"{name}_low"], frame[f"{name}_high"] = frame[name] - 0.25, frame[name] + 0.25
    return frame


def result_of(n_groups: int = 24, measures: tuple[str, ...] = MEASURES) -> Any:
    cell = SimpleNamespace(labels={"data": "a"}, key=("a",), measured=True)
    summary = heads()[["data", "layer", "head"]].assign(n_groups=n_groups)
    return SimpleNamespace(
        cells=[cell], axes=("data",), heads=heads(), measures=measures, summary=lambda: summary
    )


def test_scales_of_effects_are_even_around_zero() -> None:
    layout: Any = figures(result_of())["heads"].layout
    ends = [
        (axis.cmin, axis.cmax)
        for axis in (layout["coloraxis"], *(layout[f"coloraxis{n}"] for n in range(2, 7)))
    ]
    assert dict(zip(MEASURES, ends, strict=True)) == {
        "image_share": (0, 1),
        "sink_share": (0, pytest.approx(11 / 24)),
        "position": (0, 1),
        "entropy": (0, 1),
        "ablation": (-3, 3),
        "copying": (-3, 3),
    }
    drawn = figures(result_of())["heads"].data
    assert [trace.z[1][1] for trace in drawn] == pytest.approx([7 / 24] * 4 + [0.5] * 2)  # head 1 of layer 1


def test_points_lie_at_share_and_effect_of_ablation() -> None:
    (dots,) = figures(result_of())["roles"].data
    assert (dots.x[3], dots.y[3], dots.customdata[3][0]) == (3 / 24, -1.5, "L00H03")
    assert list(figures(result_of(measures=MEASURES[:4]))) == ["heads"]


def test_measures_with_two_directions_show_both_ends(tmp_path: Path) -> None:
    def tables(n_groups: int) -> list[Any]:
        path = tmp_path / "page.html"
        path.write_text(f"<main>{''.join(_tables(result_of(n_groups)))}</main>")
        return Page(path).tables

    found = tables(24)
    names = [[row.cells[0] for row in table.rows] for table in found]
    highest, lowest = (
        [f"L{n // 6:02d}H{n % 6:02d}" for n in range(11, 3, -1)],
        [f"L00H0{n}" for n in range(4)],
    )
    assert names == [highest] * 5 + [lowest, highest, lowest]
    assert found[5].rows[0].cells[1] == "−3.00 [−3.25, −2.75]"
    assert found[6].rows[0].cells[1] == "2.50"  # copying is of the weights, and has no interval
    assert found[0].heads[1] == "share of the image"
    assert "[" not in tables(3)[5].rows[0].cells[1]
