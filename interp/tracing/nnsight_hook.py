"""Which rows the nnsight door offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from interp.errors import SiteError
from interp.tracing.encode import Batch
from interp.tracing.layout import Layout
from interp.tracing.site import Selector, Site, select

__all__ = ["door_rows"]


def door_rows(queries: Selector | Sequence[Selector], batch: Batch | None) -> Callable[[int, int], Tensor]:
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
