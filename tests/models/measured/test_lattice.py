"""Boxes laid by hand, with noise, cut into the grids they came from."""

import numpy as np
import pytest

from interp.models.measured.lattice import (
    Lattice,
    _cuts,
    _fitted,
    _line,
    _Tokens,
    _tokens,
    _turns,
    cut_into_lattices,
    single_lattices,
    weighted_median,
)
from interp.models.measured.patterns import intervals, painted, stripes, texture


def cells(
    rows: int, cols: int, origin: tuple[float, float], pitch: tuple[float, float], *, down: bool = False
) -> np.ndarray:
    """A grid's boxes, row by row or down the columns."""
    y, x = np.mgrid[:rows, :cols] if not down else np.mgrid[:cols, :rows][::-1]
    low = np.stack([1.0 * x.ravel() * pitch[0] + origin[0], y.ravel() * pitch[1] + origin[1]], 1)
    return np.concatenate([low, low + pitch], 1)


def gaps_of(n: int, after: tuple[int, ...] = ()) -> np.ndarray:
    """Whether other tokens stand between a token and the next: only after these."""
    gaps = np.zeros(n - 1, bool)
    gaps[list(after)] = True
    return gaps


def lattices(
    boxes: np.ndarray, image: tuple[float, float], gaps: tuple[int, ...] = (), seed: int = 0
) -> list[Lattice]:
    rng = np.random.default_rng(seed)
    noise = rng.normal(scale=0.08, size=boxes.shape) * (boxes[:, 2:] - boxes[:, :2]).repeat(2, 1)
    found = cut_into_lattices(boxes + noise, np.ones(len(boxes)), gaps_of(len(boxes), gaps), image)
    assert all(isinstance(one, Lattice) for one in found)
    return [one for one in found if isinstance(one, Lattice)]


@pytest.mark.parametrize("down", [False, True])
def test_one_grid_in_either_order(down: bool) -> None:
    (one,) = lattices(cells(6, 9, (3, -8), (20, 30), down=down), (190, 180))
    assert (one.shape, one.order) == ((6, 9), "columns" if down else "rows")
    np.testing.assert_allclose(one.origin, (3, -8), atol=4)
    np.testing.assert_allclose(one.pitch, (20, 30), rtol=0.05)


def test_a_view_of_the_whole_and_its_tiles() -> None:
    tiles = [cells(4, 4, (x, y), (20, 20)) for y in (0, 80) for x in (0, 80)]
    found = lattices(np.concatenate([cells(4, 4, (0, 0), (40, 40)), *tiles]), (160, 160))
    assert found[0].shape == (4, 4)
    assert [one.start for one in found][:2] == [0, 16]
    assert sum(one.stop - one.start for one in found) == 80
    for one in found[1:]:
        np.testing.assert_allclose(one.pitch, (20, 20), rtol=0.1)


def test_a_separator_ends_a_grid_unless_each_row_has_one() -> None:
    """Two tiles below each other with a separator between them are two grids; a newline after each row cuts none."""
    below = np.concatenate([cells(2, 4, (0, 0), (20, 20)), cells(2, 4, (0, 40), (20, 20))])
    assert [one.shape for one in lattices(below, (80, 80), (7,))] == [(2, 4), (2, 4)]
    assert [one.shape for one in lattices(below, (80, 80), (3, 7, 11))] == [(4, 4)]


@pytest.mark.parametrize("weight", [0.01, 1.0])
def test_tokens_that_see_nothing_do_not_break_a_grid(weight: float) -> None:
    """Two rows of padding above the image: what leaks into them lies at the image's border, weak or strong."""
    boxes = cells(8, 8, (0, -40), (20, 20)).astype(float)
    outside = boxes[:, 3] <= 0
    boxes[outside, 1], boxes[outside, 3] = 0, 3
    one, *rest = cut_into_lattices(boxes, np.where(outside, weight, 1.0), gaps_of(64), (160, 120))
    assert not rest
    assert isinstance(one, Lattice)
    assert one.shape == (8, 8)
    np.testing.assert_allclose(one.origin, (0, -40), atol=2)
    assert one.loss.max() < 0.2


def test_a_weighted_median_by_hand() -> None:
    assert weighted_median(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 5.0])) == 2.0


@pytest.mark.parametrize("length", [200, 960])
def test_a_code_tells_any_interval(length: int) -> None:
    """One picture a bin for 40 bins; combs and a Gray code for 192."""
    code = stripes(length, 20)
    assert code.n == (40 if length == 200 else 24 + 2 * 3)
    low = np.array([0.0, 20, 45, length - 60])
    shares = np.stack([code.seen(low[i : i + 1], low[i : i + 1] + 40)[0] for i in range(4)])
    x0, x1, explained = intervals(3 * shares + 0.2, code)
    np.testing.assert_allclose(x0, low, atol=length / 80)
    np.testing.assert_allclose(x1, low + 40, atol=length / 80)
    assert (explained > 0.95).all()


def test_painted_pictures_take_their_stripes_from_the_other() -> None:
    size, code = (40, 24), stripes(24, 24)
    still, other = texture(size, 0), texture(size, 1)
    pictures = list(painted(still, other, code, 1))
    assert len(pictures) == 4
    np.testing.assert_array_equal(pictures[1][6:12], other[6:12])
    np.testing.assert_array_equal(np.delete(pictures[1], np.s_[6:12], 0), np.delete(still, np.s_[6:12], 0))


def tokens_of(boxes: np.ndarray, gaps: tuple[int, ...] = (), weak: tuple[int, ...] = ()) -> _Tokens:
    weight = np.ones(len(boxes))
    weight[list(weak)] = 0.01
    return _tokens(boxes, weight, gaps_of(len(boxes), gaps), (400, 400))


def test_a_grid_may_begin_where_tokens_turn_back() -> None:
    """Or where they are more than e^0.8 = 2.2 times as large, or behind another token; a weak one says nothing."""
    two = cells(2, 4, (0, 0), (20, 20))
    assert _turns(tokens_of(two)) == [0, 4, 8]
    assert _turns(tokens_of(two, (5,))) == [0, 4, 6, 8]
    assert _turns(tokens_of(two, weak=(4,))) == [0, 5, 8]
    for wide, turns in ((50, [0, 3, 6]), (40, [0, 6])):
        row = np.concatenate([cells(1, 3, (0, 0), (20, 20)), cells(1, 3, (60, 0), (wide, 20))])
        assert _turns(tokens_of(row)) == turns


@pytest.mark.parametrize(
    ("n", "turns", "runs", "gaps", "cuts"),
    [
        (7, [0, 7], [3], (), [0, 1, 3, 4, 6, 7]),  # runs of three from both ends
        (12, [0, 5, 12], [4, 3], (6,), [0, 3, 4, 6, 7, 8, 9, 12]),  # the turn at 5 has no other a run away
        # turns at 5, 9 and 12, and one longest run from these; the third run is not tried from the ends
        (12, [0, 5, 9, 12], [4, 3, 2], (), [0, 1, 3, 4, 5, 6, 8, 9, 12]),
    ],
)
def test_grids_are_cut_a_run_apart(n, turns, runs, gaps, cuts) -> None:
    assert _cuts(n, turns, runs, gaps_of(n, gaps)) == cuts


def lined(
    origin: float, n: int = 6, length: float = 200.0, usual: float = 15.0, pitch: float = 20.0
) -> tuple:
    """The line through the middles of cells as far as these lie in the image."""
    place = np.arange(n)
    low, high = (np.clip(origin + pitch * (place + end), 0, length) for end in (0, 1))
    return _line(place, (low + high) / 2, usual, np.ones(n), 1, length)


@pytest.mark.parametrize("origin", [3.0, -12.0, -19.0, 90.0])
def test_cells_that_the_border_cuts_do_not_move_the_line(origin: float) -> None:
    assert lined(origin) == pytest.approx((origin, 20), abs=1e-6)


def test_a_line_of_one_place_or_backwards() -> None:
    """Centres at 30, 34 and 31 in cells as wide as usual, 20: the median begins at 21."""
    assert _line(np.zeros(3, int), np.array([30.0, 34, 31]), 20.0, np.ones(3), 1, 99.0) == (21, 20)
    assert _line(np.arange(3), np.array([30.0, 20, 10]), 20.0, np.ones(3), 1, 99.0) == (0, -1)


def test_a_token_off_its_cell_costs_its_distance() -> None:
    """Of 3×4 cells of 20×20 px, one token lies 5 px off, a quarter of a cell, and one is e times as wide."""
    boxes = cells(3, 4, (20, 40), (20, 20))
    boxes[5, [0, 2]] += 5
    boxes[7, 0] -= 10 * (np.e - 1)
    boxes[7, 2] += 10 * (np.e - 1)
    one, cost = _fitted(tokens_of(boxes), 0, 12, 4, "rows")
    assert one is not None
    assert (one.start, one.stop, one.shape, one.order) == (0, 12, (3, 4), "rows")
    assert one.loss[[0, 5, 7]] == pytest.approx([0, 0.25, 0.5], abs=0.02)
    assert cost == pytest.approx(0.75, abs=0.1)
    assert _fitted(tokens_of(boxes[::-1]), 0, 12, 4, "rows") == (None, np.inf)


def test_one_grid_through_all_tokens() -> None:
    def found(boxes: np.ndarray, gaps: tuple[int, ...] = ()) -> list:
        given = boxes, np.ones(len(boxes)), gaps_of(len(boxes), gaps), (400.0, 400.0)
        return [(one.shape, one.order) for one in single_lattices(*given) if one.loss.max() < 0.01]

    grid = cells(3, 4, (20, 40), (20, 20))
    assert found(grid) == [((3, 4), "rows")]
    assert found(grid, (3, 7)) == [((3, 4), "rows")]  # newlines
    assert found(grid, (4,)) == []
    assert found(grid[:11]) == []  # rows of four do not fill eleven
    assert found(grid[:4]) == []  # a single row is no grid
