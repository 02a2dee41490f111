"""Footprints of the families for documents and of their neighbours, against their true processors and tiny models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import transformers

from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.inputs.footprints import Footprints
from interp.models.adapter import find
from interp.models.families.kimi_k25 import KimiImages, fitted_and_padded
from tests.models import pixel_impulses

SIZES = {"square": (140, 140), "wide": (230, 90), "tall": (60, 190), "tiny": (30, 22)}
FAMILIES = (
    "deepseek_vl",
    "deepseek_vl_hybrid",
    "fast_vlm",
    "got_ocr2",
    "kimi_k25",
    "lighton_ocr",
    "ovis2",
    "vipllava",
)


@pytest.fixture(scope="module")
def models() -> dict[str, tuple[Any, Any, Any]]:
    """Adapter, model and processor of each family."""
    made = {name: tiny(name) for name in FAMILIES}
    return {name: (find(hf.config), hf, processor) for name, (hf, processor) in made.items()}


def laid(found: tuple[Any, Any, Any], *sizes: tuple[int, int]) -> Footprints:
    adapter, hf, processor = found
    return pixel_impulses.footprints_of(adapter, processor, hf.config, list(sizes))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.covering
def test_impulses_reach_their_tokens(models, family, size):
    adapter, hf, processor = models[family]
    found = laid(models[family], size)
    every = max(1, len(found) // 12)
    pixel_impulses.assert_impulses_land(hf, processor, adapter, [size], found, every)


@pytest.mark.by_default(family=["deepseek_vl", "kimi_k25", "ovis2"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_images_of_a_sample_keep_their_tokens(models, family):
    adapter, hf, processor = models[family]
    sizes = [(140, 84), (60, 120)]
    found = laid(models[family], *sizes)
    pixel_impulses.assert_impulses_land(hf, processor, adapter, sizes, found, max(1, len(found) // 10))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_image_of_a_sample_is_laid_as_if_alone(models, family):
    sizes = [(140, 84), (60, 120), (100, 100)]
    alone = [laid(models[family], size) for size in sizes]
    found = laid(models[family], *sizes)
    np.testing.assert_array_equal(found.boxes, np.concatenate([one.boxes for one in alone]))
    assert found.views.tolist() == [view for one in alone for view in one.views]
    assert np.bincount(found.image).tolist() == [len(one) for one in alone]
    assert (np.diff(found.image) >= 0).all()


WRONG = {
    "shifted by one token": lambda order: np.roll(order, 1),
    "transposed": lambda order: order.reshape(*order_shape(len(order))).swapaxes(-1, -2).ravel(),
}


def order_shape(n: int) -> tuple[int, int]:
    side = round(n**0.5)
    return side, n // side


@pytest.mark.parametrize("family", ["deepseek_vl", "fast_vlm", "got_ocr2", "vipllava"])
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.covering
def test_a_wrong_layout_fails_the_impulses(models, family, wrong):
    adapter, hf, processor = models[family]
    found = laid(models[family], (140, 140))
    order = WRONG[wrong](np.arange(len(found)))
    broken = Footprints(found.boxes[order], None, found.views, found.image)
    with pytest.raises(AssertionError):
        pixel_impulses.assert_impulses_land(hf, processor, adapter, [(140, 140)], broken, 3)


def test_deepseek_pads_what_it_has_fitted(models):
    """140×70 pixels become 56×28 with 14 rows of padding above and below: 7×7 tokens of 20×20 original pixels."""
    boxes = laid(models["deepseek_vl"], (140, 70)).boxes.reshape(7, 7, 4)
    assert np.isnan(boxes[[0, 6]]).all()
    np.testing.assert_allclose(
        boxes[1, 0], [0, 0, 20, 5]
    )  # row 1 covers 8 to 16 of 56; the image starts at 14
    np.testing.assert_allclose(boxes[3, 2], [40, 25, 60, 45])


def test_deepseeks_second_tower_has_the_same_grid(models):
    """140×70 pixels become 112×56 with 28 rows of padding above, half of each at the tower of 56 pixels."""
    one, two = (laid(models[f], (140, 70)).boxes for f in ("deepseek_vl", "deepseek_vl_hybrid"))
    np.testing.assert_allclose(one, two)
    # 100×33: 112 × 37 pixels, 37 rows above; 18½ of the 56 rows. The smaller tower alone has 18 rows, 19 above.
    one, two = (
        laid(models[f], (100, 33)).boxes.reshape(7, 7, 4)[2, 0] for f in ("deepseek_vl", "deepseek_vl_hybrid")
    )
    np.testing.assert_allclose(one, [0, 0, 100 / 7, 5 * 33 / 18])
    np.testing.assert_allclose(two, [0, 0, 100 / 7, (48 - 37) * 33 / 37])


def test_deepseeks_second_tower_takes_a_square():
    hf, processor = tiny("deepseek_vl_hybrid")
    inputs = pixel_impulses.encode(processor, [pixel_impulses.picture((140, 70))])
    processor.image_processor.high_res_size = {"height": 112, "width": 56}
    with pytest.raises(ModelError, match=r"second tower takes a square; .*'width': 56.*checkpoint's"):
        find(hf.config).footprints([(140, 70)], inputs, processor, hf.config)


def test_deepseek_keeps_a_shortest_edge(models):
    """560×14 pixels would become 56×1; the shorter edge is at least 8 pixels, 1.75 original pixels each."""
    boxes = laid(models["deepseek_vl"], (560, 14)).boxes.reshape(7, 7, 4)
    np.testing.assert_allclose(boxes[3, 0], [0, 0, 80, 14])  # rows 24 to 32 of 56 are the image's 24 to 32


def test_deepseek_refuses_what_it_does_not_fit():
    hf, processor = tiny("deepseek_vl")
    inputs = pixel_impulses.encode(processor, [pixel_impulses.picture((140, 70))])
    adapter = find(hf.config)
    with pytest.raises(ModelError, match=r"into 0 views of no size, but pixel_values hold 1 view"):
        adapter.footprints([], inputs, processor, hf.config)
    processor.image_processor.do_pad = False
    with pytest.raises(ModelError, match=r"fitted and padded to 56×56 pixels; .*'do_pad': False"):
        adapter.footprints([(140, 70)], inputs, processor, hf.config)


def test_vipllava_crops_and_counts_patches(models):
    """140×84 becomes 93×56 and loses 18 or 19 columns at each side: 14 of its pixels are 21 of the original's."""
    found = laid(models["vipllava"], (140, 84))
    assert found.grid == (4, 4)
    assert found.boxes[5, 1] == 21
    assert 140 - found.boxes[3, 2] == pytest.approx(found.boxes[0, 0], abs=1.6)
    adapter, hf, processor = models["vipllava"]
    assert adapter.leading(processor, hf.config) == 0


def test_fastvlm_pads_to_a_square(models):
    """140×70 is padded by 35 rows above and below; 8×8 tokens of 17.5 original pixels."""
    boxes = laid(models["fast_vlm"], (140, 70)).boxes.reshape(8, 8, 4)
    assert np.isnan(boxes[[0, 1, 6, 7]]).all()
    np.testing.assert_allclose(boxes[2, 1], [17.5, 0, 35, 17.5])


def test_fastvlm_needs_the_stride_of_its_tower():
    hf, processor = tiny("fast_vlm")
    inputs = pixel_impulses.encode(processor, [pixel_impulses.picture((140, 70))])
    processor.patch_size = None
    with pytest.raises(ModelError, match=r"the stride of the tower in pixels; it is None. Set .*64"):
        find(hf.config).footprints([(140, 70)], inputs, processor, hf.config)


def test_got_centres_its_cells_on_every_fourth_patch(models):
    """96 pixels are 24 patches of 4: edges halfway between patches 0, 4, 8 … and in their middles, so at 2.5, 6.5 …"""
    found = laid(models["got_ocr2"], (96, 192))
    assert found.grid == (6, 6)
    np.testing.assert_allclose(found.boxes[0], [0, 0, 10, 20])
    np.testing.assert_allclose(found.boxes[7], [10, 20, 26, 52])
    np.testing.assert_allclose(found.boxes[35], [74, 148, 96, 192])


def test_got_cuts_tiles_where_it_is_asked_to(models):
    """140×70 at 96 px: two tiles in a row, then the whole."""
    hf, processor = tiny("got_ocr2")
    processor.images_kwargs = {**processor.images_kwargs, "crop_to_patches": True, "max_patches": 4}
    adapter = models["got_ocr2"][0]
    found = pixel_impulses.footprints_of(adapter, processor, hf.config, [(140, 70)])
    assert found.views.tolist() == ["tile"] * 72 + ["thumbnail"] * 36
    np.testing.assert_allclose(found.boxes[36, :2], [70, 0])
    pixel_impulses.assert_impulses_land(hf, processor, adapter, [(140, 70)], found, 8)


def test_lighton_drops_odd_patches():
    """154×70: 11×5 patches, merged to 5×2; the last column and row of patches are in no token."""
    hf, processor = tiny("lighton_ocr")
    found = laid((find(hf.config), hf, processor), (154, 70))
    assert found.grid == (2, 5)
    assert found.boxes[-1].tolist() == [112, 28, 140, 56]


def test_ovis_covers_the_image_with_tiles(models):
    """120×60 at 60 px a tile: as transformers reads its grid, first the number of columns.

    Cut into two columns, the tiles cover the whole at full size; the whole alone covers a quarter of it.
    """
    found = laid(models["ovis2"], (60, 120))
    views, counts = np.unique(found.views, return_counts=True)
    assert dict(zip(views.tolist(), counts.tolist(), strict=True)) == {"base": 9, "tile": 18}
    np.testing.assert_allclose(found.boxes[0], [0, 0, 20, 40])
    adapter, hf, processor = models["ovis2"]
    inputs = pixel_impulses.encode(processor, [pixel_impulses.picture((60, 120))])
    places = adapter.image_positions(inputs["input_ids"], hf.config)
    assert (
        np.diff(places).tolist() == [1] * 8 + [2] + [1] * 8 + [2] + [1] * 8
    )  # words of the grid between views


def test_ovis_without_tiles_has_a_grid():
    hf, processor = tiny("ovis2")
    processor.image_processor.crop_to_patches = False
    found = laid((find(hf.config), hf, processor), (60, 120))
    assert found.grid == (3, 3)
    processor.image_processor.crop_to_patches = True
    processor.image_processor.use_covering_area_grid = False
    adapter = find(hf.config)
    found = laid((adapter, hf, processor), (60, 120))
    assert (found.views == "tile").sum() == 18
    np.testing.assert_allclose(found.boxes[[9, 18]], [[0, 0, 20, 20], [0, 60, 20, 80]])  # one above the other
    pixel_impulses.assert_impulses_land(hf, processor, adapter, [(60, 120)], found, 5)
    assert (
        laid((adapter, hf, processor), (130, 60)).views == "tile"
    ).sum() == 18  # three would cover the area
    processor.image_processor.min_patches = 4
    found = laid((adapter, hf, processor), (60, 120))
    assert (found.views == "tile").sum() >= 4 * 9
    processor.image_processor.max_patches = 1
    assert set(laid((adapter, hf, processor), (60, 120)).views) == {"base"}


@pytest.mark.parametrize("family", ["ovis2", "got_ocr2"])
def test_tiles_that_the_tower_does_not_take(family):
    hf, processor = tiny(family)
    processor.image_processor.size = {"height": 48, "width": 48}
    inputs = processor.image_processor(images=[pixel_impulses.picture((40, 40))], return_tensors="pt")
    with pytest.raises(
        ModelError, match=rf"{family}'s tower takes tiles of .*; the processor makes tiles of 48×48 px"
    ):
        find(hf.config).footprints([(40, 40)], inputs, processor, hf.config)


def test_kimi_pads_at_the_right_and_the_bottom(models):
    """100×60 at cells of 16 px is not enlarged: 7×4 cells, of which the last column and row hold 4 and 12 pixels."""
    found = laid(models["kimi_k25"], (100, 60))
    assert found.grid == (4, 7)
    np.testing.assert_allclose(found.boxes[0], [0, 0, 16, 16])
    np.testing.assert_allclose(found.boxes[-1], [96, 48, 100, 60])


def test_kimi_shrinks_to_a_number_of_patches(models):
    """460×230: 57×28 patches of 8 px are 1,596, more than 240, and 24 patches along a side allow 192 px.

    The scale is the least of √(240/1596) = 0.388 and 192/460 = 0.417: 178×89 pixels, in 12×6 cells of 16.
    """
    found = laid(models["kimi_k25"], (460, 230))
    assert found.grid == (6, 12)
    np.testing.assert_allclose(found.boxes[0], [0, 0, 16 * 460 / 178, 16 * 230 / 89])


@pytest.mark.parametrize(
    ("size", "most", "fitted", "padded"),
    [
        ((107, 50), 32, (85, 40), (100, 40)),  # 10×5 patches: √(32/50) = 0.8, and 85.6 pixels are cut to 85
        ((300, 50), 999, (120, 20), (120, 20)),  # 12 patches along a side: 120/300 = 0.4
        ((50, 300), 999, (20, 120), (20, 120)),
        ((1000, 2), 999, (120, 1), (120, 20)),  # 0.24 pixels are one
        ((4, 21), 1, (2, 14), (20, 20)),  # 1×2 patches, 1 allowed: √½ = 0.707, 2.83×14.8 pixels
        ((4, 4), 999, (4, 4), (20, 20)),  # never enlarged
    ],
)
def test_kimis_pixels_are_cut_to_whole_ones(size, most, fitted, padded):
    """Patches of 10 pixels, cells of 20."""
    assert fitted_and_padded(size, 10, 2, most, 12) == (fitted, padded)


def test_kimi_refuses_what_it_does_not_lay(models):
    hf, processor = tiny("kimi_k25")
    adapter = find(hf.config)
    inputs = pixel_impulses.encode(processor, [pixel_impulses.picture((100, 60))])
    with pytest.raises(
        ModelError, match=r"grids of \(1, rows, columns\) of patches \[\(1, 8, 8\)\], but the inputs"
    ):
        adapter.footprints([(60, 60)], inputs, processor, hf.config)
    with pytest.raises(ModelError, match="expected images for kimi_k25, got a video"):
        adapter.footprints([(100, 60)], {"video_grid_thw": [1]}, processor, hf.config)
    processor.image_processor.do_resize = False
    with pytest.raises(ModelError, match=r"do_resize=False; the model takes 8 px and 2×2"):
        adapter.footprints([(100, 60)], inputs, processor, hf.config)


@pytest.mark.parametrize(
    ("options", "values", "grid"),
    [
        ({"do_normalize": False}, [200 / 255], [1, 1, 2]),
        ({"do_normalize": False, "rescale_factor": 0.01}, [2], [1, 1, 2]),
        ({"do_normalize": False, "do_rescale": False}, [200], [1, 1, 2]),
        ({"image_mean": (0.2,) * 3, "image_std": (0.25,) * 3}, [(200 / 255 - 0.2) / 0.25], [1, 1, 2]),
        ({"merge_size": 2}, [-1, 200 / 127.5 - 1], [1, 2, 2]),  # a row of black patches below
        ({"max_patches": 1}, [-1, 200 / 127.5 - 1], [1, 1, 2]),  # 11×5 pixels, padded
        ({"size": {"max_height": 1, "max_width": 1}}, [-1, 200 / 127.5 - 1], [1, 1, 1]),  # 8×4 pixels
        ({"max_patches": 1, "do_resize": False}, [200 / 127.5 - 1], [1, 1, 2]),
    ],
)
def test_options_of_a_call_reach_kimis_pixels(options, values, grid):
    """A picture of 16×8 equal pixels, in patches of 8."""
    images = KimiImages(patch_size=8, merge_size=1)
    found = images(images=[np.full((8, 16, 3), 200, np.uint8)], return_tensors="np", **options)
    assert found["image_grid_thw"].tolist() == [grid]
    np.testing.assert_allclose(np.unique(found["pixel_values"]), values, atol=1e-5)


def test_kimis_resize_is_the_one_asked_for():
    """The nearest pixel is one of the picture's own; bicubic makes others."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, ::2] = 250
    seen = {
        how: np.unique(
            KimiImages(patch_size=8, merge_size=1)(
                images=[image],
                return_tensors="np",
                do_normalize=False,
                do_rescale=False,
                max_patches=4,
                resample=how,
            )["pixel_values"]
        )
        for how in (0, 3)
    }
    assert seen[0].tolist() in ([0], [250], [0, 250])
    assert len(set(seen[3].tolist()) - {0, 250}) > 0


def test_kimis_images_are_transformers_own():
    """Needs torchvision. Pillow's and torchvision's bicubic resizes differ by a few grey levels."""
    pytest.importorskip("torchvision")
    rng = np.random.default_rng(0)
    for size in ((70, 50), (200, 300), (5, 17), (400, 90)):
        image = pixel_impulses.picture(size, (0, 0, *rng.integers(1, size)))
        ours, theirs = (
            kind(max_patches=240)(images=[image], return_tensors="pt")
            for kind in (KimiImages, transformers.Kimi_K25ImageProcessor)
        )
        assert ours["image_grid_thw"].tolist() == theirs["image_grid_thw"].tolist()
        np.testing.assert_allclose(ours["pixel_values"], theirs["pixel_values"], atol=0.03)


PROMPTS = {
    "kimi_k25": "<|im_system|>system<|im_middle|>Be brief.<|im_end|><|im_user|>user<|im_middle|><|media_begin|>image"
    "<|media_content|><|media_pad|><|media_end|>\nWhy?<|im_end|><|im_assistant|>assistant<|im_middle|>",
    "deepseek_vl_hybrid": "Be brief.\n\nUser: <image_placeholder>Why?\n\nAssistant:",
    "deepseek_vl": "Be brief.\n\nUser: <image_placeholder>Why?\n\nAssistant:",
    "fast_vlm": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<image>\nWhy?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "got_ocr2": "<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\n<img><imgpad></img>\nWhy?<|im_end|>"
    "<|im_start|>assistant\n",
    "lighton_ocr": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<|image_pad|>Why?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "ovis2": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<image>\nWhy?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "vipllava": "Be brief.###Human: <image>\nWhy?###Assistant:",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_without_a_template(models, family):
    adapter = models[family][0]
    assert adapter.fallback_prompt("Why?", 1, "Be brief.") == PROMPTS[family]
    assert adapter.fallback_prompt("Why?", 1, None) != PROMPTS[family]


OWN_WORDS = {
    "got_ocr2": "You should follow the instructions carefully and explain your answers in detail.",
    "ovis2": "You are a helpful assistant.",
    "fast_vlm": "You are a helpful assistant.",
}
"""What three families say where no system message is given."""


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_says_its_own_system_message_or_none(models, family):
    adapter = models[family][0]
    found = adapter.fallback_prompt("Why?", 1, None)
    if family in OWN_WORDS:
        assert found == PROMPTS[family].replace("Be brief.", OWN_WORDS[family])
    else:
        assert "system" not in found
        assert PROMPTS[family].endswith(found.removeprefix("<bos>"))


def test_settings_of_lighton_that_differ(models):
    adapter, hf, _ = models["lighton_ocr"]
    processor = tiny("lighton_ocr")[1]
    inputs = pixel_impulses.encode(processor, [pixel_impulses.picture((140, 84))])
    processor.image_processor = transformers.PixtralImageProcessorPil(
        size={"longest_edge": 154}, patch_size={"height": 28, "width": 28}
    )
    with pytest.raises(
        ModelError, match=r"resized to \(width, height\) \[\(112, 84\)\], but the inputs hold"
    ):
        adapter.footprints([(100, 80)], inputs, processor, hf.config)
