"""Which pixels are whose, for every view of every family: painting inside a footprint changes those."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from interp.conformance.subject import inner_box, repainted, smooth
from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.models.pixels import PixelView, _blocks, _most, pixel_views, pooled
from interp.tracing import wrap

FAMILIES = {
    "llava_next": (231, 138),
    "llava_onevision": (200, 137),
    "idefics3": (231, 138),
    "internvl": (231, 138),
    "qwen2_5_vl": (120, 90),
    "mistral3": (120, 60),
    "fast_vlm": (120, 90),
    "got_ocr2": (120, 90),
    "kimi_k25": (150, 90),
    "ovis2": (140, 70),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_painting_a_footprint_moves_its_own_pixels_most(family):
    """Two images of one sample; each is painted in turn."""
    mllm = wrap(*tiny(family))
    pictures = [smooth(FAMILIES[family], seed) for seed in (0, 1)]

    def encoded(images: list[np.ndarray]):
        batch = mllm.encode(Sample(images=images, question="where is it?"))
        return batch, batch.inputs["pixel_values"].double().numpy()

    batch, before = encoded(pictures)
    tokens = batch.tokens[0]
    views = pixel_views(batch.inputs, tokens, mllm.processor, mllm.hf.config)
    placed = np.concatenate([view.tokens.reshape(-1) for view in views])
    assert len(set(placed)) == len(placed)
    nowhere = np.setdiff1d(np.arange(tokens.n), placed)
    assert np.isnan(tokens.footprints[nowhere]).all(), "only newline tokens have no pixels"
    shown = placed[~np.isnan(tokens.footprints[placed]).any(axis=1)]
    for token in shown[:: max(1, len(shown) // 8)]:
        image = tokens.image_index[token]
        painted = list(pictures)
        painted[image] = repainted(pictures[image], inner_box(tokens.footprints[token]))
        change = np.abs(encoded(painted)[1] - before)
        moved = pooled(views, [view.picture(change).sum(axis=(0, 1)) for view in views], tokens.n, "mean")
        view = next(view for view in views if token in view.tokens)
        assert view.tokens.reshape(-1)[moved[view.tokens].argmax()] == token
        assert not moved[tokens.image_index != image].any()


def test_sums_and_means_of_cells_with_fractions():
    """Columns 0 to 1½ and 1½ to 3 of three pixels."""
    lines = np.array([[0, 1.5], [1.5, 3]])
    view = PixelView(np.array([[2, 0]]), np.array([[0.0, 2.0]]), lines, lambda values: values)
    pixels = np.array([[1.0, 4.0, 9.0], [1.0, 4.0, 9.0]])
    np.testing.assert_allclose(view.sums(pixels), [[6.0, 22.0]])
    np.testing.assert_allclose(view.means(pixels), [[2.0, 22 / 3]])
    np.testing.assert_allclose(pooled([view], [pixels], 3, "sum"), [22.0, 0.0, 6.0])


def token_map(boxes: np.ndarray, image: list[int] | None = None) -> TokenMap:
    n = len(boxes)
    index = np.zeros(n, int) if image is None else np.array(image)
    return TokenMap(np.arange(n), boxes, None, np.full(n, ""), index, ((9, 9),) * (1 + int(index.max())), n)


def square(n: int, *, by_column: bool) -> np.ndarray:
    starts = [(c, r) if not by_column else (r, c) for r in range(n) for c in range(n)]
    return np.array([[x, y, x + 1, y + 1] for x, y in starts], float)


def test_tokens_column_by_column_and_blocks_that_are_cut_off():
    """VILA's way: 5×5 patches in blocks of 2, the last of one patch, column by column."""
    config = SimpleNamespace(vision_config=SimpleNamespace(patch_size=4))
    inputs = {"pixel_values": torch.zeros(1, 3, 20, 20)}
    for by_column in (False, True):
        (view,) = pixel_views(inputs, token_map(square(3, by_column=by_column)), SimpleNamespace(), config)
        expected = np.arange(9).reshape(3, 3)
        np.testing.assert_array_equal(view.tokens, expected.T if by_column else expected)
        assert view.rows.tolist() == view.cols.tolist() == [[0, 8], [8, 16], [16, 20]]


def test_strange_pixels_and_strange_orders_are_refused():
    config = SimpleNamespace(vision_config=SimpleNamespace(patch_size=4))
    grid = square(3, by_column=False)
    swapped = grid[[0, 2, 1, 3, 5, 4, 6, 8, 7]]  # the last two of each row
    for shape, boxes in (
        ((1, 3, 20, 16), grid[:7]),
        ((9, 48), grid),
        ((1, 3, 20, 20), grid[::-1]),
        ((1, 3, 20, 20), swapped),
    ):
        with pytest.raises(
            ModelError, match=r"views of \(channel, row, col\), or Qwen's patches.*Use an indicator"
        ):
            pixel_views({"pixel_values": torch.zeros(shape)}, token_map(boxes), SimpleNamespace(), config)


def test_a_pixel_is_covered_if_more_than_half_of_it_is() -> None:
    """Cells end after 1½, 2.4 and 4 pixels: half of pixel 1 lies in the first, 0.6 of pixel 2 in the last."""
    cols = np.array([[0, 1.5], [1.5, 2.4], [2.4, 4]])
    view = PixelView(np.array([[0, 2, 1]]), np.array([[0.0, 1.0]]), cols, lambda values: values)
    for chosen, pixels in ((0, [0]), (1, [2, 3]), (2, [])):
        covered = view.covered(np.arange(3) == chosen, (2, 4))
        assert np.flatnonzero(covered[0]).tolist() == pixels
        assert not covered[1].any()
    assert np.flatnonzero(view.covered(np.array([True, False, True]), (1, 4))[0]).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("patches", "n", "rows", "cols"),
    [
        ((5, 5), 9, [[0, 2], [2, 4], [4, 5]], [[0, 2], [2, 4], [4, 5]]),
        ((5, 5), 4, [[0, 2], [2, 4]], [[0, 2], [2, 4]]),  # the last row and column are dropped
        ((4, 6), 6, [[0, 2], [2, 4]], [[0, 2], [2, 4], [4, 6]]),
        ((1, 2), 2, [[0, 1]], [[0, 1], [1, 2]]),
        ((1, 5), 1, [[0, 1]], [[0, 5]]),
    ],
)
def test_blocks_of_patches_by_their_number(patches, n, rows, cols) -> None:
    found = _blocks(patches, n)
    assert found is not None
    assert (found[0].tolist(), found[1].tolist()) == (rows, cols)
    assert _blocks((5, 5), 7) is None


def numbered(frames: int, height: int, width: int, first: int) -> np.ndarray:
    """(frame, channel, row, col), each value another number."""
    return first + np.arange(frames * 3 * height * width).reshape(frames, 3, height, width)


def cells(*grids: tuple[int, int]) -> TokenMap:
    """Row-major cells of 1×1, one image for each grid."""
    places = [(i, c, r) for i, (rows, cols) in enumerate(grids) for r in range(rows) for c in range(cols)]
    return token_map(np.array([[x, y, x + 1, y + 1] for _, x, y in places], float), [i for i, _, _ in places])


@pytest.mark.parametrize("layout", ["qwen", "kimi", "gemma4"])
def test_each_processors_patches_are_put_together_again(layout: str) -> None:
    """Images of 4×8 and 8×4 pixels in patches of 2 and tokens of 2×2 patches; Qwen's of two frames each."""
    grids, frames = [(1, 2), (2, 1)], 2 if layout == "qwen" else 1
    images = [numbered(frames, 4 * rows, 4 * cols, 1000 * i) for i, (rows, cols) in enumerate(grids)]
    lines, places = [], []
    for image, (rows, cols) in zip(images, grids, strict=True):
        order = [(y, x) for y in range(2 * rows) for x in range(2 * cols)]
        if layout == "qwen":  # the four patches of a token follow each other
            order.sort(key=lambda at: (at[0] // 2, at[1] // 2))
        cut = [image[:, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] for y, x in order]
        turned = {"qwen": (1, 0, 2, 3), "kimi": (0, 1, 2, 3), "gemma4": (0, 2, 3, 1)}[layout]
        lines.append([one.transpose(turned).reshape(-1) for one in cut])
        places.append([[x, y] for y, x in order])
    thw = np.array([[1, 2 * rows, 2 * cols] for rows, cols in grids])
    vision, processor = SimpleNamespace(patch_size=2, pooling_kernel_size=2), SimpleNamespace()
    processor.image_processor = SimpleNamespace(merge_size=2)
    config = SimpleNamespace(vision_config=vision)
    if layout == "gemma4":  # a third place of each image is padding
        values = np.array([[*one, np.zeros(12)] for one in lines])
        inputs = {"image_position_ids": np.array([[*one, [-1, -1]] for one in places])}
    else:
        values, inputs = np.array([*lines[0], *lines[1]]), {"image_grid_thw": thw}
        values = values.reshape(-1, 3, 2, 2) if layout == "kimi" else values
    inputs["pixel_values"] = torch.from_numpy(values)
    first, second = pixel_views(inputs, cells(*grids), processor, config)
    for view, image in zip((first, second), images, strict=True):
        np.testing.assert_array_equal(view.picture(values), image)
    assert (first.tokens.tolist(), second.tokens.tolist()) == ([[0, 1]], [[2], [3]])
    assert (first.rows.tolist(), first.cols.tolist()) == ([[0, 4]], [[0, 4], [4, 8]])
    assert (second.rows.tolist(), second.cols.tolist()) == ([[0, 4], [4, 8]], [[0, 4]])
    for wrong in (cells((1, 2)), cells(*grids, (1, 1))):
        with pytest.raises(ModelError, match="Use an indicator that needs no pixels"):
            pixel_views(inputs, wrong, processor, config)


def test_padded_views_and_class_tokens_without_pixels() -> None:
    """Mistral 3's images of 4×4 and 4×8 pixels, patches of 2, after a class token each."""
    laid = cells((1, 1), (2, 2), (1, 1), (2, 4))
    classes = np.isin(np.arange(14), [0, 5])
    boxes = np.where(classes[:, None], np.nan, laid.footprints)
    tokens = replace(laid, footprints=boxes, views=np.where(classes, "cls", ""))
    inputs = {"pixel_values": torch.zeros(2, 3, 4, 8), "image_sizes": [(4, 4), (4, 8)]}
    config = SimpleNamespace(vision_config=SimpleNamespace(patch_size=2))
    first, second = pixel_views(inputs, tokens, SimpleNamespace(), config)
    assert first.tokens.tolist() == [[1, 2], [3, 4]]
    assert second.tokens.tolist() == [[6, 7, 8, 9], [10, 11, 12, 13]]
    values = np.arange(2.0).reshape(2, 1, 1, 1) * np.ones((2, 3, 4, 8))
    assert [set(view.picture(values).ravel()) for view in (first, second)] == [{0}, {1}]


def test_a_patch_may_be_higher_than_wide() -> None:
    """Two rows and three columns of patches, 5 pixels high and 2 wide."""
    config = SimpleNamespace(vision_config=SimpleNamespace(patch_size=(5, 2)))
    (view,) = pixel_views(
        {"pixel_values": torch.zeros(1, 3, 10, 6)}, cells((2, 3)), SimpleNamespace(), config
    )
    assert view.tokens.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert view.rows.tolist() == [[0, 5], [5, 10]]
    assert view.cols.tolist() == [[0, 2], [2, 4], [4, 6]]


def test_sizes_of_images_are_no_sizes_of_their_tiles() -> None:
    """Two tiles of 4×8 pixels of one image of 4×4: five axes."""
    inputs = {"pixel_values": torch.zeros(1, 2, 3, 4, 8), "image_sizes": [(4, 4), (4, 4)]}
    config = SimpleNamespace(vision_config=SimpleNamespace(patch_size=2))
    views = pixel_views(inputs, cells((2, 4), (2, 4)), SimpleNamespace(), config)
    assert [view.tokens.tolist() for view in views] == [
        [[0, 1, 2, 3], [4, 5, 6, 7]],
        [[8, 9, 10, 11], [12, 13, 14, 15]],
    ]


def test_a_video_has_no_pixels_of_images() -> None:
    with pytest.raises(ModelError, match=r"the sample shows a video.*pass the frames as images"):
        pixel_views({"pixel_values_videos": 1}, cells((1, 1)), SimpleNamespace(), SimpleNamespace())


def test_a_bound_on_the_grid_is_onevisions_alone() -> None:
    assert _most(SimpleNamespace(vision_aspect_ratio="anyres_max_9")) == 9
    assert _most(SimpleNamespace()) is None


def test_means_are_zero_where_a_token_has_no_pixels() -> None:
    lines = np.array([[0.0, 1], [1, 3]])
    view = PixelView(np.array([[3, 1]]), np.array([[0.0, 2.0]]), lines, lambda values: values)
    pixels = np.array([[2.0, 3.0, 5.0], [4.0, 3.0, 5.0]])
    assert pooled([view], [pixels], 4, "mean").tolist() == [0, 4, 0, 3]
    assert pooled([view], [pixels], 4, "sum").tolist() == [0, 16, 0, 6]
