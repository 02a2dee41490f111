"""Baseline maps, which ignore the model: an indicator must score better than these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from interp.indicators.indicator_checks import check_number, check_whole
from interp.indicators.maps import ONE_MAP, BatchIndicator, Maps, Samples, label_map
from interp.inputs.prompt import Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.sample_list import as_samples
from interp.inputs.tokens import TokenMap
from interp.tracing import Batch, Prefix
from interp.tracing.cost import Meter
from interp.tracing.passes.prefix_pass import meant_prompt

__all__ = ["CentrePrior", "RandomMap", "centre_prior"]


@dataclass(frozen=True)
class RandomMap(BatchIndicator):
    """Independent draws from [0, 1), one per image token.

    A sample's map depends on the seed and on the sample (image, question, boxes, answer), not on its batch. The same
    image with another question has another map. An indicator that scores lower points away from the boxes.

    Args:
        seed: The seed of the draws.

    Raises:
        MapError: A seed that is not a whole number of at least 0.
    """

    seed: int = 0

    dims: ClassVar[tuple[str, ...]] = ONE_MAP

    def __post_init__(self) -> None:
        check_whole("seed", self.seed, 0)

    def _together(self, mllm: Any, samples: Samples, prompt: Prompt | None, target: Target) -> Maps:
        """The maps of samples that run together; the model is used only to find the places of the image tokens."""

        def drawn(sample: Sample, tokens: TokenMap) -> np.ndarray:
            own = int(sample.fingerprint[:16], 16)
            return np.random.default_rng([self.seed, own]).random(tokens.n)

        return _maps(mllm, samples, prompt, "random", drawn)

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values."""
        return {"indicator": "random", "seed": self.seed}


@dataclass(frozen=True)
class CentrePrior(BatchIndicator):
    """The centre prior, exp(−½ (dx² + dy²) / σ²) at each footprint's centre: the same for every question.

    dx and dy are offsets from the image's centre in units of its sides. In (0, 1]; 0 for a token without footprint.
    Objects are often near the centre, so a map that ignores the model can score well.

    Args:
        sigma: σ, in units of the image's sides.

    Raises:
        MapError: A σ that is not a finite number above 0.
    """

    sigma: float = 0.25

    dims: ClassVar[tuple[str, ...]] = ONE_MAP

    def __post_init__(self) -> None:
        check_number("sigma, a share of the image's side,", self.sigma, low=0, open_low=True)

    def _together(self, mllm: Any, samples: Samples, prompt: Prompt | None, target: Target) -> Maps:
        """The maps of samples that run together; the model is used only to find the places of the image tokens."""

        def middle(sample: Sample, tokens: TokenMap) -> np.ndarray:
            return centre_prior(tokens.footprints, tokens.image_index, tokens.sizes, self.sigma)

        return _maps(mllm, samples, prompt, "centre prior", middle)

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values."""
        return {"indicator": "centre prior", "sigma": float(self.sigma)}


def centre_prior(
    footprints: Float[np.ndarray, "token 4"],
    image_index: np.ndarray,
    sizes: Sequence[tuple[int, int]],
    sigma: float = 0.25,
) -> Float[np.ndarray, " token"]:
    """The Gaussian map of `CentrePrior` from the footprints of the tokens and the (width, height) of the images."""
    sides = np.asarray(sizes, float)[image_index]
    centres = (footprints[:, :2] + footprints[:, 2:]) / 2
    offsets = centres / sides - 0.5
    values = np.exp(-0.5 * (offsets**2).sum(-1) / sigma**2)
    return np.where(np.isnan(values), 0.0, values)


def _maps(
    mllm: Any,
    samples: Samples,
    prompt: Prompt | None,
    name: str,
    values: Callable[[Sample, TokenMap], np.ndarray],
) -> Maps:
    """The maps of values that do not depend on the model."""
    listed = samples.samples if isinstance(samples, Batch | Prefix) else as_samples(samples)
    with Meter(mllm.device) as meter:
        tokens = mllm.encode(listed, meant_prompt(samples, prompt)).tokens
        pairs = zip(listed, tokens, strict=True)
        arrays = tuple(label_map(values(sample, of), of, name) for sample, of in pairs)
    return Maps(arrays, tokens, meter.cost)
