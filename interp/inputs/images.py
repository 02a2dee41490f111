"""Reads image files, PIL images and uint8 arrays as upright 8-bit RGB; errors say what is wrong."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from interp.errors import ImageError
from interp.inputs.files import unreadable
from interp.inputs.text import brief

__all__ = [
    "MAX_PIXELS", "ImageLike", "LazyImage", "grey_values", "image_size", "load_image", "normalise", "readable_file",
]  # fmt: skip


@dataclass(frozen=True)
class LazyImage:
    """An image that is read each time it is used, such as a slice of a volume or a cell of a table.

    Attributes:
        read: Returns the encoded bytes of an image file, a PIL image or a uint8 array. Samples that go to other
            processes need one that can be pickled: `functools.partial` of a function of a module.
        name: The image in messages.
        known_size: (width, height) in pixels, where it is known without reading.
    """

    read: Callable[[], bytes | Image.Image | np.ndarray]
    name: str
    known_size: tuple[int, int] | None = None

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Lets numpy and Pillow read the image as an array: `np.asarray(image)`, `Image.fromarray(image)`."""
        pixels = np.ascontiguousarray(load_image(self))
        about = {"version": 3, "typestr": "|u1", "shape": pixels.shape, "data": pixels}
        return {**about, "strides": pixels.strides}  # with them, Pillow asks for `tobytes`

    def tobytes(self) -> bytes:
        """Returns the pixels in the order of numpy's arrays."""
        return np.asarray(load_image(self)).tobytes()


ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray | LazyImage
Encoded: TypeAlias = BufferedReader | BytesIO
MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_ORIENTATION = 0x0112


def normalise(raw: Any, i: int = 0) -> ImageLike:
    """Returns a path unchanged, and a copy of an image in memory, so that later changes do not reach the sample.

    Raises:
        ImageError: Not a path, a PIL image or an `(H, W)`, `(H, W, 1|3|4)` uint8 array; a PIL image without pixels or
            whose file is closed; a masked array that hides pixels.
    """
    if isinstance(raw, str | os.PathLike):
        _check_path(raw, i)
        return raw
    if isinstance(raw, LazyImage):
        return raw
    if isinstance(raw, Image.Image):
        if 0 in raw.size:
            raise ImageError(f"image {i} (PIL) has no pixels: it is {raw.width}×{raw.height} (width×height).")
        with _decoding(f"image {i} (PIL)"):
            return ImageOps.exif_transpose(raw)
    if isinstance(raw, np.ndarray):
        _check_array(raw, i)
        array = np.array(np.ma.getdata(raw))
        array.setflags(write=False)
        return array
    raise ImageError(
        f"image {i} must be a path, a PIL image or a uint8 array; got {type(raw).__name__}.{_hint(raw)}"
    )


def _hint(raw: Any) -> str:
    """How to make an image of some other object; empty for most."""
    if isinstance(raw, bytes | bytearray | memoryview) or hasattr(raw, "read"):
        return (
            " Open encoded bytes with PIL.Image.open(io.BytesIO(data)); decode a path with os.fsdecode(path)."
        )
    if hasattr(raw, "permute"):  # a torch tensor
        return " Of a tensor (channel, row, column) of 0 … 255 pass tensor.permute(1, 2, 0).byte().cpu().numpy()."
    if isinstance(raw, list | tuple):
        return " Several images are images=[…]; a list of pixels is np.array(…, np.uint8)."
    return ""


def _check_path(raw: str | os.PathLike[str], i: int) -> None:
    """Raises `ImageError` for a path that no file can have."""
    path = os.fspath(raw)
    if not isinstance(path, str):
        raise ImageError(f"image {i} must be a path of text; got {brief(path)}. Pass os.fsdecode(path).")
    try:
        possible = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise ImageError(
            f"image {i} has the path {brief(path)}, which no file can have: it holds a null byte or a lone surrogate. "
            "Decode the source of the path with its true encoding."
        )


@contextmanager
def readable_file(path: str | os.PathLike[str]) -> Iterator[BufferedReader]:
    """Opens an image's file for reading. Pipes, devices and folders are refused before they are opened.

    Raises:
        ImageError: Missing or unreadable; the message names the file.
    """
    name = _name(path)
    if problem := unreadable(path):
        raise ImageError(f"{name} {problem}")
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; what is raised inside is not of the path
    except OSError as error:
        raise ImageError(f"{name} cannot be read ({error}). Check the path.") from error
    with file:
        yield file


def _name(path: str | os.PathLike[str]) -> str:
    """The image as messages name it."""
    return f"image {brief(os.fspath(path))}"


def image_size(raw: ImageLike, i: int = 0) -> tuple[int, int]:
    """Returns (width, height) of the image as displayed; reads only the header.

    Raises:
        ImageError: A file that is missing, not an image, or too large.
    """
    if isinstance(raw, np.ndarray):
        return raw.shape[1], raw.shape[0]
    if isinstance(raw, Image.Image):
        return raw.size
    if isinstance(raw, LazyImage):
        return raw.known_size or _lazy_size(raw, i)
    with readable_file(raw) as file:
        return _size_in(file, _name(raw))


def _lazy_size(raw: LazyImage, i: int) -> tuple[int, int]:
    found = _read(raw, i)
    return _size_in(BytesIO(found), raw.name) if isinstance(found, bytes) else image_size(found, i)


def _read(raw: LazyImage, i: int) -> bytes | Image.Image | np.ndarray:
    """What the image's own function gives, checked like an image in memory where it is one."""
    with _decoding(raw.name):
        found = raw.read()
        if isinstance(found, bytes):
            return found
        made = normalise(found, i)
        if isinstance(made, Image.Image | np.ndarray):
            return made
    raise ImageError(
        f"{raw.name} was read as {type(found).__name__}; bytes, a PIL image or an array is expected."
    )


def _size_in(file: Encoded, name: str) -> tuple[int, int]:
    """(width, height) of an encoded image as displayed."""
    with _decoding(name), _open(file) as image:
        _check_pixels(image.size, name)
        if image.format == "TIFF":  # Pillow rotates these itself
            return image.size
        late = image.format == "PNG" and _metadata_after_pixels(file)
        exif = image.getexif() if late else Image.Image.getexif(image)  # PNG's own getexif decodes the pixels
        return (image.height, image.width) if exif.get(_ORIENTATION) in _TRANSPOSED else image.size


def load_image(raw: ImageLike, i: int = 0) -> Image.Image:
    """Returns the image as upright 8-bit RGB.

    EXIF rotation is applied. 16- and 32-bit grey images are scaled by their own minimum and maximum (a constant
    image becomes black). Transparent pixels become black. Palettes, grey, 1-bit and CMYK images are converted.
    An animation gives its first frame.

    Raises:
        ImageError: Missing, corrupt, truncated, empty or too large; the message names the file.
    """
    if isinstance(raw, np.ndarray):
        _check_pixels((raw.shape[1], raw.shape[0]), f"image {i} (array)")
        return _to_rgb(Image.fromarray(raw[..., 0] if raw.ndim == 3 and raw.shape[2] == 1 else raw))
    if isinstance(raw, Image.Image):
        _check_pixels(raw.size, f"image {i} (PIL)")
        with _decoding(f"image {i} (PIL)"):
            rgb = _to_rgb(raw)
            return raw.copy() if rgb is raw else rgb
    if isinstance(raw, LazyImage):
        found = _read(raw, i)
        return _decoded(BytesIO(found), raw.name) if isinstance(found, bytes) else load_image(found, i)
    with readable_file(raw) as file:
        return _decoded(file, _name(raw))


def _decoded(file: Encoded, name: str) -> Image.Image:
    with _decoding(name), _open(file) as image:
        _check_pixels(image.size, name)
        return _to_rgb(ImageOps.exif_transpose(image))


def grey_values(raw: str | os.PathLike[str] | Image.Image | LazyImage) -> np.ndarray:
    """Returns the values of an upright grey or palette image, (height, width), unscaled; of a palette its indices.

    Raises:
        ImageError: As `load_image`; an image in colours or with fractions as values.
    """
    if isinstance(raw, Image.Image):
        return _one_channel(raw, "the mask (PIL)")
    if isinstance(raw, LazyImage):
        return _lazy_grey(raw)
    name = _name(raw)
    with readable_file(raw) as file, _decoding(name), _open(file) as image:
        _check_pixels(image.size, name)
        return _one_channel(ImageOps.exif_transpose(image), name)


def _lazy_grey(raw: LazyImage) -> np.ndarray:
    found = _read(raw, 0)
    if isinstance(found, bytes):
        with _decoding(raw.name), _open(BytesIO(found)) as image:
            _check_pixels(image.size, raw.name)
            return _one_channel(ImageOps.exif_transpose(image), raw.name)
    return _one_channel(found if isinstance(found, Image.Image) else Image.fromarray(found), raw.name)


def _one_channel(image: Image.Image, name: str) -> np.ndarray:
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        raise ImageError(
            f"{name} is of mode {image.mode}; a mask has one whole number a pixel. Convert it: "
            '.convert("L"), or pass (np.asarray(image) == colour).all(axis=-1).'
        )
    return np.asarray(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode as RGB; an RGB image as it is."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_scale(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale(values: np.ndarray) -> np.ndarray:
    """Scales grey values of any depth to uint8 by their own minimum and maximum."""
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ImageError("a floating-point image holds NaN or infinite pixels; write it as 8-bit first.")
    low, span = values.min(), np.ptp(values)
    return np.round((values - low) / (span if span > 0 else 1.0) * 255).astype(np.uint8)


def _check_array(array: np.ndarray, i: int) -> None:
    if np.ma.is_masked(array):
        raise ImageError(
            f"image {i} is a masked array that hides {np.ma.count_masked(array)} values. Fill them: array.filled(0)."
        )
    shape_ok = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if array.dtype != np.uint8 or not shape_ok or 0 in array.shape:
        raise ImageError(
            f"image {i} must be a non-empty (H, W) or (H, W, 1|3|4) uint8 array; got {array.dtype} of shape "
            f"{array.shape}. Scale other values to 0–255 yourself (a window for CT) and put channels last."
        )


def _check_pixels(size: tuple[int, int], name: str) -> None:
    if 0 in size:
        raise ImageError(f"{name} has no pixels: it is {size[0]}×{size[1]} (width×height).")
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(
            f"{name} is {size[0]}×{size[1]} = {size[0] * size[1]:,} pixels; the limit is {MAX_PIXELS:,}. "
            "Crop or shrink it, or raise interp.inputs.images.MAX_PIXELS if you trust the file."
        )


def _open(file: Encoded) -> Image.Image:
    """Opens an image from a file object: given a path, Pillow 13 memory-maps grey TIFFs and scrambles rotated ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(file)


def _metadata_after_pixels(file: Encoded) -> bool:
    """Whether a PNG file holds text or EXIF chunks after its pixels; reads only the chunk headers."""
    start, pixels, late = file.tell(), False, False
    file.seek(8)
    while not late and len(head := file.read(8)) == 8:
        pixels = pixels or head[4:] == b"IDAT"
        late = pixels and head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
        file.seek(int.from_bytes(head[:4]) + 4, os.SEEK_CUR)
    file.seek(start)
    return late


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turns any exception that Pillow raises on a bad file into an ImageError that names the file."""
    try:
        yield
    except ImageError as error:
        raise error if name in str(error) else ImageError(f"{name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large: {error} Crop or shrink it.") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, IndexError, struct.error …
        raise ImageError(
            f"{name} cannot be read as an image ({type(error).__name__}: {error}). Is the file complete, and in a "
            "format that Pillow reads? Read DICOM and NIfTI with the data extra."
        ) from error
