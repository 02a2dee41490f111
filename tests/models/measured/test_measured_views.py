"""Grids joined to views on one lattice, and the cells of views, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from interp.models.measured.lattice import Lattice
from interp.models.measured.measured_views import View, _joined, _reach, laid, views_of
from interp.models.measured.patterns import Profiles, stripes


def view(
    start: int, shape: tuple[int, int], origin: tuple[float, float], pitch: tuple[float, float] = (20, 20)
) -> View:
    """A view of one grid, by rows."""
    rows, columns = shape
    stop = start + rows * columns
    where, cell = np.array(origin, float), np.array(pitch, float)
    lattice = Lattice(start, stop, columns, "rows", where, cell, np.zeros(stop - start))
    return View(np.arange(start, stop), lattice.places, where, cell, (lattice,))


SIZE = (200, 200)


@pytest.mark.parametrize(
    ("origin", "first", "shape"),
    [
        ((100, 60), (60, 60), (2, 4)),  # to the right
        ((20, 60), (20, 60), (2, 4)),  # to the left
        ((60, 100), (60, 60), (4, 2)),  # below
        ((60, 20), (60, 20), (4, 2)),  # above
        ((20, 20), (20, 20), (4, 4)),  # a common corner
        ((140, 60), None, None),  # a column of cells between
        ((60, 0), None, None),  # a row of cells between
        ((80, 60), None, None),  # the same cells
        ((103, 60), (60, 60), (2, 4)),  # 0.15 of a cell off: on the lattice of the first
        ((105, 60), None, None),  # a quarter of a cell off
        ((60, 105), None, None),
    ],
)
def test_grids_that_touch_on_one_lattice_are_one_view(origin, first, shape) -> None:
    one, two = view(0, (2, 2), (60, 60)), view(4, (2, 2), origin)
    found = _joined(one, two)
    if first is None:
        assert found is None
        return
    assert found is not None
    assert (found.origin.tolist(), found.shape) == (list(first), shape)
    assert found.tokens.tolist() == list(range(8))
    assert found.lattices == (*one.lattices, *two.lattices)
    on_first = view(4, (2, 2), (round(origin[0] / 20) * 20, origin[1]))
    np.testing.assert_array_equal(laid(found, SIZE), np.concatenate([laid(v, SIZE) for v in (one, on_first)]))


@pytest.mark.parametrize(
    ("pitch", "joined"), [((22, 20), True), ((23, 20), False), ((20, 23), False), ((17.5, 20), False)]
)
def test_grids_of_other_pitches_are_other_views(pitch, joined) -> None:
    """ln 1.1 = 0.095 is below 0.12, ln 1.15 = 0.14 is not. The middle of the second grid is on the first's lattice."""
    two = view(4, (2, 2), (120 - pitch[0], 80 - pitch[1]), pitch)
    assert (_joined(view(0, (2, 2), (60, 60)), two) is not None) == joined


def test_cells_are_clipped_snapped_and_reach_the_border() -> None:
    """Cells of 20 px from −10.5 to 69.5: the last edge is 0.5 px, less than a sliver of 1 px, from the border at 70."""
    one = view(0, (1, 4), (-10.5, 0))
    assert laid(one, (70, 20))[:, [0, 2]].tolist() == [[0, 9.5], [9.5, 29.5], [29.5, 49.5], [49.5, 70]]
    assert laid(one, (72, 20))[-1].tolist() == [49.5, 0, 69.5, 20]
    far = replace(one, reach=(False, False, True, False))
    assert laid(far, (72, 20))[-1].tolist() == [49.5, 0, 72, 20]
    inner = view(0, (2, 2), (5, 8))
    whole = replace(inner, reach=(True, True, True, True))
    assert laid(whole, (50, 60))[[0, 3]].tolist() == [[0, 0, 25, 28], [25, 28, 50, 60]]
    top = replace(inner, reach=(False, True, False, False))
    assert laid(top, (50, 60))[[0, 3]].tolist() == [[5, 0, 25, 28], [25, 28, 45, 48]]


def test_cells_outside_the_image_have_no_area() -> None:
    """The first column ends at 0.9 px, less than a twentieth of a cell; 1.1 px are more."""
    assert np.isnan(laid(view(0, (1, 2), (-19.1, 0)), (40, 20))[0]).all()
    assert laid(view(0, (1, 2), (-18.9, 0)), (40, 20))[0].tolist() == [0, 0, pytest.approx(1.1), 20]
    assert np.isnan(laid(view(0, (2, 1), (0, 30)), (40, 40))[1]).all()


def profiles_of(boxes: np.ndarray, size: tuple[int, int]) -> Profiles:
    """Noiseless changes of tokens that look at these boxes."""
    codes = stripes(size[0], 20), stripes(size[1], 20)
    across, down = (code.seen(boxes[:, a], boxes[:, a + 2]) for a, code in enumerate(codes))
    return Profiles(codes, (across, down))


def test_grids_are_joined_where_their_tokens_look() -> None:
    """Two halves of 7×8 cells of 21×19 px from (4, −3); each was laid a little off, with a pitch of 20."""
    true = replace(view(0, (8, 7), (4, -3)), pitch=np.array([21.0, 19.0]))
    size = (160, 150)
    right, left = np.flatnonzero(true.places[:, 0] >= 4), np.flatnonzero(true.places[:, 0] < 4)
    boxes = laid(true, size)[np.concatenate([right, left])]
    lattices = [*view(0, (8, 3), (90, -5)).lattices, *view(24, (8, 4), (6, -1)).lattices]
    (found,) = views_of(lattices, profiles_of(boxes, size), np.ones(56))
    np.testing.assert_allclose(found.origin, (4, -3), atol=1)
    np.testing.assert_allclose(found.pitch, (21, 19), rtol=0.02)
    assert found.shape == (8, 7)
    np.testing.assert_allclose(laid(found, size), boxes, atol=1.5)


@pytest.mark.parametrize(
    ("first", "last", "reach"),
    [(6, 94, (False, False)), (0, 94, (True, False)), (6, 100, (False, True)), (0, 100, (True, True))],
)
def test_end_cells_reach_the_border_where_they_see_it(first, last, reach) -> None:
    """Four cells of 22 px from 6 to 94 in an image of 100."""
    code = stripes(100, 20)
    low, high = np.array([first, 28, 50, 72.0]), np.array([28.0, 50, 72, last])
    sums = code.levelled(code.seen(low, high))
    assert _reach(sums, code, (6.0, 22.0)) == reach
    assert _reach(sums, code, (18.0, 22.0)) == (False, False)  # the first lies 0.82 of a cell from the border
