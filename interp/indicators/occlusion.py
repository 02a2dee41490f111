"""Occlusion: what the target loses when pixels are painted over, window by window."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from interp.errors import MapError
from interp.indicators.indicator_checks import check_call, check_number, check_whole
from interp.indicators.maps import BATCH_SIZE, ONE_MAP, Maps, Samples, label_map, map_each_sample
from interp.indicators.removals import PaintPixels
from interp.indicators.token_windows import blocks, windows
from interp.inputs.prompt import Prompt, Target
from interp.inputs.tokens import TokenMap
from interp.tracing import Batch, Cost, Mllm

__all__ = ["Occlusion"]


@dataclass(frozen=True)
class Occlusion:
    """The fall of the target when a square of the image is painted over: (token) maps, nats.

    A token's value is plain − value with the `window` × `window` tokens around it painted over, in its own view (cut
    off at the image's edge). A token without footprint has the value 0.

    **Coarse to fine.** With `coarse`, disjoint blocks of `coarse` × `coarse` tokens are painted first. Only tokens of
    the most important blocks get a window of their own, and the same value as without `coarse`. **Every other token
    gets its block's fall divided by the number of tokens in the block.** The coordinate "refined" marks the tokens
    with their own window. A token that matters although its block does not is missed.

    Args:
        by: The paint, "grey", "blur" or "mean"; see `PaintPixels`.
        window: Side of the square in tokens, odd.
        coarse: Side of the blocks that are painted first, at least 2; None paints every window.
        refine: Share of the blocks that is refined, in (0, 1]: the most important ones, at least one block.
        batch: Variants in one pass; values do not depend on it.

    Raises:
        MapError: An argument out of its range.

    Source: Zeiler and Fergus, arXiv 1311.2901.
    """

    by: Literal["grey", "blur", "mean"] = "grey"
    window: int = 1
    coarse: int | None = None
    refine: float = 0.25
    batch: int = field(default=32, compare=False)

    dims: ClassVar[tuple[str, ...]] = ONE_MAP

    def __post_init__(self) -> None:
        _ = self.removal
        if check_whole("window of Occlusion", self.window, 1) % 2 == 0:
            raise MapError(f"window of Occlusion is an odd number of tokens; got {self.window!r}.")
        if self.coarse is not None:
            check_whole("coarse of Occlusion, where it is not None,", self.coarse, 2)
        check_number(
            "refine, the share of blocks that is refined,", self.refine, low=0, high=1, open_low=True
        )

    @property
    def removal(self) -> PaintPixels:
        """The removal of tokens."""
        return PaintPixels(self.by)

    def __call__(
        self,
        mllm: Mllm,
        samples: Samples,
        *,
        prompt: Prompt | None = None,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> Maps:
        """The maps of these samples, one by one whatever `batch_size` is, with `progress`.

        Cost: a whole pass for every window and block.
        """
        check_call(mllm, prompt, target)

        def one(batch: Batch) -> tuple[xr.DataArray, Cost]:
            """A sample's map, and the cost of all its variants."""
            costs: list[Cost] = []
            plain: list[float] = []

            def lost(masks: Bool[np.ndarray, "variant token"]) -> Float[np.ndarray, " variant"]:
                found = self.removal.scores(mllm, batch, masks, target=target, batch=self.batch)
                costs.append(found.cost)
                plain.append(found.plain)
                return found.plain - found.values

            (tokens,) = batch.tokens
            values, refined = self._values(tokens, lost)
            found = label_map(values, tokens, "occlusion", attrs={"plain": plain[0]})
            if self.coarse is not None:
                found = found.assign_coords(refined=("token", refined))
            return found, sum(costs, Cost())

        return map_each_sample(mllm, samples, prompt, one, batch_size, progress)

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
        """Each token's value, and whether the token's own window was painted."""
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
