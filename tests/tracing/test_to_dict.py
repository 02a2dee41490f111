"""Every field of reads, edits and decodings is in their JSON, so that two studies never share a hash."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.tracing import Decoding, Site, image_mask, positions
from interp.tracing.passes.decoding import ClinicalContrast, Contrast, NoisedImage


def coder(scale: float = 1.0) -> Any:
    weights = {"encoder": torch.ones(4, 3), "encoder_bias": torch.zeros(3)}
    weights |= {"decoder": torch.ones(3, 4) * scale, "decoder_bias": torch.zeros(4)}
    return interp.Features(**weights, layer=1)


def double(values: Any, cells: Any) -> Any:
    return values * 2


def halve(values: Any, cells: Any) -> Any:
    return values / 2


SITE, OTHER = Site(layers=[1]), Site(layers=[2])
FACTOR = {"site": OTHER, "factor": 3.0, "steps": "all"}
ALPHA = {"site": OTHER, "alpha": 3.0, "steps": "all"}
OF_FEATURES = {"features": coder(2), "feature": [2], "positions": "last", "keep_error": False}
STREAM = np.ones((1, 1, 4))
CASES: list[tuple[Any, dict[str, Any]]] = [
    (
        SITE,
        {
            "layers": [2],
            "heads": [1],
            "queries": positions([3]),
            "keys": image_mask([True, False]),
        },
    ),
    (Site([1], queries="all", keys="all"), {"tower": "vision"}),
    (interp.Rows(SITE), {"site": OTHER, "reduce": "head"}),
    (interp.Residual([1]), {"layers": [2], "positions": "image"}),
    (interp.MLP([1]), {"layers": [2], "positions": "image", "side": "input"}),
    (interp.Experts([1]), {"layers": [2], "tokens": "last"}),
    (interp.Knockout(SITE), {"site": OTHER, "mode": "zero", "steps": "all"}),
    (interp.ScaleWeights(SITE, 2.0), FACTOR),
    (interp.ScaleScores(SITE, 2.0), FACTOR),
    (interp.Boost(SITE, 2.0), ALPHA),
    (interp.Guide(SITE, 2.0), ALPHA),
    (
        interp.Apply(SITE, double),
        {"site": OTHER, "function": halve, "stage": "scores", "steps": "all"},
    ),
    (interp.PatchRows(SITE, np.ones((1, 4, 1, 3))), {"site": OTHER, "values": np.zeros((1, 4, 1, 3))}),
    (
        interp.PatchRows(SITE, np.ones((1, 1, 4, 1, 3)), "all"),
        {"steps": "decode"},
    ),
    (
        interp.PatchResidual([1], "last", STREAM),
        {"layers": [2], "positions": "image", "values": STREAM * 2},
    ),
    (interp.PatchResidual([1], "last", STREAM[None], "all"), {"steps": "decode"}),
    (
        interp.AddResidual([1], "last", np.ones(4)),
        {"layers": [2], "positions": "image", "vector": np.zeros(4), "alpha": -1.0, "steps": "all"},
    ),
    (
        interp.AblateHeads(SITE, "mean", np.ones((1, 4, 2))),
        {"site": OTHER, "means": np.zeros((1, 4, 2)), "steps": "all"},
    ),
    (interp.ClampFeature(coder(), 1, 2.0), {**OF_FEATURES, "value": 3.0}),
    (interp.AblateFeature(coder(), 1), OF_FEATURES),
    (interp.ReconstructResidual(coder()), {"features": coder(2), "positions": "last"}),
    (
        interp.ClampFeature(coder(), 1, 2.0, "last"),
        {"steps": "all"},
    ),
    (interp.AblateFeature(coder(), 1, "last"), {"steps": "all"}),
    (interp.ReconstructResidual(coder(), "last"), {"steps": "all"}),
    (
        Decoding(1.0, 5, 0.9),
        {"temperature": 2.0, "top_k": 6, "top_p": 0.8, "contrast": Contrast()},
    ),
    (Contrast(), {"gamma": 2.0, "cutoff": None, "against": NoisedImage()}),
    (NoisedImage(), {"step": 3, "seed": 3}),
    (
        ClinicalContrast({"a": {"Edema": 0.5}}),
        {"findings": {"a": {"Edema": 0.6}}, "alpha": 0.1, "beta": 0.1, "gamma": 2.0},
    ),
]
UNSEEN = {"Decoding": {"beams"}, "AblateHeads": {"by"}}
"""Fields that have one value only, or that another field implies."""


@pytest.mark.parametrize(("one", "others"), CASES, ids=lambda value: type(value).__name__)
def test_each_field_changes_the_json(one: Any, others: dict[str, Any]) -> None:
    plain = json.dumps(one.to_dict())
    for name, value in others.items():
        assert json.dumps(replace(one, **{name: value}).to_dict()) != plain, name


def test_no_field_is_left_out_of_these_cases() -> None:
    named: dict[type, set[str]] = {}
    for one, others in CASES:
        named.setdefault(type(one), set()).update(others)
    for kind, names in named.items():
        assert names | UNSEEN.get(kind.__name__, set()) == {one.name for one in fields(kind)}, kind


def test_values_that_differ_in_grouping_alone_differ() -> None:
    """Two masks or arrays for two samples are not one for all, and a shape counts."""
    array = np.arange(4.0).reshape(1, 1, 4)
    patches = [
        interp.PatchResidual([1], "last", given)
        for given in (array, [array], [array, array], array.reshape(1, 2, 2), array.reshape(2, 1, 2))
    ]
    assert len({json.dumps(one.to_dict()) for one in patches}) == 5
    masks = [image_mask([True, False]), image_mask([[True, False]]), image_mask([[True], [False]])]
    assert len({json.dumps(Site(keys=one).to_dict()) for one in masks}) == 3
    words = [Site(keys=interp.word("image")), Site(keys="image"), Site(keys=("image", "last"))]
    assert len({json.dumps(one.to_dict()) for one in words}) == 3


def test_defaults_are_those_of_the_pages() -> None:
    """A default that changed would change what a study means."""
    assert Site() == Site("all", "all", "last", "image", None)
    assert interp.Rows() == interp.Rows(Site(), None)
    assert interp.Knockout(SITE) == interp.Knockout(SITE, "renormalise", "prefill")
    assert interp.Apply(SITE, double).to_dict()["apply"]["stage"] == "probabilities"
    assert (Contrast().gamma, Contrast().cutoff, Contrast().against) == (1.1, 0.1, "no image")
    clinical = ClinicalContrast({"a": {"Edema": 0.5}})
    assert (clinical.alpha, clinical.beta, clinical.gamma) == (0.5, 0.5, 10)
    assert NoisedImage() == NoisedImage(500, 0)
