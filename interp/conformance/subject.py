"""The model under test with what its checks share: pictures, samples, encodings, references, tolerances.

The pictures are smooth random colours for random weights, and pieces of photographs for trained ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from interp.conformance.reference import Reference, finer_reference, reference
from interp.errors import ModelError
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.models.adapter import attends_in
from interp.models.base import Attends
from interp.tracing import Batch, Mllm
from interp.tracing.vision_tower import patch_tokens

__all__ = ["Subject", "inner_box", "photo", "places", "repainted", "shapes", "smooth"]


_QUESTIONS = (
    "where is the nodule?",
    "is it a general x ray of the lung?",
    "what is there in the left lung, and is it red?",
)
"""Each question is longer than the one before."""
_LAST = 16
"""How many last rows of a prompt rounding errors are measured on."""
_CELL = {False: 10, True: 20}
"""Whether the weights are trained → width of a cell of the square test picture in pixels, where the model lets one
choose it. A trained tower recognises little in a picture that is enlarged much, as the tiny one is."""
_ASPECTS = ((1.0, 1.0), (2.4, 0.9), (0.8, 2.1), (0.31, 0.23))
"""Width and height of the square, wide, tall and tiny pictures, relative to the side of the square one."""


def places(mllm: Mllm, batch: Batch) -> Sequence[TokenMap]:
    """Returns the tokens of each sample's maps: the image tokens, or the patches where a map is composed."""
    return patch_tokens(mllm, batch) if mllm.maps == "composed" else batch.tokens


def inner_box(footprint: Float[np.ndarray, " 4"], margin: float = 0.1) -> tuple[int, int, int, int]:
    """Returns a box of whole pixels well inside a footprint, xyxy, half-open.

    Args:
        footprint: The footprint, xyxy in pixels.
        margin: The share of each side to leave out at both ends. If a side then holds no whole pixel, the pixel at
            its centre is used.
    """
    edges = []
    for low, high in ((footprint[0], footprint[2]), (footprint[1], footprint[3])):
        away = margin * (high - low)
        start, stop = int(np.ceil(low + away)), int(np.floor(high - away))
        if stop <= start:
            start = int(np.floor((low + high) / 2))
            stop = start + 1
        edges.append((start, stop))
    (x0, x1), (y0, y1) = edges
    return x0, y0, x1, y1


def repainted(picture: UInt8[np.ndarray, "row col 3"], box: Sequence[int]) -> UInt8[np.ndarray, "row col 3"]:
    """Returns the picture with the box painted in the most different colour, each channel 0 or 255.

    Raises:
        ModelError: The box reaches outside the picture.
    """
    x0, y0, x1, y1 = box
    height, width = picture.shape[:2]
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ModelError(
            f"a footprint holds the pixels {tuple(box)} (xyxy), outside its image of {width}×{height}. Does the "
            "adapter assign it to the right image of the sample?"
        )
    changed = picture.copy()
    patch = picture[y0:y1, x0:x1].reshape(-1, 3).mean(axis=0)
    changed[y0:y1, x0:x1] = np.where(patch < 128, 255, 0)
    return changed


@dataclass(frozen=True, eq=False)
class Subject:
    """A model under test.

    Attributes:
        mllm: The model.
        given: Pictures to use instead of generated ones, (row, col, 3) uint8.
        probes: The largest number of tokens to probe in each view of a picture.
        seed: The seed of everything random.
        trained: Whether the weights come from a real checkpoint, whose vision tower mixes tokens more.
    """

    mllm: Mllm
    given: tuple[np.ndarray, ...] = ()
    probes: int = 64
    seed: int = 0
    trained: bool = False

    def picture(self, size: tuple[int, int], seed: int) -> UInt8[np.ndarray, "row col 3"]:
        """Returns a picture of (width, height): a piece of a photograph for trained weights, else a smooth one."""
        return (photo if self.trained else smooth)(size, seed)

    @cached_property
    def pictures(self) -> list[np.ndarray]:
        """The given pictures, or a square, a wide, a tall and a tiny one."""
        if self.given:
            return list(self.given)
        sample = Sample(self.picture((256, 256), self.seed), _QUESTIONS[0])
        square = places(self.mllm, self.mllm.encode(sample))[0]
        widths = square.footprints[:, 2] - square.footprints[:, 0]
        side = int(np.clip(256 * _CELL[self.trained] / np.nanmin(widths), 96, 640)) if len(widths) else 96
        return [self.picture(size, self.seed + i) for i, size in enumerate(shapes(side))]

    @cached_property
    def samples(self) -> list[Sample]:
        """Three samples; more image tokens come with a longer question, so that all prompts differ in length."""
        made = [Sample(picture, _QUESTIONS[0]) for picture in self.pictures[: len(_QUESTIONS)]]
        made += [made[0]] * (len(_QUESTIONS) - len(made))
        made.sort(key=lambda sample: self.mllm.encode(sample).tokens[0].n)
        return [sample.replace(question=text) for sample, text in zip(made, _QUESTIONS, strict=True)]

    @cached_property
    def batch(self) -> Batch:
        """The samples, left-padded."""
        return self.mllm.encode(self.samples)

    @cached_property
    def singles(self) -> list[Batch]:
        """Each sample encoded alone, without padding."""
        return [self.mllm.encode(sample) for sample in self.samples]

    @property
    def tokens(self) -> Sequence[TokenMap]:
        """The token map of each sample."""
        return self.batch.tokens

    def plain(self, sample: int) -> dict[str, Tensor]:
        """Returns a sample's inputs as its processor made them; transformers computes the positions itself."""
        return {k: v for k, v in self.singles[sample].inputs.items() if k != "position_ids"}

    @cached_property
    def eager(self) -> Reference:
        """The same weights in transformers' eager attention."""
        return reference(self.mllm.hf, self.mllm.adapter, "eager")

    @cached_property
    def unwrapped(self) -> Reference:
        """The same weights in the model's own attention, without a tap."""
        return reference(self.mllm.hf, self.mllm.adapter, self.mllm.installation.implementation)

    @cached_property
    def finer(self) -> Reference:
        """Eager attention on a copy of the weights in the next wider type, to measure rounding errors against."""
        return finer_reference(self.mllm.hf, self.mllm.adapter)

    @cached_property
    def rounding(self) -> float:
        """The largest error of eager attention itself, of any row or of the logits, against `finer`."""
        worst = 0.0
        for i in range(len(self.samples)):
            (logits, rows), (true_logits, true_rows) = (
                one.reading(self.plain(i), lambda weights: weights[0, :, -_LAST:].cpu())
                for one in (self.eager, self.finer)
            )
            worst = max(worst, float((logits - true_logits).abs().max() / true_logits.abs().max()))
            for row, true in zip(rows, true_rows, strict=True):
                worst = max(worst, float((row - true).abs().sum(-1).max()))
        return worst

    @property
    def attends(self) -> Attends:
        """What the adapter declares of this model; "causal" if it declares nothing."""
        return attends_in(self.mllm.adapter, self.mllm.hf.config)

    @property
    def eps(self) -> float:
        """The machine epsilon of the model's dtype."""
        return float(torch.finfo(self.mllm.dtype).eps)

    @property
    def exact(self) -> bool:
        """Whether two computations of the same numbers agree to 1e-5, as in float32 and finer."""
        return 8 * self.eps < 1e-5

    @property
    def tolerance(self) -> float:
        """The largest allowed difference of two exact computations, relative to the scale of the values.

        It is 1e-5 in float32, where sums in another order differ by a few hundred eps at most, and 8 eps in half
        precision, where rounding in each layer already takes a large part of that.
        """
        return max(1e-5, 8 * self.eps)


def shapes(side: int) -> list[tuple[int, int]]:
    """Returns (width, height) of a square, a wide, a tall and a tiny picture; odd, so that rounding errors show."""
    return [(round(side * width) | 1, round(side * height) | 1) for width, height in _ASPECTS]


def smooth(size: tuple[int, int], seed: int) -> UInt8[np.ndarray, "row col 3"]:
    """Returns a random picture of (width, height) without edges: 6×6 random colours, interpolated."""
    coarse = np.random.default_rng(seed).integers(40, 216, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def photo(size: tuple[int, int], seed: int) -> UInt8[np.ndarray, "row col 3"]:
    """Returns a piece of one of scikit-learn's two photographs, at (width, height).

    A trained vision tower spreads what it cannot recognise over the whole picture, and nothing in smooth colours can be
    recognised. Seeds alternate between the photographs, a temple and a flower; place, scale and reflection are random.
    """
    rng = np.random.default_rng(seed)
    whole = _photographs()[seed % 2]
    height, width = whole.shape[:2]
    largest = min(width / size[0], height / size[1])
    scale = largest * rng.uniform(0.5, 1.0)
    across, down = (max(1, int(scale * side)) for side in size)
    left, top = int(rng.integers(0, width - across + 1)), int(rng.integers(0, height - down + 1))
    piece = Image.fromarray(whole[top : top + down, left : left + across])
    if rng.random() < 0.5:
        piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(piece.resize(size, Image.Resampling.BICUBIC))


@cache
def _photographs() -> list[UInt8[np.ndarray, "row col 3"]]:
    return load_sample_images().images
