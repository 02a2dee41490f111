"""Signed weights: refused as a distribution, ranked as they are, and their positive part on request."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from interp.errors import MapError
from interp.metrics import METRICS, positive_part

MASK = np.array([True, False, False, False])
SIGNED = xr.DataArray([4.0, -1.0, 0.0, 4.0], dims="token", name="linear attention", attrs={"signed": True})
RANKS = ("pointing", "iou", "auroc", "ap")


@pytest.mark.parametrize("name", [name for name in METRICS if name not in RANKS])
def test_signed_weights_are_no_distribution(name: str) -> None:
    metric, positive = METRICS[name], positive_part(SIGNED)
    with pytest.raises(MapError, match=r"the weights of 'linear attention' are signed \(the least is -1\)"):
        metric(SIGNED, MASK, (2, 2))
    assert metric(positive, MASK, (2, 2)) == metric([4.0, 0.0, 0.0, 4.0], MASK, (2, 2))
    assert positive.attrs["signed"] is False
    assert positive.name == "positive part of linear attention"
    unlabelled = SIGNED.assign_attrs(signed=False)
    assert metric(unlabelled, MASK, (2, 2)) == metric(positive, MASK, (2, 2))
    above = SIGNED.clip(min=0).assign_attrs(signed=True)
    assert metric(above, MASK, (2, 2)) == metric(positive, MASK, (2, 2))


@pytest.mark.parametrize("name", RANKS)
def test_signed_weights_are_ranked_as_they_are(name: str) -> None:
    assert METRICS[name](SIGNED, MASK) == METRICS[name](SIGNED.values, MASK)
    assert METRICS["auroc"](SIGNED, MASK) == pytest.approx(2.5 / 3)  # above two, tied with one
