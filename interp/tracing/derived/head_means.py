"""The mean outputs of heads over a reference set, which `AblateHeads` can put in place of their outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.tracing.activation_edits import AblateHeads
from interp.tracing.attention.rows import AttentionFunction, Call
from interp.tracing.cost import Meter
from interp.tracing.encoding.batch import Batch, Layout
from interp.tracing.passes.micro_batches import BATCH_SIZE, MicroBatch, in_batches, in_order
from interp.tracing.passes.non_finite import check_logits
from interp.tracing.passes.prefix_pass import given_as
from interp.tracing.passes.run import run_pass
from interp.tracing.prefix import Prefix, pass_inputs
from interp.tracing.site import Site, select_each
from interp.tracing.values import for_samples
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["head_means"]


def head_means(
    mllm: WrappedModel,
    samples: Sample | Iterable[Sample] | Batch | Prefix,
    site: Site,
    *,
    prompt: Prompt | None = None,
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> Float[np.ndarray, "*head dim"]:
    """The mean output of each of a site's heads over samples: (layer, head, dim), or (head, dim) for pairs, float32.

    A head's output at a position is Σ_key p·v, before the output projection. It is averaged over the site's rows of a
    sample, then over samples, so a long prompt counts as much as a short one. Samples without such a row are left out.
    The reference set should not hold the samples that are ablated later.

    Cost: one pass over each whole prompt.

    Args:
        mllm: The model, on this machine.
        samples: The reference set.
        site: The layers, heads and queries, the same as in the `AblateHeads` that will use the means.
        prompt, batch_size, progress: As in `Mllm.trace`.

    Raises:
        ModelError: A model on a server, layers whose heads differ in size, or queries that name no row in any sample.
        EditError: A site that `AblateHeads` does not take.
        SiteError: A layer, head or position that is not there.

    >>> import interp
    >>> mllm = interp.load("organism")
    >>> site = interp.Site(heads=[(1, 0), (2, 3)], queries="all")
    >>> means = interp.head_means(mllm, interp.data.bundled("natural", n=2), site, progress=False)
    >>> edit = interp.AblateHeads(site, by="mean", means=means)
    """
    if not isinstance(mllm, WrappedModel):
        raise ModelError(f"head_means takes a model of interp.load or interp.wrap; got {mllm!r:.100}.")
    if mllm.server is not None:
        raise ModelError("head_means needs the model on this machine; load it without remote=True.")
    AblateHeads(site)
    heads = mllm.decoder.softmax(site, "head_means")

    def found(own: WrappedModel, some: MicroBatch) -> list[dict[int, Float[np.ndarray, "head dim"]] | None]:
        given = given_as(own, some.samples, prompt)
        batch = given.batch if isinstance(given, Prefix) else given
        (mine,) = for_samples([site], some.at, some.n_all)
        return _of_batch(own, batch, mine, heads)

    apart = bool(mllm.rope.scalings) or mllm.maps == "cross"
    how: dict[str, Any] = {"batch_size": batch_size, "progress": progress, "alone": apart}
    each = [one for one in in_order(in_batches(mllm, samples, found, **how)) if one is not None]
    if not each:
        raise ModelError(
            f"queries={site.queries!r} names no row in any sample, so there is nothing to average. Name other queries, "
            "such as 'last'."
        )
    means = {layer: np.mean([one[layer] for one in each], axis=0) for layer in heads}
    sizes = {one.shape[-1] for one in means.values()}
    if len(sizes) > 1:
        raise ModelError(
            f"one array of means needs heads of one size; heads of layers {list(heads)} have outputs of "
            f"{sorted(sizes)} values. Name layers with heads of one size, and ablate the other layers in a second edit."
        )
    if site.pairs is not None:
        found_of = [means[layer][heads[layer].index(head)] for layer, head in site.pairs]
        return np.stack(found_of).astype(np.float32)
    return np.stack([means[layer] for layer in heads]).astype(np.float32)


def _of_batch(
    mllm: WrappedModel, batch: Batch, site: Site, heads: dict[int, tuple[int, ...]]
) -> list[dict[int, Float[np.ndarray, "head dim"]] | None]:
    """Each sample's mean outputs by layer, float64; None for a sample without such rows."""
    layout = Layout.whole([tokens.length for tokens in batch.tokens])
    n = len(batch)
    rows = layout.rows(select_each(site.groups[0], batch.tokens))
    at = [torch.from_numpy(one) for one in rows]
    work = {layer: _Outputs(tuple(at), own) for layer, own in heads.items()}
    inputs, _ = pass_inputs(batch, None)
    with mllm.installation.armed(work), torch.no_grad():
        logits = run_pass(mllm.hf, inputs, Meter(mllm.device))
    check_logits(mllm, batch, logits)
    means = {layer: one.means.double().cpu().numpy() for layer, one in work.items()}
    return [{i: own[k] for i, own in means.items()} if len(rows[k]) else None for k in range(n)]


@dataclass(eq=False)
class _Outputs:
    """The work of one layer: the mean of some heads' outputs over some rows of each sample."""

    rows: tuple[Tensor, ...]
    heads: tuple[int, ...]
    means: Float[Tensor, "sample head dim"] = torch.empty(0)  # noqa: RUF009 - replaced by the pass

    def __call__(
        self, original: AttentionFunction, call: Call, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """The unchanged attention; the means are kept."""
        output, weights = original(
            call.module, call.queries, call.keys[0], call.values[0], call.mask, **kwargs
        )
        chosen = output[:, :, list(self.heads)].float()
        self.means = torch.stack(
            [own[at.to(own.device)].mean(dim=0) for own, at in zip(chosen, self.rows, strict=True)]
        )
        return output, weights
