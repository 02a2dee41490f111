"""LLaVA-OneVision's footprints against transformers' image processor, feature packing and model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import example, given, settings
from PIL import Image
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

from interp.conformance.tiny import tiny
from interp.conformance.tiny.kit import FIRST_SPECIAL, tokenizer
from interp.errors import ModelError
from interp.inputs.footprints import Footprints
from interp.models.families.llava import LlavaOnevision
from interp.models.processors import images_only
from tests.models import pixel_impulses

FAMILY = LlavaOnevision()
SIDE, PATCH = 60, 14
# The resolution (height, width) each is laid on. The first are not shrunk, the last three are.
BEST = {
    (60, 60): (60, 60),
    (110, 58): (60, 120),
    (100, 31): (60, 120),
    (41, 133): (180, 60),
    (120, 105): (120, 120),
    (29, 25): (60, 60),
    (140, 84): (120, 180),
    (170, 175): (180, 180),
    (101, 160): (180, 120),
}
WHOLE, SHRUNK = list(BEST)[:6], [(140, 84), (170, 175), (101, 160)]


@pytest.fixture(scope="module")
def model() -> tuple[Any, Any]:
    return tiny("llava_onevision")


def packed(patches: np.ndarray, size: tuple[int, int], config: Any) -> np.ndarray:
    """(token,): transformers' own packing of one number per patch of each tile; newline tokens are NaN."""
    features = torch.tensor(patches).flatten(1)[..., None]
    found, _ = LlavaOnevisionModel.pack_image_features(
        SimpleNamespace(config=config),
        [features],
        torch.tensor([size[::-1]]),
        torch.full((1,), torch.nan, dtype=features.dtype),
        config.vision_aspect_ratio,
    )
    return found[0][:, 0].numpy()


@pytest.mark.parametrize("size", WHOLE)
def test_rectangles_fill_the_cells_that_their_footprints_say(model, size):
    hf, processor = model
    found = pixel_impulses.footprints_of(FAMILY, processor, hf.config, [size])
    best = BEST[size]
    scale = np.where(
        found.views == "base", SIDE**2 / size[0] / size[1], min(best[1] / size[0], best[0] / size[1]) ** 2
    )
    pixels = np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1) * scale
    tolerance = 0.03 if min(size) > 55 else 0.1  # enlarging blurs edges over cells
    for box in pixel_impulses.boxes_in(size, 8):
        seen = packed(pixel_impulses.brightness(processor, size, box, PATCH)[0], size, hf.config)
        wanted = pixel_impulses.covered(found, [size], box) * pixels / PATCH**2
        assert np.isnan(wanted[np.isnan(seen)]).all()
        assert np.abs(np.nan_to_num(wanted) - np.nan_to_num(seen)).max() < tolerance


@pytest.mark.parametrize("size", SHRUNK)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_shrunk_grid_reads_a_ramp_at_its_cells_centres(model, size, axis):
    """Brightness grows along one axis, so a token's value tells where it looks."""
    hf, processor = model
    found = pixel_impulses.footprints_of(FAMILY, processor, hf.config, [size])
    line = (np.arange(size[axis]) + 0.5) * 250 / size[axis]
    shape = (size[1], size[0], 3)
    ramp = (
        np.broadcast_to(line[None, :, None] if axis == 0 else line[:, None, None], shape)
        .round()
        .astype(np.uint8)
    )
    values = pixel_impulses.encode(processor, [Image.fromarray(ramp)])["pixel_values"][0, :, 0].numpy()
    settings = processor.image_processor
    values = (values * settings.image_std[0] + settings.image_mean[0]) * 255 * size[axis] / 250
    values = values[:, :56, :56].reshape(-1, 4, PATCH, 4, PATCH).mean((2, 4))
    seen = packed(values, size, hf.config)
    assert len(seen) == len(found)
    clear = (found.boxes[:, :2] > 0.15 * np.array(size)) & (found.boxes[:, 2:] < 0.85 * np.array(size))
    inner = (found.views == "tile") & clear.all(axis=1)  # no padding and no end is near
    assert inner.sum() > 10
    low, high = found.boxes[:, axis], found.boxes[:, axis + 2]
    assert (np.abs(seen - (low + high) / 2)[inner] < 0.1 * (high - low)[inner]).all()


def test_which_tokens_have_no_area(model):
    hf, processor = model
    found = pixel_impulses.footprints_of(FAMILY, processor, hf.config, [(120, 105)])
    assert found.views.tolist() == ["base"] * 16 + ["tile"] * 72
    assert found.grid is None
    rows = found.boxes[16:].reshape(8, 9, 4)
    assert np.isnan(rows[:, 8]).all()
    # Each tile's last 4 of 60 px are seen by no patch; 7 px of padding are above the image.
    assert rows[3, 3] == pytest.approx([42, 35, 56, 49])
    assert rows[4, 4] == pytest.approx([60, 53, 74, 67])
    assert found.boxes[15] == pytest.approx([42 * 2, 42 * 105 / 60, 56 * 2, 56 * 105 / 60])


@pytest.mark.parametrize("size", [(120, 120), (140, 84), (60, 150), (32, 32)])
def test_impulses_reach_their_tokens(model, size):
    hf, processor = model
    found = pixel_impulses.footprints_of(FAMILY, processor, hf.config, [size])
    pixel_impulses.assert_impulses_land(hf, processor, FAMILY, [size], found)


@pytest.mark.parametrize("together", [False, True])
def test_two_images_in_one_sample(model, together):
    """Nested, transformers takes them as one sample's: no tiles, each padded to a square."""
    hf, processor = model
    sizes = [(140, 85), (60, 97)]
    found = pixel_impulses.footprints_of(FAMILY, processor, hf.config, sizes, together=together)
    if together:
        assert np.bincount(found.image).tolist() == [17, 17]
        assert np.isnan(found.boxes[[16, 33]]).all()
        # 85 px high in a square of 140, 27 px of padding above: the first row of cells ends at 35 − 27
        assert found.boxes[0] == pytest.approx([0, 0, 140 * 14 / 60, 140 * 14 / 60 - 27])
    pixel_impulses.assert_impulses_land(hf, processor, FAMILY, sizes, found, every=2, together=together)


@pytest.mark.parametrize("size", [(150, 100), (70, 160)])
def test_padded_views_to_a_part_of_a_cell(model, size):
    hf, processor = model
    inputs = pixel_impulses.encode(processor, [pixel_impulses.picture(size)] * 2, together=True)
    found = FAMILY.footprints([size] * 2, inputs, processor, hf.config)
    edge = max(size)
    pixels = np.prod(found.boxes[:16, 2:] - found.boxes[:16, :2], axis=1) * (SIDE / edge) ** 2
    settings = processor.image_processor
    for box in pixel_impulses.boxes_in(size, 6):
        pair = [pixel_impulses.picture(size, box), pixel_impulses.picture(size)]
        first, second = pixel_impulses.encode(processor, pair, together=True)["pixel_values"][:, 0, 0].numpy()
        change = (
            (first - second) * settings.image_std[0] * 255 / (pixel_impulses.BRIGHT - pixel_impulses.DARK)
        )
        seen = change[:56, :56].reshape(4, PATCH, 4, PATCH).mean((1, 3)).ravel()
        wanted = np.nan_to_num(pixel_impulses.covered(found, [size] * 2, box)[:16] * pixels / PATCH**2)
        assert np.abs(wanted - seen).max() < 0.03


WRONG = {
    "shifted by one token": lambda b: np.roll(b, 1, axis=0),
    "base transposed": lambda b: np.concatenate(
        [b[:16].reshape(4, 4, 4).swapaxes(0, 1).reshape(16, 4), b[16:]]
    ),
    "rows shifted": lambda b: np.concatenate([b[:16], np.roll(b[16:], 7, axis=0)]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_layout_fails_the_impulses(model, wrong):
    hf, processor = model
    found = pixel_impulses.footprints_of(FAMILY, processor, hf.config, [(120, 120)])
    broken = Footprints(WRONG[wrong](found.boxes), None, found.views, found.image)
    with pytest.raises(AssertionError):
        pixel_impulses.assert_impulses_land(hf, processor, FAMILY, [(120, 120)], broken)


@settings(max_examples=20, deadline=None)
@given(size=pixel_impulses.real_sizes())
@example(size=(2304, 2304))
@example(size=(640, 480))
@example(size=(2000, 90))
def test_as_many_tokens_as_onevision_of_real_size_has(size):
    images = transformers.LlavaOnevisionImageProcessorPil()
    processor = images_only(transformers.LlavaOnevisionProcessor)(
        images,
        tokenizer(image_token="<image>", video_token="<video>"),
        num_image_tokens=729,
        vision_feature_select_strategy="full",
    )
    config = SimpleNamespace(
        image_token_id=FIRST_SPECIAL,
        image_grid_pinpoints=images.image_grid_pinpoints,
        vision_aspect_ratio="anyres_max_9",
        vision_config=SimpleNamespace(image_size=384, patch_size=14),
    )
    with pixel_impulses.shapes_only(processor):
        found = pixel_impulses.footprints_of(FAMILY, processor, config, [size])
    assert (found.views == "base").sum() == 729


def test_settings_that_are_not_understood(model):
    hf, processor = model
    inputs = pixel_impulses.encode(processor, [pixel_impulses.picture((140, 84))])
    other = tiny("llava_onevision")[1]
    other.vision_aspect_ratio = "anyres_max_9"
    with pytest.raises(
        ModelError, match=r"is 'anyres_max_9', but the model's config has 'anyres_max_4'.*Set both"
    ):
        FAMILY.footprints([(140, 84)], inputs, other, hf.config)
    with pytest.raises(
        ModelError, match=r"give images of \(width, height\) \[\(9, 9\)\].*hold \[\(140, 84\)\]"
    ):
        FAMILY.footprints([(9, 9)], inputs, processor, hf.config)
    several = {**inputs, "batch_num_images": torch.tensor([2])}
    with pytest.raises(ModelError, match=r"give a number of images 1, but the inputs hold 2"):
        FAMILY.footprints([(140, 84)], several, processor, hf.config)
    # told that they are one sample's, two images cut in tiles are too many views
    two = pixel_impulses.encode(processor, [pixel_impulses.picture((140, 84))] * 2)
    with pytest.raises(
        ModelError, match=r"\[\(1, 3, 60, 60\), \(1, 3, 60, 60\)\], but the inputs hold \[\(7, 3"
    ):
        FAMILY.footprints([(140, 84)] * 2, {**two, "batch_num_images": [2]}, processor, hf.config)
    assert len(FAMILY.footprints([], {}, None, None)) == 0
