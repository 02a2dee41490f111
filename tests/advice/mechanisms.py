# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of ablations, steering, features, circuits and contrasts. The calls reach this module as `me`."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import interp
from interp.conformance.tiny import tiny
from interp.conformance.tiny.one_grid import tiny_thinking
from interp.indicators import FeatureMap
from interp.report.feature_page import save_feature_page
from interp.study import Circuit, HeadRoles
from interp.study.probe_sweep.probes import fold_of
from interp.tracing import AblateFeature
from interp.tracing.circuits import EdgePass, _check_sum, check_layers
from interp.tracing.cost import Meter
from interp.tracing.derived.outlying_norms import sinks
from interp.tracing.passes.second_stream import _with_noise

HEADS: list[tuple[str, str, str]] = [
    ("interp.AblateHeads([(1, 3)])", "such as Site(heads=[(14, 3)])", "interp.AblateHeads(Site(heads=[(14, 3)]))"),
    ("interp.AblateHeads(Site(heads=[(1, 3)], keys='question'))", "Leave keys out", "interp.AblateHeads(Site(heads=[(1, 3)]))"),
    ("interp.AblateHeads(Site(heads=[(1, 3)], keys='question'))", "or hide single keys from a head with interp.Knockout(site)", "interp.Knockout(Site(heads=[(1, 3)], keys='question'))"),
    ("interp.AblateHeads(Site(tower='vision', queries='all'))", "interp.Knockout(Site(…, keys='all', tower='vision'), 'zero')", "mllm.trace([one], edits=[interp.Knockout(Site(heads=[(0, 1)], queries='all', keys='all', tower='vision'), 'zero')])"),
    ("interp.AblateHeads(SITE, by='mean')", "Get means with interp.head_means(mllm, samples, site)", "interp.AblateHeads(SITE, by='mean', means=interp.head_means(mllm, [one], SITE, progress=False))"),
    ("interp.AblateHeads(Site(queries='all'), steps='all')", '["all", "last"] for the whole prompt as well', "mllm.trace([one], edits=[interp.AblateHeads(Site(queries=['all', 'last']), steps='all')], generate=2)"),
    ("interp.AblateHeads(Site(queries='all'), steps='all')", 'or steps="prefill" for the prompt alone', "mllm.trace([one], edits=[interp.AblateHeads(Site(queries='all'), steps='prefill')], generate=2)"),
    ("mllm.trace([one], edits=[interp.AblateHeads(SITE, 'mean', np.ones((1, 3, 16)))])", "Get them with interp.head_means(mllm, samples, site)", "mllm.trace([one], edits=[interp.AblateHeads(SITE, 'mean', interp.head_means(mllm, [one], SITE, progress=False))])"),
    ("mllm.trace([one], edits=[interp.AblateHeads(SITE, 'mean', np.ones((1, 4, 5)))])", "Get them from the same model and layers", "mllm.trace([one], edits=[interp.AblateHeads(SITE, 'mean', interp.head_means(mllm, [one], SITE, progress=False))])"),
    ("interp.head_means(None, [one], SITE)", "takes a model of interp.load or interp.wrap", "interp.head_means(mllm, [one], SITE, progress=False)"),
    ("interp.head_means(me.of_two_sizes(), [one], Site(layers='all'), progress=False)", "Name layers with heads of one size", "interp.head_means(me.of_two_sizes(), [one], Site(layers=[0]), progress=False)"),
    ("me.roles('two').top('position', 2)", "Choose in the result of one study", "me.roles('one').top('position', 2)"),
    ("me.roles('one').top('position', 99)", "Take at most 12", "me.roles('one').top('position', 12)"),
]  # fmt: skip
STREAM: list[tuple[str, str, str]] = [
    ("mllm.trace([one], edits=[interp.AddResidual([0], 'last', np.ones((2, 64)))])", "Give one vector, (hidden,)", "mllm.trace([one], edits=[interp.AddResidual([0], 'last', np.ones(64))])"),
    ("mllm.trace([one], edits=[interp.AddResidual([0], 'last', np.ones((2, 64)))])", "or one for each layer, (layer, hidden)", "mllm.trace([one], edits=[interp.AddResidual([0, 1], 'last', np.ones((2, 64)))])"),
    ("interp.steering_vector(None, [one], [one])", "takes a model of interp.load or interp.wrap", "interp.steering_vector(mllm, [one], [TWO.replace(images=TWO.images[:1], question='what?')], progress=False)"),
    ("me.sinks(None, [one])", "takes a model of interp.load or interp.wrap", "me.sinks(mllm, [one], progress=False)"),
    ("me.folds(['a', 'a'], ['x', 'y'])", "Give more samples", "me.folds(['a', 'a', 'b', 'b'], ['x', 'y', 'z', 'w'])"),
    ("me.folds(['a', 'b', 'c'], ['x', 'y', 'z'])", "a target that recurs", "me.folds(['a', 'b', 'a'], ['x', 'y', 'z'])"),
    ("me.folds(['a', 'b', 'a'], ['x', 'y', 'z'], 5)", "or fewer folds", "me.folds(['a', 'b', 'a'], ['x', 'y', 'z'], 2)"),
    ("mllm.trace([one], decoding=me.decoding(interp.ClinicalContrast({'x': {'Edema': 0.9}})), generate=1)", "findings={sample.id: {label: probability}}.", "mllm.trace([one], decoding=me.decoding(interp.ClinicalContrast(findings={one.id: {'Edema': 0.9}})), generate=1)"),
    ("interp.Contrast(against='noise')", "or an interp.NoisedImage", "[interp.Contrast(against=each) for each in ('no image', interp.NoisedImage())]"),
    ("me.thinking().trace(me.thinking().reasoned([one], ['it is red']), decoding=me.decoding(interp.ClinicalContrast({one.id: {'Edema': 0.9}})), generate=1)", "Use a ClinicalContrast on samples without a given thought", "me.thinking().trace([one], decoding=me.decoding(interp.ClinicalContrast({one.id: {'Edema': 0.9}})), generate=1)"),
    ("me.noised(without='pixel_values')", "Use Contrast() against the prompt without its image", "mllm.trace([one], decoding=me.decoding(interp.Contrast()), generate=1)"),
]  # fmt: skip
FEATURES: list[tuple[str, str, str]] = [
    ("me.FeatureMap(5, 0)", "as interp.load_features(path) gives them", "me.FeatureMap(interp.load_features(me.saved()), 0)"),
    ("me.AblateFeature(5, 0)", "as interp.load_features(path) gives them", "me.AblateFeature(interp.load_features(me.saved()), 0)"),
    ("me.features().read(None, [one])", "a model of interp.load or interp.wrap", "me.features().read(mllm, [one], progress=False)"),
    ("me.features(normalize_activations='layer_norm').decode(torch_ones(20))", "Write decode(activations, stream)", "me.features(normalize_activations='layer_norm').decode(torch_ones(20), torch_ones(64))"),
    ("me.with_k('relu')", "Leave it out", "me.with_k('relu', None)"),
    ("me.with_k('topk', None)", "Give it", "me.with_k('topk')"),
    ("interp.load_features(me.new())", "Give the folder of one autoencoder", "interp.load_features(me.saved())"),
    ("interp.load_features(me.new())", "or one .safetensors file", "interp.load_features(me.saved() / 'sae_weights.safetensors')"),
    ("interp.load_features(me.saved(metadata={}))", "Write load_features(path, layer=…)", "interp.load_features(me.saved(metadata={}), layer=1)"),
    ("interp.load_features(me.saved(architecture='topk'))", "Write load_features(path, k=…)", "interp.load_features(me.saved(architecture='topk'), k=5)"),
    ("interp.load_features(me.without_settings())", "Put SAELens' cfg.json beside it", "interp.load_features(me.saved())"),
    ("interp.load_features(me.pickled())", "safetensors.torch.save_file({name: t.contiguous() for name, t in torch.load(path, weights_only=True).items()}", "interp.load_features(me.rewritten(me.pickled()), k=5)"),
    ("me.page('last')", 'Read positions="image"', "me.page('image')"),
]  # fmt: skip
CIRCUITS: list[tuple[str, str, str]] = [
    ("me.edges()", "Use images of the same size", "me.circuit('one')"),
    ("me.summed(0.5)", 'load the model with dtype="float32"', "me.summed(0.0)"),
    ("me.circuit('two').graph(3)", "Take the result of one study", "me.circuit('one').graph(3)"),
    ("me.edges_of('idefics2')", "Read or edit the latents", "interp.wrap(*tiny('idefics2')).trace([one], reads=[Rows(Site(keys='image'))])"),
    ("me.edges_of('idefics2')", "or use interp.indicators.Attention()", "interp.indicators.Attention()(interp.wrap(*tiny('idefics2')), [one])"),
    ("Circuit(data=D, graph='L01H05')", "as CircuitResult.graph(n) gives them", "Circuit(data=D, graph=me.circuit('one').graph(3))"),
    ("Circuit(data=D, graph='L01H05')", '("image", "L01H05")', 'Circuit(data=D, graph=[("image", "L01H05")])'),
]  # fmt: skip
# a call that fails, words of its message, a call that follows them
ROWS: list[tuple[str, str, str]] = [*HEADS, *STREAM, *FEATURES, *CIRCUITS]

SERVER = "tests/tracing/remote/test_remote.py::test_what_needs_the_weights_is_refused"
ELSEWHERE: dict[str, str] = {  # the beginning of a message: why no row follows it, or the test that does
    "circuits need the model on this machine": SERVER,
    "copying scores need the weights": SERVER,
    "head_means needs the model on this machine": SERVER,
    "on a server, a contrast is against": SERVER,
}


def names() -> dict[str, Any]:
    """What the calls use, beside the names of `tests/test_advice.py`."""
    return {"me": sys.modules[__name__], "torch_ones": torch.ones}


def new() -> Path:
    """A new folder."""
    return Path(tempfile.mkdtemp())


def decoding(contrast: Any) -> interp.Decoding:
    """Greedy decoding under a contrast."""
    return interp.Decoding(contrast=contrast)


@cache
def mllm() -> interp.Mllm:
    """A tiny model."""
    return interp.wrap(*tiny("llava"))


@cache
def thinking() -> interp.Mllm:
    """A tiny model that may think."""
    return interp.wrap(*tiny_thinking())


def picture(seed: int, height: int = 64) -> np.ndarray:
    """A picture of noise."""
    return np.random.default_rng(seed).integers(0, 255, (height, 80, 3), dtype=np.uint8)


def asked(seed: int, **fields: Any) -> interp.Sample:
    """A question about a picture."""
    return interp.Sample(picture(seed), "where is the nodule?", **fields)


def folds(labels: list[str], groups: list[str], n: int = 2) -> np.ndarray:
    """Folds of a probe."""
    return fold_of(labels, groups, n, 0)


# ---- heads ----


@cache
def of_two_sizes() -> interp.Mllm:
    """A model whose layers have heads of two sizes."""
    return interp.wrap(*tiny("gemma4"))


@cache
def roles(how: str) -> Any:
    """What heads do, of one set of samples or of two."""
    data = [asked(i, answer="left") for i in range(2)]
    study = HeadRoles(model=mllm(), data=data)
    both = interp.Grid(study, data={"a": data, "b": data[::-1]})
    return (study if how == "one" else both).run(new(), progress=False)


# ---- features ----


def weights(n: int = 20) -> dict[str, torch.Tensor]:
    """An autoencoder of random weights."""
    draw = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (64, n), "W_dec": (n, 64), "b_dec": (64,), "b_enc": (n,)}
    return {name: torch.randn(shape, generator=draw) / 4 for name, shape in shapes.items()}


def saved(**settings: Any) -> Path:
    """SAELens' files of an autoencoder."""
    folder = new()
    save_file(weights(), folder / "sae_weights.safetensors")
    own = {"architecture": "standard", "metadata": {"hook_name": "blocks.1.hook_resid_post"}}
    (folder / "cfg.json").write_text(json.dumps({**own, **settings}))
    return folder


def features(**settings: Any) -> Any:
    """Features of an autoencoder."""
    return interp.load_features(saved(**settings))


def with_k(activation: str, k: int | None = 5) -> Any:
    """Features made by hand."""
    w = weights()
    return interp.Features(w["W_enc"], w["b_enc"], w["W_dec"], w["b_dec"], 1, activation=activation, k=k)  # pyright: ignore[reportArgumentType]


def without_settings() -> Path:
    """An autoencoder's weights without what says what they are."""
    folder = saved()
    (folder / "cfg.json").unlink()
    return folder / "sae_weights.safetensors"


def pickled() -> Path:
    """Qwen-Scope's layout, as a pickle."""
    path = new() / "layer1.sae.pt"
    turned = {name: w.T if name.startswith("W") else w for name, w in weights().items()}
    torch.save(turned, path)
    return path


def rewritten(path: Path) -> Path:
    """The pickle as the message says to write it."""
    from safetensors.torch import save_file

    target = path.with_suffix(".safetensors")
    save_file({name: t.contiguous() for name, t in torch.load(path, weights_only=True).items()}, target)
    return target


def page(positions: str) -> Path:
    """The page of a feature that was read at these positions."""
    found = features().read(mllm(), [asked(0)], positions=positions, progress=False)
    return save_feature_page(found, 0, new() / "page.html")


# ---- circuits ----


def edges() -> Any:
    """The edges between pictures of two sizes, of a model whose number of tokens follows the size."""
    own = interp.wrap(*tiny("qwen2_vl"))
    pair = [own.encode([interp.Sample(picture(0, height), "where is it?")]) for height in (64, 300)]
    with Meter(own.device) as meter:
        return EdgePass.of(own, *pair, "image", meter)


def edges_of(family: str) -> None:
    """Checks that a family's layers can hold a circuit."""
    check_layers(interp.wrap(*tiny(family)))


def summed(error: float) -> None:
    """Checks nodes that add up to the model but for an error."""
    logits = torch.linspace(-1, 1, 8)
    _check_sum(logits + error, logits)


@cache
def circuit(how: str) -> Any:
    """A circuit of one set of samples or of two."""
    organism = interp.load("organism")
    natural = interp.data.bundled("natural")
    data = [natural[i] for i in (2, 9)]
    study = Circuit(model=organism, data=data, against="zero", sizes=[20], exact=1)
    both = interp.Grid(study, data={"a": data, "b": data[::-1]})
    return (study if how == "one" else both).run(new(), progress=False)


def noised(without: str) -> Any:
    """An encoded sample with noise on its pixels, of whose inputs one is missing."""
    (single,) = mllm().encode([asked(0)]).singles
    inputs = {name: value for name, value in single.inputs.items() if name != without}
    return _with_noise(replace(single, inputs=inputs), interp.NoisedImage(), "a")


__all__ = ["AblateFeature", "FeatureMap", "sinks"]
