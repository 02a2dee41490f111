"""A model and an indicator without weights: maps with a known share inside the box, a known answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray as xr

from interp.data import Samples
from interp.errors import ImageTokenMismatch
from interp.indicators import Maps
from interp.inputs.footprints import squash
from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.study import LayerSweep
from interp.tracing import Cost
from interp.tracing.layers.decoder_layers import Decoder

WORDS = ("yes", "no", "left", "right", "A", "B")
GRID = (4, 5)


class Tokenizer:
    """One token per word; a space in front makes no difference, as in a word-level vocabulary."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [WORDS.index(word) if word in WORDS else len(WORDS) for word in text.split()]

    def decode(self, tokens: list[int]) -> str:
        return " ".join((*WORDS, "")[token] for token in tokens)


@dataclass(frozen=True)
class Model:
    """What a study asks of a model."""

    fingerprint: str = "f" * 64
    family: str = "planted"
    n_layers: int = 3
    dtype: str = "torch.float32"
    device: str = "cpu"
    processor: Any = field(default_factory=lambda: SimpleNamespace(tokenizer=Tokenizer()))

    @property
    def decoder(self) -> Decoder:
        return Decoder(self.n_layers, getattr(self, "n_heads", 1))

    def encode(self) -> None:
        raise AssertionError("the planted indicator encodes nothing")


@dataclass(frozen=True)
class Planted:
    """Layer l's map is 1 everywhere and 1 + gain[l] where a footprint meets a box; answers "left"."""

    gain: tuple[float, ...] = (0.0, 3.0, 1.0)
    mismatch: str = ""
    nan: str = ""
    silent: str = ""
    bug: str = ""
    calls: list[tuple[str, ...]] = field(default_factory=list, compare=False)

    def __call__(self, mllm: Any, samples: Sequence[Sample], *, prompt: Prompt = PAPER_PROMPT) -> Maps:
        self.calls.append(tuple(sample.id for sample in samples))
        for sample in samples:
            sample.load()
            if sample.id == self.mismatch:
                raise ImageTokenMismatch("the prompt holds 19 image tokens but the grid is 4×5 = 20.")
            if sample.id == self.bug:
                raise ZeroDivisionError("a bug")
        tokens = tuple(token_map(sample) for sample in samples)
        maps = tuple(self._map(sample, found) for sample, found in zip(samples, tokens, strict=True))
        logits = np.tile(np.log([0.1, 0.1, 0.4, 0.2, 0.1, 0.1]), (len(samples), 1))
        return Maps(maps, tokens, Cost(0.5, 1000, 1, 0), xr.DataArray(logits, dims=("sample", "token_id")))

    def _map(self, sample: Sample, tokens: TokenMap) -> xr.DataArray:
        inside = tokens.mask(sample.boxes)
        values = 1 + np.array(self.gain)[:, None] * inside
        if sample.id == self.nan:
            values[1, 0] = np.nan
        if sample.id == self.silent:
            values[2] = 0
        return xr.DataArray(values, dims=("layer", "token"), coords={"layer": range(len(self.gain))})

    def to_dict(self) -> dict[str, Any]:
        return {"indicator": "planted", "gain": list(self.gain), "nan": self.nan, "silent": self.silent}


def token_map(sample: Sample) -> TokenMap:
    """A 4×5 grid over the whole image, after two text tokens."""
    found = squash(sample.sizes[0], GRID)
    n = GRID[0] * GRID[1]
    return TokenMap(
        np.arange(2, 2 + n), found.boxes, GRID, found.views, found.image, tuple(sample.sizes), n + 4
    )


def sample(number: int, **changes: Any) -> Sample:
    """A 100×80 picture, so that a token is 20×20 pixels; a box over two tokens moves with the number."""
    pixels = np.random.default_rng(number).integers(0, 255, (80, 100, 3), dtype=np.uint8)
    x, y = 20 * (number % 4), 20 * (number // 4 % 4)
    given = Sample(
        image=pixels,
        question=f"Which side is thing {number} on?",
        boxes=[(x, y, x + 40, y + 20)],
        answer=("left", "right")[number % 2],
        group=f"patient-{number // 2}",
        id=f"s{number}",
    )
    return given.replace(**changes) if changes else given


def samples(n: int = 12, name: str = "planted", start: int = 0) -> Samples:
    return Samples([sample(number) for number in range(start, start + n)], name)


def sweep(**changes: Any) -> LayerSweep:
    base = LayerSweep(data=samples(), model=Model(), indicator=Planted(), batch=2)
    return replace(base, **changes)
