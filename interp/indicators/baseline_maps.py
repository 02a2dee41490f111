"""Maps that know nothing of the model: what an indicator must beat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from interp.errors import MapError
from interp.indicators.maps import Maps
from interp.inputs.prompt import PAPER_PROMPT, Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing import Batch, Prefix
from interp.tracing.cost import Meter

__all__ = ["CentrePrior", "RandomMap", "centre_prior"]

Given = Sample | Iterable[Sample] | Batch | Prefix


@dataclass(frozen=True)
class RandomMap:
    """Independent draws from [0, 1), one per image token.

    A sample's map depends on the seed and on the sample (image, question, boxes, answer), not on its batch: the same
    image under another question has another map. What an indicator scores below it, it scores by pointing away.

    Args:
        seed: of the draws.

    Raises:
        MapError: a seed that is no whole number ≥ 0.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise MapError(f"seed is a whole number ≥ 0; got {self.seed!r}.")

    def __call__(
        self,
        mllm: Any,
        samples: Given,
        *,
        prompt: Prompt = PAPER_PROMPT,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
    ) -> Maps:
        """The maps (token); the model, which may be anything that encodes samples, only says where image tokens are."""

        def drawn(sample: Sample, tokens: TokenMap) -> np.ndarray:
            own = int(sample.fingerprint[:16], 16)
            return np.random.default_rng([self.seed, own]).random(tokens.n)

        return _maps(mllm, samples, prompt, drawn)

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values."""
        return {"indicator": "random", "seed": self.seed}


@dataclass(frozen=True)
class CentrePrior:
    """A look at the middle of each image, whatever is asked: exp(−½ (dx² + dy²) / σ²) at each footprint's centre.

    dx and dy are offsets from the image's centre in units of its sides. In (0, 1]; 0 for a token without footprint.
    Objects tend to lie in the middle, so an indicator that knows nothing can score well.

    Args:
        sigma: σ, in units of the image's sides.

    Raises:
        MapError: a σ that is no number > 0.
    """

    sigma: float = 0.25

    def __post_init__(self) -> None:
        if isinstance(self.sigma, bool) or not isinstance(self.sigma, int | float) or not self.sigma > 0:
            raise MapError(f"sigma is a number > 0, a share of the image's side; got {self.sigma!r}.")

    def __call__(
        self,
        mllm: Any,
        samples: Given,
        *,
        prompt: Prompt = PAPER_PROMPT,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
    ) -> Maps:
        """The maps (token); the model, which may be anything that encodes samples, only says where image tokens are."""

        def middle(sample: Sample, tokens: TokenMap) -> np.ndarray:
            return centre_prior(tokens.footprints, tokens.image_index, tokens.sizes, self.sigma)

        return _maps(mllm, samples, prompt, middle)

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


def _maps(mllm: Any, samples: Any, prompt: Prompt, values: Callable[[Sample, TokenMap], np.ndarray]) -> Maps:
    if isinstance(samples, Batch | Prefix):
        listed = list(samples.samples)
    else:
        listed = [samples] if isinstance(samples, Sample) else list(samples)
    with Meter(mllm.device) as meter:
        tokens = tuple(mllm.encode(listed, prompt).tokens)
        arrays = tuple(
            xr.DataArray(
                values(sample, own).astype(np.float32),
                dims=("token",),
                coords={"token": np.arange(own.n), "position": ("token", own.image)},
            )
            for sample, own in zip(listed, tokens, strict=True)
        )
    return Maps(arrays, tokens, meter.cost)
