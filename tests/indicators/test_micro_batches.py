"""Every indicator gives the same maps for every batch size, in the order given, of the prompt and target asked for."""

from __future__ import annotations

import functools
from inspect import isclass
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from interp import indicators
from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.indicators.maps import BatchIndicator
from interp.inputs.prompt import GENERIC_PROMPT, Prompt, Target, diff
from interp.inputs.sample import Sample
from interp.tracing import Features, Mllm, wrap
from interp.tracing.passes import out_of_memory, progress_bar
from tests.batch_sizes import WHOLE, samples


def features() -> Features:
    """Features of random weights of a stream of the tiny models' width."""
    draw = torch.Generator().manual_seed(0)
    sizes = {"encoder": (64, 6), "encoder_bias": (6,), "decoder": (6, 64), "decoder_bias": (64,)}
    weights = {name: torch.randn(size, generator=draw) for name, size in sizes.items()}
    return Features(**weights, layer=1)


CHEAP: dict[str, Any] = {
    "feature map": indicators.FeatureMap(features(), 1),
    "attention": indicators.Attention(per_head=True),
    "relative attention": indicators.Attention(relative_to=GENERIC_PROMPT),
    "attention of a label": indicators.Attention(queries="label"),
    "attention of the answer": indicators.Attention(relative_to=GENERIC_PROMPT, queries="answer"),
    "value-weighted attention": indicators.ValueWeightedAttention(),
    "rollout": indicators.Rollout(),
    "attention gradient": indicators.AttentionGradient(),
    "attribution patching": indicators.AttributionPatching(layers=[1, 0]),
    "input gradient": indicators.InputGradient(),
    "embedding gradient": indicators.InputGradient(of="embeddings", times_input=True),
    "SmoothGrad": indicators.SmoothGrad(n=2, seed=1),
    "integrated gradients": indicators.IntegratedGradients(steps=2),
    "token knockout": indicators.TokenKnockout(batch=5),
    "embedding replacement": indicators.EmbeddingReplacement(),
    "occlusion": indicators.Occlusion(coarse=2, refine=0.1),
    "random masks": indicators.RandomMasks(n=12, seed=2, cell=1),
    "activation patching": indicators.ActivationPatching(
        [
            (one, one.replace(question=one.question, images=[np.asarray(one.load())[::-1]]))
            for one in samples()
        ],
        layers=[0],
        block=2,
    ),
    "vision attention": indicators.VisionAttention(),
    "random map": indicators.RandomMap(3),
    "centre prior": indicators.CentrePrior(),
}
TARGETED = {"attention gradient": Target(diff("left lung", "right")), "token knockout": Target("left lung")}


@functools.cache
def family(name: str) -> Mllm:
    return wrap(*tiny(name))


@functools.cache
def all_at_once(name: str, label: str):
    """The maps of three samples in one pass, the first and the last with the same image."""
    return CHEAP[label](family(name), samples()[:3], target=target_of(label), batch_size=WHOLE)


def target_of(label: str) -> Target:
    return TARGETED.get(label, Target("greedy"))


def test_every_indicator_is_tried():
    tried = {type(indicator).__name__ for indicator in CHEAP.values()}
    classes = {name: getattr(indicators, name) for name in indicators.__all__}
    assert tried == {
        name
        for name, one in classes.items()
        if isclass(one) and any("__call__" in vars(kind) for kind in one.__mro__)
    }


@pytest.mark.by_default(name=("llava",), size=(2,))
@pytest.mark.parametrize("label", CHEAP)
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3", "llava_next"])
def test_maps_are_the_same_for_every_size(name, size, label):
    whole = all_at_once(name, label)
    found = CHEAP[label](family(name), samples()[:3], target=target_of(label), batch_size=size)
    assert [tokens.length for tokens in found.tokens] == [tokens.length for tokens in whole.tokens]
    for one, same in zip(found, whole, strict=True):
        scale = float(np.abs(same.values).max()) or 1.0
        xr.testing.assert_allclose(one / scale, same / scale, atol=1e-5, rtol=1e-5)
    assert (found.logits is None) == (whole.logits is None)
    if found.logits is not None and whole.logits is not None:
        np.testing.assert_allclose(found.logits.values, whole.logits.values, atol=1e-5)
    assert found.cost.forwards >= whole.cost.forwards
    assert found.cost.backwards >= whole.cost.backwards


def test_a_feature_map_names_its_feature_and_layer():
    (found,) = CHEAP["feature map"](family("llava"), samples()[0])
    assert (found.name, found.attrs["feature"], found.attrs["layer"]) == ("feature 1", 1, 1)


def of_two_images() -> Sample:
    """Of other sizes, and so of other grids in a family of any resolution."""
    first, second = (np.asarray(one.load()) for one in samples()[1:4:2])
    return Sample(images=[first, second[:40]], question="is it red?", id="pair", meta={"label": "it"})


@pytest.mark.parametrize("label", [name for name, one in CHEAP.items() if isinstance(one, BatchIndicator)])
def test_a_map_of_two_images_is_the_same_beside_another(label):
    mllm, one, two = family("qwen2_5_vl"), samples()[0], of_two_images()
    together = CHEAP[label](mllm, [two, one])
    for found, sample, tokens in zip(together, (two, one), together.tokens, strict=True):
        (alone,) = CHEAP[label](mllm, sample)
        scale = float(np.abs(alone.values).max())
        assert np.abs(found.values - alone.values).max() <= 1e-4 * scale
        each = [alone.values[..., tokens.image_index == i] for i in range(len(sample.images))]
        assert all(np.abs(values).max() > 0 for values in each)


@pytest.mark.parametrize("label", [one for one in CHEAP if one not in ("random map", "centre prior")])
def test_bars_are_hidden_where_that_is_asked(label):
    mllm, seen = family("llava"), []
    hook = mllm.hf.register_forward_pre_hook(lambda *_: seen.append(progress_bar._HIDDEN.get()))
    try:
        CHEAP[label](mllm, samples()[:2], batch_size=1, progress=False)
    finally:
        hook.remove()
    assert set(seen) <= {True}


REMOVALS = {
    "hide": indicators.HideTokens(),
    "replace": indicators.ReplaceEmbeddings(),
    "paint": indicators.PaintPixels(),
}


@pytest.mark.parametrize("name", REMOVALS)
def test_a_removal_is_scored_under_the_prompt_asked_for(name):
    mllm, one, prompt = family("llava"), samples()[1], Prompt("is {question} a", system="be brief")
    half = np.arange(16)[None] < 8
    found = REMOVALS[name].scores(mllm, one, half, prompt=prompt, target=Target("yes"))
    batch = REMOVALS[name].scores(mllm, mllm.encode(one, prompt), half, target=Target("yes"))
    assert found.plain == pytest.approx(mllm.score(one, Target("yes"), prompt=prompt).values[0], abs=1e-5)
    np.testing.assert_allclose(found.values, batch.values, atol=1e-6)
    plain = REMOVALS[name].scores(mllm, one, half, target=Target("yes"))
    assert abs(plain.values[0] - found.values[0]) > 1e-4


OF_THE_IMAGE = ("vision attention", "random map", "centre prior")
OF_NO_TARGET = (*OF_THE_IMAGE, "rollout", "value-weighted attention", "feature map")


@pytest.mark.parametrize("label", CHEAP)
def test_a_map_is_of_the_prompt_asked_for(label):
    """As of a batch that was encoded with it; a system message moves every image token."""
    mllm, prompt, one = family("llava"), Prompt("is {question} a", system="be brief"), samples()[:1]
    found, plain = CHEAP[label](mllm, one, prompt=prompt), CHEAP[label](mllm, one)
    batch = mllm.encode(one, prompt)
    assert found.tokens[0].image.tolist() == batch.tokens[0].image.tolist() != plain.tokens[0].image.tolist()
    np.testing.assert_allclose(found[0], CHEAP[label](mllm, batch)[0], rtol=1e-5, atol=1e-7)
    scale = float(np.abs(plain[0]).max())
    assert (np.abs(found[0].values - plain[0].values).max() > 1e-3 * scale) == (label not in OF_THE_IMAGE)


@pytest.mark.parametrize(
    "label", [one for one in CHEAP if one not in OF_NO_TARGET and "attention of" not in one]
)
def test_a_map_is_of_the_target_asked_for(label):
    mllm, one = family("llava"), samples()[:1]
    greedy, asked = (
        CHEAP[label](mllm, one, target=target)[0].values for target in (Target(), Target("lung"))
    )
    moved = np.abs(greedy - asked).max() > 1e-3 * np.abs(greedy).max()
    assert moved == ("attention" not in label or label == "attention gradient")


@pytest.mark.parametrize("label", ["attention", "token knockout", "random map", "integrated gradients"])
def test_sizes_that_are_none_are_refused(unchecked, label):
    with pytest.raises(ModelError, match="batch_size, the samples in one pass"):
        CHEAP[label](family("llava"), samples(), batch_size=0)


class Narrow:
    """Passes of more lines than `room` do not fit in memory; a hook for a model's forward."""

    def __init__(self, room: int) -> None:
        self.room, self.refused = room, 0

    def __call__(self, module: Any, arguments: Any, named: dict[str, Any]) -> None:
        if len(named["input_ids"]) > self.room:
            self.refused += 1
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.by_default(label=("attention gradient", "token knockout"))
@pytest.mark.parametrize(
    ("label", "room"),
    [
        ("attention gradient", 1),
        ("token knockout", 3),
        ("embedding replacement", 1),
        ("occlusion", 2),
        ("activation patching", 1),
    ],
)
def test_samples_or_variants_that_do_not_fit_are_halved(monkeypatch, label, room):
    """Of indicators that run samples one by one, the variants of a sample."""
    monkeypatch.setattr(out_of_memory, "free_memory", lambda: None)  # takes 50 ms
    mllm, indicator, own = family("llava"), CHEAP[label], samples()[:2]
    whole = indicator(mllm, own)
    hook = Narrow(room)
    handle = mllm.hf.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        found = indicator(mllm, own)
        assert hook.refused
        with pytest.raises(torch.cuda.OutOfMemoryError):
            indicator(mllm.at_once(), own)
        hook.room = 0
        with pytest.raises(ModelError, match="does not fit in memory even alone"):
            indicator(mllm, own)
    finally:
        handle.remove()
    for one, same in zip(found, whole, strict=True):
        np.testing.assert_allclose(one.values, same.values, atol=1e-5, rtol=1e-4)
