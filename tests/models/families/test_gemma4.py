"""Gemma 4's footprints against transformers' processor, tower and pooling."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.inputs.footprints import Footprints, check_layout
from interp.models.families.gemma import Gemma4
from tests.models.footprint_checks import Bench, assert_counts, assert_local, encode, picture

SAMPLES = [[(96, 96)], [(200, 60)], [(50, 170)], [(21, 13)], [(101, 57), (60, 90)]]


def bench(*sizes: tuple[int, int]) -> Bench:
    return Bench("gemma4", Gemma4(), list(sizes))


@pytest.mark.covering
@pytest.mark.parametrize("sizes", SAMPLES, ids=str)
def test_a_footprints_pixels_change_its_token(sizes):
    one = bench(*sizes)
    assert_local(one, assert_counts(one), every=7)


def test_the_grid_by_hand():
    """100×50 px: 70 cells of 8×8 px have 4480 px, so a scale of √(4480/5000): 94.7×47.3, cut to 88×40 px."""
    found = bench((100, 50)).footprints()
    assert found.grid == (5, 11)
    np.testing.assert_allclose(found.boxes[[0, 12, 54]], [
        [0, 0, 100 / 11, 10],
        [100 / 11, 10, 200 / 11, 20],
        [1000 / 11, 40, 100, 50],
    ])  # fmt: skip


def test_the_most_tokens_are_those_of_the_processor():
    """140 cells have 8960 px: a scale of √(8960/5000) = 1.339 gives 133.9×66.9, cut to 128×64 px."""
    one = bench((100, 50))
    one.parts[1].image_processor.max_soft_tokens = 140
    found = one.footprints()
    assert found.grid == (8, 16)
    np.testing.assert_allclose(found.boxes[17], [100 / 16, 50 / 8, 200 / 16, 100 / 8])


def test_a_strip_is_one_row_of_whole_cells():
    """8×1000 px: the width would be no cell; transformers takes one column of at most 70 cells."""
    assert bench((8, 1000)).footprints().grid == (70, 1)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["shifted", "transposed"])
def test_a_wrong_layout_fails_the_impulses(wrong):
    one = bench((96, 96))
    found = one.footprints()
    order = np.arange(64).reshape(8, 8)
    order = (np.roll(order, 1) if wrong == "shifted" else order.T).ravel()
    with pytest.raises(AssertionError):
        assert_local(one, Footprints(found.boxes[order], None, found.views, found.image), every=5)


def test_image_tokens_see_later_ones_in_sliding_layers_only():
    """By transformers' own eager weights; the window of 12 hides what is further back, not what is ahead."""
    model, inputs = tiny("gemma4", "eager")[0], bench((96, 96)).encode()
    at = Gemma4().image_positions(inputs["input_ids"], model.config)

    def seen(layer: int) -> np.ndarray:
        with torch.no_grad():
            weights = model(**inputs, output_attentions=True).attentions[layer][0]
        return (weights > 0).any(dim=0).numpy()

    row = int(at[30])
    expected = np.zeros(inputs["input_ids"].shape[1], bool)
    expected[row - 11 : int(at[-1]) + 1] = True
    assert (seen(0)[row] == expected).all()
    assert (seen(3)[row] == expected).all(), "a layer without keys of its own, of the sliding kind"
    assert np.flatnonzero(seen(1)[row]).tolist() == list(range(row + 1))
    model.config.text_config.use_bidirectional_attention = None
    model.model.language_model.config.use_bidirectional_attention = None
    assert np.flatnonzero(seen(0)[row]).tolist() == list(range(row - 11, row + 1))
    assert Gemma4().attends_in(model.config) == "causal"


def test_what_a_config_makes_its_rows_see():
    def declared(kind: str | None) -> str:
        text = SimpleNamespace(use_bidirectional_attention=kind)
        return Gemma4().attends_in(SimpleNamespace(text_config=text))

    assert (declared(None), declared("vision")) == ("causal", "sliding_image_blocks")
    with pytest.raises(ModelError, match="every row sees the whole sequence, so it is an encoder"):
        declared("all")


@pytest.mark.slow
@pytest.mark.parametrize("most", [70, 280, 1120])
def test_counts_at_real_sizes(most):
    """Cells of 48 px: patches of 16 px pooled 3×3."""
    processor: Any = bench((9, 9)).parts[1]
    images = processor.image_processor
    before = images.patch_size, images.pooling_kernel_size, images.max_soft_tokens
    images.patch_size, images.pooling_kernel_size, images.max_soft_tokens = 16, 3, most
    vision = SimpleNamespace(patch_size=16, pooling_kernel_size=3)
    config = SimpleNamespace(image_token_id=160, vision_config=vision)

    @settings(max_examples=3, deadline=None)
    @given(st.integers(20, 1600), st.integers(20, 1600))
    @example(640, 480)
    def holds(width: int, height: int) -> None:
        inputs = encode(processor, Gemma4(), [picture((width, height))])
        found = Gemma4().footprints([(width, height)], inputs, processor, config)
        assert len(found) == len(Gemma4().image_positions(inputs["input_ids"], config)) <= most
        check_layout(found, [(width, height)], [(0.0, 0.0, float(width), float(height))])

    holds()
    images.patch_size, images.pooling_kernel_size, images.max_soft_tokens = before


def test_settings_that_are_not_understood():
    one = bench((96, 96))
    (model, processor), inputs = one.parts, one.encode()

    def refused(message: str) -> None:
        with pytest.raises(ModelError, match=message):
            Gemma4().footprints(one.sizes, inputs, processor, model.config)

    processor.image_processor.max_soft_tokens = 140
    refused(r"grids of patches \(rows, cols\) \[\(22, 22\)\], but the inputs hold \[\(16, 16\)\]")
    processor.image_processor.do_resize = False
    processor.image_processor.patch_size = 5
    refused(r"patch_size and pooling_kernel_size are \(5, 2\), but the model's config has \(4, 2\)")
    model.config.vision_config.patch_size = 5
    refused(r"gemma4 pools 2×2 patches of 5 px; an image of 96×96 px is no whole number")


def test_the_prompt():
    assert Gemma4().fallback_prompt("Why?", 2, "Be brief.") == (
        "<bos><|turn>system\nBe brief.<turn|>\n<|turn>user\n<|image|><|image|>Why?<turn|>\n<|turn>model\n"
    )
