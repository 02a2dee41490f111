"""Gradients of the target with respect to pixels or image embeddings: plain, times the input, smoothed, integrated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError
from interp.indicators.indicator_checks import check_bool, check_number, check_one_of, check_whole
from interp.indicators.maps import ONE_MAP, BatchIndicator, Maps, One, SampleIndicator, Samples, label_map
from interp.inputs.prompt import Prompt, Target
from interp.models.pixels import pixel_views, pooled
from interp.tracing import Batch, Cost, Mllm
from interp.tracing.cost import Meter
from interp.tracing.gradients import InputFunction, Inputs, input_function, recording
from interp.tracing.passes.progress_bar import progress_bar

__all__ = [
    "INPUTS",
    "InputGradient",
    "IntegratedGradients",
    "SmoothGrad",
    "contribution",
    "per_token",
    "sensitivity",
]


@dataclass(frozen=True)
class InputGradient(BatchIndicator):
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
        times_input: Whether to multiply the gradient by the input.

    Raises:
        MapError: Arguments of another kind.
        InterpError: When called, pixel values of an unknown kind, or an answer of several tokens for a model whose
            prompt rows would see it.

    Source: Simonyan et al. (arXiv 1312.6034); gradient × input: Shrikumar et al. (arXiv 1605.01713).
    """

    of: Inputs = "pixels"
    times_input: bool = False

    dims: ClassVar[tuple[str, ...]] = ONE_MAP

    def __post_init__(self) -> None:
        check_one_of("of", self.of, INPUTS)
        check_bool("times_input", self.times_input)

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


@dataclass(frozen=True)
class SmoothGrad(BatchIndicator):
    """The mean input gradient of n noisy copies of the input, reduced to a map as in `InputGradient`.

    The noise is Gaussian; its standard deviation is `noise` times the range (max − min) of the sample's own inputs.
    Gradients are averaged as vectors, before any norm. `times_input` multiplies the average by the input without noise.
    "greedy" is the answer to the input without noise, for all copies. Each sample draws its own noise, from the seed
    and its id, so a map does not depend on the batch.

    Cost: n forward and backward passes of the whole model, and one forward pass for a greedy target.

    Args:
        of: "pixels" or "embeddings", as in `InputGradient`.
        n: The number of noisy copies.
        noise: The standard deviation of the noise, as a fraction of the input's range.
        times_input: Whether to multiply the averaged gradient by the input.
        seed: The seed of the noise.

    Raises:
        MapError: Arguments of another kind.
        InterpError: When called, pixel values of an unknown kind, or an answer of several tokens for a model whose
            prompt rows would see it.

    Source: Smilkov et al. (arXiv 1706.03825).
    """

    of: Inputs = "pixels"
    n: int = 16
    noise: float = 0.15
    times_input: bool = False
    seed: int = 0

    dims: ClassVar[tuple[str, ...]] = ONE_MAP

    def __post_init__(self) -> None:
        check_one_of("of", self.of, INPUTS)
        check_whole("n", self.n, 1)
        check_number("noise", self.noise, low=0, open_low=True)
        check_bool("times_input", self.times_input)
        check_whole("seed", self.seed, 0)

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values, part of a study's hash."""
        return {
            "indicator": "SmoothGrad",
            "of": self.of,
            "n": self.n,
            "noise": self.noise,
            "times_input": self.times_input,
            "seed": self.seed,
        }

    def _together(self, mllm: Mllm, samples: Samples, prompt: Prompt | None, target: Target) -> Maps:
        """The maps of samples that run together."""
        with Meter(mllm.device) as meter:
            function = input_function(mllm, samples, target, prompt, meter, of=self.of)
            streams = [_stream(self.seed, sample.id) for sample in function.batch.samples]
            total = torch.zeros_like(function.start)
            with progress_bar("noisy copies", self.n, noun="copies") as advance:
                for _ in range(self.n):
                    total += function.gradient(self._noisy(function, streams))
                    advance(1)
            mean = total / self.n
            values = per_token(function, mean, self.times_input)
        tokens = function.batch.tokens
        maps = tuple(label_map(one, own, "SmoothGrad") for one, own in zip(values, tokens, strict=True))
        return Maps(maps, tokens, meter.cost)

    def _noisy(self, function: InputFunction, streams: list[torch.Generator]) -> Tensor:
        """The inputs plus the next noise of every sample."""
        found = function.start.clone()
        for i, stream in enumerate(streams):
            own = function.own(found, i)
            drawn = torch.randn(own.shape, generator=stream).to(own)
            own += drawn * (self.noise * float(own.max() - own.min()))
        return found


def _stream(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"SmoothGrad {seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


BASELINES = ("mean", "zero")
NEARLY_ZERO = 1e-12  # Idefics drops views of exact zeros as padding


@dataclass(frozen=True)
class IntegratedGradients(SampleIndicator):
    """(x − x₀) · ∫₀¹ ∂ v/∂x at x₀ + α(x − x₀) dα, summed over each image token's own input. Nats, of any sign.

    x₀ is the baseline; captum computes the integral as a Gauss–Legendre sum over `steps` points. Values over the whole
    input add up to v(x) − v(x₀) (completeness). Each map's `attrs["completeness_error"]` is the deviation from this,
    sum − difference in nats, as captum reports it; `attrs["completeness_of"]` is the difference itself. Together they
    show whether `steps` are enough. Pixels that belong to no token (rims) are in captum's sum but not in the map.

    Where the model normalises its inputs, as every RMS norm does, all points of a path from zero look the same except
    the very first ones. The integral misses the change there, and the error shows it (2.3 of 2.0 nats for the
    organism's embeddings at 32 steps; with their mean as baseline 0.002). So "zero" is rarely a good baseline for
    embeddings. Pixels need more steps than embeddings: 128 on the organism.

    The baseline and most of the path are unlike the inputs the model was trained on, so values depend on the baseline.
    "greedy" is the answer to the unchanged input.

    Each sample runs alone: `steps` forward and backward passes, two forward passes for the completeness error, and one
    for a greedy target. Needs the extra `gradients`.

    Args:
        of: "pixels" or "embeddings", as in `InputGradient`.
        baseline: "mean": the mean of the sample's own image embeddings, or of its own pixels by channel. "zero": zeros,
            which for pixels are the processor's mean colour.
        steps: The number of points of the integral.

    Raises:
        MapError: Arguments of another kind.
        ModelError: When called, captum is not installed.
        InterpError: When called, pixel values of an unknown kind, or an answer of several tokens for a model whose
            prompt rows would see it.

    Source: Sundararajan et al. (arXiv 1703.01365); captum.
    """

    of: Inputs = "embeddings"
    baseline: Literal["mean", "zero"] = "mean"
    steps: int = 32

    dims: ClassVar[tuple[str, ...]] = ONE_MAP

    def __post_init__(self) -> None:
        check_one_of("of", self.of, INPUTS)
        check_one_of("baseline", self.baseline, BASELINES)
        check_whole("steps", self.steps, 1)

    def _one(self, mllm: Mllm, target: Target) -> One:
        """From a batch of one sample to its map and the cost of the map."""
        captum = _captum()

        def one(batch: Batch) -> tuple[xr.DataArray, Cost]:
            with Meter(mllm.device) as meter:
                function = input_function(mllm, batch, target, None, meter, of=self.of)
                found = self._map(captum, function)
            return found, meter.cost

        return one

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values, part of a study's hash."""
        return {
            "indicator": "integrated gradients",
            "of": self.of,
            "baseline": self.baseline,
            "steps": self.steps,
        }

    def _map(self, captum: Any, function: InputFunction) -> xr.DataArray:
        bar = progress_bar("from the baseline to the input", self.steps, noun="steps")
        with recording(function.mllm), bar as advance:

            def values(inputs: Tensor) -> Tensor:
                """The target's value at each of captum's points, one after the other."""
                advance(len(inputs))
                return torch.cat([function.values(one) for one in inputs])

            products, error = captum(values).attribute(
                function.start[None],
                baselines=self._baseline(function)[None],
                n_steps=self.steps,
                internal_batch_size=1,
                return_convergence_delta=True,
            )
        if function.mllm.server is None:  # a server's own passes are counted where they are asked for
            function.meter.backwards += self.steps * len(function.passes)
        attrs = {
            "completeness_error": float(error[0]),
            "completeness_of": float(products.double().sum() - error[0].double()),
        }
        (found,) = contribution(function, products[0].detach())
        return label_map(found, function.batch.tokens[0], "integrated gradients", attrs=attrs)

    def _baseline(self, function: InputFunction) -> Tensor:
        """The baseline, in the shape of the inputs."""
        start = function.start
        if self.baseline == "zero":
            return torch.full_like(start, NEARLY_ZERO)
        if function.of == "embeddings":
            return start.mean(dim=0, keepdim=True).expand_as(start).clone()
        by_channel = start.unflatten(1, (3, -1)) if start.ndim == 2 else start.flatten(-2).flatten(0, -3)
        mean = by_channel.mean(dim=(0, 2))
        if start.ndim == 2:  # Qwen's patches: channel, frame, y, x
            return mean[None, :, None].expand_as(by_channel).flatten(1).clone()
        return mean[:, None, None].expand_as(start).clone()


def _captum() -> Any:
    try:
        from captum.attr import IntegratedGradients as Captums
    except ImportError as error:
        raise ModelError(
            "IntegratedGradients needs captum; install it with: pip install 'interp[gradients]'"
        ) from error
    return Captums
