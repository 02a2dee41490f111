"""A model on two devices gives the numbers of the same model on one: see `tests.second_device`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.hooks import attach_align_device_hook_on_blocks

import interp.indicators as indicators
import tests.tiny as tiny
from interp.conformance.tiny import tiny as tiny_family
from interp.inputs.prompt import Target
from interp.inputs.sample import Sample
from interp.tracing import (
    Boost,
    Guide,
    Knockout,
    PatchResidual,
    PatchRows,
    Residual,
    Rows,
    ScaleWeights,
    Site,
    wrap,
)
from tests.second_device import FIRST, SECOND, second_devices

FAMILIES = ("llava", "qwen3_vl", "gemma3")
SAMPLES = tiny.uneven_samples()
ALL = Rows(Site(queries=("last", "question"), keys="all"))


def on_two_devices(hf: Any, layers: Any) -> Any:
    """The model with its upper layers and its head on the second device, as `device_map` and accelerate place it."""
    names = {module: name for name, module in hf.named_modules()}
    half = len(layers) // 2
    where = {names[layer]: FIRST if i < half else SECOND for i, layer in enumerate(layers)}
    for name in names.values():
        inside = any(one == name or one.startswith(f"{name}.") or not name for one in where)
        above = any(name.startswith(f"{one}.") for one in where)
        if not inside and not above:
            where[name] = SECOND if name == "lm_head" else FIRST
    for name, device in where.items():
        hf.get_submodule(name).to(device)
    skipped = getattr(hf, "_skip_keys_device_placement", None)
    attach_align_device_hook_on_blocks(
        hf, {"": FIRST, **where}, offload=dict.fromkeys(where, False), skip_keys=skipped
    )
    hf.hf_device_map = where
    return hf


@cache
def models(family: str) -> tuple[Any, Any]:
    """The family's tiny model on the CPU, and the same one on two devices."""
    plain = wrap(*tiny_family(family))
    hf, processor = tiny_family(family)
    with second_devices():
        spread = wrap(on_two_devices(hf, plain.adapter.layers(hf)), processor)
    return plain, spread


def read(mllm: Any) -> list[Any]:
    trace = mllm.trace(SAMPLES, reads=[ALL, Residual("all", "last")], generate=2)
    return [trace.logits, *(array for sample in trace.samples for array in sample.reads)]


def edited(mllm: Any) -> list[Any]:
    some = [
        Boost(Site(heads=[1], keys="image"), 0.4, steps="all"),
        Guide(Site(layers=[2]), 0.3),
        ScaleWeights(Site(heads=[(0, 1), (2, 0)], queries="after_image"), 0.5),
    ]
    hidden = [Knockout(Site(queries="after_image", keys="image"), "zero")]
    return [mllm.trace(SAMPLES, edits=edits, generate=2).logits for edits in (some, hidden)]


def patched(mllm: Any) -> list[Any]:
    first = SAMPLES[:1]
    reads = [Rows(Site(queries="last")), Residual("all", "last")]
    rows, stream = (np.asarray(one) for one in mllm.trace(first, reads=reads).samples[0].reads)
    edits = [
        PatchRows(Site(queries="last"), rows[..., ::-1].copy()),
        PatchResidual("all", "last", stream + 0.1),
    ]
    return [mllm.trace(first, edits=[edit]).logits for edit in edits]


def from_a_prefix(mllm: Any) -> list[Any]:
    again = Sample(SAMPLES[0].images[0], "what is there?")
    return [
        mllm.trace(mllm.prefix(SAMPLES), reads=[Rows(Site())], generate=2).logits,
        mllm.trace([SAMPLES[0], again, SAMPLES[1]]).logits,
        mllm.trace(mllm.prefix(SAMPLES), edits=[Knockout(Site(queries="after_image", heads=[0]))]).logits,
    ]


def scored(mllm: Any) -> list[Any]:
    return [mllm.score(SAMPLES, Target("yes no")).values]


def by_source(mllm: Any) -> list[Any]:
    other = mllm.using("source")
    trace = other.trace(SAMPLES, reads=[Rows(Site())], edits=[Boost(Site(heads=[0]), 0.3)])
    return [trace.logits, *(sample.rows for sample in trace.samples)]


def indicated(*chosen: Any) -> Callable[[Any], list[Any]]:
    def maps(mllm: Any) -> list[Any]:
        return [indicator(mllm, SAMPLES[:1])[0] for indicator in chosen]

    return maps


WAYS = {
    "read": read,
    "edited": edited,
    "patched": patched,
    "from a prefix": from_a_prefix,
    "scored": scored,
    "by source": by_source,
    "gradients": indicated(
        indicators.AttentionGradient(),
        indicators.AttributionPatching(queries="after_image"),
        indicators.InputGradient(),
    ),
    "rows of all layers": indicated(indicators.ValueWeightedAttention(), indicators.Rollout()),
    "variants": indicated(indicators.TokenKnockout(), indicators.EmbeddingReplacement()),
}


@pytest.mark.by_default(family=["llava"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_two_devices_give_the_numbers_of_one(family, way):
    plain, spread = models(family)
    expected = WAYS[way](plain)
    with second_devices():
        found = WAYS[way](spread)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=1e-5, rtol=1e-4)


def test_the_fingerprint_does_not_depend_on_the_devices():
    plain, spread = models("llava")
    with second_devices():
        assert spread.fingerprint == plain.fingerprint
        assert {device.index for device in spread.layer_devices} == {0, 1}


def test_tensors_of_two_devices_do_not_meet():
    """What the tests above rest on."""
    with second_devices():
        here, there = torch.ones(2, device=FIRST), torch.ones(2, device=SECOND)
        with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
            _ = here + there
        with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
            _ = torch.ones(2) + there
        assert (here + there.to(FIRST)).device == FIRST
        assert (there * torch.tensor(2.0))[torch.tensor([0])].tolist() == [2.0]
