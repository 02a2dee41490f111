# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of the readers in `interp.data`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from interp.data.open import guess, read
from tests.data import source_files as files

ROWS: list[tuple[str, str, str]] = [
    ("data.csv(table('image,question'), separator='ab')", "separator is one character, such as ',' or ';'", "data.csv(table('image;question', 'a.png;?'), separator=';')"),
    ("data.csv(table('image,question', 'a.png,left, or right?'))", "in quotation marks", "data.csv(table('image,question', 'a.png,\"left, or right?\"'))"),
    ("data.csv(table('image,question', 'a.png,?'), columns=5)", 'such as {"image": "file"}', "data.csv(table('file,question', 'a.png,?'), columns={'image': 'file'})"),
    ("data.csv(table('image,label', 'a.png,liver'), question='Is it {x}?')", "{column} for the text of a column", "data.csv(table('image,label', 'a.png,liver'), question='Is it the {label}?')"),
    ("data.frame([SCAN])", "interp.data.hub(rows)", "data.hub([SCAN])"),
    ("data.frame([SCAN])", "interp.data.csv(path)", "data.csv(table('image,question', 'a.png,?'))"),
    ("data.frame(pd.DataFrame([SCAN])[:0])", "columns that each have a name of their own", "data.frame(pd.DataFrame([SCAN]))"),
    ("data.voc(voc(), question='{x}')", "'Is there {a} {label} in the image?'", "data.voc(voc(), question='Is there {a} {label} in the image?')"),
    ("data.voc(voc(), box_format='xywh')", "box_format=None, 'xyxy' or 'fraction'", "data.voc(voc(), box_format='xyxy')"),
    ("data.voc(other_xml())", "Leave out other XML files", "data.voc(voc())"),
    ("data.named(str(new() / 'no.csv'))", "rows.csv", "data.named(str(table('image,question', 'a.png,?')))"),
    ("read(file_of('rows.xyz', ''))", "interp.data.csv(path)", "data.csv(table('image,question', 'a.png,?'))"),
    ("read(table('image,question', 'a.png,?').parent)", "name that file", "read(table('image,question', 'a.png,?'))"),
    ("read(untabled(table('image,question', 'a.png,?')))", "rows.csv with the columns image,question,answer", "read(table('image,question,answer', 'a.png,Is there a nodule?,yes'))"),
    ("read(file_of('rows.xyz', ''))", "--reader", "read(table('image,question', 'a.png,?'), 'csv')"),
    ("read(volumes()[0])", "interp.data.nifti(image, labels)", "data.nifti(*volumes())"),
    ("read(volumes()[0])", "--labels", "read(volumes()[0], labels=volumes()[1])"),
    ("data.refcoco(refs()[0], split=5)", "such as 'val'", "data.refcoco(refs()[0], refs()[2], 'val', instances=refs()[1])"),
    ("data.refcoco(refs()[0], question='Where?')", "'Where is {expression}?'", "data.refcoco(refs()[0], refs()[2], instances=refs()[1], question='Where is {expression}?')"),
    ("data.refcoco(file_of('refs(unc).p', ''))", "that file and instances='instances.json'", "data.refcoco(refs()[0], refs()[2], instances=refs()[1])"),
    ("data.refcoco(refs()[0], refs()[2])", "pass instances='instances.json'", "data.refcoco(refs()[0], refs()[2], instances=refs()[1])"),
    ("data.refcoco(refs()[0], instances=refs()[1])", "Pass the folder of the images as images=", "data.refcoco(refs()[0], images=refs()[2], instances=refs()[1])"),
    ("data.s_chain([CHAIN], steps=[5])", "steps=[1, 4]", "data.s_chain([CHAIN], steps=[1, 4])"),
    ("data.s_chain([FAR])", "box_format='fraction'", "data.s_chain([FAR], box_format='fraction')"),
    ("data.sa_med2d(sa_med2d(), sources='BraTS')", 'such as ["AbdomenCT1K"]', "data.sa_med2d(sa_med2d(), sources=['BraTS'])"),
    ("data.Samples([one], skipped=5)", "{'no box': 3}", "data.Samples([one], skipped={'no box': 3})"),
    ("data.slake(slake([4, 2, 38, 18]))", "box_format='xyxy'", "data.slake(slake([4, 2, 38, 18]), box_format='xyxy')"),
    ("data.hub(hub_data().to_iterable_dataset())", "take some rows into a list", "data.hub(list(hub_data().to_iterable_dataset().take(1)))"),
    ("data.hub(two_parts())", "Pass one as split=", "data.hub(two_parts(), split='train')"),
    ("data.nifti(*volumes(), names={})", '{1: "liver"}', "data.nifti(*volumes(), names={1: 'liver'})"),
    ("data.nifti(*volumes(), orientation=5)", "such as 'RAS'", "data.nifti(*volumes(), orientation='sform')"),
    ("data.yolo(unnamed(), split='val')", "Leave split= out", "data.yolo(unnamed(), classes=['cat', 'dog'])"),
    ("data.yolo(unnamed())", 'Pass classes=["…", "…"]', "data.yolo(unnamed(), classes=['cat', 'dog'])"),
    ("data.yolo(yolo('0 12 6 16 8'))", "box_format='cxcywh'", "data.yolo(yolo('0 12 6 16 8'), box_format='cxcywh')"),
]  # fmt: skip
"""(a call that fails, words of its message, a call that follows them)"""

INSIDE = "tests/advice/readers.py::ROWS: a row follows it, but the message stands inside one that names file and line"
NAMES = "it names what is expected; the tests of its reader make it appear"
ELSEWHERE: dict[str, str] = {
    "bbox the row has no box. For the original layout": INSIDE,
    "file_name the image is the file {…}. Pass the folder": INSIDE,
    "the box {…}, read as (left, top, width, height)": INSIDE,
    "the box {…} reaches outside its": INSIDE,
    "box centre and size {…} reach outside the image": INSIDE,
    "expected polygons, or a run-length mask": NAMES,
    "object expected a name and a bndbox": NAMES,
    "masks expected a name like": NAMES,
    "there is no file or folder {…}, and no data set of that id in the cache": "nothing can be downloaded here; "
    "tests/data/readers/test_hub.py::test_an_id_is_read_from_the_cache_and_not_downloaded",
}  # the beginning of a message: why no row follows it, or the test that does


def new() -> Path:
    """A new folder."""
    return Path(tempfile.mkdtemp())


def table(*lines: str) -> Path:
    """A CSV file beside an image `a.png`."""
    return file_of("rows.csv", "\n".join(lines) + "\n", new())


def file_of(name: str, text: str, folder: Path | None = None) -> Path:
    """A file beside an image `a.png`."""
    path = (folder or new()) / name
    files.image(path.parent / "a.png")
    path.write_text(text)
    return path


def untabled(path: Path) -> Path:
    """The folder of a table, without it: pictures alone."""
    path.unlink()
    return path.parent


def voc() -> Path:
    """A folder in VOC's layout."""
    return files.voc_folder(new(), files.voc_object("cat", 1, 1, 9, 9))


def other_xml() -> Path:
    """A folder with an XML file of another kind."""
    return file_of("a.xml", "<html/>").parent


def refs() -> tuple[Path, Path, Path]:
    """RefCOCO's original layout as JSON: refs, instances, the folder of images."""
    return files.refcoco_files(new())


def sa_med2d() -> Path:
    """A folder in the layout of SA-Med2D-20M."""
    return files.sa_med2d_folder(new())


def slake(box: list[int]) -> Path:
    """A folder in SLAKE's layout whose liver has this box."""
    return files.slake_folder(new(), files.slake_row(), detections=[{"Liver": box}])


def yolo(line: str) -> Path:
    """A folder in YOLO's layout."""
    return files.yolo_folder(new(), line)


def unnamed() -> Path:
    """A folder in YOLO's layout without names of classes."""
    folder = yolo("0 0.5 0.5 0.5 0.5")
    (folder / "data.yaml").unlink()
    return folder


def hub_data() -> Any:
    """A data set of one row."""
    import datasets

    kinds = datasets.Features({"image": datasets.Image(), "question": datasets.Value("string")})
    return datasets.Dataset.from_dict({"image": [Image.new("L", (9, 8))], "question": ["?"]}, features=kinds)


def two_parts() -> Any:
    """A data set of two splits."""
    import datasets

    return datasets.DatasetDict({"train": hub_data(), "test": hub_data()})


def volumes() -> tuple[Path, Path]:
    """A NIfTI volume and its label map."""
    from tests.data.volume_files import saved

    values, folder = np.zeros((8, 8, 3), np.int16), new()
    values[2:6, 2:6, 1] = 1
    return saved(folder / "a.nii", np.eye(4), None, values), saved(folder / "l.nii", np.eye(4), None, values)


def names() -> dict[str, Any]:
    """What the calls use, beside the names of `tests/test_advice.py`."""
    helpers = (
        new,
        table,
        file_of,
        voc,
        other_xml,
        refs,
        sa_med2d,
        slake,
        yolo,
        unnamed,
        hub_data,
        two_parts,
        untabled,
        volumes,
    )
    far = {"Bbox coordinates normalized (X, Y, W, H)": json.dumps([[0.5, 0.5, 0.9, 0.9]])}
    return {
        **{helper.__name__: helper for helper in helpers},
        "read": read, "guess": guess, "pd": pd, "str": str,
        "SCAN": {"image": np.zeros((8, 9), np.uint8), "question": "?"},
        "CHAIN": files.s_chain_row(), "FAR": files.s_chain_row(**far),
    }  # fmt: skip
