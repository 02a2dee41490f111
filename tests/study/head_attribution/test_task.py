"""Rows of a head attribution, worked by hand."""

from __future__ import annotations

import numpy as np
import xarray as xr

from interp.study.head_attribution.task import _above_mean, _shares


def test_logits_are_above_the_mean_of_each_line() -> None:
    logits = np.array([[1.0, 2.0, 6.0], [0.0, -3.0, 0.0]], np.float32)
    assert _above_mean(logits, 2).tolist() == [3.0, 1.0]
    assert _above_mean(logits, 1).tolist() == [-1.0, -2.0]


def test_each_part_has_its_layer_and_each_head_both_effects() -> None:
    found = xr.Dataset(
        {
            "embedding": 0.5,
            "attention": ("layer", [1.0, 2.0]),
            "mlp": ("layer", [3.0, 4.0]),
            "heads": (("layer", "head"), [[5.0, 6.0], [7.0, 8.0]]),
        }
    )
    rows = _shares(found, np.array([[15.0, 16.0], [17.0, 18.0]]))
    named = [(row["part"], row["layer"], row["head"], row["measure"], row["value"]) for row in rows]
    assert named == [
        ("embedding", -1, -1, "direct", 0.5),
        *(("attention", layer, -1, "direct", 1.0 + layer) for layer in range(2)),
        *(("mlp", layer, -1, "direct", 3.0 + layer) for layer in range(2)),
        *(("head", at // 2, at % 2, "direct", 5.0 + at) for at in range(4)),
        *(("head", at // 2, at % 2, "total", 15.0 + at) for at in range(4)),
    ]
