from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from interp.data import named
from interp.data.open import READERS, guess, read
from interp.errors import DataError
from tests.data import source_files as files
from tests.data.benchmarks import layouts


def _jsonl(folder: Path) -> Path:
    files.image(folder / "a.png")
    (folder / "rows.jsonl").write_text(json.dumps({"image": "a.png", "question": "?"}))
    return folder / "rows.jsonl"


def _csv(folder: Path) -> Path:
    files.image(folder / "a.png")
    (folder / "rows.csv").write_text("image,question\na.png,?\n")
    return folder / "rows.csv"


def _vgmed(folder: Path) -> Path:
    files.image(folder / "a.png")
    row = json.dumps({"image": "a.png", "question": "?", "bbox": [[1, 1, 9, 9]]})
    for kind in ("localization", "attribute"):
        (folder / f"VGMED_{kind}.jsonl").write_text(row)
    return folder


LAYOUTS: dict[str, tuple[int, Callable[[Path], Path]]] = {
    "jsonl": (1, _jsonl),
    "csv": (1, _csv),
    "vgmed": (2, _vgmed),
    "coco_instances": (1, lambda folder: files.coco_file(folder, [files.thing(1, [1, 1, 9, 9])])),
    "voc": (1, lambda folder: files.voc_folder(folder, files.voc_object("cat", 1, 1, 9, 9))),
    "yolo": (1, lambda folder: files.yolo_folder(folder, "0 0.5 0.5 0.5 0.5\n")),
    "slake": (1, lambda folder: files.slake_folder(folder, files.slake_row())),
    "sa_med2d": (2, files.sa_med2d_folder),
    "medsam": (2, lambda folder: files.medsam_file(folder / "CT_1.npz")),
    "medsg": (1, lambda folder: files.medsg_folder(folder, files.medsg_row())),
    "vqa_rad": (1, lambda folder: layouts.vqa_rad_folder(folder, layouts.vqa_rad_row(1, "?", "yes", "para"))),
    "pmc_vqa": (1, lambda folder: layouts.pmc_vqa_folder(folder, layouts.pmc_vqa_row_2(), file="test_2.csv")),
    "omnimedvqa": (1, lambda folder: layouts.omnimedvqa_folder(folder, layouts.omnimedvqa_row())),
    "huatuo": (1, lambda folder: layouts.huatuo_folder(folder, layouts.huatuo_row())),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_tells_its_reader(tmp_path: Path, name: str) -> None:
    n, make = LAYOUTS[name]
    path = make(tmp_path)
    assert guess(path) == name
    assert len(read(path)) == n


def test_data_sets_of_the_library_and_refcoco(tmp_path: Path) -> None:
    import datasets

    files.image(tmp_path / "a.png")
    rows = datasets.Dataset.from_dict({"image": ["a.png"], "question": ["?"]})
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "two")
    assert (guess(tmp_path / "one"), guess(tmp_path / "two")) == ("hub", "hub")
    assert [sample.meta["split"] for sample in read(tmp_path / "two", images=tmp_path)] == ["train", "test"]
    refs, _, images = files.refcoco_files(tmp_path / "refs")
    assert guess(refs) == "refcoco"
    assert len(read(refs, images=images)) == 4


def test_what_no_reader_knows(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("")
    for path in (tmp_path, tmp_path / "a.xyz", files.as_json(tmp_path / "a.json", {"x": 1})):
        with pytest.raises(DataError, match="no reader knows the layout of"):
            guess(path)
    with pytest.raises(DataError, match="there is no reader 'excel'; there are coco, coco_instances, csv"):
        read(tmp_path, "excel")
    with pytest.raises(DataError, match=r"is a volume; its boxes come from a label map. Name it: --labels"):
        read(tmp_path / "scan.nii.gz")
    with pytest.raises(DataError, match="holds no part that its reader knows"):
        read(tmp_path, "slake")
    assert set(LAYOUTS) | {"coco", "dicom", "hub", "mmmu", "nifti", "path_vqa", "refcoco"} == set(READERS)


def test_studies_open_any_layout_by_its_path(tmp_path: Path) -> None:
    path = _csv(tmp_path)
    assert len(named(str(path), split="test")) + len(named(str(path), split="validation")) == 1
