"""What every layout is asked: the loaded model against the plain one, its token order, its preprocessing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import interp
from interp.tracing import Mllm
from tests.models.checkpoints.plain_models import Outcome
from tests.models.pixel_impulses import assert_impulses_land

QUESTION = "where is the nodule?"
SIZE = (90, 50)
"""(width, height): neither square nor a multiple of a patch."""

BREAKABLE = ("image tokens", "tiling", "locality", "rows", "image prefix")
"""The checks of conformance that a layout can break; the others are of edits, which every layout shares."""


def picture() -> np.ndarray:
    """A smooth random image, (row, col, 3) uint8, that is not square."""
    coarse = np.random.default_rng(0).integers(0, 255, (5, 9, 3))
    return np.kron(coarse, np.ones((SIZE[1] // 5, SIZE[0] // 9, 1))).astype(np.uint8)


def encoded(mllm: Mllm) -> Any:
    return mllm.encode(interp.Sample(picture(), QUESTION))


def features(mllm: Mllm) -> Tensor:
    """(token, hidden): what the model makes of the picture."""
    with torch.no_grad():
        found = mllm.hf.get_image_features(pixel_values=encoded(mllm).inputs["pixel_values"]).pooler_output
    return found[0]


def assert_same(mllm: Mllm, wanted: Outcome, within: float = 2e-5) -> None:
    """Logits of every row, and the last row of attention of every layer and head as the tap reads it."""
    batch = encoded(mllm)
    with torch.no_grad():
        logits = mllm.hf(**batch.inputs).logits[0]
    torch.testing.assert_close(logits, wanted.logits, atol=within, rtol=within)
    rows = interp.Rows(interp.Site(layers="all", heads="all", queries="last", keys="all"))
    trace = mllm.trace(interp.Sample(picture(), QUESTION), reads=[rows])
    read = trace[0].rows.values[:, :, 0]
    np.testing.assert_allclose(read, wanted.attention[:, :, -1].numpy(), atol=1e-5)
    assert wanted.attention[:, :, -1].max() > 0.1  # rows far from even, so that a wrong one would show


def assert_order(mllm: Mllm) -> np.ndarray:
    """Painting a token's footprint changes that token most; the footprints, (token, 4)."""
    batch = encoded(mllm)
    found = mllm.adapter.footprints(
        [SIZE], {"pixel_values": batch.inputs["pixel_values"]}, mllm.processor, mllm.hf.config
    )
    assert_impulses_land(mllm.hf, mllm.processor, mllm.adapter, [SIZE], found)
    return found.boxes
