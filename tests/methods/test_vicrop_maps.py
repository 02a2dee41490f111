"""ViCrop's maps against models in eager attention, autograd by hand, loops, and painted pixels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange, reduce

import tests.tiny as small
from interp.conformance.subject import inner_box, repainted, smooth
from interp.conformance.tiny import tiny
from interp.errors import MethodError
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.methods import vicrop_maps
from interp.methods.vicrop_maps import (
    channel_scale,
    grad_att,
    high_pass,
    pixel_grid,
    pure_grad,
    rel_att,
    whole_view,
)
from interp.tracing import Mllm, wrap
from tests.covering import every_family

LAYER = 1


def rough(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def three() -> list[Sample]:
    """Three samples whose prompts differ in length, so that two are padded."""
    return [sample.replace(image=rough(80, 64, i)) for i, sample in enumerate(small.samples())]


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl"])
def pair(request) -> tuple[Mllm, Any]:
    """A wrapped model, and the same weights in eager attention, never wrapped."""
    if request.param == "llava":
        return wrap(small.llava(), small.processor()), small.llava("eager")
    return wrap(*tiny(request.param)), tiny(request.param, "eager")[0]


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(small.llava(), small.processor())


def alone(mllm: Mllm, sample: Sample, prompt=PAPER_PROMPT) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """One sample's inputs as its processor makes them, and where its image tokens are."""
    batch = mllm.encode(sample, prompt)
    return {k: v for k, v in batch.inputs.items() if k != "position_ids"}, batch.tokens[0].image.copy()


def test_rel_att_is_the_quotient_of_eager_rows(pair):
    mllm, eager = pair
    found = rel_att(mllm, three(), PAPER_PROMPT, GENERIC_PROMPT, LAYER)
    for one, sample in zip(found, three(), strict=True):
        q, g = (
            eager(**inputs, output_attentions=True)
            .attentions[LAYER][0, :, -1, image]
            .mean(0)
            .detach()
            .numpy()
            for inputs, image in (alone(mllm, sample, prompt) for prompt in (PAPER_PROMPT, GENERIC_PROMPT))
        )
        np.testing.assert_allclose(one, q / g, rtol=1e-4)
        assert one.dims == ("token",)


def eager_grad_att(mllm, eager, sample) -> np.ndarray:
    inputs, image = alone(mllm, sample)
    out = eager(**inputs, output_attentions=True)
    rows = out.attentions[LAYER]
    (gradient,) = torch.autograd.grad(out.logits[0, -1].log_softmax(-1).max(), rows)
    return (rows * gradient.relu())[0, :, -1, image].mean(0).detach().numpy()


def test_grad_att_is_eagers(pair):
    mllm, eager = pair
    found = grad_att(mllm, three(), PAPER_PROMPT, LAYER)
    for one, sample in zip(found, three(), strict=True):
        expected = eager_grad_att(mllm, eager, sample)
        np.testing.assert_allclose(one, expected, atol=1e-5 * expected.max())
        assert (one.values >= 0).all()
        assert expected.max() > 0
    assert (found.cost.forwards, found.cost.backwards) == (
        2,
        1,
    )  # everything before the last row, then that row


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_of_a_frozen_model_with_gradients_off(mode):
    hf = small.llava().requires_grad_(False)
    mllm, eager = wrap(hf, small.processor()), small.llava("eager")
    with mode():
        weighed = grad_att(mllm, three(), PAPER_PROMPT, LAYER)[1]
        pixels = pure_grad(mllm, three(), PAPER_PROMPT, GENERIC_PROMPT)[1]
    expected = eager_grad_att(mllm, eager, three()[1])
    np.testing.assert_allclose(weighed, expected, atol=1e-5 * expected.max())
    np.testing.assert_allclose(pixels, eager_pure_grad(mllm, eager, three()[1]), rtol=1e-3)
    assert not any(weight.requires_grad for weight in hf.parameters())


def test_the_weights_are_left_alone(mllm):
    before = {name: weight.clone() for name, weight in mllm.hf.named_parameters()}
    grad_att(mllm, three(), PAPER_PROMPT, LAYER)
    pure_grad(mllm, three()[:1], PAPER_PROMPT, GENERIC_PROMPT)
    for name, weight in mllm.hf.named_parameters():
        assert weight.grad is None
        assert weight.requires_grad
        assert torch.equal(weight, before[name])


def detail(picture: np.ndarray) -> np.ndarray:
    """The published high-pass, pixel by pixel: (row, col) from (row, col, channel)."""
    height, width, _ = picture.shape
    weights = np.exp(-np.array([1, 0, 1]) / (2 * 0.8**2))
    kernel = np.outer(weights, weights) / weights.sum() ** 2

    def mirrored(i: int, n: int) -> int:
        return -i if i < 0 else 2 * (n - 1) - i if i >= n else i

    high = np.zeros((height, width))
    for r in range(height):
        for c in range(width):
            blurred = sum(
                kernel[i + 1, j + 1] * picture[mirrored(r + i, height), mirrored(c + j, width)]
                for i in (-1, 0, 1)
                for j in (-1, 0, 1)
            )
            high[r, c] = np.sqrt(((picture[r, c] - blurred) ** 2).sum())
    padded = np.pad(high, 3, mode="symmetric")
    windows = [padded[i : i + height, j : j + width] for i in range(7) for j in range(7)]
    return np.median(windows, axis=0)


def eager_pure_grad(mllm, eager, sample) -> np.ndarray:
    """The published steps on a LLaVA whose view has 4×4 cells of 14 pixels."""
    norms = []
    for prompt in (PAPER_PROMPT, GENERIC_PROMPT):
        inputs, _ = alone(mllm, sample, prompt)
        inputs["pixel_values"].requires_grad_(True)
        loss = -eager(**inputs).logits[0, -1].log_softmax(-1).max()
        (gradient,) = torch.autograd.grad(loss, inputs["pixel_values"])
        norms.append(gradient[0].norm(dim=0).numpy())
    std = np.array(mllm.processor.image_processor.image_std)
    high = detail(inputs["pixel_values"][0].detach().numpy().transpose(1, 2, 0) * std)
    kept = norms[0] / norms[1] * (high > np.median(high))
    return np.array(
        [kept[14 * r : 14 * r + 14, 14 * c : 14 * c + 14].mean() for r in range(4) for c in range(4)]
    )


def test_pure_grad_is_eagers_by_the_published_steps(mllm):
    eager, samples = small.llava("eager"), three()[:2]
    found = pure_grad(mllm, samples, PAPER_PROMPT, GENERIC_PROMPT)
    for one, sample in zip(found, samples, strict=True):
        np.testing.assert_allclose(one, eager_pure_grad(mllm, eager, sample), rtol=1e-3)
    assert (found.cost.forwards, found.cost.backwards) == (4, 4)


def test_high_pass_is_the_published_one():
    picture = np.random.default_rng(0).random((19, 23, 3))
    high = detail(picture)
    found = high_pass(picture.transpose(2, 0, 1), np.ones((19, 23), bool))
    np.testing.assert_array_equal(found, high > np.median(high))
    part = np.zeros((19, 23), bool)
    part[:5] = True
    found = high_pass(picture.transpose(2, 0, 1), part)
    np.testing.assert_array_equal(found, high > np.median(high[:5]))


def test_a_picture_of_one_colour_has_no_detail():
    for value in (0.0, 0.1, 0.7):
        assert not high_pass(np.full((3, 30, 30), value), np.ones((30, 30), bool)).any()


def test_patches_of_overlapping_crops_are_refused():
    """Molmo 2's margins are in two crops, and its tokens are pooled from one of them."""
    hf, processor = tiny("molmo2")
    batch = wrap(hf, processor).encode(Sample(smooth((90, 60), 0), "where is it?"))
    with pytest.raises(MethodError, match=r"these are \(\d, 49, 108\) for \d+ image tokens"):
        pixel_grid(batch.inputs, batch.tokens[0], processor, hf.config)


NO_PIXELS = ("gemma4_unified", "lfm2_vl", "minicpmv4_6", "molmo2")
"""Families whose processed pixels are neither views nor Qwen's patches."""


@pytest.mark.by_default(family=("gemma3", "internvl", "llava", "llava_onevision", "qwen2_5_vl", "vila"))
@pytest.mark.parametrize("family", every_family(but=NO_PIXELS, maps="self"))
def test_the_pixels_of_a_token_are_those_of_its_footprint(family):
    """Paint inside a footprint: in the processor's pixels, the token's own cell changes most."""
    hf, processor = tiny(family)
    mllm = wrap(hf, processor)
    size = (231, 138) if family != "llava_onevision" else (200, 137)
    before = smooth(size, 0)
    batch = mllm.encode(Sample(before, "where is it?"))
    tokens, first = batch.tokens[0], batch.inputs["pixel_values"]
    grid, mine = pixel_grid(batch.inputs, tokens, mllm.processor, hf.config), whole_view(tokens)
    shown = grid.picture(first.double().numpy())
    assert np.ptp(shown, axis=0).max() == 0, "an image is repeated in frames"
    places = np.flatnonzero(mine)
    seen = places[~np.isnan(tokens.footprints[places, 0])]  # the others are padding
    for token in seen[:: max(1, len(seen) // 7)]:
        painted = Sample(repainted(before, inner_box(tokens.footprints[token])), "where is it?")
        change = grid.picture(mllm.encode(painted).inputs["pixel_values"].double().numpy()) - shown
        moved = grid.means(np.abs(change).sum(axis=(0, 1)))
        assert moved.size == len(places)
        assert grid.tokens.flat[moved.argmax()] == token


def cut_image(mllm, sample, prompt) -> tuple[np.ndarray, np.ndarray]:
    """A Qwen's picture (row, col, channel) and ‖∂ log p/∂picture‖₂ (row, col).

    Autograd goes to the picture itself, which is cut into patches and repeated in two frames as the processor does.
    """
    batch, vision = mllm.encode(sample, prompt), mllm.hf.config.vision_config
    patches, (_, rows, cols) = batch.inputs["pixel_values"], batch.inputs["image_grid_thw"][0].tolist()
    sizes = {
        "h": rows // 2,
        "w": cols // 2,
        "m": 2,
        "n": 2,
        "c": 3,
        "p": vision.patch_size,
        "q": vision.patch_size,
    }
    cut, image = "(h w m n) (c t p q)", "t c (h m p) (w n q)"
    picture = rearrange(patches, f"{cut} -> {image}", **sizes)[0].clone().requires_grad_(True)
    again = rearrange(picture.expand(2, -1, -1, -1), f"{image} -> {cut}", **sizes)
    assert torch.equal(again, patches)
    logits = mllm.hf(**{**batch.inputs, "pixel_values": again}).logits[0, -1]
    (gradient,) = torch.autograd.grad(logits.log_softmax(-1).max(), picture)
    return picture.detach().numpy().transpose(1, 2, 0), gradient.norm(dim=0).numpy()


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_pure_grad_of_patches_is_that_of_their_image(family):
    mllm, sample = wrap(*tiny(family)), Sample(rough(120, 90), "where is it?")
    (found,) = pure_grad(mllm, [sample], PAPER_PROMPT, GENERIC_PROMPT)
    (picture, q), (_, g) = (cut_image(mllm, sample, prompt) for prompt in (PAPER_PROMPT, GENERIC_PROMPT))
    high = detail(picture * np.array(mllm.processor.image_processor.image_std))
    side = 2 * mllm.hf.config.vision_config.patch_size
    expected = reduce(q / g * (high > np.median(high)), "(r h) (c w) -> (r c)", "mean", h=side, w=side)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_a_generic_gradient_of_zero_adds_nothing(mllm, monkeypatch):
    """The upper half of the picture moves nothing under the generic prompt."""

    def gradient(_, batch, __):
        pixels = torch.ones_like(batch.inputs["pixel_values"])
        if batch.prompt == GENERIC_PROMPT:
            pixels[..., :28, :] = 0
        return pixels

    monkeypatch.setattr(vicrop_maps, "_pixel_gradient", gradient)
    grid = pure_grad(mllm, three()[:1], PAPER_PROMPT, GENERIC_PROMPT)[0].values.reshape(4, 4)
    assert not grid[:2].any()
    assert grid[2:].all()


def test_padding_counts_for_nothing(mllm):
    """A wide image, padded: the median is over its own pixels, so about half of them have detail."""
    padded = wrap(small.llava(), small.processor(pad=True))
    sample = Sample(rough(112, 28), "is it red?")
    found = pure_grad(padded, [sample], PAPER_PROMPT, GENERIC_PROMPT)
    grid = found[0].values.reshape(4, 4)
    assert (grid[1:3] > 0).all()
    tokens = found.tokens[0]
    pixels = pixel_grid(padded.encode(sample).inputs, tokens, padded.processor, padded.hf.config)
    seen = pixels.covered(~np.isnan(tokens.footprints[:, 0]), (56, 56))
    picture = pixels.picture(padded.encode(sample).inputs["pixel_values"].double().numpy())[0]
    scaled = picture * channel_scale(padded.processor)[:, None, None]
    assert seen.sum() == 56 * 28
    assert high_pass(scaled, seen)[seen].mean() == pytest.approx(0.5, abs=0.01)


def test_tiles_get_nothing_and_the_base_view_all():
    mllm = wrap(*tiny("llava_next"))
    sample = Sample(rough(181, 117), "where is it?")
    found = pure_grad(mllm, [sample], PAPER_PROMPT, GENERIC_PROMPT)
    base = found.tokens[0].views == "base"
    assert not found[0].values[~base].any()
    assert (found[0].values[base] > 0).any()


def token_map(views: list[str]) -> TokenMap:
    n = len(views)
    boxes = np.array([[i, 0, i + 1, 1] for i in range(n)], float)
    return TokenMap(np.arange(n), boxes, None, np.array(views), np.zeros(n, int), ((n, 1),), n)


def test_views_that_are_not_known_are_refused():
    assert whole_view(token_map(["tile"] * 4)).all(), "a single view is the whole image"
    assert whole_view(token_map(["tile", "tile", "global"])).tolist() == [False, False, True]
    with pytest.raises(
        MethodError, match=r"'', 'base', 'global', 'thumbnail'; this image has the views \['a', 'b'\]"
    ):
        whole_view(token_map(["a", "b"]))


@pytest.mark.parametrize("shape", [(4, 9), (2, 8, 8), (1, 3, 24, 8), (2, 3, 16, 16)])
def test_pixel_values_of_another_kind_are_refused(shape):
    """Neither views nor Qwen's patches; blocks that are no 2×2 of tokens; two views of no known name."""
    config = SimpleNamespace(vision_config=SimpleNamespace(patch_size=8))
    inputs = {"pixel_values": torch.zeros(shape)}
    with pytest.raises(
        MethodError, match=r"which pixel each gradient belongs to.*Use map='rel_att' or 'grad_att'"
    ):
        pixel_grid(inputs, token_map(["odd"] * 4), SimpleNamespace(), config)


def test_rounding_is_no_detail():
    noise = np.random.default_rng(0).random((3, 20, 24)) * 1e-8
    assert not high_pass(0.5 + noise, np.ones((20, 24), bool)).any()
    assert 0.4 < high_pass(0.5 + 1e4 * noise, np.ones((20, 24), bool)).mean() <= 0.5


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"do_normalize": True, "image_std": [0.25, 0.5, 0.75]}, [0.25, 0.5, 0.75]),
        ({"do_normalize": True, "image_std": 0.5}, [0.5] * 3),
        ({"do_normalize": False, "image_std": [0.25, 0.5, 0.75]}, [1.0] * 3),
        ({"do_normalize": True, "image_std": None}, [1.0] * 3),
    ],
)
def test_channels_are_scaled_as_the_processor_scaled_them(settings, expected):
    processor = SimpleNamespace(image_processor=SimpleNamespace(**settings))
    assert channel_scale(processor).tolist() == expected
