"""A figure of panels laid out for a narrow column keeps every panel, its title and its labels."""

from __future__ import annotations

import itertools

import plotly.graph_objects as go
import pytest

from interp.report.figures import laid_out, panels
from interp.report.reflow import Space, n_columns, narrowed, reflowed


@pytest.fixture
def figure() -> go.Figure:
    """Two rows of three panels; only the first column and the last row are labelled."""
    found = panels(["a", "b", "c"], rows=2, columns=3, shared_xaxes=True, shared_yaxes=True)
    for row in (1, 2):
        for column in (1, 2, 3):
            found.add_trace(go.Scatter(x=[0, 1], y=[row, column], name=f"{row}{column}"), row=row, col=column)
        found.update_yaxes(title_text=f"up {row}", row=row, col=1)
    found.update_xaxes(title_text="across", row=2)
    return laid_out(found, 400, columns=3)


def place(figure: go.Figure, trace: go.Scatter) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of a trace's panel."""
    x, y = (figure.layout[f"{ref[0]}axis{ref[1:]}"].domain for ref in (trace.xaxis, trace.yaxis))
    return (*x, *y)


def test_panels_go_below_one_another_in_order(figure: go.Figure) -> None:
    assert n_columns(figure) == 3
    found = reflowed(figure, 1)
    places = [place(found, trace) for trace in found.data]
    assert [one[:2] for one in places] == [(0, 1)] * 6
    tops = [one[3] for one in places]
    assert tops == sorted(tops, reverse=True)
    assert all(above[2] > below[3] for above, below in itertools.pairwise(places))
    assert [note.text for note in found.layout.annotations] == ["a", "b", "c"] * 2
    assert [note.y for note in found.layout.annotations] == tops
    anchors = {(one.x, one.xref, one.yref, one.xanchor, one.yanchor) for one in found.layout.annotations}
    assert anchors == {(0.5, "paper", "paper", "center", "bottom")}
    assert found.layout.height > figure.layout.height
    assert n_columns(found) == 1


def test_each_panel_is_labelled_again(figure: go.Figure) -> None:
    found = reflowed(figure, 2)
    assert n_columns(found) == 2
    for trace in found.data:
        x, y = (found.layout[f"{ref[0]}axis{ref[1:]}"] for ref in (trace.xaxis, trace.yaxis))
        assert x.title.text == "across"
        assert x.showticklabels
        starts_a_row = x.domain[0] == 0
        assert y.title.text == (f"up {trace.name[0]}" if starts_a_row else None)
        assert bool(y.showticklabels) == starts_a_row


def test_a_figure_that_fits_stays_as_it_is(figure: go.Figure) -> None:
    before = figure.to_dict()
    assert reflowed(figure, 3) is figure
    reflowed(figure, 1)
    assert figure.to_dict() == before
    single = go.Figure(go.Scatter(x=[1], y=[1]))
    assert reflowed(single, 1) is single
    pie = go.Figure(go.Pie(values=[1, 2]))  # which has no axes
    assert narrowed(pie) is pie


def test_colour_bars_lie_below_a_column_of_panels(figure: go.Figure) -> None:
    for trace, axis in zip(figure.data, ("coloraxis", "coloraxis2", *["coloraxis"] * 4), strict=True):
        trace.update(marker={"color": [0, 1], "coloraxis": axis})
    bar = {"colorbar": {"title": {"text": "share", "side": "right"}}}
    figure.update_layout(coloraxis=bar, coloraxis2=bar, coloraxis3=bar)  # nothing uses the third one
    found = reflowed(figure, 1)
    places = [found.layout[name].colorbar for name in ("coloraxis", "coloraxis2")]
    assert [(one.orientation, one.title.side) for one in places] == [("h", "top")] * 2
    assert 0 > places[0].y > places[1].y
    assert {(one.x, one.xanchor, one.yanchor, one.len) for one in places} == {(0.5, "center", "top", 1.0)}
    panels_high = found.layout.height - found.layout.margin.t - found.layout.margin.b
    assert (places[0].y - places[1].y) * panels_high == pytest.approx(70)  # a bar with its title and ticks
    assert found.layout.coloraxis3.colorbar.orientation is None
    assert found.layout.margin.b > reflowed(figure, 2).layout.margin.b


def test_a_bar_without_a_title_stays_beside_its_own_panel(figure: go.Figure) -> None:
    names = [f"coloraxis{number or ''}" for number in (0, *range(2, 7))]
    for name, trace in zip(names, figure.data, strict=True):
        trace.update(marker={"color": [0, 1], "coloraxis": name})
        figure.update_layout({name: {"colorbar": {"thickness": 8}}})
    found = reflowed(figure, 1)
    for name, trace in zip(names, found.data, strict=True):
        bar = found.layout[name].colorbar
        _, right, low, high = place(found, trace)
        assert bar.orientation == "v"
        assert bar.x > right
        assert bar.y == pytest.approx((low + high) / 2)
        assert bar.len == pytest.approx(high - low)
    assert found.layout.margin.b == reflowed(figure, 2).layout.margin.b


def test_long_axis_titles_break_and_get_room(figure: go.Figure) -> None:
    short = narrowed(figure)
    figure.update_xaxes(title_text="layer at the centre of the blocked window of layers", row=2)
    found = narrowed(figure)
    titles = {axis.title.text for axis in found.select_xaxes()}
    assert titles == {"layer at the centre of the blocked<br>window of layers"}
    assert found.layout.height > short.layout.height
    single = laid_out(go.Figure(go.Scatter(x=[1], y=[1])), 300)
    assert narrowed(single) is single
    single.update_xaxes(title_text="share of the sentences that see the image")
    lower = narrowed(single)
    assert lower.layout.xaxis.title.text == "share of the sentences that see<br>the image"
    assert (lower.layout.height, lower.layout.margin.b) == (317, 77)
    assert single.layout.xaxis.title.text == "share of the sentences that see the image"


def test_long_names_along_an_axis_are_slanted_and_get_room() -> None:
    def drawn(names: list[str]) -> go.Figure:
        found = panels(["a", "b"])
        for column in (1, 2):
            found.add_trace(go.Bar(x=names, y=[1] * len(names)), row=1, col=column)
        return reflowed(laid_out(found, 400, columns=2), 1)

    few, many = drawn(["CT", "MR"]), drawn(["Dermoscopy", "Endoscopy", "Ultrasound", "Microscopy"])
    assert few.layout.xaxis.tickangle is None
    assert many.layout.xaxis2.tickangle == -45
    assert many.layout.height > few.layout.height


def test_ticks_without_labels_are_not_drawn(figure: go.Figure) -> None:
    assert {axis.ticks for axis in figure.select_yaxes() if axis.showticklabels is False} == {""}
    assert {axis.ticks for axis in reflowed(figure, 1).select_yaxes()} == {"outside"}


ROOM = Space(panel=100, gap=50, top=10, bottom=20, between=0.08)


def test_a_narrow_figure_is_as_high_as_its_parts(figure: go.Figure) -> None:
    found = reflowed(figure, 1, ROOM)
    assert found.layout.height == 6 * 100 + 5 * 50 + 10 + 20
    assert (found.layout.margin.t, found.layout.margin.b, found.layout.meta["min_width"]) == (10, 20, 0)
    first, second = (place(found, trace) for trace in found.data[:2])
    assert first == pytest.approx((0, 1, 1 - 100 / 850, 1))
    assert second == pytest.approx((0, 1, 1 - 250 / 850, 1 - 150 / 850))
    figure.update_layout(title="a title")
    figure.update_xaxes(title_text="across<br>two lines", row=2)
    higher = reflowed(figure, 1, ROOM)  # 26 for the title, 17 for each second line
    assert higher.layout.height == 6 * 100 + 5 * (50 + 17) + (10 + 26) + (20 + 17)
    assert (higher.layout.margin.t, higher.layout.margin.b) == (36, 37)


def test_panels_of_two_old_rows_share_no_new_one(figure: go.Figure) -> None:
    found = reflowed(figure, 2, ROOM)  # a b, c, a b, c
    assert found.layout.height == 4 * 100 + 3 * 50 + 10 + 20
    lefts = [place(found, trace)[:2] for trace in found.data]
    expected = [(0, 0.46), (0.54, 1), (0, 0.46)] * 2
    assert [one for pair in lefts for one in pair] == pytest.approx(
        [one for pair in expected for one in pair]
    )


@pytest.mark.parametrize(
    ("names", "more"),
    [
        (["x" * 17, "y" * 17], 0),  # 34 letters fit
        (["x" * 17, "y" * 18], 5 * 18 - 10 - 17),  # 80 at most
        (["x" * 9, "y" * 9, "z" * 9, "w" * 9], 5 * 9 - 17),
        (["x" * 9] * 4, 0),  # one name
    ],
)
def test_slanted_names_take_their_depth(names: list[str], more: int) -> None:
    found = panels(["a", "b"])
    for column in (1, 2):
        found.add_trace(go.Bar(x=names, y=[1] * len(names)), row=1, col=column)
    drawn = reflowed(laid_out(found, 400, columns=2), 1, ROOM)
    assert drawn.layout.height == 2 * 100 + 50 + more + 10 + 20


def test_a_bar_that_is_alone_lies_below(figure: go.Figure) -> None:
    """Also without a title: there is no other bar that it could be taken for."""
    figure.data[0].update(marker={"color": [0, 1], "coloraxis": "coloraxis"})
    figure.update_layout(coloraxis={"colorbar": {"thickness": 8}})
    bar = reflowed(figure, 1, ROOM).layout.coloraxis.colorbar
    assert (bar.orientation, bar.yanchor) == ("h", "top")
    figure.update_layout(coloraxis2={"colorbar": {"thickness": 8}})
    figure.data[1].update(marker={"color": [0, 1], "coloraxis": "coloraxis2"})
    figure.data[2].update(marker={"color": [0, 1], "coloraxis": "coloraxis2"})
    found = reflowed(figure, 1, ROOM)
    kinds = [found.layout[name].colorbar.orientation for name in ("coloraxis", "coloraxis2")]
    assert kinds == ["v", "h"]  # the second one is of two panels
    assert found.layout.margin.b == 20 + 70


def test_panels_without_titles_get_none() -> None:
    found = panels(["", ""])
    for column in (1, 2):
        found.add_trace(go.Scatter(x=[0], y=[1]), row=1, col=column)
    assert len(reflowed(found, 1).layout.annotations) == 0
    assert n_columns(go.Figure()) == 1
