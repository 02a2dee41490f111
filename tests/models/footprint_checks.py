"""Footprints against the true image processor and the true model: change some pixels, see which tokens change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image

from interp.conformance.tiny import tiny
from interp.inputs.footprints import Footprints, check_layout
from interp.inputs.sample import Box
from interp.inputs.tokens import TokenMap
from interp.models.base import Family
from interp.tracing.layers.residual import side_by_side
from tests.models.pixel_impulses import Reached

torch.set_num_threads(1)

Size = tuple[int, int]  # (width, height)
Edges = tuple[int, int, int, int]  # xyxy
Pixels = np.ndarray  # (row, col, channel) uint8
Cells = Callable[[torch.Tensor], np.ndarray]
"""pixel_values of a sample → what each image token's processed pixels are on average, in the tokens' order."""


def picture(size: Size, box: Edges = (0, 0, 0, 0)) -> Pixels:
    """Grey, brighter inside the box; a bicubic kernel has room to overshoot."""
    pixels = np.full((size[1], size[0], 3), 60, np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 200
    return pixels


def encode(processor: Any, adapter: Family, pictures: Sequence[Pixels]) -> dict[str, torch.Tensor]:
    """What the processor makes of the pictures and a question."""
    text = adapter.fallback_prompt("where is the nodule ?", len(pictures), None)
    if processor.chat_template:
        content = [{"type": "image"}] * len(pictures) + [{"type": "text", "text": "where is the nodule ?"}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    images = [Image.fromarray(pixels) for pixels in pictures]
    found = dict(processor(text=[text], images=images, return_tensors="pt"))
    return {name: value for name, value in found.items() if name != "labels"}


@dataclass
class Bench:
    """A family's tiny model and processor, set up, and the sample that is looked at."""

    family: str
    adapter: Family
    sizes: Sequence[Size]
    images_kwargs: Mapping[str, Any] | None = None

    @cached_property
    def parts(self) -> tuple[Any, Any]:
        model, processor = tiny(self.family)
        if self.images_kwargs is not None:
            processor.images_kwargs = {**processor.images_kwargs, **self.images_kwargs}
        return model, processor

    def encode(self, box: Edges | None = None, image: int = 0) -> dict[str, torch.Tensor]:
        """The sample, with a bright box in one of its images."""
        pictures = [
            picture(size, box) if box is not None and i == image else picture(size)
            for i, size in enumerate(self.sizes)
        ]
        return encode(self.parts[1], self.adapter, pictures)

    def footprints(self) -> Footprints:
        return self.adapter.footprints(self.sizes, self.encode(), self.parts[1], self.parts[0].config)

    def entering(self, box: Edges | None = None, image: int = 0) -> torch.Tensor:
        """(token, hidden): the image tokens as they enter the first decoder layer."""
        model, inputs = self.parts[0], self.encode(box, image)

        def stop(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            raise Reached(args[0] if args else kwargs["hidden_states"])

        hook = self.adapter.layers(model)[0].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with torch.no_grad():
                model(**inputs)
        except Reached as reached:
            seen = side_by_side(reached.args[0])
            return seen[0, self.adapter.image_positions(inputs["input_ids"], model.config)]
        finally:
            hook.remove()
        raise AssertionError("the first layer was not reached")


def assert_counts(bench: Bench, whole: bool = True) -> Footprints:
    """As many footprints as image tokens; a sound layout; every view covers its whole image."""
    model, _ = bench.parts
    inputs, found = bench.encode(), bench.footprints()
    assert len(found) == len(bench.adapter.image_positions(inputs["input_ids"], model.config))
    windows = [(0.0, 0.0, float(width), float(height)) for width, height in bench.sizes]
    check_layout(found, bench.sizes, windows if whole else None)
    return found


def assert_local(bench: Bench, found: Footprints, every: int = 1) -> None:
    """Brighten a token's footprint: in its view it changes most, in the others one that meets it, elsewhere none."""
    blank = bench.entering()
    assert len(blank) == len(found)
    for token in range(0, len(found), every):
        low, high = np.ceil(found.boxes[token, :2] - 1e-9), np.floor(found.boxes[token, 2:] + 1e-9)
        low, high = low.astype(int), np.maximum(low + 1, high).astype(int)
        image = int(found.image[token])
        change = (bench.entering((*low, *high), image) - blank).norm(dim=-1).numpy()
        assert change[found.image != image].max(initial=0.0) < 1e-3 * change.max()
        for view in np.unique(found.views[found.image == image]):
            seen = np.flatnonzero((found.image == image) & (found.views == view))
            most = seen[change[seen].argmax()]
            box = found.boxes[most]
            assert (np.minimum(box[2:], high) > np.maximum(box[:2], low)).all(), (token, most, str(view))
            assert view != found.views[token] or most == token, (token, most)


def assert_covered(bench: Bench, found: Footprints, cells: Cells, tolerance: float, boxes: int = 8) -> None:
    """Random boxes fill the processed pixels of each token as far as they cover its footprint."""
    rng = np.random.default_rng(sum(sum(size) for size in bench.sizes))
    tokens = TokenMap(
        np.arange(len(found)),
        found.boxes,
        found.grid,
        found.views,
        found.image,
        tuple(bench.sizes),
        len(found),
    )
    dark = cells(bench.encode()["pixel_values"])
    wholes = [(0, 0, *size) for size in bench.sizes]
    bright = [cells(bench.encode(box, image)["pixel_values"]) - dark for image, box in enumerate(wholes)]
    for _ in range(boxes):
        image = int(rng.integers(len(bench.sizes)))
        width, height = bench.sizes[image]
        x0, y0 = int(rng.integers(0, width - 7)), int(rng.integers(0, height - 7))
        box = (x0, y0, int(rng.integers(x0 + 6, width + 1)), int(rng.integers(y0 + 6, height + 1)))
        change = cells(bench.encode(box, image)["pixel_values"]) - dark
        shares = change / np.where(bright[image] > 0, bright[image], 1.0)
        assert np.abs(shares - tokens.coverage([Box(*box, image=image)])).max() < tolerance


def grids_of_views(cell: int) -> Cells:
    """For pixel_values (view, channel, row, col): the mean of each cell of `cell` pixels, row-major, view by view."""

    def cells(pixel_values: torch.Tensor) -> np.ndarray:
        views, channels, rows, cols = pixel_values.shape
        blocks = pixel_values.reshape(views, channels, rows // cell, cell, cols // cell, cell)
        return blocks.mean(dim=(1, 3, 5)).reshape(-1).numpy()

    return cells
