"""Idefics2: patches against the processor's pixels, both factors of a composed map against eager attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.inputs.footprints import check_layout
from interp.models.families.idefics import Idefics2
from interp.tracing import Mllm, wrap
from interp.tracing.vision_tower import patch_attention, patch_tokens
from tests.models import pixel_impulses

ADAPTER, PATCH = Idefics2(), 7


def model() -> tuple[Any, Any]:
    """Views keep their aspect ratio within 28 and 84 pixels, as they do in the checkpoints' wider limits."""
    hf, processor = tiny("idefics2")
    processor.image_processor.size = {"shortest_edge": 28, "longest_edge": 84}
    return hf, processor


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(*model())


def samples() -> list[interp.Sample]:
    noise = np.random.default_rng(5)
    sizes = {"where is the nodule?": (150, 60), "what is there in the left lung?": (70, 96)}
    return [
        interp.Sample(noise.integers(0, 255, (h, w, 3), dtype=np.uint8), text)
        for text, (w, h) in sizes.items()
    ]


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("size", [(84, 84), (150, 60), (61, 200), (40, 33)])
def test_rectangles_fill_the_patches_that_their_footprints_say(size, split):
    hf, processor = model()
    processor.image_processor.do_image_splitting = split
    inputs = pixel_impulses.encode(processor, [pixel_impulses.picture(size)])
    found = ADAPTER.latent_patches([size], inputs, processor, hf.config)
    check_layout(found, [size])
    mask = inputs["pixel_attention_mask"][0].unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)
    whole = (mask.sum((-1, -2)) == PATCH**2).flatten().numpy()
    assert (~np.isnan(found.boxes[:, 0]) == whole).all()
    for box in pixel_impulses.boxes_in(size, 5):
        seen = pixel_impulses.brightness(processor, size, box, PATCH).ravel()
        filled = pixel_impulses.covered(found, [size], box)
        assert np.abs(filled - seen)[whole].max() < 0.25


@pytest.mark.parametrize("split", [True, False])
def test_images_share_a_canvas_and_keep_their_patches(split):
    """All views are padded to the widest and the highest one; the patches of an image are those it has alone."""
    hf, processor = model()
    processor.image_processor.do_image_splitting = split
    sizes = [(150, 60), (61, 200)]

    def laid(*sizes: tuple[int, int]) -> Any:
        inputs = pixel_impulses.encode(processor, [pixel_impulses.picture(size) for size in sizes])
        found = ADAPTER.latent_patches(list(sizes), inputs, processor, hf.config)
        mask = inputs["pixel_attention_mask"][0].unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)
        whole = (mask.sum((-1, -2)) == PATCH**2).flatten().numpy()
        assert (~np.isnan(found.boxes[:, 0]) == whole).all()
        return found

    found, alone = laid(*sizes), [laid(size) for size in sizes]
    for i, one in enumerate(alone):
        mine = (found.image == i) & ~np.isnan(found.boxes[:, 0])
        own = ~np.isnan(one.boxes[:, 0])
        np.testing.assert_allclose(found.boxes[mine], one.boxes[own])
        assert found.views[mine].tolist() == one.views[own].tolist()


def test_an_image_that_is_not_resized_has_its_own_patches():
    """42×28 px are 6×4 patches of 7."""
    hf, processor = model()
    processor.image_processor.do_image_splitting = processor.image_processor.do_resize = False
    inputs = pixel_impulses.encode(processor, [pixel_impulses.picture((42, 28))])
    found = ADAPTER.latent_patches([(42, 28)], inputs, processor, hf.config)
    assert len(found) == 24
    assert found.boxes[[1, 6, 23]].tolist() == [[7, 0, 14, 7], [0, 7, 7, 14], [35, 21, 42, 28]]
    assert set(found.views) == {"global"}


def test_a_wide_image_by_hand(mllm):
    """150×60: quarters of 75×30 as they are, the whole 84×33; all in 84×33, so 12×4 patches, 10×4 of a quarter."""
    tokens = patch_tokens(mllm, mllm.encode(samples()[0]))[0]
    boxes = tokens.footprints.reshape(5, 4, 12, 4)
    np.testing.assert_allclose(boxes[0, 0, 0], [0, 0, 7, 7])
    np.testing.assert_allclose(boxes[1, 1, 2], [75 + 14, 7, 75 + 21, 14])
    np.testing.assert_allclose(boxes[3, 0, 4], [75 + 28, 30, 75 + 35, 37])
    assert np.isnan(boxes[:4, :, 10:]).all()
    np.testing.assert_allclose(boxes[4, 0, 1], [7 * 150 / 84, 0, 14 * 150 / 84, 7 * 60 / 33])
    assert tokens.views.tolist() == ["tile"] * 192 + ["global"] * 48


def eager_factors(sample: interp.Sample, mllm: Mllm) -> tuple[np.ndarray, np.ndarray]:
    """The last row over the latents, (layer, latent), and their own mean attention, (view, latent, key): eager."""
    hf = tiny("idefics2", "eager")[0]
    rows: list[torch.Tensor] = []
    latents: list[torch.Tensor] = []
    for layer in hf.get_decoder().layers:
        layer.self_attn.register_forward_hook(lambda _, __, out: rows.append(out[1][0, :, -1].mean(0)))
    for layer in hf.model.connector.perceiver_resampler.layers:
        layer.self_attn.register_forward_hook(lambda _, __, out: latents.append(out[1].mean(1)))
    inputs = {k: v for k, v in mllm.encode(sample).inputs.items() if k != "position_ids"}
    with torch.no_grad():
        hf(**inputs, use_cache=False)
    at = np.flatnonzero(inputs["input_ids"][0] == hf.config.image_token_id)
    return torch.stack(rows).numpy()[:, at], torch.stack(latents).mean(0).numpy()


def test_composed_maps_are_the_product_of_eager_factors(mllm):
    """Alone and left-padded; a latent's mass is in its own view, and what latents give each other is left out."""
    together = interp.indicators.Attention()(mllm, samples())
    for i, sample in enumerate(samples()):
        rows, latents = eager_factors(sample, mllm)
        n = latents.shape[2] - 6
        expected = np.concatenate(
            [rows[:, 6 * view : 6 * view + 6] @ latents[view][:, :n] for view in range(5)], axis=1
        )
        found = together[i]
        np.testing.assert_allclose(found.values, expected, atol=1e-6)
        assert (found.name, found.attrs["map"]) == ("composed attention", "composed")
        assert (found.values[:, np.isnan(together.tokens[i].footprints[:, 0])] == 0).all()
        factor = patch_attention(mllm, mllm.encode(sample))[0]
        assert factor.shape == (30, 5 * n)
        assert (factor.sum(axis=1) < 1).all()


def test_a_relative_map_divides_composed_maps(mllm):
    one = samples()[0]
    found = interp.indicators.Attention(relative_to=interp.GENERIC_PROMPT)(mllm, one)[0]
    plain, generic = (
        interp.indicators.Attention()(mllm, one, prompt=prompt)[0].values
        for prompt in (interp.PAPER_PROMPT, interp.GENERIC_PROMPT)
    )
    seen = generic > 0
    np.testing.assert_allclose(found.values[seen], (plain / np.where(seen, generic, 1))[seen], rtol=1e-4)
    assert found.name == "relative composed attention"


def test_the_model_is_left_as_it_was(mllm):
    config = mllm.hf.model.connector.perceiver_resampler.config
    before = config._attn_implementation
    interp.indicators.Attention()(mllm, samples()[0])
    assert config._attn_implementation == before != "eager"


def test_impulses_reach_their_patches(mllm):
    one = samples()[0]
    tokens = patch_tokens(mllm, mllm.encode(one))[0]
    before = mllm.image_features(mllm.encode(one))[0]
    for token in (0, 9, 60, 193, 222):
        x0, y0, x1, y1 = np.round(tokens.footprints[token]).astype(int)
        picture = np.array(one.load())
        picture[y0:y1, x0:x1] = 255 - picture[y0:y1, x0:x1] // 4
        after = mllm.image_features(mllm.encode(interp.Sample(picture, one.question)))[0]
        change = (after - before).norm(dim=-1).numpy()
        mine = np.flatnonzero(tokens.views == tokens.views[token])
        assert mine[change[mine].argmax()] == token


def test_the_question_is_found(mllm):
    for one in samples():
        batch = mllm.encode(one)
        ids = batch.inputs["input_ids"][0][batch.tokens[0].positions("question").tolist()]
        assert mllm.processor.tokenizer.decode(ids) == one.question.replace("?", " ?")


def test_latents_are_edited_and_the_rest_is_refused(mllm):
    one = samples()[0]
    plain = mllm.trace(one).logits
    edited = mllm.trace(one, edits=[interp.Knockout(interp.Site(layers=[1], keys="image"))]).logits
    assert np.abs(edited - plain).max() > 1e-4
    with pytest.raises(
        ModelError, match=r"image tokens of idefics2 are latents of a resampler.*composes maps over patches"
    ):
        interp.indicators.Rollout()(mllm, one)


def test_settings_that_are_not_understood(mllm):
    inputs = mllm.encode(samples()[0]).singles[0].inputs
    with pytest.raises(ModelError, match=r"give views of shape \(1, 5, 3, \d+, \d+\), but the inputs hold"):
        ADAPTER.latent_patches([(30, 30)], inputs, mllm.processor, mllm.hf.config)
    assert len(ADAPTER.latent_patches([], {}, None, None)) == 0


def test_prompt():
    assert ADAPTER.fallback_prompt("Why?", 1, None) == "User:<image>Why?<end_of_utterance>\nAssistant:"


def test_a_batch_that_the_tower_pads_is_refused(mllm):
    """The tower pads both samples' views to one size; alone its rows are read."""
    site = interp.Site(tower="vision", queries="patches")
    for one in samples():
        rows = mllm.trace(one, reads=[interp.Rows(site)])[0].rows
        assert rows.sizes["query"] == patch_tokens(mllm, mllm.encode(one))[0].n
    with pytest.raises(ModelError, match=r"run them one by one, batch_size=1"):
        mllm.trace(samples(), reads=[interp.Rows(site)])
