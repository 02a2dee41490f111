"""LLaVA-NeXT's footprints against transformers' image processor, feature packing and model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import example, given, settings
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel

from interp.conformance.tiny import tiny
from interp.conformance.tiny.kit import FIRST_SPECIAL, tokenizer
from interp.errors import ModelError
from interp.inputs.footprints import Footprints
from interp.models.families.llava import LlavaNext
from tests.models import pixel_impulses

FAMILY = LlavaNext()
SIDE, PATCH = 56, 14
# square, wide, tall; both ways of padding; very wide and very tall; smaller than a tile; odd margins
SIZES = [(112, 112), (140, 84), (90, 150), (301, 90), (75, 290), (40, 28), (200, 131), (133, 212)]


@pytest.fixture(scope="module")
def model() -> tuple[Any, Any]:
    return tiny("llava_next")


def packed(patches: np.ndarray, size: tuple[int, int], config: Any) -> np.ndarray:
    """(token,): transformers' own packing of one number per patch of each tile; newline tokens are NaN."""
    features = torch.tensor(patches).flatten(1)[..., None]
    newline = torch.full((1,), torch.nan, dtype=features.dtype)
    found, _ = LlavaNextModel.pack_image_features(
        SimpleNamespace(config=config), [features], torch.tensor([size[::-1]]), "default", newline
    )
    return found[0][:, 0].numpy()


def weights(found: Footprints, size: tuple[int, int], best: tuple[int, int]) -> np.ndarray:
    """(token,): the share of a patch's pixels under each footprint. `best`: the resolution, (height, width)."""
    area = np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1) / PATCH**2
    scale = min(best[1] / size[0], best[0] / size[1])
    squashed = SIDE / size[0] * SIDE / size[1]
    return area * np.where(found.views == "base", squashed, scale**2)


BEST = {
    (112, 112): (112, 112),
    (140, 84): (112, 112),
    (90, 150): (112, 112),
    (301, 90): (56, 168),
    (75, 290): (168, 56),
    (40, 28): (56, 112),
    (200, 131): (112, 112),
    (133, 212): (112, 112),
}


@pytest.mark.parametrize("size", SIZES)
def test_rectangles_fill_the_cells_that_their_footprints_say(model, size):
    hf, processor = model
    found = pixel_impulses.footprints_of(FAMILY, processor, hf.config, [size])
    best = BEST[size]
    tolerance = 0.03 if min(size) > 60 else 0.1  # enlarging blurs edges over cells
    for box in pixel_impulses.boxes_in(size, 8):
        patches = pixel_impulses.brightness(processor, size, box, PATCH)[0]
        seen = packed(patches, size, hf.config)
        wanted = pixel_impulses.covered(found, [size], box) * weights(found, size, best)
        newlines = np.isnan(seen)
        assert np.isnan(wanted[newlines]).all()
        assert np.abs(np.nan_to_num(wanted) - np.nan_to_num(seen)).max() < tolerance


def test_which_tokens_have_no_area():
    hf, processor = tiny("llava_next")
    found = pixel_impulses.footprints_of(FAMILY, processor, hf.config, [(140, 84)])
    assert found.views.tolist() == ["base"] * 16 + ["tile"] * 36
    assert found.grid is None
    # 140×84 → 112×68 in 112×112, 22 px of padding above and below: of 8 rows of patches 4 are kept.
    rows = found.boxes[16:].reshape(4, 9, 4)
    assert np.isnan(rows[:, 8]).all()
    assert not np.isnan(rows[:, :8]).any()
    # row 2 begins 28 px down, 6 px into the image; 68 px of it stand for 84
    assert rows[0, 0] == pytest.approx([0, 6 * 84 / 68, 17.5, 20 * 84 / 68])
    assert rows[3, 7, 3] == pytest.approx((84 - 22) * 84 / 68)
    assert found.boxes[5] == pytest.approx([35, 21, 70, 42])


def test_unpadding_may_leave_no_tile_token(model):
    """300×24 is less than one row of patches high on 168×56: transformers drops two rows of four at both ends."""
    hf, processor = model
    found = pixel_impulses.footprints_of(FAMILY, processor, hf.config, [(300, 24)])
    assert found.views.tolist() == ["base"] * 16
    images = [pixel_impulses.picture((300, 24))]
    assert len(pixel_impulses.image_embeddings(hf, processor, FAMILY, images)) == 16
    # Upright, the columns go, and the newline tokens of their 12 rows stay.
    found = pixel_impulses.footprints_of(FAMILY, processor, hf.config, [(24, 300)])
    assert np.isnan(found.boxes[16:]).all()
    images = [pixel_impulses.picture((24, 300))]
    assert len(pixel_impulses.image_embeddings(hf, processor, FAMILY, images)) == 16 + 12 == len(found)


@pytest.mark.parametrize("size", [(112, 112), (160, 70), (80, 150), (44, 40)])
def test_impulses_reach_their_tokens(model, size):
    hf, processor = model
    found = pixel_impulses.footprints_of(FAMILY, processor, hf.config, [size])
    pixel_impulses.assert_impulses_land(hf, processor, FAMILY, [size], found)


def test_two_images_in_one_sample(model):
    hf, processor = model
    sizes = [(140, 84), (60, 170)]
    found = pixel_impulses.footprints_of(FAMILY, processor, hf.config, sizes)
    alone = [pixel_impulses.footprints_of(FAMILY, processor, hf.config, [size]) for size in sizes]
    assert np.bincount(found.image).tolist() == [len(part) for part in alone]
    np.testing.assert_array_equal(found.boxes, np.concatenate([part.boxes for part in alone]))
    pixel_impulses.assert_impulses_land(hf, processor, FAMILY, sizes, found, every=3)


WRONG = {
    "shifted by one token": lambda b: np.roll(b, 1, axis=0),
    "base transposed": lambda b: np.concatenate(
        [b[:16].reshape(4, 4, 4).swapaxes(0, 1).reshape(16, 4), b[16:]]
    ),
    "tile by tile": lambda b: np.concatenate(
        [b[:16], b[16:].reshape(8, 9, 4)[:, [0, 1, 2, 3, 8, 4, 5, 6, 7]].reshape(72, 4)]
    ),
    "rows shifted": lambda b: np.concatenate([b[:16], np.roll(b[16:], 9, axis=0)]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_layout_fails_the_impulses(model, wrong):
    hf, processor = model
    found = pixel_impulses.footprints_of(FAMILY, processor, hf.config, [(112, 112)])
    broken = Footprints(WRONG[wrong](found.boxes), None, found.views, found.image)
    with pytest.raises(AssertionError):
        pixel_impulses.assert_impulses_land(hf, processor, FAMILY, [(112, 112)], broken)


REAL = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


@settings(max_examples=25, deadline=None)
@given(size=pixel_impulses.real_sizes())
@example(size=(1000, 21))  # one row of patches is left
@example(size=(20, 1441))  # no column of patches is left, but their newlines
@example(size=(640, 480))
def test_as_many_tokens_as_llava_1_6_has(size):
    images = transformers.LlavaNextImageProcessorPil(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, image_grid_pinpoints=REAL
    )
    processor = transformers.LlavaNextProcessor(
        images,
        tokenizer(image_token="<image>"),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    vision = SimpleNamespace(image_size=336, patch_size=14)
    config = SimpleNamespace(image_token_id=FIRST_SPECIAL, image_grid_pinpoints=REAL, vision_config=vision)
    with pixel_impulses.shapes_only(processor):
        found = pixel_impulses.footprints_of(FAMILY, processor, config, [size])
    assert (found.views == "base").sum() == 576


def test_settings_that_are_not_understood(model):
    hf, processor = model
    inputs = pixel_impulses.encode(processor, [pixel_impulses.picture((140, 84))])
    with pytest.raises(
        ModelError,
        match=r"give images of \(width, height\) \[\(84, 140\)\], but the inputs hold \[\(140, 84\)\]",
    ):
        FAMILY.footprints([(84, 140)], inputs, processor, hf.config)
    few = {**inputs, "pixel_values": inputs["pixel_values"][:, :3]}
    with pytest.raises(
        ModelError, match=r"views of shape \[\(5, 3, 56, 56\)\].*hold \[\(3, 3, 56, 56\)\].*Set them on"
    ):
        FAMILY.footprints([(140, 84)], few, processor, hf.config)
    other = tiny("llava_next")[1]
    other.image_processor.image_grid_pinpoints = [[56, 112]]
    with pytest.raises(
        ModelError, match=r"image_grid_pinpoints are \[\(56, 112\)\], but the model's config has .*both"
    ):
        FAMILY.footprints([(140, 84)], inputs, other, hf.config)
    other.image_processor.crop_size = {"height": 28, "width": 28}
    with pytest.raises(
        ModelError, match=r"takes tiles of 56×56 pixels.*'shortest_edge': 56.*'height': 28.*Set both"
    ):
        FAMILY.footprints([(140, 84)], inputs, other, hf.config)


def test_no_image_and_prompts():
    assert len(FAMILY.footprints([], {}, None, None)) == 0
    assert FAMILY.fallback_prompt("Why?", 2, "Be brief.") == (
        "Be brief. USER: <image>\n<image>\nWhy? ASSISTANT:"
    )
    assert FAMILY.matches(SimpleNamespace(model_type="llava_next"))
    assert not FAMILY.matches(SimpleNamespace(model_type="llava"))
