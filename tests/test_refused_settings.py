"""Each setting of each indicator, method, scorer, removal, decoding and lens refuses the values beside its range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import tests.tiny as tiny
from interp.errors import InterpError
from interp.indicators import (
    ActivationPatching,
    Attention,
    AttentionGradient,
    AttributionPatching,
    CentrePrior,
    FeatureMap,
    HideTokens,
    InputGradient,
    IntegratedGradients,
    Occlusion,
    PaintPixels,
    RandomMap,
    RandomMasks,
    ReplaceEmbeddings,
    SmoothGrad,
    TokenKnockout,
    ValueWeightedAttention,
    VisionAttention,
)
from interp.methods import CCD, HGAI, PAI, VCD, AdaptVis, ScalingVis, VGRefine, ViCrop
from interp.metrics.scorers import BertScore, Bleu1, OpenRecall, OptionLogProbability, Strict
from interp.tracing import (
    AddResidual,
    Boost,
    ClinicalContrast,
    Contrast,
    Decoding,
    Features,
    Guide,
    Knockout,
    NoisedImage,
    Rows,
    ScaleScores,
    ScaleWeights,
    Site,
)
from interp.tracing.word_lenses import JacobianLens, LatentLens, Patchscope

NAN, INF = np.nan, np.inf
FLAG = (1, None, "yes")
LAYERS = ([], "some", 1.5, [1.5], [True], [-1])
SEED = (-1, 0.5, True, None)
COUNT = (0, -1, 1.5, True, "2")
POSITIVE = (0, -1, NAN, INF, True, "1")
AT_LEAST_0 = (-0.1, NAN, INF, True, "1")
SHARE = (-0.1, 1.1, NAN, True)
NAMES = ("other", 3, None)
FINDINGS = {"a": {"x": 0.5}}


def clinical(**settings: Any) -> ClinicalContrast:
    return ClinicalContrast(**{"findings": FINDINGS, **settings})


def ccd(**settings: Any) -> CCD:
    return CCD(**{"findings": FINDINGS, **settings})


def refine(**settings: Any) -> VGRefine:
    return VGRefine([(0, 1)], **settings)


def patching(**settings: Any) -> ActivationPatching:
    return ActivationPatching(**{"partners": {"a": tiny.sample()}, **settings})


def feature_map(**settings: Any) -> FeatureMap:
    two = Features(torch.ones(3, 2), torch.ones(2), torch.ones(2, 3), torch.ones(3), layer=0)
    return FeatureMap(**{"features": two, "feature": 0, **settings})


def of_site(kind: Callable[..., Any], *more: Any) -> Callable[..., Any]:
    return lambda **settings: kind(Site(), *more, **settings)


FOUND = {
    "findings": ({}, 3, {"a": 0.5}, {"a": {"x": 1.1}}, {"a": {"x": -0.1}}),
    "alpha": SHARE,
    "beta": SHARE,
    "gamma": (0, -1, NAN, INF),
}
STEPS = ("later", None, 3)

CASES: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (
        Attention,
        {"relative_to": ("text", 3), "per_head": FLAG, "layers": LAYERS, "queries": ("all", None, 3)},
    ),
    (ValueWeightedAttention, {"per_head": FLAG, "layers": LAYERS}),
    (AttentionGradient, {"signed": FLAG, "per_head": FLAG, "layers": LAYERS, "queries": ("image", None)}),
    (VisionAttention, {"queries": NAMES, "per_head": FLAG, "layers": LAYERS}),
    (AttributionPatching, {"layers": LAYERS, "queries": NAMES, "per_head": FLAG, "mode": NAMES}),
    (patching, {"partners": ({}, 3, "a", [1], {"a": "b"}), "layers": LAYERS, "block": COUNT, "batch": COUNT}),
    (RandomMap, {"seed": SEED}),
    (CentrePrior, {"sigma": POSITIVE}),
    (InputGradient, {"of": NAMES, "times_input": FLAG}),
    (SmoothGrad, {"of": NAMES, "n": COUNT, "noise": POSITIVE, "times_input": FLAG, "seed": SEED}),
    (IntegratedGradients, {"of": NAMES, "baseline": NAMES, "steps": COUNT}),
    (feature_map, {"features": (None, 3), "feature": (2, -1, 0.5, True)}),
    (Occlusion, {"by": NAMES, "window": (*COUNT, 2, 4), "coarse": (*COUNT, 1), "refine": (0, *SHARE)}),
    (
        RandomMasks,
        {"removal": NAMES, "n": (*COUNT, 1), "cell": COUNT, "keep": (0, 1, *SHARE), "seed": SEED},
    ),
    (HideTokens, {"layers": LAYERS, "queries": NAMES}),
    (TokenKnockout, {"layers": LAYERS, "queries": NAMES}),
    (ReplaceEmbeddings, {"by": ("blur", None, "other"), "other": (tiny.sample(), 3)}),
    (PaintPixels, {"by": ("zero", None)}),
    (VCD, {"alpha": AT_LEAST_0, "cutoff": (0, *SHARE), "step": (-1, 1000, 0.5), "seed": SEED}),
    (ccd, FOUND),
    (clinical, FOUND),
    (
        PAI,
        {
            "variant": NAMES,
            "alpha": AT_LEAST_0,
            "gamma": (NAN, INF, True),
            "cutoff": (0, *SHARE),
            "layers": (*LAYERS, "all"),
        },
    ),
    (HGAI, {"alpha": (*AT_LEAST_0, None), "layers": (*LAYERS, "all")}),
    (ScalingVis, {"weight": (*AT_LEAST_0, None)}),
    (
        AdaptVis,
        {"unsure_weight": AT_LEAST_0, "sure_weight": AT_LEAST_0, "threshold": SHARE, "decimals": (-1, 0.5)},
    ),
    (
        refine,
        {
            "layers": (*LAYERS, "all"),
            "variant": NAMES,
            "percentile": (-0.1, 100.1, NAN, True),
            "mode": ("drop", 3),
            "reference": ("mean", 3),
            "queries": ([], 3),
            "steps": ("later", 3),
            "generic": ("text", None),
            "epsilon": POSITIVE,
            "magnitude_threshold": SHARE,
            "triage_queries": NAMES,
        },
    ),
    (
        ViCrop,
        {
            "map": NAMES,
            "layer": (-1, 0.5, True),
            "base": (*POSITIVE, 1.5),
            "ratios": ([], "1", 1.0, [0], [1, -1], [1, NAN]),
            "images": NAMES,
            "generic": ("text", 3),
        },
    ),
    (
        BertScore,
        {"model": ("", 3), "num_layers": COUNT, "batch_size": COUNT, "download": FLAG, "extract": NAMES},
    ),
    (Bleu1, {"extract": NAMES}),
    (Strict, {"extract": NAMES}),
    (OpenRecall, {"clean": FLAG, "extract": NAMES}),
    (OptionLogProbability, {"normalise": NAMES, "of": NAMES}),
    (
        lambda **settings: Decoding(**{"temperature": 0.5, **settings}),
        {
            "temperature": (-1, 1e-4, NAN, True, "1"),
            "top_k": (0, -1, 1.5, True),
            "top_p": (0, 1.1, NAN, True),
            "contrast": ("text", 3),
            "beams": (0, 2, True, 1.5),
        },
    ),
    (NoisedImage, {"step": (-1, 1000, 0.5, True), "seed": SEED}),
    (Contrast, {"gamma": (NAN, INF, "1"), "cutoff": (0, *SHARE), "against": ("text", None)}),
    (Site, {"layers": LAYERS, "heads": ([], "some", [-1], [True]), "tower": ("text", 3)}),
    (Rows, {"reduce": ("mean", 3)}),
    (of_site(Knockout), {"mode": NAMES, "steps": STEPS}),
    (of_site(ScaleWeights), {"factor": (*AT_LEAST_0, None)}),
    (of_site(ScaleScores), {"factor": (*AT_LEAST_0, None)}),
    (of_site(ScaleScores, 2.0), {"steps": STEPS}),
    (of_site(Boost), {"alpha": (NAN, INF, True, None)}),
    (of_site(Guide), {"alpha": (NAN, INF, True, None)}),
    (of_site(Guide, 2.0), {"steps": STEPS}),
    (
        lambda **settings: AddResidual([0], "last", np.ones(4), **settings),
        {"alpha": (NAN, INF, True, None), "steps": STEPS},
    ),
    (JacobianLens, {"corpus": ([], 3), "max_tokens": (17, 0, 18.5, True)}),
    (LatentLens, {"corpus": ([], 3), "candidates": ([], "some", [-2], [True], 1.5)}),
    (
        Patchscope,
        {
            "prompt": ("", " ", 3),
            "position": (0.5, True, None),
            "target_layer": (-2, 0.5, True),
            "layers": ([], "same", [-2], [True], 1.5),
            "n_tokens": COUNT,
        },
    ),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("place", range(len(CASES)))
def test_values_beside_the_range_of_a_setting_are_refused(place: int) -> None:
    make, settings = CASES[place]
    accepted = []
    for name, values in settings.items():
        for wrong in values:
            try:
                accepted.append((make(**{name: wrong}), wrong))
            except InterpError:
                continue
    assert accepted == []
