"""The activation of one feature of a sparse autoencoder or transcoder at each image token, as a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from interp.errors import MapError
from interp.indicators.indicator_checks import check_whole
from interp.indicators.maps import BatchIndicator, Maps, Samples, label_map
from interp.inputs.prompt import Prompt, Target
from interp.tracing import Features, Mllm

__all__ = ["FeatureMap"]


@dataclass(frozen=True)
class FeatureMap(BatchIndicator):
    """Where in the image a feature is active: its activation at each image token, one map (token), ≥ 0.

    It shows where the residual stream holds this feature, not where the model looks: it involves neither attention nor
    the answer. After the first layer a token's stream also holds what attention brought from other tokens, so a token
    where the feature is active need not lie on the object that the feature stands for. The map of a feature that is
    active nowhere is 0 everywhere, and metrics of it are NaN.

    Args:
        features: The features, as `interp.load_features` returns them.
        feature: The feature, 0-based.

    Raises:
        MapError: `features` is no `Features`, or it has no such feature.
        InterpError: When called, features of another model.
    """

    features: Features
    feature: int

    def __post_init__(self) -> None:
        if not isinstance(self.features, Features):
            raise MapError(
                "FeatureMap takes features first, as interp.load_features(path) gives them; got "
                f"{self.features!r:.200}."
            )
        check_whole("feature", self.feature, 0, most=self.features.n_features - 1)

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values, the features by their hash."""
        return {
            "indicator": "feature",
            "features_sha256": self.features.digest,
            "feature": int(self.feature),
        }

    def _together(self, mllm: Mllm, samples: Samples, prompt: Prompt | None, target: Target) -> Maps:
        mllm.need_image_rows("FeatureMap")
        trace = mllm.trace(samples, prompt=prompt, reads=self.features.reads("image")[:1])
        arrays = []
        for one, tokens in zip(trace, trace.tokens, strict=True):
            values = self.features.encode(one.reads[0].values[0], [self.feature])[:, 0]
            attrs = {"feature": int(self.feature), "layer": self.features.layer}
            arrays.append(label_map(values, tokens, f"feature {self.feature}", attrs=attrs))
        return Maps(tuple(arrays), trace.tokens, trace.cost, trace.logits)
