"""MiniCPM-V 4.6's slices against transformers' processor and tower, and batches of them."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import transformers
from numpy.testing import assert_allclose

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.inputs.footprints import Footprints
from interp.models.families.minicpmv import MiniCpmV46
from tests.models.footprint_checks import Bench, assert_counts, assert_local, encode, picture

SHAPES = {"square": (90, 90), "wide": (230, 90), "tall": (70, 190), "tiny": (30, 22), "sliced": (200, 150)}


@pytest.mark.by_default(shape=["wide", "tiny", "sliced"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_footprints_pixels_change_its_token(shape):
    bench = Bench("minicpmv4_6", MiniCpmV46(), [SHAPES[shape]])
    assert_local(bench, assert_counts(bench), every=5)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[size] for size in SHAPES.values()] + [[(200, 150), (50, 90)]], ids=str)
def test_every_footprint(sizes):
    bench = Bench("minicpmv4_6", MiniCpmV46(), sizes)
    assert_local(bench, assert_counts(bench))


def test_each_image_of_a_sample_has_its_own_slices():
    """A sliced wide image and a small high one, in either order."""
    sizes = [(200, 150), (50, 90), (230, 90)]
    alone = [Bench("minicpmv4_6", MiniCpmV46(), [size]).footprints() for size in sizes]
    found = assert_counts(Bench("minicpmv4_6", MiniCpmV46(), sizes))
    np.testing.assert_array_equal(found.boxes, np.concatenate([one.boxes for one in alone]))
    assert found.views.tolist() == [view for one in alone for view in one.views]
    assert np.bincount(found.image).tolist() == [len(one) for one in alone]


def test_slices_by_hand():
    """200×150 has 3.26 times 96² pixels: 3, 4 or (beyond the four there may be) 5 slices.

    Of 3×1, 1×3, 4×1, 2×2 and 1×4 (rows×columns) the shape 1.33 is nearest to 2×2. The whole: 96/√1.33 = 83 by 110,
    to multiples of 32: 96×96, 3×3 tokens of 66.7×50. A slice of 100×75, enlarged alike to 110×83: 96×96 too, so
    6×6 tokens of 33.3×25 in all, slice by slice.
    """
    found = Bench("minicpmv4_6", MiniCpmV46(), [(200, 150)]).footprints()
    assert found.views.tolist() == ["global"] * 9 + ["tile"] * 36
    assert_allclose(found.boxes[5], [400 / 3, 50, 200, 100])
    assert_allclose(found.boxes[9 + 9 + 3], [100, 25, 100 + 100 / 3, 50])
    assert_allclose(found.boxes[9 + 18], [0, 75, 100 / 3, 100])


def test_a_small_image_by_hand():
    """60×30 is enlarged: 96/√2 = 67 by 134, to 64×128: 2×4 tokens of 15×15 original pixels."""
    found = Bench("minicpmv4_6", MiniCpmV46(), [(60, 30)]).footprints()
    assert found.grid == (2, 4)
    assert_allclose(found.boxes[6], [30, 15, 45, 30])


def test_the_lesser_merge():
    """With downsample_mode="4x" the tower merges once: tokens of 2×2 patches, 16 px."""
    bench = Bench("minicpmv4_6", MiniCpmV46(), [(60, 30)])
    bench.parts[0].config.downsample_mode = bench.parts[1].image_processor.downsample_mode = "4x"
    found = assert_counts(bench)
    assert found.grid == (4, 8)
    assert_local(bench, found, every=3)


def test_slices_in_another_order_fail_the_impulses():
    bench = Bench("minicpmv4_6", MiniCpmV46(), [(200, 150)])
    found = bench.footprints()
    swapped = np.concatenate([found.boxes[:9], found.boxes[18:27], found.boxes[9:18], found.boxes[27:]])
    with pytest.raises(AssertionError):
        assert_local(bench, Footprints(swapped, None, found.views, found.image), every=7)


def test_unequal_slices_share_a_batch():
    """The model takes all patches in one row: what each sample gives alone, a left-padded batch gives too."""
    mllm = interp.wrap(*tiny("minicpmv4_6"))
    noise = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    given = [interp.Sample(one, "where is the nodule?") for one in (noise, noise[:40, :90], noise[:120, :70])]
    batch = mllm.encode(given)
    assert batch.inputs["pixel_values"].shape[0] == 1
    assert batch.inputs["target_sizes"].shape[0] > len(given)
    together = mllm.trace(batch, reads=[interp.Rows(interp.Site(keys="all"))])
    for i, sample in enumerate(given):
        alone = mllm.trace(sample, reads=[interp.Rows(interp.Site(keys="all"))])
        assert_allclose(together.logits[i], alone.logits[0], atol=3e-5)
        assert_allclose(together[i].rows, alone[0].rows, atol=2e-6)


@pytest.mark.parametrize(
    ("setting", "value", "slices"),
    [("slice_mode", False, 0), ("max_slice_nums", 2, 2), ("max_slice_nums", 6, 4)],
)
def test_settings_of_the_image_processor_are_followed(setting, value, slices):
    bench = Bench("minicpmv4_6", MiniCpmV46(), [(200, 150)])
    setattr(bench.parts[1].image_processor, setting, value)
    found = assert_counts(bench)
    tiles = found.boxes[found.views == "tile"]
    assert len({(x // 50, y // 37) for x, y in tiles[:, :2]}) >= slices
    assert (len(tiles) > 0) is (slices > 0)
    assert_local(bench, found, every=7)


def test_settings_that_are_not_understood():
    bench = Bench("minicpmv4_6", MiniCpmV46(), [(200, 150)])
    (model, processor), inputs = bench.parts, bench.encode()
    with pytest.raises(
        ModelError, match=r"grids of patches .*, but the inputs hold \[\(12, 12\), \(12, 12\)"
    ):
        MiniCpmV46().footprints([(30, 22)], inputs, processor, model.config)
    with pytest.raises(ModelError, match="expected images for minicpmv4_6, got a video"):
        MiniCpmV46().footprints([(30, 22)], {"target_sizes_videos": 1}, processor, model.config)
    processor.image_processor.downsample_mode = "4x"
    with pytest.raises(ModelError, match=r"downsample_mode='4x', the model 8 px, '16x'"):
        MiniCpmV46().footprints(bench.sizes, inputs, processor, model.config)


@pytest.mark.parametrize(("size", "count"), [((448, 448), 64), ((1344, 896), 7 * 10 + 6 * 64)])
def test_counts_at_real_sizes(size, count):
    """Cells of 56 px. 1344×896 has 6 times 448² pixels: 2×3 slices of 448 px, and the whole at 548×365: 10×7 cells."""
    processor = tiny("minicpmv4_6")[1]
    processor.image_processor = transformers.MiniCPMV4_6ImageProcessorPil()
    vision = SimpleNamespace(patch_size=14)
    config: Any = SimpleNamespace(
        image_token_id=160,
        vision_config=vision,
        downsample_mode="16x",
        merge_kernel_size=(2, 2),
        merger_times=1,
    )
    inputs = encode(processor, MiniCpmV46(), [picture(size)])
    found = MiniCpmV46().footprints([size], inputs, processor, config)
    assert len(found) == len(MiniCpmV46().image_positions(inputs["input_ids"], config)) == count


@pytest.mark.slow
def test_it_loads_from_a_folder_without_torchvision(tmp_path):
    model, processor = tiny("minicpmv4_6")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mllm = interp.load(str(tmp_path))
    sample = interp.Sample(picture((200, 150)), "where is the nodule?")
    loaded, given = (one.trace(sample).logits for one in (mllm, interp.wrap(*tiny("minicpmv4_6"))))
    assert_allclose(loaded, given, atol=1e-6)


def test_the_fallback_prompt():
    begin, end = "<|im_start|>", "<|im_end|>\n"
    made = MiniCpmV46().fallback_prompt("Why?", 1, "Be brief.")
    assert made.startswith(
        f"{begin}system\nBe brief.{end}{begin}user\n<|image_pad|>Why?{end}{begin}assistant\n"
    )


def test_the_layers_are_those_of_qwen3_5():
    mllm = interp.wrap(*tiny("minicpmv4_6"))
    assert mllm.layer_kinds == ("linear", "linear", "linear", "attention")
    assert mllm.encode(interp.Sample(picture((60, 30)), "?")).positions.ndim == 2
