"""GLM's footprints against transformers' processors and towers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.inputs.footprints import Footprints, check_layout
from interp.models.adapter import find
from interp.models.families.qwen_and_glm import Glm4v, Glm4vMoe, Glm46V
from tests.models.footprint_checks import Bench, assert_counts, assert_covered, assert_local, encode, picture

FAMILIES = {"glm4v": Glm4v, "glm46v": Glm46V, "glm4v_moe": Glm4vMoe}
SAMPLES = [[(140, 140)], [(230, 90)], [(60, 190)], [(30, 22)], [(140, 84), (60, 90)]]
CASES = [
    *(("glm4v", sizes) for sizes in SAMPLES),
    *((family, [(90, 60)]) for family in ("glm46v", "glm4v_moe")),
    pytest.param("glm4v", [(460, 300)], marks=pytest.mark.slow),
]


def merged(pixel_values: torch.Tensor) -> np.ndarray:
    """Four patches in a row are one token: the processor has put each merged block's together."""
    return pixel_values.reshape(-1, 4 * pixel_values.shape[-1]).mean(dim=-1).numpy()


@pytest.mark.parametrize(("family", "sizes"), CASES, ids=str)
def test_a_footprints_pixels_change_its_token(family, sizes):
    bench = Bench(family, FAMILIES[family](), sizes)
    found = assert_counts(bench)
    assert_local(bench, found, every=3)
    assert_covered(bench, found, merged, tolerance=0.06)


def test_the_grid_follows_the_aspect_ratio_and_the_limits():
    """Worked by hand, in blocks of 28: 140×84 is 5×3; 30×22 grows to at least 9 blocks; 460×300 (16×11) shrinks.

    30×22: the limit is 9 blocks in two frames, so a side is scaled by √(9·28²/(30·28)) after the height was raised to
    28 (and the width to 38): √(7056/1064) = 2.575, 97.9 → 4 blocks and 72.1 → 3. 460×300: by √(138000/47040) = 1.713,
    268.6 → 9 blocks and 175.2 → 6.
    """
    grids = {
        size: Bench("glm4v", Glm4v(), [size]).footprints().grid for size in [(140, 84), (30, 22), (460, 300)]
    }
    assert grids == {(140, 84): (3, 5), (30, 22): (3, 4), (460, 300): (6, 9)}


@pytest.mark.parametrize(
    "wrong",
    [lambda b: np.roll(b, 1, axis=0), lambda b: b.reshape(3, 5, 4).swapaxes(0, 1).reshape(15, 4)],
    ids=["shifted by one token", "transposed"],
)
def test_a_wrong_layout_fails_the_impulses(wrong):
    bench = Bench("glm4v", Glm4v(), [(140, 84)])
    found = bench.footprints()
    with pytest.raises(AssertionError):
        assert_local(bench, Footprints(wrong(found.boxes), found.grid, found.views, found.image))


def test_counts_at_real_sizes():
    """With the image processor's own settings; its limits count the pixels of two frames."""
    _, processor = tiny("glm4v")
    processor.image_processor = transformers.Glm4vImageProcessorPil(
        size={"shortest_edge": 112 * 112, "longest_edge": 2 * 640 * 28 * 28}
    )
    config = SimpleNamespace(
        image_token_id=160, vision_config=SimpleNamespace(patch_size=14, spatial_merge_size=2)
    )
    adapter = Glm4v()

    @settings(max_examples=4, deadline=None)
    @given(st.integers(1, 800), st.integers(1, 800))
    @example(1, 190)
    @example(1200, 900)
    def holds(width: int, height: int) -> None:
        if max(width, height) > 200 * min(width, height):
            return
        inputs = encode(processor, adapter, [picture((width, height))])
        found = adapter.footprints([(width, height)], inputs, processor, config)
        assert len(found) == len(adapter.image_positions(inputs["input_ids"], config))
        check_layout(found, [(width, height)], [(0.0, 0.0, float(width), float(height))])

    holds()


def test_settings_that_are_not_understood():
    bench = Bench("glm46v", Glm46V(), [(140, 84)])
    (model, processor), inputs = bench.parts, bench.encode()
    with pytest.raises(ModelError, match=r"expected images for glm4v_moe, got a video"):
        Glm4vMoe().footprints(bench.sizes, {"video_grid_thw": torch.ones(1, 3)}, processor, model.config)
    processor.image_processor.size = {"shortest_edge": 28**2, "longest_edge": 4 * 28**2}
    with pytest.raises(ModelError, match=r"Glm46VImageProcessorPil cut images .*called with settings other"):
        Glm46V().footprints(bench.sizes, inputs, processor, model.config)


def test_the_fallback_prompt():
    """Two images in a row keep rope positions of their own: tokens that begin and end each lie between."""
    one = "<|begin_of_image|><|image|><|end_of_image|>"
    assert Glm4v().fallback_prompt("Why?", 2, None) == f"[gMASK]<sop><|user|>\n{one}{one}Why?<|assistant|>\n"
    assert Glm4v().fallback_prompt("Why?", 0, "Be brief.") == (
        "[gMASK]<sop><|system|>\nBe brief.<|user|>\nWhy?<|assistant|>\n"
    )
    model, processor = tiny("glm4v")
    processor.chat_template = None
    inputs = encode(processor, Glm4v(), [picture((140, 84)), picture((60, 90))])
    wanted = {name: inputs[name] for name in ("input_ids", "mm_token_type_ids", "image_grid_thw")}
    positions, _ = model.model.get_rope_index(**wanted)
    assert positions.shape == (3, *inputs["input_ids"].shape)


def test_who_is_who():
    for family in FAMILIES:
        model, _ = tiny(family)
        adapter = find(model.config)
        assert type(adapter) is FAMILIES[family]
        assert len(adapter.layers(model)) == 3
