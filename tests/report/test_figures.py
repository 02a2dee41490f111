"""Marks of figures against values worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from interp.report import figures
from interp.report.figures import INTERVAL, ONE_GROUP, curves, laid_out


def summary(n_groups: int) -> pd.DataFrame:
    ends = {"mean": [0.5, 0.6], "low": [0.25, 0.5], "high": [1.0, 0.8]}
    return pd.DataFrame({"layer": [0, 1], **ends, "n": [40, 40], "n_groups": [n_groups] * 2})


SCORES = pd.DataFrame({"group": ["g", "g", "h", "g"], "layer": [0, 0, 0, 1], "value": [1.0, 2.0, 5.0, 7.0]})


def test_arms_reach_the_ends_from_20_groups_on() -> None:
    rows = pd.concat([summary(19), summary(20)])
    arms = figures.interval_arms(rows, scale=100)
    assert arms["array"] == pytest.approx([0, 0, 50, 20])
    assert arms["arrayminus"] == pytest.approx([0, 0, 25, 10])
    found: Any = figures.points(rows, list("abcd"), scale=100, marker={}, arms={"color": "red"})
    assert list(found.x) == pytest.approx([50, 60, 50, 60])
    assert list(found.error_x.array) == pytest.approx([0, 0, 50, 20])


def test_curves_show_an_interval_or_the_groups() -> None:
    band, line = curves(summary(20), SCORES, "own", "#0072B2")
    assert band.meta == INTERVAL
    assert list(band.x) == [0, 1, 1, 0]
    assert list(band.y) == [1.0, 0.8, 0.5, 0.25]
    assert list(line.y) == [0.5, 0.6]
    first, second, line = curves(summary(19), SCORES, "own", "#0072B2")
    assert first.meta == second.meta == ONE_GROUP
    assert first.hoverinfo == second.hoverinfo == band.hoverinfo == "skip"  # the means say it
    assert (first.showlegend, band.showlegend) == (False, False)
    assert (list(first.x), list(first.y), list(second.y)) == ([0, 1], [1.5, 7.0], [5.0])
    assert line.showlegend
    (line,) = curves(summary(19), SCORES, "baseline", "#0072B2", dash="dot", legend=False)
    assert (line.mode, line.showlegend) == ("lines", False)
    (*_, line) = curves(summary(19), SCORES, "own", "#0072B2", digits=1)
    assert line.hovertemplate.startswith("%{y:.1f}")
    assert curves(summary(20)[:0], SCORES, "none", "#0072B2") == []


def test_the_legend_explains_the_marks_that_are_there() -> None:
    for n_groups, mark in ((20, INTERVAL), (19, ONE_GROUP)):
        figure = laid_out(go.Figure(curves(summary(n_groups), SCORES, "own", "#0072B2")), 300)
        named = {trace.name for trace in figure.data if list(trace.x) == [None]}
        assert named == {mark}
    assert laid_out(go.Figure(), 300).layout.meta["min_width"] == 0
    assert laid_out(go.Figure(), 300, columns=2).layout.meta["min_width"] == 2 * 190 + 90


def test_cells_of_a_heat_map_are_in_ascending_order() -> None:
    frame = pd.DataFrame(
        {"layer": [3, 1, 1, 3], "head": [0, 5, 0, 5], "value": [30.0, 15.0, 10.0, np.nan], "n": [1, 2, 3, 4]}
    )
    found: Any = figures.heat(frame, "value", more=["n"], hover="")
    assert (list(found.x), list(found.y)) == ([1, 3], [0, 5])
    np.testing.assert_array_equal(found.z, [[10.0, 30.0], [15.0, np.nan]])
    np.testing.assert_array_equal(found.customdata[..., 0], [[3, 1], [2, 4]])


def test_a_heat_map_lies_along_the_columns_asked_for() -> None:
    frame = pd.DataFrame({"step": [0, 1, 1], "row": [2, 2, 4], "value": [1.0, 2.0, 3.0], "n": [7, 8, 9]})
    found: Any = figures.heat(frame, "value", more=["n"], hover="", axis="coloraxis2", along=("step", "row"))
    assert (list(found.x), list(found.y), found.coloraxis) == ([0, 1], [2, 4], "coloraxis2")
    np.testing.assert_array_equal(found.z, [[1.0, 2.0], [np.nan, 3.0]])
    assert found.hovertemplate.startswith("step %{x}, row %{y}")


def test_the_cut_end_of_a_scale_says_so() -> None:
    high, low = (figures.cut_ticks(0, 1, cut_high=cut)["ticktext"] for cut in (True, False))
    assert high == ["0.00", "0.25", "0.50", "0.75", "≥ 1.00"]
    assert low == ["≤ 0.00", "0.25", "0.50", "0.75", "1.00"]


def test_an_axis_says_which_direction_is_better() -> None:
    assert figures.metric_axis("ar", ", ").endswith("↑, higher is better")
    assert figures.metric_axis("kl", ", ").endswith("↓, lower is better")


def test_colours_and_steps_by_hand() -> None:
    assert figures.mixed("#000000", "#ffffff", 0.2) == "rgb(204,204,204)"
    assert figures.clear("#0072B2", 0.5) == "rgba(0,114,178,0.5)"
    assert figures.series_colours(["x", "y"]) == {"x": "#0072B2", "y": "#D55E00"}
    assert len({figures.series_colour(place) for place in range(20)}) == 20
    assert figures.ticks_at([4, 0, 40, 2, 2]) == {"tickvals": [0, 2, 4, 40]}
    assert figures.ticks_at(range(100, 0, -1), 4) == {"tickvals": [1, 26, 51, 76]}
    assert (figures.every(range(24)), figures.every(range(23)), figures.every([])) == (2, 1, 1)
    assert figures.plain('<b>"x"\ny') == "&lt;b&gt;&quot;x&quot;<br>y"


def test_hovering_shows_the_interval_and_the_counts() -> None:
    found: Any = figures.line(summary(20), "<own>", "#0072B2", digits=1)
    assert found.customdata.tolist() == [[0.25, 1.0, 40, 20], [0.5, 0.8, 40, 20]]
    assert found.hovertemplate.startswith("%{y:.1f} [%{customdata[0]:.1f}, %{customdata[1]:.1f}]")
    assert (found.mode, found.name, found.line.width) == ("lines+markers", "&lt;own&gt;", 2.5)
    assert figures.line(summary(20), "b", "#0072B2", dash="dot").line.width == 1.6


def test_a_line_at_a_value_is_drawn_where_it_is_asked() -> None:
    figure = figures.panels(["a", "b"])
    assert {axis.ticks for axis in (*figure.select_xaxes(), *figure.select_yaxes())} == {
        None
    }  # as the template says
    for column in (1, 2):
        figure.add_trace(go.Scatter(x=[0], y=[0]), row=1, col=column)
    figures.reference_line(figure, x=3, text="here", row=1, col=2)
    figures.reference_line(figure, y=0)
    drawn = [(one.x0, one.y0, one.xref.partition(" ")[0]) for one in figure.layout.shapes]
    assert drawn == [(3, 0, "x2"), (0, 0, "x"), (0, 0, "x2")]
    assert [note.text for note in figure.layout.annotations] == ["a", "b", "here"]
    figures.level_line(figure, 0.5, "chance", row=1, col=1)
    assert (figure.layout.shapes[-1].y0, figure.data[-1].name) == (0.5, "chance")
    assert figure.data[-1].line.dash == figure.layout.shapes[-1].line.dash == "dashdot"


def test_a_long_name_of_a_metric_takes_two_lines() -> None:
    long = next(name for name, one in figures.METRICS.items() if len(one.label) > 22)
    label = figures.METRICS[long].label
    assert figures.metric_axis(long, ", ").startswith(f"{label} ")
    assert "<br>" in figures.metric_axis(long).rpartition(",<br>")[0]
    assert figures.metric_axis(long).replace("<br>", " ").startswith(f"{label} ")


def test_a_colour_bar_has_its_title_along_it() -> None:
    layout = go.Layout(coloraxis={"colorbar": figures.colour_bar("share", thickness=5)})
    bar = layout.coloraxis.colorbar
    assert (bar.title.text, bar.title.side, bar.thickness, bar.outlinewidth) == ("share", "right", 5, 0)
    assert figures.colour_bar("share")["thickness"] == 12


def test_names_of_points_are_text_and_arms_are_as_asked() -> None:
    found = figures.points(
        summary(20), ["<b>a", "b"], marker={"size": 3}, arms={"thickness": 7}, name="own", showlegend=False
    )
    assert list(found.y) == ["&lt;b&gt;a", "b"]
    assert (found.mode, found.marker.size, found.error_x.thickness) == ("markers", 3, 7)
    assert (found.name, found.showlegend) == ("own", False)
    other = summary(20).rename(columns={"mean": "gap", "low": "least", "high": "most"})
    renamed: Any = figures.points(other, ["a", "b"], of=("gap", "least", "most"), marker={}, arms={})
    assert (list(renamed.x), list(renamed.error_x.array)) == ([0.5, 0.6], pytest.approx([0.5, 0.2]))
    arms = figures.interval_arms(other, of=("gap", "least", "most"))
    assert arms["array"] == pytest.approx([0.5, 0.2])
    assert arms["arrayminus"] == pytest.approx([0.25, 0.1])


def test_shared_axes_have_ticks_where_they_have_labels() -> None:
    figure = figures.panels(["a", "b"], rows=2, columns=2, shared_xaxes=True, shared_yaxes=True)
    shown = [axis.ticks for axis in (*figure.select_xaxes(), *figure.select_yaxes())]
    assert shown == ["", "", None, None, None, "", None, ""]
    three = figures.panels([], rows=2, columns=3)
    assert (len(list(three.select_xaxes())), len(list(figures.panels(["a", "b"]).select_xaxes()))) == (6, 2)
    assert [note.text for note in figures.panels(["<i>"], columns=1).layout.annotations] == ["&lt;i&gt;"]
