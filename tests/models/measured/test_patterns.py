"""Codes of stripes, and the intervals that explain noiseless changes, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from interp.models.measured.patterns import (
    Code,
    Profiles,
    explained,
    intervals,
    matched,
    painted,
    read_off,
    stripes,
    texture,
)


def test_a_texture_is_grey_noise_in_blocks_of_four() -> None:
    found = texture((60, 40), 3)
    assert (found.shape, found.dtype) == ((40, 60, 3), np.uint8)
    blocks = found.reshape(10, 4, 15, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert abs(found.mean() - 127) < 15
    assert 26 < found.std() < 60  # three scales of 26 each: 45
    np.testing.assert_array_equal(found, texture((60, 40), 3))
    assert (found != texture((60, 40), 4)).any()


@pytest.mark.parametrize(
    ("length", "token", "n"), [(3, 100, 3), (100, 100, 4), (100, 20, 20), (101, 20, 21), (360, 20, 72)]
)
def test_few_bins_are_painted_one_by_one(length: int, token: float, n: int) -> None:
    """A quarter of a token each, at least four, none shorter than a pixel."""
    code = stripes(length, token)
    assert np.array_equal(code.masks, np.eye(n, dtype=bool))
    assert code.sparse.all()
    assert (code.n, code.length, code.edges[0]) == (n, length, 0)
    assert (np.diff(code.edges) >= 1).all()


def test_many_bins_are_painted_as_combs_and_a_gray_code() -> None:
    """73 bins in teeth of 24, 24, 24 and 1, numbered 0, 1, 3 and 2 in a Gray code of two bits."""
    code = stripes(365, 20)
    assert code.n == 24 + 4
    assert code.sparse.tolist() == [True] * 24 + [False] * 4
    assert np.flatnonzero(code.masks[0]).tolist() == [0, 24, 48, 72]
    assert np.flatnonzero(code.masks[23]).tolist() == [23, 47, 71]
    teeth = [[False, True, True, False], [False, False, True, True]]
    for bit, tooth in enumerate(teeth):
        assert code.masks[24 + bit, ::24].tolist() == tooth
        assert np.array_equal(code.masks[26 + bit], ~code.masks[24 + bit])


@pytest.mark.parametrize(("length", "bits"), [(365, 2), (480, 2), (481, 3), (960, 3), (961, 4)])
def test_a_gray_code_has_a_number_for_every_tooth(length: int, bits: int) -> None:
    """97 bins have five teeth, 193 nine."""
    code = stripes(length, 20)
    assert code.n == 24 + 2 * bits
    assert len({tuple(column) for column in code.masks.T.tolist()}) == code.masks.shape[1]


CODE = Code(
    np.array([0.0, 10, 30, 40]),
    np.array([[True, False, False], [False, True, True], [True, True, True], [False, False, False]]),
    np.array([True, True, False, False]),
)


def test_an_interval_is_painted_in_shares() -> None:
    low, high = np.array([5.0, 0, 35, 20]), np.array([15.0, 40, 60, 20])
    shares = [[0.5, 0.5, 1, 0], [0.25, 0.75, 1, 0], [0, 0.2, 0.2, 0], [0, 0, 0, 0]]
    assert CODE.seen(low, high) == pytest.approx(np.array(shares))


def test_leakage_is_the_mean_over_pictures_of_a_kind() -> None:
    given = np.array([[1.0, 3, 10, 30]])
    assert CODE.levelled(given).tolist() == [[-1, 1, -10, 10]]
    assert given.tolist() == [[1, 3, 10, 30]]
    alone = Code(CODE.edges, CODE.masks, np.ones(4, bool))
    assert alone.levelled(given).tolist() == [[-10, -8, -1, 19]]


def test_stripes_across_take_columns_of_the_other() -> None:
    still, other = np.zeros((2, 40, 3), np.uint8), np.full((2, 40, 3), 9, np.uint8)
    found = list(painted(still, other, CODE, 0))
    assert [np.flatnonzero(one[1, :, 2]).tolist() for one in found] == [
        [*range(10)],
        [*range(10, 40)],
        [*range(40)],
        [],
    ]


def looking(boxes: np.ndarray) -> Profiles:
    """Noiseless changes of tokens that look at these boxes of an image of 80×40 pixels."""
    codes = stripes(80, 10), stripes(40, 10)
    across, down = (3 * code.seen(boxes[:, a], boxes[:, a + 2]) + 0.2 for a, code in enumerate(codes))
    return Profiles(codes, (across, down))


def test_every_token_gets_its_own_rectangle() -> None:
    """300 tokens, more than are matched at once, with edges on bins of 2.5 pixels rounded to whole ones."""
    rng, size = np.random.default_rng(0), np.array([80, 40])
    edges = [stripes(int(n), 10).edges for n in size]
    low = np.stack([one[rng.integers(0, len(one) - 4, 300)] for one in edges], axis=1)
    high = np.stack([one[np.searchsorted(one, low[:, a]) + 3] for a, one in enumerate(edges)], axis=1)
    boxes = np.concatenate([low, high], axis=1)
    profiles = looking(boxes)
    found = read_off(profiles)
    assert found.boxes == pytest.approx(boxes)
    assert found.explained == pytest.approx(np.ones(300))
    assert explained(profiles, boxes) == pytest.approx(np.ones(300))


def test_the_worse_axis_says_how_much_is_explained() -> None:
    """Down, the token moves with a stripe far above its box too."""
    boxes = np.array([[10.0, 25, 20, 35]])
    profiles = looking(boxes)
    profiles.energies[1][0, 0] = 3.2
    assert read_off(profiles).explained[0] < 0.9
    share = matched(profiles.energies[1], profiles.codes[1], boxes[:, 1], boxes[:, 3])
    assert explained(profiles, boxes) == pytest.approx(share)
    assert share[0] < 0.9
    turned = Profiles(profiles.codes[::-1], profiles.energies[::-1])
    assert explained(turned, boxes[:, [1, 0, 3, 2]]) == pytest.approx(share)
    assert np.isnan(explained(profiles, np.full((1, 4), np.nan))).all()


def test_intervals_are_longer_than_a_pixel_and_a_half() -> None:
    """A token that looks at one pixel of 40 gets two: no interval of one is tried."""
    code = stripes(40, 4)
    (low, high, share) = intervals(code.seen(np.array([7.0]), np.array([8.0])), code)
    assert high[0] - low[0] == 2
    assert low[0] in (6, 7)
    assert share[0] == pytest.approx(
        19 / 39, abs=0.01
    )  # the squared cosine of 1 and 2 of 40 levelled pictures
    assert matched(-code.seen(low, high), code, low, high).tolist() == [0]
