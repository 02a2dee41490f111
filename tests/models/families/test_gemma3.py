"""Gemma 3's footprints against transformers' processor and tower, with pan and scan too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from interp.conformance.tiny.kit import tokenizer
from interp.errors import ModelError
from interp.inputs.footprints import Footprints, check_layout
from interp.models.families.gemma import Gemma3
from tests.models.footprint_checks import (
    Bench,
    assert_counts,
    assert_covered,
    assert_local,
    encode,
    grids_of_views,
    picture,
)

SAMPLES = [[(140, 140)], [(230, 90)], [(60, 190)], [(30, 22)], [(101, 57)], [(140, 84), (60, 90)]]
SCAN = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 16}
CELL = 16  # processed pixels of a token: patches of 8 px, pooled 2×2


def bench(*sizes: tuple[int, int], **images_kwargs) -> Bench:
    return Bench("gemma3", Gemma3(), list(sizes), images_kwargs)


@pytest.mark.covering
@pytest.mark.parametrize("scan", [{}, SCAN], ids=["squashed", "pan and scan"])
@pytest.mark.parametrize("sizes", SAMPLES, ids=str)
def test_a_footprints_pixels_change_its_token(sizes, scan):
    """Crops tile their image too: `assert_counts` asks each view, "crop" among them, to cover it exactly."""
    one = bench(*sizes, **scan)
    found = assert_counts(one)
    assert_local(one, found, every=3)
    assert_covered(one, found, grids_of_views(CELL), tolerance=0.1)


def test_crops_by_hand():
    """101×57: the ratio rounds to two crops of ceil(101/2) = 51 pixels; the last one is one pixel narrower."""
    found = bench((101, 57), **SCAN).footprints()
    assert found.grid is None
    assert [str(view) for view in found.views[::16]] == ["base", "crop", "crop"]
    assert found.boxes[[0, 15, 16, 31, 32, 47]].tolist() == pytest.approx(
        np.array(
            [
                [0, 0, 25.25, 14.25],
                [75.75, 42.75, 101, 57],
                [0, 0, 12.75, 14.25],
                [38.25, 42.75, 51, 57],
                [51, 0, 63.5, 14.25],
                [88.5, 42.75, 101, 57],
            ]
        )
    )
    stacked = bench((60, 190), **SCAN).footprints()
    assert stacked.boxes[stacked.views == "crop"][::16].tolist() == [
        [0, 0, 15, 16],
        [0, 64, 15, 80],
        [0, 128, 15, 143.5],
    ]


def test_images_without_crops_keep_the_grid():
    """Nearly square images, and those whose crops would be too small, are not cut."""
    assert bench((140, 130), **SCAN).footprints().grid == (4, 4)
    found = bench((140, 84), **{**SCAN, "pan_and_scan_min_crop_size": 256}).footprints()
    assert (found.grid, set(found.views)) == ((4, 4), {"base"})
    assert set(bench((140, 84)).footprints().views) == {""}
    assert bench((140, 84), (60, 90)).footprints().grid == (4, 4)


def test_the_processors_own_setting_wins():
    """As in transformers: Gemma 3's processor does not pan and scan whatever the image processor says."""
    one = bench((230, 90))
    one.parts[1].image_processor.do_pan_and_scan = True
    assert len(assert_counts(one)) == 16


@pytest.mark.parametrize("wrong", ["swapped crops", "shifted by a row", "transposed"])
def test_a_wrong_layout_fails_the_impulses(wrong):
    one = bench((140, 84), **SCAN)
    found = one.footprints()
    order = np.arange(len(found)).reshape(-1, 4, 4)
    if wrong == "swapped crops":
        order[[1, 2]] = order[[2, 1]]
    elif wrong == "shifted by a row":
        order = np.roll(order, 1, axis=1)
    else:
        order = order.swapaxes(1, 2)
    with pytest.raises(AssertionError):
        assert_local(one, Footprints(found.boxes[order.ravel()], None, found.views, found.image))


def test_image_tokens_see_the_later_ones_of_their_own_image():
    """What `attends` says, on the model itself: changing an image changes its own first token, and not before."""
    one = bench((140, 84), (60, 90))
    model, blank = one.parts[0], one.encode()
    changed = one.encode((45, 60, 60, 90), image=1)  # the last token of the second image
    at = Gemma3().image_positions(blank["input_ids"], model.config)
    with torch.no_grad():
        hidden = [
            model(**inputs, output_hidden_states=True).hidden_states[2][0] for inputs in (blank, changed)
        ]
    change = (hidden[1] - hidden[0]).norm(dim=-1)
    assert Gemma3.attends == "image_blocks"
    assert change[at[16]] > 1e-3  # through the second layer, which is not a sliding one
    assert change[: at[16]].max() < 1e-5


@pytest.mark.parametrize("scan", [False, True])
def test_counts_at_real_sizes(scan):
    """896 px, 64×64 patches pooled to 16×16 tokens; crops of at least 256 px."""
    words = tokenizer(
        image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>"
    )
    images = transformers.Gemma3ImageProcessorPil(size={"height": 896, "width": 896})
    processor: Any = transformers.Gemma3Processor(images, words, image_seq_length=256)
    processor.images_kwargs = {**processor.images_kwargs, "do_pan_and_scan": scan}
    vision = SimpleNamespace(image_size=896, patch_size=14)
    config = SimpleNamespace(image_token_id=160, vision_config=vision, mm_tokens_per_image=256)

    @settings(max_examples=4, deadline=None)
    @given(st.integers(1, 1600), st.integers(1, 1600))
    @example(1, 700)
    @example(1601, 522)
    def holds(width: int, height: int) -> None:
        inputs = encode(processor, Gemma3(), [picture((width, height))])
        found = Gemma3().footprints([(width, height)], inputs, processor, config)
        assert len(found) == len(Gemma3().image_positions(inputs["input_ids"], config))
        check_layout(found, [(width, height)], [(0.0, 0.0, float(width), float(height))])

    holds()


def test_settings_that_are_not_understood():
    one = bench((140, 84))
    (model, processor), inputs = one.parts, one.encode()

    def refused(message: str, inputs=inputs) -> None:
        with pytest.raises(ModelError, match=message):
            Gemma3().footprints(one.sizes, inputs, processor, model.config)

    processor.images_kwargs = {**processor.images_kwargs, **SCAN}
    refused(r"images of 140×84 into 3 views of 64×64, but pixel_values hold 1 view of 64×64")
    processor.images_kwargs = {"do_pan_and_scan": True}
    refused(
        r"pan and scan needs a value for each of its settings; Gemma3Processor has \{'pan_and_scan_min_crop_size': None"
    )
    processor.images_kwargs = {}
    processor.image_processor.size = {"height": 56, "width": 72}
    refused(
        r"gemma3's tower takes 64×64 pixels; the processor makes 72×56",
        {"pixel_values": torch.zeros(1, 3, 56, 72)},
    )
    processor.image_processor.size = {"longest_edge": 64}
    refused(r'the gemma3 adapter expects the size as "height" and "width".*\{\'longest_edge\': 64\}')
    processor.image_processor.do_resize = False
    refused(r"into 1 view of 140×84, but pixel_values hold 1 view of 64×64")


def test_the_prompt():
    assert Gemma3().fallback_prompt("Why?", 2, "Be brief.") == (
        "<start_of_turn>user\nBe brief.\n\n<start_of_image><start_of_image>Why?<end_of_turn>\n<start_of_turn>model\n"
    )
    one = bench((140, 84), (60, 90))
    one.parts[1].chat_template = None
    assert_counts(one)
