"""Boxes laid by hand, with noise, cut into the grids they came from."""

import numpy as np
import pytest

from interp.models.measured.lattice import Lattice, cut_into_lattices, weighted_median
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
