# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of data, inputs, metrics and statistics."""

from __future__ import annotations

import json
import locale
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import xarray as xr
from PIL import Image

import interp
from interp.data import build, scenes, volumes
from interp.errors import InterpError
from interp.inputs import images
from interp.report import show_maps

DICOM = [
    ("read_dicom(series()[0])", "sorted(Path(folder).glob('*.dcm'))", "read_dicom(sorted(Path(series()[0].parent).glob('*.dcm')))"),
    ("read_dicom(series()[:1])", "Pass every file of the series", "read_dicom(series())"),
    ("read_dicom(series(3, PixelData=None))", "Leave it out", "read_dicom(series(3, PixelData=None)[:3])"),
    ("read_dicom([*series()[:3], cut(series()[3])])", "copy it again", "read_dicom(series())"),
    ("read_dicom([FRAMES, FRAMES])", "Convert it to NIfTI", "read_nifti(as_nifti(FRAMES))"),
    ("read_dicom(series(3, PhotometricInterpretation='MONOCHROME1'))", "leave the file out", "read_dicom(series(3, PhotometricInterpretation='MONOCHROME1')[:3])"),
    ("read_dicom(series(3, PhotometricInterpretation='MONOCHROME1'))", "invert MONOCHROME1", "read_dicom(inverted(series(3, PhotometricInterpretation='MONOCHROME1'), 3))"),
    ("read_dicom(series(3, ImagePositionPatient=None))", "leave the file out", "read_dicom(series(3, ImagePositionPatient=None)[:3])"),
    ("read_dicom([*series(), series()[0]])", "each slice once", "read_dicom(series())"),
    ("read_dicom([*series(), notes()])", "the files of one series alone", "read_dicom(series())"),
    ("read_dicom([*series()[:3], cut(series()[3], 0)])", "each complete", "read_dicom(series())"),
    ("read_dicom(series(2, 3, SeriesInstanceUID='1.2.4'))", "Pass the files of one series", "read_dicom(series(2, 3, SeriesInstanceUID='1.2.4')[:2])"),
    ("read_dicom(series(3, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]))", "Leave out localizers", "read_dicom(series(3, ImageOrientationPatient=[0, 1, 0, 0, 0, -1])[:3])"),
    ("read_dicom(packed(series()[:2], 'JPEG'))", "decompress the file first", "read_dicom(unpacked(packed(series()[:2], 'JPEG')))"),
    ("read_dicom(tilted()[:2])", "Resample the series", "read_nifti(resampled(tilted()[:2]))"),
]  # fmt: skip
NIFTI = [
    ("read_nifti(MGZ)", "Convert it to NIfTI with its orientation", "read_nifti(as_nifti_file(nibabel.load(MGZ)))"),
    ("read_nifti(MGZ)", "interp.data.volumes.to_ras", "interp.data.volumes.to_ras(nibabel.load(MGZ).get_fdata(), nibabel.load(MGZ).affine)"),
    ("read_nifti(nii(np.stack([GREY, GREY], -1), sform=LPS))", "one time point or channel to a file of its own", "read_nifti(nii(np.stack([GREY, GREY], -1)[..., 0], sform=LPS))"),
    ("read_nifti(nii(np.stack([GREY, GREY], -1), sform=LPS))", "interp.data.volumes.to_ras with the affine", "interp.data.volumes.to_ras(np.stack([GREY, GREY], -1)[..., 1], LPS)"),
    ("read_nifti(nii(COLOURS, sform=LPS))", "one channel to a file of its own", "read_nifti(nii(COLOURS['R'], sform=LPS))"),
    ("read_nifti(nii(GREY, sform=LPS), orientation='RAS')", "leave it out", "read_nifti(nii(GREY, sform=LPS))"),
    ("read_nifti(nii(GREY, sform=LPS), orientation='RAS')", "correct the header", "read_nifti(nii(GREY, sform=RAS), orientation='RAS')"),
    ("read_nifti(nii(GREY, sform=LPS, qform=RAS))", "orientation='sform'", "read_nifti(nii(GREY, sform=LPS, qform=RAS), orientation='sform')"),
    ("read_nifti(nii(GREY, sform=LPS, qform=RAS))", "orientation='qform'", "read_nifti(nii(GREY, sform=LPS, qform=RAS), orientation='qform')"),
    ("read_nifti(nii(GREY, sform=LPS), orientation='qform')", "its header gives sform. Pass another orientation=", "read_nifti(nii(GREY, sform=LPS), orientation='sform')"),
    ("read_nifti(nii(GREY))", "orientation='RAS'", "read_nifti(nii(GREY), orientation='RAS')"),
    ("to_ras(GREY, [1, 2, 3])", "the affine of the file's header", "to_ras(GREY, nibabel.load(nii(GREY, sform=LPS)).affine)"),
    ("build.cut(PLAIN, LABELS, {1: 'cyst'}, 'axial', 0, (0, 9))", "use resample_nearest first", "build.cut(PLAIN, resample_nearest(LABELS, PLAIN), {1: 'cyst'}, 'axial', 0, (0, 9))"),
]  # fmt: skip
SAMPLES = [
    ("data.jsonl(5)", "such as 'data/rows.jsonl'", "write(ROW, 'data/rows.jsonl') and data.jsonl('data/rows.jsonl')"),
    ("data.jsonl(write(ROW[:-1] + ', \"size\": NaN}'))", "write null for a missing value", "data.jsonl(write(ROW[:-1] + ', \"answer\": null}'))"),
    ("data.jsonl(write(ROW[:-1] + ', \"question\": \"?\"}'))", "is given twice in one object", "data.jsonl(write(ROW))"),
    ("data.vgmed(conflict())", "box_field='bbox'", "data.vgmed(conflict(), box_field='bbox')"),
    ("data.vgmed(conflict())", "box_field='original_bboxes'", "data.vgmed(conflict(), box_field='original_bboxes')"),
    ("data.Samples(one)", "Write [sample]", "data.Samples([one])"),
    ("data.Samples([one], 5)", "the name of samples is a text", "data.Samples([one], 'mine')"),
    ("D.filter(5)", "filter(lambda sample: …)", "D.filter(lambda sample: sample.boxes)"),
    ("SCENE.find('x')", "Ask for one of those", "[SCENE.find(thing.shape) for thing in SCENE.things]"),
]  # fmt: skip
INPUTS = [
    ("Prompt(CAFE.decode('ascii', 'surrogateescape'))", "Read it as UTF-8", "Prompt(CAFE.decode('utf-8'))"),
    ("Prompt(CAFE.decode('ascii', 'surrogateescape'))", "remove the character", "Prompt(CAFE.decode('ascii', 'ignore'))"),
    ("Sample(PIC, '?', boxes=[(9, 9, 0, 5)], box_format='xywh')", "Leave out boxes without an area", "Sample(PIC, '?', boxes=[], box_format='xywh')"),
    ("Sample(PIC, '?', boxes=[(1, 2, 30, 40)], box_format='fraction')", "Leave box_format out for pixels", "Sample(PIC, '?', boxes=[(1, 2, 30, 40)])"),
    ("as_boxes([(0.1, 0.1, 0.5, 0.5)], 'fraction')", "give pixels", "as_boxes([(8, 6, 40, 32)])"),
    ("Sample(PIC, '?', boxes=[(0, 0, 1, 1)])", 'box_format="xyxy"', "Sample(PIC, '?', boxes=[(0, 0, 1, 1)], box_format='xyxy')"),
    ("Sample(PIC, '?', boxes=[(0, 0, 1, 1)])", "Box(…, pixels=True)", "Sample(PIC, '?', boxes=[Box(0, 0, 1, 1, pixels=True)])"),
    ("Sample(PIC, '?', boxes=[(0, 0, 1, 1)])", 'box_format="fraction"', "Sample(PIC, '?', boxes=[(0, 0, 1, 1)], box_format='fraction')"),
    ("Sample(PIC, '?', boxes=[(0.1, 0.1, 0.5, 0.5)])", "by the image's width and height first", "Sample(PIC, '?', boxes=[(0.1 * 80, 0.1 * 64, 0.5 * 80, 0.5 * 64)])"),
    ("Sample(next(os.scandir(os.fsencode(png().parent))))", "os.fsdecode(path)", "Sample(os.fsdecode(next(os.scandir(os.fsencode(png().parent))))).load()"),
    ("Sample(Image.fromarray(HOLED)).load()", "write it as 8-bit first", "Sample(Image.fromarray(np.nan_to_num(HOLED).astype(np.uint8))).load()"),
    ("with_limit(50, lambda: Sample(png()).sizes)", "Crop or shrink it", "with_limit(50, lambda: Sample(png(np.asarray(PIC)[:5, :5])).sizes)"),
    ("with_limit(50, lambda: Sample(png()).sizes)", "raise interp.inputs.images.MAX_PIXELS", "with_limit(72, lambda: Sample(png()).sizes)"),
    ("Sample(cut(png())).load()", "Is the file complete", "Sample(png()).load()"),
    ("Sample(nii(GREY, sform=LPS)).load()", "Read DICOM and NIfTI with the data extra", "read_nifti(nii(GREY, sform=LPS))"),
    ("Sample(PIC, masks=np.eye(9) > 0)", "write masks=[mask]", "Sample(PIC, masks=[np.eye(9) > 0])"),
    ("Sample(PIC, masks=[np.full((64, 80), 0.7)])", "Threshold a map of probabilities: mask > 0.5", "Sample(PIC, masks=[np.full((64, 80), 0.7) > 0.5]).check()"),
    ("Sample(PIC, masks=[np.ma.masked_equal(np.eye(9, dtype=int), 0)])", "Fill them: array.filled(0)", "Sample(PIC, masks=[np.ma.masked_equal(np.eye(9, dtype=int), 0).filled(0)])"),
    ("Sample(PIC, masks=[np.eye(9) > 0]).check()", "mask.resize(image.size, PIL.Image.Resampling.NEAREST)", "Sample(PIC, masks=[Image.fromarray(np.eye(9) > 0).resize(PIC.size, Image.Resampling.NEAREST)]).check()"),
    ("Sample(PIC, masks=[np.zeros((64, 80), bool)]).check()", "Leave the mask out", "Sample(PIC).check()"),
    ("Sample(png(PIC), masks=[np.eye(9) > 0]).to_dict()", "Save it as a PNG file and pass its path", "Sample(png(PIC), masks=[png(np.eye(9, dtype=np.uint8))]).to_dict()"),
    ("Sample(PIC, masks=[PIC])", '.convert("L")', 'Sample(PIC, masks=[PIC.convert("L")])'),
    ("Sample(PIC, masks=[PIC])", "(np.asarray(image) == colour).all(axis=-1)", "Sample(PIC, masks=[(np.asarray(PIC) == np.asarray(PIC)[0, 0]).all(axis=-1)])"),
    ("tokens.mask(interp.Mask(np.eye(9) > 0))", "write [mask]", "tokens.mask([interp.Mask(np.ones(tokens.sizes[0][::-1], bool))])"),
    ("tokens.mask([interp.Mask(np.eye(9) > 0), *BOXES])", "Pass sample.boxes or sample.masks", "tokens.mask(BOXES)"),
    ("interp.PAPER_PROMPT.text('x')", "an interp.Sample", "interp.PAPER_PROMPT.text(interp.Sample(PIC, 'x'))"),
    ("asked_anew(one, question='x')", "sample.replace(question=…)", "one.replace(question='x')"),
    ("asked_anew(one, question=None)", "sample.replace(…)", "one.replace(question='')"),
    ("Sample(PIC, group=float('nan'))", "is None, not NaN", "Sample(PIC, group=None)"),
    ("Sample(PIC, group=2.5)", "pass str(value)", "Sample(PIC, group=str(2.5))"),
    ("Sample(PIC, options={'yes', 'no'})", 'options=["first", "second"]', 'Sample(PIC, options=["first", "second"])'),
    ("Sample(PIC, options={'yes', 'no'})", "options=sorted(…)", "Sample(PIC, options=sorted({'yes', 'no'}))"),
    ("Sample(PIC, options=[])", "Leave options out", "Sample(PIC)"),
    ("Sample(PIC).to_dict()", "Save it to a file and build the sample from that path", "Sample(png(PIC)).to_dict()"),
    ("mllm.encode({one})", "list(samples)", "mllm.encode(list({one}))"),
    ("tokens.positions(5)", "such as 'last'", "tokens.positions('last')"),
    ("tokens.positions(5)", "interp.word(…)", "tokens.positions(interp.word('nodule'))"),
    ("replace(tokens, grid=None).mask(BOXES, 'stretch')", 'rule="touch"', 'replace(tokens, grid=None).mask(BOXES, rule="touch")'),
]  # fmt: skip
MAPS = [
    ("metrics.auroc([1.0, 2.0], [0, 1])", "tokens.mask(boxes) or tokens.coverage(boxes)", "metrics.auroc(np.arange(tokens.n), tokens.coverage(BOXES))"),
    ("metrics.tokens_first(np.ones((2, 3, 4)))", "Choose one layer and head first", "metrics.tokens_first(np.ones((2, 3, 4))[1, 2])"),
    ("metrics.attention_ratio_sliding(np.arange(tokens.n), tokens.mask(BOXES), 5)", "tokens.grid of the same sample", "metrics.attention_ratio_sliding(np.arange(tokens.n), tokens.mask(BOXES), tokens.grid)"),
    ("metrics.auroc(0.5, MASK)", "one number per image token on the last axis", "metrics.auroc(MAP, MASK)"),
    ("metrics.auroc(np.arange(tokens.n), MASK)", "Make the mask from the same sample's tokens", "metrics.auroc(np.arange(tokens.n), tokens.mask(BOXES))"),
    ("metrics.auroc(COLUMN, MARKS)", "Align them", "metrics.auroc(*COLUMN.align(MARKS))"),
    ("metrics.auroc(COLUMN, MARKS)", "map.to_numpy() and mask.to_numpy()", "metrics.auroc(COLUMN.to_numpy(), MARKS.to_numpy())"),
    ("metrics.auroc(COLUMN.to_xarray(), MARKS.to_xarray())", "xarray.align", "metrics.auroc(*xarray.align(COLUMN.to_xarray(), MARKS.to_xarray()))"),
    ("metrics.auroc(COLUMN.to_xarray(), MARKS.to_xarray())", "pass .values", "metrics.auroc(COLUMN.to_xarray().values, MARKS.to_xarray().values)"),
    ("metrics.auroc(['a', 'b', 'c', 'd'], MASK)", "Pass real numbers", "metrics.auroc([1, 2, 3, 4], MASK)"),
    ("metrics.auroc({1, 2, 3, 4}, MASK)", "Pass a list or an array", "metrics.auroc([1, 2, 3, 4], MASK)"),
    ("metrics.auroc(HIDDEN, MASK)", "array.filled(0)", "metrics.auroc(HIDDEN.filled(0), MASK)"),
    ("metrics.auroc(HIDDEN, MASK)", "array.filled(nan)", "metrics.auroc(HIDDEN.filled(np.nan), MASK)"),
    ("metrics.auroc([[1, 2, 3, 4], [1, 2]], MASK)", "lists of equal lengths", "metrics.auroc([[1, 2, 3, 4], [4, 3, 2, 1]], MASK)"),
    ("stats.per_group([1.0, 2.0], None)", "one label for each value", "stats.per_group([1.0, 2.0], ['a', 'b'])"),
    ("stats.per_group([1.0, 2.0], ['a'])", "Pass two equal columns", "stats.per_group([1.0, 2.0], ['a', 'b'])"),
    ("stats.per_group([1.0, 2.0], {'a', 'b'})", "a list, an array or a column", "stats.per_group([1.0, 2.0], ['a', 'b'])"),
    ("stats.per_group([1.0, 2.0], [['a'], ['b']])", "strings or numbers", "stats.per_group([1.0, 2.0], ['a', 'b'])"),
    ("show_maps(one, BY_HEAD(tokens.n), tokens)", "maps.sel(layer=…)", "show_maps(one, BY_HEAD(tokens.n).sel(layer=1), tokens)"),
]  # fmt: skip
ROWS: list[tuple[str, str, str]] = [*DICOM, *NIFTI, *SAMPLES, *INPUTS, *MAPS]
"""(a call that fails, words of its message, a call that follows them)"""

INSIDE = "tests/advice/data.py::ROWS: a row follows it, but the message stands inside one that names the line or image"
ELSEWHERE: dict[str, str] = {
    "{…} is not a finite number; write null": INSIDE,
    "the name {…} is given twice in one object": INSIDE,
    "bbox the row has 'bbox' and 'original_bboxes' and they differ": INSIDE,
    "a floating-point image holds NaN": INSIDE,
    "reading this file needs {…}; install it with: pip install 'interp[data]'": "needs packages that are not here; "
    "tests/test_advice.py::test_extras_that_messages_name_are_declared finds the extra",
}  # the beginning of a message: why no row follows it, or the test that does

GREY = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
RAS, LPS = np.diag([1.0, 2, 3, 1]), np.diag([-1.0, -2, 3, 1])
AT = {"question": "?", "bbox": [[1, 2, 30, 40]], "original_bboxes": [[2, 4, 60, 70]]}


def folder() -> Path:
    """A new folder."""
    return Path(tempfile.mkdtemp())


def series(*places: int, **values: Any) -> list[Path]:
    """The files of a CT of 4 slices; at some places tags are set, or deleted where the value is None."""
    from tests.data.volume_files import a_slice, setting

    made = folder()
    for z in range(4):
        file = a_slice(z)
        setting(places, **values)(z, file)
        file.save_as(made / f"{z}.dcm")
    return sorted(made.iterdir())


def tilted() -> list[Path]:
    """A series whose slices are shifted by 1 mm, two rows, each."""
    import pydicom

    paths = series()
    for z, path in enumerate(paths):
        file = pydicom.dcmread(path)
        file.ImagePositionPatient = [-10, 20 + z, 5 + 3 * z]
        file.save_as(path)
    return paths


def resampled(paths: list[Path]) -> Path:
    """A tilted series as NIfTI, its slices on the grid of the first."""
    import SimpleITK as sitk  # noqa: N813 - its own short name

    slices = [sitk.ReadImage(path) for path in paths]
    first = slices[0]
    upright = [
        sitk.Resample(
            one, first.GetSize(), sitk.Transform(), sitk.sitkNearestNeighbor,
            (*first.GetOrigin()[:2], one.GetOrigin()[2]), first.GetSpacing(), first.GetDirection(), -1024,
        )
        for one in slices
    ]  # fmt: skip
    stack = sitk.JoinSeries([one[:, :, 0] for one in upright], first.GetOrigin()[2], 3.0)
    sitk.WriteImage(stack, made := folder() / "a.nii")
    return made


def frames() -> Path:
    """A DICOM file of two frames."""
    import pydicom

    from tests.data.volume_files import a_slice

    file = a_slice(0)
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = pydicom.uid.EnhancedMRImageStorage
    file.NumberOfFrames, file.PixelData = 2, 2 * file.PixelData
    file.save_as(made := folder() / "a.dcm")
    return made


def as_nifti(path: Path) -> Path:
    """A DICOM file converted to NIfTI."""
    import SimpleITK as sitk  # noqa: N813

    sitk.WriteImage(sitk.ReadImage(path), made := folder() / "a.nii")
    return made


def inverted(paths: list[Path], place: int) -> list[Path]:
    """The series with one file turned from MONOCHROME1 to MONOCHROME2."""
    import pydicom

    file = pydicom.dcmread(paths[place])
    stored = file.pixel_array
    file.PixelData = (stored.max() + stored.min() - stored).astype(stored.dtype).tobytes()
    file.PhotometricInterpretation = "MONOCHROME2"
    file.save_as(paths[place])
    return paths


def packed(paths: list[Path], compressor: str = "") -> list[Path]:
    """The series written anew, compressed where a compressor is given."""
    import SimpleITK as sitk  # noqa: N813

    before = locale.setlocale(locale.LC_ALL)
    made, writer = folder(), sitk.ImageFileWriter()
    writer.SetUseCompression(bool(compressor))
    writer.SetCompressor(compressor)
    writer.KeepOriginalImageUIDOn()
    for path in paths:
        writer.SetFileName(str(made / path.name))
        image = sitk.ReadImage(path)
        values = sitk.Cast(image, sitk.sitkInt16)  # GDCM compresses no 32-bit values
        for key in image.GetMetaDataKeys():
            values.SetMetaData(key, image.GetMetaData(key))
        writer.Execute(values)
    locale.setlocale(locale.LC_ALL, before)  # GDCM leaves "C", in which Python reads files as ASCII
    return sorted(made.iterdir())


def nii(values: np.ndarray, sform: Any = None, qform: Any = None) -> Path:
    """A NIfTI file with these orientations, or with none."""
    from tests.data.volume_files import saved

    return saved(folder() / "a.nii", sform, qform, values)


def nifti_of(image: Any) -> Path:
    """An image of nibabel as a NIfTI file."""
    import nibabel

    nibabel.save(nibabel.Nifti1Image(image.get_fdata(), image.affine), made := folder() / "a.nii")
    return made


def mgz() -> Path:
    """A volume in another format than NIfTI."""
    import nibabel

    nibabel.save(nibabel.MGHImage(GREY.astype(np.float32), LPS), made := folder() / "a.mgz")
    return made


def cut(path: Path, keep: float = 0.5) -> Path:
    """The file without its second half, or with another share of it."""
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    return path


def notes() -> Path:
    """A file of text."""
    (made := folder() / "notes.txt").write_text("no image")
    return made


def png(pixels: Any = None) -> Path:
    """An image file, alone in its folder."""
    made = folder() / "a.png"
    Image.fromarray(np.zeros((8, 9, 3), np.uint8) if pixels is None else np.asarray(pixels)).save(made)
    return made


def with_limit(n: int, call: Any) -> Any:
    """The value of a call while images may have n pixels."""
    with mock.patch.object(images, "MAX_PIXELS", n):
        return call()


def write(line: str, name: str | None = None) -> Path:
    """A file of one line beside an image `a.png`, in a new folder where it has no name."""
    path = folder() / "a.jsonl" if name is None else Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(line)
    Image.new("L", (100, 80)).save(path.parent / "a.png")
    return path


def conflict() -> Path:
    """The folder of a row of VGMED with two kinds of boxes that differ."""
    made = folder()
    Image.new("L", (100, 80)).save(made / "a.png")
    (made / "VGMED_localization.jsonl").write_text(json.dumps({"image": "a.png", **AT}))
    return made


def asked_anew(sample: interp.Sample, question: str | None) -> None:
    """Sets a sample's question, or deletes it; the AttributeError becomes the error that a row expects."""
    try:
        if question is None:
            del sample.question
        else:
            sample.question = question  # type: ignore[misc]
    except AttributeError as error:
        raise InterpError(str(error)) from error


def by_head(n: int) -> xr.DataArray:
    """Maps of 2 layers and 3 heads over n tokens."""
    return xr.DataArray(
        np.random.default_rng(0).random((2, 3, n)), dims=("layer", "head", "token"), coords={"layer": [0, 1]}
    )


def names() -> dict[str, Any]:
    """What the calls use, beside the names of `tests/test_advice.py`."""
    import nibabel

    helpers = (series, tilted, resampled, as_nifti, inverted, packed, nii, cut, notes, png, with_limit, write, conflict, asked_anew)  # fmt: skip
    return {
        **{helper.__name__: helper for helper in helpers},
        "unpacked": packed, "as_nifti_file": nifti_of, "show_maps": show_maps, "build": build,
        "read_dicom": volumes.read_dicom, "read_nifti": volumes.read_nifti, "to_ras": volumes.to_ras,
        "resample_nearest": volumes.resample_nearest, "as_boxes": interp.inputs.boxes.as_boxes,
        "Path": Path, "os": os, "Image": Image, "xarray": xr, "nibabel": nibabel,
        "FRAMES": frames(), "MGZ": mgz(), "GREY": GREY, "RAS": RAS, "LPS": LPS,
        "COLOURS": np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]),
        "PLAIN": volumes.Volume(GREY, np.eye(4)), "LABELS": volumes.Volume(np.ones((4, 6, 8), int), np.diag([0.5, 0.5, 0.5, 1])),
        "ROW": '{"image": "a.png", "question": "?"}', "SCENE": scenes.natural_scenes("test", 1)[0][0],
        "CAFE": "café: {question}".encode(), "HOLED": np.array([[1.0, np.nan]], np.float32),
        "replace": replace, "BY_HEAD": by_head,
        "COLUMN": pd.Series([0.1, 0.7, 0.2, 0.4], list("abcd")).rename_axis("token"),
        "MARKS": pd.Series([True, False, False, True], list("dcba")).rename_axis("token"),
        "HIDDEN": np.ma.array([0.1, 0.7, 0.2, 0.4], mask=[0, 0, 1, 0]),
    }  # fmt: skip
