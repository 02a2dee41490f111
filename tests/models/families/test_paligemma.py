"""PaliGemma's footprints and prompt against transformers' processor and tower."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from interp.conformance.tiny import tiny
from interp.conformance.tiny.kit import tokenizer
from interp.errors import ModelError
from interp.inputs.footprints import Footprints, check_layout
from interp.models.families.gemma import PaliGemma
from tests.models.footprint_checks import (
    Bench,
    assert_counts,
    assert_covered,
    assert_local,
    encode,
    grids_of_views,
    picture,
)

SAMPLES = [[(140, 140)], [(230, 90)], [(60, 190)], [(30, 22)], [(140, 84), (60, 90)]]


@pytest.mark.parametrize("sizes", SAMPLES, ids=str)
def test_a_footprints_pixels_change_its_token(sizes):
    bench = Bench("paligemma", PaliGemma(), sizes)
    found = assert_counts(bench)
    assert found.grid == (5, 5)
    assert_local(bench, found, every=2)
    assert_covered(bench, found, grids_of_views(14), tolerance=0.1)


@pytest.mark.parametrize(
    "wrong",
    [lambda b: np.roll(b, 1, axis=0), lambda b: b.reshape(5, 5, 4).swapaxes(0, 1).reshape(25, 4)],
    ids=["shifted by one token", "transposed"],
)
def test_a_wrong_layout_fails_the_impulses(wrong):
    bench = Bench("paligemma", PaliGemma(), [(140, 84)])
    found = bench.footprints()
    with pytest.raises(AssertionError):
        assert_local(bench, Footprints(wrong(found.boxes), found.grid, found.views, found.image))


def processor_of(side: int, patch: int) -> transformers.PaliGemmaProcessor:
    images: Any = transformers.SiglipImageProcessorPil(size={"height": side, "width": side})
    images.image_seq_length = (side // patch) ** 2
    return transformers.PaliGemmaProcessor(images, tokenizer(image_token="<image>"))


def config_of(patch: int) -> SimpleNamespace:
    return SimpleNamespace(image_token_id=160, vision_config=SimpleNamespace(patch_size=patch))


@pytest.mark.parametrize("side", [224, 448])
def test_counts_at_real_sizes(side):
    processor, config = processor_of(side, 14), config_of(14)

    @settings(max_examples=6, deadline=None)
    @given(st.integers(1, 1500), st.integers(1, 1500))
    @example(1, 700)
    def holds(width: int, height: int) -> None:
        inputs = encode(processor, PaliGemma(), [picture((width, height))])
        found = PaliGemma().footprints([(width, height)], inputs, processor, config)
        assert (
            len(found) == len(PaliGemma().image_positions(inputs["input_ids"], config)) == (side // 14) ** 2
        )
        check_layout(found, [(width, height)], [(0.0, 0.0, float(width), float(height))])

    holds()


def test_a_patch_that_does_not_divide_the_image_leaves_a_rim():
    """60 px hold 4 patches of 14: the last 4 of 60 px, a fifteenth of the image, are seen by no token."""
    processor, config = processor_of(60, 14), config_of(14)
    inputs = encode(processor, PaliGemma(), [picture((120, 240))])
    found = PaliGemma().footprints([(120, 240)], inputs, processor, config)
    assert found.grid == (4, 4)
    check_layout(found, [(120, 240)], [(0.0, 0.0, 112.0, 224.0)])


def test_an_image_need_not_be_squashed_to_a_square():
    """42×28 px are 3×2 patches of 14: each sees 30×40 pixels of 90×80."""
    processor, config = processor_of(28, 14), config_of(14)
    processor.image_processor.size = {"height": 28, "width": 42}
    inputs = processor.image_processor(images=[picture((90, 80))], return_tensors="pt")
    found = PaliGemma().footprints([(90, 80)], inputs, processor, config)
    assert found.grid == (2, 3)
    assert found.boxes[[1, 3]].tolist() == [[30, 0, 60, 40], [0, 40, 30, 80]]


def test_the_prompt_is_images_bos_text_newline():
    """PaliGemma's own order; the processor writes the bos and the newline, so the prompt must hold neither."""
    _, processor = tiny("paligemma")
    prompt = PaliGemma().fallback_prompt("where is it ?", 2, None)
    assert prompt == "<image><image>where is it ?"
    assert PaliGemma().fallback_prompt("Why?", 0, "Be brief.") == "Be brief. Why?"
    images = [Image.fromarray(picture(size)) for size in ((140, 84), (60, 90))]
    words = processor.tokenizer("where is it ?")["input_ids"]
    ids = processor(text=[prompt], images=images)["input_ids"][0]
    assert ids == [160] * 50 + [processor.tokenizer.bos_token_id, *words]
    _, laid_out, *_ = processor.prepare_inputs_layout(images=images, text=[prompt])
    assert laid_out == ["<image><image><s>where is it ?\n"]


def test_prompt_tokens_see_the_whole_prompt():
    """What `attends` and `first_position` say, on the model itself."""
    bench = Bench("paligemma", PaliGemma(), [(140, 84)])
    (model, _), inputs = bench.parts, bench.encode()
    changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][0, -1] = 20
    positions = torch.arange(inputs["input_ids"].shape[1])[None] + PaliGemma.first_position
    with torch.no_grad():
        before = model(**inputs, output_hidden_states=True)
        after = model(**changed, output_hidden_states=True)
        explicit = model(**inputs, position_ids=positions)
    assert PaliGemma.attends == "prefix"
    assert (after.hidden_states[1] - before.hidden_states[1])[0, 0].norm() > 1e-3
    assert torch.equal(explicit.logits, before.logits)


def test_settings_that_are_not_understood():
    bench = Bench("paligemma", PaliGemma(), [(140, 84)])
    (model, processor), inputs = bench.parts, bench.encode()

    def refused(message: str, sizes=bench.sizes) -> None:
        with pytest.raises(ModelError, match=message):
            PaliGemma().footprints(sizes, inputs, processor, model.config)

    refused(r"140×84, 60×90 into 2 views of 70×70, but pixel_values hold 1 view", sizes=[(140, 84), (60, 90)])
    processor.image_processor.size = {"height": 56, "width": 42}
    refused(r"into 1 view of 42×56, but pixel_values hold 1 view of 70×70 .*settings other than its own")
    processor.image_processor.size = {"shortest_edge": 70}
    refused(r'the paligemma adapter expects the size as "height" and "width"; SiglipImageProcessorPil has')
    processor.image_processor.do_center_crop = True
    refused(
        r"expects images to be squashed, but SiglipImageProcessorPil has do_center_crop=True. Set it to False"
    )
