"""Each setting that changes a number changes its value's JSON, by which results are stored and found again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

import interp.indicators as indicators
import interp.methods as methods
import interp.metrics.scorers as scorers
import interp.tracing as tracing
import interp.tracing.word_lenses as word_lenses
import tests.tiny as tiny
from interp.indicators import (
    ActivationPatching,
    Attention,
    AttentionGradient,
    AttributionPatching,
    CentrePrior,
    EmbeddingReplacement,
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
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT
from interp.methods import CCD, HGAI, PAI, VCD, AdaptVis, ScalingVis, VGRefine, ViCrop
from interp.metrics.scorers import BertScore, Bleu1, OpenRecall, OptionLogProbability, Strict
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
    NoisedImage,
    PatchResidual,
    PatchRows,
    ReconstructResidual,
    Residual,
    Rows,
    ScaleScores,
    ScaleWeights,
    Site,
)
from interp.tracing.word_lenses import JacobianLens, LatentLens, Patchscope

LAYERS = ([1], [2], [1, 2])
STEPS = ("decode", "all")
SITES = (Site(layers=[1]), Site(heads=[1]), Site(queries="question"), Site(keys="text"))
ROWS = np.zeros((1, 1, 1, 16))
STREAM = np.zeros((1, 1, 8))
FIRST, SECOND = (one.replace(id=name) for one, name in zip(tiny.samples(), "ab", strict=False))


def features(layer: int) -> Features:
    return Features(
        encoder=torch.ones(4, 3), encoder_bias=torch.ones(3), decoder=torch.ones(3, 4), decoder_bias=torch.ones(4),
        layer=layer, activation="relu",
    )  # fmt: skip


def halved(values: Any, cells: Any) -> Any:
    return values / 2


def doubled(values: Any, cells: Any) -> Any:
    return values * 2


CLAMP = {
    "features": [features(2)],
    "feature": [1, [0, 1]],
    "positions": [("image", "last"), ("all", "last")],
    "steps": STEPS,
}
KEPT = {**CLAMP, "keep_error": [False]}
RAISED = {"site": SITES, "alpha": [0.5, -0.2], "steps": STEPS}
SCALED = {"site": SITES, "factor": [0.5, 3.0], "steps": STEPS}
FOUND = {"findings": [{"a": {"x": 0.6}}, {"b": {"x": 0.5}}], "alpha": [0.1], "beta": [0.1], "gamma": [9.0]}
GRADIENT = {"of": ["embeddings"], "times_input": [True]}

CASES: list[tuple[Any, dict[str, Any]]] = [
    (
        Attention(),
        {
            "relative_to": [GENERIC_PROMPT, PAPER_PROMPT],
            "per_head": [True],
            "layers": LAYERS,
            "queries": ["label", "after_image", "answer"],
        },
    ),
    (ValueWeightedAttention(), {"per_head": [True], "layers": LAYERS}),
    (AttentionGradient(), {"signed": [True], "per_head": [True], "layers": LAYERS}),
    (RandomMap(), {"seed": [1]}),
    (CentrePrior(), {"sigma": [0.3]}),
    (FeatureMap(features(1), 0), {"features": [features(2)], "feature": [1]}),
    (InputGradient(), GRADIENT),
    (SmoothGrad(), {**GRADIENT, "n": [3], "noise": [0.2], "seed": [1]}),
    (IntegratedGradients(), {"of": ["pixels"], "baseline": ["zero"], "steps": [8]}),
    (
        Occlusion(window=3, coarse=4),
        {"by": ["blur", "mean"], "window": [1, 5], "coarse": [None, 5], "refine": [0.5]},
    ),
    (
        RandomMasks(),
        {"removal": [PaintPixels(), HideTokens([1])], "n": [9], "cell": [2], "keep": [0.4], "seed": [1]},
    ),
    (
        ActivationPatching({"a": FIRST}),
        {"partners": [{"b": FIRST}, {"a": SECOND}], "layers": LAYERS, "block": [2]},
    ),
    (
        AttributionPatching(),
        {"layers": LAYERS, "queries": ["last"], "per_head": [True], "mode": ["zero"]},
    ),
    (HideTokens(), {"layers": LAYERS, "queries": ["last"]}),
    (TokenKnockout(), {"layers": LAYERS, "queries": ["last"]}),
    (ReplaceEmbeddings(), {"by": ["zero"]}),
    (ReplaceEmbeddings("other", FIRST), {"other": [SECOND]}),
    (EmbeddingReplacement(), {"by": ["zero"]}),
    (EmbeddingReplacement("other", FIRST), {"other": [SECOND]}),
    (PaintPixels(), {"by": ["blur", "mean"]}),
    (VisionAttention(), {"queries": ["cls"], "per_head": [True], "layers": LAYERS}),
    (VCD(), {"alpha": [0.5], "cutoff": [0.2], "step": [400], "seed": [1]}),
    (CCD({"a": {"x": 0.5}}), FOUND),
    (ClinicalContrast({"a": {"x": 0.5}}), FOUND),
    (
        PAI(),
        {"variant": ["paper"], "alpha": [0.3], "gamma": [1.2], "cutoff": [0.2], "layers": LAYERS},
    ),
    (HGAI(), {"alpha": [0.3], "layers": LAYERS}),
    (ScalingVis(0.5), {"weight": [0.8]}),
    (
        AdaptVis(),
        {"unsure_weight": [0.4], "sure_weight": [1.4], "threshold": [0.3], "decimals": [0, 2]},
    ),
    (
        VGRefine([(0, 1)]),
        {
            "heads": [[(1, 1)], [(0, 2)]],
            "layers": LAYERS,
            "variant": ["paper"],
            "percentile": [0.0, 60.0],
            "mode": ["zero"],
            "reference": ["per-head", "none"],
            "queries": ["last", "question"],
            "steps": STEPS,
            "generic": [PAPER_PROMPT],
            "epsilon": [1e-9],
            "magnitude_threshold": [0.0, 0.5],
            "triage_queries": ["after_image"],
        },
    ),
    (
        ViCrop(),
        {
            "map": ["grad_att", "pure_grad"],
            "layer": [0, 1],
            "base": [100.0, 200.0],
            "ratios": [(1.0,), (1.0, 1.2)],
            "images": ["crop"],
            "generic": [PAPER_PROMPT],
        },
    ),
    (BertScore(), {"model": ["bert"], "num_layers": [1, 2], "extract": ["first_word"]}),
    (Bleu1(), {"extract": ["first_word"]}),
    (OpenRecall(), {"clean": [True], "extract": ["first_word"]}),
    (Strict(), {"extract": ["first_word"]}),
    (OptionLogProbability(), {"normalise": ["mean"], "of": ["text"]}),
    (
        Decoding(0.5),
        {
            "temperature": [0.6],
            "top_k": [3],
            "top_p": [0.5],
            "contrast": [Contrast(), ClinicalContrast({"a": {"x": 0.5}})],
        },
    ),
    (NoisedImage(), {"step": [0], "seed": [1]}),
    (
        Contrast(),
        {"gamma": [1.2], "cutoff": [None, 0.2], "against": [NoisedImage(), NoisedImage(3), NoisedImage(seed=1)]},
    ),
    (
        Site(),
        {
            "layers": (*LAYERS, "attention"),
            "heads": [[1], [(1, 1)]],
            "queries": ["question", ("last", "question")],
            "keys": ["text", ("image", "text")],
        },
    ),
    (Site(queries="patches", keys="patches", tower="vision"), {"layers": LAYERS}),
    (Rows(), {"site": SITES, "reduce": ["head"]}),
    (Residual(), {"layers": LAYERS, "positions": ["image", "all"]}),
    (MLP(), {"layers": LAYERS, "positions": ["image", "all"], "side": ["input"]}),
    (Experts(), {"layers": LAYERS, "tokens": ["last", "all"]}),
    (Knockout(Site()), {"site": SITES, "mode": ["zero"], "steps": STEPS}),
    (ScaleWeights(Site(), 2.0), SCALED),
    (ScaleScores(Site(), 2.0), SCALED),
    (Boost(Site(), 0.2), RAISED),
    (Guide(Site(), 0.2), RAISED),
    (Apply(Site(), halved), {"site": SITES, "function": [doubled], "stage": ["scores"], "steps": STEPS}),
    (
        PatchRows(Site(layers=[0]), ROWS),
        {"site": [Site(layers=[1]), Site(layers=[0], queries="question")], "values": [ROWS + 1], "steps": STEPS},
    ),
    (
        PatchResidual([0], "last", STREAM),
        {"layers": [[1]], "positions": ["image"], "values": [STREAM + 1], "steps": STEPS},
    ),
    (
        AddResidual([0], "last", np.ones(4)),
        {
            "layers": [[1]],
            "positions": ["image"],
            "vector": [np.zeros(4)],
            "alpha": [-1.0],
            "steps": STEPS,
        },
    ),
    (AblateHeads(Site(heads=[(0, 1)])), {"site": [Site(heads=[(0, 0)])], "steps": STEPS}),
    (
        AblateHeads(Site(heads=[(0, 1)]), "mean", np.zeros((1, 4))),
        {"means": [np.ones((1, 4))], "steps": STEPS},
    ),
    (ClampFeature(features(1), 0, 2.0, "last"), {**KEPT, "feature": [1], "value": [3.0]}),
    (AblateFeature(features(1), 0, "last"), KEPT),
    (ReconstructResidual(features(1), "last"), {name: CLAMP[name] for name in ("features", "positions", "steps")}),
    (JacobianLens(corpus=["one two"]), {"corpus": [["one three"]], "max_tokens": [64]}),
    (LatentLens(["one two"]), {"corpus": [["one three"]], "candidates": ["same", [1]]}),
    (
        Patchscope(),
        {
            "prompt": ["dog->dog; ?"],
            "position": [-2, 0],
            "target_layer": [0, 1],
            "layers": LAYERS,
            "n_tokens": [1, 2],
        },
    ),
]  # fmt: skip

UNCHANGING = {"batch", "download", "device", "batch_size"}
"""Fields that change no number: how many run together, and where."""
ONE_VALUE = {("Decoding", "beams"), ("AttentionGradient", "queries")}
"""Fields that only one value is allowed in."""
ELSEWHERE = {("AblateHeads", "by"), ("JacobianLens", "file"), ("JacobianLens", "digest"), ("Site", "tower")}
"""Fields that change together with another field's, tested where their values are."""


@pytest.mark.parametrize(("base", "others"), CASES, ids=[type(one).__name__ for one, _ in CASES])
def test_each_setting_tells_results_apart(base: Any, others: dict[str, Any]) -> None:
    made = [base, *(replace(base, **{name: one}) for name, some in others.items() for one in some)]
    described = [json.dumps(one.to_dict(), sort_keys=True) for one in made]
    assert [one for one, own in zip(made, described, strict=True) if described.count(own) > 1] == []
    for name in {"batch", "batch_size"} & {one.name for one in fields(base)}:
        assert replace(base, **{name: 3}).to_dict() == base.to_dict()


DEFAULTS: dict[type, dict[str, Any]] = {
    Attention: {"relative_to": None, "per_head": False, "layers": "all", "queries": "last"},
    ValueWeightedAttention: {"per_head": False, "layers": "all"},
    AttentionGradient: {"signed": False, "per_head": False, "layers": "all", "queries": "last"},
    VisionAttention: {"queries": "patches", "per_head": False, "layers": "all"},
    RandomMap: {"seed": 0},
    CentrePrior: {"sigma": 0.25},
    InputGradient: {"of": "pixels", "times_input": False},
    SmoothGrad: {"of": "pixels", "n": 16, "noise": 0.15, "times_input": False, "seed": 0},
    IntegratedGradients: {"of": "embeddings", "baseline": "mean", "steps": 32},
    Occlusion: {"by": "grey", "window": 1, "coarse": None, "refine": 0.25, "batch": 32},
    RandomMasks: {"removal": HideTokens(), "n": 500, "cell": 3, "keep": 0.5, "seed": 0, "batch": 32},
    AttributionPatching: {
        "layers": "all",
        "queries": "after_image",
        "per_head": False,
        "mode": "renormalise",
    },
    HideTokens: {"layers": "all", "queries": "after_image"},
    TokenKnockout: {"layers": "all", "queries": "after_image", "batch": 32},
    ReplaceEmbeddings: {"by": "mean", "other": None},
    EmbeddingReplacement: {"by": "mean", "other": None, "batch": 32},
    PaintPixels: {"by": "grey"},
    VCD: {"alpha": 1.0, "cutoff": 0.1, "step": 500, "seed": 0},
    PAI: {"variant": "code", "alpha": None, "gamma": 1.1, "cutoff": 0.1, "layers": None},
    HGAI: {"alpha": 0.5, "layers": None},
    AdaptVis: {"unsure_weight": 0.5, "sure_weight": 1.5, "threshold": 0.4, "decimals": None},
    ViCrop: {
        "map": "rel_att",
        "layer": None,
        "base": None,
        "ratios": (1.0, 1.2, 1.4, 1.6, 1.8, 2.0),
        "images": "both",
        "generic": None,
    },
    Bleu1: {"extract": "whole"},
    OpenRecall: {"clean": False, "extract": "whole"},
    Strict: {"extract": "whole"},
    OptionLogProbability: {"normalise": "sum", "of": "letter"},
    Decoding: {"temperature": 0.0, "top_k": None, "top_p": None, "contrast": None, "beams": 1},
    NoisedImage: {"step": 500, "seed": 0},
    Contrast: {"gamma": 1.1, "cutoff": 0.1, "against": "no image"},
    Rows: {"site": Site(), "reduce": None},
    Patchscope: {
        "prompt": "cat->cat; 1135->1135; hello->hello; ?",
        "position": -1,
        "target_layer": None,
        "layers": "all",
        "n_tokens": None,
    },
}
"""The settings that the docstrings name, most of them a source's own."""


@pytest.mark.parametrize("kind", DEFAULTS)
def test_default_settings_are_those_documented(kind: type) -> None:
    made = kind()
    assert {one.name: getattr(made, one.name) for one in fields(made)} == DEFAULTS[kind]


def described_kinds() -> Iterator[type]:
    """The public dataclasses that results are stored by."""
    for room in (indicators, methods, scorers, tracing, word_lenses):
        for name in room.__all__:
            kind = getattr(room, name)
            if isinstance(kind, type) and is_dataclass(kind) and hasattr(kind, "to_dict"):
                yield kind


def test_every_field_of_every_kind_is_tried() -> None:
    tried = {(type(base).__name__, name) for base, others in CASES for name in others}
    known = {(kind.__name__, one.name) for kind in described_kinds() for one in fields(kind)}
    left = {(kind, name) for kind, name in known - tried if name not in UNCHANGING}
    assert left == ONE_VALUE | ELSEWHERE
