"""What a trace gives back: labelled rows per sample, logits, answers, cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from interp.errors import SiteError
from interp.tokens import TokenMap
from interp.tracing.cost import Cost

__all__ = ["SampleTrace", "Trace"]


@dataclass(frozen=True, eq=False)
class SampleTrace:
    """One sample's share of a trace: `reads` has one array per read, in the order asked for."""

    reads: tuple[xr.DataArray, ...]
    tokens: TokenMap
    answer: str | None = None

    @property
    def rows(self) -> xr.DataArray:
        """The rows of the trace's only `Rows`: ([step,] [layer,] [head,] query, key or token), float32.

        The last dimension is "token", numbered as the image tokens are, when only image tokens are read, else
        "key". "query" (of step 0) and "key" are unpadded positions; so is the coordinate "position", along the
        last dimension. With (layer, head) pairs, "head" is a MultiIndex of "layer" and "head_in_layer".

        Raises:
            SiteError: The trace has no `Rows`, or several: use `reads`.
        """
        return _only(self.reads, "attention", "Rows(interp.Site())")

    @property
    def residual(self) -> xr.DataArray:
        """The stream of the trace's only `Residual`: ([step,] layer, position, hidden), float32.

        "position" (of step 0) is unpadded.

        Raises:
            SiteError: The trace has no `Residual`, or several: use `reads`.
        """
        return _only(self.reads, "residual", "Residual()")


@dataclass(frozen=True, eq=False)
class Trace(Sequence):
    """What a trace found. `trace[i]` is sample i.

    Attributes:
        logits: (sample, token_id) after the last prompt token, float32.
        answers: the generated texts; empty without generate=.
        tokens: where each sample's tokens are.
        cost: time, memory, passes.
    """

    samples: tuple[SampleTrace, ...]
    logits: xr.DataArray
    answers: list[str]
    tokens: tuple[TokenMap, ...]
    cost: Cost

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:
        return self.samples[index]

    def __iter__(self) -> Iterator[SampleTrace]:
        return iter(self.samples)

    @property
    def rows(self) -> xr.DataArray:
        """All samples' rows over a new first dimension "sample", padded with NaN.

        Query, key and token are counted from 0 within each sample; "position" (sample, key or token) keeps
        the unpadded positions, NaN in the padding.

        Raises:
            SiteError: The trace has no read, or several.
        """
        return _joined([sample.rows for sample in self.samples])


def _only(reads: Sequence[xr.DataArray], name: str, example: str) -> xr.DataArray:
    found = [read for read in reads if read.name == name]
    if len(found) != 1:
        kind = "rows" if name == "attention" else name
        raise SiteError(
            f"the trace has {len(found)} reads of {name}; .{kind} is for one. "
            + ("Use trace[i].reads." if found else f"Ask for some: reads=[interp.{example}].")
        )
    return found[0]


def _joined(rows: Sequence[xr.DataArray]) -> xr.DataArray:
    last = rows[0].dims[-1]
    ragged = [d for d in rows[0].dims if d in ("step", "query", last)]
    sizes = {d: max(r.sizes[d] for r in rows) for d in ragged}
    plain = [r.drop_vars([d for d in (*ragged, "position") if d in r.coords]) for r in rows]
    padded = [r.pad({d: (0, sizes[d] - r.sizes[d]) for d in ragged}, constant_values=np.nan) for r in plain]
    places = np.full((len(rows), sizes[last]), np.nan)
    for line, r in zip(places, rows, strict=True):
        line[: r.sizes[last]] = r["position"].values
    joined = xr.concat(padded, dim="sample")
    counted = {d: np.arange(sizes[d]) for d in ragged}
    return joined.assign_coords({**counted, "position": (("sample", last), places)})
