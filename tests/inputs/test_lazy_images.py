"""Images that are read when they are used."""

from __future__ import annotations

import io
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

from interp.errors import BoxError, ImageError
from interp.inputs.images import LazyImage, image_size, load_image
from interp.inputs.sample import Sample


def encoded(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


PICTURE = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8))


@pytest.mark.parametrize(
    "made", [PICTURE, np.asarray(PICTURE), encoded(PICTURE)], ids=["pil", "array", "bytes"]
)
def test_what_is_read_is_the_image(made: Any) -> None:
    lazy = LazyImage(partial(lambda one: one, made), "slice 3")
    assert image_size(lazy) == (8, 6)
    assert np.array_equal(np.asarray(load_image(lazy)), np.asarray(PICTURE.convert("RGB")))
    assert Sample(lazy, "?").fingerprint == Sample(PICTURE, "?").fingerprint


def test_nothing_is_read_before_it_is_used() -> None:
    reads: list[int] = []

    def read() -> np.ndarray:
        reads.append(1)
        return np.zeros((6, 8), np.uint8)

    sample = Sample(LazyImage(read, "slice 3", (8, 6)), "?", boxes=[(1, 1, 4, 4)])
    assert (sample.sizes, sample.in_memory) == (((8, 6),), (True,))
    sample.check()
    assert not reads
    with pytest.raises(BoxError, match="every edge of box"):
        Sample(LazyImage(read, "slice 3", (8, 6)), "?", boxes=[(0, 0, 1, 1)])
    Sample(LazyImage(read, "slice 3"), "?", boxes=[(1, 1, 4, 4)])
    assert not reads
    sample.load()
    assert len(reads) == 1


def test_a_rotated_photograph_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lazy = LazyImage(partial(encoded, PICTURE, exif=exif), "row 3")
    assert (image_size(lazy), load_image(lazy).size) == ((6, 8), (6, 8))


def test_what_cannot_be_read_is_named() -> None:
    def broken() -> bytes:
        raise OSError("disk on fire")

    with pytest.raises(ImageError, match=r"row 3 cannot be read as an image \(OSError: disk on fire\)"):
        load_image(LazyImage(broken, "row 3"))
    with pytest.raises(ImageError, match="row 3 cannot be read as an image"):
        load_image(LazyImage(partial(bytes, 10), "row 3"))
    with pytest.raises(ImageError, match="row 3: image 0 must be a non-empty"):
        load_image(LazyImage(partial(np.zeros, (3, 3)), "row 3"))
