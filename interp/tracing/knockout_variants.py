"""Many edited passes over one prompt: what lies before the first edit is run once and taken up again.

A knockout in layer ℓ leaves everything below ℓ as it was. The image's keys and values (a `Prefix`) and what each
layer gave in one unedited pass are kept; an edited pass then starts at its lowest edited layer, and several run side
by side as rows of one batch that share the kept tensors. The model's own code runs: a layer that is passed over gives
again what it gave, so masks, positions, soft caps and the head are the family's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import EditError, ModelError
from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.tracing.cost import Cost
from interp.tracing.edits import Knockout
from interp.tracing.encode import PER_TOKEN, Batch
from interp.tracing.plan import resolve
from interp.tracing.prefix import Prefix
from interp.tracing.prefix_pass import make_prefix
from interp.tracing.reads import Rows
from interp.tracing.site import Site, positions
from interp.tracing.trace import trace as traced
from interp.tracing.wrapped import WrappedModel

__all__ = ["Cut", "Passes", "Stem"]

QUERIES, KEYS = "cut queries", "cut keys"
FIRST_ROW = Rows(Site(layers=[0], heads=[0], queries=positions([0]), keys=positions([0])))
"""A read that no prefix can answer, so that the whole prompt runs."""


@dataclass(frozen=True)
class Cut:
    """Keys hidden from queries of one sample in some layers, in unpadded positions. No `heads`: every head."""

    layers: tuple[int, ...]
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    heads: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.layers or not self.queries or not self.keys or self.heads == ():
            raise EditError(f"a cut needs layers, queries and keys, and heads or None for all; got {self!r}.")


@dataclass(frozen=True, eq=False)
class Passes:
    """Logits after the last prompt token, one row per cut, and what they cost.

    `layer_tokens` counts token positions times the decoder layers that ran on them, padding included.
    """

    logits: Float[np.ndarray, "cut token_id"]
    cost: Cost
    layer_tokens: int


@dataclass(frozen=True, eq=False)
class Stem:
    """One sample's prompt, ready for passes under cuts. Made by `Stem.of`; one at a time per model.

    Attributes:
        mllm: The model. Under its "source" executor every pass runs all layers.
        batch: The sample, encoded alone.
        prefix: Everything up to its last image token; None where a prefix is not exact.
        cost: What encoding and the prefix took.
    """

    mllm: WrappedModel
    batch: Batch
    prefix: Prefix | None
    cost: Cost

    @classmethod
    def of(cls, mllm: WrappedModel, sample: Sample, prompt: Prompt = PAPER_PROMPT) -> Stem:
        """The stem of a sample.

        Raises:
            SampleError, PromptError, ImageTokenMismatch: As in `Mllm.encode`.
            ModelError: A sample without image tokens.
        """
        found = make_prefix(mllm, [sample], prompt)
        serves = found.serves(found.batch, mllm.visibility)
        return cls(mllm, found.batch, found if serves else None, found.cost)

    @property
    def tokens(self) -> Any:
        """Where the sample's tokens are."""
        return self.batch.tokens[0]

    @property
    def n_prefix(self) -> int:
        """Tokens that are not run again; 0 without a prefix."""
        return 0 if self.prefix is None else self.prefix.lengths[0]

    @cached_property
    def plain(self) -> Passes:
        """The unedited pass: one row of logits."""
        kept = self._kept(whole=self.prefix is None)
        layer_tokens = self.mllm.n_layers * (self.n_prefix + kept.n_tokens)
        return Passes(kept.logits, self.cost + kept.cost, layer_tokens)

    def refusal(self, cut: Cut, mode: Literal["renormalise", "zero"] = "renormalise") -> str | None:
        """Why the cut cannot be made, in the words of the trace; None when it can."""
        if mode == "zero" or not set(cut.queries) & set(cut.keys):
            return None  # a row always sees itself, so it keeps a key
        edits, tokens = _edits([cut], mode), [_with_places(self.tokens, cut, _groups([cut]))]
        try:
            resolve(
                [],
                edits,
                tokens,
                n_layers=self.mllm.n_layers,
                n_heads=self.mllm.n_heads,
                visibility=self.mllm.visibility,
            )
        except EditError as error:
            return str(error)
        return None

    def hides(self, cut: Cut) -> bool:
        """Whether any of the cut's queries could see any of its keys at all."""
        horizon = self.mllm.visibility.horizon(self.tokens)
        return bool((horizon[list(cut.queries)] >= min(cut.keys)).any())

    def run(
        self, cuts: Sequence[Cut], *, mode: Literal["renormalise", "zero"] = "renormalise", batch: int = 32
    ) -> Passes:
        """The logits under each cut alone, in the order given.

        Args:
            cuts: What to hide, one pass each.
            mode: As in `Knockout`.
            batch: Passes side by side at most; those of one batch start within an eighth of the layers.

        Raises:
            EditError: A row left without keys under "renormalise".
            SiteError: A layer or head the model does not have.
        """
        logits = np.empty((len(cuts), self.plain.logits.shape[1]), np.float32)
        cost, layer_tokens = Cost(), 0
        for whole in (False, True):
            own = [i for i, cut in enumerate(cuts) if self._inside(cut) is whole]
            lowest = {i: min(cuts[i].layers) for i in own}
            for chosen in _batches(lowest, batch, self.mllm.n_layers // 8):
                found = self._pass([cuts[i] for i in chosen], mode, whole)
                logits[chosen] = found.logits
                cost, layer_tokens = cost + found.cost, layer_tokens + found.layer_tokens
        return Passes(logits, cost, layer_tokens)

    def _inside(self, cut: Cut) -> bool:
        """Whether rows change that a prefix would hold, so that the whole prompt has to run."""
        return self.prefix is None or bool(min(cut.queries) < self.n_prefix)

    def _pass(self, cuts: Sequence[Cut], mode: Any, whole: bool) -> Passes:
        kept = self._kept(whole=whole)
        start = min(min(cut.layers) for cut in cuts) if self.mllm.executor == "tap" else 0
        groups = _groups(cuts)
        rows = _repeated(self.batch, [_with_places(self.tokens, cut, groups) for cut in cuts], images=whole)
        given = (
            rows
            if whole or self.prefix is None
            else replace(self.prefix, batch=rows, lengths=(self.n_prefix,) * len(cuts))
        )
        with _taken_up(self.mllm.adapter.layers(self.mllm.hf), kept.outputs, start):
            trace = traced(self.mllm, given, edits=_edits(cuts, mode))
        ran = (self.mllm.n_layers - start) * trace.cost.tokens
        return Passes(trace.logits.values, trace.cost, ran)

    def _kept(self, *, whole: bool) -> _Kept:
        """What each layer gives in the unedited pass over the whole prompt, or over what follows the prefix."""
        if whole not in self._passes:
            given = self.batch if whole or self.prefix is None else self.prefix
            with _recorded(self.mllm.adapter.layers(self.mllm.hf)) as outputs:
                trace = traced(self.mllm, given, reads=[FIRST_ROW] if whole else [])
            self._passes[whole] = _Kept(tuple(outputs), trace.logits.values, trace.cost, trace.cost.tokens)
        return self._passes[whole]

    @cached_property
    def _passes(self) -> dict[bool, _Kept]:
        return {}


@dataclass(frozen=True, eq=False)
class _Kept:
    """An unedited pass: each layer's output, the logits, the cost, the token positions that ran."""

    outputs: tuple[Any, ...]
    logits: Float[np.ndarray, "one token_id"]
    cost: Cost
    n_tokens: int


def _batches(lowest: Mapping[int, int], size: int, spread: int) -> Iterator[list[int]]:
    """The keys in the order of their values, at most `size` together and no further apart than `spread`.

    A batch starts at its lowest layer, so the layers above that run for nothing where another cut starts higher.
    """
    chosen: list[int] = []
    for i in sorted(lowest, key=lambda i: lowest[i]):
        if chosen and (len(chosen) == size or lowest[i] - lowest[chosen[0]] > spread):
            yield chosen
            chosen = []
        chosen.append(i)
    if chosen:
        yield chosen


Groups = dict[tuple[int, tuple[int, ...] | None], int]
"""(layer, heads) → the number of the knockout that makes these cuts."""


def _groups(cuts: Sequence[Cut]) -> Groups:
    found = {(layer, cut.heads): 0 for cut in cuts for layer in cut.layers}
    return {place: number for number, place in enumerate(found)}


def _edits(cuts: Sequence[Cut], mode: Literal["renormalise", "zero"]) -> list[Knockout]:
    """One knockout per layer and choice of heads; each row of the batch names its own queries and keys."""
    return [
        Knockout(
            Site(
                layers=[layer],
                heads="all" if heads is None else heads,
                queries=QUERIES,
                keys=f"{KEYS} {number}",
            ),
            mode,
        )
        for (layer, heads), number in _groups(cuts).items()
    ]


def _with_places(tokens: Any, cut: Cut, groups: Groups) -> Any:
    """The sample's tokens with the cut's queries and keys as groups; no keys where the row is left alone."""
    mine = {groups[layer, cut.heads] for layer in cut.layers}
    keys = {
        f"{KEYS} {number}": np.array(cut.keys if number in mine else (), int) for number in groups.values()
    }
    return replace(tokens, spans={**tokens.spans, QUERIES: np.array(cut.queries, int), **keys})


def _repeated(batch: Batch, tokens: Sequence[Any], *, images: bool) -> Batch:
    """A batch of one sample as several equal rows; with its images only where they will be looked at again."""
    n = len(tokens)
    inputs = {name: value.expand(n, -1) for name, value in batch.inputs.items() if name in PER_TOKEN}
    if images:
        inputs |= {
            name: torch.cat([value] * n)
            for name, value in batch.inputs.items()
            if name not in (*PER_TOKEN, "position_ids")
        }
    positions = batch.positions.expand(*batch.positions.shape[:-2], n, -1)
    return replace(
        batch,
        inputs=inputs | ({"position_ids": positions} if "position_ids" in batch.inputs else {}),
        positions=positions,
        tokens=tuple(tokens),
        pad=np.repeat(batch.pad, n),
        prompts=batch.prompts * n,
        samples=batch.samples * n,
        singles=batch.singles * n,
    )


@contextmanager
def _recorded(layers: Sequence[nn.Module]) -> Iterator[list[Any]]:
    """What each layer gives during the block, in order."""
    outputs: list[Any] = []
    hooks = [layer.register_forward_hook(lambda *call: outputs.append(_copied(call[2]))) for layer in layers]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _taken_up(layers: Sequence[nn.Module], outputs: Sequence[Any], start: int) -> Iterator[None]:
    """For the block, layers below `start` give again what they gave, once for every row of the batch."""
    passed = layers[:start]
    before = [layer.__dict__.get("forward") for layer in passed]
    try:
        for layer, output in zip(passed, outputs, strict=False):
            layer.__dict__["forward"] = _Again(output)
        yield
    finally:
        for layer, forward in zip(passed, before, strict=True):
            layer.__dict__.pop("forward", None)
            if forward is not None:
                layer.__dict__["forward"] = forward


@dataclass(frozen=True, eq=False)
class _Again:
    """Stands for a layer's forward and gives a kept output, repeated for every row."""

    output: Any

    def __call__(self, hidden: Tensor, *_: Any, **__: Any) -> Any:
        kept = self.output if isinstance(self.output, Tensor) else self.output[0]
        if hidden.shape[1:] != kept.shape[1:]:
            raise ModelError(
                f"expected a pass over rows of shape {tuple(kept.shape[1:])}, as was kept; got "
                f"{tuple(hidden.shape[1:])}. A stem's passes all go over its own prompt."
            )
        return _copied(self.output, len(hidden))


def _copied(output: Any, n: int = 1) -> Any:
    """A copy of a layer's output as n equal rows; models may write into what a layer gives."""
    if isinstance(output, Tensor):
        return output.expand(n, *output.shape[1:]).clone()
    return tuple(_copied(part, n) if isinstance(part, Tensor) else part for part in output)
