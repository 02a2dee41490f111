"""Image tokens painted over in the image itself, before the model's own processor sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, UInt8
from scipy.ndimage import gaussian_filter

from interp.errors import MapError
from interp.indicators.removal import Removed, checked_masks
from interp.prompt import PAPER_PROMPT, Prompt, Target
from interp.sample import Sample
from interp.tokens import TokenMap
from interp.tracing import Mllm
from interp.tracing.asked import Asked, log_probs
from interp.tracing.cost import Meter
from interp.tracing.execute import execute
from interp.tracing.targets import Aim, forced

__all__ = ["BLUR", "PaintPixels"]

Picture = UInt8[np.ndarray, "_ _ channel"]
BLUR = 0.1
"""Standard deviation of the blur, as a share of the image's shorter side."""


@dataclass(frozen=True)
class PaintPixels:
    """Paints over the footprints of image tokens in the original image, which is then processed as any other.

    A pixel is painted when a removed token's footprint holds its centre. Tokens of other views, or of overlapping
    tiles, that show the same pixels lose them too; so do neighbours, through the resizing of the image. A token without
    footprint (a newline, padding) has no pixels: removing it changes nothing.

    Args:
        by: "grey", (128, 128, 128); "mean", the image's own mean colour; "blur", the image under a Gaussian blur whose
            standard deviation is a tenth of its shorter side.

    Raises:
        MapError: Another `by`.
    """

    by: Literal["grey", "blur", "mean"] = "grey"

    def __post_init__(self) -> None:
        if self.by not in ("grey", "blur", "mean"):
            raise MapError(f'pixels are painted by "grey", "blur" or "mean"; got {self.by!r}.')

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.by} pixels"

    def scores(
        self,
        mllm: Mllm,
        sample: Sample,
        masks: Bool[np.ndarray, "variant token"],
        *,
        prompt: Prompt = PAPER_PROMPT,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
        batch: int = 32,
    ) -> Removed:
        """The target's value under each variant; see `Removal`. Each is a whole pass, vision tower included."""
        asked = Asked.of(mllm, sample, prompt, target)
        tokens = asked.tokens
        masks = checked_masks(masks, tokens.n, batch)
        seen = ~np.isnan(tokens.footprints).any(axis=1)
        chosen = np.flatnonzero((masks & seen).any(axis=1))
        pictures = [np.asarray(sample.load(i)) for i in range(len(sample.images))]
        fills = [self.fill(picture) for picture in pictures]
        values = np.full(len(masks), asked.plain)
        with Meter(mllm.device) as meter:
            for start in range(0, len(chosen), batch):
                part = chosen[start : start + batch]
                painted = [
                    sample.replace(
                        images=painted_over(pictures, fills, tokens, masks[v]), image=None, id=None
                    )
                    for v in part
                ]
                values[part] = _values(mllm, painted, prompt, asked.aim, meter)
        return Removed(values, asked.plain, asked.cost + meter.cost)

    def fill(self, picture: Picture) -> Picture:
        """What painted pixels show, for every pixel of an image."""
        if self.by == "grey":
            return np.full_like(picture, 128)
        if self.by == "mean":
            return np.broadcast_to(np.rint(picture.mean(axis=(0, 1))).astype(np.uint8), picture.shape)
        sigma = BLUR * min(picture.shape[:2])
        blurred = gaussian_filter(picture.astype(np.float32), sigma=(sigma, sigma, 0), mode="nearest")
        return np.rint(blurred).clip(0, 255).astype(np.uint8)

    def to_dict(self) -> dict[str, Any]:
        """The removal as JSON values."""
        return {"removal": "paint_pixels", "by": self.by, **({"sigma": BLUR} if self.by == "blur" else {})}


def painted_over(
    pictures: list[Picture], fills: list[Picture], tokens: TokenMap, removed: Bool[np.ndarray, " token"]
) -> list[Picture]:
    """The images with the removed tokens' footprints filled."""
    painted = [picture.copy() for picture in pictures]
    seen = removed & ~np.isnan(tokens.footprints).any(axis=1)
    edges = np.ceil(tokens.footprints[seen] - 0.5).astype(int)
    for image, (x0, y0, x1, y1) in zip(tokens.image_index[seen], edges, strict=True):
        painted[image][y0:y1, x0:x1] = fills[image][y0:y1, x0:x1]
    return painted


def _values(mllm: Mllm, samples: list[Sample], prompt: Prompt, aim: Aim, meter: Meter) -> np.ndarray:
    """The target's value of each sample, its answers' tokens given."""
    batch = mllm.encode(samples, prompt)
    groups = [aim.answers[:1]] if aim.single else [(answer,) for answer in aim.answers]
    values = np.zeros(len(samples))
    for at, (answer, *_) in enumerate(groups):
        behind = forced(mllm, batch, [answer] * len(samples))
        _, _, outcome = execute(mllm, behind, None, [], [], meter, keep=len(answer))
        scored = (
            list(zip(aim.answers, aim.weights, strict=True)) if aim.single else [(answer, aim.weights[at])]
        )
        values += sum(weight * log_probs(outcome.tail, ids) for ids, weight in scored)
    return values
