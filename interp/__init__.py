"""Where a multimodal LLM looks, and what happens when it is made to look elsewhere.

```python
import interp

mllm = interp.load("organism")
samples = interp.data.bundled("natural", n=8)
mllm.look(samples[0]).save("look.html")  # where it looks, as a page
trace = mllm.trace(samples, reads=[interp.Rows(interp.Site(queries="last", keys="image"))])
trace[0].rows  # (layer, head, query, token)
```

Names are imported when first used: geometry, metrics and stored results need neither torch nor nnsight.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from interp import broken_torchvision, facade

if TYPE_CHECKING:
    from interp import conformance, curation, data, indicators, methods, metrics, models, reader_study, report
    from interp.errors import InterpError
    from interp.indicators import load_maps
    from interp.inputs.box_conventions import BOX_CONVENTIONS, BoxConvention
    from interp.inputs.box_text import parse_boxes
    from interp.inputs.masks import Mask
    from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Prompt, Target, diff
    from interp.inputs.sample import Box, Sample
    from interp.inputs.tokens import TokenMap, word
    from interp.methods import Answer
    from interp.models.segmenter import Segmenter
    from interp.run import runs
    from interp.study import (
        Benchmark,
        BenchmarkResult,
        Circuit,
        Grid,
        GroundedAnswer,
        HeadRanking,
        HeadRoles,
        HeadSet,
        IndicatorComparison,
        KnockoutSweep,
        LayerChoice,
        LayerSweep,
        Look,
        ModelSpec,
        ProbeSweep,
        ReasoningSweep,
        Refinement,
        StatedBoxes,
        choose_layer,
        ground,
        look,
    )
    from interp.tracing import (
        MLP,
        AblateFeature,
        AblateHeads,
        AddResidual,
        Apply,
        Boost,
        ClampFeature,
        ClinicalContrast,
        Contrast,
        Decoding,
        Experts,
        Features,
        Guide,
        Knockout,
        Mllm,
        NoisedImage,
        PatchResidual,
        PatchRows,
        Prefix,
        ReconstructResidual,
        Residual,
        Rows,
        ScaleScores,
        ScaleWeights,
        Site,
        SteeringVector,
        Trace,
        head_means,
        image_mask,
        load,
        load_features,
        load_steering_vector,
        load_trace,
        positions,
        sinks,
        steering_vector,
        wrap,
    )

__version__ = "0.1.0"
broken_torchvision.hide()  # before anything imports transformers

__all__ = [
    "BOX_CONVENTIONS",
    "GENERIC_PROMPT",
    "MLP",
    "PAPER_PROMPT",
    "AblateFeature",
    "AblateHeads",
    "AddResidual",
    "Answer",
    "Apply",
    "Benchmark",
    "BenchmarkResult",
    "Boost",
    "Box",
    "BoxConvention",
    "Circuit",
    "ClampFeature",
    "ClinicalContrast",
    "Contrast",
    "Decoding",
    "Experts",
    "Features",
    "Grid",
    "GroundedAnswer",
    "Guide",
    "HeadRanking",
    "HeadRoles",
    "HeadSet",
    "IndicatorComparison",
    "InterpError",
    "Knockout",
    "KnockoutSweep",
    "LayerChoice",
    "LayerSweep",
    "Look",
    "Mask",
    "Mllm",
    "ModelSpec",
    "NoisedImage",
    "PatchResidual",
    "PatchRows",
    "Prefix",
    "ProbeSweep",
    "Prompt",
    "ReasoningSweep",
    "ReconstructResidual",
    "Refinement",
    "Residual",
    "Rows",
    "Sample",
    "ScaleScores",
    "ScaleWeights",
    "Segmenter",
    "Site",
    "StatedBoxes",
    "SteeringVector",
    "Target",
    "TokenMap",
    "Trace",
    "choose_layer",
    "conformance",
    "curation",
    "data",
    "diff",
    "ground",
    "head_means",
    "image_mask",
    "indicators",
    "load",
    "load_features",
    "load_maps",
    "load_steering_vector",
    "load_trace",
    "look",
    "methods",
    "metrics",
    "models",
    "parse_boxes",
    "positions",
    "reader_study",
    "report",
    "runs",
    "sinks",
    "steering_vector",
    "word",
    "wrap",
]

_MODULES = (
    "conformance",
    "curation",
    "data",
    "indicators",
    "methods",
    "metrics",
    "models",
    "reader_study",
    "report",
)
_HOMES = {
    "errors": ("InterpError",),
    "methods": ("Answer",),
    "indicators": ("load_maps",),
    "inputs.box_conventions": ("BOX_CONVENTIONS", "BoxConvention"),
    "inputs.box_text": ("parse_boxes",),
    "inputs.masks": ("Mask",),
    "models.segmenter": ("Segmenter",),
    "inputs.prompt": ("GENERIC_PROMPT", "PAPER_PROMPT", "Prompt", "Target", "diff"),
    "inputs.sample": ("Box", "Sample"),
    "study": (
        "Benchmark",
        "BenchmarkResult",
        "Circuit",
        "Grid",
        "GroundedAnswer",
        "HeadRanking",
        "HeadRoles",
        "HeadSet",
        "IndicatorComparison",
        "KnockoutSweep",
        "LayerChoice",
        "LayerSweep",
        "Look",
        "ModelSpec",
        "ProbeSweep",
        "ReasoningSweep",
        "Refinement",
        "StatedBoxes",
        "choose_layer",
        "ground",
        "look",
    ),
    "inputs.tokens": ("TokenMap", "word"),
    "run": ("runs",),
    "tracing": (
        *("Apply", "Boost", "Guide", "Knockout", "PatchResidual", "PatchRows", "ScaleWeights", "ScaleScores"),
        *("Contrast", "Decoding", "Experts", "MLP", "Mllm", "Prefix", "Residual", "Rows", "Site", "Trace"),
        *("AblateFeature", "ClampFeature", "Features", "ReconstructResidual", "load_features"),
        *("AblateHeads", "AddResidual", "ClinicalContrast", "NoisedImage", "SteeringVector"),
        *("head_means", "load_steering_vector", "steering_vector"),
        *("image_mask", "load", "load_trace", "positions", "sinks", "wrap"),
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"interp.{name}")
    if name in _HOME:
        value = getattr(import_module(f"interp.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    from interp.inputs.text import meant

    raise AttributeError(
        f"interp has no {name!r}; its public names are {', '.join(__all__)}.{meant(name, __all__)}"
    )


def _look(*args: Any, **options: Any) -> Any:
    """`interp.look`, imported when it is called: what `Mllm.look` calls."""
    return __getattr__("look")(*args, **options)


facade.provide("look", _look)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
