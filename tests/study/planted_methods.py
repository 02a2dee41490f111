"""A model whose every answer is known, and methods that change known answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import xarray as xr

from interp.errors import ImageTokenMismatch
from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.methods import Answer
from interp.study import Refinement
from interp.tracing import Cost, Knockout, Site
from tests.study.planted import WORDS, Model, samples, token_map

LIKELY, UNLIKELY = 0.6, 0.08
"""Probability of the word that is said, and of each of the five others."""
OTHER = {"left": "right", "right": "left", "yes": "no", "no": "yes", "A": "B", "B": "A"}


@dataclass(frozen=True)
class Answering(Model):
    """Says the sample's answer, except for those in `wrong`; its attention is even, and 3 at token 0 under edits."""

    wrong: tuple[str, ...] = ()
    traced: list[tuple[str, ...]] = field(default_factory=list, compare=False)

    def encode(self, found: Sequence[Sample], prompt: Prompt = PAPER_PROMPT) -> Any:
        return SimpleNamespace(tokens=tuple(token_map(sample) for sample in found))

    def says(self, sample: Sample) -> str:
        answer = str(sample.answer or "yes")
        if sample.options:
            answer = "AB"[sample.options.index(answer)]
        return OTHER[answer] if sample.id in self.wrong else answer

    def trace(
        self,
        found: Sequence[Sample],
        prompt: Prompt = PAPER_PROMPT,
        reads: Sequence[Any] = (),
        edits: Sequence[Any] = (),
        generate: int = 0,
    ) -> Any:
        """As `Mllm.trace`, for what `Plain` and a re-read ask of it."""
        if generate:
            self.traced.append(tuple(sample.id for sample in found))
        words = [self.says(sample) for sample in found]
        weights = np.ones(20)
        if edits:
            weights[0] = 3.0
        rows = [SimpleNamespace(rows=xr.DataArray(weights[None, None])) for _ in found]
        logits = xr.DataArray(np.stack([logits_of(word) for word in words]), dims=("sample", "token_id"))
        return _Trace(rows, answers=words, logits=logits, cost=Cost(1.0, 1000, 2, 0, 100))


@dataclass(frozen=True)
class Said:
    """What stands for the plain model: `interp.methods.Plain` asks an `Mllm`."""

    name: ClassVar[str] = "Plain"

    def answer(
        self,
        mllm: Any,
        found: Sequence[Sample],
        *,
        prompt: Prompt = PAPER_PROMPT,
        max_new_tokens: int = 16,
    ) -> list[Answer]:
        trace = mllm.trace(found, prompt=prompt, generate=max_new_tokens)
        pairs = zip(trace.answers, trace.logits.values, strict=True)
        return [Answer(text, logits, trace.cost) for text, logits in pairs]

    def to_dict(self) -> dict[str, Any]:
        return {"method": self.name}


class _Trace(list):
    """A list of samples' rows, with what belongs to all of them."""

    def __init__(self, rows: Sequence[Any], **fields: Any) -> None:
        super().__init__(rows)
        self.__dict__.update(fields)


def logits_of(word: str, *, ruled_out: str = "") -> np.ndarray:
    shares = np.array([LIKELY if own == word else UNLIKELY for own in WORDS])
    shares[[own == ruled_out for own in WORDS]] = 0.0
    with np.errstate(divide="ignore"):
        return np.log(shares).astype(np.float32)


@dataclass(frozen=True)
class Swap:
    """Turns the answers of the samples named; costs three seconds and five passes a batch."""

    changes: tuple[str, ...] = ()
    rules_out: tuple[str, ...] = ()
    fails: tuple[str, ...] = ()
    strength: float = 1.0
    heads: Any = ((0, 0),)
    name: ClassVar[str] = "Swap"

    def answer(
        self,
        mllm: Any,
        found: Sequence[Sample],
        *,
        prompt: Prompt = PAPER_PROMPT,
        max_new_tokens: int = 16,
    ) -> list[Answer]:
        if any(sample.id in self.fails for sample in found):
            raise ImageTokenMismatch("the prompt holds 19 image tokens but the grid is 4×5 = 20.")
        return [self._answer(mllm, sample) for sample in found]

    def _answer(self, mllm: Answering, sample: Sample) -> Answer:
        plain = mllm.says(sample)
        word = OTHER[plain] if sample.id in self.changes else plain
        out = str(sample.answer) if sample.id in self.rules_out else ""
        tokens = token_map(sample)
        inside = tokens.mask(sample.boxes) if sample.boxes else np.zeros(20, bool)
        details: Mapping[str, Any] = {
            "map": 1.0 + inside,
            "kept": np.arange(20) < 5,
            "crop": (10, 10, 60, 50),
            "confidence": 0.25,
            "weight": 1.5,
        }
        return Answer(word, logits_of(word, ruled_out=out), Cost(3.0, 2000, 5, 0, 150), details)

    def to_dict(self) -> dict[str, Any]:
        return {
            "method": self.name,
            "changes": list(self.changes),
            "rules_out": list(self.rules_out),
            "fails": list(self.fails),
            "strength": self.strength,
            "heads": [list(pair) for pair in self.heads],
        }


@dataclass(frozen=True)
class Looking(Swap):
    """A `Swap` whose edits can be repeated."""

    name: ClassVar[str] = "Looking"

    def repeat(self, mllm: Any, answers: Sequence[Answer]) -> list[Any]:
        return [Knockout(Site(keys="image"))]


@pytest.fixture(autouse=True)
def planted_plain(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The plain model of a `Refinement` is `Said`, but for tests marked by a model of their own."""
    if "organism" not in request.node.name:
        monkeypatch.setattr("interp.study.refinement.task.PLAIN", Said())


def named(*numbers: int) -> tuple[str, ...]:
    return tuple(f"s{number}" for number in numbers)


def refinement(**changes: Any) -> Refinement:
    base = Refinement(data=samples(), model=Answering(), method=Swap(), batch=2)
    return replace(base, **changes)
