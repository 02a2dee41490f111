"""Which pixels are whose, for every view of every family: painting inside a footprint changes those."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from interp.conformance.subject import inner_box, repainted, smooth
from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.models.pixels import PixelView, pixel_views, pooled
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


def token_map(boxes: np.ndarray) -> TokenMap:
    n = len(boxes)
    return TokenMap(np.arange(n), boxes, None, np.full(n, ""), np.zeros(n, int), ((9, 9),), n)


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
    for shape, boxes in (((1, 3, 20, 16), grid[:7]), ((9, 48), grid), ((1, 3, 20, 20), grid[::-1])):
        with pytest.raises(
            ModelError, match=r"views of \(channel, row, col\), or Qwen's patches.*Use an indicator"
        ):
            pixel_views({"pixel_values": torch.zeros(shape)}, token_map(boxes), SimpleNamespace(), config)
