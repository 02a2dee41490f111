"""A sample's image with what is known of it drawn on it, and a map laid over it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from PIL import Image

from interp.inputs.boxes import Box
from interp.inputs.masks import Mask
from interp.inputs.pictures import SIDE, bounded, marked_image, overlaid, strengths, with_truth
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap

__all__ = ["overlay", "picture"]


def picture(sample: Sample, image: int = 0, side: int = SIDE) -> Image.Image:
    """The sample's image with the boxes or the masks' outlines on it; its longer side has `side` pixels."""
    return marked_image(sample.load(image), *_truth(sample, image), side)


def overlay(
    sample: Sample, tokens: TokenMap, values: Float[np.ndarray, " token"], image: int = 0, side: int = SIDE
) -> Image.Image:
    """The image in grey with the map over it, and the boxes or the masks' outlines; its longer side has `side` pixels.

    Each token's footprint has one colour: nothing is smoothed. Strength is the value over the map's 99.5th
    percentile, to the power 0.7; parts that no token sees stay grey.
    """
    base = sample.load(image)
    heat = tokens.to_pixels(strengths(values), image=image)
    shown = overlaid(base, heat, bounded(base.size, side))
    return with_truth(shown, base.size, *_truth(sample, image))


def _truth(sample: Sample, image: int) -> tuple[list[Box], list[Mask]]:
    """The boxes and the masks of one image of a sample."""
    boxes = [box for box in sample.boxes if box.image == image]
    return boxes, [mask for mask in sample.masks if mask.image == image]
