"""Reads volumes with known axes and shows their slices as radiologists see them.

A volume's axes point to the patient's Right, Anterior and Superior (RAS). Slices are shown as radiologists see them
(the patient's right on the left of the picture, anterior or superior on top), whatever the order of the axes in the
file. Files are read by `read_nifti` and `read_dicom`. What the header of a NIfTI file leaves open is refused, never
guessed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from interp.data import dicom_series
from interp.data.lines import needs
from interp.errors import DataError

__all__ = ["Volume", "display", "load_nifti", "read_dicom", "read_nifti", "resample_nearest", "to_ras"]


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

    Values are scaled as the header says; a slope of 0 or NaN means that they are not scaled. Axes of length 1 after the
    third are dropped.

    Args:
        path: The file, .nii, .nii.gz or .hdr beside .img.
        orientation: The directions of the axes, such as "RAS" or "LPI", for a file that does not give them (qform_code
            and sform_code are 0); the origin is then voxel (0, 0, 0). "sform" or "qform" chooses one where a file has
            both.

    Raises:
        DataError: Not a complete NIfTI file of one real number a voxel; no orientation, or two that disagree; an
            orientation that contradicts the file's; a singular affine; voxel sizes that are not positive.
    """
    return to_ras(*load_nifti(needs("nibabel"), path, orientation))


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


MOST_PACKED = 1100  # gzip packs a file to no less than 1/1032 of its size
AGREE = 0.1  # the most voxels between the places of a corner by the two orientations of one header


def load_nifti(
    nibabel: Any, path: str | Path, orientation: str | None
) -> tuple[Shaped[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """Returns the scaled values, and the affine from voxels to RAS millimetres; see `volumes.read_nifti`."""
    try:
        image = nibabel.load(path)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {str(path)!r}. Check the path.") from error
    except Exception as error:  # nibabel raises errors of its own, zlib's, and ValueError on damaged headers
        raise _unreadable(path, error) from error
    if not isinstance(image, nibabel.Nifti1Pair):
        raise DataError(
            f"{str(path)!r} is a {type(image).__name__}, not NIfTI; such files need not say where their axes point. "
            "Convert it to NIfTI with its orientation, or pass its values and affine to interp.data.volumes.to_ras."
        )
    _check_content(path, image)
    affine = _affine(nibabel, path, image, orientation)
    try:
        values = np.asanyarray(image.dataobj)
    except Exception as error:  # EOFError, OSError, zlib.error, ValueError: whatever a damaged file leads to
        raise _unreadable(path, error) from error
    return values.reshape(values.shape[:3]), affine


def _unreadable(path: str | Path, error: BaseException) -> DataError:
    reason = " ".join(str(error).split())
    return DataError(
        f"{str(path)!r} cannot be read as NIfTI ({type(error).__name__}: {reason}). Is the file complete? Copy "
        "it again."
    )


def _check_content(path: str | Path, image: Any) -> None:
    """Raises `DataError` unless the file holds one real number for each voxel of one volume."""
    shape, dtype = image.shape, image.dataobj.dtype
    if len(shape) < 3 or any(n != 1 for n in shape[3:]) or 0 in shape:
        raise DataError(
            f"{str(path)!r} holds an array of shape {shape}; a volume has 3 axes. Write one time point or channel to a "
            "file of its own, or pass one to interp.data.volumes.to_ras with the affine."
        )
    if dtype.kind not in "iuf":
        raise DataError(
            f"{str(path)!r} holds {'colours' if dtype.fields else dtype} in each voxel, not one real number. Write "
            "one channel to a file of its own."
        )
    holder = image.file_map["image"]
    stored = Path(holder.filename).stat().st_size if holder.filename else None
    n_bytes = int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize
    if stored is not None and n_bytes > stored * MOST_PACKED:
        raise DataError(
            f"{str(path)!r} has {stored} bytes, too few for the {n_bytes} bytes of its shape {shape}. Is the file "
            "complete? Copy it again."
        )


def _affine(nibabel: Any, path: str | Path, image: Any, orientation: str | None) -> Float[np.ndarray, "4 4"]:
    """Returns the orientation that the header gives, or the caller's for a header without one."""
    header = image.header
    if header["qform_code"] or not header["sform_code"]:
        _check_sizes(path, image)
    found = {
        kind: affine
        for kind, affine in (
            ("sform", _read(path, header.get_sform)),
            ("qform", _read(path, header.get_qform)),
        )
        if affine is not None
    }
    if orientation in ("qform", "sform"):
        if orientation not in found:
            raise DataError(
                f"{str(path)!r} has no {orientation} ({orientation}_code is 0); its header gives "
                f"{' and '.join(found) or 'no orientation'}. Pass another orientation=."
            )
        return found[orientation]
    given = None if orientation is None else _stated(nibabel, image, orientation)
    if not found:
        if given is None:
            raise DataError(
                f"{str(path)!r} does not say where its axes point (qform_code and sform_code are 0), so left and right "
                "are unknown. If you know them, pass orientation=, such as orientation='RAS' for axes that point to "
                "the patient's right, front and top."
            )
        return given
    if len(found) == 2:
        _check_agreement(path, image.shape[:3], found["sform"], found["qform"])
    affine = found.get("sform", found.get("qform"))
    assert affine is not None
    axes = "".join(axis or "?" for axis in nibabel.aff2axcodes(affine))
    if given is not None and axes != str(orientation).upper():
        raise DataError(
            f"{str(path)!r} says that its axes point to {axes}; got orientation={orientation!r}. It is for files that "
            "do not say: leave it out, or correct the header."
        )
    return affine


def _read(path: str | Path, read: Any) -> Float[np.ndarray, "4 4"] | None:
    """Returns the affine of `get_qform` or `get_sform`, None where its code is 0."""
    try:
        affine, code = read(coded=True)
    except Exception as error:  # quaternions that are none
        raise _unreadable(path, error) from error
    if not code or affine is None:
        return None
    if not np.isfinite(affine).all():
        raise DataError(
            f"the affine in the header of {str(path)!r} holds NaN or infinity. Correct the header."
        )
    return np.asarray(affine, float)


def _check_sizes(path: str | Path, image: Any) -> None:
    """Raises `DataError` for voxel sizes that nibabel would silently replace by 1 mm."""
    holder = image.file_map.get("header") or image.file_map["image"]
    with holder.get_prepare_fileobj("rb") as file:
        raw = type(image.header).from_fileobj(file, check=False)
    sizes = np.asarray(raw["pixdim"][1:4], float)
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        raise DataError(
            f"the voxel sizes in the header of {str(path)!r} are {sizes.tolist()} mm; positive numbers are expected. "
            "Correct pixdim in the header."
        )


def _stated(nibabel: Any, image: Any, orientation: str) -> Float[np.ndarray, "4 4"]:
    """Returns the affine of axes that point as the caller says, its origin at voxel (0, 0, 0)."""
    letters = orientation.upper() if isinstance(orientation, str) else ""
    if len(letters) != 3 or sorted("RAS"["RASLPI".index(x) % 3] if x in "RASLPI" else x for x in letters) != [
        *"ARS"
    ]:
        raise DataError(
            "orientation is three letters, one of R or L, one of A or P and one of S or I, in the order of the file's "
            f"axes, or 'qform' or 'sform'; got {orientation!r}."
        )
    axes = nibabel.orientations.axcodes2ornt(letters)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, ((world, sign), size) in enumerate(zip(axes, image.header.get_zooms()[:3], strict=True)):
        affine[int(world), axis] = sign * float(size)
    return affine


def _check_agreement(
    path: str | Path,
    shape: tuple[int, ...],
    sform: Float[np.ndarray, "4 4"],
    qform: Float[np.ndarray, "4 4"],
) -> None:
    """Raises `DataError` where the two put a corner of the volume at different places."""
    corners = np.array([(x, y, z, 1) for x in (0, shape[0]) for y in (0, shape[1]) for z in (0, shape[2])])
    apart = float(np.linalg.norm(corners @ (sform - qform).T, axis=1).max())
    if apart > AGREE * float(np.linalg.norm(qform[:3, :3], axis=0).min()):
        raise DataError(
            f"the qform and the sform of {str(path)!r} disagree: they put a corner of the volume {apart:.3g} mm apart. "
            "Pass orientation='sform' or orientation='qform' to choose one."
        )
