"""Maps brought to pixels as torch does it, and thresholds against trying every one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from interp.errors import MapError
from interp.indicators import map_mask, otsu_threshold, upsampled
from interp.inputs.footprints import Footprints, concatenate, lay, pad_to_square, squash
from interp.inputs.tokens import TokenMap

RNG = np.random.default_rng(0)


def tokens_of(found: Footprints, *sizes: tuple[int, int]) -> TokenMap:
    n = len(found.boxes)
    return TokenMap(np.arange(n), found.boxes, None, found.views, found.image, sizes, n + 1)


def by_torch(values: np.ndarray, grid: tuple[int, int], size: tuple[int, int], how: str) -> np.ndarray:
    given = torch.from_numpy(values.reshape(1, 1, *grid))
    return interpolate(given, size=(size[1], size[0]), mode=how, align_corners=False)[0, 0].numpy()


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("size", "grid"), [((97, 64), (5, 7)), ((336, 336), (24, 24)), ((10, 12), (12, 10)), ((60, 50), (1, 4))]
)
def test_one_grid_is_interpolated_as_torch_does(
    size: tuple[int, int], grid: tuple[int, int], how: str
) -> None:
    values = RNG.normal(size=grid[0] * grid[1])
    found = upsampled(values, tokens_of(squash(size, grid), size), 0, how)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, by_torch(values, grid, size, how), atol=1e-12)


def test_a_view_with_an_undefined_value_is_not_interpolated() -> None:
    tokens, values = tokens_of(squash((40, 30), (3, 4)), (40, 30)), np.ones(12)
    for undefined in (np.nan, np.inf):
        values[5] = undefined
        with pytest.raises(MapError, match=r'each of the 12 tokens; got 1 without one\. Use how="nearest"'):
            upsampled(values, tokens)
    values[5] = np.nan
    assert np.isnan(upsampled(values, tokens, how="nearest")).sum() == 100


def test_padding_is_cut_off_and_its_cells_take_no_part() -> None:
    size, grid = (200, 120), (10, 10)
    values = RNG.normal(size=100)
    found = upsampled(values, tokens_of(pad_to_square(size, grid), size))
    wanted = by_torch(values, grid, (200, 200), "bicubic")[40:160]
    np.testing.assert_allclose(found[30:90], wanted[30:90], atol=1e-12)  # far from the padding
    assert np.isfinite(found).all()


def test_a_cell_cut_by_the_edge_counts_with_its_whole_size() -> None:
    size, grid = (200, 130), (10, 10)  # cells of 20 pixels; the first row's cells are half in the padding
    values = np.repeat(np.arange(10.0), 10)
    found = upsampled(values, tokens_of(pad_to_square(size, grid), size), how="bilinear")
    np.testing.assert_allclose(
        found[10:120, 5], by_torch(values, grid, (200, 200), "bilinear")[45:155, 5], atol=1e-12
    )


def test_views_are_interpolated_apart_and_averaged() -> None:
    size = (80, 40)
    whole, left = (
        lay(size, (2, 4), (0, 0, 80, 40), view="base"),
        lay(size, (2, 2), (0, 0, 40, 40), view="tile"),
    )
    values = RNG.normal(size=12)
    found = upsampled(values, tokens_of(concatenate([whole, left], one_image=True), size), how="bilinear")
    base, tile = (
        by_torch(values[:8], (2, 4), size, "bilinear"),
        by_torch(values[8:], (2, 2), (40, 40), "bilinear"),
    )
    np.testing.assert_allclose(found[:, :40], (base[:, :40] + tile) / 2, atol=1e-12)
    np.testing.assert_allclose(found[:, 40:], base[:, 40:], atol=1e-12)


def test_pixels_that_no_token_sees_stay_unknown() -> None:
    size = (60, 40)
    tokens = tokens_of(lay(size, (2, 2), (10, 0, 50, 40)), size)
    for how in ("nearest", "bilinear", "bicubic"):
        found = upsampled(np.arange(4.0), tokens, how=how)  # type: ignore[arg-type]
        assert np.isnan(found[:, :10]).all()
        assert np.isnan(found[:, 50:]).all()
        assert np.isfinite(found[:, 10:50]).all()


def test_tokens_that_are_no_grid_take_the_nearest_value() -> None:
    size = (40, 40)
    found = Footprints(
        np.array([[0, 0, 40, 20], [0, 20, 20, 40], [20, 20, 40, 40]], float),
        None,
        np.full(3, ""),
        np.zeros(3, int),
    )
    tokens = tokens_of(found, size)
    np.testing.assert_array_equal(
        upsampled(np.array([1.0, -2.0, 3.0]), tokens), tokens.to_pixels(np.array([1.0, -2.0, 3.0]))
    )


def test_tokens_of_a_second_image_without_grid_take_the_nearest() -> None:
    first = squash((40, 40), (2, 2))
    boxes = np.array([[0, 0, 30, 10], [0, 10, 15, 20], [15, 10, 30, 20]], float)
    found = concatenate([first, Footprints(boxes, None, np.full(3, ""), np.zeros(3, int))])
    tokens, values = tokens_of(found, (40, 40), (30, 20)), np.arange(7.0) - 3
    shown = np.full((20, 30), 1.0)
    shown[10:, :15], shown[10:, 15:] = 2.0, 3.0
    np.testing.assert_array_equal(upsampled(values, tokens, 1), shown)


def test_tokens_with_gaps_between_them_are_no_grid() -> None:
    """Columns 0–10 and 20–30 of 30 pixels: nothing is known between them."""
    boxes = np.array([[x, y, x + 10, y + 10] for y in (0, 10) for x in (0, 20)], float)
    tokens = tokens_of(Footprints(boxes, None, np.full(4, ""), np.zeros(4, int)), (30, 20))
    found = upsampled(np.array([1.0, 2.0, 3.0, 4.0]), tokens)
    assert np.isnan(found[:, 10:20]).all()
    assert found[:, [5, 25]].tolist() == [[1, 2]] * 10 + [[3, 4]] * 10


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(-8, 8).map(float), min_size=1, max_size=25))
def test_otsu_is_the_best_of_all_thresholds(values: list[float]) -> None:
    given_values = np.array(values)

    def within(cut: float) -> float:
        low, high = given_values[given_values <= cut], given_values[given_values > cut]
        return float(sum(len(part) * part.var() for part in (low, high) if len(part)))

    found = otsu_threshold(given_values)
    distinct = np.unique(given_values)
    assert found in distinct
    best = min(within(cut) for cut in (distinct[:-1] if len(distinct) > 1 else distinct))
    assert within(found) == pytest.approx(best, abs=1e-9)


def test_of_equally_good_splits_otsu_takes_the_lowest() -> None:
    """0 | 1 2 and 0 1 | 2 have the same variance within, ½."""
    assert otsu_threshold(np.array([2.0, 0.0, 1.0])) == 0.0


def test_each_image_is_interpolated_alone() -> None:
    small, large = squash((40, 30), (2, 2)), squash((90, 60), (3, 2))
    values = RNG.normal(size=10)
    tokens = tokens_of(concatenate([small, large]), (40, 30), (90, 60))
    for image, (mine, grid, size) in enumerate(
        [(values[:4], (2, 2), (40, 30)), (values[4:], (3, 2), (90, 60))]
    ):
        found = upsampled(values, tokens, image)
        np.testing.assert_allclose(found, by_torch(mine, grid, size, "bicubic"), atol=1e-12)


def test_rules_by_hand() -> None:
    pixels = np.array([[-1.0, 0.0, 0.1, np.nan], [0.2, 5.0, 6.0, 0.0]])
    assert map_mask(pixels).astype(int).tolist() == [[0, 0, 0, 0], [0, 1, 1, 0]]
    assert map_mask(pixels, "positive").astype(int).tolist() == [[0, 0, 1, 0], [1, 1, 1, 0]]
    assert int(map_mask(np.arange(100.0), 0.9).sum()) == 10


def test_a_map_of_one_value_gives_no_mask() -> None:
    for rule in ("otsu", 0.5):
        assert not map_mask(np.full((3, 4), 2.0), rule).any()  # type: ignore[arg-type]
    assert map_mask(np.full((3, 4), 2.0), "positive").all()
    assert not map_mask(np.zeros((3, 4)), "positive").any()
    assert not map_mask(np.full((3, 4), np.nan)).any()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda t: upsampled(np.ones(4), t, how="cubic"),
            "upsample is one of 'bicubic', 'bilinear', 'nearest'; got 'cubic'",
        ),
        (lambda t: upsampled(np.ones(3), t), r"one value per image token, shape \(4,\); got \(3,\)"),
        (lambda t: upsampled(np.ones(4), t, 1), "the sample has 1 image"),
        (lambda t: upsampled(np.ones(4), None), "tokens is the TokenMap of the map's sample"),
        (
            lambda t: map_mask(np.ones(4), 1.0),
            'threshold is "otsu", "positive", or the share of pixels below it',
        ),
        (lambda t: map_mask(np.ones(4), 0.0), "between 0 and 1, such as 0.9; got 0.0"),
        (lambda t: map_mask(np.ones(4), True), "between 0 and 1, such as 0.9; got True"),
        (lambda t: map_mask(np.ones(4), "triangle"), "got 'triangle'"),
        (lambda t: upsampled(np.ones(4), t, -1), "image, its place in the sample, is a whole number"),
        (lambda t: otsu_threshold(np.array([])), "needs at least one value"),
        (lambda t: otsu_threshold(np.array([1.0, np.nan])), "finite numbers"),
    ],
)
def test_what_makes_no_mask_is_refused(call, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(MapError, match=said):
        call(tokens_of(squash((8, 8), (2, 2)), (8, 8)))
