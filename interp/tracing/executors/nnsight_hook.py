"""What `Mllm.tap` offers to code inside an nnsight trace: which rows, and the module they pass through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interp.errors import SiteError
from interp.tracing.attention.call import AttentionFunction, Call
from interp.tracing.encoding.batch import Batch
from interp.tracing.encoding.padding import Layout
from interp.tracing.layers.layer_plan import Block
from interp.tracing.site import Selector, Site, select

__all__ = ["OfferedRows", "offered_rows"]


def offered_rows(queries: Selector | Sequence[Selector], batch: Batch | None) -> Callable[[int, int], Tensor]:
    """A function (samples, queries of a call) → rows to offer, (sample, row), padded.

    "last" and "all" need no batch. Others take the batch whose inputs are traced, with as many rows in each
    sample; in the pass of a generated token, they offer its only row.

    Raises:
        SiteError: Groups that need a batch without one, or that hold different numbers of rows.
    """
    selectors, _ = Site(queries=queries).groups
    if selectors == ("last",):
        return lambda n, n_queries: torch.full((n, 1), n_queries - 1)
    if selectors == ("all",):
        return lambda n, n_queries: torch.arange(n_queries).expand(n, -1)
    if batch is None:
        raise SiteError(
            f"tap(queries={queries!r}) needs the batch to find its rows; write mllm.tap(queries=…, "
            "batch=batch) with "
            'the batch whose inputs you trace. Only "last" and "all" need none.'
        )
    layout = Layout.whole([tokens.length for tokens in batch.tokens])
    rows = [layout.rows(i, select(selectors, tokens, i, len(batch))) for i, tokens in enumerate(batch.tokens)]
    if len({len(r) for r in rows}) > 1 or not len(rows[0]):
        raise SiteError(
            f"tap(queries={queries!r}) offers one tensor, (sample, head, row, key), so every sample needs "
            f"the same number of rows, at least one; here they have {[len(r) for r in rows]}. Tap one sample "
            "at a time, or read ragged rows with mllm.trace(reads=[…])."
        )
    chosen = torch.from_numpy(np.stack(rows))
    width = layout.n_queries
    return lambda n, n_queries: chosen if n_queries == width else torch.full((n, 1), n_queries - 1)


@dataclass(frozen=True, eq=False)
class OfferedRows:
    """Offers rows at the module's `pattern`, for code inside an nnsight trace to read or overwrite.

    `rows` maps (samples, queries of the call) to the rows to offer, (sample, row).
    """

    pattern: nn.Module
    rows: Callable[[int, int], Tensor]

    def __call__(
        self, original: AttentionFunction, call: Call, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """The attention's output; offered rows that were written to are recomputed."""
        output, weights = original(
            call.module, call.queries, call.keys[0], call.values[0], call.mask, **kwargs
        )
        block = self._block(call)
        offered = call.probabilities(block)
        version = offered._version
        returned = self.pattern(offered)
        if returned is not offered or returned._version != version:
            output = call.splice(output, block, returned)
        return output, weights

    def _block(self, call: Call) -> Block:
        n, _, n_queries, _ = call.queries.shape
        device = call.queries.device
        rows = self.rows(n, n_queries).to(device)
        sample = torch.arange(n, device=device).repeat_interleave(rows.shape[1])
        place = torch.arange(rows.shape[1], device=device).repeat(n)
        return Block(rows, (sample, place), call.all_heads)
