"""Llama 4's tiles against the processor and the tower, its chunks and its temperature."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import transformers
from transformers.utils.import_utils import is_torchvision_available

import interp
from interp.conformance.tiny import tiny
from interp.errors import EditError, ModelError
from interp.inputs.footprints import Footprints, check_layout
from interp.models.adapter import find
from interp.models.families.llama import Llama4, Llama4ImageProcessorPil, canvas
from tests.models.footprint_checks import (
    Bench,
    assert_counts,
    assert_covered,
    assert_local,
    grids_of_views,
    picture,
)
from tests.tracing.reference_attention import greedy

SAMPLES = [[(112, 112)], [(200, 70)], [(50, 170)], [(30, 22)], [(130, 84), (40, 60)]]


@pytest.mark.parametrize("sizes", SAMPLES, ids=str)
def test_a_footprints_pixels_change_its_token(sizes):
    bench = Bench("llama4", Llama4(), sizes)
    found = assert_counts(bench, whole=False)
    seen = found.boxes[~np.isnan(found.boxes[:, 0])]
    for image, (width, height) in enumerate(sizes):
        own = seen[found.image[~np.isnan(found.boxes[:, 0])] == image]
        assert (own[:, :2].min(0) == 0).all()
        np.testing.assert_allclose(own[:, 2:].max(0), (width, height))
    assert_covered(bench, found, grids_of_views(14), tolerance=0.08)


def test_the_tower_sees_what_the_footprints_say():
    """Two images, of a canvas of tiles and of a single tile; only tokens with an area are tried."""
    bench = Bench("llama4", Llama4(), [(130, 84), (40, 60)])
    found = bench.footprints()
    blank = bench.entering()
    views = found.views + found.image.astype(str)
    for token in np.flatnonzero(~np.isnan(found.boxes[:, 0]))[::5]:
        low, high = np.ceil(found.boxes[token, :2]).astype(int), np.floor(found.boxes[token, 2:]).astype(int)
        if (high - low < 4).any():
            continue
        change = (bench.entering((*low, *high), int(found.image[token])) - blank).norm(dim=-1).numpy()
        mine = np.flatnonzero(views == views[token])
        assert mine[change[mine].argmax()] == token
        assert not change[found.image != found.image[token]].any()


def test_the_canvas_by_hand():
    """Tiles of 56 px, at most four.

    130×84 fits no canvas unshrunk. It is shrunk least on 2×2 tiles: by 112/130 = 0.86, to 112×72. 200×70 is shrunk by
    56/70 = 0.8 on 1×3 tiles (168/200 is more) and on 1×4; the smaller canvas wins: 160×56. 30×22 is enlarged into one
    tile by 56/30, to 56×41.
    """
    settings = Llama4ImageProcessorPil(size={"height": 56, "width": 56}, max_patches=4)
    assert canvas((130, 84), settings) == ((2, 2), (112, 72))
    assert canvas((200, 70), settings) == ((1, 3), (160, 56))
    assert canvas((30, 22), settings) == ((1, 1), (56, 41))
    largest = Llama4ImageProcessorPil(
        size={"height": 56, "width": 56}, max_patches=4, resize_to_max_canvas=True
    )
    assert canvas((30, 22), largest) == ((2, 2), (112, 82))


def test_footprints_by_hand():
    """130×84 becomes 112×72 on 2×2 tiles of 4×4 tokens of 14 px: 130/112·14 = 16.25 original pixels a token.

    The second row of tiles begins at 56 of 72 px: its second row of tokens ends with the image, the others see padding.
    """
    bench = Bench("llama4", Llama4(), [(130, 84)])
    found = bench.footprints()
    assert [str(view) for view in np.unique(found.views)] == ["global", "tile"]
    tiles = found.boxes[:64].reshape(2, 2, 4, 4, 4)
    step = 84 / 72 * 14
    np.testing.assert_allclose(tiles[0, 1, 1, 2], [65 + 32.5, step, 65 + 48.75, 2 * step])
    np.testing.assert_allclose(tiles[1, 0, 1, 0], [0, 5 * step, 16.25, 84])
    assert np.isnan(tiles[1, :, 2:]).all()
    np.testing.assert_allclose(found.boxes[64 + 5], [32.5, 21, 65, 42])


@pytest.mark.parametrize("wrong", ["shifted", "tiles swapped"])
def test_a_wrong_layout_fails_the_impulses(wrong):
    bench = Bench("llama4", Llama4(), [(112, 112)])
    found = bench.footprints()
    boxes = np.roll(found.boxes, 1, axis=0)
    if wrong == "tiles swapped":
        boxes = np.concatenate([found.boxes[16:32], found.boxes[:16], found.boxes[32:]])
    with pytest.raises(AssertionError):
        assert_local(bench, Footprints(boxes, found.grid, found.views, found.image), every=7)


def real() -> tuple[Any, Any]:
    """A processor with the checkpoint's own settings, and the parts of the config that are read."""
    processor = tiny("llama4")[1]
    processor.image_processor, processor.patch_size = Llama4ImageProcessorPil(), 14
    vision = SimpleNamespace(image_size=336, patch_size=14, pixel_shuffle_ratio=0.5)
    return processor, SimpleNamespace(image_token_id=160, vision_config=vision)


@pytest.mark.parametrize("size", [(1, 190), (700, 1100), (337, 336)])
def test_counts_at_real_sizes(size):
    processor, config = real()
    text = Llama4().fallback_prompt("where ?", 1, None)
    inputs = processor(text=[text], images=[picture(size)], return_tensors="pt")
    found = Llama4().footprints([size], inputs, processor, config)
    assert len(found) == len(Llama4().image_positions(inputs["input_ids"], config))
    assert len(found) % 144 == 0
    check_layout(found, [size])


def test_settings_that_are_not_understood():
    bench = Bench("llama4", Llama4(), [(112, 112)])
    (model, processor), inputs = bench.parts, bench.encode()
    with pytest.raises(ModelError, match=r"turn images of 30×22 into 1 view.*pixel_values hold 5 view"):
        Llama4().footprints([(30, 22)], inputs, processor, model.config)
    processor.image_processor.size = {"height": 42, "width": 42}
    with pytest.raises(
        ModelError, match=r"takes tiles of 56×56 px and merges 4 patches .*makes tiles of 42×42"
    ):
        Llama4().footprints(bench.sizes, inputs, processor, model.config)


@pytest.mark.parametrize(
    ("options", "value", "tiles"),
    [
        ({"do_normalize": False}, 200 / 255, [1, 1]),
        ({"do_normalize": False, "rescale_factor": 0.01}, 2, [1, 1]),
        ({"do_normalize": False, "do_rescale": False}, 200, [1, 1]),
        ({"do_rescale": False}, 399, [1, 1]),
        ({"image_mean": [0.2] * 3, "image_std": [0.25] * 3}, (200 / 255 - 0.2) / 0.25, [1, 1]),
        ({"resize_to_max_canvas": True}, 200 / 127.5 - 1, [2, 2]),
    ],
)
def test_options_of_a_call_reach_the_pixels(options, value, tiles):
    """A picture that fills its canvas with one colour."""
    images = Llama4ImageProcessorPil(size={"height": 56, "width": 56}, max_patches=4)
    found = images([np.full((56, 56, 3), 200, np.uint8)], return_tensors="np", **options)
    assert found["aspect_ratios"].tolist() == [tiles]
    assert len(found["pixel_values"]) == tiles[0] * tiles[1] + (tiles != [1, 1])
    np.testing.assert_allclose(np.unique(found["pixel_values"]), [value], rtol=0.01)


def test_images_of_a_call_follow_each_other():
    """A wide one of two tiles and the whole, then a high one; the rest of a canvas is black."""
    images = Llama4ImageProcessorPil(size={"height": 56, "width": 56}, max_patches=4)
    wide, high = np.full((50, 112, 3), 100, np.uint8), np.full((112, 50, 3), 200, np.uint8)
    found = images([wide, high], return_tensors="np", do_normalize=False, do_rescale=False)
    assert found["aspect_ratios"].tolist() == [[1, 2], [2, 1]]
    pixels = found["pixel_values"][:, 0]
    assert (pixels[:2, :50] == 100).all()
    assert (pixels[:2, 50:] == 0).all()
    assert (pixels[2] == 100).all()
    assert (pixels[3:5, :, :50] == 200).all()
    assert (pixels[3:5, :, 50:] == 0).all()
    assert (pixels[5] == 200).all()
    (few,) = images([wide], return_tensors="np", max_patches=1)["aspect_ratios"].tolist()
    assert few == [1, 1]


@pytest.mark.skipif(not is_torchvision_available(), reason="transformers' own class needs torchvision")
def test_pixels_are_those_of_transformers():
    options = {"size": {"height": 56, "width": 56}, "max_patches": 4}
    own, other = Llama4ImageProcessorPil(**options), transformers.Llama4ImageProcessor(**options)
    rng = np.random.default_rng(0)
    for width, height in [(112, 112), (200, 70), (50, 170), (30, 22), (130, 84)]:
        image = np.kron(rng.integers(0, 255, (height // 5 + 1, width // 5 + 1, 3)), np.ones((5, 5, 1)))
        image = image[:height, :width].astype(np.uint8)
        mine, theirs = (one([image], return_tensors="pt") for one in (own, other))
        assert [list(map(int, grid)) for grid in mine["aspect_ratios"]] == [
            list(map(int, grid)) for grid in theirs["aspect_ratios"]
        ]
        assert mine["pixel_values"].shape == theirs["pixel_values"].shape
        assert (mine["pixel_values"] - theirs["pixel_values"].float()).abs().max() <= 3 / 127.5


def test_who_is_who():
    model, _ = tiny("llama4")
    assert type(find(model.config)) is Llama4
    assert [type(layer).__name__ for layer in Llama4().layers(model)] == ["Llama4TextDecoderLayer"] * 3


def test_it_loads_from_a_folder_without_torchvision(tmp_path):
    model, processor = tiny("llama4")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mllm = interp.load(str(tmp_path))
    sample = interp.Sample(picture((130, 84)), "where is the nodule?")
    loaded, given = (one.trace(sample).logits for one in (mllm, interp.wrap(*tiny("llama4"))))
    np.testing.assert_allclose(loaded, given, atol=1e-6)


def test_the_fallback_prompt():
    begin, end = "<|header_start|>", "<|header_end|>\n\n"
    assert Llama4().fallback_prompt("Why?", 2, None) == (
        f"<|begin_of_text|>{begin}user{end}<|image|><|image|>Why?<|eot|>{begin}assistant{end}"
    )
    assert f"{begin}system{end}Be brief.<|eot|>" in Llama4().fallback_prompt("Why?", 0, "Be brief.")


def test_rows_see_their_chunk_and_padding_moves_none():
    """Chunks of 48 positions begin at each sample's own start, left-padded or not; layer 1 sees everything."""
    mllm = interp.wrap(*tiny("llama4"))
    given = [interp.Sample(picture(size), "where is the nodule?") for size in ((64, 80), (84, 140))]
    batch = mllm.encode(given)
    trace = mllm.trace(batch, reads=[interp.Rows(interp.Site(queries="all", keys="all"))])
    assert mllm.visibility.chunks == (48, None, 48)
    for i, tokens in enumerate(trace.tokens):
        assert tokens.length > 60
        for layer in range(3):
            mass = trace[i].rows.values[layer].max(axis=0)
            for row in (0, 47, 48, tokens.length - 1):
                seen = np.flatnonzero(mass[row])
                first = row // 48 * 48 if layer != 1 else 0
                assert seen.tolist() == list(range(first, row + 1))
                assert mllm.visibility.seen(tokens, row, layer).tolist() == seen.tolist()


def test_keys_of_another_chunk_are_not_there_to_knock_out():
    mllm = interp.wrap(*tiny("llama4"))
    batch = mllm.encode(interp.Sample(picture((64, 80)), "where is the nodule?"))
    last = batch.tokens[0].length - 1
    start = last // 48 * 48
    plain = mllm.trace(batch).logits
    for keys, layers, same in (
        (range(start), [0, 2], True),
        (range(start), [1], False),
        (range(start, start + 1), [0, 2], False),
    ):
        site = interp.Site(layers=layers, queries="last", keys=interp.positions(keys))
        for executor in ("tap", "source"):
            edited = mllm.using(executor).trace(batch, edits=[interp.Knockout(site)]).logits
            assert np.array_equal(edited, plain) == same
    site = interp.Site(layers=[0], queries="last", keys=interp.positions(range(start, last + 1)))
    with pytest.raises(EditError, match=rf"would have every key hidden \({start} … {last}\)"):
        mllm.trace(batch, edits=[interp.Knockout(site)])


def test_a_prefix_serves_within_a_chunk_or_without_padding():
    mllm = interp.wrap(*tiny("llama4"))
    one = interp.Sample(picture((64, 80)), "is it red?")
    other = interp.Sample(picture((84, 140)), "where is the nodule in the left lung?")
    whole = mllm.trace([one, other]).logits
    for given, at, served in (([one], [0], True), ([one, other], [0, 1], False)):
        trace = mllm.trace(mllm.prefix(given))
        assert (trace.cost.tokens < mllm.trace(given).cost.tokens) == served
        np.testing.assert_allclose(trace.logits, whole[at], atol=3e-5)


def test_the_temperature_of_layers_without_rope():
    """Beyond the scale's floor, alone, rows and generated tokens are eager's; padded samples are refused."""

    def tempered(attention: str) -> tuple[Any, Any]:
        hf, processor = tiny("llama4", attention)
        for layer in Llama4().layers(hf):
            layer.self_attn.floor_scale = 40
        hf.config.text_config.floor_scale = 40
        return hf, processor

    mllm, eager = interp.wrap(*tempered("sdpa")), tempered("eager")[0]
    given = [interp.Sample(picture((64, 80)), text) for text in ("is it red?", "where is the nodule in it?")]
    steps = greedy(eager, mllm.encode(given[0]).inputs, 3)
    cold = greedy(tiny("llama4", "eager")[0], mllm.encode(given[0]).inputs, 1)
    assert np.abs(steps.attention[0][1] - cold.attention[0][1]).max() > 1e-3
    reads = [interp.Rows(interp.Site(queries="last", keys="all"))]
    for where in (given[0], mllm.prefix(given[0])):
        trace = mllm.trace(where, reads=reads, generate=3)
        np.testing.assert_allclose(trace.logits[0], steps.logits[0], atol=2e-5)
        for step in range(trace[0].rows.sizes["step"]):
            row = steps.attention[step][:, :, -1, : trace.tokens[0].length]
            np.testing.assert_allclose(trace[0].rows[step, :, :, 0], row, atol=2e-6)
    with pytest.raises(
        ModelError, match=r"from position 39 on, this model scales its queries .*batch_size=1"
    ):
        mllm.trace(given)
    assert len(mllm.trace(given, batch_size=1)) == 2
