"""Where paint goes, which tokens are probed, and the groups they are judged by."""

from __future__ import annotations

import numpy as np
import pytest

from interp.conformance.footprint_checks import _widest_gap, choose, groups_of
from interp.conformance.subject import inner_box, repainted, shapes, smooth
from interp.errors import ModelError
from interp.inputs.footprints import Footprints, concatenate, lay
from interp.inputs.tokens import TokenMap


def tokens_of(found: Footprints, size: tuple[int, int]) -> TokenMap:
    n = len(found)
    return TokenMap(
        image=np.arange(n),
        footprints=found.boxes,
        grid=found.grid,
        views=found.views,
        image_index=found.image,
        sizes=(size,) * (int(found.image.max()) + 1),
        length=n,
    )


def test_shapes_are_square_wide_tall_and_tiny_with_odd_sides():
    found = shapes(100)
    assert found == [(101, 101), (241, 91), (81, 211), (31, 23)]
    assert smooth((81, 211), 0).shape == (211, 81, 3)
    assert not np.array_equal(smooth((9, 9), 0), smooth((9, 9), 1))


@pytest.mark.parametrize(
    ("footprint", "box"),
    [
        ([0, 0, 10, 20], (1, 2, 9, 18)),
        ([3.5, 3.5, 9.5, 9.5], (5, 5, 8, 8)),  # whole pixels, a tenth of a side away
        ([2.2, 4.0, 2.9, 5.0], (2, 4, 3, 5)),  # less than a pixel: that of the centre
        ([2.6, 0.0, 3.4, 9.0], (3, 1, 4, 8)),
    ],
)
def test_paint_stays_well_inside_the_footprint(footprint, box):
    assert inner_box(np.array(footprint, float)) == box


def test_paint_is_unlike_what_was_there_and_only_in_the_box():
    picture = np.full((6, 8, 3), (30, 200, 128), np.uint8)
    painted = repainted(picture, (2, 1, 5, 4))
    assert painted[1:4, 2:5].reshape(-1, 3).tolist() == [[255, 0, 0]] * 9
    painted[1:4, 2:5] = picture[1:4, 2:5]
    assert np.array_equal(painted, picture)
    with pytest.raises(ModelError, match=r"pixels \(6, 1, 9, 4\).*outside its image of 8×6.*the right image"):
        repainted(picture, (6, 1, 9, 4))


def test_tokens_without_area_and_slivers_are_not_probed():
    cells = lay((40, 40), (4, 4), (-1.0, 0.0, 55.0, 40.0))  # the last column sees nothing, the third a sliver
    boxes = cells.boxes
    assert np.isnan(boxes[3]).all()
    chosen = choose(tokens_of(cells, (40, 40)), 64, 0)
    widths = boxes[chosen, 2] - boxes[chosen, 0]
    assert len(chosen) == 12
    assert (widths > 4).all()


def test_only_tokens_of_the_asked_image_are_probed():
    parts = [lay((40, 40), (3, 3), (0.0, 0.0, 40.0, 40.0)), lay((40, 40), (2, 2), (0.0, 0.0, 40.0, 40.0))]
    tokens = tokens_of(concatenate(parts), (40, 40))
    assert [choose(tokens, 64, 0, image=i).tolist() for i in range(2)] == [[*range(9)], [*range(9, 13)]]


def test_many_tokens_are_probed_evenly():
    tokens = tokens_of(lay((240, 240), (24, 24), (0.0, 0.0, 240.0, 240.0)), (240, 240))
    chosen = choose(tokens, 64, 0)
    assert len(chosen) == 72  # three in each row and column
    assert np.bincount(chosen // 24).tolist() == [3] * 24
    assert np.bincount(chosen % 24).tolist() == [3] * 24


def test_groups_are_rows_columns_and_tiles():
    left = lay((40, 20), (2, 2), (0.0, 0.0, 20.0, 20.0), view="tile")
    right = lay((40, 20), (2, 2), (20.0, 0.0, 40.0, 20.0), view="tile")
    whole = lay((40, 20), (2, 2), (0.0, 0.0, 40.0, 20.0), view="base")
    tokens = tokens_of(concatenate([left, right, whole], one_image=True), (40, 20))
    found = {name: at.tolist() for name, at in groups_of(tokens, np.arange(8)).items()}
    assert found == {
        "row 0": [0, 1, 4, 5],
        "row 1": [2, 3, 6, 7],
        "column 0": [0, 2],
        "column 1": [1, 3],
        "column 2": [4, 6],
        "column 3": [5, 7],
        "run 0": [0, 1, 2, 3],
        "run 1": [4, 5, 6, 7],
    }


def test_the_widest_gap_is_a_missing_token_or_a_strip():
    boxes = lay((40, 40), (4, 4), (0.0, 0.0, 40.0, 40.0)).boxes
    assert _widest_gap(boxes) == 0
    assert _widest_gap(np.delete(boxes, 5, axis=0)) == pytest.approx(1)
    strips = np.concatenate(
        [lay((50, 20), (2, 2), (x, 0.0, x + 20.0, 20.0)).boxes for x in (0.0, 24.0)]  # 4 of 10 px stay free
    )
    assert _widest_gap(strips) == pytest.approx(0.4)
