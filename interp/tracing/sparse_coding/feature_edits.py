"""Edits of the residual stream, or of what an MLP adds to it, through features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import EditError, ServerError
from interp.inputs.argument_checks import check_bool, check_number, check_whole
from interp.tracing.edits import Edit, Steps, check_last_of_generated
from interp.tracing.site import Selector, Site
from interp.tracing.sparse_coding.coder import SparseCoder

__all__ = ["AblateFeature", "ClampFeature", "FeatureEdit", "ReconstructResidual"]

LARGEST = float(torch.finfo(torch.float32).max)


class FeatureEdit(Edit):
    """A change of the residual stream after the layer of some features, of a transcoder of what the layer's MLP adds.

    Attributes:
        features: The features.
        positions: The positions of the prompt; "last" is also each generated token where `steps` says so.
    """

    features: SparseCoder
    positions: Selector | Sequence[Selector]

    @abstractmethod
    def on(
        self, stream: Float[Tensor, "cell hidden"], given: Float[Tensor, "cell hidden"] | None = None
    ) -> Float[Tensor, "cell hidden"]:
        """The changed stream of the positions, float32; of a transcoder the MLP's output, whose input is `given`."""

    @property
    def site(self) -> Site:
        """Its layer and positions, as a site's layers and queries."""
        return Site(layers=[self.features.layer], queries=self.positions)

    def sendable(self) -> FeatureEdit:
        """The same edit with the weights it needs and no more, for a server.

        Raises:
            ServerError: The edit is at an MLP, where jobs do no work.
        """
        if self.features.site == "mlp":
            raise ServerError(
                "edits through transcoders run on this machine alone: a job on a server does no work at MLPs. Load the "
                "model without remote=True, or steer with interp.AddResidual and the feature's row of `decoder`."
            )
        chosen = getattr(self, "feature", None)
        few = chosen is not None and getattr(self, "keep_error", False)
        parts = self.features.part(_tuple(chosen) if few else None)
        renamed = {"feature": tuple(range(len(_tuple(chosen))))} if few and parts.k is None else {}
        own: Any = self  # a dataclass, as every kind of such an edit is
        return replace(own, features=parts, **renamed)

    def _check(self) -> None:
        name = type(self).__name__
        if not isinstance(self.features, SparseCoder):
            raise EditError(
                f"{name} takes features first, as interp.load_features(path) gives them; got {self.features!r:.200}."
            )
        object.__setattr__(self, "positions", self.site.queries)
        check_last_of_generated(self.steps, self.site.groups[0], name)

    def _where(self) -> dict[str, Any]:
        return {
            "features_sha256": self.features.digest,
            "positions": self.site.to_dict()["queries"],
            "steps": self.steps,
        }


@dataclass(frozen=True)
class ClampFeature(FeatureEdit):
    """Sets the activation of a feature at every position named: h + (value − a)·d, with a the feature's own there.

    h is the stream after the layer, of a transcoder what the layer's MLP adds to the stream.
    d is the feature's direction, its row of the decoder (times what the autoencoder divided the position by, where it
    rescales). All else in the stream stays: the other features, and the error, what the autoencoder does not
    reconstruct. With keep_error=False the stream becomes the reconstruction with the feature clamped, so the error is
    lost too, which changes answers by itself: see `ReconstructResidual`. A clamp to the activation that is there
    leaves the output bit-equal.

    Args:
        features: As `interp.load_features` gives them.
        feature: The feature, 0-based, or several.
        value: Its new activation, in the units of `Features.encode`; one for all features, or one for each.
        positions: Groups or `interp.positions([…])` of the prompt, unpadded; "last" with steps "decode" or "all" also
            names each generated token.
        steps: "prefill" (positions of the prompt), "decode" (each generated token) or "all".
        keep_error: Whether what the autoencoder does not reconstruct stays.

    Raises:
        EditError: Features that are none, a feature that is not there or is named twice, values of another number or
            not finite, unknown steps, or steps that need the position "last".
        SiteError: Positions that are none, or, when traced, a layer that the model does not have.

    Source: Templeton et al. 2024, Scaling Monosemanticity (transformer-circuits.pub), which clamps features and keeps
    the error.
    """

    features: SparseCoder
    feature: int | Sequence[int]
    value: float | Sequence[float]
    positions: Selector | Sequence[Selector] = "all"
    steps: Steps = "prefill"
    keep_error: bool = True

    def __post_init__(self) -> None:
        self._check()
        chosen = _chosen(self.features, self.feature)
        values = self.value if isinstance(self.value, Sequence | np.ndarray) else [self.value] * len(chosen)
        if len(values) != len(chosen):
            raise EditError(
                f"value is one number, or one for each of {len(chosen)} features; got {len(values)}."
            )
        limits: dict[str, Any] = {"low": -LARGEST, "high": LARGEST, "error": EditError}
        values = tuple(check_number("value", one, **limits) for one in values)
        check_bool("keep_error", self.keep_error, EditError)
        object.__setattr__(self, "feature", chosen)
        object.__setattr__(self, "value", values)

    def on(
        self, stream: Float[Tensor, "cell hidden"], given: Float[Tensor, "cell hidden"] | None = None
    ) -> Float[Tensor, "cell hidden"]:
        """The stream with the features at their values."""
        return _clamped(self.features, stream, given, self.feature, self.value, self.keep_error)

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values, the autoencoder by its hash."""
        what = {"feature": list(_tuple(self.feature)), "value": list(_tuple(self.value))}
        return {"clamp_feature": {**self._where(), **what, "keep_error": self.keep_error}}


@dataclass(frozen=True)
class AblateFeature(FeatureEdit):
    """Takes a feature out of the stream: h − a·d. `ClampFeature` to 0; where it is not active nothing changes.

    Args:
        features, feature, positions, steps, keep_error: As in `ClampFeature`.

    Raises:
        EditError, SiteError: As in `ClampFeature`.
    """

    features: SparseCoder
    feature: int | Sequence[int]
    positions: Selector | Sequence[Selector] = "all"
    steps: Steps = "prefill"
    keep_error: bool = True

    def __post_init__(self) -> None:
        self._check()
        check_bool("keep_error", self.keep_error, EditError)
        object.__setattr__(self, "feature", _chosen(self.features, self.feature))

    def on(
        self, stream: Float[Tensor, "cell hidden"], given: Float[Tensor, "cell hidden"] | None = None
    ) -> Float[Tensor, "cell hidden"]:
        """The stream without the features."""
        zeros = (0.0,) * len(_tuple(self.feature))
        return _clamped(self.features, stream, given, self.feature, zeros, self.keep_error)

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values, the autoencoder by its hash."""
        what = {"feature": list(_tuple(self.feature)), "keep_error": self.keep_error}
        return {"ablate_feature": {**self._where(), **what}}


@dataclass(frozen=True)
class ReconstructResidual(FeatureEdit):
    """Puts the reconstruction in the place of the stream, of a transcoder in that of what the MLP adds.

    How far the answer moves says how much of what the model uses the features leave out; `Features.fidelity` reports
    it.

    Args:
        features, positions, steps: As in `ClampFeature`.

    Raises:
        EditError, SiteError: As in `ClampFeature`.
    """

    features: SparseCoder
    positions: Selector | Sequence[Selector] = "all"
    steps: Steps = "prefill"

    def __post_init__(self) -> None:
        self._check()

    def on(
        self, stream: Float[Tensor, "cell hidden"], given: Float[Tensor, "cell hidden"] | None = None
    ) -> Float[Tensor, "cell hidden"]:
        """The reconstruction."""
        read = stream if given is None else given
        return self.features.decode(self.features.encode(read), read)

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values, the autoencoder by its hash."""
        return {"reconstruct_residual": self._where()}


def _clamped(
    features: SparseCoder, stream: Tensor, given: Tensor | None, feature: Any, value: Any, keep_error: bool
) -> Tensor:
    """The stream, or its reconstruction, with some features at given values."""
    chosen = list(_tuple(feature))
    stream = stream.float()
    read = stream if given is None else given.float()
    values = torch.tensor(_tuple(value), device=stream.device, dtype=torch.float32)
    if keep_error:
        return stream + features.steps(read, values - features.encode(read, chosen), chosen)
    activations = features.encode(read)
    activations[..., chosen] = values
    return features.decode(activations, read)


def _chosen(features: SparseCoder, feature: Any) -> tuple[int, ...]:
    given = (
        list(feature)
        if isinstance(feature, Sequence | np.ndarray) and not isinstance(feature, str)
        else [feature]
    )
    found = tuple(check_whole("feature", one, 0, EditError, most=features.n_features - 1) for one in given)
    if not found or len(set(found)) < len(found):
        raise EditError(f"feature names each feature once, and one at least; got {feature!r:.200}.")
    return found


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
