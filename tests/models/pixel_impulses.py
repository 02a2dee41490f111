"""Changed pixels in, changed image tokens out: footprints against the true processor and model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from interp.inputs.footprints import Footprints, check_layout
from interp.inputs.tokens import TokenMap
from interp.models.base import Family

Size = tuple[int, int]
DARK, BRIGHT = 60, 200  # room for a resampling kernel to overshoot without clipping


def picture(size: Size, box: Sequence[int] | None = None) -> Image.Image:
    """Grey, with a bright rectangle."""
    pixels = np.full((size[1], size[0], 3), DARK, np.uint8)
    if box is not None:
        pixels[box[1] : box[3], box[0] : box[2]] = BRIGHT
    return Image.fromarray(pixels)


def encode(processor: Any, images: Sequence[Image.Image], *, together: bool = False) -> dict[str, Any]:
    """What the processor makes of a prompt with these images; `together` nests them as one sample's."""
    text = " ".join([processor.image_token] * len(images)) + " where ?"
    return dict(
        processor(text=[text], images=[list(images)] if together else list(images), return_tensors="pt")
    )


def footprints_of(
    family: Family, processor: Any, config: Any, sizes: Sequence[Size], **how: Any
) -> Footprints:
    """The adapter's footprints, as many as image tokens, of a sound layout."""
    inputs = encode(processor, [picture(size) for size in sizes], **how)
    found = family.footprints(sizes, inputs, processor, config)
    assert len(found) == len(family.image_positions(inputs["input_ids"], config))
    check_layout(found, sizes)
    return found


class Reached(Exception):  # noqa: N818
    """Carries what enters the first decoder layer, so that the rest need not run."""


def image_embeddings(
    hf: Any, processor: Any, family: Family, images: Sequence[Image.Image], **how: Any
) -> torch.Tensor:
    """(token, hidden): what enters the first decoder layer at the image positions."""

    def stop(module: Any, args: tuple[torch.Tensor, ...]) -> None:
        raise Reached(args[0])

    inputs = encode(processor, images, **how)
    handle = family.layers(hf)[0].register_forward_pre_hook(stop)
    try:
        with torch.no_grad():
            hf(**inputs)
    except Reached as reached:
        return reached.args[0][0, family.image_positions(inputs["input_ids"], hf.config)]
    finally:
        handle.remove()
    raise AssertionError("the first layer was not reached")


def assert_impulses_land(
    hf: Any,
    processor: Any,
    family: Family,
    sizes: Sequence[Size],
    found: Footprints,
    every: int = 1,
    **how: Any,
) -> None:
    """A rectangle inside a token's footprint changes that token most, of all its view's tokens of all images."""
    dark = [picture(size) for size in sizes]
    before = image_embeddings(hf, processor, family, dark, **how)
    area = np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1)
    low, high = np.ceil(found.boxes[:, :2]), np.floor(found.boxes[:, 2:])
    whole = (high - low >= 1).all(axis=1)
    tried = 0
    for view in np.unique(found.views):
        mine = np.flatnonzero(found.views == view)
        largest = np.nanmax(area[mine])
        for token in [t for t in mine if whole[t] and area[t] > 0.5 * largest][::every]:
            image, box = found.image[token], [*low[token].astype(int), *high[token].astype(int)]
            bright = [*dark[:image], picture(sizes[image], box), *dark[image + 1 :]]
            change = (image_embeddings(hf, processor, family, bright, **how) - before).norm(dim=-1)
            assert mine[change[mine].argmax()] == token, (view, token, box)
            others = found.image != image
            assert not change[others].any(), "a change in one image reached another's tokens"
            tried += 1
    assert tried >= len(np.unique(found.views))


def covered(found: Footprints, sizes: Sequence[Size], box: Sequence[int]) -> np.ndarray:
    """(token,) fraction of each footprint that the box covers; NaN where there is no area."""
    tokens = TokenMap(
        np.arange(len(found)), found.boxes, found.grid, found.views, found.image, tuple(sizes), len(found)
    )
    return np.where(np.isnan(found.boxes[:, 0]), np.nan, tokens.coverage([tuple(box)]))


def boxes_in(size: Size, n: int) -> list[tuple[int, int, int, int]]:
    """Rectangles all over an image, of a quarter of its edges at least."""
    rng = np.random.default_rng(sum(size))
    found = []
    for _ in range(n):
        x0, y0 = int(rng.integers(0, size[0] * 3 // 4)), int(rng.integers(0, size[1] * 3 // 4))
        x1 = int(rng.integers(x0 + size[0] // 4, size[0] + 1))
        found.append((x0, y0, x1, int(rng.integers(y0 + size[1] // 4, size[1] + 1))))
    return found


def brightness(processor: Any, size: Size, box: Sequence[int], patch: int) -> np.ndarray:
    """(…, row, col) of patches of the processed image: 1 where wholly the rectangle, 0 where nothing of it is."""
    images = [encode(processor, [picture(size, b)])["pixel_values"][..., 0, :, :] for b in (box, None)]
    step = (BRIGHT - DARK) / 255 / processor.image_processor.image_std[0]
    values = ((images[0] - images[1]) / step).numpy()
    rows, cols = values.shape[-2] // patch, values.shape[-1] // patch
    values = values[..., : rows * patch, : cols * patch]
    return values.reshape(*values.shape[:-2], rows, patch, cols, patch).mean((-3, -1))


@contextmanager
def shapes_only(processor: Any) -> Iterator[None]:
    """The image processor skips its arithmetic on pixels; the arithmetic on sizes stays transformers' own."""
    settings = processor.image_processor
    backend = next(c for c in type(settings).__mro__ if c.__name__ == "PilBackend")

    def resize(self: Any, image: np.ndarray, size: Any, **_: Any) -> np.ndarray:
        if size.shortest_edge is not None:
            assert image.shape[1:] == (size.shortest_edge,) * 2, (
                "only tiles are resized by their shortest edge"
            )
            return image
        return np.zeros((3, size.height, size.width), np.uint8)

    def convert(self: Any, image: Image.Image, *_: Any, **__: Any) -> np.ndarray:
        return np.broadcast_to(np.uint8(0), (3, image.height, image.width))

    with (
        mock.patch.object(backend, "resize", resize),
        mock.patch.object(backend, "process_image", convert),
        mock.patch.object(settings, "do_rescale", False),
        mock.patch.object(settings, "do_normalize", False),
    ):
        yield


def real_sizes() -> Any:
    """Hypothesis strategy of image sizes as people have them."""
    return st.tuples(st.integers(20, 2600), st.integers(20, 2600))
