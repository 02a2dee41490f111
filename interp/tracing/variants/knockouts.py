"""Many knockouts of one prompt: each pass starts at its lowest blocked layer and continues one unedited pass.

A knockout in layer ℓ changes nothing below ℓ, and no row before its first query. So the image's keys and values (a
`Prefix`) and each layer's input in one unedited pass are kept, and several knockouts run side by side on the kept
tensors (`KeptPass`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import EditError, SiteError
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing.attention.shared_keys import HiddenCells
from interp.tracing.cost import Cost, Meter
from interp.tracing.edits import Knockout
from interp.tracing.encoding.batch import Batch
from interp.tracing.layers.request import resolve
from interp.tracing.passes.prefix_pass import make_prefix
from interp.tracing.prefix import Prefix
from interp.tracing.site import Site, positions
from interp.tracing.trace import trace
from interp.tracing.variants.cached_pass import KeptPass
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["KnockoutVariant", "Knockouts", "VariantLogits"]

Mode = Literal["renormalise", "zero"]

_NONE: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True)
class KnockoutVariant:
    """Keys hidden from queries of one sample in some layers.

    Attributes:
        layers: The decoder layers, 0-based.
        queries: The rows, as unpadded positions.
        keys: The keys that are hidden, as unpadded positions.
        heads: The heads, 0-based; None for every head.

    Raises:
        EditError: No layers, queries, keys or heads.
    """

    layers: tuple[int, ...]
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    heads: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.layers or not self.queries or not self.keys or self.heads == ():
            raise EditError(
                f"a knockout variant needs layers, queries and keys, and heads or None for all; got {self!r}."
            )

    def edits(self, mode: Mode, linear: Mapping[int, int] = _NONE) -> list[Knockout]:
        """The knockout as edits of a trace: one for its attention layers, one for its gated DeltaNets.

        Short convolutions, to which `linear` gives no heads, are left out where there are other layers.

        Args:
            mode: As in `Knockout`.
            linear: The layers without a softmax → their numbers of heads.
        """
        heads = "all" if self.heads is None else self.heads
        rows = {"heads": heads, "queries": positions(self.queries), "keys": positions(self.keys)}
        able = [one for one in self.layers if linear.get(one, 1)] or list(self.layers)
        kinds = [[one for one in able if (one in linear) == kind] for kind in (False, True)]
        return [Knockout(Site(layers=own, **rows), mode) for own in kinds if own]


@dataclass(frozen=True, eq=False)
class VariantLogits:
    """Logits after the last prompt token, one row per variant, and what they cost.

    Attributes:
        logits: float32 (variant, token_id).
        cost: What the passes cost.
        layer_tokens: The number of token positions times the decoder layers that ran on them, padding included.
    """

    logits: Float[np.ndarray, "variant token_id"]
    cost: Cost
    layer_tokens: int


@dataclass(frozen=True, eq=False)
class Knockouts:
    """One sample's prompt, ready for passes under knockouts. Made by `Knockouts.of`; one at a time per model.

    Attributes:
        mllm: The model. Under its "source" executor each knockout is a trace of its own, which runs all layers; on an
            NDIF server each is a job.
        batch: The sample, encoded alone.
        prefix: The prefix up to the sample's last image token; None where a prefix is not exact.
        cost: What encoding and the prefix cost.
    """

    mllm: WrappedModel
    batch: Batch
    prefix: Prefix | None
    cost: Cost

    @classmethod
    def of(cls, mllm: WrappedModel, sample: Sample | Batch, prompt: Prompt | None = None) -> Knockouts:
        """The knockouts of a sample, or of a batch of one sample.

        Raises:
            SampleError, PromptError, ImageTokenMismatch: As in `Mllm.encode`.
            ModelError: A sample without image tokens.
        """
        found = make_prefix(mllm, sample, prompt)
        serves = found.serves(found.batch, mllm.visibility)
        return cls(mllm, found.batch, found if serves else None, found.cost)

    @property
    def tokens(self) -> TokenMap:
        """Where the sample's tokens are."""
        return self.batch.tokens[0]

    @property
    def n_prefix(self) -> int:
        """The number of tokens that are not run again; 0 without a prefix."""
        return 0 if self.prefix is None else self.prefix.lengths[0]

    @cached_property
    def plain(self) -> VariantLogits:
        """The unedited pass: one row of logits."""
        if self.mllm.executor == "source":
            found = self._traced(None, "renormalise")
        else:
            kept, cost = self._kept(whole=self.prefix is None)
            layer_tokens = self.mllm.n_layers * cost.tokens
            found = VariantLogits(kept.logits[:, -1].cpu().numpy(), cost, layer_tokens)
        before = self.mllm.n_layers * self.n_prefix
        return VariantLogits(found.logits, self.cost + found.cost, before + found.layer_tokens)

    def refusal(self, variant: KnockoutVariant, mode: Mode = "renormalise") -> str | None:
        """Why the knockout cannot be made, as the message of a trace's error; None where it can."""
        linear = self.mllm.linear_heads
        keeps = mode == "zero" or not set(variant.queries) & set(variant.keys)
        if keeps and not set(variant.layers) & linear.keys():
            return None  # a row always sees itself, so it keeps that key
        try:
            resolve(
                [],
                variant.edits(mode, linear),
                [self.tokens],
                n_layers=self.mllm.n_layers,
                n_heads=self.mllm.n_heads,
                linear=linear,
                cross=self.mllm.cross_layers,
                visibility=self.mllm.visibility,
            )
        except (EditError, SiteError) as error:
            return str(error)
        return None

    def hides(self, variant: KnockoutVariant) -> bool:
        """Whether any of the variant's queries can see any of its keys."""
        horizon = self.mllm.visibility.horizon(self.tokens)
        return bool((horizon[list(variant.queries)] >= min(variant.keys)).any())

    def run(
        self, variants: Sequence[KnockoutVariant], *, mode: Mode = "renormalise", batch: int = 32
    ) -> VariantLogits:
        """The logits under each knockout alone, in the order given.

        Args:
            variants: The knockouts.
            mode: As in `Knockout`.
            batch: The most knockouts that run side by side; those of one batch start within an eighth of the layers.

        Raises:
            EditError: A row without any key left under "renormalise".
            SiteError: A layer or head that the model does not have.
        """
        self._check(variants, mode)
        logits = np.empty((len(variants), self.plain.logits.shape[1]), np.float32)
        cost, layer_tokens = Cost(), 0
        for chosen, whole in self._batches(variants, batch):
            if self.mllm.executor == "source":
                found = self._traced(variants[chosen[0]], mode)
            else:
                found = self._pass([variants[i] for i in chosen], mode, whole)
            logits[chosen] = found.logits
            cost, layer_tokens = cost + found.cost, layer_tokens + found.layer_tokens
        return VariantLogits(logits, cost, layer_tokens)

    def _check(self, variants: Sequence[KnockoutVariant], mode: Mode) -> None:
        for layers, heads in {(one.layers, one.heads) for one in variants}:
            for edit in KnockoutVariant(layers, (0,), (0,), heads).edits(mode, self.mllm.linear_heads):
                self.mllm.decoder.heads(edit.site)
        for one in variants:
            refused = self.refusal(one, mode)
            if refused is not None:
                raise EditError(refused)

    def _batches(self, variants: Sequence[KnockoutVariant], size: int) -> Iterator[tuple[list[int], bool]]:
        """The indices of variants that run side by side, and whether they run over the whole prompt."""
        size = 1 if self.mllm.executor == "source" else size
        for whole in (False, True):
            own = [i for i, one in enumerate(variants) if self._whole(one) is whole]
            lowest = {i: min(variants[i].layers) for i in own}
            for chosen in near_batches(lowest, size, self.mllm.n_layers // 8):
                yield chosen, whole

    def _whole(self, variant: KnockoutVariant) -> bool:
        """Whether the variant changes rows or states that a prefix would hold, so that the whole prompt has to run."""
        states = bool(set(variant.layers) & self.mllm.linear_heads.keys())
        return self.prefix is None or min(variant.queries) < self.n_prefix or states

    def _pass(self, variants: Sequence[KnockoutVariant], mode: Mode, whole: bool) -> VariantLogits:
        kept, _ = self._kept(whole=whole)
        start, stop = min(min(one.layers) for one in variants), 0 if whole else self.n_prefix
        with Meter(self.mllm.device) as meter:
            hidden = self._hidden(variants, stop, mode)
            logits = kept.run(len(variants), stop, meter, start=start, hidden=hidden)[:, -1].cpu().numpy()
        return VariantLogits(logits, meter.cost, (self.mllm.n_layers - start) * meter.tokens)

    def _hidden(self, variants: Sequence[KnockoutVariant], stop: int, mode: Mode) -> dict[int, HiddenCells]:
        """Layer → what the variants hide there, with rows counted from `stop` on."""
        n, length, device = len(variants), self.tokens.length, self.mllm.device
        queries, keys = np.zeros((n, length - stop), bool), np.zeros((n, length), bool)
        for i, one in enumerate(variants):
            queries[i, np.array(one.queries) - stop] = True
            keys[i, list(one.keys)] = True
        rows, columns = torch.from_numpy(queries).to(device), torch.from_numpy(keys).to(device)
        linear, n_heads = self.mllm.linear_heads, self.mllm.n_heads
        some = {k: _flags(variants, k).to(device) for k in {n_heads, *linear.values()}}
        layers = sorted({layer for one in variants for layer in one.layers if linear.get(layer, 1)})
        here = torch.tensor([[[layer in one.layers] for one in variants] for layer in layers]).to(device)
        return {
            layer: HiddenCells(
                rows & own, columns, _unless_all(some[linear.get(layer, n_heads)]), mode == "zero"
            )
            for layer, own in zip(layers, here, strict=True)
        }

    def _kept(self, *, whole: bool) -> tuple[KeptPass, Cost]:
        """The unedited pass over the whole prompt, or over the rows after the prefix, and its cost."""
        if whole not in self._passes:
            before = None if whole else self.prefix
            with Meter(self.mllm.device) as meter:
                layers = range(self.mllm.n_layers)
                kept = KeptPass.of(self.mllm, self.batch, meter, layers=layers, before=before)
            self._passes[whole] = kept, meter.cost
        return self._passes[whole]

    @cached_property
    def _passes(self) -> dict[bool, tuple[KeptPass, Cost]]:
        return {}

    def _traced(self, variant: KnockoutVariant | None, mode: Mode) -> VariantLogits:
        """The logits of a trace under the knockout, or of a plain one."""
        given: Any = self.batch if self.prefix is None else self.prefix
        edits = [] if variant is None else variant.edits(mode, self.mllm.linear_heads)
        found = trace(self.mllm, given, edits=edits)
        return VariantLogits(found.logits.values, found.cost, self.mllm.n_layers * found.cost.tokens)


def _flags(variants: Sequence[KnockoutVariant], n_heads: int) -> Bool[Tensor, "variant head"]:
    """Which of `n_heads` heads each variant hides; heads that a layer does not have are ignored."""
    heads = torch.zeros(len(variants), n_heads, dtype=torch.bool)
    for i, one in enumerate(variants):
        chosen = range(n_heads) if one.heads is None else [head for head in one.heads if head < n_heads]
        heads[i, list(chosen)] = True
    return heads


def _unless_all(heads: Bool[Tensor, "variant head"]) -> Bool[Tensor, "variant head"] | None:
    return None if bool(heads.all()) else heads


def near_batches(lowest: Mapping[int, int], size: int, spread: int) -> Iterator[list[int]]:
    """Batches of keys in the order of their values: at most `size` keys, whose values differ by at most `spread`.

    A batch starts at its lowest layer, so a variant that starts higher runs layers that it does not need.
    """
    chosen: list[int] = []
    for i in sorted(lowest, key=lambda i: lowest[i]):
        if chosen and (len(chosen) == size or lowest[i] - lowest[chosen[0]] > spread):
            yield chosen
            chosen = []
        chosen.append(i)
    if chosen:
        yield chosen
