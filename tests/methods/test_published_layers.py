"""Published layers at other depths."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from interp.errors import MethodError
from interp.methods import scaled_layers
from interp.methods.published_layers import chosen_layers, editable_layers

PAI, HGAI, VGREFINE = range(2, 32), range(5, 19), range(16, 17)


@pytest.mark.parametrize(
    ("published", "depth", "n_layers", "expected"),
    [
        (PAI, 32, 32, range(2, 32)),
        (PAI, 32, 28, range(2, 28)),  # 1.75 → 2
        (PAI, 32, 40, range(3, 40)),  # 2.5 → 3, not 2: halves go up
        (PAI, 32, 60, range(4, 60)),  # 3.75 → 4
        (PAI, 32, 6, range(6)),  # 0.375 → 0
        (PAI, 32, 8, range(1, 8)),  # 0.5 → 1, not 0
        (HGAI, 32, 32, range(5, 19)),
        (HGAI, 32, 28, range(4, 17)),  # 4.375 → 4, 16.625 → 17
        (HGAI, 32, 6, range(1, 4)),  # 0.94 → 1, 3.56 → 4
        (HGAI, 32, 1, range(1)),  # 0.16 → 0, 0.59 → 1
        (VGREFINE, 28, 28, [16]),
        (VGREFINE, 28, 6, [3]),  # 3.43
        (VGREFINE, 28, 60, [34]),  # 34.29, one layer although 34.29 … 36.43 is two wide
        (VGREFINE, 28, 32, [18]),  # 18.29
        (VGREFINE, 28, 1, [0]),  # 0.57 → 1, beyond the last layer
        (range(31, 32), 32, 3, [2]),
        ([0], 4, 9, [0]),
        (range(1, 3), 32, 4, [0]),  # 0.125 and 0.375 → 0, and a range has a layer
    ],
)
def test_layers_keep_their_fraction_of_the_depth(published, depth, n_layers, expected):
    assert scaled_layers(published, depth=depth, n_layers=n_layers) == tuple(expected)


@pytest.mark.parametrize("n_layers", range(1, 101))
def test_a_layers_depth_is_rounded_and_ranges_are_never_empty(n_layers):
    nearest = min(math.floor(16 / 28 * n_layers + 0.5), n_layers - 1)
    assert scaled_layers(VGREFINE, depth=28, n_layers=n_layers) == (nearest,)
    for published in (PAI, HGAI, range(31, 32), range(30, 32)):
        found = scaled_layers(published, depth=32, n_layers=n_layers)
        assert found
        assert found == tuple(range(found[0], found[-1] + 1))
        assert found[-1] < n_layers


def test_layers_that_are_given_win():
    assert chosen_layers([7, 1], PAI, depth=32, n_layers=6) == (7, 1)
    assert chosen_layers(None, PAI, depth=32, n_layers=6) == tuple(range(6))


@pytest.mark.parametrize("published", [[], [3, 5], [5, 4], [30, 31, 32], [-1, 0]])
def test_published_layers_are_consecutive_and_inside(published):
    with pytest.raises(MethodError, match=r"consecutive and lie in 0 … 31, .*got \["):
        scaled_layers(published, depth=32, n_layers=6)


def test_a_model_has_layers():
    with pytest.raises(
        MethodError, match=r"n_layers, a number of decoder layers, is a whole number of at least 1 .*; got 0"
    ):
        scaled_layers(PAI, depth=32, n_layers=0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("layers", "given", "expected"),
    [
        ((7, 3), None, (7, 3)),
        (range(2, 9), None, (3, 7)),  # of the published ones those with a softmax
        ((4,), None, (3,)),
        ((6,), None, (7,)),
        ((5,), None, (7,)),  # the later of two equally near ones
        ((9, 10), None, (11,)),  # near the first
        ((0, 1), None, (3,)),
        ((30,), None, (11,)),
        ((5, 7), [5, 7], (5, 7)),  # what was asked for stays, and is refused later
    ],
)
def test_a_hybrid_model_is_edited_where_it_attends(
    layers: Any, given: Any, expected: tuple[int, ...]
) -> None:
    hybrid: Any = SimpleNamespace(attention_layers=(3, 7, 11))
    assert editable_layers(hybrid, layers, given) == expected
