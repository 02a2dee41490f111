"""The page of a feature: which samples it shows, in which order, and what it says of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from interp.errors import MapError
from interp.inputs.footprints import squash
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.report.feature_page import save_feature_page
from interp.tracing import Cost, FeatureActivations

VALUES = ([[0, 1, 0, 0], [0, 0, 2.5, 7.25], [0, 0, 0, 0]], [[0] * 4] * 3)
"""Feature → sample → its activation at each of four image tokens."""


def activations(last: int = 2) -> FeatureActivations:
    """Two features at the image tokens (from 2 on) of three samples; the last sample is read from `last` on."""
    laid = squash((20, 20), (2, 2))
    tokens = TokenMap(np.arange(2, 6), laid.boxes, (2, 2), laid.views, laid.image, ((20, 20),), 9)
    samples = tuple(
        Sample(np.full((20, 20, 3), 90, np.uint8), f"<{name}>?", id=name, group=group, boxes=boxes)
        for name, group, boxes in (("a", "g", ()), ("b", "b", [(0, 0, 9, 9)]), ("c", "g", ()))
    )
    dense = np.array(VALUES, np.float32)
    sparse = tuple(csr_array(dense[:, place].T) for place in range(3))
    return FeatureActivations(
        sparse,
        (np.arange(2, 6), np.arange(2, 6), np.arange(last, last + 4)),
        (tokens,) * 3,
        samples,
        Cost(),
        "SAE<1>",
    )


def page(tmp_path: Path, feature: int = 0, **options: int) -> str:
    return " ".join(
        save_feature_page(activations(), feature, tmp_path / "p.html", **options).read_text().split()
    )


def test_the_most_active_samples_come_first(tmp_path: Path) -> None:
    said = page(tmp_path)
    assert re.findall(r'<span class="score">(.*?)</span>&lt;(.*?)&gt;\?', said) == [
        ("7.25", "b"),
        ("1.00", "a"),
    ]
    assert re.findall(r"active at (\d+ %) of its image tokens", said) == ["50 %", "25 %"]
    assert "<code>a</code> · group g" in said
    assert re.findall(r"<figcaption>(.*?)</figcaption>", said) == [
        "image and box",
        "feature",
        "image",
        "feature",
    ]
    assert re.findall(r'<span class="score">(.*?)<', page(tmp_path, n=1)) == ["7.25"]


def test_the_lead_counts_samples_and_tokens(tmp_path: Path) -> None:
    said = page(tmp_path)
    assert "which feature 0 of <b>SAE&lt;1&gt;</b> is most active" in said
    assert "of 3 that were read. It is active somewhere in 2 of them, and at 25.0 % of all" in said
    assert "model organism" not in said


def test_a_feature_that_is_active_nowhere_says_so(tmp_path: Path) -> None:
    said = page(tmp_path, 1)
    assert "It is active at no image token of these samples." in said
    assert "Most active samples" not in said
    assert "active somewhere in 0 of them, and at 0.0 %" in said
    assert "no image token of these" not in page(tmp_path, 0)


def test_activations_of_other_tokens_have_no_page(tmp_path: Path) -> None:
    with pytest.raises(MapError, match='Read positions="image"'):
        save_feature_page(activations(last=1), 0, tmp_path / "p.html")
    with pytest.raises(MapError, match="feature"):
        save_feature_page(activations(), 2, tmp_path / "p.html")
    assert list(tmp_path.iterdir()) == []
