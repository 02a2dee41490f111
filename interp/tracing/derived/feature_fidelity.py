"""How well features stand for the residual stream, or for the MLP, that they describe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.inputs.sample import Sample

__all__ = ["FeatureFidelity", "Sums"]


class Sums(NamedTuple):
    """Sums over positions, in float64, from which the explained variance of any set of them is had."""

    n: int
    error: float
    squares: float
    total: Float[np.ndarray, " hidden"] | float
    active: int

    @classmethod
    def none(cls) -> Sums:
        """Of no position."""
        return cls(0, 0.0, 0.0, 0.0, 0)

    @classmethod
    def of(
        cls, stream: Float[np.ndarray, "row hidden"], rebuilt: Float[np.ndarray, "row hidden"], active: int
    ) -> Sums:
        """Of some positions; `active` is the number of activations that are not 0."""
        wide = stream.astype(np.float64)
        error = float(((wide - rebuilt) ** 2).sum())
        return cls(len(wide), error, float((wide**2).sum()), wide.sum(axis=0), active)

    def __add__(self, other: Sums) -> Sums:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Sums(
            self.n + other.n,
            self.error + other.error,
            self.squares + other.squares,
            self.total + other.total,
            self.active + other.active,
        )

    @property
    def explained_variance(self) -> float:
        """1 − Σ|h − ĥ|² / Σ|h − mean h|²; NaN where all positions are alike."""
        if not self.n:
            return np.nan
        spread = self.squares - float(np.sum(np.square(self.total))) / self.n
        return 1 - self.error / spread if spread > 1e-12 * max(self.squares, 1e-30) else np.nan

    @property
    def l0(self) -> float:
        """The mean number of active features at a position."""
        return self.active / self.n if self.n else np.nan


@dataclass(frozen=True, eq=False, repr=False)
class FeatureFidelity:
    """How well features stand for the stream, or for the MLP's output. Made by `Features.fidelity`.

    Attributes:
        samples: One row per sample: sample, group, n_positions, explained_variance (about the sample's own mean), l0,
            plain and reconstructed (log p of the target, nats, without and with the stream replaced), change
            (reconstructed − plain; below 0: the answer lost probability).
        explained_variance: 1 − Σ|h − ĥ|² / Σ|h − mean h|² over all positions of all samples. 1 is exact, 0 is as good
            as the mean stream at every position, below 0 is worse. 1 less it is the fraction of variance unexplained,
            FVU, as transcoders are reported. A few positions of huge norm, such as the first
            token of many models, can decide it alone.
        l0: The mean number of active features at a position.
        change: The mean of the samples' change. Near 0 says that what the features leave out does not matter to this
            answer; a wrong or unsure answer can also gain.
        n_inactive: How many features were active nowhere here.
        n_features: How many there are.
    """

    samples: pd.DataFrame
    explained_variance: float
    l0: float
    change: float
    n_inactive: int
    n_features: int

    @classmethod
    def of(
        cls,
        samples: Sequence[Sample],
        sums: Sequence[Sums],
        plain: Float[np.ndarray, " sample"],
        rebuilt: Float[np.ndarray, " sample"],
        n_inactive: int,
        n_features: int,
    ) -> FeatureFidelity:
        """The report, from the sums and the scores of each sample."""
        frame = pd.DataFrame(
            {
                "sample": [one.id for one in samples],
                "group": [one.group for one in samples],
                "n_positions": [one.n for one in sums],
                "explained_variance": [one.explained_variance for one in sums],
                "l0": [one.l0 for one in sums],
                "plain": plain,
                "reconstructed": rebuilt,
                "change": rebuilt - plain,
            }
        )
        whole = sum(sums, Sums.none())
        change = float(frame.change.mean())
        return cls(frame, whole.explained_variance, whole.l0, change, n_inactive, n_features)

    def __repr__(self) -> str:
        return (
            f"FeatureFidelity({len(self.samples)} samples: explained variance {self.explained_variance:.3f}, L0 "
            f"{self.l0:.1f}, log p {self.change:+.3f} nats with the reconstruction, {self.n_inactive} of "
            f"{self.n_features} features never active)"
        )
