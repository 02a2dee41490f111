"""Integrated gradients of pixels or image embeddings, through captum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import xarray as xr
from torch import Tensor

from interp.errors import ModelError
from interp.indicators.indicator_checks import check_call, check_one_of, check_whole
from interp.indicators.input_gradient import INPUTS, contribution
from interp.indicators.maps import BATCH_SIZE, ONE_MAP, Maps, Samples, label_map, map_each_sample
from interp.inputs.prompt import Prompt, Target
from interp.tracing import Batch, Cost, Mllm
from interp.tracing.cost import Meter
from interp.tracing.gradients import InputFunction, Inputs, input_function, recording
from interp.tracing.passes.progress_bar import progress_bar

__all__ = ["IntegratedGradients"]

BASELINES = ("mean", "zero")
NEARLY_ZERO = 1e-12  # Idefics drops views of exact zeros as padding


@dataclass(frozen=True)
class IntegratedGradients:
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
        """The maps (token) of these samples, one by one whatever `batch_size` is, with `progress`.

        Raises:
            InterpError: As for `InputGradient`, or captum is not installed.
        """
        check_call(mllm, prompt, target)
        captum = _captum()

        def one(batch: Batch) -> tuple[xr.DataArray, Cost]:
            with Meter(mllm.device) as meter:
                function = input_function(mllm, batch, target, None, meter, of=self.of)
                found = self._map(captum, function)
            return found, meter.cost

        return map_each_sample(mllm, samples, prompt, one, batch_size, progress)

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
