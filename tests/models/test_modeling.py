"""Towers at several sizes, VILA's merging of patches and the first InternVL's shuffle, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from interp.models.modeling import InternVLV1Model, ScalesTower, VilaProcessor, VilaProjector, tokens_along


@pytest.mark.parametrize(
    ("pixels", "tokens"), [(28, 1), (41, 1), (42, 2), (56, 2), (69, 2), (70, 3), (27, 1), (13, 0)]
)
def test_a_token_is_two_whole_patches_or_the_last(pixels: int, tokens: int) -> None:
    assert tokens_along(pixels, 14) == tokens


def test_vilas_processor_counts_rows_and_columns() -> None:
    one: Any = SimpleNamespace(patch_size=14, image_token="<i>")
    images = [np.zeros((3, 14, 14)), np.zeros((3, 42, 84))]
    assert VilaProcessor.replace_image_token(one, {"pixel_values": images}, 1) == "<i>" * (2 * 3)


def joined(values: torch.Tensor) -> list[list[float]]:
    """What VILA's projector makes of patches of one channel, before its layers."""
    made = VilaProjector.__new__(VilaProjector)
    nn.Module.__init__(made)
    for name in ("layer_norm", "linear_1", "act", "linear_2"):
        setattr(made, name, nn.Identity())
    return made(values.reshape(1, -1, 1))[0].tolist()


def test_patches_are_merged_two_by_two_down_the_columns() -> None:
    """A grid of 4×4 patches 0 to 15, then one of 3×3, which gets zeros below and to the right."""
    assert joined(torch.arange(16.0)) == [[0, 1, 4, 5], [8, 9, 12, 13], [2, 3, 6, 7], [10, 11, 14, 15]]
    assert joined(torch.arange(1.0, 10)) == [[1, 2, 4, 5], [7, 8, 0, 0], [3, 0, 6, 0], [9, 0, 0, 0]]


def test_the_first_shuffle_is_the_second_turned() -> None:
    """Tokens of 2×2 patches of a grid of 4×2: the second version has two rows, the first two columns."""
    grid = torch.arange(8.0).reshape(1, 4, 2, 1)
    found = InternVLV1Model.pixel_shuffle(InternVLV1Model.__new__(InternVLV1Model), grid, 0.5)
    assert found.shape == (1, 1, 2, 4)
    assert [sorted(token) for token in found[0, 0].tolist()] == [[0, 1, 2, 3], [4, 5, 6, 7]]


class Means(nn.Module):
    """A tower of 2×2 patches without weights: a class token of −1, and the mean of each patch, after layer 1."""

    def forward(self, pixels: torch.Tensor, **_: Any) -> Any:
        patches = nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(2).transpose(1, 2)
        seen = torch.cat([torch.full_like(patches[:, :1], -1), patches], dim=1)
        return SimpleNamespace(hidden_states=(seen * 0, seen, seen * 9))


def test_each_size_sees_the_whole_image_in_the_same_grid() -> None:
    """Two images whose quarters are even: tiles of the larger size are joined and averaged to 2×2 patches again."""
    quarters = torch.tensor([[[1.0, 2], [3, 4]], [[5, 6], [7, 8]]])
    pixels = quarters.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    tower = ScalesTower.__new__(ScalesTower)
    nn.Module.__init__(tower)
    tower.tower, tower.scales, tower.layer = Means(), [32, 64], 1
    small, large = tower(pixels).hidden_states
    assert small.shape == large.shape == (2, 4, 1)
    torch.testing.assert_close(small[..., 0], quarters.flatten(1))
    torch.testing.assert_close(large[..., 0], quarters.flatten(1), atol=0.1, rtol=0)  # bicubic edges
