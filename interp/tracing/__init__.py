"""The tracing room: load a model, read and edit its attention. The only room that knows nnsight.

Names are imported when they are first used, because a run's bookkeeping takes files of this room that need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.tracing.activation_edits import (
        AblateFeature,
        AblateHeads,
        AddResidual,
        ClampFeature,
        PatchResidual,
        PatchRows,
        ReconstructResidual,
    )
    from interp.tracing.cost import Cost
    from interp.tracing.derived.head_means import head_means
    from interp.tracing.derived.outlying_norms import Sinks, norm_outliers, sinks
    from interp.tracing.derived.steering_vector import SteeringVector, load_steering_vector, steering_vector
    from interp.tracing.edits import Apply, Boost, Edit, Guide, Knockout, ScaleScores, ScaleWeights
    from interp.tracing.encoding.batch import Batch
    from interp.tracing.loading import load, wrap
    from interp.tracing.model import Mllm
    from interp.tracing.passes.decoding import ClinicalContrast, Contrast, Decoding, NoisedImage
    from interp.tracing.prefix import Prefix, Prefixes
    from interp.tracing.reads import MLP, Experts, Residual, Rows
    from interp.tracing.site import Site, image_mask, positions
    from interp.tracing.sparse_coding.features import (
        FeatureActivations,
        FeatureFidelity,
        Features,
        load_features,
    )
    from interp.tracing.target import Scores
    from interp.tracing.trace import RemoteJob, SampleTrace, Trace, load_trace

__all__ = [
    "MLP",
    "AblateFeature",
    "AblateHeads",
    "AddResidual",
    "Apply",
    "Batch",
    "Boost",
    "ClampFeature",
    "ClinicalContrast",
    "Contrast",
    "Cost",
    "Decoding",
    "Edit",
    "Experts",
    "FeatureActivations",
    "FeatureFidelity",
    "Features",
    "Guide",
    "Knockout",
    "Mllm",
    "NoisedImage",
    "PatchResidual",
    "PatchRows",
    "Prefix",
    "Prefixes",
    "ReconstructResidual",
    "RemoteJob",
    "Residual",
    "Rows",
    "SampleTrace",
    "ScaleScores",
    "ScaleWeights",
    "Scores",
    "Sinks",
    "Site",
    "SteeringVector",
    "Trace",
    "head_means",
    "image_mask",
    "load",
    "load_features",
    "load_steering_vector",
    "load_trace",
    "norm_outliers",
    "positions",
    "sinks",
    "steering_vector",
    "wrap",
]

_HOMES = {
    "sparse_coding.features": ("FeatureActivations", "FeatureFidelity", "Features", "load_features"),
    "derived.head_means": ("head_means",),
    "derived.steering_vector": ("SteeringVector", "load_steering_vector", "steering_vector"),
    "cost": ("Cost",),
    "passes.decoding": ("ClinicalContrast", "Contrast", "Decoding", "NoisedImage"),
    "edits": (
        "Apply",
        "Boost",
        "Edit",
        "Guide",
        "Knockout",
        "ScaleScores",
        "ScaleWeights",
    ),
    "encoding.batch": ("Batch",),
    "loading": (
        "load",
        "wrap",
    ),
    "model": ("Mllm",),
    "activation_edits": (
        "AblateFeature",
        "AblateHeads",
        "AddResidual",
        "ClampFeature",
        "PatchResidual",
        "PatchRows",
        "ReconstructResidual",
    ),
    "prefix": (
        "Prefix",
        "Prefixes",
    ),
    "reads": (
        "Experts",
        "MLP",
        "Residual",
        "Rows",
    ),
    "derived.outlying_norms": (
        "Sinks",
        "norm_outliers",
        "sinks",
    ),
    "site": (
        "Site",
        "image_mask",
        "positions",
    ),
    "target": ("Scores",),
    "trace": (
        "RemoteJob",
        "SampleTrace",
        "Trace",
        "load_trace",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"interp.tracing has no {name!r}; its public names are {', '.join(__all__)}.")
    value = getattr(import_module(f"interp.tracing.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
