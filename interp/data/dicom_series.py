"""Values and affine of a series of single-frame DICOM files; anything but one even stack of slices is refused."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from interp.errors import DataError

__all__ = ["load"]

JITTER = 0.01  # share of the distance between slices by which a position may be off
LEAST_JITTER = 0.01  # or this many millimetres, as positions are written with few digits
SCALED = {"CT": "1.2.840.10008.5.1.4.1.1.2", "PT": "1.2.840.10008.5.1.4.1.1.128"}
"""Modalities whose stored numbers have no meaning without a rescale slope, and their storage classes."""


def load(
    pydicom: Any, paths: Iterable[str | Path]
) -> tuple[Shaped[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """Returns the rescaled values, and the affine from voxels to RAS millimetres; see `volumes.read_dicom`."""
    if isinstance(paths, str | bytes | os.PathLike) or not isinstance(paths, Iterable):
        raise DataError(
            f"read_dicom takes the paths of all files of a series; got {paths!r}. Pass a list, such as "
            "sorted(Path(folder).glob('*.dcm'))."
        )
    named = [(_name(path), _opened(pydicom, path)) for path in paths]
    if len(named) < 2:
        raise DataError(f"a series needs at least 2 slices; got {len(named)}. Pass every file of the series")
    for name, file in named:
        with _reading(name):
            _check_image(name, file)
    _check_same_series(named)
    named, affine = _stacked(named)
    values = np.stack([_values(name, file) for name, file in named])
    return values.transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _name(path: Any) -> str:
    return repr(str(path))


def _opened(pydicom: Any, path: Any) -> Any:
    with _reading(_name(path)):
        return pydicom.dcmread(path)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turns any error of pydicom on a bad file or value into a `DataError` that names the file."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"there is no file {name}. Check the path.") from error
    except Exception as error:  # InvalidDicomError, IsADirectoryError, EOFError, struct.error, ValueError …
        raise DataError(
            f"{name} cannot be read as DICOM ({type(error).__name__}: {error}). Pass the files of one series alone, "
            "each complete."
        ) from error


def _check_image(name: str, file: Any) -> None:
    """Raises `DataError` unless a file holds one grey slice with a known position and scale."""
    if "PixelData" not in file or not file.get("Rows") or not file.get("Columns"):
        raise DataError(
            f"{name} holds no image (pixel data, rows and columns). Leave it out, or copy it again if it was cut short."
        )
    if int(file.get("NumberOfFrames") or 1) > 1 or "PerFrameFunctionalGroupsSequence" in file:
        raise DataError(
            f"{name} holds several frames (an enhanced or multi-frame object); one slice in each file is expected. "
            "Convert it to NIfTI, for example with dcm2niix, and use read_nifti."
        )
    kind = file.get("PhotometricInterpretation")
    if int(file.get("SamplesPerPixel") or 1) != 1 or kind != "MONOCHROME2":
        raise DataError(
            f"{name} holds pixels of the kind {kind}; grey values that grow with brightness (MONOCHROME2) are "
            "expected. Convert colours and palettes to grey, and invert MONOCHROME1, or leave the file out."
        )
    for tag, n in (("PixelSpacing", 2), ("ImageOrientationPatient", 6), ("ImagePositionPatient", 3)):
        _numbers(name, file, tag, n)
    if (_numbers(name, file, "PixelSpacing", 2) <= 0).any():
        raise DataError(
            f"{name} has the PixelSpacing {list(file.PixelSpacing)}; millimetres above 0 are expected."
        )
    axes = _numbers(name, file, "ImageOrientationPatient", 6).reshape(2, 3)
    if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-3):
        raise DataError(
            f"{name} has the ImageOrientationPatient {axes.ravel().tolist()}; two unit vectors at a right angle are "
            "expected."
        )
    _scale(name, file)


def _numbers(name: str, file: Any, tag: str, n: int) -> Float[np.ndarray, " number"]:
    """Returns the n numbers of a tag."""
    try:
        found = np.array(file[tag].value, float)
    except (KeyError, TypeError, ValueError):
        found = np.empty(0)
    if found.shape != (n,) or not np.isfinite(found).all():
        came = file.get(tag, "nothing")
        raise DataError(
            f"{name} needs {n} numbers in {tag}; got {came}. Without them the slice's place in the patient is unknown: "
            "leave the file out."
        )
    return found


def _scale(name: str, file: Any) -> tuple[float, float]:
    """Returns slope and intercept as written; where other modalities than CT and PET have none, 1 and 0."""
    if "ModalityLUTSequence" in file:
        raise DataError(
            f"{name} maps its values by a ModalityLUTSequence, which is not supported. Convert it first."
        )
    pair = file.get("RescaleSlope"), file.get("RescaleIntercept")
    modality, stored = str(file.get("Modality", "")), str(file.get("SOPClassUID", ""))
    needed = any(modality == kind or stored == uid for kind, uid in SCALED.items())
    if pair == (None, None) and not needed:
        return 1.0, 0.0
    try:
        slope, intercept = (float(value) for value in pair)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        slope, intercept = np.nan, np.nan
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        raise DataError(
            f"{name} has the RescaleSlope {pair[0]} and the RescaleIntercept {pair[1]}; two numbers, the first not 0, "
            "are expected. Without them the stored values are not in the modality's unit (CT: Hounsfield)."
        )
    return slope, intercept


def _check_same_series(named: Sequence[tuple[str, Any]]) -> None:
    """Raises `DataError` unless all files are slices of one series, of one size and orientation."""
    first_name, first = named[0]
    tags = ("SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "Rows", "Columns")
    for name, file in named[1:]:
        for tag in tags:
            if file.get(tag) != first.get(tag):
                raise DataError(
                    f"the files are of several series: {tag} is {first.get(tag)} in {first_name} and {file.get(tag)} "
                    f"in {name}. Pass the files of one series."
                )
        for tag, n, near in (("ImageOrientationPatient", 6, 1e-3), ("PixelSpacing", 2, 1e-4)):
            own, other = (_numbers(*one, tag, n) for one in ((name, file), named[0]))
            if np.abs(own - other).max() > near:
                raise DataError(
                    f"the slices differ in {tag}: {other.tolist()} in {first_name} and {own.tolist()} in {name}. Leave "
                    "out localizers and other series."
                )


def _stacked(
    named: Sequence[tuple[str, Any]],
) -> tuple[list[tuple[str, Any]], Float[np.ndarray, "4 4"]]:
    """Returns the files in the order of their positions, and the affine to LPS millimetres.

    Raises:
        DataError: Slices at the same position, gaps, or slices that are shifted against each other.
    """
    along, down = _numbers(*named[0], "ImageOrientationPatient", 6).reshape(2, 3)
    spacing = _numbers(*named[0], "PixelSpacing", 2)
    normal = np.cross(along, down)
    places = np.array([_numbers(*one, "ImagePositionPatient", 3) for one in named])
    order = np.argsort(places @ normal, kind="stable")
    named, places = [named[i] for i in order], places[order]
    usual = _even_step([name for name, _ in named], places @ normal)
    across = np.stack([along, down]) @ (places - places[0]).T
    if np.abs(across).max() > max(JITTER * usual, LEAST_JITTER, 0.5 * spacing.min()):
        raise DataError(
            f"the slices are shifted against each other by up to {np.abs(across).max():.4g} mm, as with a tilted "
            "gantry: their stack is no upright box. Resample the series, for example with dcm2niix, and use read_nifti."
        )
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = along * spacing[1], down * spacing[0]
    affine[:3, 2] = (places[-1] - places[0]) / (len(named) - 1)
    affine[:3, 3] = places[0]
    return named, affine


def _even_step(names: Sequence[str], heights: Float[np.ndarray, " slice"]) -> float:
    """Returns the median distance of neighbours; raises `DataError` unless the heights are evenly spaced."""
    steps = np.diff(heights)
    usual = float(np.median(steps))
    near = max(JITTER * usual, LEAST_JITTER)
    closest = int(steps.argmin())
    if steps[closest] <= min(near, 0.5 * usual) or usual <= 0:
        raise DataError(
            f"{names[closest]} and {names[closest + 1]} lie at the same place. Pass one time point, echo or "
            "reconstruction, each slice once."
        )
    counted = np.arange(len(heights))
    off = heights - np.polynomial.Polynomial.fit(counted, heights, 1)(counted)
    if np.abs(off).max() > 2 * near:  # the line follows the jitter of few slices
        worst = int(np.abs(steps - usual).argmax())
        raise DataError(
            f"the slices are not evenly spaced: {steps[worst]:.4g} mm between {names[worst]} and {names[worst + 1]}, "
            f"{usual:.4g} mm in most places. Is a file missing, or of another series?"
        )
    return usual


def _values(name: str, file: Any) -> Float[np.ndarray, "row column"]:
    """Returns the slice in the modality's unit."""
    try:
        stored = file.pixel_array
    except (
        Exception
    ) as error:  # no decoder: RuntimeError, AttributeError, NotImplementedError; bad data: ValueError
        syntax = getattr(getattr(file, "file_meta", None), "TransferSyntaxUID", None)
        raise DataError(
            f"the pixels of {name} cannot be decoded ({type(error).__name__}: {error}). Its transfer syntax is "
            f"{getattr(syntax, 'name', syntax)}. If it is compressed, install pylibjpeg[all], or decompress the file "
            "first; else the file is damaged."
        ) from error
    if stored.shape != (int(file.Rows), int(file.Columns)):
        raise DataError(
            f"{name} holds pixels of shape {stored.shape}; expected {file.Rows} × {file.Columns}."
        )
    slope, intercept = _scale(name, file)
    return stored * slope + intercept
