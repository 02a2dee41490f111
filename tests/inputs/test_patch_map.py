"""Patches and tokens by hand: who is made of whom, means in both directions, places in the tower."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.errors import MapError, SiteError
from interp.inputs.footprints import squash
from interp.inputs.patch_map import Patches, PatchMap, PatchWeights, TowerSequence

MEMBERS = PatchWeights.members([[0, 1], [], np.array([1, 2, 3, 5])], 6)  # nobody holds patch 4


def test_members_share_a_token_alike() -> None:
    quarter = [0, 0.25, 0.25, 0.25, 0, 0.25]
    assert MEMBERS.matrix().tolist() == [[0.5, 0.5, 0, 0, 0, 0], [0] * 6, quarter]
    nothing = PatchWeights.members([], 3)
    assert (nothing.shape, nothing.matrix().shape) == ((0, 3), (0, 3))


def test_a_token_is_the_mean_of_its_patches() -> None:
    values = torch.tensor([[1.0, 3, 5, 7, 100, 9], [0, 0, 4, 0, 0, 0]], requires_grad=True)
    found = MEMBERS.to_tokens(values)
    np.testing.assert_array_equal(found, [[2, np.nan, 6], [0, np.nan, 1]])
    np.testing.assert_array_equal(MEMBERS.to_tokens(np.ones((0, 2, 6))), np.empty((0, 2, 3)))


def test_a_patch_is_the_weighted_mean_of_its_tokens() -> None:
    """Patch 1 is half of the first token and a quarter of the third: (½ · 3 + ¼ · 9) / ¾ = 5."""
    found = MEMBERS.to_patches([[3.0, 100.0, 9.0]])
    np.testing.assert_allclose(found, [[3, 5, 9, 9, np.nan, 9]])


@pytest.mark.parametrize("values", [np.ones(5), np.float64(1.0), np.ones((6, 2)), ["a"] * 6, None])
def test_another_number_of_values_is_refused(values, unchecked: None) -> None:
    with pytest.raises(MapError, match=r"per patch"):
        MEMBERS.to_tokens(values)
    with pytest.raises(MapError, match=r"per image token"):
        MEMBERS.to_patches(values)
    with pytest.raises(MapError, match=r"one value per image token, \(…, 3\); got \(6,\)"):
        MEMBERS.to_patches(np.ones(6))


def test_stacked_blocks_keep_patches_of_their_own() -> None:
    stacked = PatchWeights.stacked([MEMBERS, PatchWeights.members([[1], [0, 1]], 2)])
    expected = np.zeros((5, 8))
    expected[:3, :6] = MEMBERS.matrix()
    expected[3, 7], expected[4, 6:] = 1, 0.5
    np.testing.assert_array_equal(stacked.matrix(), expected)
    assert PatchWeights.stacked([]).shape == (0, 0)


def patches(*, at_end: bool = False, grids: tuple[tuple[int, int], ...] = ((1, 2), (1, 2))) -> Patches:
    """A sequence for each of the images of 8×4, with a class token; the first takes its patches backwards."""
    cells = [squash((8, 4), grid) for grid in grids]
    n = sum(len(one) for one in cells)
    sequences = [TowerSequence(cells[0], np.arange(len(cells[0]))[::-1])]
    sequences += [TowerSequence(one) for one in cells[1:]]
    return Patches(
        tuple(sequences), ("cls", "register"), PatchWeights.members([[i] for i in range(n)], n), True, at_end
    )


@pytest.mark.parametrize(
    ("at_end", "slots"), [(False, [0, 1, 3, 2, 4, 5, 6, 7]), (True, [2, 3, 1, 0, 6, 7, 4, 5])]
)
def test_positions_are_row_major_whatever_the_tower_does(at_end: bool, slots: list[int]) -> None:
    found = PatchMap.of(patches(at_end=at_end), [(8, 4), (8, 4)])
    assert found.image.tolist() == [2, 3, 6, 7]
    assert found.positions("patches").tolist() == found.positions("image").tolist() == [2, 3, 6, 7]
    assert found.positions("cls").tolist() == [0, 4]
    assert found.positions("register").tolist() == [1, 5]
    assert found.sequence.tolist() == [0] * 4 + [1] * 4
    assert found.slots.tolist() == slots
    assert (found.length, found.grid, found.padded) == (8, (1, 2), True)
    assert found.labels.tolist() == ["cls", "register", "", ""] * 2
    assert repr(found) == "PatchMap(4 patches and 4 other tokens in 2 sequences, grid (1, 2))"
    with pytest.raises(SiteError, match=r"'all', 'patches', 'cls', 'register', interp.positions.*got 'last'"):
        found.positions("last")


def test_an_order_of_places_is_turned_into_places() -> None:
    """The tower takes patches 2, 0, 1: so patch 0 is second, patch 1 third and patch 2 first."""
    one = TowerSequence(squash((6, 2), (1, 3)), np.array([2, 0, 1]))
    weights = PatchWeights.members([[0], [1], [2]], 3)
    assert PatchMap.of(Patches((one,), (), weights), [(6, 2)]).slots.tolist() == [1, 2, 0]


def test_sequences_of_several_grids_have_none() -> None:
    assert PatchMap.of(patches(grids=((1, 2), (2, 2))), [(8, 4), (8, 4)]).grid is None


def test_weights_of_another_number_of_patches_are_refused() -> None:
    own = patches()
    wrong = Patches(own.sequences, own.leading, PatchWeights.members([[0]], 3))
    with pytest.raises(MapError, match=r"describes 4 patches, but the weights .* are of 3"):
        PatchMap.of(wrong, [(8, 4), (8, 4)])
