"""Qwen3.5's footprints against transformers' processor and tower, and what its adapter says of its layers."""

from __future__ import annotations

import numpy as np
import pytest

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.models.families.qwen_and_glm import Qwen35, Qwen35Moe
from tests.models.footprint_checks import Bench, assert_counts, assert_local

FAMILIES = {"qwen3_5": Qwen35, "qwen3_5_moe": Qwen35Moe}
SHAPES = {"square": (160, 160), "wide": (230, 90), "tall": (60, 190), "tiny": (30, 22)}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_footprints_pixels_change_its_token(shape):
    bench = Bench("qwen3_5", Qwen35(), [SHAPES[shape]])
    assert_local(bench, assert_counts(bench), every=3)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[size] for size in SHAPES.values()] + [[(160, 96), (64, 96)]], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_footprint_of_both_families(family, sizes):
    bench = Bench(family, FAMILIES[family](), sizes)
    assert_local(bench, assert_counts(bench))


def test_a_wide_image_by_hand():
    """160×96 is 5×3 blocks of 32 px, row by row: token 7 is row 1, column 2."""
    found = Bench("qwen3_5", Qwen35(), [(160, 96)]).footprints()
    assert found.grid == (3, 5)
    np.testing.assert_allclose(found.boxes[7], [64, 32, 96, 64])


def test_a_shrunk_image_by_hand():
    """480×320 has 15×10 blocks, more than 60: √(480·320 / 60·1024) = 1.58 gives 9.5×6.3, cut to 9×6."""
    found = Bench("qwen3_5", Qwen35(), [(480, 320)]).footprints()
    assert found.grid == (6, 9)
    np.testing.assert_allclose(found.boxes[0], [0, 0, 480 / 9, 320 / 6])


def test_a_video_is_refused_by_name():
    with pytest.raises(ModelError, match="expected images for qwen3_5, got a video"):
        Qwen35().footprints([(140, 84)], {"video_grid_thw": [1]}, None, None)


@pytest.mark.parametrize(("family", "n_layers"), [("qwen3_5", 8), ("qwen3_5_moe", 4)])
def test_three_deltanet_layers_come_before_each_attention(family, n_layers):
    mllm = interp.wrap(*tiny(family))
    assert mllm.layer_kinds == ("linear", "linear", "linear", "attention") * (n_layers // 4)
    assert mllm.attention_layers == tuple(range(3, n_layers, 4))
    assert mllm.linear_heads == dict.fromkeys(sorted(set(range(n_layers)) - {3, 7}), 6)
    assert (mllm.n_layers, mllm.n_heads, mllm.n_key_value_heads) == (n_layers, 4, 2)


def test_other_models_have_attention_alone():
    mllm = interp.wrap(*tiny("qwen3_vl"))
    assert mllm.layer_kinds == ("attention",) * 3
    assert mllm.linear_heads == {}


def test_unwrapping_gives_the_model_back():
    model, processor = tiny("qwen3_5")
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    mllm = interp.wrap(model, processor)
    mllm.trace(
        interp.Sample(np.zeros((64, 64, 3), np.uint8), "where ?"), reads=[interp.Rows(interp.Site("linear"))]
    )
    mllm.unwrap()
    assert {name: set(module.__dict__) for name, module in model.named_modules()} == {
        name: set(own) for name, own in before.items()
    }
