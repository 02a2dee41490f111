"""Reads volumes with known axes and shows their slices as radiologists see them.

A volume's axes point to the patient's Right, Anterior and Superior (RAS). Slices are shown as radiologists see them
(the patient's right on the left of the picture, anterior or superior on top), whatever the order of the axes in the
file.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

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
        DataError: The array is not three-dimensional, or the affine is singular.
    """
    affine = np.asarray(affine, dtype=float)
    if values.ndim != 3:
        raise DataError(f"a volume needs 3 axes; got shape {values.shape}. Pick one channel or one time")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.all(np.isfinite(affine)) or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError("the volume's affine is singular: its header does not say where its axes point")
    cosines = affine[:3, :3] / spacing
    _, order = linear_sum_assignment(-np.abs(cosines))
    out, new = values.transpose(order), affine.copy()
    new[:3, :3] = affine[:3, order]
    for world in range(3):
        if new[world, world] < 0:
            out = np.flip(out, axis=world)
            new[:3, 3] += new[:3, world] * (out.shape[world] - 1)
            new[:3, world] *= -1
    return Volume(out, new)


def resample_nearest(labels: Volume, onto: Volume) -> Volume:
    """Returns `labels` on the grid of `onto`: each voxel takes the nearest label, 0 outside."""
    if labels.values.shape == onto.values.shape and np.allclose(labels.affine, onto.affine, atol=1e-3):
        return labels
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
    """
    if plane not in _PLANES:
        raise DataError(f"no plane {plane!r}; choose one of {sorted(_PLANES)}")
    cut, column, row = _PLANES[plane]
    picture = np.take(volume.values, index, axis=cut)[::-1, ::-1].T
    return picture, (volume.spacing[row], volume.spacing[column])


def read_nifti(path: str | Path) -> Volume:
    """Returns a NIfTI volume in RAS order; needs the extra `data`."""
    nibabel: Any = _needs("nibabel")
    image = nibabel.load(str(path))
    return to_ras(np.asanyarray(image.dataobj), image.affine)


def read_dicom(paths: Iterable[str | Path]) -> Volume:
    """Returns a series of single-frame DICOM files in RAS order, rescaled; needs the extra `data`."""
    pydicom: Any = _needs("pydicom")
    files = [pydicom.dcmread(path) for path in paths]
    if len(files) < 2:
        raise DataError(f"a series needs at least 2 slices; got {len(files)}. Pass every file of the series")
    along, down = np.split(np.array(files[0].ImageOrientationPatient, dtype=float), 2)
    normal = np.cross(along, down)
    files.sort(key=lambda file: float(np.dot(normal, np.array(file.ImagePositionPatient, dtype=float))))
    first, last = (np.array(files[at].ImagePositionPatient, dtype=float) for at in (0, -1))
    affine = np.eye(4)
    affine[:3, 0] = along * float(files[0].PixelSpacing[1])
    affine[:3, 1] = down * float(files[0].PixelSpacing[0])
    affine[:3, 2] = (last - first) / (len(files) - 1)
    affine[:3, 3] = first
    values = np.stack([f.pixel_array * float(f.RescaleSlope) + float(f.RescaleIntercept) for f in files])
    return to_ras(values.transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


def _needs(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"reading this file needs {module}; install it with: pip install 'interp[data]'"
        ) from error
