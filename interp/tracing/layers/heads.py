"""Heads of a layer: arranged so that those which share keys share one product; and outputs that are replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import EditError
from interp.inputs.tokens import TokenMap
from interp.tracing.activation_edits import AblateHeads
from interp.tracing.encoding.padding import Layout
from interp.tracing.layers.decoder_layers import Decoder, Shape
from interp.tracing.layers.request import HeadAblation, LayerValues
from interp.tracing.site import select

__all__ = ["HeadWrite", "Heads", "ablation_of", "head_writes"]


Rows = Callable[[int, HeadAblation], Int[np.ndarray, " row"]]


@dataclass(frozen=True, eq=False)
class Heads:
    """Some heads of a layer, arranged so that heads which share a key-value head share one matrix product.

    Attributes:
        chosen: the chosen heads, in the order given.
        counts: (query heads, key-value heads) of the layer.
        index: the chosen heads as a tensor.
        shape: (key-value heads, heads of each): how the arranged heads unflatten. Short groups repeat a head.
        key_value: the key-value heads of the arrangement, or None when they are all of them.
        arranged: the arranged heads among the layer's, flat; None when they are all of them, in order.
        order: the arranged heads among the chosen ones, flat; None when it is the same order.
        back: each chosen head's place in the flat arrangement; None when it is the same order.
    """

    chosen: tuple[int, ...]
    counts: tuple[int, int]
    index: Int[Tensor, " head"]
    shape: tuple[int, int]
    key_value: Int[Tensor, " key_value_head"] | None
    arranged: Int[Tensor, " arranged"] | None
    order: Int[Tensor, " arranged"] | None
    back: Int[Tensor, " head"] | None

    @classmethod
    def of(cls, heads: Sequence[int], n_heads: int, n_key_value_heads: int, device: torch.device) -> Heads:
        """The arrangement of `heads` in a layer of `n_heads` query heads; repeated heads are not allowed.

        It is made once for a device: its tensors come from the CPU, for which a GPU would have to wait in every layer.
        """
        with torch.inference_mode(False):  # autograd may keep it, whichever call comes first
            return _arranged(tuple(heads), n_heads, n_key_value_heads, device)

    @classmethod
    def _made(
        cls, heads: tuple[int, ...], n_heads: int, n_key_value_heads: int, device: torch.device
    ) -> Heads:
        share = n_heads // n_key_value_heads
        members: dict[int, list[int]] = {}
        for head in sorted(heads):
            members.setdefault(head // share, []).append(head)
        width = max(len(group) for group in members.values())
        flat = [h for group in members.values() for h in group + [group[-1]] * (width - len(group))]

        def unless(same: bool, values: Sequence[int]) -> Tensor | None:
            return None if same else torch.tensor(values, device=device)

        return cls(
            chosen=heads,
            counts=(n_heads, n_key_value_heads),
            index=torch.tensor(list(heads), device=device),
            shape=(len(members), width),
            key_value=unless(len(members) == n_key_value_heads, list(members)),
            arranged=unless(flat == list(range(n_heads)), flat),
            order=unless(flat == list(heads), [list(heads).index(head) for head in flat]),
            back=unless(flat == list(heads), [flat.index(head) for head in heads]),
        )

    def among(self, n_key_value_heads: int) -> Heads:
        """The same heads in a layer with so many key-value heads, of which layers of one model may differ (Gemma 4)."""
        if n_key_value_heads == self.counts[1]:
            return self
        return Heads.of(self.chosen, self.counts[0], n_key_value_heads, self.index.device)

    def queries(self, queries: Float[Tensor, "sample head query dim"]) -> Float[Tensor, "_ _ _ _ _"]:
        """The arranged heads' queries, (sample, key_value_head, group, query, dim), of all the layer's."""
        chosen = queries if self.arranged is None else queries[:, self.arranged]
        return chosen.unflatten(1, self.shape)

    def keys(self, keys: Float[Tensor, "sample all key dim"]) -> Float[Tensor, "sample some key dim"]:
        """The keys or values the arrangement needs; no copy when it needs every key-value head."""
        return keys if self.key_value is None else keys[:, self.key_value]

    def arrange(self, values: Float[Tensor, "sample head row _"]) -> Float[Tensor, "_ _ _ _ _"]:
        """(sample, key_value_head, group, row, …) from values of the chosen heads."""
        chosen = values if self.order is None else values[:, self.order]
        return chosen.unflatten(1, self.shape)

    def flat(self, arranged: Float[Tensor, "_ _ _ _ _"]) -> Float[Tensor, "sample head row _"]:
        """(sample, head, row, …) in the order the heads were given, from the arrangement."""
        values = arranged.flatten(1, 2)
        return values if self.back is None else values[:, self.back]


@lru_cache(maxsize=1024)
def _arranged(heads: tuple[int, ...], n_heads: int, n_key_value_heads: int, device: torch.device) -> Heads:
    return Heads._made(heads, n_heads, n_key_value_heads, device)


@dataclass(frozen=True, eq=False)
class HeadWrite:
    """What takes the place of some heads' outputs, at some rows of some samples.

    Attributes:
        samples: the sample of each row.
        rows: the rows.
        heads: the heads.
        values: of every sample, or one for all; None for zeros.
    """

    samples: Int[Tensor, " cell"]
    rows: Int[Tensor, " cell"]
    heads: Int[Tensor, " head"]
    values: Float[Tensor, "sample_or_one head dim"] | None

    def __call__(
        self, output: Float[Tensor, "sample query head dim"]
    ) -> Float[Tensor, "sample query head dim"]:
        """The heads' outputs with these in their place.

        Raises:
            EditError: Values of another size than a head's output.
        """
        changed = output.clone()
        at = (self.samples[:, None], self.rows[:, None], self.heads[None])
        if self.values is None:
            changed[at] = 0.0
            return changed
        if self.values.shape[2] != output.shape[3]:
            raise EditError(
                f"a head's output has {output.shape[3]} values; the means of AblateHeads have {self.values.shape[2]}. "
                "Get them from the same model and layers with interp.head_means(mllm, samples, site)."
            )
        own = self.values if len(self.values) == 1 else self.values[self.samples]
        changed[at] = own.to(output)
        return changed


def ablation_of(edit: AblateHeads, tokens: Sequence[TokenMap], decoder: Decoder) -> HeadAblation:
    """What an edit ablates in a batch, in the samples' own positions.

    Raises:
        SiteError: A layer, head or position that is not there, or layers without a softmax.
        EditError: Means of another shape than the site's heads.
    """
    heads = decoder.softmax(edit.site, "AblateHeads")
    n = len(tokens)
    rows = tuple(select(edit.site.groups[0], own, i, n) for i, own in enumerate(tokens))
    values = None
    if edit.means is not None:
        values = tuple(_means(edit, heads, i, n) for i in range(n if edit.means.per_sample else 1))
    in_prompt = tuple(at if edit.steps != "decode" else at[:0] for at in rows)
    return HeadAblation(heads, in_prompt, edit.steps != "prefill", values)


def _means(edit: AblateHeads, heads: dict[int, tuple[int, ...]], sample: int, n_samples: int) -> LayerValues:
    """The means of one sample by layer, (head, dim)."""
    given, pairs = edit.means.of_sample(sample, n_samples), edit.site.pairs
    wanted = (len(pairs),) if pairs is not None else (len(heads), len(next(iter(heads.values()))))
    if given.shape[:-1] != wanted:
        dims = "(head, dim)" if pairs is not None else "(layer, head, dim)"
        raise EditError(
            f"the site of AblateHeads names {wanted} heads, so its means are {dims} with that shape before dim; they "
            f"have {given.shape}. Get them with interp.head_means(mllm, samples, site)."
        )
    if pairs is None:
        return {layer: given[i] for i, layer in enumerate(heads)}
    return {layer: given[[pairs.index((layer, head)) for head in own]] for layer, own in heads.items()}


def head_writes(
    ablations: Sequence[HeadAblation], layout: Layout, shape: Shape
) -> tuple[dict[int, tuple[HeadWrite, ...]], dict[int, tuple[HeadWrite, ...]]]:
    """What is put into which layers' heads in the prompt's pass, and in that of each generated token."""

    def in_prompt(sample: int, one: HeadAblation) -> Int[np.ndarray, " row"]:
        return layout.rows(sample, one.queries[sample])

    def generated(sample: int, one: HeadAblation) -> Int[np.ndarray, " row"]:
        return np.zeros(1, np.int64)

    before = [one for one in ablations if any(len(q) for q in one.queries)]
    after = [one for one in ablations if one.decodes]
    return _writes(before, in_prompt, layout, shape), _writes(after, generated, layout, shape)


def _writes(
    ablations: Sequence[HeadAblation], rows: Rows, layout: Layout, shape: Shape
) -> dict[int, tuple[HeadWrite, ...]]:
    found: dict[int, tuple[HeadWrite, ...]] = {}
    for one in ablations:
        own = [rows(i, one) for i in range(layout.n_samples)]
        samples = torch.from_numpy(np.repeat(np.arange(len(own)), [len(at) for at in own]))
        flat = torch.from_numpy(np.concatenate(own))
        for layer, heads in one.heads.items():
            device = shape.devices[layer] if shape.devices else shape.device
            values = None
            if one.values is not None:
                values = torch.from_numpy(np.stack([each[layer] for each in one.values])).to(device)
            write = HeadWrite(samples.to(device), flat.to(device), torch.tensor(heads, device=device), values)
            found[layer] = (*found.get(layer, ()), write)
    return found
