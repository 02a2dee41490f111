"""DICOM series: one even stack of grey slices, or an error that says what is wrong with which file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import JPEG2000Lossless, MRImageStorage

from interp.data.volumes import read_dicom
from interp.errors import DataError
from tests.data.volume_files import DICOM_VALUES as VALUES
from tests.data.volume_files import Change, a_slice, setting


@pytest.fixture
def series(tmp_path: Path) -> Callable[..., list[Path]]:
    """Writes the slices, their names shuffled, each changed by a function of its number."""

    def write(change: Change = lambda z, file: None, numbers: Iterable[int] = range(4)) -> list[Path]:
        for place, z in enumerate(numbers):
            file = a_slice(z)
            change(place, file)
            file.save_as(tmp_path / "cadb"[place])
        return sorted(tmp_path.iterdir())

    return write


def test_a_series_agrees_with_simpleitk(series: Any) -> None:
    paths = series()
    volume = read_dicom(paths)
    assert volume.spacing == pytest.approx((0.8, 0.5, 3.0))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(paths[0].parent)))
    reference = reader.Execute()
    for at in [(0, 0, 0), (5, 4, 3), (2, 1, 3), (4, 0, 1)]:
        right, front, top = (volume.affine @ [*at, 1])[:3]
        point = reference.TransformPhysicalPointToIndex((-right, -front, top))
        assert volume.values[at] == reference.GetPixel(*point)


def test_one_file_is_not_a_series(series: Any) -> None:
    with pytest.raises(DataError, match="at least 2 slices; got 1"):
        read_dicom(series()[:1])


def test_two_slices_may_be_shifted_by_half_a_pixel(series: Any) -> None:
    def shifted(by: float) -> Change:
        return lambda z, file: setattr(file, "ImagePositionPatient", [-10 + by * z, 20, 5 + 3 * z])

    assert read_dicom(series(shifted(0.24), range(2))).values.shape == (6, 5, 2)  # half of 0.5 mm
    with pytest.raises(DataError, match=r"shifted against each other by up to 0\.26 mm"):
        read_dicom(series(shifted(0.26), range(2)))


def test_positions_may_be_off_by_a_hundredth(series: Any) -> None:
    def jitter(z: int, file: Any) -> None:
        file.ImagePositionPatient = [-10 + 0.01 * (z % 2), 20, 5 + 3 * z + (-1) ** z * 0.029]

    assert read_dicom(series(jitter)).spacing[2] == pytest.approx(3, rel=0.01)


def at(z: int, *place: float) -> Change:
    return setting((z,), ImagePositionPatient=list(place))


AXES = {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
UNEVEN = {
    "a gap": (at(3, -10, 20, 17), "not evenly spaced: 6 mm between .*, 3 mm in most places"),
    "a thin slice": (at(1, -10, 20, 7.5), "not evenly spaced"),
    "a slice twice": (at(2, -10, 20, 8), "lie at the same place. Pass one time point, echo"),
    "two times as many": (setting((0, 1, 2, 3), ImagePositionPatient=[0, 0, 0]), "lie at the same place"),
    "a localizer": (setting((3,), **AXES), r"differ in ImageOrientationPatient.*Leave out localizers"),
    "another series": (setting(SeriesInstanceUID="1.2.4"), "of several series: SeriesInstanceUID is 1.2.3 in"),
    "another frame": (setting(FrameOfReferenceUID="1.2.4"), "of several series: FrameOfReferenceUID"),
    "another size": (setting(Rows=6, Columns=5), "several series: Rows is 5 in"),
    "another spacing": (setting(PixelSpacing=[0.5, 0.9]), "differ in PixelSpacing"),
    "a tilted gantry": (
        lambda z, file: setattr(file, "ImagePositionPatient", [-10, 20 + z, 5 + 3 * z]),
        "shifted against each other by up to 3 mm, as with a tilted gantry.*read_nifti",
    ),
    "a moved slice": (at(2, -10, 24, 11), "shifted against each other by up to 4 mm"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), UNEVEN.values(), ids=UNEVEN)
def test_slices_that_form_no_even_stack(series: Any, change: Change, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_dicom(series(change))


ALL = (0, 1, 2, 3)
NO_PLACE = "Without them the slice's place in the patient is unknown"
NO_SCALE = r"not in the modality's unit \(CT: Hounsfield\)"
UNUSABLE = {
    "no position": (setting(ImagePositionPatient=None), f"ImagePositionPatient; got nothing. {NO_PLACE}"),
    "no orientation": (setting(ALL, ImageOrientationPatient=None), NO_PLACE),
    "no spacing": (setting(ALL, PixelSpacing=None), f"needs 2 numbers in PixelSpacing; got nothing. {NO_PLACE}"),
    "a position without an end": (setting(ImagePositionPatient=[-10, 20, np.inf]), NO_PLACE),
    "an empty position": (setting(ImagePositionPatient=""), NO_PLACE),
    "a spacing of 0": (setting(PixelSpacing=[0, 1]), "PixelSpacing .*millimetres above 0"),
    "a skew orientation": (
        setting(ALL, ImageOrientationPatient=[1, 0, 0, 0.5, 1, 0]), "two unit vectors at a right angle",
    ),
    "a CT without a scale": (setting(RescaleSlope=None, RescaleIntercept=None), f"RescaleSlope None.*{NO_SCALE}"),
    "half a scale": (setting(RescaleIntercept=None), "RescaleSlope 2.* and the RescaleIntercept None"),
    "a slope of 0": (setting(RescaleSlope=0), NO_SCALE),
    "a CT known by its class": (setting(ALL, Modality=None, RescaleSlope=None, RescaleIntercept=None), NO_SCALE),
    "a table of values": (setting(ModalityLUTSequence=[pydicom.Dataset()]), "ModalityLUTSequence, which is not"),
    "inverted": (setting(PhotometricInterpretation="MONOCHROME1"), "MONOCHROME1; grey values that grow"),
    "a palette": (setting(PhotometricInterpretation="PALETTE COLOR"), "kind PALETTE COLOR; grey values"),
    "colours": (
        setting(PhotometricInterpretation="RGB", SamplesPerPixel=3, PlanarConfiguration=0), "kind RGB; grey values",
    ),
    "several frames": (setting(NumberOfFrames=2), "several frames .*dcm2niix, and use read_nifti"),
    "an enhanced object": (setting(PerFrameFunctionalGroupsSequence=[pydicom.Dataset()]), "several frames"),
    "a value that is none": (
        lambda z, file: file.add(RawDataElement(Tag(0x00280008), "IS", 2, b"x ", 0, False, True)),
        "cannot be read as DICOM .*each complete",
    ),
    "no pixels": (setting(PixelData=None), "holds no image"),
    "too few pixels": (setting(PixelData=b"\0" * 20), "cannot be decoded .*else the file is damaged"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_slice_that_cannot_be_used(series: Any, change: Change, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_dicom(series(change))


def test_compression_without_a_decoder(series: Any) -> None:
    def compressed(z: int, file: Any) -> None:
        file.file_meta.TransferSyntaxUID = JPEG2000Lossless
        file.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51"])

    with pytest.raises(DataError, match=r"transfer syntax is JPEG 2000.*install pylibjpeg"):
        read_dicom(series(compressed))


def test_an_mr_without_a_scale_keeps_its_values(series: Any) -> None:
    paths = series(
        setting(ALL, Modality="MR", SOPClassUID=MRImageStorage, RescaleSlope=None, RescaleIntercept=None)
    )
    np.testing.assert_array_equal(read_dicom(paths).values, VALUES.transpose(2, 1, 0)[::-1, ::-1])


def test_each_slice_has_its_own_scale(series: Any) -> None:
    found = read_dicom(series(setting((1,), RescaleSlope=3, RescaleIntercept=0))).values
    expected = (
        VALUES * np.array([2, 3, 2, 2])[:, None, None] + np.array([-1024, 0, -1024, -1024])[:, None, None]
    )
    np.testing.assert_array_equal(found, expected.transpose(2, 1, 0)[::-1, ::-1])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("paths", ["scan.dcm", Path("scan.dcm"), None, 3], ids=repr)
def test_paths_that_are_no_list(paths: Any) -> None:
    with pytest.raises(DataError, match=r"the paths of all files of a series; got .*Pass a list"):
        read_dicom(paths)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "content", [b"", b"no image", None, "a number"], ids=["empty", "text", "folder", "number"]
)
def test_a_file_that_is_not_dicom(series: Any, tmp_path: Path, content: Any) -> None:
    paths: list[Any] = series()
    if content is None or content == "a number":
        paths.append(tmp_path if content is None else 3)
    else:
        (tmp_path / "notes").write_bytes(content)
        paths.append(tmp_path / "notes")
    with pytest.raises(DataError, match="cannot be read as DICOM"):
        read_dicom(paths)


def test_a_file_that_is_missing(series: Any) -> None:
    with pytest.raises(DataError, match=r"there is no file 'nowhere.dcm'. Check"):
        read_dicom([*series(), "nowhere.dcm"])


def test_a_truncated_file(series: Any) -> None:
    paths = series()
    paths[1].write_bytes(paths[1].read_bytes()[:-30])
    with pytest.raises(DataError, match=r"cannot be decoded|holds no image|cannot be read"):
        read_dicom(paths)
