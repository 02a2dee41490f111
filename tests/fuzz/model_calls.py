"""Public functions that run a model on one sample, or know where its tokens are, for `trials`."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

import interp
from interp import conformance, indicators, methods, models
from interp.conformance.tiny import tiny
from interp.tracing import Cost, word_lenses
from tests.fuzz.input_kinds import scratch
from tests.fuzz.masks import model_masks
from tests.fuzz.trials import Call, called_back, given
from tests.fuzz.value_calls import SITE, sample

__all__ = ["model_calls", "opened"]


@cache
def opened() -> Any:
    """A tiny model with what it makes of a sample."""
    mllm = interp.wrap(*tiny("llava"))
    one = sample()
    batch = mllm.encode([one])
    maps = indicators.Attention()(mllm, [one])
    return SimpleNamespace(mllm=mllm, sample=one, batch=batch, tokens=batch.tokens[0], maps=maps)


@cache
def _direction() -> interp.SteeringVector:
    one = opened().sample
    return interp.steering_vector(opened().mllm, [one], [one], layers=[0])


def model_calls() -> dict[str, list[Call]]:
    """What runs a model on one sample, by kind."""
    at = opened()
    return {
        "models": _models(),
        "tokens": [*_tokens(), *_stored()],
        "indicators on a model": _indicators(),
        "masks on a model": model_masks(at.mllm, at.sample, at.tokens),
        "methods on a model": _methods(),
    }


def _models() -> list[Call]:
    """A model's own methods, what takes a model, and what opens one."""
    return [*_passes(), *_functions(), *_opening()]


def _passes() -> list[Call]:
    """An opened model, asked to run or to encode."""
    at = opened()
    mllm, one = at.mllm, given(samples=[at.sample])
    return [
        Call("Mllm.trace", mllm.trace, given(samples=[at.sample], seed=0)),
        Call("Mllm.answers", mllm.answers, given(samples=[at.sample], seed=0)),
        Call("Mllm.score", mllm.score, one),
        Call("Mllm.encode", mllm.encode, one),
        Call("Mllm.reasoned", mllm.reasoned, given(samples=[at.sample], thoughts=["it is red ."])),
        Call("Mllm.prefix", mllm.prefix, one),
        Call("Mllm.embeddings", mllm.embeddings, given(batch=at.batch)),
        Call("Mllm.using", mllm.using, given(executor="tap")),
        Call(
            "Mllm.sharing",
            lambda prefixes: mllm.sharing(prefixes).trace([at.sample]),
            given(prefixes=None),
        ),
        Call("Mllm.tap", _tapped, dict),
    ]


def _functions() -> list[Call]:
    """Functions that take a model and samples."""
    at = opened()
    mllm, on_model = at.mllm, given(mllm=at.mllm, samples=[at.sample])
    return [
        Call(
            "read_words",
            word_lenses.read_words,
            given(mllm=mllm, samples=[at.sample], words=["red"], lens="contextual", top=1),
        ),
        Call("sinks", interp.sinks, on_model),
        Call("head_means", interp.head_means, given(mllm=mllm, samples=[at.sample], site=SITE)),
        Call(
            "steering_vector",
            interp.steering_vector,
            given(mllm=mllm, positive=[at.sample], negative=[at.sample], layers=[0]),
        ),
        Call("look", interp.look, given(mllm=mllm, image=at.sample)),
    ]


def _opening() -> list[Call]:
    """What finds, opens or checks a model."""
    mllm = opened().mllm
    return [
        Call("load", interp.load, given(model="organism")),
        Call("wrap", interp.wrap, lambda: dict(zip(("hf_model", "processor"), _hf(), strict=True))),
        Call("models.find", models.find, given(config=mllm.hf.config)),
        Call("tiny", tiny, given(family="llava")),
        Call(
            "conformance.check",
            conformance.check,
            given(model="llava", checks=["image tokens"], probes=1),
            called_back("progress")
            | called_back("finished")
            | {"checks=None"},  # None means all, which takes long
        ),
    ]


def _tokens() -> list[Call]:
    """Where tokens are."""
    tokens = opened().tokens
    return [
        Call(
            "TokenMap",
            interp.TokenMap,
            lambda: {n: getattr(tokens, n) for n in tokens.__dataclass_fields__},
        ),
        Call("TokenMap.positions", tokens.positions, given(group="last")),
        Call("TokenMap.mask", tokens.mask, given(boxes=[(1, 2, 9, 9)])),
        Call("TokenMap.mask of masks", tokens.mask, given(boxes=[interp.Mask(np.eye(96, dtype=bool))])),
        Call("TokenMap.millimetres", tokens.millimetres, given(pixel_mm=0.7)),
        Call("TokenMap.coverage", tokens.coverage, given(boxes=[(1, 2, 9, 9)])),
        Call("TokenMap.lost_area", tokens.lost_area, given(boxes=[(1, 2, 9, 9)])),
        Call("TokenMap.to_pixels", tokens.to_pixels, given(values=np.ones(tokens.n))),
    ]


def _stored() -> list[Call]:
    """Maps, directions and traces, and what reads them from a file."""
    at = opened()
    mllm = at.mllm
    return [
        Call("Maps", indicators.Maps, given(arrays=at.maps.arrays, tokens=at.maps.tokens, cost=Cost())),
        Call("Maps.save", at.maps.save, given(path="saved-maps")),
        Call(
            "load_maps",
            interp.load_maps,
            lambda: {"path": at.maps.save(scratch() / "saved-maps.safetensors")},
        ),
        Call(
            "load_steering_vector",
            interp.load_steering_vector,
            lambda: {"path": _direction().save(scratch() / "saved-direction.safetensors")},
        ),
        Call(
            "load_trace",
            interp.load_trace,
            lambda: {"path": mllm.trace([at.sample]).save(scratch() / "saved-trace.safetensors")},
        ),
    ]


def _indicators() -> list[Call]:
    """Indicators, called."""
    at = opened()
    mllm, tokens = at.mllm, at.tokens
    on_model = given(mllm=at.mllm, samples=[at.sample])
    maps = indicators.Attention()
    return [
        Call("Attention(…)()", maps.__call__, on_model),
        Call("RandomMap()()", indicators.RandomMap().__call__, on_model),
        Call("AttentionGradient()()", indicators.AttentionGradient().__call__, on_model),
        Call("RandomMasks()()", indicators.RandomMasks(n=2).__call__, on_model),
        Call("TokenKnockout()()", indicators.TokenKnockout().__call__, on_model),
        Call(
            "HideTokens().scores",
            indicators.HideTokens().scores,
            given(mllm=mllm, sample=at.sample, masks=np.ones((1, tokens.n), bool)),
        ),
    ]


def _methods() -> list[Call]:
    """Methods, asked to answer."""
    at = opened()
    on_model = given(mllm=at.mllm, samples=[at.sample])
    refine = methods.VGRefine(heads=[(0, 1)])
    return [
        Call("Plain().answer", methods.Plain().answer, on_model),
        Call("VGRefine().answer", refine.answer, on_model),
        Call("VGRefine().triage", refine.triage, on_model),
        Call("VGRefine().head_maps", refine.head_maps, on_model),
        Call("PAI().answer", methods.PAI().answer, on_model),
        Call("AdaptVis().answer", methods.AdaptVis().answer, on_model),
        Call("ViCrop().crop", methods.ViCrop().crop, on_model),
    ]


def _hf() -> tuple[Any, Any]:
    return tiny("llava")


def _tapped(queries: Any = "last", layers: Any = "all", batch: Any = None) -> None:
    with opened().mllm.tap(queries, layers=layers, batch=batch):
        pass
