"""Idefics3's and SmolVLM's footprints against transformers' image processors and models."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import example, given, settings

from interp.conformance.tiny import tiny
from interp.conformance.tiny.kit import FIRST_SPECIAL, tokenizer
from interp.conformance.tiny.tiles import IDEFICS_TOKENS
from interp.errors import ModelError
from interp.inputs.footprints import Footprints
from interp.models.families.idefics import Idefics3, SmolVlm
from interp.models.processors import smolvlm_processor
from tests.models import pixel_impulses

FAMILIES = {"idefics3": Idefics3(), "smolvlm": SmolVlm()}
CELLS = {"idefics3": 28, "smolvlm": 32}
# (width, height) and tiles (rows, cols): the longest edge to three tiles, both rounded up to tiles
SPLITS = {
    (150, 150): (3, 3),
    (140, 84): (2, 3),
    (90, 260): (3, 2),
    (400, 90): (1, 3),
    (60, 300): (3, 1),
    (33, 30): (3, 3),
}


@pytest.fixture(scope="module", params=list(FAMILIES))
def model(request) -> tuple[str, Any, Any]:
    return (request.param, *tiny(request.param))


@pytest.mark.parametrize("size", SPLITS)
def test_rectangles_fill_the_cells_that_their_footprints_say(model, size):
    name, hf, processor = model
    found = pixel_impulses.footprints_of(FAMILIES[name], processor, hf.config, [size])
    rows, cols = SPLITS[size]
    assert found.views.tolist() == ["tile"] * (9 * rows * cols) + ["global"] * 9
    assert found.grid is None
    tolerance = 0.03 if min(size) > 200 else 0.1  # enlarging blurs edges over cells
    for box in pixel_impulses.boxes_in(size, 6):
        seen = pixel_impulses.brightness(processor, size, box, CELLS[name])[0]
        assert seen.shape == (rows * cols + 1, 3, 3)
        assert np.abs(pixel_impulses.covered(found, [size], box) - seen.ravel()).max() < tolerance


@pytest.mark.covering
@pytest.mark.parametrize("size", [(150, 150), (200, 90), (60, 140), (30, 28)])
def test_impulses_reach_their_tokens(model, size):
    name, hf, processor = model
    found = pixel_impulses.footprints_of(FAMILIES[name], processor, hf.config, [size])
    pixel_impulses.assert_impulses_land(hf, processor, FAMILIES[name], [size], found, every=2)


def test_two_images_in_one_sample(model):
    name, hf, processor = model
    sizes = [(140, 84), (60, 170)]
    found = pixel_impulses.footprints_of(FAMILIES[name], processor, hf.config, sizes)
    assert np.bincount(found.image).tolist() == [7 * 9, 7 * 9]
    pixel_impulses.assert_impulses_land(hf, processor, FAMILIES[name], sizes, found, every=5)


@pytest.mark.parametrize("size", [(90, 90), (150, 70), (40, 90)])
def test_one_view_when_images_are_not_split(size):
    """The image is squashed to one tile: no padding, whatever its shape."""
    hf, processor = tiny("idefics3")
    processor.image_processor.do_image_splitting = False
    found = pixel_impulses.footprints_of(FAMILIES["idefics3"], processor, hf.config, [size])
    assert found.views.tolist() == ["global"] * 9
    assert found.grid == (3, 3)
    inputs = pixel_impulses.encode(processor, [pixel_impulses.picture(size)])
    assert inputs["pixel_values"].shape == (1, 1, 3, 84, 84)
    assert inputs["pixel_attention_mask"].all()
    assert found.boxes[-1] == pytest.approx([size[0] * 2 / 3, size[1] * 2 / 3, *size])
    pixel_impulses.assert_impulses_land(hf, processor, FAMILIES["idefics3"], [size], found)


def test_images_not_resized_first_are_split_by_their_size():
    hf, processor = tiny("idefics3")
    processor.image_processor.do_resize = False
    for size, views in {(84, 60): 1, (85, 30): 3, (85, 60): 5}.items():  # 85×60 → 168×118 → 168×168
        assert (
            len(pixel_impulses.footprints_of(FAMILIES["idefics3"], processor, hf.config, [size])) == 9 * views
        )
    processor.image_processor.do_resize = True
    processor.image_processor.size = {"height": 84, "width": 168}
    found = pixel_impulses.footprints_of(FAMILIES["idefics3"], processor, hf.config, [(70, 90)])
    assert found.boxes[9 + 8] == pytest.approx([35 + 35 * 2 / 3, 60, 70, 90])


WRONG = {
    "tiles by column": lambda b: np.concatenate(
        [b[:36].reshape(2, 2, 9, 4).swapaxes(0, 1).reshape(36, 4), b[36:]]
    ),
    "each tile transposed": lambda b: b.reshape(5, 3, 3, 4).swapaxes(1, 2).reshape(45, 4),
    "shifted by one token": lambda b: np.roll(b, 1, axis=0),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_layout_fails_the_impulses(wrong):
    hf, processor = tiny("idefics3")
    processor.image_processor.size = {"longest_edge": 168}
    found = pixel_impulses.footprints_of(FAMILIES["idefics3"], processor, hf.config, [(120, 120)])
    pixel_impulses.assert_impulses_land(hf, processor, FAMILIES["idefics3"], [(120, 120)], found, every=3)
    broken = Footprints(WRONG[wrong](found.boxes), None, found.views, found.image)
    with pytest.raises(AssertionError):
        pixel_impulses.assert_impulses_land(hf, processor, FAMILIES["idefics3"], [(120, 120)], broken)


TAGS = {f"row_{r}_col_{c}": f"<row_{r}_col_{c}>" for r in range(1, 6) for c in range(1, 6)}
REAL = {
    "Idefics3-8B": ("idefics3", 364, 4, 14, 2),
    "SmolVLM-Instruct": ("idefics3", 384, 4, 14, 3),
    "SmolVLM2-2.2B": ("smolvlm", 384, 4, 14, 3),
    "SmolVLM2-500M": ("smolvlm", 512, 4, 16, 4),
}


@pytest.mark.parametrize("checkpoint", REAL)
@settings(max_examples=12, deadline=None)
@given(size=pixel_impulses.real_sizes())
@example(size=(1000, 20))
@example(size=(640, 480))
def test_as_many_tokens_as_checkpoints_have(checkpoint, size):
    name, side, tiles, patch, merged = REAL[checkpoint]
    limits = {"size": {"longest_edge": tiles * side}, "max_image_size": {"longest_edge": side}}
    words = tokenizer(**{**IDEFICS_TOKENS, **TAGS}, video_token="<video>")
    if name == "idefics3":
        images = transformers.Idefics3ImageProcessorPil(**limits)
        processor = transformers.Idefics3Processor(
            images, words, image_seq_len=(side // patch // merged) ** 2
        )
    else:
        images = transformers.SmolVLMImageProcessorPil(**limits)
        processor = smolvlm_processor()(images, words, None, image_seq_len=(side // patch // merged) ** 2)
    vision = SimpleNamespace(patch_size=patch)
    config = SimpleNamespace(image_token_id=FIRST_SPECIAL, scale_factor=merged, vision_config=vision)
    with pixel_impulses.shapes_only(processor):
        found = pixel_impulses.footprints_of(FAMILIES[name], processor, config, [size])
    whole = found.boxes[found.views == "global"]
    rim = side - side // patch * patch  # 6 px of 384 belong to no patch
    assert whole[-1, 2:] == pytest.approx(np.array(size) * (side - rim) / side)


def test_settings_that_are_not_understood(model):
    name, hf, processor = model
    inputs = pixel_impulses.encode(processor, [pixel_impulses.picture((140, 84))])
    with pytest.raises(
        ModelError, match=r"give tiles of shape \(1, 10, 3, \d+, \d+\), but the inputs hold \(1, 7, 3"
    ):
        FAMILIES[name].footprints([(80, 80)], inputs, processor, hf.config)
    assert len(FAMILIES[name].footprints([], {}, None, None)) == 0


def test_prompt():
    found = SmolVlm().fallback_prompt("Why?", 2, "Be brief.")
    assert found == (
        "System: Be brief.<end_of_utterance>\nUser:<image><image>Why?<end_of_utterance>\nAssistant:"
    )
    assert Idefics3().fallback_prompt("Why?", 1, None) == "User:<image>Why?<end_of_utterance>\nAssistant:"
