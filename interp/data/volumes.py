"""Reads volumes with known axes and shows their slices as radiologists see them.

A volume's axes point to the patient's Right, Anterior and Superior (RAS). Slices are shown as radiologists see them
(the patient's right on the left of the picture, anterior or superior on top), whatever the order of the axes in the
file. Files are read by `read_nifti` and `read_dicom`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from interp.data import dicom_series, nifti_file
from interp.data.extra import needs
from interp.errors import DataError

__all__ = ["Volume", "display", "read_dicom", "read_nifti", "resample_nearest", "to_ras"]

# plane: (axis that is cut, axis shown along the columns, axis shown along the rows)
_PLANES = {"axial": (2, 0, 1), "coronal": (1, 0, 2), "sagittal": (0, 1, 2)}


@dataclass(frozen=True, eq=False)
class Volume:
    """An image or label volume whose axes point Right, Anterior and Superior.

    `values` is (x, y, z); `affine` maps voxel indices to RAS millimetres; `spacing` is the voxel's size.
    """

    values: Shaped[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in millimetres along x, y, z."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)


def to_ras(values: Shaped[np.ndarray, ...], affine: Float[np.ndarray, "4 4"]) -> Volume:
    """Returns the volume with its axes permuted and flipped to the nearest of Right, Anterior, Superior.

    Nothing is resampled: every voxel keeps its value and its position in millimetres.

    Raises:
        DataError: The array is not three-dimensional or not of real numbers, or the affine is singular.
    """
    from scipy.optimize import linear_sum_assignment  # half a second, for readers that need no volumes

    values, affine = np.asanyarray(values), _checked(affine)
    if values.ndim != 3 or 0 in values.shape:
        raise DataError(f"a volume needs 3 axes; got shape {values.shape}. Pick one channel or one time")
    if values.dtype.kind not in "biuf":
        raise DataError(f"a volume holds one real number in each voxel; got {values.dtype}. Pick one channel")
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    _, order = linear_sum_assignment(-np.abs(cosines))
    out, new = values.transpose(order), affine.copy()
    new[:3, :3] = affine[:3, order]
    for world in range(3):
        if new[world, world] < 0:
            out = np.flip(out, axis=world)
            new[:3, 3] += new[:3, world] * (out.shape[world] - 1)
            new[:3, world] *= -1
    return Volume(out, new)


def _checked(affine: Any) -> Float[np.ndarray, "4 4"]:
    try:
        found = np.asarray(affine, dtype=float)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.shape != (4, 4):
        raise DataError(
            f"an affine is a 4 × 4 array of numbers; got {affine!r}. Pass the affine of the file's header."
        )
    sizes = np.linalg.norm(found[:3, :3], axis=0)
    # the volume of the box that the axes' directions span: 1 at right angles, 0 in a plane
    if not np.isfinite(found).all() or not sizes.all() or abs(np.linalg.det(found[:3, :3] / sizes)) < 1e-3:
        raise DataError(
            f"the volume's affine is singular, so that it does not say where its axes point; got {found.tolist()}. "
            "Correct the header, or pass the affine of another file of the same scan."
        )
    return found


def resample_nearest(labels: Volume, onto: Volume) -> Volume:
    """Returns `labels` on the grid of `onto`: each voxel takes the nearest label, 0 outside."""
    if labels.values.shape == onto.values.shape and np.allclose(labels.affine, onto.affine, atol=1e-3):
        return labels
    from scipy import ndimage

    matrix = np.linalg.inv(labels.affine) @ onto.affine
    offset: Any = matrix[:3, 3]
    shape = onto.values.shape
    values = ndimage.affine_transform(
        labels.values, matrix[:3, :3], offset, output_shape=shape, order=0, mode="grid-constant", cval=0
    )
    return Volume(values, onto.affine)


def display(
    volume: Volume, plane: str, index: int
) -> tuple[Shaped[np.ndarray, "row col"], tuple[float, float]]:
    """Returns one slice as a radiologist sees it, and its (row, column) spacing in millimetres.

    Axial and coronal: the patient's right on the left of the picture. Axial: anterior on top; coronal and
    sagittal: superior on top. Sagittal: anterior on the left.

    Raises:
        DataError: An unknown plane, or a slice that the volume does not have.
    """
    if not isinstance(plane, str) or plane not in _PLANES:
        raise DataError(f"no plane {plane!r}; choose one of {sorted(_PLANES)}")
    cut, column, row = _PLANES[plane]
    n = volume.values.shape[cut]
    if isinstance(index, bool) or not isinstance(index, Integral) or not 0 <= index < n:
        raise DataError(f"index is the number of one of the {n} {plane} slices, from 0 on; got {index!r}.")
    picture = np.take(volume.values, index, axis=cut)[::-1, ::-1].T
    return picture, (volume.spacing[row], volume.spacing[column])


def read_nifti(path: str | Path, *, orientation: str | None = None) -> Volume:
    """Returns a NIfTI volume in RAS order; needs the extra `data`.

    Values are scaled as the header says; a slope of 0 or NaN means that they are not scaled. Axes of length 1 behind
    the third are dropped.

    Args:
        path: The file, .nii, .nii.gz or .hdr beside .img.
        orientation: Where the axes of a file that does not say (qform_code and sform_code are 0) point, such as "RAS"
            or "LPI"; the origin is then voxel (0, 0, 0). "sform" or "qform" chooses one where a file has both.

    Raises:
        DataError: Not a complete NIfTI file of one real number a voxel; no orientation, or two that disagree; an
            orientation that contradicts the file's; a singular affine; voxel sizes that are not positive.
    """
    return to_ras(*nifti_file.load(needs("nibabel"), path, orientation))


def read_dicom(paths: Iterable[str | Path]) -> Volume:
    """Returns a series of single-frame DICOM files in RAS order, rescaled; needs the extra `data`.

    The slices must form one even stack. Positions may be off by 1 % of the distance between slices or 0.01 mm. Values
    are rescaled by each file's own slope and intercept. CT and PET files without them are refused; other modalities
    without them (MR) keep their stored values.

    Args:
        paths: Every file of the series, in any order.

    Raises:
        DataError: A file that is not DICOM or cannot be decoded; colours, palettes, MONOCHROME1 or several frames; no
            position, orientation or spacing; several series, sizes or orientations; slices at the same place, gaps, or
            slices shifted against each other (a tilted gantry).
    """
    return to_ras(*dicom_series.load(needs("pydicom"), paths))
