"""Mllama's footprints against transformers' image processor and vision model."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.inputs.footprints import Footprints, check_layout
from interp.models.families.llama import Mllama
from tests.models import pixel_impulses

ADAPTER = Mllama()
# (width, height) and tiles (rows, cols): the canvas that enlarges least, else the one that shrinks least
CANVASES = {
    (56, 56): (1, 1),
    (150, 60): (1, 3),
    (60, 200): (4, 1),
    (112, 112): (2, 2),
    (9, 11): (1, 1),
    (300, 280): (2, 2),
}


@cache
def model() -> tuple[Any, Any]:
    return tiny("mllama")


def footprints(*sizes: tuple[int, int]) -> Footprints:
    hf, processor = model()
    inputs = pixel_impulses.encode(processor, [pixel_impulses.picture(size) for size in sizes], together=True)
    found = ADAPTER.footprints(sizes, inputs, processor, hf.config)
    check_layout(found, sizes)
    return found


@pytest.mark.parametrize("size", CANVASES)
def test_rectangles_fill_the_patches_that_their_footprints_say(size):
    """Pixels of the processor, tile by tile: how much of each patch a rectangle of the original fills."""
    found, (rows, cols) = footprints(size), CANVASES[size]
    assert len(found) == rows * cols * 17
    classes = np.arange(len(found)) % 17 == 0
    assert np.isnan(found.boxes[classes]).all()
    tolerance = 0.1 if min(size) > 20 else 0.35  # enlarging blurs edges over patches
    for box in pixel_impulses.boxes_in(size, 5):
        seen = pixel_impulses.brightness(model()[1], size, box, 14)[0, 0, : rows * cols].ravel()
        filled = pixel_impulses.covered(found, [size], box)[~classes]
        area = np.where(np.isnan(filled), 0, _share_of_patch(found.boxes[~classes], size))
        assert np.abs(np.nan_to_num(filled) * area - seen).max() < tolerance


def _share_of_patch(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Of a patch at the image's edge, the share that is no padding."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return areas / np.nanmax(areas)


def test_a_wide_image_by_hand():
    """150×60 shrinks to 140×56 in a canvas of 168×56: patches of 15×15 original pixels, two columns of padding."""
    boxes = footprints((150, 60)).boxes.reshape(3, 17, 4)
    assert np.isnan(boxes[:, 0]).all()
    grid = boxes[:, 1:].reshape(3, 4, 4, 4)
    np.testing.assert_allclose(grid[0, 0, 0], [0, 0, 15, 15])
    np.testing.assert_allclose(grid[0, 3, 1], [15, 45, 30, 60])
    np.testing.assert_allclose(grid[1, 0, 0], [60, 0, 75, 15])
    np.testing.assert_allclose(grid[2, 1, 1], [135, 15, 150, 30])
    assert np.isnan(grid[2, :, 2:]).all()


def test_a_tall_image_by_hand():
    """60×200 becomes 60×200 in a canvas of 56×224: its width of 60 is shrunk to 56, so 200 to 186 of 224."""
    grid = footprints((60, 200)).boxes.reshape(4, 17, 4)[:, 1:].reshape(4, 4, 4, 4)
    np.testing.assert_allclose(grid[0, 0, 0], [0, 0, 15, 14 * 200 / 186])
    np.testing.assert_allclose(grid[3, 0, 0], [0, 168 * 200 / 186, 15, 182 * 200 / 186])
    np.testing.assert_allclose(grid[3, 1, 3], [45, 182 * 200 / 186, 60, 200])
    assert np.isnan(grid[3, 2:]).all()


@pytest.mark.parametrize("sizes", [((150, 60),), ((60, 120), (56, 56))])
def test_impulses_reach_their_tokens(sizes):
    mllm = interp.wrap(*tiny("mllama"))
    noise = np.random.default_rng(3)
    pictures = [noise.integers(90, 160, (height, width, 3), dtype=np.uint8) for width, height in sizes]

    def features(images: list[np.ndarray]) -> np.ndarray:
        return mllm.image_features(mllm.encode(interp.Sample(images=images, question="where ?")))[0].numpy()

    tokens = mllm.encode(interp.Sample(images=pictures, question="where ?")).tokens[0]
    before, tried = features(pictures), 0
    for token in np.flatnonzero(~np.isnan(tokens.footprints[:, 0]))[::5]:
        x0, y0, x1, y1 = np.round(tokens.footprints[token]).astype(int)
        if min(x1 - x0, y1 - y0) < 10:
            continue
        image = tokens.image_index[token]
        painted = [one.copy() for one in pictures]
        painted[image][y0:y1, x0:x1] = 255
        change = np.linalg.norm(features(painted) - before, axis=1)
        assert change.argmax() == token
        assert not change[tokens.image_index != image].any()
        tried += 1
    assert tried >= 4


def test_image_tokens_are_columns_of_tiles_that_are_no_padding():
    mllm = interp.wrap(*tiny("mllama"))
    pictures = [np.zeros((60, 150, 3), np.uint8), np.zeros((56, 56, 3), np.uint8)]
    tokens = mllm.encode(interp.Sample(images=pictures, question="is it red")).tokens[0]
    assert tokens.image.tolist() == [*range(3 * 17), *range(4 * 17, 5 * 17)]
    assert tokens.cross is not None
    assert (tokens.cross.n, tokens.cross.width) == (8 * 17, 17)
    first, second = tokens.cross.placeholders
    assert second == first + 1
    assert tokens.image_end == second + 1
    assert tokens.cross.blocks[0].all()  # a row before the images: transformers masks nothing there
    assert tokens.cross.blocks[first].tolist() == [True] * 3 + [False] * 5
    assert tokens.cross.blocks[second].tolist() == [True] * 3 + [False] + [True] + [False] * 3
    assert tokens.cross.seen(tokens.length - 1).tolist() == tokens.image.tolist()
    text = tokens.positions("text")
    assert text.tolist() == [i for i in range(tokens.length) if i not in (first, second)]


def test_settings_that_are_not_understood():
    hf, processor = model()
    inputs = pixel_impulses.encode(processor, [pixel_impulses.picture((150, 60))], together=True)
    with pytest.raises(ModelError, match=r"give tiles of the images \[1\], but the inputs hold \[3\]"):
        ADAPTER.footprints([(56, 56)], inputs, processor, hf.config)
    assert len(ADAPTER.footprints([], {}, None, None)) == 0


def test_prompt():
    assert ADAPTER.fallback_prompt("Why?", 2, "Be brief.") == "<|image|><|image|>Be brief.\nWhy?"
