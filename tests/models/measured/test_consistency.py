"""Grids that are and are not a layout of the whole image, laid by hand."""

import numpy as np
import pytest

from interp.models.measured.consistency import (
    _lean,
    _shares,
    agreement,
    kept,
    lean,
    least_trust,
    line_trust,
    probability,
    spanned,
)
from interp.models.measured.lattice import Lattice
from interp.models.measured.measured_views import View, laid
from interp.models.measured.patterns import Profiles, Raw, stripes

SIZE = (80, 80)


def grid(
    start: int, shape: tuple[int, int], origin: tuple[float, float], pitch: float, fitted: float = 0.0
) -> View:
    """A view of one grid, by rows; before it was refined, it lay `fitted` pixels to the right."""
    rows, columns = shape
    stop = start + rows * columns
    where, cell = np.array(origin, float), np.full(2, float(pitch))
    lattice = Lattice(
        start, stop, columns, "rows", where + np.array([fitted, 0]), cell, np.zeros(stop - start)
    )
    return View(np.arange(start, stop), lattice.places, where, cell, (lattice,))


def boxes_of(*views: View) -> np.ndarray:
    return np.concatenate([laid(view, SIZE) for view in views])


def test_a_grid_on_a_part_of_the_image_spans_a_part() -> None:
    upper, lower = grid(0, (2, 4), (0, 0), 20), grid(8, (1, 2), (0, 40), 40)
    assert spanned([upper, lower], boxes_of(upper, lower)) == 0.5  # 40 of 80 pixels high
    other = grid(8, (2, 4), (0, 40), 20)  # tiles with cells of one size make one view
    assert spanned([upper, other], boxes_of(upper, other)) == 1
    far = grid(8, (1, 2), (0, 200), 60)  # no cell of it is in the image
    assert spanned([upper, far], boxes_of(upper, far)) == 0
    assert spanned([], np.full((3, 4), np.nan)) == 0
    assert spanned([upper], boxes_of(upper, lower)) == 0.5  # the upper half is 80×40
    assert spanned([], boxes_of(upper)) == 0


def test_two_placements_five_pixels_apart() -> None:
    view = grid(0, (4, 4), (0, 0), 20, fitted=5)
    assert agreement([view], boxes_of(view), SIZE) == pytest.approx(15 / 25)  # the share of two cells of 20
    same = grid(16, (4, 4), (0, 0), 20)
    both = boxes_of(view, same)
    assert agreement([same, view], both, SIZE) == pytest.approx(15 / 25)  # the worse of both
    assert agreement([], both, SIZE) == 0


def test_a_cell_that_one_placement_lacks_does_not_agree() -> None:
    nowhere = np.full(4, np.nan)
    first, second = (
        grid(0, (1, 2), (60, 0), 20),
        grid(0, (1, 2), (40, 0), 20),
    )  # 60 to 80 and outside; 40 to 80
    boxes = np.array([[60, 0, 80, 20], [0, 0, 20, 20]], float)
    assert agreement([first], boxes, SIZE) == 0.5
    assert agreement([second], np.array([[40, 0, 60, 20], nowhere]), SIZE) == 0.5
    assert agreement([first], np.array([boxes[0], nowhere]), SIZE) == 1


def test_the_least_sure_view() -> None:
    views = [grid(0, (1, 2), (0, 0), 20), grid(2, (2, 2), (0, 0), 40)]
    assert least_trust(views, np.array([0.9, 0.7, 1, 0.2, 0.2, 0.2])) == pytest.approx(0.4)


def test_the_least_sure_row_or_column() -> None:
    view = grid(0, (2, 4), (0, 0), 20)
    assert line_trust([view], np.array([0.9, 0.9, 0.9, 0.9, 0.2, 0.2, 0.2, 0.6])) == pytest.approx(0.3)
    assert line_trust([grid(0, (2, 3), (0, 0), 20)], np.zeros(6)) == 1  # rows of three say little


def test_what_is_left_of_the_tokens_own_rectangles() -> None:
    true = boxes_of(grid(0, (4, 4), (0, 0), 20))
    codes = stripes(80, 20), stripes(80, 20)
    across, down = (code.seen(true[:, a], true[:, a + 2]) / 10 + 0.01 for a, code in enumerate(codes))
    profiles, raw, change = Profiles(codes, (across, down)), Raw(true, np.ones(16)), np.ones(16)
    assert kept(profiles, true, raw, change) == pytest.approx(1)
    moved = true.copy()
    moved[:8] = true[8:]  # half of the tokens elsewhere
    assert kept(profiles, moved, raw, change) == pytest.approx(0.5, abs=0.01)
    lost = true.copy()
    lost[:8] = np.nan  # half without a footprint
    assert kept(profiles, lost, raw, change) == pytest.approx(0.5)
    assert kept(profiles, lost, raw, np.repeat([0.01, 1.0], 8)) > 0.98  # padding, which hardly changes


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


def beside(axis: int) -> tuple[View, tuple, np.ndarray]:
    """A view of 8×3 cells over 150×40 pixels, along x or y, whose tokens move with all that lies after their centre.

    Centres along the axis are −5, 15, … 135: five of them have 35 pixels of image, 1.75 cells, on both sides. The third
    line across lies outside the image. Bins are 5 pixels long.
    """
    pitch, origin = np.full(2, PITCH), np.array([-15.0, 0.0])
    lattice = Lattice(0, 24, 8, "rows", origin, pitch, np.zeros(24))
    codes, places = (stripes(150, PITCH), stripes(40, PITCH)), lattice.places
    centres = -15 + PITCH * (places[:, :1] + 0.5)
    energy = (np.arange(30) * 5 + 2.5 > centres).astype(float)
    if axis == 0:
        return View(np.arange(24), places, origin, pitch, (lattice,)), codes, energy
    return View(np.arange(24), places[:, ::-1], origin[::-1], pitch, (lattice,)), codes[::-1], energy


@pytest.mark.parametrize("axis", [0, 1])
def test_shares_beside_a_cell_are_of_tokens_inside(axis: int) -> None:
    """Seven bins follow a centre within 1.75 cells; five of them are 0.6 cells and more away."""
    view, codes, energy = beside(axis)
    assert _shares(view, codes, energy, axis) == pytest.approx([5 / 7] * 10)
    assert _shares(view, codes, energy[:, ::-1] * 0 + 1, axis) == pytest.approx([0] * 10)


def test_four_profiles_show_a_lean_three_do_not() -> None:
    view, codes, energy = beside(0)
    for places, textures, wanted in (((2, 3), 2, 5 / 7), ((2, 3, 4), 1, 0), ((2, 3, 4, 5), 1, 5 / 7)):
        some = np.array(places)
        one = View(some, view.places[some], view.origin, view.pitch, view.lattices)
        assert _lean(one, codes, [energy] * textures, 0) == pytest.approx(wanted)


def test_few_tokens_show_no_lean():
    codes = stripes(40, 20), stripes(40, 20)
    lattice = Lattice(0, 4, 2, "rows", np.zeros(2), np.full(2, PITCH), np.zeros(4))
    view = View(np.arange(4), lattice.places, np.zeros(2), np.full(2, PITCH), (lattice,))
    energies = [[np.random.default_rng(a).random((4, codes[a].n)) for a in (0, 1)]]
    assert lean([view], codes, energies) == 0
    assert lean([], codes, energies) == 0


def scanned(boxes: np.ndarray) -> Profiles:
    """Noiseless changes of tokens that look at these boxes in an image of 80×80 pixels."""
    codes = stripes(80, 20), stripes(80, 20)
    across, down = (code.seen(boxes[:, a], boxes[:, a + 2]) / 10 + 0.01 for a, code in enumerate(codes))
    return Profiles(codes, (across, down))


def test_a_right_box_is_likely_a_shifted_one_is_not() -> None:
    true = np.array([[0, 0, 20, 20], [20, 0, 40, 20], [40, 40, 60, 60]], float)
    given = true + np.array([[0], [10], [40]])  # right; half a cell off in both axes; elsewhere
    given = np.minimum(given, 80)
    right, near, far = probability(scanned(true), given, np.ones(3))
    assert right > 0.99  # 1 / (1 + exp(−(6.44 − 1.62))) = 0.992
    assert 0.16 < near < 0.6
    assert abs(far - 1 / (1 + np.exp(1.62))) < 0.02  # it explains nothing


def test_a_token_that_moves_with_the_image_has_a_place() -> None:
    true = np.array([[0, 0, 20, 20], [20, 0, 40, 20], [40, 40, 60, 60]], float)
    given = np.where(np.array([[True], [False], [False]]), true, np.nan)
    _, moves, still = probability(scanned(true), given, np.array([1.0, 1.0, 0.0]))
    assert moves < 0.6 < 0.95 < still
    assert not probability(scanned(true), np.full((3, 4), np.nan), np.ones(3)).any()
