from __future__ import annotations

import pytest

from interp.errors import StudyError
from interp.study.knockout_sweep.flows import usual_width, windows


@pytest.mark.parametrize("width", range(1, 8))
def test_windows_are_gevas(width: int) -> None:
    n = 7
    expected = [tuple(range(max(0, i - width // 2), min(n, i - (-width // 2)))) for i in range(n)]
    assert [window.layers for window in windows(n, width)] == expected
    assert [window.layer for window in windows(n, width)] == list(range(n))


def test_an_even_window_has_one_more_layer_below() -> None:
    assert [(w.layer, w.first, w.last) for w in windows(12, 4, 5)] == [(0, 0, 1), (5, 3, 6), (10, 8, 11)]


@pytest.mark.parametrize("n", range(1, 81))
def test_the_usual_width_is_odd_and_fits(n: int) -> None:
    width = usual_width(n)
    assert 1 <= width <= n
    assert width % 2 == 1 or n == 2
    assert n < 12 or abs(width - 9 * n / 32) <= 1


def test_a_window_wider_than_the_model_is_refused() -> None:
    with pytest.raises(StudyError, match="window is at most the model's 6 layers; got 7"):
        windows(6, 7)
