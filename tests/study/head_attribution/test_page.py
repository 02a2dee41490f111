"""The tables behind the page of head attributions, from effects that are given."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from interp.study.head_attribution.page import (
    _heads,
    agreements,
    head_maps,
    head_scatter,
    head_table,
    part_bars,
    said,
)
from interp.study.result import summarise
from tests.golden.parsed import Page
from tests.study.planted_heads import made

pytestmark = pytest.mark.usefixtures("unchecked")
N_HEADS = 6


def result_of(direct: np.ndarray, total: np.ndarray, *, data: str = "scans", prefix: str = "g") -> Any:
    """A result whose sample i, a group of its own, has these effects at the heads of two layers of three."""
    rows = [
        {
            "data": data,
            "index": i,
            "sample": f"s{i}",
            "group": f"{prefix}{i:02d}",
            "part": "head",
            "measure": measure,
        }
        | {"layer": head // 3, "head": head % 3, "value": float(values[i, head])}
        for measure, values in (("direct", direct), ("total", total))
        for i in range(len(direct))
        for head in range(N_HEADS)
    ]
    scores = pd.DataFrame(rows)
    return SimpleNamespace(scores=scores, seed=0, summary=lambda: summarise(scores))


def spread(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.arange(N_HEADS) + rng.normal(0, 2, (n, N_HEADS))


def test_correlations_are_over_heads_and_need_no_ranking() -> None:
    direct, total = spread(24, 0), spread(24, 1)
    (row,) = agreements(result_of(direct, total), {}).to_dict("records")
    assert (row["data"], row["first"], row["second"], row["note"]) == ("scans", "direct", "total", "")
    assert row["rho"] == pytest.approx(spearmanr(direct.mean(axis=0), total.mean(axis=0)).statistic)
    assert -1 <= row["low"] <= row["rho"] <= row["high"] <= 1
    assert row["low"] < row["high"]
    assert row["n_groups"] == 24


def test_the_seed_decides_which_groups_are_drawn() -> None:
    made = result_of(spread(24, 0), spread(24, 1))
    one, again, other = (
        agreements(SimpleNamespace(**{**vars(made), "seed": seed}), {}).iloc[0]  # pyright: ignore[reportArgumentType]
        for seed in (1, 1, 2)
    )
    assert (one.rho, one.low) == (again.rho, again.low)
    assert one.rho == other.rho
    assert one.low != other.low


def test_groups_that_the_ranking_lacks_are_left_out(tmp_path: Path) -> None:
    direct, total = spread(10, 2), spread(10, 3)
    ranked = made(tmp_path, spread(6, 4), groups=[f"g{i:02d}" for i in range(4, 10)], heads=3)
    found = agreements(result_of(direct, total), {"scans": ranked}).set_index(["first", "second"])
    assert list(found.index) == [("direct", "total"), ("direct", "ar"), ("total", "ar")]
    assert set(found.n_groups) == {6}
    means = [values[4:].mean(axis=0) for values in (direct, total)]
    assert found.rho["direct", "total"] == pytest.approx(spearmanr(*means).statistic)
    ar = ranked.summary()["mean"]
    assert found.rho["total", "ar"] == pytest.approx(spearmanr(means[1], ar).statistic)
    assert found.note["direct", "total"].startswith("Only 6 groups")


def test_one_group_has_a_correlation_without_an_interval() -> None:
    (row,) = agreements(result_of(spread(1, 5), spread(1, 6)), {}).to_dict("records")
    assert np.isfinite(row["rho"])
    assert np.isnan([row["low"], row["high"]]).all()
    assert said(row).endswith("(too few groups)")


def test_a_correlation_is_said_with_its_interval() -> None:
    assert said({"rho": 0.5, "low": 0.25, "high": 0.75, "note": ""}) == "0.50 [0.25, 0.75]"
    assert said({"rho": -0.5, "low": -0.75, "high": 0.0, "note": "Only 3 groups"}) == "−0.50 (too few groups)"


def test_the_table_has_the_ratio_of_ranked_data_alone(tmp_path: Path) -> None:
    one, other = result_of(spread(3, 0), spread(3, 1)), result_of(spread(3, 2), spread(3, 3), data="slides")
    scores = pd.concat([one.scores, other.scores], ignore_index=True)
    both: Any = SimpleNamespace(scores=scores, seed=0, summary=lambda: summarise(scores))
    values = np.arange(6.0) + np.zeros((3, 1))
    found = head_table(both, {"slides": made(tmp_path, values, heads=3)})
    assert found.groupby("data").ar.apply(lambda ratio: ratio.notna().sum()).to_dict() == {
        "scans": 0,
        "slides": 6,
    }
    row = found[(found.data == "slides") & (found.layer == 1) & (found["head"] == 2)].iloc[0]
    assert row.ar == 5
    assert row.direct == pytest.approx(spread(3, 2)[:, 5].mean())
    assert row.total == pytest.approx(spread(3, 3)[:, 5].mean())
    assert "ar" not in head_table(one, {})


def heads(**columns: list[float]) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    frame = pd.DataFrame({"data": "scans", "layer": np.arange(n) // 2, "head": np.arange(n) % 2, **columns})
    ends = {f"{name}_{end}": frame[name] for name in columns for end in ("low", "high")}
    return frame.assign(**ends)


def test_the_largest_gaps_come_first_in_either_direction(tmp_path: Path) -> None:
    table = heads(direct=[0.0, 1.0, 2.0, 3.0], total=[0.5, -1.0, 2.1, 4.0])
    made_up: Any = SimpleNamespace(summary=lambda: pd.DataFrame({"data": ["scans"], "n_groups": [24]}))
    path = tmp_path / "page.html"
    path.write_text(f"<main>{_heads(made_up, table)}</main>")
    rows = (
        Page(path)
        .table("layer, head")
        .records(head="layer, head", direct="direct", total="total", ar="ratio")
    )
    assert [row["head"] for row in rows] == ["0, 1", "1, 1", "0, 0", "1, 0"]
    assert [row["total"].split(" ")[0] for row in rows] == ["−1.00", "4.00", "0.50", "2.10"]
    assert {row["ar"] for row in rows} == {"–"}


def test_effects_share_a_scale_that_is_even_around_zero() -> None:
    figure = head_maps(heads(direct=[0.5, -1.0, 0.0, 0.25], total=[0.0, 0.5, -2.0, 1.0]))
    axis = figure.layout.coloraxis
    assert (axis.cmin, axis.cmax) == (-2, 2)
    assert [title.text for title in figure.layout.annotations][:2] == [
        "scans: direct effect, logits",
        "scans: total effect, logits",
    ]
    direct, total = figure.data
    assert (direct.z[1][0], total.z[0][1]) == (-1.0, -2.0)  # head 1 of layer 0, head 0 of layer 1


def test_points_lie_at_direct_and_total_with_the_line_of_equals() -> None:
    figure = head_scatter(heads(direct=[0.5, -1.0], total=[0.0, 0.75]))
    dots, line = figure.data
    assert (list(dots.x), list(dots.y)) == ([0.5, -1.0], [0.0, 0.75])
    assert list(line.x) == list(line.y) == [-1.0, 0.5]
    assert [list(one) for one in dots.customdata] == [[0, 0], [0, 1]]


def test_bars_have_intervals_where_groups_suffice() -> None:
    rows = [("attention", 0, 1.0), ("mlp", 0, -2.0), ("embedding", -1, 0.5)]
    parts = pd.DataFrame(rows, columns=["part", "layer", "mean"]).assign(data="scans", n_groups=20, note="")
    parts = parts.assign(low=parts["mean"] - 0.25, high=parts["mean"] + 0.5)
    bars = {bar.name: bar for bar in part_bars(parts).data}
    assert {name: (list(bar.x), list(bar.y)) for name, bar in bars.items()} == {
        "attention": ([0], [1.0]),
        "MLP": ([0], [-2.0]),
        "embedding": ([-1], [0.5]),
    }
    assert (list(bars["MLP"].error_y.array), list(bars["MLP"].error_y.arrayminus)) == ([0.5], [0.25])
    few = part_bars(parts.assign(n_groups=3, note="Only 3 groups")).data[0].error_y
    assert not np.any(few.array)
