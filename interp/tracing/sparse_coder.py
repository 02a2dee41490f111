"""The arithmetic of sparse autoencoders and transcoders: from a stream to features' activations, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError
from interp.inputs.argument_checks import check_bool, check_one_of, check_whole

__all__ = ["Activation", "CoderSite", "Scaling", "SparseCoder"]


Activation = Literal["relu", "jumprelu", "topk", "gated"]
Scaling = Literal["none", "constant_norm", "layer_norm"]
CoderSite = Literal["residual", "mlp"]
Own = TypeVar("Own", bound="SparseCoder")
Array = TypeVar("Array", Tensor, np.ndarray)

EPSILON = 1e-5
"""Added to the standard deviation under "layer_norm", as in SAELens."""
VECTORS = {"encoder_bias": "feature", "decoder_bias": "hidden"}
OPTIONAL = ("threshold", "gate_bias", "log_scale")


@dataclass(frozen=True, eq=False)
class SparseCoder:
    """Weights of a sparse autoencoder or transcoder, and its arithmetic in float32; see `interp.Features`."""

    encoder: Float[Tensor, "hidden feature"]
    encoder_bias: Float[Tensor, " feature"]
    decoder: Float[Tensor, "feature hidden"]
    decoder_bias: Float[Tensor, " hidden"]
    layer: int
    activation: Activation = "relu"
    threshold: Float[Tensor, " feature"] | None = None
    k: int | None = None
    gate_bias: Float[Tensor, " feature"] | None = None
    log_scale: Float[Tensor, " feature"] | None = None
    centred: bool = False
    rectified: bool = True
    scaling: Scaling = "none"
    site: CoderSite = "residual"
    skip: Float[Tensor, "hidden hidden"] | None = None
    name: str = ""
    _copies: dict[torch.device, Any] = field(default_factory=dict, init=False, repr=False)
    _digests: list[str] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("encoder", "encoder_bias", "decoder", "decoder_bias", "skip", *OPTIONAL):
            value = getattr(self, name)
            if value is not None or name not in (*OPTIONAL, "skip"):
                object.__setattr__(self, name, _weights(name, value))
        self._check_shapes()
        self._check_kind()

    def _check_shapes(self) -> None:
        if self.encoder.ndim != 2 or self.decoder.shape != self.encoder.T.shape:
            raise ModelError(
                "features have an encoder (hidden, feature) and a decoder (feature, hidden); got "
                f"{tuple(self.encoder.shape)} and {tuple(self.decoder.shape)}. Is it a transcoder between streams of "
                "two sizes, or between layers? These are not read."
            )
        sizes = {"hidden": self.n_hidden, "feature": self.n_features}
        for name, size in {**VECTORS, **dict.fromkeys(OPTIONAL, "feature")}.items():
            value = getattr(self, name)
            if value is not None and value.shape != (sizes[size],):
                raise ModelError(
                    f"{name} has one value for each {size}, {sizes[size]}; got shape {tuple(value.shape)}."
                )

    def _check_kind(self) -> None:
        object.__setattr__(self, "layer", check_whole("layer", self.layer, 0, ModelError))
        check_one_of("activation", self.activation, get_args(Activation), ModelError)
        check_one_of("scaling", self.scaling, get_args(Scaling), ModelError)
        check_one_of("site", self.site, get_args(CoderSite), ModelError)
        check_bool("centred", self.centred, ModelError)
        if self.site == "mlp" and (self.centred or self.scaling != "none"):
            raise ModelError(
                "a transcoder's decoder_bias belongs to the MLP's output, so it is not subtracted from the input, and "
                f"nothing is rescaled; got centred={self.centred}, scaling={self.scaling!r}. Give centred=False and "
                'scaling="none".'
            )
        if self.skip is not None and (
            self.site != "mlp" or self.skip.shape != (self.n_hidden, self.n_hidden)
        ):
            raise ModelError(
                'skip is (hidden, hidden), and only a transcoder (site="mlp") has one; got shape '
                f"{tuple(self.skip.shape)} with site={self.site!r}."
            )
        check_bool("rectified", self.rectified, ModelError)
        needs = {"jumprelu": ("threshold",), "topk": ("k",), "gated": ("gate_bias", "log_scale")}
        for kind, names in needs.items():
            for name in names:
                if (getattr(self, name) is not None) != (self.activation == kind):
                    lacks = self.activation == kind
                    raise ModelError(
                        f'only activation="{kind}" takes {name}, and it needs it; got activation={self.activation!r} '
                        f"{'without' if lacks else 'with'} {name}. {'Give it' if lacks else 'Leave it out'}."
                    )
        if self.k is not None:
            object.__setattr__(self, "k", check_whole("k", self.k, 1, ModelError, most=self.n_features))

    @property
    def n_features(self) -> int:
        """The number of features."""
        return self.encoder.shape[1]

    @property
    def n_hidden(self) -> int:
        """The hidden size: the number of values of the stream at each position."""
        return self.encoder.shape[0]

    def encode(self, stream: Array, features: Sequence[int] | None = None) -> Array:
        """The activations of features, float32 (…, feature), ≥ 0; 0 where a feature is not active.

        Args:
            stream: (…, hidden), the residual stream after the layer, or for a transcoder the input of the layer's MLP,
                as a tensor or an array.
            features: The features to return, in that order; by default all of them.

        Raises:
            ModelError: A stream of another hidden size.
        """
        own, given = self._given(stream)
        chosen = slice(None) if features is None or own.activation == "topk" else list(features)
        scaled = own._scaled(given)
        before = (scaled - own.decoder_bias if own.centred else scaled) @ own.encoder[:, chosen]
        found = own._activated(before, chosen)
        if own.activation == "topk" and features is not None:
            found = found[..., list(features)]
        return _as(stream, found)

    def decode(self, activations: Array, stream: Array | None = None) -> Array:
        """The reconstructed stream, or for a transcoder the reconstructed output of the MLP, float32 (…, hidden).

        Args:
            activations: (…, feature), the activations of every feature.
            stream: (…, hidden), what the activations were encoded from. It is needed where the autoencoder rescales its
                input, or where the transcoder has a `skip`.

        Raises:
            ModelError: Activations of another size, or no stream where one is needed.
        """
        given = torch.as_tensor(activations).float()
        own = self.on(given.device)
        if given.shape[-1] != self.n_features:
            raise ModelError(
                f"decode takes the activations of all {self.n_features} features in the last dimension; got shape "
                f"{tuple(given.shape)}."
            )
        if stream is None and self.scaling != "none":
            raise ModelError(
                f"this autoencoder rescales each position ({self.scaling}), which decode has to undo. Write "
                "decode(activations, stream)."
            )
        if stream is None and self.skip is not None:
            raise ModelError(
                "this transcoder adds a linear map of its input to what its features write. Write decode(activations, "
                "stream), with the MLP's input."
            )
        found = given @ own.decoder + own.decoder_bias
        if stream is not None and own.skip is not None:
            found = found + torch.as_tensor(stream).to(found.device).float() @ own.skip
        if stream is not None and self.scaling != "none":
            size, centre = own._scale(torch.as_tensor(stream).to(found.device).float())
            found = found * size + centre
        return _as(activations, found)

    def steps(
        self, stream: Tensor, change: Float[Tensor, "*place feature"], features: Sequence[int]
    ) -> Tensor:
        """What a change of some features' activations adds to the stream, (…, hidden)."""
        own, given = self._given(stream)
        return change @ own.decoder[list(features)] * own._scale(given)[0]

    def part(self, features: Sequence[int] | None = None) -> SparseCoder:
        """The coder of these features alone, in this order; a top-k coder keeps all features, which it has to compare.

        Args:
            features: The features to keep; None for all.
        """
        kept = None if features is None or self.k is not None else list(features)
        named = {one.name: getattr(self, one.name) for one in fields(self) if one.init}
        if kept is not None:
            named |= {name: named[name][:, kept] for name in ("encoder",)}
            rows = ("encoder_bias", "decoder", *OPTIONAL)
            named |= {name: named[name][kept] for name in rows if named[name] is not None}
        return SparseCoder(**named)

    def on(self: Own, device: torch.device) -> Own:
        """The same coder on a device; the copy is kept for later calls."""
        if self.encoder.device == device:
            return self
        if device not in self._copies:
            names = [one.name for one in fields(self) if isinstance(getattr(self, one.name), Tensor)]
            self._copies[device] = replace(self, **{name: getattr(self, name).to(device) for name in names})
        return self._copies[device]

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the weights and settings, without the name."""
        if not self._digests:
            hashed = hashlib.sha256()
            for one in fields(self):
                value = getattr(self, one.name)
                if one.name.startswith("_") or one.name == "name":
                    continue
                if (
                    one.name in ("site", "skip") and value == one.default
                ):  # so that hashes stay those of coders from before these fields
                    continue
                hashed.update(f"{one.name} {value.shape if isinstance(value, Tensor) else value}".encode())
                if isinstance(value, Tensor):
                    hashed.update(value.cpu().contiguous().numpy().data)
            self._digests.append(hashed.hexdigest())
        return self._digests[0]

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, SparseCoder) and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        kind = f"{self.activation} {self.k}" if self.k is not None else self.activation
        name = f"{self.name!r}, " if self.name else ""
        where = f"MLP of layer {self.layer}" if self.site == "mlp" else f"layer {self.layer}"
        return f"{type(self).__name__}({name}{where}, {self.n_features} features, {kind})"

    def _given(self: Own, stream: Any) -> tuple[Own, Tensor]:
        given = torch.as_tensor(stream).float()
        if given.shape[-1:] != (self.n_hidden,):
            raise ModelError(
                f"these features are of {'an MLP' if self.site == 'mlp' else 'a residual stream'} with {self.n_hidden} "
                f"values at each position; got shape {tuple(given.shape)}. They belong to another model."
            )
        return self.on(given.device), given

    def _scale(self, stream: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """What the autoencoder divides each position by, and what it subtracts before."""
        if self.scaling == "constant_norm":
            norm = stream.norm(dim=-1, keepdim=True)
            return norm / self.n_hidden**0.5, 0.0
        if self.scaling == "layer_norm":
            return stream.std(dim=-1, keepdim=True), stream.mean(dim=-1, keepdim=True)
        return 1.0, 0.0

    def _scaled(self, stream: Tensor) -> Tensor:
        size, centre = self._scale(stream)
        return (stream - centre) / (size + EPSILON if self.scaling == "layer_norm" else size)

    def _activated(self, before: Tensor, chosen: Any) -> Tensor:
        """The activations of the chosen features, from their values before bias and activation function."""
        if self.gate_bias is not None and self.log_scale is not None:
            sizes = before * self.log_scale[chosen].exp() + self.encoder_bias[chosen]
            return torch.where(before + self.gate_bias[chosen] > 0, sizes.relu(), 0.0)
        before = before + self.encoder_bias[chosen]
        if self.threshold is not None:
            return torch.where(before > self.threshold[chosen], before.relu(), 0.0)
        if self.k is not None:
            top = before.topk(self.k, dim=-1)
            values = top.values.relu() if self.rectified else top.values
            return torch.zeros_like(before).scatter(-1, top.indices, values)
        return before.relu()


def _weights(name: str, value: Any) -> Tensor:
    try:
        found = torch.as_tensor(value).detach().float().contiguous()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{name} is an array of numbers; got {type(value).__name__}.") from error
    if not torch.isfinite(found).all():
        raise ModelError(f"{name} must hold finite numbers; it holds NaN or infinity. Is the file complete?")
    return found


def _as(like: Array, found: Tensor) -> Any:
    """The values as a tensor or an array, whichever `like` is."""
    return found if isinstance(like, Tensor) else found.cpu().numpy()
