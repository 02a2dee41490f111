"""Heads whose outputs are replaced: planned for the padded tensors of a pass, and carried out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import EditError
from interp.inputs.tokens import TokenMap
from interp.tracing.ablation import AblateHeads
from interp.tracing.encoding.padding import Layout
from interp.tracing.layers.decoder_layers import Decoder, Shape
from interp.tracing.layers.request import HeadAblation, LayerValues
from interp.tracing.site import select

__all__ = ["HeadWrite", "ablation_of", "head_writes"]


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


Rows = Callable[[int, HeadAblation], Int[np.ndarray, " row"]]


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
