"""Edits of activations: patched rows and streams, steering vectors, ablated heads, clamped features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import EditError, ServerError
from interp.inputs.argument_checks import check_bool, check_number, check_whole
from interp.tracing.edits import AttentionEdit, Edit, Stage, Steps, check_last_of_generated, check_steps
from interp.tracing.site import Layers, Selector, Site
from interp.tracing.sparse_coder import SparseCoder
from interp.tracing.values import Values

__all__ = [
    "AblateFeature",
    "AblateHeads",
    "AddResidual",
    "ClampFeature",
    "FeatureEdit",
    "PatchResidual",
    "PatchRows",
    "ReconstructResidual",
]


_LARGEST = float(torch.finfo(torch.float32).max)


@dataclass(frozen=True)
class PatchRows(AttentionEdit):
    """Replaces the site's probabilities by given ones, after the softmax; the rest of each row stays.

    The values are what a trace of the same site reads: `trace[i].rows` of one run can be patched into another. Rows
    need not sum to 1. Keys that a row cannot see keep 0. Rows that already hold the values stay bit-equal; rows that
    were read in another kind of trace (with other samples in the batch, after a prefix or not, generating or not)
    differ by rounding.

    Args:
        site: Layers, heads, queries and keys.
        values: (layer, head, query, key) as `Rows(site)` reads, or (head, query, key) for (layer, head) pairs,
            the same for every sample; or one such array per sample, as a list or along a first axis. With steps
            "decode" or "all" they have a first dimension "step", 0 for the prompt, as in a trace that generates. The
            queries must then be "last", and steps beyond a sample's values stay as they are.
        steps: "prefill" (rows of the prompt), "decode" (the row of each generated token) or "all".

    Raises:
        EditError: Values of other dimensions or not finite, or unknown steps; when traced, values of another shape than
            the site has in a sample.
    """

    site: Site
    values: Any
    steps: Steps = "prefill"

    @property
    def stage(self) -> Stage:
        """After the softmax."""
        return "probabilities"

    unsure: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._check()
        if self.steps != "prefill" and self.site.groups[0] != ("last",):
            raise EditError(
                'PatchRows names rows of generated tokens by queries="last"; got queries='
                f'{self.site.queries!r} with steps={self.steps!r}. Write queries="last", or steps="prefill" for rows '
                "of the prompt."
            )
        ndim = (3 if self.site.pairs is not None else 4) + (self.steps != "prefill")
        object.__setattr__(self, "values", Values.of(self.values, ndim))

    def on(
        self, values: Float[Tensor, "sample head row key"], cells: Bool[Tensor, "sample _ row key"]
    ) -> Float[Tensor, "sample head row key"]:
        """Not called: the plan of each layer puts the values in.

        Raises:
            EditError: Always.
        """
        raise EditError("PatchRows works only inside a trace. Pass it as edits=[…] to mllm.trace.")

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values, the values by their hash."""
        site = self.site.to_dict()
        return {"patch_rows": {"site": site, "values_sha256": self.values.digest, "steps": self.steps}}


@dataclass(frozen=True)
class PatchResidual(Edit):
    """Replaces the residual stream after decoder layers by given vectors.

    The stream after layer l is what that layer returns, as `interp.Residual` reads it. The next layer (after the last
    one, the final norm) gets exactly that, except in Qwen3-VL: between its first layers, image features are added to
    the image tokens (deepstack) after this edit.

    Args:
        layers: "all", or decoder layers, 0-based.
        positions: Groups or `interp.positions([…])` of the prompt, unpadded; "last" with steps "decode" or "all"
            also names each generated token.
        values: (layer, position, hidden) as `Residual(layers, positions)` reads, the same for every sample; or
            one such array per sample. With steps "decode" or "all" they have a first dimension "step", the
            positions must be "last", and steps beyond a sample's values stay as they are.
        steps: "prefill" (positions of the prompt), "decode" (each generated token) or "all".

    Raises:
        EditError: Values of other dimensions or not finite, or unknown steps; when traced, values of another shape.
        SiteError: Layers or positions that are not valid, or, when traced, that do not exist.
    """

    layers: Layers
    positions: Selector | Sequence[Selector]
    values: Any
    steps: Steps = "prefill"

    def __post_init__(self) -> None:
        site = Site(layers=self.layers, queries=self.positions)
        object.__setattr__(self, "layers", site.layers)
        object.__setattr__(self, "positions", site.queries)
        check_steps(self.steps, site.groups[0])
        if self.steps != "prefill" and site.groups[0] != ("last",):
            raise EditError(
                'PatchResidual names generated tokens by positions="last"; got positions='
                f'{self.positions!r} with steps={self.steps!r}. Write positions="last", or steps="prefill" for '
                "positions of the prompt."
            )
        object.__setattr__(self, "values", Values.of(self.values, 3 + (self.steps != "prefill")))

    @property
    def site(self) -> Site:
        """Its layers and positions, as a site's layers and queries."""
        return Site(layers=self.layers, queries=self.positions)

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values, the values by their hash."""
        site = self.site.to_dict()
        where = {"layers": site["layers"], "positions": site["queries"]}
        return {"patch_residual": {**where, "values_sha256": self.values.digest, "steps": self.steps}}


@dataclass(frozen=True)
class AddResidual(Edit):
    """Adds a vector to the residual stream after decoder layers: h + α·v. Known as steering.

    The stream after layer l is what that layer returns, as `interp.Residual` reads it, so the vector reaches every
    later layer. The sum is computed in float32 and rounded once to the model's dtype. With alpha 0, or a vector of
    zeros, the output stays bit-equal.

    Args:
        layers: "all", or decoder layers, 0-based. Each of several layers adds its vector, so the later layers hold the
            sum of all earlier additions; to steer once, name one layer.
        positions: Groups or `interp.positions([…])` of the prompt, unpadded; "last" with steps "decode" or "all"
            also names each generated token.
        vector: (hidden,), the same after each layer; or (layer, hidden), one for each layer named, in that order; or a
            list of one such array per sample. In the units of the stream.
        alpha: The factor α, any finite number; a negative one steers the other way.
        steps: "prefill" (positions of the prompt), "decode" (each generated token) or "all".

    Raises:
        EditError: A vector of other dimensions or not finite, an alpha that is no finite number, unknown steps, or
            steps that need the position "last"; when traced, a vector of another size than the stream or for another
            number of layers.
        SiteError: Layers or positions that are not valid, or, when traced, that do not exist.

    Source: Turner et al. 2023 (arXiv 2308.10248); Rimsky et al. 2023 (arXiv 2312.06681) for the mean difference that
    `interp.steering_vector` takes.
    """

    layers: Layers
    positions: Selector | Sequence[Selector]
    vector: Any
    alpha: float = 1.0
    steps: Steps = "prefill"

    def __post_init__(self) -> None:
        site = Site(layers=self.layers, queries=self.positions)
        object.__setattr__(self, "layers", site.layers)
        object.__setattr__(self, "positions", site.queries)
        check_last_of_generated(self.steps, site.groups[0], "AddResidual")
        alpha = check_number("alpha", self.alpha, low=-_LARGEST, high=_LARGEST, error=EditError)
        object.__setattr__(self, "alpha", alpha)
        object.__setattr__(self, "vector", Values.of(_by_layer(self.vector), 2))

    @property
    def site(self) -> Site:
        """Its layers and positions, as a site's layers and queries."""
        return Site(layers=self.layers, queries=self.positions)

    @property
    def idle(self) -> bool:
        """Whether the edit changes no stream at all."""
        return self.alpha == 0

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values, the vector by its hash."""
        site = self.site.to_dict()
        where = {"layers": site["layers"], "positions": site["queries"]}
        what = {"vector_sha256": self.vector.digest, "alpha": self.alpha}
        return {"add_residual": {**where, **what, "steps": self.steps}}


def _by_layer(given: Any) -> Any:
    """The vector, or each vector of a list, with a first axis for layers."""
    if isinstance(given, list | tuple) and given and all(hasattr(one, "shape") for one in given):
        return [_by_layer(one) for one in given]
    flat: Any = given if hasattr(given, "ndim") else np.asarray(given, dtype=object)
    return flat[None] if flat.ndim == 1 else given


@dataclass(frozen=True)
class AblateHeads(Edit):
    """Replaces a head's whole output by zero or by a mean.

    A head's output at a position is z = Σ_key p·v over every key it sees, including generated tokens, before the output
    projection (`o_proj`; in models with a gate, before the gate). The edit sets z to 0 or to the head's mean over a
    reference set. The attention weights do not change: `interp.Rows` reads the same as without the edit.

    `interp.Knockout` is a different edit: it takes *some keys* away from a head, and under "renormalise" the head then
    attends to the other keys with full strength. `Knockout(site, "zero")` of every key gives the same z = 0 in the
    prompt, but at generated tokens it leaves the keys of other generated tokens, and this edit does not.

    Zero is not a neutral value. Heads write a constant part whatever the input, and later layers rely on it, so
    removing it overstates what the head does for this input. The mean keeps that part.

    Args:
        site: The layers, heads and queries. Its keys must be left at their default or be "all", since they have no
            effect. Queries are "last" by default: a head is then ablated only in the prompt's last row. Write
            queries="all" for every row of the prompt, and queries=["all", "last"] with steps="all" to include generated
            tokens.
        by: "zero", or "mean" to use `means`.
        means: The means for by="mean": (layer, head, dim), or (head, dim) for (layer, head) pairs, as
            `interp.head_means` gives them; or one such array per sample.
        steps: "prefill" (rows of the prompt), "decode" (the row of each generated token, queries "last") or "all".

    Raises:
        EditError: An unknown `by` or steps, a site with keys, means with "zero" or no means with "mean", or means of
            other dimensions or not finite; when traced, means of another shape than the site's heads.
        SiteError: When traced, a layer or head that does not exist, or layers without a softmax.

    Source: Zero and mean ablation as in Wang et al. 2022 (arXiv 2211.00593).
    """

    site: Site
    by: Literal["zero", "mean"] = "zero"
    means: Any = None
    steps: Steps = "prefill"

    def __post_init__(self) -> None:
        if not isinstance(self.site, Site):
            raise EditError(
                f"AblateHeads takes a Site first, such as Site(heads=[(14, 3)]); got {self.site!r}."
            )
        if self.site.groups[1] not in (("image",), ("all",)):
            raise EditError(
                f"AblateHeads removes a head's whole output, over all keys; got keys={self.site.keys!r}. Leave keys "
                "out, or hide single keys from a head with interp.Knockout(site)."
            )
        if self.site.tower is not None:
            raise EditError(
                "AblateHeads is for heads of the language model; got tower='vision'. There, "
                "interp.Knockout(Site(…, keys='all', tower='vision'), 'zero') removes a head's output."
            )
        if not isinstance(self.by, str) or self.by not in ("zero", "mean"):
            raise EditError(f'by is "zero" or "mean"; got {self.by!r}.')
        if (self.by == "mean") != (self.means is not None):
            raise EditError(
                f'by="mean" needs means=, and by="zero" takes none; got by={self.by!r} and means of type '
                f"{type(self.means).__name__}. Get means with interp.head_means(mllm, samples, site)."
            )
        check_last_of_generated(self.steps, self.site.groups[0], "AblateHeads")
        if self.means is not None:
            object.__setattr__(self, "means", Values.of(self.means, 2 if self.site.pairs is not None else 3))

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values, the means by their hash."""
        means = {} if self.means is None else {"means_sha256": self.means.digest}
        return {"ablate_heads": {"site": self.site.to_dict(), "by": self.by, **means, "steps": self.steps}}


LARGEST = float(torch.finfo(torch.float32).max)


class FeatureEdit(Edit):
    """A change of the residual stream after the layer of some features; for a transcoder, of what the layer's MLP adds.

    Attributes:
        features: The features.
        positions: The positions of the prompt; "last" also names each generated token where `steps` includes them.
    """

    features: SparseCoder
    positions: Selector | Sequence[Selector]

    @abstractmethod
    def on(
        self, stream: Float[Tensor, "cell hidden"], given: Float[Tensor, "cell hidden"] | None = None
    ) -> Float[Tensor, "cell hidden"]:
        """The changed stream at the positions, float32; for a transcoder, the changed output of the MLP.

        Args:
            stream: The stream, or for a transcoder the output of the MLP.
            given: For a transcoder, the input of the MLP.
        """

    @property
    def site(self) -> Site:
        """Its layer and positions, as a site's layers and queries."""
        return Site(layers=[self.features.layer], queries=self.positions)

    def sendable(self) -> FeatureEdit:
        """The same edit with only the weights that it needs, to be sent to a server.

        Raises:
            ServerError: The edit is at an MLP, which jobs cannot edit.
        """
        if self.features.site == "mlp":
            raise ServerError(
                "edits through transcoders run on this machine only: a job on a server cannot edit MLPs. Load the "
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
    """Sets the activation of a feature at the positions: h + (value − a)·d, where a is its own activation there.

    h is the stream after the layer, or for a transcoder what the layer's MLP adds to the stream. d is the feature's
    direction, its row of the decoder (where the autoencoder rescales, times the divisor of the position). Everything
    else in the stream stays: the other features and the error, which is what the autoencoder does not reconstruct. With
    keep_error=False the stream becomes the reconstruction with the feature clamped. The error is then lost, which
    changes answers by itself: see `ReconstructResidual`. A clamp to the activation that is already there leaves the
    output bit-equal.

    Args:
        features: The features, as `interp.load_features` gives them.
        feature: The feature, 0-based, or several features.
        value: The new activation, in the units of `Features.encode`: one for all features, or one for each.
        positions: Groups or `interp.positions([…])` of the prompt, unpadded; "last" with steps "decode" or "all" also
            names each generated token.
        steps: "prefill" (positions of the prompt), "decode" (each generated token) or "all".
        keep_error: Whether the stream keeps what the autoencoder does not reconstruct.

    Raises:
        EditError: Something other than features, a feature that does not exist or is named twice, a wrong number of
            values, values that are not finite, unknown steps, or steps that need the position "last".
        SiteError: Positions that are not valid, or, when traced, a layer that the model does not have.

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
                f"value is one number, or one number per feature, {len(chosen)} here; got {len(values)}."
            )
        limits: dict[str, Any] = {"low": -LARGEST, "high": LARGEST, "error": EditError}
        values = tuple(check_number("value", one, **limits) for one in values)
        check_bool("keep_error", self.keep_error, EditError)
        object.__setattr__(self, "feature", chosen)
        object.__setattr__(self, "value", values)

    def on(
        self, stream: Float[Tensor, "cell hidden"], given: Float[Tensor, "cell hidden"] | None = None
    ) -> Float[Tensor, "cell hidden"]:
        """The stream with the features set to their values."""
        return _clamped(self.features, stream, given, self.feature, self.value, self.keep_error)

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values, the autoencoder by its hash."""
        what = {"feature": list(_tuple(self.feature)), "value": list(_tuple(self.value))}
        return {"clamp_feature": {**self._where(), **what, "keep_error": self.keep_error}}


@dataclass(frozen=True)
class AblateFeature(FeatureEdit):
    """Removes a feature from the stream: h − a·d, as `ClampFeature` to 0. Where it is not active, nothing changes.

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
    """Replaces the stream by its reconstruction; for a transcoder, replaces what the MLP adds.

    The change of the answer says how much of what the model uses is missing from the features; `Features.fidelity`
    reports it.

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
    """The stream, or its reconstruction, with some features set to given values."""
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
        raise EditError(f"feature is one feature, or a list of different features; got {feature!r:.200}.")
    return found


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
