"""What tells two sites or values apart in JSON, and defaults; `tests/test_described_values.py` tries every field."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

import interp
from interp.tracing import MLP, Features, ReconstructResidual, Site, image_mask
from interp.tracing.passes.decoding import ClinicalContrast, Contrast, NoisedImage

SITE = Site(layers=[1])


def double(values: Any, cells: Any) -> Any:
    return values * 2


def test_a_site_of_the_tower_is_another_site() -> None:
    assert (
        Site([1], queries="all", keys="all", tower="vision").to_dict()
        != Site([1], queries="all", keys="all").to_dict()
    )


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


def test_each_kind_of_edit_and_read_has_its_name() -> None:
    """Another name would be another hash of the same study."""
    rows, stream = np.zeros((1, 1, 1, 2)), np.zeros((1, 1, 2))
    coder = Features(torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2), 0)
    named = {
        "knockout": interp.Knockout(SITE),
        "scale_weights": interp.ScaleWeights(SITE, 2),
        "scale_scores": interp.ScaleScores(SITE, 2),
        "boost": interp.Boost(SITE, 2),
        "guide": interp.Guide(SITE, 2),
        "apply": interp.Apply(SITE, double),
        "patch_rows": interp.PatchRows(SITE, rows),
        "patch_residual": interp.PatchResidual([0], "last", stream),
        "add_residual": interp.AddResidual([0], "last", stream[0, 0]),
        "ablate_heads": interp.AblateHeads(SITE),
        "clamp_feature": interp.ClampFeature(coder, 0, 1.0),
        "ablate_feature": interp.AblateFeature(coder, 0),
        "reconstruct_residual": ReconstructResidual(coder),
        "rows": interp.Rows(SITE),
        "residual": interp.Residual(),
        "mlp": MLP(),
        "experts": interp.Experts(),
    }
    assert [list(one.to_dict()) for one in named.values()] == [[name] for name in named]
