"""The three maps from which ViCrop chooses a crop: relative attention, attention × gradient, pixel gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from scipy.ndimage import convolve1d, median_filter
from torch import Tensor

from interp.errors import MethodError, ModelError
from interp.indicators import Attention, AttentionGradient, Maps
from interp.indicators.maps import Samples, label_map, map_each_sample
from interp.inputs.prompt import Prompt, Target
from interp.inputs.tokens import TokenMap
from interp.models.pixels import PixelView, pixel_views
from interp.models.resizing import setting
from interp.tracing import Batch, Cost, Mllm
from interp.tracing.cost import Meter
from interp.tracing.gradients import input_function
from interp.tracing.passes.run import run_pass
from interp.tracing.target import Objective

__all__ = ["channel_scale", "grad_att", "high_pass", "pixel_grid", "pure_grad", "rel_att", "whole_view"]

_SIGMA, _MEDIAN = 0.8, 7  # of the published 3×3 Gaussian; side of the median filter
_DARK = 1e-6  # of the range 0 … 1: less detail than this is rounding


def rel_att(mllm: Mllm, samples: Samples, prompt: Prompt, generic: Prompt, layer: int) -> Maps:
    """mean_h A(prompt) / mean_h A(generic) of one layer's last row; see `interp.indicators.Attention`."""
    maps = Attention(relative_to=generic, layers=[layer])(mllm, samples, prompt=prompt)
    return Maps(tuple(one.isel(layer=0, drop=True) for one in maps), maps.tokens, maps.cost)


def grad_att(mllm: Mllm, samples: Samples, prompt: Prompt, layer: int) -> Maps:
    """mean_h [A ⊙ ReLU(∂ log p/∂A)] of one layer's last row, p the probability of the most probable next token."""
    maps = AttentionGradient(layers=[layer])(mllm, samples, prompt=prompt)
    return Maps(tuple(one.isel(layer=0, drop=True) for one in maps), maps.tokens, maps.cost)


def pure_grad(mllm: Mllm, samples: Samples, prompt: Prompt, generic: Prompt) -> Maps:
    """‖∂ log p/∂pixels‖₂(prompt) / same(generic) × [high-pass > median], the mean over each token's pixels.

    p is the probability of the most probable next token. A token's pixels are its block of the processor's pixel
    values, in the view of the whole image. High-pass and median are computed on the same pixels, the median without
    padding. Where the generic gradient is exactly 0 the quotient is 0. Tokens of other views (tiles) get 0. Each
    sample runs alone, twice forwards and backwards.
    """

    def one(batch: Batch) -> tuple[xr.DataArray, Cost]:
        with Meter(mllm.device) as meter:
            values = _pixel_map(mllm, batch, mllm.encoder.again(batch, generic), meter)
        return label_map(values, batch.tokens[0], "pixel gradient ratio"), meter.cost

    with torch.inference_mode(False):
        return map_each_sample(mllm, samples, prompt, one)


def _pixel_map(mllm: Mllm, question: Batch, generic: Batch, meter: Meter) -> Float[np.ndarray, " token"]:
    tokens = question.tokens[0]
    grid = pixel_grid(question.inputs, tokens, mllm.processor, mllm.hf.config)
    q, g = (
        _norms(grid.picture(_array(_pixel_gradient(mllm, batch, meter)))) for batch in (question, generic)
    )
    picture = (
        grid.picture(_array(question.inputs["pixel_values"]))[0]
        * channel_scale(mllm.processor)[:, None, None]
    )
    quotient = np.divide(q, g, out=np.zeros_like(q), where=g > 0)
    values = np.zeros(tokens.n)
    seen = grid.covered(np.asarray(np.isfinite(tokens.footprints).all(axis=1)), q.shape)
    values[grid.tokens] = grid.means(quotient * high_pass(picture, seen))
    return values


def _array(values: Tensor) -> Float[np.ndarray, ...]:
    return values.detach().double().cpu().numpy()


def _norms(gradient: Float[np.ndarray, "frame channel row col"]) -> Float[np.ndarray, "row col"]:
    """L2 over channels of the gradient with respect to the image; gradients of repeated frames are added."""
    return np.linalg.norm(gradient.sum(axis=0), axis=0)


def _pixel_gradient(mllm: Mllm, batch: Batch, meter: Meter) -> Tensor:
    """−∂ log p/∂pixel_values of one sample; parameters get no gradient."""
    if mllm.server is not None:
        function = input_function(mllm, batch, Target("greedy"), None, meter, of="pixels", fixed=False)
        return -function.gradient(function.start)
    with mllm.installation.armed({}), torch.enable_grad():
        pixels = batch.inputs["pixel_values"].detach().clone().requires_grad_(True)
        logits = run_pass(mllm.hf, {**batch.inputs, "pixel_values": pixels}, meter)
        loss = -Objective(batch, None).values(logits).sum()
        (gradient,) = torch.autograd.grad(loss, pixels)
    meter.backwards += 1
    return gradient


def high_pass(
    picture: Float[np.ndarray, "channel row col"], seen: Bool[np.ndarray, "row col"]
) -> Bool[np.ndarray, "row col"]:
    """Where a picture (0 … 1, up to a constant) has more fine detail than half of the pixels `seen`.

    Detail is the L2 norm over channels of the picture minus its 3×3 Gaussian blur (σ 0.8, mirrored at the edges),
    through a 7×7 median filter; below 1e-6 it counts as 0. The median excludes padding, which would lower it.
    """
    tail = np.exp(-0.5 / _SIGMA**2)
    kernel = np.array([tail, 1.0, tail]) / (1.0 + 2.0 * tail)
    smooth = convolve1d(convolve1d(picture, kernel, axis=1, mode="mirror"), kernel, axis=2, mode="mirror")
    detail = median_filter(np.linalg.norm(picture - smooth, axis=0), size=_MEDIAN)
    detail[detail < _DARK] = 0.0
    return detail > np.median(detail[seen])


_WHOLE = ("", "base", "global", "thumbnail")
"""Views that show the whole image in one grid."""


def whole_view(tokens: TokenMap) -> Bool[np.ndarray, " token"]:
    """The tokens of the one view that shows the whole image: the only one, or "base", "global", "thumbnail".

    Raises:
        MethodError: Several views, of which not exactly one has such a name.
    """
    return np.asarray(tokens.views == _whole_name(tokens))


def _whole_name(tokens: TokenMap) -> str:
    names = [str(name) for name in np.unique(tokens.views[~np.isnan(tokens.footprints).any(axis=1)])]
    if len(names) == 1:
        return names[0]
    known = [name for name in names if name in _WHOLE]
    if len(known) != 1:
        raise MethodError(
            f"ViCrop slides its windows over the view of the whole image, named {', '.join(map(repr, _WHOLE))}; "
            f"this image has the views {names}. Name it so in the adapter's footprints."
        )
    return known[0]


def pixel_grid(inputs: Mapping[str, Any], tokens: TokenMap, processor: Any, config: Any) -> PixelView:
    """The pixels of the whole view of one sample's only image.

    Raises:
        MethodError: Pixel values that are neither views of (channel, row, col) nor Qwen's flattened patches, or
            that do not hold the view's tokens as square blocks of patches.
    """
    mine = np.flatnonzero(whole_view(tokens))
    try:
        views = pixel_views(inputs, tokens, processor, config)
    except ModelError as error:
        raise MethodError(
            f"map='pure_grad' needs to know which pixel each gradient belongs to: {error} Use map='rel_att' or "
            "'grad_att'."
        ) from error
    found = [view for view in views if np.array_equal(np.sort(view.tokens, axis=None), mine)]
    if len(found) != 1:
        raise MethodError(
            f"map='pure_grad' needs the whole image in one view; its {len(mine)} tokens lie in several. Use "
            "map='rel_att' or 'grad_att'."
        )
    return found[0]


def channel_scale(processor: Any) -> Float[np.ndarray, " channel"]:
    """The divisor of each channel in the processor, for pixels in 0 … 1."""
    std = setting(processor, "image_std") if setting(processor, "do_normalize") else None
    return np.ones(3) if std is None else np.broadcast_to(np.asarray(std, float), (3,))
