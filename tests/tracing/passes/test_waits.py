"""How often the CPU waits for the device does not grow with layers, nor with samples where one wait serves all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

import interp.indicators as indicators
import tests.tiny as tiny
from interp.inputs.prompt import Target
from interp.tracing import (
    Boost,
    Knockout,
    PatchResidual,
    Residual,
    Rows,
    ScaleWeights,
    Site,
    wrap,
)
from tests.second_device import FIRST, WAITS, second_devices

READS = [Rows(Site(queries="last")), Residual("all", "last")]
EDITS = [
    Boost(Site(heads=[1], keys="image"), 0.4, steps="all"),
    ScaleWeights(Site(queries="after_image", keys="image"), 0.5),
]


def patched(mllm: Any, batch: Any) -> Any:
    stream = mllm.trace(batch, reads=[Residual([0], "last")])
    values = [sample.reads[0].values for sample in stream.samples]
    return mllm.trace(batch, edits=[PatchResidual([0], "last", values)])


WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "read": lambda mllm, batch: mllm.trace(batch, reads=READS),
    "edited": lambda mllm, batch: mllm.trace(batch, reads=READS, edits=EDITS, generate=3),
    "hidden": lambda mllm, batch: mllm.trace(batch, edits=[Knockout(Site(queries="all", keys="image"))]),
    "patched": patched,
    "prefix": lambda mllm, batch: mllm.trace(mllm.prefix(batch), reads=READS[:1]),
    "gradient": lambda mllm, batch: indicators.AttentionGradient()(mllm, batch),
    "scored": lambda mllm, batch: mllm.score(batch, Target("yes")),
}


@cache
def waits(layers: int, way: str, n: int = 2) -> Counter[str]:
    """The waits of a way on a model of so many layers, encoding left out."""
    with second_devices():
        mllm = wrap(tiny.llava(layers=layers).to(FIRST), tiny.processor())
        batch = mllm.encode(tiny.samples()[:n])
        WAYS[way](mllm, batch)  # what is made once for a device is made
        WAITS.clear()
        WAYS[way](mllm, batch)
        return Counter(WAITS)


@pytest.mark.by_default(way=["edited", "gradient"])
@pytest.mark.parametrize("way", WAYS)
def test_more_layers_make_no_more_waits(way):
    assert waits(2, way) == waits(3, way)


def test_more_samples_make_no_more_waits_where_one_serves_all():
    assert waits(2, "edited", 2) == waits(2, "edited", 3)


def test_a_knockout_is_looked_at_once_for_all_layers():
    assert waits(2, "hidden", 1) == waits(3, "hidden", 1)


def test_a_wait_is_noticed():
    with second_devices():
        WAITS.clear()
        values = tiny.llava().lm_head.weight.to(FIRST)
        assert WAITS == ["_to_copy.default"]
        float(values[0, 0])
        bool((values > 0).any())
        values[values > 0]
    assert WAITS[1:] == ["_local_scalar_dense.default", "_local_scalar_dense.default", "index.Tensor"]
