"""Where features are active: their activations at the tokens of samples, kept sparse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.sparse import csr_array

from interp.inputs.argument_checks import check_one_of, check_whole
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing.cost import Cost

__all__ = ["FeatureActivations"]


@dataclass(frozen=True, eq=False, repr=False)
class FeatureActivations(Sequence[xr.DataArray]):
    """Activations of every feature at some tokens of each sample. Made by `Features.read`.

    `found[i]` is a DataArray (token, feature) of sample i, dense, float32, ≥ 0, with the tokens' unpadded "position";
    of many features take `found.sparse[i]`, a SciPy CSR array of the same.

    Attributes:
        sparse: (token, feature) of each sample, without its zeros.
        positions: Each sample's positions in its prompt, unpadded; tokens are numbered along them.
        tokens: Where each sample's tokens are; `tokens[i].footprints` are in pixels of the image.
        samples: The samples.
        cost: Of the trace.
        features: What was read, for people.
    """

    sparse: tuple[csr_array, ...]
    positions: tuple[np.ndarray, ...]
    tokens: tuple[TokenMap, ...]
    samples: tuple[Sample, ...]
    cost: Cost
    features: str

    def __len__(self) -> int:
        return len(self.sparse)

    def __getitem__(self, index: Any) -> Any:
        coords = {"position": ("token", self.positions[index])}
        return xr.DataArray(
            self.sparse[index].toarray(), dims=["token", "feature"], coords=coords, name="activation"
        )

    @property
    def n_features(self) -> int:
        """How many features there are."""
        return _shape(self.sparse[0])[1]

    def of(self, feature: int) -> tuple[np.ndarray, ...]:
        """The activations of one feature at each sample's tokens, (token,) each.

        Raises:
            MapError: A feature that is not there.
        """
        column = check_whole("feature", feature, 0, most=self.n_features - 1)
        return tuple(one[:, [column]].toarray()[:, 0] for one in self.sparse)

    def top_samples(self, feature: int, n: int = 8, by: str = "max") -> pd.DataFrame:
        """The samples in which a feature is most active, first the most.

        Columns: place (among the samples read), sample, group, value, position (of the token where it is most active),
        share (of its tokens where it is active). Samples where it is nowhere active are left out. The ends of a
        distribution look cleaner than what lies between: look at weaker activations too before naming a feature.

        Args:
            feature: The feature, 0-based.
            n: How many samples at most.
            by: "max", its largest activation in the sample, or "mean", over the sample's tokens.

        Raises:
            MapError: A feature that is not there, or another `by`.
        """
        check_one_of("by", by, ("max", "mean"))
        n = check_whole("n", n, 1)
        rows = []
        for place, values in enumerate(self.of(feature)):
            sample = self.samples[place]
            if values.any():
                rows.append(
                    {
                        "place": place,
                        "sample": sample.id,
                        "group": sample.group,
                        "value": float(values.max() if by == "max" else values.mean()),
                        "position": int(self.positions[place][values.argmax()]),
                        "share": float((values != 0).mean()),
                    }
                )
        columns = ["place", "sample", "group", "value", "position", "share"]
        found = pd.DataFrame(rows, columns=columns).sort_values("value", ascending=False, kind="stable")
        return found.head(n).reset_index(drop=True)

    def top_features(self, n: int = 20) -> pd.DataFrame:
        """The features that are most active over all tokens of all samples, first the most.

        Columns: feature, mean (over tokens, zeros included), max, share (of tokens where it is active), samples (where
        it is active somewhere).
        """
        n = check_whole("n", n, 1)
        n_tokens = sum(_shape(one)[0] for one in self.sparse)
        total, most, active, samples = np.zeros((4, self.n_features))
        for one in self.sparse:
            columns, values = one.indices, one.data
            np.add.at(total, columns, values)
            np.maximum.at(most, columns, values)
            counts = np.bincount(columns, minlength=self.n_features)
            active, samples = active + counts, samples + (counts > 0)
        order = np.argsort(-total, kind="stable")[:n]
        return pd.DataFrame(
            {
                "feature": order,
                "mean": total[order] / n_tokens,
                "max": most[order],
                "share": active[order] / n_tokens,
                "samples": samples[order].astype(int),
            }
        )

    def to_dataframe(self) -> pd.DataFrame:
        """One row per activation that is not 0: sample (its place), token, position, feature, activation."""
        frames = []
        for place, one in enumerate(self.sparse):
            own = one.tocoo()
            row, column = own.coords
            where = {"sample": place, "token": row, "position": self.positions[place][row]}
            frames.append(pd.DataFrame({**where, "feature": column, "activation": own.data}))
        return pd.concat(frames, ignore_index=True)

    def __repr__(self) -> str:
        n_tokens = sum(_shape(one)[0] for one in self.sparse)
        active = sum(one.nnz for one in self.sparse) / max(n_tokens, 1)
        return (
            f"FeatureActivations({len(self)} samples, {n_tokens} tokens, {self.n_features} features, {active:.1f} "
            f"active at a token; {self.features})"
        )


def _shape(one: csr_array) -> tuple[int, int]:
    """(token, feature)."""
    rows, columns = one.shape  # pyright: ignore[reportGeneralTypeIssues]
    return int(rows), int(columns)
