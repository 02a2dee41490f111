"""Samples, prompts, images and token maps: what a model is given and where each part lies. numpy only."""

from interp.inputs.footprints import Footprints
from interp.inputs.masks import Mask
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Prompt, Target, diff
from interp.inputs.sample import Box, Sample
from interp.inputs.tokens import TokenMap, word

__all__ = [
    "GENERIC_PROMPT",
    "PAPER_PROMPT",
    "Box",
    "Footprints",
    "Mask",
    "Prompt",
    "Sample",
    "Target",
    "TokenMap",
    "diff",
    "word",
]
