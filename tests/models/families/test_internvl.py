"""InternVL's footprints against transformers' processor and tower."""

from __future__ import annotations

import numpy as np
import pytest
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.inputs.footprints import Footprints, check_layout
from interp.models.families.internvl import InternVl
from tests.models.footprint_checks import (
    Bench,
    assert_counts,
    assert_covered,
    assert_local,
    encode,
    grids_of_views,
    picture,
)

SAMPLES = [[(140, 140)], [(230, 90)], [(60, 190)], [(30, 22)], [(500, 90)], [(140, 84), (64, 64)]]
ONE_TILE = {"crop_to_patches": False}
CELL = 16  # processed pixels of a token: patches of 8 px, shuffled 2×2


def processed(processor, size: tuple[int, int]) -> dict:
    """What the image processor alone makes of a picture, tiled: the model would refuse the sizes tried here."""
    image = Image.fromarray(picture(size))
    return dict(processor.image_processor(images=[image], crop_to_patches=True, return_tensors="pt"))


def bench(*sizes: tuple[int, int], **images_kwargs) -> Bench:
    return Bench("internvl", InternVl(), list(sizes), images_kwargs)


@pytest.mark.parametrize("sizes", SAMPLES, ids=str)
def test_a_footprints_pixels_change_its_token(sizes):
    one = bench(*sizes)
    found = assert_counts(one)
    assert_local(one, found, every=4)
    assert_covered(one, found, grids_of_views(CELL), tolerance=0.12)


def test_the_canvas_follows_the_aspect_ratio():
    """Worked by hand, at most six tiles: 140×140 is 2×2 (area over half of the canvas), 450×90 is 5 in a row."""
    found = bench((140, 140)).footprints()
    assert [(view, n) for view, n in zip(*np.unique(found.views, return_counts=True), strict=True)] == [
        ("thumbnail", 9),
        ("tile", 36),
    ]
    assert found.grid is None
    assert found.boxes[9].tolist() == pytest.approx(
        [70, 0, 70 + 70 / 3, 70 / 3]
    )  # the second tile is to the right
    assert (found.views[-9:] == "thumbnail").all()
    wide = bench((450, 90)).footprints()
    assert (wide.views == "tile").sum() == 5 * 9
    assert (wide.boxes[:45, 3].max(), wide.boxes[8, 2]) == (90, 90)


@pytest.mark.parametrize("options", [ONE_TILE, {"max_patches": 1}], ids=str)
def test_one_tile_has_a_grid_and_no_thumbnail(options):
    one = bench((140, 84), (60, 90), **options)
    found = assert_counts(one)
    assert found.grid == (3, 3)
    assert set(found.views) == {"tile"}
    assert_local(one, found)
    assert_covered(one, found, grids_of_views(CELL), tolerance=0.12)
    assert bench((40, 40)).footprints().grid == (3, 3)  # too small for more than one


def test_the_processors_own_setting_wins():
    """As in transformers: InternVL's processor crops whatever the image processor says."""
    one = bench((140, 84))
    one.parts[1].image_processor.crop_to_patches = False
    assert len(one.encode()["pixel_values"]) == 7
    assert len(assert_counts(one)) == 63


@pytest.mark.parametrize("wrong", ["swapped tiles", "thumbnail first", "transposed tile"])
def test_a_wrong_layout_fails_the_impulses(wrong):
    one = bench((90, 60))
    found = one.footprints()
    order = np.arange(len(found)).reshape(-1, 9)
    if wrong == "swapped tiles":
        order[[0, 1]] = order[[1, 0]]
    elif wrong == "thumbnail first":
        order = np.roll(order, 1, axis=0)
    else:
        order[0] = order[0].reshape(3, 3).T.ravel()
    taken = order.ravel()
    with pytest.raises(AssertionError):
        assert_local(one, Footprints(found.boxes[taken], None, found.views[taken], found.image))


def test_counts_at_real_sizes():
    """448 px, 16×16 tokens a tile, at most 12 tiles."""
    _, processor = tiny("internvl")
    processor.image_processor = transformers.GotOcr2ImageProcessorPil(size={"height": 448, "width": 448})
    processor.image_seq_length = 256
    config = transformers.InternVLConfig(image_token_id=160)

    @settings(max_examples=6, deadline=None)
    @given(st.integers(1, 1200), st.integers(1, 1200))
    @example(1, 1200)
    @example(1920, 1080)
    @example(800, 800)
    def holds(width: int, height: int) -> None:
        inputs = encode(processor, InternVl(), [picture((width, height))])
        found = InternVl().footprints([(width, height)], inputs, processor, config)
        assert len(found) == len(InternVl().image_positions(inputs["input_ids"], config))
        check_layout(found, [(width, height)], [(0.0, 0.0, float(width), float(height))])

    holds()


def test_settings_that_are_not_understood():
    one = bench((140, 84))
    (model, processor), inputs = one.parts, one.encode()

    def refused(message: str, inputs=inputs) -> None:
        with pytest.raises(ModelError, match=message):
            InternVl().footprints(one.sizes, inputs, processor, model.config)

    processor.images_kwargs = ONE_TILE
    refused(r"images of 140×84 into 1 view of 48×48, but pixel_values hold 7 views of 48×48 .*images_kwargs")
    refused(r"but pixel_values hold 0 views of no size", inputs={})
    processor.images_kwargs = {"crop_to_patches": True}
    for size, shown in (((48, 40), "48×40"), ((56, 56), "56×56"), ((50, 50), "50×50")):
        processor.image_processor.size = {"height": size[1], "width": size[0]}
        refused(
            f"square tiles of whole patches of 8×8 px .*ratio 0.5.*makes tiles of {shown} px",
            inputs=processed(processor, one.sizes[0]),
        )
    processor.image_processor.size = {"shortest_edge": 48}
    refused(r'the internvl adapter expects the size as "height" and "width"; GotOcr2ImageProcessorPil has')


def test_the_prompt_and_the_family():
    assert InternVl().fallback_prompt("Why?", 2, "Be brief.") == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<IMG_CONTEXT>\n<IMG_CONTEXT>\nWhy?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    one = bench((140, 84), (60, 90))
    one.parts[1].chat_template = None
    assert_counts(one)
    assert InternVl().matches(one.parts[0].config)
    assert InternVl().attends == "causal"
