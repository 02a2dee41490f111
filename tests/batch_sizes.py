"""What the tests of micro-batches share: samples of various lengths, some of one image, and sizes to cut them by."""

from __future__ import annotations

import numpy as np

import tests.tiny as small
from interp.inputs.sample import Sample

SIZES = (1, 2, 3)
WHOLE = 100
"""A batch size beyond the number of samples."""
SHAPES = {"one": (80, 64), "other": (96, 80), "third": (64, 64)}
QUESTIONS = (
    ("one", "where is the nodule in the left lung, and what is beside it?"),
    ("other", "is it red?"),
    ("one", "is it red?"),
    ("third", "where is the blue circle in it?"),
    ("one", "how many squares are there in it?"),
)
"""Image and question of each sample; the images of one size in a family of any resolution have one shape."""


def samples() -> list[Sample]:
    """Five samples of three images."""
    pictures = {
        name: small.picture(*shape, seed=number) for number, (name, shape) in enumerate(SHAPES.items())
    }
    return [
        Sample(pictures[name], question, id=f"{number}", meta={"label": "it"})
        for number, (name, question) in enumerate(QUESTIONS)
    ]


def masks(counts: list[int]) -> list[np.ndarray]:
    """A mask of its own for each sample."""
    rng = np.random.default_rng(0)
    return [rng.random(n) < 0.5 for n in counts]
