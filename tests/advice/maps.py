# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of indicators and methods."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import interp
from interp.conformance.tiny import tiny
from interp.indicators import ReplaceEmbeddings
from interp.indicators.maps import label_map
from interp.inputs.tokens import TokenMap
from interp.methods import ViCrop
from interp.methods.vicrop import cell_grid
from interp.methods.vicrop_maps import whole_view
from interp.models.pixels import pixel_views

ROWS: list[tuple[str, str, str]] = [
    ("cell_grid(np.arange(5.0), TWO_VIEWS)", "Pass the tokens of one view only", "cell_grid(np.arange(4.0), TWO_VIEWS[:4])"),
    ("ViCrop(generic='x')", "an interp.Prompt or None", "ViCrop(generic=interp.GENERIC_PROMPT)"),
    ("ViCrop(generic='x')", "or None", "ViCrop(generic=None)"),
    ("whole_view(viewed('a', 'b'))", "Name it so in the adapter's footprints", "whole_view(viewed('a', 'global'))"),
    ("strange().crop('pure_grad')", "Use map='rel_att' or 'grad_att'", "[strange().crop('rel_att'), strange().crop('grad_att')]"),
    ("halved().crop('pure_grad')", "Use map='rel_att' or 'grad_att'", "[halved().crop('rel_att'), halved().crop('grad_att')]"),
    ("indicators.ActivationPatching({FIRST.id: WIDE})(qwen(), [FIRST])", "an image of the same size", "indicators.ActivationPatching({FIRST.id: SAME_SIZE}, layers=[0], block=4)(qwen(), [FIRST])"),
    ("indicators.ActivationPatching({})", "Name the partner of at least one sample", "indicators.ActivationPatching({FIRST.id: SAME_SIZE})"),
    ("embeddings_of(WIDE)", "Use an image of the same size", "embeddings_of(SAME_SIZE)"),
    ("Attention(queries='answer')(speechless(), [one])", "use queries='last'", "Attention(queries='last')(speechless(), [one])"),
    ("label_map(squared('float16', tokens.n), tokens, 'mine')", 'Load it with dtype="float32"', "label_map(squared('float32', tokens.n), tokens, 'mine')"),
]  # fmt: skip

ELSEWHERE: dict[str, str] = {
    "ViCrop shows an image and its crop, but": "tests/methods/test_vicrop.py::test_a_model_of_one_image_is_pointed_to_the_crop_alone",
    "IntegratedGradients needs captum": "needs a missing package; tests/indicators/test_input_gradients.py::test_captum_missing_names_the_extra",
}


def squared(dtype: str, n: int) -> np.ndarray:
    """Large values, in a dtype; some of them are too large for half precision."""
    with np.errstate(over="ignore"):
        return (np.linspace(300, 3, n).astype(dtype) ** 2).astype(np.float64)


def viewed(*views: str) -> TokenMap:
    """Tokens in a row, each of a view."""
    n = len(views)
    boxes = np.array([[i, 0, i + 1, 1] for i in range(n)], float)
    return TokenMap(np.arange(n), boxes, None, np.array(views), np.zeros(n, int), ((n, 1),), n)


@dataclass(frozen=True)
class Cropping:
    """ViCrop on a tiny model whose pixels are told otherwise than they are."""

    views: Any

    def crop(self, kind: Any) -> Any:
        """The crop of a picture by a map."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("interp.methods.vicrop_maps.pixel_views", self.views)
            return ViCrop(kind, base=32).crop(interp.wrap(*tiny("llava")), [_picture(80, 64)])


def strange() -> Cropping:
    """Its pixel values are of no known kind."""

    def views(inputs: Any, tokens: Any, processor: Any, config: Any) -> Any:
        return pixel_views(
            {**inputs, "pixel_values": inputs["pixel_values"][0, 0]}, tokens, processor, config
        )

    return Cropping(views)


def halved() -> Cropping:
    """Its tokens lie in two views, one above the other."""

    def views(*given: Any) -> Any:
        (whole,) = pixel_views(*given)
        n = len(whole.rows) // 2
        return [
            replace(whole, tokens=whole.tokens[at], rows=whole.rows[at]) for at in (slice(n), slice(n, None))
        ]

    return Cropping(views)


@cache
def qwen() -> Any:
    """A tiny model whose number of tokens follows the picture's size."""
    return interp.wrap(*tiny("qwen2_5_vl"))


def _picture(width: int, height: int, seed: int = 1) -> interp.Sample:
    values = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return interp.Sample(values, "where is the nodule?")


def embeddings_of(other: interp.Sample) -> Any:
    """A picture's tokens replaced by those of another."""
    mllm, one = qwen(), _picture(80, 64, 0)
    masks = np.ones((1, mllm.encode([one]).tokens[0].n), bool)
    return ReplaceEmbeddings("other", other=other).scores(mllm, one, masks)


@cache
def speechless() -> Any:
    """A model whose first token ends its answer."""
    model, processor = tiny("llava")
    model.generation_config.eos_token_id = list(range(model.get_output_embeddings().weight.shape[0]))
    return interp.wrap(model, processor)


def names() -> dict[str, Any]:
    """What the calls use, beside the names of `tests/test_advice.py`."""
    boxes = [[0, 0, 1, 1], [1, 0, 2, 1], [0, 1, 1, 2], [1, 1, 2, 2], [0, 0, 2, 2]]
    values = {
        "TWO_VIEWS": np.array(boxes, float), "FIRST": _picture(80, 64, 0), "SAME_SIZE": _picture(80, 64),
        "WIDE": _picture(400, 80),
    }  # fmt: skip
    own = (
        squared, viewed, strange, halved, qwen, embeddings_of, speechless, label_map, cell_grid, whole_view,
    )  # fmt: skip
    return {one.__name__: one for one in own} | values
