"""Which layout of the whole image a measurement is taken for, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from interp.inputs.footprints import Footprints
from interp.models.measured import Measurement, layout_of
from interp.models.measured.lattice import Lattice
from interp.models.measured.measured_views import View

SIZE, SIDE = (80, 40), np.array([40.0, 20.0])


def measured(shares: tuple[float, ...]) -> Measurement:
    """Two rows of two tokens over a wide image; each was seen in so large a share of its cell's width."""
    lattice = Lattice(0, 4, 2, "rows", np.zeros(2), SIDE, np.zeros(4))
    view = View(np.arange(4), lattice.places, np.zeros(2), SIDE, (lattice,))
    low = lattice.places * SIDE
    high = low + np.stack([SIDE[0] * np.array(shares), np.full(4, SIDE[1])], axis=1)
    boxes = np.concatenate([low, high], axis=1)
    seen = Footprints(boxes, (2, 2), np.full(4, ""), np.zeros(4, int))
    return Measurement(SIZE, np.arange(4), seen, np.ones(4), boxes, (view,), 0.0, 1)


def test_a_layout_fits_when_half_of_its_tokens_do() -> None:
    """The median overlap is 0.75, then 0.65: below the 0.7 that is asked for, though one token fits exactly."""
    found = layout_of([measured((1.0, 0.8, 0.7, 0.5))])
    assert found is not None
    assert (found.window, found.grid, found.order) == ("squash", (2, 2), "rows")
    assert found.overlap == pytest.approx(0.75)
    assert layout_of([measured((1.0, 0.7, 0.6, 0.5))]) is None


def test_the_size_that_fits_worst_decides() -> None:
    good, bad = measured((1.0,) * 4), measured((0.5,) * 4)
    assert layout_of([good]) is not None
    assert layout_of([good, bad]) is None
