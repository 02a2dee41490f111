"""Qwen's footprints against transformers' processor and towers."""

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
from interp.models.families.qwen_and_glm import Qwen2Vl, Qwen3Vl, Qwen3VlMoe, Qwen25Vl
from tests.models.footprint_checks import Bench, assert_counts, assert_covered, assert_local, encode, picture

FAMILIES = {
    "qwen2_vl": Qwen2Vl,
    "qwen2_5_vl": Qwen25Vl,
    "qwen3_vl": Qwen3Vl,
    "qwen3_vl_moe": Qwen3VlMoe,
}
SAMPLES = [[(140, 140)], [(230, 90)], [(60, 190)], [(30, 22)], [(460, 300)], [(140, 84), (60, 90)]]


def merged(pixel_values: torch.Tensor) -> np.ndarray:
    """Four patches in a row are one token: the processor has put each merged block's together."""
    return pixel_values.reshape(-1, 4 * pixel_values.shape[-1]).mean(dim=-1).numpy()


@pytest.mark.covering
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sizes", SAMPLES, ids=str)
def test_a_footprints_pixels_change_its_token(family, sizes):
    bench = Bench(family, FAMILIES[family](), sizes)
    found = assert_counts(bench)
    assert_local(bench, found, every=3)
    assert_covered(bench, found, merged, tolerance=0.06)


def test_the_grid_follows_the_aspect_ratio_and_the_limits():
    """Worked by hand: 140×84 is 5×3 blocks of 28; 30×22 grows to at least 9; 460×300 shrinks to at most 60."""
    grids = {
        size: Bench("qwen2_vl", Qwen2Vl(), [size]).footprints().grid
        for size in [(140, 84), (30, 22), (460, 300)]
    }
    assert grids == {(140, 84): (3, 5), (30, 22): (3, 4), (460, 300): (6, 9)}


@pytest.mark.parametrize(
    "wrong",
    [lambda b: np.roll(b, 1, axis=0), lambda b: b.reshape(3, 5, 4).swapaxes(0, 1).reshape(15, 4)],
    ids=["shifted by one token", "transposed"],
)
def test_a_wrong_layout_fails_the_impulses(wrong):
    bench = Bench("qwen2_vl", Qwen2Vl(), [(140, 84)])
    found = bench.footprints()
    with pytest.raises(AssertionError):
        assert_local(bench, Footprints(wrong(found.boxes), found.grid, found.views, found.image))


def real(family: str, patch: int, most: int):
    """A processor with a checkpoint's own image settings, and the parts of the config that are read."""
    _, processor = tiny(family)
    processor.image_processor = transformers.Qwen2VLImageProcessorPil(
        patch_size=patch,
        size={"shortest_edge": 4 * (2 * patch) ** 2, "longest_edge": most * (2 * patch) ** 2},
    )
    vision = SimpleNamespace(patch_size=patch, spatial_merge_size=2)
    return processor, SimpleNamespace(image_token_id=160, vision_config=vision)


@pytest.mark.parametrize(("family", "patch"), [("qwen2_5_vl", 14), ("qwen3_vl", 16)])
def test_counts_at_real_sizes(family, patch):
    processor, config = real(family, patch, 1280)
    adapter = FAMILIES[family]()

    @settings(max_examples=8, deadline=None)
    @given(st.integers(1, 1500), st.integers(1, 1500))
    @example(1, 190)
    @example(2000, 1400)
    def holds(width: int, height: int) -> None:
        if max(width, height) > 200 * min(width, height):
            return
        inputs = encode(processor, adapter, [picture((width, height))])
        found = adapter.footprints([(width, height)], inputs, processor, config)
        assert len(found) == len(adapter.image_positions(inputs["input_ids"], config))
        check_layout(found, [(width, height)], [(0.0, 0.0, float(width), float(height))])

    holds()


def test_images_that_are_not_resized():
    """Then an image is whole blocks already; the processor refuses others."""
    bench = Bench("qwen2_vl", Qwen2Vl(), [(56, 84)])
    bench.parts[1].image_processor.do_resize = False
    assert assert_counts(bench).grid == (3, 2)


def test_settings_that_are_not_understood():
    bench = Bench("qwen2_vl", Qwen2Vl(), [(140, 84)])
    (model, processor), inputs = bench.parts, bench.encode()

    def refused(message: str, adapter=Qwen2Vl(), inputs=inputs, sizes=bench.sizes) -> None:  # noqa: B008
        with pytest.raises(ModelError, match=message):
            adapter.footprints(sizes, inputs, processor, model.config)

    refused(
        r"140×84, 28×28 .*into \[\(6, 10\), \(6, 6\)\] .*image_grid_thw is \[\(1, 6, 10\)\]",
        sizes=[(140, 84), (28, 28)],
    )
    refused(r"expected images for qwen3_vl, got a video", Qwen3Vl(), {"video_grid_thw": torch.ones(1, 3)})
    processor.image_processor.size = {"shortest_edge": 28**2, "longest_edge": 4 * 28**2}
    refused(r"called with settings other than its own\? Set them on processor.image_processor")
    processor.image_processor.size = {"height": 56, "width": 56}
    refused(
        r'"shortest_edge" and "longest_edge", the fewest and the most pixels; Qwen2VLImageProcessorPil has .*Set both'
    )
    processor.image_processor.patch_size = 16
    refused(r"cuts patches of 16 px and merges 2×2; the model takes 14 px and 2×2. Pass the processor")


def test_the_fallback_prompt():
    """Without the vision tokens around them, two images in a row would share one run of rope positions."""
    one = "<|vision_start|><|image_pad|><|vision_end|>"
    assert Qwen3Vl().fallback_prompt("Why?", 2, None) == (
        f"<|im_start|>user\n{one}{one}Why?<|im_end|>\n<|im_start|>assistant\n"
    )
    head = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    assert Qwen25Vl().fallback_prompt("Why?", 0, None).startswith(f"{head}<|im_start|>user\nWhy?")
    assert (
        Qwen2Vl()
        .fallback_prompt("Why?", 0, "Be brief.")
        .startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
    )
    model, processor = tiny("qwen2_vl")
    processor.chat_template = None
    inputs = encode(processor, Qwen2Vl(), [picture((140, 84)), picture((60, 90))])
    wanted = {name: inputs[name] for name in ("input_ids", "mm_token_type_ids", "image_grid_thw")}
    positions, _ = model.model.get_rope_index(**wanted)
    assert positions.shape == (3, *inputs["input_ids"].shape)


def test_who_is_who():
    for family, adapter in FAMILIES.items():
        model, _ = tiny(family)
        assert [other().name for other in FAMILIES.values() if other().matches(model.config)] == [family]
        assert adapter().attends == "causal"
        assert len(adapter().layers(model)) == 3
