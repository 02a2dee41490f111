"""Which tokens a map keeps."""

from __future__ import annotations

import numpy as np
import pytest

from interp.errors import MapError, MethodError
from interp.methods import above_magnitude, kept_tokens


def by_hand(values: list[float], percentile: float) -> list[bool]:
    ordered, place = sorted(values), percentile / 100 * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    threshold = ordered[low] + (place - low) * (ordered[high] - ordered[low])
    return [value >= threshold for value in values]


@pytest.mark.parametrize("percentile", [0, 10, 30, 50, 75, 80, 90, 100])
def test_the_percentile_is_linear_between_neighbours(percentile):
    values = np.random.default_rng(0).permutation(np.arange(1.0, 12.0))
    assert kept_tokens(values, percentile).tolist() == by_hand(values.tolist(), percentile)


@pytest.mark.parametrize(
    ("values", "percentile", "kept"),
    [
        ([4.0, 1.0, 3.0, 2.0, 5.0], 50, [1, 0, 1, 0, 1]),  # the median itself stays
        ([4.0, 1.0, 3.0, 2.0], 50, [1, 0, 1, 0]),  # 2.5
        ([4.0, 1.0, 3.0, 2.0, 5.0], 0, [1, 1, 1, 1, 1]),
        ([4.0, 1.0, 5.0, 2.0, 5.0], 100, [0, 0, 1, 0, 1]),
        ([2.0, 2.0, 2.0, 2.0], 80, [1, 1, 1, 1]),  # nothing is below
        ([1.0, 2.0, 2.0, 2.0, 3.0], 50, [0, 1, 1, 1, 1]),  # ties with the percentile stay
        ([0.0, 0.0, 0.0, 0.0, 7.0], 50, [1, 1, 1, 1, 1]),  # more zeros than the percentile drops
        ([0.0, 0.0, 3.0, 2.0, 7.0], 50, [0, 0, 1, 1, 1]),
        ([0.0], 80, [1]),
    ],
)
def test_what_is_strictly_below_is_dropped(values, percentile, kept):
    assert kept_tokens(np.array(values), percentile).tolist() == [bool(one) for one in kept]


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_the_scale_of_a_map_does_not_matter(scale):
    values = np.random.default_rng(1).random(24)
    np.testing.assert_array_equal(kept_tokens(values * scale, 80), kept_tokens(values, 80))


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.zeros(0), np.array([1.0, np.nan])])
def test_other_maps_are_refused(unchecked, values):
    with pytest.raises(MapError, match=r"finite values over the image tokens, shape \(token,\); got shape"):
        kept_tokens(values, 80)
    with pytest.raises(MapError, match=r"finite values over the image tokens, shape \(token,\); got shape"):
        above_magnitude(values, 0.5)


@pytest.mark.parametrize(
    ("values", "threshold", "kept"),
    [
        ([4.0, 2.0, 3.0, 6.0], 0.5, [1, 0, 0, 1]),  # scaled 0.5, 0, 0.25, 1: equal to the threshold stays
        ([4.0, 2.0, 3.0, 6.0], 0.0, [1, 1, 1, 1]),
        ([4.0, 2.0, 3.0, 6.0], 1.0, [0, 0, 0, 1]),
        ([2.0, 2.0, 2.0], 0.9, [1, 1, 1]),  # nothing to scale by
        ([0.0], 1.0, [1]),
    ],
)
def test_a_magnitude_is_on_the_map_scaled_to_0_and_1(values, threshold, kept):
    assert above_magnitude(np.array(values), threshold).tolist() == [bool(one) for one in kept]
    assert above_magnitude(np.array(values) * 2.0**-40, threshold).tolist() == [bool(one) for one in kept]


def test_a_magnitude_outside_0_and_1_is_refused(unchecked):
    with pytest.raises(
        MethodError, match="magnitude_threshold is a finite number of at least 0 and at most 1; got 80"
    ):
        above_magnitude(np.arange(3.0), 80)
