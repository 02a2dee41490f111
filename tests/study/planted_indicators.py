"""A model whose answer rests on known tokens, indicators that know them or do not, and a way to take tokens away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import xarray as xr

from interp.data import Samples
from interp.errors import ImageTokenMismatch
from interp.indicators import CentrePrior, Maps, RandomMap
from interp.inputs.prompt import PAPER_PROMPT, Prompt, Target
from interp.inputs.sample import Sample
from interp.study import IndicatorComparison
from interp.tracing import Cost
from tests.study.planted import Model, sample, token_map

GREEDY = Target("greedy")


@dataclass(frozen=True)
class Truthful(Model):
    """Answers "left" from the tokens of the sample's boxes."""

    device: Any = field(default_factory=lambda: torch.device("cpu"))

    def encode(self, found: Any, prompt: Prompt = PAPER_PROMPT) -> Any:
        listed = [found] if isinstance(found, Sample) else list(found)
        return SimpleNamespace(tokens=tuple(token_map(one) for one in listed))

    def trace(self, found: Sequence[Sample], prompt: Prompt = PAPER_PROMPT, generate: int = 0) -> Any:
        logits = np.tile(np.log([0.1, 0.1, 0.4, 0.2, 0.1, 0.1]), (len(found), 1))
        return SimpleNamespace(
            tokens=self.encode(found).tokens,
            logits=xr.DataArray(logits, dims=("sample", "token_id")),
            answers=["left"] * len(found),
            cost=Cost(1.0, 1000, 1, 0, 100),
        )


@dataclass(frozen=True)
class Knowing:
    """1 in the box and 0 elsewhere, with a slope that orders all tokens; `shift` tokens off."""

    gain: float = 1.0
    shift: int = 0
    layers: int = 0
    good: int = 1
    fails: tuple[str, ...] = ()
    removal: Any = None
    calls: list[tuple[str, ...]] = field(default_factory=list, compare=False)

    def __call__(
        self, mllm: Any, samples: Sequence[Sample], *, prompt: Prompt = PAPER_PROMPT, target: Target = GREEDY
    ) -> Maps:
        self.calls.append(tuple(one.id for one in samples))
        if any(one.id in self.fails for one in samples):
            raise ImageTokenMismatch("the prompt holds 19 image tokens but the grid is 4×5 = 20.")
        tokens = tuple(token_map(one) for one in samples)
        maps = tuple(self._map(one, own.mask(one.boxes)) for one, own in zip(samples, tokens, strict=True))
        return Maps(maps, tokens, Cost(3.0, 2000, 2, 1, 150))

    def _map(self, one: Sample, inside: np.ndarray) -> xr.DataArray:
        values = self.gain * np.roll(inside, self.shift) + np.linspace(0.02, 0.01, len(inside))
        if not self.layers:
            return xr.DataArray(values.astype(np.float32), dims=("token",))
        lines = np.stack([values if layer == self.good else -values for layer in range(self.layers)])
        coords = {"layer": list(range(self.layers))}
        return xr.DataArray(lines.astype(np.float32), dims=("layer", "token"), coords=coords)

    def to_dict(self) -> dict[str, Any]:
        return {"indicator": "knowing", "gain": self.gain, "shift": self.shift, "layers": self.layers}


@dataclass(frozen=True)
class Take:
    """p = 0.1 + 0.8 · the share of the box's tokens that are left; `flat` samples do not care."""

    name: str = "take"
    flat: tuple[str, ...] = ()

    def scores(
        self, mllm: Any, one: Sample, masks: np.ndarray, *, prompt: Any, target: Any, batch: int
    ) -> Any:
        inside = token_map(one).mask(one.boxes)
        left = (inside & ~masks).sum(axis=1) / inside.sum()
        shares = np.ones(len(masks)) if one.id in self.flat else left
        return SimpleNamespace(
            values=np.log(0.1 + 0.8 * shares), plain=float(np.log(0.9)), cost=Cost(1, 10, 4, 0, 9)
        )

    def to_dict(self) -> dict[str, Any]:
        return {"removal": self.name, "flat": list(self.flat)}


def scenes(n: int = 24, name: str = "planted", split: str = "test", start: int = 0) -> Samples:
    """Samples of a group each, with a marker of 20 × 20 px in the lower right corner."""
    meta = {"split": split, "marker": [80, 60, 100, 80]}
    return Samples([sample(i, group=f"{split}-{i}", meta=meta) for i in range(start, start + n)], name)


def comparison(**changes: Any) -> IndicatorComparison:
    base = IndicatorComparison(
        data=scenes(),
        model=Truthful(),
        indicators={
            "knows": Knowing(),
            "off": Knowing(shift=7),
            "centre": CentrePrior(),
            "random": RandomMap(),
        },
        removals=(Take(),),
        steps=(0.1, 0.5),
        erased=(0.1, 0.5),
        randomised=(),
        batch=4,
    )
    return replace(base, **changes)
