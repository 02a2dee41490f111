"""Mistral 3's footprints against transformers' Pixtral image processor and model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import example, given, settings

from interp.conformance.tiny import tiny
from interp.conformance.tiny.kit import FIRST_SPECIAL, tokenizer
from interp.errors import ModelError
from interp.inputs.footprints import Footprints
from interp.models.families.mistral3 import Mistral3
from interp.models.processors import pixtral_processor
from tests.models import pixel_impulses

FAMILY = Mistral3()
CELL = 28
# (width, height) and the grid: bounded by 140 on the longer edge, then rounded up to cells of 28
GRIDS = {
    (140, 140): (5, 5),
    (140, 84): (3, 5),
    (100, 170): (5, 3),  # 82×140: three columns of 27.4 px
    (400, 90): (2, 5),  # 140×31: the second row is rounded up to
    (60, 300): (5, 1),
    (57, 29): (2, 3),  # smaller images are not enlarged, but rounded up
    (9, 9): (1, 1),
}


@pytest.fixture(scope="module")
def model() -> tuple[Any, Any]:
    return tiny("mistral3")


@pytest.mark.parametrize("size", GRIDS)
def test_rectangles_fill_the_cells_that_their_footprints_say(model, size):
    hf, processor = model
    found = pixel_impulses.footprints_of(FAMILY, processor, hf.config, [size])
    assert found.grid == GRIDS[size]
    assert set(found.views) == {""}
    tolerance = 0.03 if min(size) > 50 else 0.1  # enlarging blurs edges over cells
    for box in pixel_impulses.boxes_in(size, 8):
        seen = pixel_impulses.brightness(processor, size, box, CELL)[0]
        assert seen.shape == GRIDS[size]
        assert np.abs(pixel_impulses.covered(found, [size], box) - seen.ravel()).max() < tolerance


@pytest.mark.parametrize("size", [(140, 140), (280, 100), (90, 150), (30, 29)])
def test_impulses_reach_their_tokens(model, size):
    hf, processor = model
    found = pixel_impulses.footprints_of(FAMILY, processor, hf.config, [size])
    pixel_impulses.assert_impulses_land(hf, processor, FAMILY, [size], found)


def test_two_images_in_one_sample(model):
    """They are padded to one shape, but the padding makes no tokens."""
    hf, processor = model
    sizes = [(140, 84), (60, 120)]
    found = pixel_impulses.footprints_of(FAMILY, processor, hf.config, sizes)
    assert np.bincount(found.image).tolist() == [15, 15]
    assert found.grid is None
    assert found.boxes[15 + 3] == pytest.approx([0, 24, 20, 48])
    pixel_impulses.assert_impulses_land(hf, processor, FAMILY, sizes, found)


def test_break_and_end_tokens_are_no_image_tokens(model):
    hf, processor = model
    inputs = pixel_impulses.encode(processor, [pixel_impulses.picture((140, 84))])
    positions = FAMILY.image_positions(inputs["input_ids"], hf.config)
    assert np.diff(positions).tolist() == [1, 1, 1, 1, 2] * 2 + [1] * 4


WRONG = {
    "shifted by one token": lambda b: np.roll(b, 1, axis=0),
    "transposed": lambda b: b.reshape(5, 5, 4).swapaxes(0, 1).reshape(25, 4),
    "shifted by a row": lambda b: np.roll(b, 5, axis=0),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_layout_fails_the_impulses(model, wrong):
    hf, processor = model
    found = pixel_impulses.footprints_of(FAMILY, processor, hf.config, [(140, 140)])
    broken = Footprints(WRONG[wrong](found.boxes), None, found.views, found.image)
    with pytest.raises(AssertionError):
        pixel_impulses.assert_impulses_land(hf, processor, FAMILY, [(140, 140)], broken)


@settings(max_examples=25, deadline=None)
@given(size=pixel_impulses.real_sizes())
@example(size=(1540, 1540))
@example(size=(2600, 20))
def test_as_many_tokens_as_mistral_small_has(size):
    images = transformers.PixtralImageProcessorPil(
        size={"longest_edge": 1540}, patch_size={"height": 14, "width": 14}
    )
    words = tokenizer(image_token="[IMG]", image_break_token="[IMG_BREAK]", image_end_token="[IMG_END]")
    processor = pixtral_processor()(images, words, patch_size=14, spatial_merge_size=2)
    config = SimpleNamespace(
        image_token_id=FIRST_SPECIAL, spatial_merge_size=2, vision_config=SimpleNamespace(patch_size=14)
    )
    with pixel_impulses.shapes_only(processor):
        found = pixel_impulses.footprints_of(FAMILY, processor, config, [size])
    rows, cols = found.grid
    told = processor._get_num_multimodal_tokens(image_sizes=[size[::-1]]).num_image_tokens
    assert told == [rows * (cols + 1)]  # breaks and the end counted


def test_settings_that_are_not_understood(model):
    hf, processor = model
    inputs = pixel_impulses.encode(processor, [pixel_impulses.picture((140, 84))])
    with pytest.raises(
        ModelError, match=r"resized to \(width, height\) \[\(84, 140\)\], but the inputs hold \[\(140"
    ):
        FAMILY.footprints([(84, 140)], inputs, processor, hf.config)
    other = tiny("mistral3")[1]
    other.spatial_merge_size = 1
    with pytest.raises(ModelError, match=r"are \(14, 1\), but the model's config has \(14, 2\). Set both to"):
        FAMILY.footprints([(140, 84)], inputs, other, hf.config)
    assert len(FAMILY.footprints([], {}, None, None)) == 0


def test_a_size_given_as_height_and_width():
    hf, processor = tiny("mistral3")
    processor.image_processor.size = {"height": 56, "width": 140}
    assert pixel_impulses.footprints_of(FAMILY, processor, hf.config, [(140, 140)]).grid == (2, 2)
    wide = pixel_impulses.footprints_of(FAMILY, processor, hf.config, [(280, 56)])  # 140×28, not 56×11
    assert wide.grid == (1, 5)


def test_images_that_are_not_resized_lose_their_rim():
    hf, processor = tiny("mistral3")
    processor.image_processor.do_resize = False
    found = pixel_impulses.footprints_of(FAMILY, processor, hf.config, [(84, 70)])
    assert found.grid == (2, 3)
    assert found.boxes[-1].tolist() == [56, 28, 84, 56]


def test_prompt():
    assert FAMILY.fallback_prompt("Why?", 2, None) == "[INST][IMG][IMG]Why?[/INST]"
    assert FAMILY.fallback_prompt("Why?", 1, "Be brief.") == (
        "[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST][IMG]Why?[/INST]"
    )
