"""RISE: many tokens taken away at random, and what the answer keeps when a token is among those left."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import product
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from interp.errors import MapError
from interp.indicators.argument_checks import check_whole
from interp.indicators.maps import Maps, Samples, each, labelled
from interp.indicators.removals import HideTokens, Removal
from interp.indicators.token_windows import blocks
from interp.inputs.prompt import PAPER_PROMPT, Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing import Cost, Mllm

__all__ = ["RandomMasks", "kept_average", "random_masks"]


@dataclass(frozen=True)
class RandomMasks:
    """The target's mean over random masks that leave a token, less its mean over all masks: (token) maps, nats.

    R_j = E[s·k_j] / E[k_j] − E[s], where s is the target's value under a mask and k_j whether the mask leaves token j.
    RISE's own map is R + `attrs["mean"]`; the difference is one number for all tokens, and what is left is positive
    where a token helps. Masks leave or take whole cells of `cell` × `cell` tokens of a lattice that is shifted at
    random for each mask (RISE blurs the cells' edges; tokens are here or gone). Tokens without footprint are never
    taken: they hold 0.

    `attrs["standard_error"]` holds each token's standard error, of the mean over the masks that leave it; a map whose
    values are not several times larger needs more masks. Tokens of several views that show one place go together.

    Args:
        removal: how tokens are taken away.
        n: how many masks.
        cell: side of the cells in tokens.
        keep: probability that a cell is left, in (0, 1).
        seed: of the masks; each sample draws its own, by its id.
        batch: variants side by side; no number depends on it.

    Raises:
        MapError: Values that make no sense; when called, a token that fewer than two masks leave.

    Source: Petsiuk et al., RISE, arXiv 1806.07421.
    """

    removal: Removal = HideTokens()  # noqa: RUF009 – a frozen value
    n: int = 500
    cell: int = 3
    keep: float = 0.5
    seed: int = 0
    batch: int = field(default=32, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.removal, Removal):
            raise MapError(
                f"removal is a way to take tokens away, such as HideTokens(); got {self.removal!r}."
            )
        for name, least in (("n", 2), ("cell", 1), ("seed", 0)):
            check_whole(f"{name} of RandomMasks", getattr(self, name), least)
        if isinstance(self.keep, bool) or not isinstance(self.keep, Real) or not 0 < self.keep < 1:
            raise MapError(f"keep is a probability in (0, 1); got {self.keep!r}.")

    def __call__(
        self,
        mllm: Mllm,
        samples: Samples,
        *,
        prompt: Prompt = PAPER_PROMPT,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
    ) -> Maps:
        """The maps of these samples, one by one: `n` variants of each."""

        def one(sample: Sample, tokens: TokenMap) -> tuple[xr.DataArray, Cost]:
            digest = hashlib.sha256(sample.id.encode()).digest()
            rng = np.random.default_rng([self.seed, int.from_bytes(digest[:8], "big")])
            removed = random_masks(tokens, self.n, self.cell, float(self.keep), rng)
            found = self.removal.scores(mllm, sample, removed, prompt=prompt, target=target, batch=self.batch)
            average, error = kept_average(found.values, ~removed)
            mean = float(found.values.mean())
            attrs = {"plain": found.plain, "mean": mean, "standard_error": error}
            return labelled(average - mean, tokens, "random masks", attrs=attrs), found.cost

        return each(mllm, samples, prompt, one)

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values."""
        numbers = {"n": self.n, "cell": self.cell, "keep": float(self.keep), "seed": self.seed}
        return {"indicator": "random masks", "removal": self.removal.to_dict(), **numbers}


def random_masks(
    tokens: TokenMap, n: int, cell: int, keep: float, rng: np.random.Generator
) -> Bool[np.ndarray, "mask token"]:
    """Masks that are True where a token is taken away, cell by cell with probability 1 − keep."""
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
        MapError: A token that fewer than two masks leave.
    """
    count = kept.sum(axis=0)
    if (count < 2).any():
        raise MapError(
            f"image token {int(count.argmin())} is left by {int(count.min())} of {len(kept)} masks; its mean needs two "
            "or more. Raise n= or keep=."
        )
    average = values @ kept / count
    apart = np.where(kept, values[:, None] - average, 0.0)
    return average, np.sqrt((apart**2).sum(axis=0) / (count - 1) / count)
