"""LFM2-VL's footprints against transformers' processor and tower, and its layers of short convolutions."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from transformers.utils.import_utils import is_torchvision_available

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError, SiteError
from interp.inputs.footprints import Footprints
from interp.models.families.lfm2_vl import Lfm2Vl
from interp.models.without_torchvision import lfm2_vl_images, module_of
from interp.tracing.variants.knockouts import KnockoutVariant
from tests.models.footprint_checks import Bench, assert_counts, assert_local, encode, picture

SHAPES = {"square": (50, 50), "wide": (200, 60), "tall": (60, 190), "tiny": (30, 22), "tiles": (140, 120)}
QUESTIONS = ("where is the nodule?", "what is the lung?")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_footprints_pixels_change_its_token(shape):
    bench = Bench("lfm2_vl", Lfm2Vl(), [SHAPES[shape]])
    assert_local(bench, assert_counts(bench), every=5)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[size] for size in SHAPES.values()] + [[(140, 120), (50, 40)]], ids=str)
def test_every_footprint(sizes):
    bench = Bench("lfm2_vl", Lfm2Vl(), sizes)
    assert_local(bench, assert_counts(bench))


def test_a_small_image_by_hand():
    """Tokens of 16 px. 60×40 rounds to 64×32: 4×2 tokens of 15×20 original pixels."""
    found = Bench("lfm2_vl", Lfm2Vl(), [(60, 40)]).footprints()
    assert found.grid == (2, 4)
    assert_allclose(found.boxes[6], [30, 20, 45, 40])


def test_a_large_image_by_hand():
    """140×120 rounds to 144×128 = 18432 px, more than 2·12·256 = 6144, so it is cut.

    Its shape 1.17 is nearest to 1:1, which 2×2 tiles of 64 px have: 128×128, tokens of 140/8 = 17.5 by 15 px.
    The thumbnail has at most 12·256 = 3072 px: √(140·120 / 3072) = 2.34 gives 59.8×51.3, cut to 48×48: 3×3 tokens.
    """
    found = Bench("lfm2_vl", Lfm2Vl(), [(140, 120)]).footprints()
    assert found.views.tolist() == ["tile"] * 64 + ["thumbnail"] * 9
    assert found.grid is None
    assert_allclose(found.boxes[16 + 6], [70 + 2 * 17.5, 15, 70 + 3 * 17.5, 30])
    assert_allclose(found.boxes[32], [0, 60, 17.5, 75])
    assert_allclose(found.boxes[64 + 5], [2 * 140 / 3, 40, 140, 80])


def test_tiles_in_another_order_fail_the_impulses():
    bench = Bench("lfm2_vl", Lfm2Vl(), [(140, 120)])
    found = bench.footprints()
    swapped = np.concatenate([found.boxes[16:32], found.boxes[:16], found.boxes[32:]])
    with pytest.raises(AssertionError):
        assert_local(bench, Footprints(swapped, None, found.views, found.image), every=7)


@pytest.mark.parametrize(("size", "count"), [((1024, 768), 6 * 256 + 13 * 18), ((512, 512), 256)])
def test_counts_at_real_sizes(size, count):
    """1024×768 is nearest to 3×2 tiles; the thumbnail is shrunk by 1.73, to 18.5×13.9 tokens, cut to 18×13."""
    processor = tiny("lfm2_vl")[1]
    processor.image_processor = lfm2_vl_images()()
    vision = SimpleNamespace(patch_size=16)
    config: Any = SimpleNamespace(image_token_id=160, vision_config=vision, downsample_factor=2)
    inputs = encode(processor, Lfm2Vl(), [picture(size)])
    found = Lfm2Vl().footprints([size], inputs, processor, config)
    assert len(found) == len(Lfm2Vl().image_positions(inputs["input_ids"], config)) == count


def test_settings_of_the_image_processor_are_followed():
    for setting, counts in (
        ({"use_thumbnail": False}, [64]),
        ({"do_image_splitting": False}, [9]),
        ({"max_tiles": 2, "min_tiles": 2}, [32 + 9]),
        ({"max_pixels_tolerance": 9.0}, [9]),
        ({"max_tiles": 1, "min_tiles": 1}, [9]),
    ):
        bench = Bench("lfm2_vl", Lfm2Vl(), [(140, 120)])
        for name, value in setting.items():
            setattr(bench.parts[1].image_processor, name, value)
        assert [len(assert_counts(bench))] == counts, setting


def test_settings_that_are_not_understood():
    bench = Bench("lfm2_vl", Lfm2Vl(), [(140, 120)])
    (model, processor), inputs = bench.parts, bench.encode()
    with pytest.raises(ModelError, match=r"grids of patches .* \[\(4, 6\)\], but the inputs hold \[\(8, 8\)"):
        Lfm2Vl().footprints([(30, 22)], inputs, processor, model.config)
    processor.image_processor.encoder_patch_size = 16
    with pytest.raises(ModelError, match=r"patches of 16 px, merged 2×2.*the model takes 8 px"):
        Lfm2Vl().footprints(bench.sizes, inputs, processor, model.config)


def test_the_resize_is_bilinear_and_antialiased():
    """Against Pillow, whose bilinear resize is antialiased too; both round to bytes."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    images, size = lfm2_vl_images()(), module_of("lfm2_vl.image_processing_lfm2_vl").SizeDict
    mine = images.resize(torch.from_numpy(pixels).permute(2, 0, 1), size(height=32, width=48), resample=2)
    theirs = np.asarray(Image.fromarray(pixels).resize((48, 32), Image.Resampling.BILINEAR))
    assert mine.dtype == torch.uint8
    assert np.abs(mine.permute(1, 2, 0).numpy().astype(int) - theirs).max() <= 1


@pytest.mark.skipif(not is_torchvision_available(), reason="transformers' own class needs torchvision")
def test_pixels_are_those_of_transformers():
    from interp.models.without_torchvision import TorchImages

    whole = lfm2_vl_images()

    class Mine(whole, TorchImages):
        pass

    for size in ((700, 500), (1500, 1100)):
        noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
        mine, theirs = (one([noise], return_tensors="pt") for one in (Mine(), whole()))
        assert (mine["pixel_values"] - theirs["pixel_values"]).abs().max() <= 1.01 / 127.5


@pytest.mark.slow
def test_it_loads_from_a_folder_without_torchvision(tmp_path):
    model, processor = tiny("lfm2_vl")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mllm = interp.load(str(tmp_path))
    sample = interp.Sample(picture((140, 120)), "where is the nodule?")
    loaded, given = (one.trace(sample).logits for one in (mllm, interp.wrap(*tiny("lfm2_vl"))))
    assert_allclose(loaded, given, atol=1e-6)


def test_the_fallback_prompt():
    begin, end = "<|im_start|>", "<|im_end|>\n"
    assert Lfm2Vl().fallback_prompt("Why?", 2, None) == (
        f"<|startoftext|>{begin}user\n<image><image>Why?{end}{begin}assistant\n"
    )
    assert f"{begin}system\nBe brief.{end}" in Lfm2Vl().fallback_prompt("Why?", 0, "Be brief.")


@pytest.fixture(scope="module")
def mllm() -> interp.Mllm:
    return interp.wrap(*tiny("lfm2_vl"))


def pictures() -> list[interp.Sample]:
    """Two images of different sizes and questions of equal length."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8)
    return [
        interp.Sample(image, text) for image, text in zip((noise, noise[:40, :60]), QUESTIONS, strict=True)
    ]


def test_kinds_of_layers(mllm):
    assert mllm.layer_kinds == ("convolution", "attention", "convolution", "attention", "convolution")
    assert mllm.attention_layers == (1, 3)
    assert mllm.linear_heads == {0: 0, 2: 0, 4: 0}
    rows = mllm.trace(pictures(), reads=[interp.Rows(interp.Site())])[0].rows
    assert rows["layer"].values.tolist() == [1, 3]
    stream = mllm.trace(pictures()[0], reads=[interp.Residual("convolution", "last")])[0]
    assert stream.residual["layer"].values.tolist() == [0, 2, 4]


@pytest.mark.parametrize("site", [{"layers": [0, 1]}, {"layers": [4]}, {"heads": [(2, 0)]}], ids=str)
def test_rows_and_edits_of_convolutions_are_refused(mllm, site):
    made = interp.Site(**site)
    with pytest.raises(SiteError, match=r"layers \[\d\] of this model are short convolutions"):
        mllm.trace(pictures(), reads=[interp.Rows(made)])
    with pytest.raises(SiteError, match=r"layers \[\d\] of this model are short convolutions"):
        mllm.trace(pictures(), edits=[interp.Knockout(made)])


def test_kinds_that_a_model_lacks(mllm):
    with pytest.raises(
        SiteError,
        match="layers='linear' selects nothing: the model's 5 layers are of the kind 'attention' and 'convolution'",
    ):
        mllm.trace(pictures(), reads=[interp.Rows(interp.Site(layers="linear"))])
    plain = interp.wrap(*tiny("llava"))
    with pytest.raises(
        SiteError, match=r"layers='convolution' selects nothing: the model's .* layers are of the kind"
    ):
        plain.trace(pictures()[0], reads=[interp.Residual("convolution", "last")])


@pytest.mark.covering
@pytest.mark.parametrize("executor", ["tap", "source"])
@pytest.mark.parametrize("stop", ["image", "last"])
def test_a_pass_after_the_states_is_a_whole_pass(mllm, executor, stop):
    """The whole passes are transformers' own, with a cache that transformers made."""
    reads = [interp.Rows(interp.Site(keys="all"))]
    edits = [interp.Knockout(interp.Site(layers=[3], queries="last", keys="image"), steps="all")]
    prefix = mllm.prefix(pictures(), stop=stop)
    assert prefix.linear == {0, 2, 4}
    held = [one.clone() for one in (*prefix.keys, *prefix.values)]
    for own in ([], edits):
        whole = mllm.trace(pictures(), reads=reads, edits=own, generate=3)
        after = mllm.using(executor).trace(prefix, reads=reads, edits=own, generate=3)
        assert after.cost.tokens == whole.cost.tokens - 2 * max(prefix.lengths)
        assert_allclose(after.logits, whole.logits, atol=3e-5)
        assert after.answers == whole.answers
        for one, other in zip(after, whole, strict=True):
            assert_allclose(one.rows, other.rows, atol=2e-6)
    assert all(torch.equal(a, b) for a, b in zip(held, (*prefix.keys, *prefix.values), strict=True))


def test_a_lost_state_would_show(mllm):
    """What the states hold matters: without them the logits are others."""
    prefix = mllm.prefix(pictures()[0])
    for layer in prefix.linear:
        prefix.keys[layer].zero_()
    gap = np.abs(mllm.trace(prefix).logits.values - mllm.trace(pictures()[0]).logits.values).max()
    assert gap > 1e-3


def test_prompts_that_go_on_by_different_numbers_run_whole(mllm):
    samples = [pictures()[0], pictures()[1].replace(question="what is there in the left lung?")]
    whole, after = mllm.trace(samples), mllm.trace(mllm.prefix(samples))
    assert after.cost.tokens == whole.cost.tokens
    assert (after.logits == whole.logits).all()


def test_tokens_are_hidden_where_there_is_attention(mllm):
    """Hiding in "all" layers is the knockout in the layers with a softmax; convolutions cannot hide."""
    sample = pictures()[1]
    tokens = mllm.encode(sample).tokens[0]
    masks = np.eye(tokens.n, dtype=bool)[:2]
    removed = interp.indicators.HideTokens().scores(mllm, sample, masks, target=interp.Target("lung"))
    word = mllm.processor.tokenizer.convert_tokens_to_ids("lung")
    for mask, value in zip(masks, removed.values, strict=True):
        edit = interp.Knockout(interp.Site(queries="after_image", keys=interp.image_mask(mask)))
        logits = torch.from_numpy(mllm.trace(sample, edits=[edit]).logits.values[0])
        assert value == pytest.approx(float(logits.log_softmax(-1)[word]), abs=2e-5)
    with pytest.raises(SiteError, match="short convolutions"):
        interp.indicators.HideTokens(layers=[0, 1]).scores(mllm, sample, masks)


def test_variants_pass_over_convolutions():
    linear = {0: 0, 2: 0}
    mixed, alone = (KnockoutVariant(layers, (9,), (1,)) for layers in ((0, 1), (0,)))
    assert [edit.site.layers for edit in mixed.edits("renormalise", linear)] == [(1,)]
    assert [edit.site.layers for edit in alone.edits("renormalise", linear)] == [(0,)]


def test_a_bias_of_the_convolutions_is_refused():
    model: Any = tiny("lfm2_vl")[0]
    model.config.text_config.conv_bias = True
    with pytest.raises(ModelError, match="conv_bias=True: in transformers a convolution with a bias"):
        Lfm2Vl().layers(model)
