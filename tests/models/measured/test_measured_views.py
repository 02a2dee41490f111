"""Grids joined to views on one lattice, and the cells of views, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from interp.models.measured.lattice import Lattice
from interp.models.measured.measured_views import View, _joined, laid


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
