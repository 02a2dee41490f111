"""Occlusion, window by window, and RISE, under random masks: what the target loses without parts of the image."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from itertools import product
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from interp.errors import MapError
from interp.indicators.indicator_checks import check_number, check_whole
from interp.indicators.maps import ONE_MAP, One, SampleIndicator, label_map
from interp.indicators.removals import HideTokens, PaintPixels, Removal, blocks, windows
from interp.inputs.prompt import Target
from interp.inputs.tokens import TokenMap
from interp.tracing import Batch, Cost, Mllm

__all__ = ["Occlusion", "RandomMasks", "kept_average", "random_masks"]


@dataclass(frozen=True)
class Occlusion(SampleIndicator):
    """The fall of the target when a square of the image is painted over: (token) maps, nats.

    A token's value is plain − value with the `window` × `window` tokens around it painted over, in its own view (cut
    off at the image's edge). A token without footprint has the value 0.

    **Coarse to fine.** With `coarse`, disjoint blocks of `coarse` × `coarse` tokens are painted first. Only tokens of
    the most important blocks get a window of their own, and the same value as without `coarse`. **Every other token
    gets its block's fall divided by the number of tokens in the block.** The coordinate "refined" marks the tokens
    with their own window. A token that matters although its block does not is missed.

    Cost: a whole pass for every window and block.

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

    def _one(self, mllm: Mllm, target: Target) -> One:
        """From a batch of one sample to its map and the cost of the map."""

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

        return one

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


@dataclass(frozen=True)
class RandomMasks(SampleIndicator):
    """The target's mean over random masks that keep a token, minus its mean over all masks: (token) maps, nats.

    R_j = E[s·k_j] / E[k_j] − E[s], where s is the target's value under a mask and k_j is 1 if the mask keeps token j.
    RISE's own map, E[s·k_j] / keep, divides by the probability of keeping a token; here the divisor is the share of
    masks that did keep it. In expectation RISE's map is R + `attrs["mean"]`; with few masks it also varies with how
    often each token was kept, times the mean of s, which can be more than what R shows. R is positive where a token
    helps. A mask keeps or removes whole cells of `cell` × `cell` tokens, on a lattice that is shifted at random for
    each mask (RISE blurs the cells' edges; here a token is kept or removed). Tokens without footprint are never
    removed; their value is 0. Tokens of several views that show the same place are removed together.

    `attrs["standard_error"]` holds the standard error of each token's mean over the masks that keep it. A map whose
    values are not several times larger needs more masks.

    Cost: `n` variants of each sample.

    Args:
        removal: The way to remove tokens.
        n: The number of masks.
        cell: The side of a cell in tokens.
        keep: The probability that a mask keeps a cell, in (0, 1).
        seed: The seed of the masks; each sample draws its own masks, from the seed and its id.
        batch: Variants in one pass; values do not depend on it.

    Raises:
        MapError: An argument out of its range; when called, a token that fewer than two masks keep.

    Source: Petsiuk et al., RISE, arXiv 1806.07421.
    """

    removal: Removal = HideTokens()  # noqa: RUF009 – a frozen value
    n: int = 500
    cell: int = 3
    keep: float = 0.5
    seed: int = 0
    batch: int = field(default=32, compare=False)

    dims: ClassVar[tuple[str, ...]] = ONE_MAP

    def __post_init__(self) -> None:
        if not isinstance(self.removal, Removal):
            raise MapError(f"removal is a way to remove tokens, such as HideTokens(); got {self.removal!r}.")
        for name, least in (("n", 2), ("cell", 1), ("seed", 0)):
            check_whole(f"{name} of RandomMasks", getattr(self, name), least)
        check_number("keep, a probability,", self.keep, low=0, high=1, open_low=True, open_high=True)

    def _one(self, mllm: Mllm, target: Target) -> One:
        """From a batch of one sample to its map and the cost of the map."""

        def one(batch: Batch) -> tuple[xr.DataArray, Cost]:
            """A sample's map from masks that its id and the seed draw, and its cost."""
            (sample,), (tokens,) = batch.samples, batch.tokens
            digest = hashlib.sha256(sample.id.encode()).digest()
            rng = np.random.default_rng([self.seed, int.from_bytes(digest[:8], "big")])
            removed = random_masks(tokens, self.n, self.cell, float(self.keep), rng)
            found = self.removal.scores(mllm, batch, removed, target=target, batch=self.batch)
            average, error = kept_average(found.values, ~removed)
            mean = float(found.values.mean())
            attrs = {"plain": found.plain, "mean": mean, "standard_error": error}
            return label_map(average - mean, tokens, "random masks", attrs=attrs), found.cost

        return one

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values."""
        numbers = {"n": self.n, "cell": self.cell, "keep": float(self.keep), "seed": self.seed}
        return {"indicator": "random masks", "removal": self.removal.to_dict(), **numbers}


def random_masks(
    tokens: TokenMap, n: int, cell: int, keep: float, rng: np.random.Generator
) -> Bool[np.ndarray, "mask token"]:
    """Masks that are True where a token is removed; each cell is removed with probability 1 − keep."""
    found = np.zeros((n, tokens.n), bool)
    shifted = {at: blocks(tokens, cell, at) for at in product(range(cell), repeat=2)}
    for mask in found:
        number = shifted[tuple(rng.integers(0, cell, 2).tolist())]
        taken = rng.random(number.max(initial=-1) + 1) >= keep
        mask[number >= 0] = taken[number[number >= 0]]
    return found


def kept_average(
    values: Float[np.ndarray, " mask"], kept: Bool[np.ndarray, "mask token"]
) -> tuple[Float[np.ndarray, " token"], Float[np.ndarray, " token"]]:
    """E[s·k_j] / E[k_j] for each token j, and its standard error.

    Raises:
        MapError: A token that fewer than two masks keep.
    """
    count = kept.sum(axis=0)
    if (count < 2).any():
        raise MapError(
            f"each image token must be kept by at least 2 masks; token {int(count.argmin())} is kept by "
            f"{int(count.min())} of {len(kept)}. Raise n= or keep=."
        )
    average = values @ kept / count
    apart = np.where(kept, values[:, None] - average, 0.0)
    return average, np.sqrt((apart**2).sum(axis=0) / (count - 1) / count)
