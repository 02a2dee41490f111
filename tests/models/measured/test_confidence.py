"""Confidence against footprints that are right and wrong by construction."""

import numpy as np

from interp.models.measured.confidence import probability
from interp.models.measured.decode import Profiles
from interp.models.measured.patterns import stripes


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
