"""Gradients of the target with respect to pixels or image embeddings, plain and times the input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from interp.indicators.indicator_checks import check_bool, check_call, check_one_of
from interp.indicators.maps import BATCH_SIZE, ONE_MAP, Maps, Samples, label_map, maps_in_batches
from interp.inputs.prompt import Prompt, Target
from interp.models.pixels import pixel_views, pooled
from interp.tracing import Mllm
from interp.tracing.cost import Meter
from interp.tracing.gradients import InputFunction, Inputs, input_function

__all__ = ["INPUTS", "InputGradient", "contribution", "per_token", "sensitivity"]


@dataclass(frozen=True)
class InputGradient:
    """How much the target changes with each image token's own input, to first order.

    Plain: the size of the gradient of the target's value v (nats), in [0, ∞).
        "embeddings": ‖∂ v/∂e_j‖₂, e_j the embedding that enters the first decoder layer at the token.
        "pixels": the mean over the token's own pixels of ‖∂ v/∂x‖₂ over channels, x the processor's pixel values.
    `times_input`: the signed first-order effect of the input compared with zero; larger values raise the target more.
        "embeddings": Σ_d e_jd ∂ v/∂e_jd.
        "pixels": Σ over the token's own pixels and channels of x ∂ v/∂x; zero is the processor's mean colour.

    A token's own pixels are its block in the view it belongs to (`interp.models.pixels`). Pixel gradients pass
    through the vision tower, which mixes places, so they say where the image matters and not which token carries it.
    Where views overlap (tiles and a view of the whole), the pixels of each view are separate inputs, and the effect
    of a place that is seen twice is divided between two tokens. Images repeated as frames (Qwen) count once, all
    frames together. Newline and class tokens have no pixels; their value is 0.

    A tower that normalises patches by their norm (Pixtral, in Mistral 3) sees only the pattern of pixel values, not
    their size; there gradient × input of pixels is 0 up to rounding.

    Cost: one forward and one backward pass of the whole model. Gradients are noisy from token to token; see
    `SmoothGrad`.

    Args:
        of: "pixels" or "embeddings". Features that Qwen3-VL adds after its first layers are not part of the embeddings.
        times_input: Multiply the gradient by the input.

    Raises:
        MapError: Arguments of another kind.

    Source: Simonyan et al. (arXiv 1312.6034); gradient × input: Shrikumar et al. (arXiv 1605.01713).
    """

    of: Inputs = "pixels"
    times_input: bool = False

    dims: ClassVar[tuple[str, ...]] = ONE_MAP

    def __post_init__(self) -> None:
        check_one_of("of", self.of, INPUTS)
        check_bool("times_input", self.times_input)

    def __call__(
        self,
        mllm: Mllm,
        samples: Samples,
        *,
        prompt: Prompt | None = None,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> Maps:
        """The maps (token) of these samples, in micro-batches of `batch_size`, with `progress`, as in `Mllm.trace`.

        Raises:
            InterpError: Samples or prompts that cannot be encoded, pixel values of an unknown kind, or an answer of
                several tokens for a model whose prompt rows would see it.
        """
        check_call(mllm, prompt, target)
        return maps_in_batches(self._together, mllm, samples, prompt, target, batch_size, progress)

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values, part of a study's hash."""
        return {"indicator": "input gradient", "of": self.of, "times_input": self.times_input}

    def _together(self, mllm: Mllm, samples: Samples, prompt: Prompt | None, target: Target) -> Maps:
        """The maps of samples that run together."""
        with Meter(mllm.device) as meter:
            function = input_function(mllm, samples, target, prompt, meter, of=self.of, fixed=False)
            gradient = function.gradient(function.start)
            values = per_token(function, gradient, self.times_input)
        name = "gradient × input" if self.times_input else "gradient"
        tokens = function.batch.tokens
        maps = tuple(label_map(one, own, name) for one, own in zip(values, tokens, strict=True))
        return Maps(maps, tokens, meter.cost)


INPUTS = ("pixels", "embeddings")

PerToken = list[Float[np.ndarray, " _"]]


def per_token(function: InputFunction, gradient: Tensor, times_input: bool) -> PerToken:
    """The norm of a gradient at each token, or its contribution: the gradient times the input."""
    return (
        contribution(function, gradient * function.start) if times_input else sensitivity(function, gradient)
    )


def sensitivity(function: InputFunction, gradient: Tensor) -> PerToken:
    """Each sample's gradient norm at its tokens: L2 over hidden, or L2 over channels and the mean over pixels."""
    if function.of == "embeddings":
        return [np.linalg.norm(one, axis=-1) for one in _own(function, gradient)]
    return _pooled(function, gradient, lambda one: np.linalg.norm(one.sum(axis=0), axis=0), "mean")


def contribution(function: InputFunction, products: Tensor) -> PerToken:
    """Each sample's sum of the products at its tokens: over hidden, or over channels and pixels."""
    if function.of == "embeddings":
        return [one.sum(axis=-1) for one in _own(function, products)]
    return _pooled(function, products, lambda one: one.sum(axis=(0, 1)), "sum")


def _own(function: InputFunction, values: Tensor) -> list[np.ndarray]:
    """Each sample's part of the values, float64."""
    return [function.own(values, i).double().cpu().numpy() for i in range(len(function.batch))]


def _pooled(
    function: InputFunction, values: Tensor, reduce: Callable[[np.ndarray], np.ndarray], how: str
) -> PerToken:
    """Values at the pixels, reduced over frames and channels, then over each token's own pixels."""
    mllm, found = function.mllm, []
    parts: Any = zip(_own(function, values), function.batch.singles, strict=True)
    for own, single in parts:
        views = pixel_views(single.inputs, single.tokens, mllm.processor, mllm.hf.config)
        pictures = [reduce(view.picture(own)) for view in views]
        found.append(pooled(views, pictures, single.tokens.n, how))
    return found
