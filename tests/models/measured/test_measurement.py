"""Which measurements are used: each rule at its limit and just beyond it, by hand; and tokens that no image changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from interp.errors import ModelError
from interp.inputs.footprints import Footprints
from interp.models.measured import Measurement
from interp.models.measured.embedder import Embedder
from interp.models.measured.lattice import Lattice
from interp.models.measured.measured_family import _of_all
from interp.models.measured.measured_views import View
from interp.models.measured.measurement import (
    _agreement,
    _change,
    _cost,
    _energies,
    _footprints,
    _profiles,
    _seen,
    scan,
)
from interp.models.measured.patterns import Code, Raw, stripes


def measured(**more: Any) -> Measurement:
    """Two tokens side by side, of which everything can be told."""
    lattice = Lattice(0, 2, 2, "rows", np.zeros(2), np.full(2, 10.0), np.zeros(2))
    view = View(np.arange(2), lattice.places, np.zeros(2), np.full(2, 10.0), (lattice,))
    boxes = np.array([[0, 0, 10, 10], [10, 0, 20, 10]], float)
    seen = Footprints(boxes, (1, 2), np.full(2, ""), np.zeros(2, int))
    return replace(Measurement((20, 10), np.arange(2), seen, np.ones(2), boxes, (view,), 0.0, 1), **more)


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ({"confidence": np.array([0.25, 1.0])}, {"confidence": np.array([0.19, 1.0])}, "at least 60% is"),
        ({"stray": 0.1}, {"stray": 0.11}, "11% of them lie in no grid"),
        ({"lean": 0.119}, {"lean": 0.12}, "sees 12% more on one side"),
        ({"least": 0.5}, {"least": 0.49}, "tokens of one view 49%"),
        ({"line": 0.35}, {"line": 0.34}, "one row or column 34%"),
        ({"spanned": 0.8}, {"spanned": 0.79}, "span 79% of the image"),
        ({"agreement": 0.75}, {"agreement": 0.74}, r"agree to 74% \(at least 75%"),
        ({"agreement": 0.75, "kept": 0.7}, {"agreement": 0.75, "kept": 0.69}, r"agree to 75% \(at least 80%"),
        ({"agreement": 0.8, "kept": 0.69}, {"agreement": 0.79, "kept": 0.69}, r"agree to 79% \(at least 80%"),
        ({"kept": 0.5}, {"kept": 0.49}, "footprints explain 49%"),
    ],
)  # fmt: skip
def test_each_doubt_alone_forbids_the_use(good: dict[str, Any], bad: dict[str, Any], said: str) -> None:
    assert measured(**good).sure
    measured(**good).check()
    (doubt,) = measured(**bad).doubts
    with pytest.raises(ModelError, match=said) as error:
        measured(**bad).check()
    assert doubt in str(error.value)


@pytest.mark.parametrize(
    "bad", [{"least": 0.49}, {"line": 0.34}, {"spanned": 0.79}, {"agreement": 0.74}, {"kept": 0.49}]
)
def test_grids_are_consistent_if_every_number_is(bad: dict[str, float]) -> None:
    assert measured(
        stray=1.0, lean=1.0, confidence=np.zeros(2)
    ).consistent  # those are no matter of the grids
    assert not measured(**bad).consistent
    limits = {"least": 0.5, "line": 0.35, "spanned": 0.8, "agreement": 0.8, "kept": 0.5}
    assert measured(**limits).consistent
    assert not measured(**{**limits, "agreement": 0.79}).consistent
    assert measured(**{**limits, "agreement": 0.75, "kept": 0.7}).consistent


def test_footprints_that_are_nowhere_are_not_trusted() -> None:
    none = Footprints(np.full((2, 4), np.nan), None, np.full(2, ""), np.zeros(2, int))
    assert measured(footprints=none).trust == 0
    half = Footprints(np.array([[0, 0, 9, 9], [np.nan] * 4]), None, np.full(2, ""), np.zeros(2, int))
    assert measured(footprints=half, confidence=np.array([0.9, 0.5])).trust == pytest.approx(0.7)


def test_a_change_is_summed_over_textures_and_axes() -> None:
    """Means over pictures 1 + 2 + 3 + 5, and a share of the median token's, 1 at most."""
    energies = [[np.array([[0.0, 2.0], [4, 4], [0, 0]]), np.array([[2.0], [4], [4]])],
                [np.array([[3.0], [4], [0]]), np.array([[5.0, 5.0], [0, 20], [0, 0]])]]  # fmt: skip
    assert _change(energies).tolist() == [11, 22, 4]
    assert _seen(energies).tolist() == pytest.approx([1, 1, 4 / 11])


def test_a_token_that_nothing_changes_belongs_to_the_one_before() -> None:
    one = measured()
    first, second = replace(one, positions=np.array([3, 4])), replace(one, positions=np.array([6, 7]))
    found = _of_all([first, second], np.array([2, 3, 4, 5, 6, 7, 8]))
    assert found.image.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert np.isnan(found.boxes[:, 0]).tolist() == [True, False, False, True, False, False, True]
    assert found.boxes[4].tolist() == [0, 0, 10, 10]
    assert found.grid is None
    assert _of_all([one], np.arange(2)).grid == (1, 2)
    assert _of_all([one], np.arange(3)).grid is None


def grid(start: int, shape: tuple[int, int], order: Any = "rows", x: float = 0.0) -> View:
    """A view of cells of 10×10 pixels; every second token of it lies half a cell off."""
    n, fast = shape[0] * shape[1], shape[order == "rows"]
    lattice = Lattice(
        start, start + n, fast, order, np.array([x, 0]), np.full(2, 10.0), np.arange(n) % 2 * 0.5
    )
    return View(np.arange(start, start + n), lattice.places, lattice.origin, lattice.pitch, (lattice,))


def test_footprints_have_a_grid_where_there_is_one_by_rows() -> None:
    one = _footprints([grid(0, (2, 3))], 6, (30, 20))
    assert (one.grid, one.views.tolist(), one.image.tolist()) == ((2, 3), [""] * 6, [0] * 6)
    assert one.boxes[[1, 3]].tolist() == [[10, 0, 20, 10], [0, 10, 10, 20]]
    assert _footprints([grid(0, (2, 3), "columns")], 6, (30, 20)).grid is None
    stray = _footprints([grid(0, (2, 3))], 7, (30, 20))
    assert stray.grid is None
    assert np.isnan(stray.boxes[6]).all()
    half = grid(0, (2, 3))
    assert _footprints([replace(half, lattices=half.lattices * 2)], 6, (30, 20)).grid is None
    two = _footprints([grid(0, (1, 2)), grid(2, (1, 2), x=20)], 5, (40, 10))
    assert two.grid is None
    assert two.views.tolist() == ["view 0"] * 2 + ["view 1"] * 2 + [""]
    assert two.boxes[:4, 0].tolist() == [0, 10, 20, 30]


def test_grids_cost_their_misfit_and_their_number() -> None:
    """Two of four tokens half a cell off, with 3 for the grid; 6 more for a row; 10 for each token in none."""
    square, row = grid(0, (2, 2)).lattices[0], grid(4, (1, 2)).lattices[0]
    weight = np.full(8, 7.0)
    assert _cost([square], weight[:4]) == 3 + 1
    assert _cost([square, row, (6, 8)], weight) == 3 + 1 + 9 + 0.5 + 20
    weight = np.array([0.0, 3, 0, 1])  # of the mean, 3 and 1
    assert _cost([square], weight) == 3 + 1.5 + 0.5


def test_textures_agree_by_the_distance_in_cells() -> None:
    """Half a cell off, a cell off in y, and a narrow token, which counts as half as wide as the median."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [4, 0, 6, 10]], float)
    moved = boxes + np.array([[0, 0, 0, 0], [5, 0, 5, 0], [5, -10, 5, -10], [5, 0, 5, 0]])
    one, other = (Raw(each, np.ones(4)) for each in (boxes, moved))
    assert _agreement([one, other], one) == pytest.approx(np.exp([0, -1, -4, -4]))


def test_profiles_are_sums_over_textures_in_units_of_their_mean() -> None:
    codes = stripes(20, 20), stripes(20, 20)
    energies = [
        [np.array([[1.0, 3.0]]), np.array([[0.0, 9.0]])],
        [np.array([[3.0, 13.0]]), np.array([[4.0, 0.0]])],
    ]
    across, down = _profiles(energies, codes, 0.5).energies
    assert across == pytest.approx(np.array([[2, 4]]) / 3)
    assert down == pytest.approx(np.array([[2, 3]]) / 2.5)


def test_a_refused_measurement_lists_forty_tokens() -> None:
    views = (
        grid(0, (2, 3)),
        replace(grid(6, (6, 6), "columns"), lattices=grid(0, (2, 3), "columns").lattices * 2),
    )
    boxes = np.tile([0.0, 1, 2, 3], (42, 1))
    boxes[1] = np.nan
    seen = Footprints(boxes, None, np.full(42, ""), np.zeros(42, int))
    one = measured(
        positions=np.arange(42), footprints=seen, raw=boxes, confidence=np.full(42, 0.1), views=views
    )
    assert one.layout == "2×3 by rows, 6×6 by columns in 2 parts"
    said = (
        r"2×3 by rows.*0: \[0, 1, 2, 3\] 0\.10; 1: \[–, –, –, –\] 0\.10; .*39: \[.*\] 0\.10; and 2 more\. A"
    )
    with pytest.raises(ModelError, match=said):
        one.check()


def embedding(of: Any) -> Any:
    """What embeds samples by this function."""
    kind: Any = type("Given", (Embedder,), {"__call__": lambda self, samples: (of(one) for one in samples)})
    return kind.__new__(kind)


def halves(pictures: Any) -> np.ndarray:
    """A word, the left and right half of the first picture, and the quarters of the second."""
    first, second = (np.asarray(one, float).mean(axis=2) for one in pictures)
    quarters = [part for half in np.split(second, 2) for part in np.split(half, 2, axis=1)]
    return np.array([[0.0], *([one.mean()] for one in (*np.split(first, 2, axis=1), *quarters))])


def test_a_scan_paints_one_picture_of_a_sample() -> None:
    """Four tokens, too few to tell leakage from what they see."""
    sizes = [(40, 20), (60, 80)]
    found = scan(embedding(halves), sizes, 1)
    assert (found.size, found.positions.tolist()) == ((60, 80), [3, 4, 5, 6])
    assert [code.length for code in found.codes] == [60, 80]
    assert found.n_images == len(found.energies) * (2 + found.codes[0].n + found.codes[1].n)
    for across, down in found.energies:
        left = found.codes[0].masks[:, found.codes[0].edges[1:] > 30].any(axis=1) == 0
        upper = found.codes[1].masks[:, found.codes[1].edges[1:] > 40].any(axis=1) == 0
        assert not across[1::2][:, left].any()
        assert across[::2][:, left].any()
        assert not down[2:][:, upper].any()
        assert down[:2][:, upper].any()
    assert (scan(embedding(halves), sizes, 0).size, len(scan(embedding(halves), sizes).positions)) == (
        (40, 20),
        2,
    )
    with pytest.raises(ModelError, match="nothing that enters the language model changes"):
        scan(embedding(lambda _: np.zeros((3, 1))), sizes)


@pytest.mark.parametrize(("n", "sparse", "first", "other"), [(6, 4, 0, 9), (6, 1, 1, 16), (4, 1, 1, 16)])
def test_what_all_tokens_change_by_is_leakage(n: int, sparse: int, first: float, other: float) -> None:
    """All change by 1, the last by 4: by 3 more where few see the stripes; four tokens are too few to tell."""
    code = Code(np.array([0.0, 1, 2]), np.eye(2, dtype=bool), np.array([True, sparse == 4]))
    moved = np.ones((n + 1, 1))
    moved[-1] = 4
    found = _energies(embedding(lambda _: moved), [0, 0], np.zeros((n + 1, 1)), np.arange(1, n + 1), code)
    assert found.shape == (n, 2)
    assert found[[0, -1], 1].tolist() == [first, other]
    assert found[0, 0] == (0 if n > 4 else 1)
