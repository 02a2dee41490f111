"""Attention rollout of the last row, from the last layer to the first, a few rows of attention at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.tracing.attention.rows import CHUNK_BYTES, AttentionFunction, Block, Call
from interp.tracing.cost import Meter
from interp.tracing.encoding.batch import Batch
from interp.tracing.executors.source import attention_call, call_at
from interp.tracing.passes.non_finite import check_logits
from interp.tracing.passes.run import run_pass
from interp.tracing.prefix import pass_inputs
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["rollout"]


def rollout(
    mllm: WrappedModel, batch: Batch, meter: Meter
) -> tuple[Float[Tensor, "sample key"], Float[Tensor, "sample token_id"]]:
    """e_lastᵀ ∏ ½(I + mean_h A) over all layers, at the batch's padded columns; and the logits after the prompt.

    The shares are float32, in [0, 1], and sum to 1. Layers keep their queries and keys (about as much memory as a
    key-value cache, twice as much where key-value heads are shared). The product is taken from the left, a vector times
    each layer's attention, so only the rows that the vector needs are computed.

    Raises:
        ModelError: Image tokens that are no positions of the sequence, or logits that are not numbers.

    Source: Abnar and Zuidema 2020 (arXiv 2005.00928).
    """
    mllm.need_image_rows("rollouts")
    if mllm.server is not None:
        found = mllm.server.compute(batch, _rollout_in_job, {}, meter)
        check_logits(mllm, batch, found["logits"])
        return found["share"], found["logits"][:, -1]
    calls: dict[int, Call] = {}
    work = {layer: _Keep(layer, calls) for layer in range(mllm.n_layers)}
    with mllm.installation.armed(work), torch.no_grad():
        logits = run_pass(mllm.hf, pass_inputs(batch, None)[0], meter)
        share = _product(calls)
    check_logits(mllm, batch, logits)
    return share, logits[:, -1].float()


def _rollout_in_job(there: Any, job: dict[str, Any]) -> dict[str, Tensor]:
    """The shares and the logits. Runs in a job on a server; `there` is an `interp.tracing.remote.job_passes.Views`."""
    calls = {i: call_at(attention_call(layer.self_attn)) for i, layer in enumerate(there.layers)}
    return {"logits": there.logits(), "share": _product(calls)}


def _product(calls: dict[int, Call]) -> Float[Tensor, "sample key"]:
    """e_lastᵀ times every layer's ½(I + mean_h A), from the last layer to the first; used calls are dropped."""
    n, _, length, _ = calls[0].queries.shape
    share = torch.zeros(n, length)
    share[:, -1] = 1.0
    for layer in sorted(calls, reverse=True):
        call = calls.pop(layer)
        share = share.to(call.queries.device)
        share = (share + _through(call, share)) / 2
    return share


def _through(call: Call, share: Float[Tensor, "sample row"]) -> Float[Tensor, "sample key"]:
    """Σ_row share · mean_h A[row], in chunks of the rows whose share is above 0."""
    n, n_heads, _, _ = call.queries.shape
    rows = (share > 0).any(dim=0).nonzero()[:, 0]
    step = max(1, CHUNK_BYTES // (4 * n * n_heads * call.n_keys))
    none = torch.zeros(0, dtype=torch.long, device=share.device)
    total = torch.zeros_like(share)
    for chunk in rows.split(step):
        block = Block(chunk.expand(n, -1), (none, none), call.all_heads)
        mean = call.probabilities(block).mean(dim=1)
        total += (share[:, chunk][:, None] @ mean)[:, 0]
    return total


@dataclass(frozen=True, eq=False)
class _Keep:
    """The work of one layer: its own attention; the call is kept."""

    layer: int
    calls: dict[int, Call]

    def __call__(
        self, original: AttentionFunction, call: Call, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """The unchanged attention."""
        self.calls[self.layer] = call
        return original(call.module, call.queries, call.keys[0], call.values[0], call.mask, **kwargs)
