"""How far tokens lean to one side, on profiles that are drawn."""

import numpy as np
import pytest

from interp.models.measured.lattice import Lattice
from interp.models.measured.measured_views import View
from interp.models.measured.one_sided import lean
from interp.models.measured.patterns import stripes

PITCH = 20.0


@pytest.mark.parametrize("n", [8, 24])  # stripes painted one by one, and as the teeth of combs
@pytest.mark.parametrize(
    ("tower", "wanted"),
    [
        ([(0.0, 1.0, 1.0)], 0.0),  # a token sees its cell
        ([(-0.5, 1.5, 1.0)], 0.0),  # and half a cell more on both sides
        (
            [(0.0, 1.0, 1.0), (-1.0, 0.5, 0.5)],
            0.26,
        ),  # a second tower, from a cell to the left on: 0.45 of 1.75
        ([(0.0, 1.0, 1.0), (0.5, 2.0, 0.5)], 0.26),  # the same to the right
    ],
)
def test_what_one_side_has_more(n, tower, wanted):
    codes = stripes(int(n * PITCH), PITCH), stripes(int(n * PITCH), PITCH)
    assert codes[0].sparse.all() == (n == 8)
    column, row = np.tile(np.arange(n), n), np.repeat(np.arange(n), n)
    noise = np.random.default_rng(0)
    energies = []
    for _ in range(2):
        across = sum(
            g * (b - a) * codes[0].seen((column + a) * PITCH, (column + b) * PITCH) for a, b, g in tower
        )
        down = codes[1].seen(row * PITCH, (row + 1) * PITCH)
        energies.append([one * noise.uniform(0.8, 1.2, one.shape) for one in (across, down)])
    lattice = Lattice(0, n * n, n, "rows", np.zeros(2), np.full(2, PITCH), np.zeros(n * n))
    view = View(np.arange(n * n), lattice.places, np.zeros(2), np.full(2, PITCH), (lattice,))
    assert lean([view], codes, energies) == pytest.approx(wanted, abs=0.03)


def test_few_tokens_show_no_lean():
    codes = stripes(40, 20), stripes(40, 20)
    lattice = Lattice(0, 4, 2, "rows", np.zeros(2), np.full(2, PITCH), np.zeros(4))
    view = View(np.arange(4), lattice.places, np.zeros(2), np.full(2, PITCH), (lattice,))
    energies = [[np.random.default_rng(a).random((4, codes[a].n)) for a in (0, 1)]]
    assert lean([view], codes, energies) == 0
    assert lean([], codes, energies) == 0
