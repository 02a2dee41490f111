"""Values of mask images, as they are stored: no palette, no scaling, no colours."""

from __future__ import annotations

import os

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from interp.errors import DataError, InterpError
from interp.inputs.images import image_size, readable_file
from interp.inputs.text import brief

__all__ = ["mask_values"]


def mask_values(
    path: str | os.PathLike[str], size: tuple[int, int] | None = None
) -> Shaped[np.ndarray, "row col"]:
    """Returns the stored values of a mask: palette indices, grey values, or the first of several channels.

    Args:
        path: The image file.
        size: (width, height) of the image that it belongs to.

    Raises:
        DataError: The file cannot be read, or has another size than its image.
    """
    try:
        found = image_size(path)
        with readable_file(path) as file, Image.open(file) as mask:
            values = np.asarray(mask)
    except InterpError as error:
        raise DataError(str(error)) from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error …
        raise DataError(
            f"mask {brief(os.fspath(path))} cannot be read ({type(error).__name__}: {error})."
        ) from error
    if size is not None and found != size:
        raise DataError(
            f"mask {brief(os.fspath(path))} is {found[0]}×{found[1]} pixels, its image {size[0]}×{size[1]} "
            "(width×height)."
        )
    return values if values.ndim == 2 else values[..., 0]
