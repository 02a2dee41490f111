"""SmoothGrad: input gradients averaged over noisy copies of the input."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from interp.indicators.indicator_checks import check_bool, check_call, check_number, check_one_of, check_whole
from interp.indicators.input_gradient import INPUTS, per_token
from interp.indicators.maps import BATCH_SIZE, ONE_MAP, Maps, Samples, label_map, maps_in_batches
from interp.inputs.prompt import Prompt, Target
from interp.tracing import Mllm
from interp.tracing.cost import Meter
from interp.tracing.gradients import InputFunction, Inputs, input_function
from interp.tracing.passes.progress_bar import progress_bar

__all__ = ["SmoothGrad"]


@dataclass(frozen=True)
class SmoothGrad:
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
        times_input: Multiply the averaged gradient by the input.
        seed: The seed of the noise.

    Raises:
        MapError: Arguments of another kind.

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
            InterpError: As for `InputGradient`.
        """
        check_call(mllm, prompt, target)
        return maps_in_batches(self._together, mllm, samples, prompt, target, batch_size, progress)

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
