"""Values of mask images, as they are stored, checked against the size of their image."""

from __future__ import annotations

import os

import numpy as np
from jaxtyping import Shaped

from interp.errors import DataError, InterpError
from interp.inputs.images import grey_values
from interp.inputs.text import brief

__all__ = ["mask_values"]


def mask_values(path: str | os.PathLike[str], size: tuple[int, int]) -> Shaped[np.ndarray, "row col"]:
    """Returns the grey values or palette indices of a mask's file.

    Args:
        path: The image file.
        size: (width, height) of the image that it belongs to.

    Raises:
        DataError: The file cannot be read, is in colours, or has another size than its image.
    """
    try:
        values = grey_values(path)
    except InterpError as error:
        raise DataError(str(error)) from error
    if values.shape != size[::-1]:
        raise DataError(
            f"mask {brief(os.fspath(path))} is {values.shape[1]}×{values.shape[0]} pixels, its image "
            f"{size[0]}×{size[1]} (width×height)."
        )
    return values
