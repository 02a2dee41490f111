"""Pixels painted over, window by window; coarsely first where the grid is large."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from interp.errors import MapError
from interp.indicators.maps import Maps, Samples, each, labelled
from interp.indicators.removals import PaintPixels
from interp.indicators.token_windows import blocks, windows
from interp.inputs.prompt import PAPER_PROMPT, Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing import Cost, Mllm

__all__ = ["Occlusion"]


@dataclass(frozen=True)
class Occlusion:
    """What the target loses when a square of the image is painted over: (token) maps, nats.

    A token's value is plain − value with the `window` × `window` tokens around it painted, of its own view (cut off at
    the image's edge). A token without footprint has 0.

    **Coarse to fine.** With `coarse`, disjoint blocks of `coarse` × `coarse` tokens are painted first. Only tokens of
    the most important blocks get a window of their own, and hold just what they would hold without `coarse`. **Every
    other token holds its block's loss divided by the number of the block's tokens**; the coordinate "refined" tells
    them apart. A token that matters alone while its block does not is missed.

    Args:
        by: "grey", "blur" or "mean"; see `PaintPixels`.
        window: side of the square in tokens, odd.
        coarse: side of the blocks that are painted first, 2 or more; None to paint every window.
        refine: share of the blocks that is refined, the most important ones, at least one; in (0, 1].
        batch: variants side by side; no number depends on it.

    Raises:
        MapError: Values that make no sense.

    Source: Zeiler and Fergus, arXiv 1311.2901.
    """

    by: Literal["grey", "blur", "mean"] = "grey"
    window: int = 1
    coarse: int | None = None
    refine: float = 0.25
    batch: int = field(default=32, compare=False)

    def __post_init__(self) -> None:
        _ = self.removal
        if not _whole(self.window, 1) or self.window % 2 == 0:
            raise MapError(f"window is an odd number of tokens; got {self.window!r}.")
        if self.coarse is not None and not _whole(self.coarse, 2):
            raise MapError(f"coarse is a number of tokens, 2 or more, or None; got {self.coarse!r}.")
        if isinstance(self.refine, bool) or not isinstance(self.refine, Real) or not 0 < self.refine <= 1:
            raise MapError(f"refine is a share of the blocks in (0, 1]; got {self.refine!r}.")

    @property
    def removal(self) -> PaintPixels:
        """How tokens are taken away."""
        return PaintPixels(self.by)

    def __call__(
        self,
        mllm: Mllm,
        samples: Samples,
        *,
        prompt: Prompt = PAPER_PROMPT,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
    ) -> Maps:
        """The maps of these samples, one by one. A whole pass for every window and block."""

        def one(sample: Sample, tokens: TokenMap) -> tuple[xr.DataArray, Cost]:
            costs: list[Cost] = []
            plain: list[float] = []

            def lost(masks: Bool[np.ndarray, "variant token"]) -> Float[np.ndarray, " variant"]:
                found = self.removal.scores(
                    mllm, sample, masks, prompt=prompt, target=target, batch=self.batch
                )
                costs.append(found.cost)
                plain.append(found.plain)
                return found.plain - found.values

            values, refined = self._values(tokens, lost)
            found = labelled(values, tokens, "occlusion", attrs={"plain": plain[0]})
            if self.coarse is not None:
                found = found.assign_coords(refined=("token", refined))
            return found, sum(costs, Cost())

        return each(mllm, samples, prompt, one)

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values."""
        finer = {} if self.coarse is None else {"coarse": self.coarse, "refine": float(self.refine)}
        return {
            "indicator": "occlusion",
            "removal": self.removal.to_dict(),
            "window": self.window,
            **finer,
        }

    def _values(
        self, tokens: TokenMap, lost: Any
    ) -> tuple[Float[np.ndarray, " token"], Bool[np.ndarray, " token"]]:
        """Each token's value, and whether its own window was painted."""
        own = windows(tokens, self.window)
        if self.coarse is None:
            return lost(own), np.ones(tokens.n, bool)
        number = blocks(tokens, self.coarse)
        n = number.max(initial=-1) + 1
        inside = number == np.arange(n)[:, None]
        by_block = lost(inside)
        best = np.argsort(-by_block, kind="stable")[: math.ceil(self.refine * n)]
        refined = np.isin(number, best)
        values = np.zeros(tokens.n)
        known = number >= 0
        values[known] = (by_block / inside.sum(axis=1))[number[known]]
        values[refined] = lost(own[refined])
        return values, refined


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
