"""Aria: patches against the processor's pixels, both factors of a composed map against attention written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.inputs.footprints import check_layout
from interp.models.families.aria import Aria
from interp.tracing import Mllm, wrap
from interp.tracing.vision_tower import patch_attention, patch_tokens
from tests.models import pixel_impulses
from tests.tracing.reference_attention import attention_of

ADAPTER, PATCH, SIDE = Aria(), 70, 7


def model(split: bool = False) -> tuple[Any, Any]:
    hf, processor = tiny("aria")
    if split:
        processor.images_kwargs = {**processor.images_kwargs, "split_image": True}
        processor.image_processor.split_resolutions = [
            [490, 980],
            [980, 490],
            [980, 980],
            [490, 1470],
            [490, 700],
        ]
    return hf, processor


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(*model())


@pytest.fixture(scope="module")
def tiled() -> Mllm:
    return wrap(*model(split=True))


def samples() -> list[interp.Sample]:
    noise = np.random.default_rng(5)
    sizes = {"where is the nodule?": (150, 60), "what is there in the left lung?": (70, 96)}
    return [
        interp.Sample(noise.integers(0, 255, (h, w, 3), dtype=np.uint8), text)
        for text, (w, h) in sizes.items()
    ]


UNEVEN = [(490, 490), (300, 90), (61, 200), (40, 33), (400, 1100), (700, 480)]
THIN = [(420, 9), (9, 420)]
"""Their shorter side is enlarged to the processor's least."""


@pytest.mark.parametrize(
    ("size", "split"),
    [*((size, split) for size in UNEVEN for split in (False, True)), *((size, False) for size in THIN)],
)
def test_rectangles_fill_the_patches_that_their_footprints_say(size, split):
    hf, processor = model(split)
    inputs = pixel_impulses.encode(processor, [pixel_impulses.picture(size)])
    found = ADAPTER.latent_patches([size], inputs, processor, hf.config)
    check_layout(found, [size])
    mask = inputs["pixel_mask"].unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)
    seen_at_all = (mask.sum((-1, -2)) > 0).flatten().numpy()
    area = ~np.isnan(found.boxes[:, 0])
    assert not area[~seen_at_all].any()
    assert split or (area == seen_at_all).all()  # the canvas of tiles has black rims, which are not masked
    for box in pixel_impulses.boxes_in(size, 5):
        seen = pixel_impulses.brightness(processor, size, box, PATCH).ravel()
        filled = pixel_impulses.covered(found, [size], box)
        sides = np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1)
        whole = area & (mask.sum((-1, -2)) == PATCH**2).flatten().numpy() & (sides > 0.99 * np.nanmax(sides))
        assert np.abs(filled - seen)[whole].max() < 0.25


@pytest.mark.parametrize("split", [False, True])
def test_each_image_of_a_sample_is_laid_as_if_alone(split):
    hf, processor = model(split)
    sizes = [(700, 480), (61, 200)]

    def laid(*sizes: tuple[int, int]) -> Any:
        inputs = pixel_impulses.encode(processor, [pixel_impulses.picture(size) for size in sizes])
        given = list(sizes), inputs, processor, hf.config
        return ADAPTER.latent_patches(*given), len(ADAPTER.footprints(*given))

    (found, n), alone = laid(*sizes), [laid(size) for size in sizes]
    np.testing.assert_array_equal(found.boxes, np.concatenate([one.boxes for one, _ in alone]))
    assert found.image.tolist() == [i for i, (one, _) in enumerate(alone) for _ in range(len(one))]
    assert n == sum(own for _, own in alone)


def test_a_wide_image_by_hand(mllm):
    """300×90 becomes 490×147, so 7×3 patches of 70: 300/7 = 42.9 px wide and high, the last row 0.1 of a patch."""
    tokens = patch_tokens(mllm, mllm.encode(interp.Sample(np.zeros((90, 300, 3), np.uint8), "where ?")))[0]
    boxes, side = tokens.footprints.reshape(SIDE, SIDE, 4), 300 / 7
    np.testing.assert_allclose(boxes[1, 2], [2 * side, side * 90 / 90, 3 * side, 2 * side], rtol=1e-6)
    np.testing.assert_allclose(boxes[2, 0], [0, 2 * side, side, 90], rtol=1e-6)
    assert np.isnan(boxes[3:]).all()


def test_tiles_by_hand(tiled):
    """1000×500 fits the canvas of 980×490, two tiles: each patch is 500/7 pixels of the image."""
    tokens = patch_tokens(tiled, tiled.encode(interp.Sample(np.zeros((500, 1000, 3), np.uint8), "where ?")))[
        0
    ]
    boxes, side = tokens.footprints.reshape(2, SIDE, SIDE, 4), 500 / 7
    np.testing.assert_allclose(boxes[0, 0, 1], [side, 0, 2 * side, side])
    np.testing.assert_allclose(boxes[1, 6, 0], [500, 6 * side, 500 + side, 500])
    assert set(tokens.views) == {"tile"}
    assert tiled.encode(samples()[0]).tokens[0].n % 6 == 0


def written_out(hf: Any, inputs: dict[str, Any]) -> np.ndarray:
    """softmax(q kᵀ / √d) of the projector's queries over patches, mean of the heads, (view, query, patch)."""
    seen: list[torch.Tensor] = []
    projector = hf.model.multi_modal_projector
    hook = projector.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        hf(**inputs, use_cache=False)
        hook.remove()
        cross, whole = projector.cross_attn, projector.cross_attn.multihead_attn
        (patches,) = seen
        q = cross.q_proj(cross.layer_norm(projector.query[:6]))
        k = cross.k_proj(cross.layer_norm_kv(patches))
        n = whole.num_heads
        (wq, wk, _), (bq, bk, _) = whole.in_proj_weight.chunk(3), whole.in_proj_bias.chunk(3)
        q, k = (torch.nn.functional.linear(x, w, b) for x, w, b in ((q, wq, bq), (k, wk, bk)))
        q, k = (x.unflatten(-1, (n, -1)).transpose(-2, -3) for x in (q, k))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        mask = inputs["pixel_mask"].unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).sum((-1, -2)).flatten(1)
        scores = scores.masked_fill(mask[:, None, None] == 0, -torch.inf)
        return scores.softmax(-1).mean(1).numpy()


@pytest.mark.parametrize("split", [False, True])
def test_composed_maps_are_the_product_of_eager_factors(mllm, tiled, split):
    """Alone and left-padded; a query's mass is in its own view, and none is on padding."""
    one = tiled if split else mllm
    together = interp.indicators.Attention()(one, samples())
    for i, sample in enumerate(samples()):
        batch = one.encode(sample)
        inputs = {name: value for name, value in batch.inputs.items() if name != "position_ids"}
        hf = tiny("aria", "eager")[0]
        latents = written_out(hf, inputs)
        rows = attention_of(hf, inputs)[:, :, -1].mean(1)
        mine = rows[:, batch.tokens[0].image]
        views = range(len(latents))
        expected = np.concatenate([mine[:, 6 * v : 6 * v + 6] @ latents[v] for v in views], axis=1)
        np.testing.assert_allclose(together[i].values, expected, atol=1e-6)
        factor = patch_attention(one, batch)[0]
        np.testing.assert_allclose(factor.sum(axis=1), 1, atol=1e-6)
        assert not split or len(latents) > 1


def test_impulses_reach_their_patches(mllm):
    one = samples()[0]
    tokens = patch_tokens(mllm, mllm.encode(one))[0]
    before = mllm.image_features(mllm.encode(one))[0]
    for token in np.flatnonzero(~np.isnan(tokens.footprints[:, 0]))[::4]:
        x0, y0, x1, y1 = np.round(tokens.footprints[token]).astype(int)
        picture = np.array(one.load())
        picture[y0:y1, x0:x1] = 255 - picture[y0:y1, x0:x1] // 4
        after = mllm.image_features(mllm.encode(interp.Sample(picture, one.question)))[0]
        assert int((after - before).norm(dim=-1).argmax()) == token


def test_its_experts_are_read(mllm):
    weights = mllm.trace(samples()[0], reads=[interp.Experts()])[0].experts
    assert ((weights > 0).sum("expert") == 2).all()
    np.testing.assert_allclose(weights.sum("expert"), 1, atol=1e-6)


def test_settings_that_are_not_understood(mllm):
    inputs = mllm.encode(samples()[0]).singles[0].inputs
    _, processor = model()
    processor.images_kwargs = {"max_image_size": 980, "split_image": False}
    with pytest.raises(
        ModelError, match=r"views of 980 px, 196 patches; the model has queries for 49 patches"
    ):
        ADAPTER.footprints([(30, 30)], inputs, processor, mllm.hf.config)
    with pytest.raises(ModelError, match=r"into 1 view of 980×980, but pixel_values hold"):
        ADAPTER.latent_patches([(30, 30)], inputs, processor, mllm.hf.config)
    assert len(ADAPTER.latent_patches([], {}, None, None)) == 0


def test_prompt():
    assert ADAPTER.fallback_prompt("Why?", 1, "Be brief.") == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<fim_prefix><|img|><fim_suffix>Why?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
