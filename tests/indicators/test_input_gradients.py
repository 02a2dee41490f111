"""Input gradients against finite differences in float64, captum's own methods, and sums done by hand."""

from __future__ import annotations

import builtins
import json
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient, Saliency

from interp.conformance.tiny import tiny
from interp.errors import MapError, ModelError
from interp.indicators import InputGradient, IntegratedGradients, SmoothGrad
from interp.inputs.prompt import Target, diff
from interp.tracing import Mllm, wrap
from tests.tiny import uneven_samples as samples
from tests.tracing.reference_gradients import in_float64, value

DIFFERENCE = Target(diff("red", "no is"))
TERMS = ((1, "red"), (-1, "no is"))
SIDE = 14
"""Pixels along a token of the tiny LLaVA, 4×4 of them."""


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(*tiny("llava"))


@pytest.fixture(scope="module")
def exact() -> Mllm:
    model, processor = tiny("llava")
    return wrap(in_float64(model), processor)


@pytest.fixture(scope="module")
def pixels(mllm) -> torch.Tensor:
    return mllm.encode(samples()[1]).inputs["pixel_values"]


def captum_on_pixels(method: Any, mllm: Mllm, terms: Any, pixels: torch.Tensor, **options: Any) -> np.ndarray:
    """captum's own method on the eager model: (channel, row, col)."""
    eager = tiny("llava", "eager")[0]

    def forward(given: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [value(mllm, eager, samples()[1], terms, pixel_values=one[None])[0] for one in given]
        )

    return method(forward).attribute(pixels.clone().requires_grad_(True), **options)[0].detach().numpy()


def cells(picture: np.ndarray) -> np.ndarray:
    """(token, pixel) of a picture (row, col)."""
    return picture.reshape(4, SIDE, 4, SIDE).transpose(0, 2, 1, 3).reshape(16, -1)


@pytest.mark.parametrize(("target", "terms"), [(Target(), ()), (DIFFERENCE, TERMS)])
def test_pixels_are_captums(mllm, pixels, target, terms):
    """In a padded batch; norms over channels are averaged over a token's pixels, products summed."""
    plain, times = (InputGradient("pixels", flag)(mllm, samples(), target=target) for flag in (False, True))
    saliency = captum_on_pixels(Saliency, mllm, terms, pixels, abs=False)
    product = captum_on_pixels(InputXGradient, mllm, terms, pixels)
    expected = cells(np.linalg.norm(saliency, axis=0)).mean(axis=1)
    np.testing.assert_allclose(plain[1], expected, rtol=1e-4)
    expected = cells(product.sum(axis=0)).sum(axis=1)
    np.testing.assert_allclose(times[1], expected, atol=1e-4 * np.abs(expected).max())
    assert plain[1].dims == ("token",)
    assert plain.cost.backwards == (1 if not terms else 2)


def at_embeddings(mllm: Mllm, sample: Any, words: list[str]) -> Any:
    """log p of the words as a function of image tokens' embeddings, several at once, by the language model alone."""
    ids = [mllm.processor.tokenizer.convert_tokens_to_ids(word) for word in words]
    batch = mllm.encode(sample)
    found = batch.inputs["input_ids"]
    inputs = torch.cat([found, torch.tensor([ids[:-1]]).long()], dim=1)
    hidden = mllm.hf.get_input_embeddings()(inputs).detach()
    features = mllm.embeddings(batch)[0, batch.tokens[0].image.copy()]

    def log_p(images: torch.Tensor) -> torch.Tensor:
        given = hidden.expand(len(images), -1, -1).clone()
        given[:, batch.tokens[0].image.copy()] = images
        with torch.no_grad():
            states = mllm.hf.model.language_model(inputs_embeds=given, use_cache=False).last_hidden_state
            table = mllm.hf.lm_head(states)[:, -len(ids) :].log_softmax(-1)
        return table[:, range(len(ids)), ids].sum(dim=1)

    return log_p, features


def test_pixels_of_two_images_are_each_its_own_tokens(mllm):
    """Autograd to both pictures at once; beside a sample of one image."""
    one, other = samples()[1], samples()[2]
    pair = one.replace(images=[one.load(), other.load()])
    found = InputGradient("pixels")(mllm, [other, pair], target=Target("red"))[1]
    inputs = dict(mllm.encode(pair).inputs)
    pixels = inputs["pixel_values"].clone().requires_grad_(True)
    token = mllm.processor.tokenizer.convert_tokens_to_ids("red")
    logits = mllm.hf(**{**inputs, "pixel_values": pixels}).logits[0, -1]
    (gradient,) = torch.autograd.grad(logits.log_softmax(-1)[token], pixels)
    expected = np.concatenate([cells(part.norm(dim=0).numpy()).mean(axis=1) for part in gradient])
    assert len(gradient) == 2
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_embeddings_by_finite_differences(exact):
    """The norm of 64 slopes, and the slope along the embedding itself; two answers, one of two tokens."""
    found = InputGradient("embeddings")(exact, samples(), target=DIFFERENCE)
    times = InputGradient("embeddings", times_input=True)(exact, samples(), target=DIFFERENCE)
    (red, features), (no, _) = (
        at_embeddings(exact, samples()[1], words) for words in (["red"], ["no", "is"])
    )

    def slopes(along: torch.Tensor, step: float = 1e-5) -> torch.Tensor:
        ends = [red(features + e * along) - no(features + e * along) for e in (step, -step)]
        return (ends[0] - ends[1]) / (2 * step)

    for token in (0, 6):
        units = torch.zeros(features.shape[1], *features.shape).double()
        units[:, token] = torch.eye(features.shape[1])
        assert float(found[1][token]) == pytest.approx(float(slopes(units).norm()), rel=1e-4)
        along = torch.zeros(1, *features.shape).double()
        along[0, token] = features[token]
        assert float(times[1][token]) == pytest.approx(float(slopes(along)), rel=1e-4)


def test_pixels_by_finite_differences(exact):
    """Each token's pixels made brighter on their own."""
    sample = samples()[1]
    found = InputGradient("pixels", times_input=True)(exact, samples())[1]
    pixels = exact.encode(sample).inputs["pixel_values"]
    for token in (0, 5, 11):
        row, col = divmod(token, 4)
        along = torch.zeros_like(pixels)
        at = (..., slice(row * SIDE, row * SIDE + SIDE), slice(col * SIDE, col * SIDE + SIDE))
        along[at] = pixels[at]
        with torch.no_grad():
            ends = [
                value(exact, exact.hf, sample, (), pixel_values=pixels + e * along)[0] for e in (1e-5, -1e-5)
            ]
        assert float(found[token]) == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-4)


def test_smooth_grad_is_the_mean_over_noise_of_the_pixels_range(mllm, pixels):
    """With one draw, the same as captum's gradient at the noisy picture; the answer stays that of the clean one."""
    found = SmoothGrad(n=1, noise=0.5)(mllm, samples())
    again = SmoothGrad(n=1, noise=0.5)(mllm, samples()[1])
    np.testing.assert_allclose(again[0], found[1], rtol=1e-4)
    drawn: list[torch.Tensor] = []
    original = torch.randn

    def noted(*shape: Any, **options: Any) -> torch.Tensor:
        drawn.append(original(*shape, **options))
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", noted)
        mean = SmoothGrad(n=3, noise=0.5, times_input=True)(mllm, samples()[1], target=Target("red"))
    assert len(drawn) == 3
    noisy = [pixels + 0.5 * (pixels.max() - pixels.min()) * one for one in drawn]
    gradients = [captum_on_pixels(Saliency, mllm, ((1, "red"),), one, abs=False) for one in noisy]
    expected = cells((np.mean(gradients, axis=0) * pixels[0].numpy()).sum(axis=0)).sum(axis=1)
    np.testing.assert_allclose(mean[0], expected, atol=1e-4 * np.abs(expected).max())
    other = SmoothGrad(n=1, noise=0.5, seed=1)(mllm, samples()[1])
    assert not np.allclose(other[0], found[1], rtol=1e-2)
    assert (found.cost.forwards, found.cost.backwards) == (2, 1)


@pytest.mark.parametrize("of", ["pixels", "embeddings"])
def test_integrated_gradients_are_complete(exact, of):
    """Tokens add up to the difference between the picture and the baseline, worked out apart, as far as captum says."""
    sample, target = samples()[1], Target("red")
    found = IntegratedGradients(of, steps=24)(exact, [sample], target=target)
    attrs = found[0].attrs
    if of == "pixels":
        pixels = exact.encode(sample).inputs["pixel_values"]
        flat = pixels.mean(dim=(0, 2, 3))[None, :, None, None].expand_as(pixels)
        with torch.no_grad():
            ends = [
                float(value(exact, exact.hf, sample, ((1, "red"),), pixel_values=x)[0])
                for x in (pixels, flat)
            ]
    else:
        log_p, features = at_embeddings(exact, sample, ["red"])
        ends = log_p(torch.stack([features, features.mean(dim=0).expand_as(features)])).tolist()
    assert attrs["completeness_of"] == pytest.approx(ends[0] - ends[1], rel=1e-4)
    assert float(found[0].sum()) == pytest.approx(ends[0] - ends[1] + attrs["completeness_error"], rel=1e-4)
    assert 1e-12 < abs(attrs["completeness_error"]) < 0.05 * abs(attrs["completeness_of"])
    few = IntegratedGradients(of, steps=2)(exact, [sample], target=target)[0]
    assert abs(few.attrs["completeness_error"]) > abs(attrs["completeness_error"])
    assert found.cost.backwards == 24


def test_a_path_from_zero_is_captums(mllm, pixels):
    from captum.attr import IntegratedGradients as Captums

    found = IntegratedGradients("pixels", "zero", steps=5)(mllm, samples()[1], target=DIFFERENCE)
    expected = captum_on_pixels(Captums, mllm, TERMS, pixels, n_steps=5)
    expected = cells(expected.sum(axis=0)).sum(axis=1)
    np.testing.assert_allclose(found[0], expected, atol=1e-4 * np.abs(expected).max())


def test_patches_have_a_mean_colour_too():
    """Qwen's pixel values are patches of channel, frame, y, x."""
    mllm = wrap(*tiny("qwen2_5_vl"))
    sample = samples()[1]
    pixels = mllm.encode(sample).inputs["pixel_values"]
    found = IntegratedGradients("pixels", baseline="mean", steps=3)(mllm, sample, target=Target("red"))
    blocks = pixels.reshape(len(pixels), 3, -1)
    flat = blocks.mean(dim=(0, 2))[None, :, None].expand_as(blocks).reshape(pixels.shape)
    plain = mllm.encode(sample).inputs
    token = mllm.processor.tokenizer.convert_tokens_to_ids("red")
    with torch.no_grad():
        ends = [
            float(mllm.hf(**{**plain, "pixel_values": x}).logits[0, -1].log_softmax(-1)[token])
            for x in (pixels, flat)
        ]
    assert found[0].attrs["completeness_of"] == pytest.approx(ends[0] - ends[1], abs=1e-4)


def test_frames_of_one_picture_count_together():
    """Qwen's token is four patches of channel, frame, y, x; the gradients of its two equal frames are added."""
    mllm = wrap(*tiny("qwen2_5_vl"))
    sample = samples()[1]
    found = InputGradient("pixels")(mllm, sample, target=Target("red"))[0]
    inputs = dict(mllm.encode(sample).inputs)
    pixels = inputs["pixel_values"].clone().requires_grad_(True)
    token = mllm.processor.tokenizer.convert_tokens_to_ids("red")
    logits = mllm.hf(**{**inputs, "pixel_values": pixels}).logits[0, -1]
    (gradient,) = torch.autograd.grad(logits.log_softmax(-1)[token], pixels)
    frames = mllm.hf.config.vision_config.temporal_patch_size
    by_frame = gradient.reshape(len(found), 4, 3, frames, -1)
    expected = by_frame.sum(dim=3).norm(dim=2).mean(dim=(1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert not np.allclose(by_frame[:, :, :, 0].norm(dim=2).mean(dim=(1, 2)), expected, rtol=0.1)


@pytest.mark.parametrize(
    "indicator",
    [
        InputGradient("embeddings", True),
        SmoothGrad("embeddings", n=2),
        IntegratedGradients("embeddings", steps=2),
    ],
)
def test_a_map_needs_no_gradient_mode_and_leaves_the_weights(indicator):
    mllm = wrap(*tiny("llava_next"))
    with torch.inference_mode():
        together = indicator(mllm, mllm.encode(samples()))
    alone = indicator(mllm, samples()[2])
    np.testing.assert_allclose(together[2], alone[0], atol=2e-5 * float(np.abs(alone[0]).max()))
    assert len(together[2]) == together.tokens[2].n
    assert all(weight.grad is None and weight.requires_grad for weight in mllm.hf.parameters())
    assert json.loads(json.dumps(indicator.to_dict()))["of"] == "embeddings"


def test_captum_missing_names_the_extra(mllm, monkeypatch):
    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("captum"):
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModelError, match=r"needs captum; install it with: pip install 'interp\[gradients\]'"):
        IntegratedGradients(steps=2)(mllm, samples())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InputGradient("image"), "of is 'pixels' or 'embeddings'; got 'image'"),
        (lambda: InputGradient(times_input=2), "times_input is True or False; got 2"),
        (lambda: SmoothGrad(n=0), "n is a whole number of at least 1; got 0"),
        (lambda: SmoothGrad(noise=0), "noise is a finite number above 0; got 0"),
        (lambda: IntegratedGradients(baseline="black"), "baseline is 'mean' or 'zero'; got 'black'"),
        (lambda: IntegratedGradients(steps=1.5), "steps is a whole number of at least 1; got 1.5"),
    ],
)
def test_arguments_are_checked(unchecked, make, message):
    with pytest.raises(MapError, match=message):
        make()


def test_they_describe_themselves():
    assert InputGradient("embeddings", times_input=True).to_dict() == {
        "indicator": "input gradient",
        "of": "embeddings",
        "times_input": True,
    }
    assert SmoothGrad(n=3, noise=0.5, seed=9).to_dict() == {
        "indicator": "SmoothGrad", "of": "pixels", "n": 3, "noise": 0.5, "times_input": False, "seed": 9,
    }  # fmt: skip
    assert IntegratedGradients("pixels", "zero", 8).to_dict() == {
        "indicator": "integrated gradients", "of": "pixels", "baseline": "zero", "steps": 8,
    }  # fmt: skip
    assert (InputGradient(), SmoothGrad()) == (
        InputGradient("pixels", False),
        SmoothGrad("pixels", 16, 0.15, False, 0),
    )
    assert IntegratedGradients() == IntegratedGradients("embeddings", "mean", 32)
