"""ViCrop: answer from the image and a crop of it, where the model's attention or gradients are largest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float

from interp.errors import InterpError, MapError, MethodError, SampleError, SiteError
from interp.indicators import Maps
from interp.indicators.indicator_checks import check_call, check_number, check_one_of
from interp.inputs.prompt import GENERIC_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.inputs.sample_list import as_samples
from interp.inputs.text import count
from interp.inputs.tokens import TokenMap
from interp.methods.method import BATCH_SIZE, Answer, Samples, answers, each_in_batches, n_tokens
from interp.methods.published_layers import editable_layers, scaled_layers
from interp.methods.vicrop_maps import grad_att, pure_grad, rel_att, whole_view
from interp.tracing import Batch, Cost, Mllm, Prefix
from interp.tracing.cost import Meter
from interp.tracing.passes.micro_batches import MicroBatch
from interp.tracing.passes.prefix_pass import meant_prompt

__all__ = ["RATIOS", "Cells", "Crop", "Selected", "ViCrop", "best_window", "cell_grid", "select"]

RATIOS = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
"""The published sides of the windows, as multiples of the base."""

_SLIVER = 1e-6  # of a cell: a window that is short of one more cell by less than this holds it


@dataclass(frozen=True)
class Selected:
    """A crop of an image.

    Attributes:
        box: Half-open xyxy in whole pixels of the original image, inside it.
        ratio: Side of the window as a multiple of the base; None for the whole image.
        score: The window's sum minus the mean of its neighbours', per cell; NaN for the whole image.
    """

    box: tuple[int, int, int, int]
    ratio: float | None
    score: float


@dataclass(frozen=True, eq=False)
class Cells:
    """A map as a grid over the part of the image that its tokens cover.

    Attributes:
        values: (row, col), the map's values.
        rows: (row, 2), upper and lower edge of each row, in pixels of the original image.
        cols: (col, 2), left and right edge of each column, in pixels of the original image.
    """

    values: Float[np.ndarray, "row col"]
    rows: Float[np.ndarray, "row 2"]
    cols: Float[np.ndarray, "col 2"]

    def within(self, side: float) -> tuple[int, int]:
        """(rows, cols) of whole cells along `side` pixels: at least one, at most all.

        The side of a cell is that of the largest, because cells at the edge of a padded or cropped image may be cut.
        """
        rows, cols = (
            max(1, min(len(lines), math.floor(side / np.diff(lines).max() + _SLIVER)))
            for lines in (self.rows, self.cols)
        )
        return rows, cols


def select(
    values: Float[np.ndarray, " token"],
    footprints: Float[np.ndarray, "token 4"],
    size: tuple[int, int],
    base: float,
    ratios: Sequence[float] = RATIOS,
) -> Selected:
    """The crop of an image of `size` (width, height) where a map over one view's tokens stands out most.

    For each ratio a window of as many whole cells as fit into base · ratio pixels slides over the grid, cell by cell,
    to the place with the largest sum. Its score is (sum − mean of the sums one cell to the left, right, up and down,
    where such windows exist) / cells. The ratio with the highest score is used. The crop is a square of base · ratio
    pixels, rounded, around the window's centre, shifted inside the image. A side longer than the image is cut to the
    image.

    Of equal sums the first in reading order is taken, of equal scores the first ratio. A ratio whose window covers the
    whole grid is skipped. The crop is the whole image when no ratio is left, and when the map has one value everywhere.

    Args:
        values: The map, (token,), finite.
        footprints: xyxy in pixels of the original image; tokens with NaN (padding, newlines) are ignored.
        size: (width, height) of the original image.
        base: Side of the window of ratio 1, in pixels of the original image.
        ratios: Sides of the windows, as multiples of the base.

    Raises:
        MapError: Values that are not finite, one per token; footprints that are not one grid.

    Source: arXiv 2502.17422 and its code. The code puts windows on a grid stretched over the image, whatever the true
    preprocessing, cuts fractions of a pixel off where they are rounded here (edges differ by up to two pixels), and
    takes the upper left corner for a flat map.
    """
    cells = cell_grid(values, footprints)
    best: tuple[float, float, tuple[int, int], tuple[int, int]] | None = None
    for ratio in ratios if np.ptp(cells.values) > 0 else ():
        window = cells.within(base * ratio)
        if window == cells.values.shape:
            continue
        score, place = best_window(cells.values, window)
        if best is None or score > best[0]:
            best = score, float(ratio), place, window
    if best is None:
        return Selected((0, 0, *size), None, float("nan"))
    score, ratio, (row, col), (n_rows, n_cols) = best
    x0, x1 = _placed(cells.cols[col, 0], cells.cols[col + n_cols - 1, 1], base * ratio, size[0])
    y0, y1 = _placed(cells.rows[row, 0], cells.rows[row + n_rows - 1, 1], base * ratio, size[1])
    return Selected((x0, y0, x1, y1), ratio, score)


def best_window(
    values: Float[np.ndarray, "row col"], window: tuple[int, int]
) -> tuple[float, tuple[int, int]]:
    """The score of the window with the largest sum, and its first (row, col); `window` leaves room to slide."""
    sums = np.lib.stride_tricks.sliding_window_view(values, window).sum(axis=(-2, -1))
    row, col = np.unravel_index(int(sums.argmax()), sums.shape)
    beside = ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1))
    near = [sums[r, c] for r, c in beside if 0 <= r < sums.shape[0] and 0 <= c < sums.shape[1]]
    score = (sums[row, col] - np.mean(near)) / (window[0] * window[1])
    return float(score), (int(row), int(col))


def cell_grid(values: Float[np.ndarray, " token"], footprints: Float[np.ndarray, "token 4"]) -> Cells:
    """The tokens with area as a grid, whatever their order in the prompt.

    Raises:
        MapError: Values that are not finite, one per token; footprints that are not one grid.
    """
    values, footprints = np.asarray(values, float), np.asarray(footprints, float)
    if values.shape != footprints.shape[:1] or not np.isfinite(values).all():
        raise MapError(
            f"a crop needs one finite value per token, shape {footprints.shape[:1]}; got shape {values.shape} with "
            f"{count(int((~np.isfinite(values)).sum()), 'value')} NaN or infinite."
        )
    seen = ~np.isnan(footprints).any(axis=1)
    rows, at_row = _lines(footprints[seen][:, [1, 3]])
    cols, at_col = _lines(footprints[seen][:, [0, 2]])
    grid = np.full((len(rows), len(cols)), np.nan)
    grid[at_row, at_col] = values[seen]
    if not grid.size or np.isnan(grid).any() or grid.size != seen.sum():
        raise MapError(
            f"a crop slides windows over one grid of tokens; got {count(int(seen.sum()), 'footprint')} with area in "
            f"{count(len(rows), 'row')} and {count(len(cols), 'column')}. Pass the tokens of one view only."
        )
    return Cells(grid, rows, cols)


def _lines(
    edges: Float[np.ndarray, "token 2"],
) -> tuple[Float[np.ndarray, "line 2"], np.ndarray]:
    """The different (low, high) edges in order of the low one, and which of them each token has."""
    _, first, at = np.unique(np.round(edges[:, 0], 6), return_index=True, return_inverse=True)
    return edges[first], at.reshape(-1)


def _placed(low: float, high: float, side: float, length: int) -> tuple[int, int]:
    """`side` pixels around the middle of low … high, shifted inside 0 … length."""
    n = min(max(round(side), 1), length)
    start = math.floor((low + high - n) / 2 + 0.5)
    start = min(max(start, 0), length - n)
    return start, start + n


_QWEN_BASE, _LLAVA_BASE = 224, 336
_QWEN_LAYER, _LLAVA_LAYER = (22, 28), (14, 32)  # layer, of how many


@dataclass(frozen=True, eq=False)
class Crop:
    """One sample's crop and the map that gave it.

    Attributes:
        box: Half-open (x0, y0, x1, y1) in whole pixels of the original image.
        ratio: Side of the chosen window as a multiple of the base; None for the whole image.
        base: Side of the window of ratio 1, in pixels of the original image.
        map: float32 (token,) over the image tokens.
        layer: The layer of the map's attention; None for "pure_grad".
        tokens: Where the image tokens are.
        cost: The cost of all maps and crops of the call; the same for each crop.
    """

    box: tuple[int, int, int, int]
    ratio: float | None
    base: float
    map: Float[np.ndarray, " token"]
    layer: int | None
    tokens: TokenMap
    cost: Cost

    def details(self) -> dict[str, Any]:
        """The part of `Answer.details` that describes the crop."""
        return {
            "map": self.map,
            "crop": self.box,
            "ratio": self.ratio,
            "base": self.base,
            "layer": self.layer,
        }


@dataclass(frozen=True)
class ViCrop:
    """Answers from the image and from a crop of it, chosen by the model's own attention or gradients.

    Windows of several sizes slide over a map of the image tokens. The window that exceeds its neighbours most becomes
    the crop (`interp.methods.vicrop.select`). Windows slide over the view of the whole image: the only view, or
    "base", "global" or "thumbnail" of tiled families.

    Maps, of the last prompt token:

    - "rel_att": mean_h A(prompt) / mean_h A(generic) of one layer.
    - "grad_att": mean_h [A ⊙ ReLU(∂ log p/∂A)] of one layer, p the probability of the most probable next token. As in
      the published code, it is not divided by that of a generic prompt.
    - "pure_grad": ‖∂ log p/∂pixels‖₂(prompt) / same(generic), at pixels with more fine detail than half of the picture,
      averaged over each token's pixels (`interp.methods.vicrop_maps.pure_grad`).

    Args:
        map: The kind of map, "rel_att", "grad_att" or "pure_grad".
        layer: The decoder layer of the map, 0-based. None: the published layer, 14 of 32 (LLaVA) or 22 of 28
            (Qwen2.5-VL), and the same fraction of another depth (`scaled_layers`): 22/28 in the Qwen families, 14/32 in
            all others.
        base: Side of the smallest window: a whole number of pixels of the original image, or a fraction below 1 of its
            shorter side. None: the published 336 for LLaVA at 336 px and 224 for the Qwen families; for other families
            the image side that the vision tower is made for (`config.vision_config.image_size`), at most half of the
            image's shorter side, so that the crop enlarges.
        ratios: Sides of the windows, as multiples of the base.
        images: "both" shows the image, then the crop. The published code does so whether or not the model was trained
            on several images. "crop" shows the crop alone.
        generic: The generic prompt of the divisor. None: `GENERIC_PROMPT` with the question's system message and image
            order. Not for "grad_att".

    When all windows cover the image (a small image, a large base), the crop is the whole image, as published. It is
    also the whole image when the map is flat.

    Raises:
        MethodError: A parameter out of its range.

    Source: arXiv 2502.17422 and its code. The code reads maps as if the image were stretched over the tokens; here
    windows lie where the tokens' footprints are.
    """

    name: ClassVar[str] = "ViCrop"

    map: Literal["rel_att", "grad_att", "pure_grad"] = "rel_att"
    layer: int | None = None
    base: float | None = None
    ratios: Sequence[float] = RATIOS
    images: Literal["both", "crop"] = "both"
    generic: Prompt | None = None

    def __post_init__(self) -> None:
        check_one_of("map", self.map, ("rel_att", "grad_att", "pure_grad"), MethodError)
        check_one_of("images", self.images, ("both", "crop"), MethodError)
        _check_layer(self.layer, self.map)
        _check_base(self.base)
        _check_generic(self.generic, self.map)
        object.__setattr__(self, "ratios", _ratios(self.ratios))

    def answer(
        self,
        mllm: Mllm,
        samples: Samples,
        *,
        prompt: Prompt | None = None,
        max_new_tokens: int = 16,
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> list[Answer]:
        """The answers to these samples, in micro-batches, each from its image and its crop.

        `details` holds "map", "crop" (x0, y0, x1, y1), "ratio", "base", "layer" and "images" ("both" or "crop").

        Args:
            mllm: The model.
            samples: Samples with one image each, or a batch or prefix of them.
            prompt: The prompt around the question, for the map and for the answer; by default `PAPER_PROMPT`, or
                that of the batch or prefix.
            max_new_tokens: The most tokens to generate, one or more.
            batch_size: Samples in one pass at most; with "both" it holds twice as many images.
            progress: Whether to show a bar where there are several micro-batches.

        Raises:
            MethodError: `max_new_tokens` below 1; a model that does not accept two images or gives no gradients of
                pixels; a sample that shows a video.
            SiteError: A layer the model does not have.
            SampleError: A sample with several images.
            InterpError: Samples or prompts that cannot be encoded.
        """
        check_call(mllm, prompt)
        n, prompt, chosen = n_tokens(max_new_tokens), meant_prompt(samples, prompt), _samples(samples)

        def together(own: Mllm, some: MicroBatch) -> list[Answer]:
            """Answers a micro-batch from its images and crops."""
            crops = self.crop(own, some.samples, prompt)
            with Meter(own.device) as meter:
                pairs = zip(_listed(some.samples), crops, strict=True)
                batch = self._encoded(own, [self._shown(*one) for one in pairs], prompt)
            trace = own.trace(batch, prompt=prompt, generate=n)
            said = [{**one.details(), "images": self.images} for one in crops]
            return answers(trace, crops[0].cost + meter.cost + trace.cost, said)

        return each_in_batches(mllm, chosen, together, batch_size=batch_size, progress=progress)

    def crop(
        self,
        mllm: Mllm,
        samples: Samples,
        prompt: Prompt | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> list[Crop]:
        """Each sample's crop, without an answer.

        Args:
            mllm: The model.
            samples: Samples with one image each, or a batch or prefix of them.
            prompt: The prompt around the question; by default `PAPER_PROMPT`, or that of the batch or prefix.
            batch_size: Samples in one pass at most.
            progress: Whether to show a bar where there are several micro-batches.

        Raises:
            MethodError: A model that gives no gradients of pixels, or a sample that shows a video.
            SiteError: A layer the model does not have.
            SampleError: A sample with several images.
            InterpError: Samples or prompts that cannot be encoded.
        """
        check_call(mllm, prompt)
        prompt, chosen = meant_prompt(samples, prompt), _samples(samples)
        layer = None if self.map == "pure_grad" else self._layer(mllm)

        def together(own: Mllm, some: MicroBatch) -> list[Crop]:
            """The crops of a micro-batch, from one run of its maps."""
            maps = self._maps(own, some.samples, prompt, layer)
            with Meter(own.device) as meter:
                found = [
                    self._selected(own, one.values, tokens)
                    for one, tokens in zip(maps, maps.tokens, strict=True)
                ]
            cost = maps.cost + meter.cost
            return [
                Crop(one.box, one.ratio, base, array.values, layer, tokens, cost)
                for (one, base), array, tokens in zip(found, maps, maps.tokens, strict=True)
            ]

        return each_in_batches(mllm, chosen, together, batch_size=batch_size, progress=progress)

    def to_dict(self) -> dict[str, Any]:
        """The method as JSON values."""
        return {
            "method": self.name,
            "map": self.map,
            "layer": self.layer,
            "base": self.base,
            "ratios": list(self.ratios),
            "images": self.images,
            "generic": None if self.generic is None else self.generic.to_dict(),
        }

    def _layer(self, mllm: Mllm) -> int:
        if self.layer is None:
            return self._default(mllm)
        if self.layer >= mllm.n_layers:
            raise SiteError(
                f"ViCrop's layer is one of 0 … {mllm.n_layers - 1} in this model; got {self.layer}. Leave layer= out "
                f"for layer {self._default(mllm)}."
            )
        return self.layer

    def _default(self, mllm: Mllm) -> int:
        """The published layer in this model, or the nearest with a softmax."""
        return editable_layers(mllm, [default_layer(mllm.family, mllm.n_layers)], None)[0]

    def _maps(
        self, mllm: Mllm, samples: tuple[Sample, ...] | Batch | Prefix, prompt: Prompt, layer: int | None
    ) -> Maps:
        generic = self.generic or replace(
            GENERIC_PROMPT, system=prompt.system, image_first=prompt.image_first
        )
        if self.map == "rel_att" and layer is not None:
            return rel_att(mllm, samples, prompt, generic, layer)
        if layer is not None:
            return grad_att(mllm, _listed(samples) if isinstance(samples, Prefix) else samples, prompt, layer)
        return pure_grad(mllm, samples, prompt, generic)

    def _selected(self, mllm: Mllm, values: np.ndarray, tokens: TokenMap) -> tuple[Selected, float]:
        """The crop and its base in pixels."""
        size, mine = tokens.sizes[0], whole_view(tokens)
        base = self.base
        if base is None:
            base = default_base(mllm.family, mllm.hf.config, size)
        elif base < 1:
            base = base * min(size)
        return select(values[mine], tokens.footprints[mine], size, base, self.ratios), float(base)

    def _shown(self, sample: Sample, crop: Crop) -> Sample:
        """The sample the model answers from. A crop alone has no boxes or masks: they are of the original image."""
        picture = sample.load().crop(crop.box)
        if self.images == "both":
            return sample.replace(images=[sample.image, picture])
        return sample.replace(images=[picture], boxes=(), masks=())

    def _encoded(self, mllm: Mllm, shown: list[Sample], prompt: Prompt) -> Batch:
        try:
            return mllm.encode(shown, prompt)
        except InterpError as error:
            if self.images == "crop":
                raise
            raise MethodError(
                f"ViCrop shows an image and its crop, but {mllm.family} does not accept two images here ({error}) "
                'Use ViCrop(images="crop") to answer from the crop alone.'
            ) from error


def default_layer(family: str, n_layers: int) -> int:
    """The published layer, or the one at the same fraction of this depth (`scaled_layers`)."""
    layer, depth = _QWEN_LAYER if family.startswith("qwen") else _LLAVA_LAYER
    return scaled_layers([layer], depth=depth, n_layers=n_layers)[0]


def default_base(family: str, config: Any, size: tuple[int, int]) -> float:
    """Side of the smallest window in pixels of an image of `size`; see `ViCrop`."""
    if family.startswith("qwen"):
        return _QWEN_BASE
    side = getattr(getattr(config, "vision_config", None), "image_size", None)
    side = min(side) if isinstance(side, list | tuple) else side
    if family == "llava" and side == _LLAVA_BASE:
        return _LLAVA_BASE
    half = max(min(size) / 2, 1.0)
    return half if side is None else min(float(side), half)


def _samples(samples: Samples) -> tuple[Sample, ...] | Batch | Prefix:
    """One batch of samples with one image each."""
    chosen = samples if isinstance(samples, Batch | Prefix) else as_samples(samples)
    for sample in _listed(chosen):
        if sample.video is not None:
            raise MethodError(
                f"ViCrop crops a sample's one image; sample {sample.id} shows a video. Make one sample per frame."
            )
        if len(sample.images) != 1:
            raise SampleError(
                f"ViCrop crops a sample's one image; sample {sample.id} has {len(sample.images)}. Make one sample per "
                "image, or leave such samples out."
            )
    return chosen


def _listed(samples: tuple[Sample, ...] | Batch | Prefix) -> tuple[Sample, ...]:
    return samples.samples if isinstance(samples, Batch | Prefix) else samples


def _check_layer(layer: Any, kind: str) -> None:
    right = isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0
    if layer is not None and not right:
        raise MethodError(
            f"layer is one decoder layer, 0-based, or None for the published one; got {layer!r}."
        )
    if layer is not None and kind == "pure_grad":
        raise MethodError(
            f"map='pure_grad' takes no layer, because it reads no attention; got layer={layer}. Leave layer= out, or "
            "use map='grad_att'."
        )


def _check_base(base: Any) -> None:
    if base is None:
        return
    value = check_number("base", base, low=0, open_low=True, error=MethodError)
    if value >= 1 and value != int(value):
        raise MethodError(
            f"base is a whole number of pixels, or a fraction below 1 of the image's shorter side; got {base!r}."
        )


def _check_generic(generic: Any, kind: str) -> None:
    if generic is None:
        return
    if not isinstance(generic, Prompt):
        raise MethodError(f"generic is an interp.Prompt or None; got {generic!r}.")
    if kind == "grad_att":
        raise MethodError("map='grad_att' has no generic prompt, as published. Leave generic= out.")


def _ratios(ratios: Any) -> tuple[float, ...]:
    if isinstance(ratios, str) or not isinstance(ratios, Sequence) or not ratios:
        raise MethodError(
            f"ratios are one or more sides of windows, as multiples of the base; got {ratios!r}."
        )
    return tuple(check_number("a ratio", one, low=0, open_low=True, error=MethodError) for one in ratios)
