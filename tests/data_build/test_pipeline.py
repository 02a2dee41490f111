"""From folders of scans and other sources to pictures, questions and a record."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from interp.data import Samples, coco_instances, jsonl
from interp.data_build import Settings, build, scans
from interp.errors import DataError
from interp.inputs.sample import Sample
from tests.data import source_files as files
from tests.data_build.build_files import picture_folder, volume_folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def test_volumes_become_pairs_of_questions(tmp_path: Path) -> None:
    built = build(scans(volume_folder(tmp_path / "in")), tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out/samples.jsonl").read_text().splitlines()]
    assert len(rows) == built.record["samples"] == len(built.samples) == 16
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert (first["kind"], second["kind"]) == ("localization", "attribute")
        assert (first["image"], first["bbox"], first["label"]) == (
            second["image"],
            second["bbox"],
            second["label"],
        )
    tumor = next(row for row in rows if row["label"] == "kidney tumor" and row["group"] == "case_1")
    grey = np.asarray(Image.open(tmp_path / "out" / tumor["image"]))
    assert grey.shape == (50, 60)
    assert tumor["bbox"] == [[41.0, 9.0, 50.0, 18.0]]  # stored as LPS: in a radiologist's order already
    assert grey[13, 45] > grey[13, 38]
    assert (tumor["slice"], tumor["plane"]) == (2, "axial")
    assert {row["answer"] for row in rows if row["about"] == "size" and row["label"] == "liver"} == {"large"}
    assert {row["region"] for row in rows} == {"Abdomen"}
    assert built.record["dropped"] == {"in several pieces": 2}
    assert built.record["counts"]["modality"] == {"CT": 16}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    build(scans(volume_folder(tmp_path / "in")), tmp_path / "out")
    read = jsonl(tmp_path / "out/samples.jsonl")
    assert all(len(sample.boxes) == 1 for sample in read)
    for sample in read:
        sample.check()
    assert len(set(read.sample_ids)) == len(read)
    assert {sample.group for sample in read} == {"case_0", "case_1"}
    assert {sample.meta["pixel_mm"] for sample in read} == {1.0}


def test_the_same_build_has_the_same_bytes(tmp_path: Path) -> None:
    source = volume_folder(tmp_path / "in")
    rules = Settings(n=3, seed=5)
    build(scans(source), tmp_path / "a", rules)
    build(scans(source), tmp_path / "b")
    assert len(content(tmp_path / "b")) > len(content(tmp_path / "a"))
    build(scans(source), tmp_path / "b", rules)  # pictures of the larger build go
    assert content(tmp_path / "a") == content(tmp_path / "b")
    other = build(scans(source), tmp_path / "c", Settings(n=3, seed=6))
    assert content(tmp_path / "c") != content(tmp_path / "a")
    assert other.record["samples"] == 6
    assert other.record["dropped"]["not drawn"] == 5


def test_pictures_with_masks_are_copied(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "in")
    built = build(scans(source, modality="endoscopy"), tmp_path / "out")
    row = json.loads((tmp_path / "out/samples.jsonl").read_text().splitlines()[0])
    assert (tmp_path / "out" / row["image"]).read_bytes() == (source / "images/a.jpg").read_bytes()
    assert row["bbox"] == [[33.0, 23.0, 48.0, 38.0]]
    assert (row["label"], row["modality"], row["region"]) == ("polyp", "Endoscopy", "Others")
    assert built.record["groups"] == 1


def test_coco_goes_the_same_way(tmp_path: Path) -> None:
    boxes = [
        files.thing(1, [2, 2, 10, 10]),
        files.thing(2, [0, 0, 3, 3], category=22),
        files.thing(3, [20, 0, 3, 3], category=22),
        files.thing(4, [5, 5, 5, 5], image_id=2, category=22),
    ]
    samples = coco_instances(files.coco_file(tmp_path, boxes), tmp_path / "val2017")
    built = build(samples, tmp_path / "out", Settings(complete=True, attribute=("size",)))
    told = [(sample.meta["label"], sample.meta["about"], sample.answer) for sample in built.samples]
    assert [one for one in told if one[1] == "size"] == [
        ("person", "size", "large"),
        ("elephant", "size", "small"),
    ]
    assert built.record["dropped"] == {"in several pieces": 1}


def test_identity_names_what_is_certainly_absent(tmp_path: Path) -> None:
    rules = Settings(localization=("identity",), complete=True)
    built = build(scans(volume_folder(tmp_path / "in")), tmp_path / "out", rules)
    asked = [sample.question for sample in built.samples if sample.meta["about"] == "identity"]
    assert asked
    assert all("liver" in one and ("spleen" in one or "kidney tumor" in one) for one in asked)
    # in slice 2 nothing is absent: no question there
    assert {sample.meta["slice"] for sample in built.samples} == {1, 3}
    largest = scans(volume_folder(tmp_path / "in"), slices="largest")  # slice 2 has no sample of its liver
    found = build(largest, tmp_path / "most", Settings(complete=True)).samples
    first = {(one.meta["slice"], one.meta["about"]) for one in found if one.meta["kind"] == "localization"}
    assert first == {(1, "identity"), (2, "presence")}
    with pytest.raises(DataError, match="Pass complete=True"):
        Settings(localization=("identity",))


def test_structures_are_dropped_for_a_reason(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (100, 100), np.uint8)

    def one(box: Any = (10, 10, 40, 40), image: Any = picture, **meta: Any) -> Sample:
        return Sample(
            images=image if isinstance(image, list) else [image], question="?", boxes=[box], meta=meta
        )

    samples = Samples(
        [
            one(label="good"),
            one((0, 0, 5, 5), label="tiny"),
            one((0, 0, 99, 99), label="huge"),
            one((0, 0, 25, 25), label="medium"),
            one(),
            one(image=[picture, picture], label="two"),
            Sample(picture, "?", meta={"label": "nowhere"}),
            Sample.unusable("broken", id="b"),
        ]
    )  # fmt: skip
    built = build(samples, tmp_path / "out")
    assert built.record["dropped"] == {
        "box too large": 1,
        "box too small": 1,
        "cannot be read": 1,
        "no attribute has a clear answer": 1,
        "with several images": 1,
        "without a box": 1,
        "without a label": 1,
    }
    assert {sample.meta["label"] for sample in built.samples} == {"good"}
    with pytest.raises(DataError, match="can be asked about: 1 box too small"):
        build(Samples([one((0, 0, 5, 5), label="tiny")]), tmp_path / "none")


def test_a_row_keeps_what_its_sample_says(tmp_path: Path) -> None:
    said = {"plane": "axial", "slice": 3, "pixel_mm": 0.5, "lesion": "tumor 1", "source": "S", "licence": "CC0",
            "mask_origin": "expert", "split": "test"}  # fmt: skip
    picture = np.random.default_rng(0).integers(0, 255, (100, 100), np.uint8)
    sample = Sample(
        picture, "?", [(10.123, 10, 40, 40)], group="p 1", meta={**said, "label": "lung_nodule", "age": 7}
    )
    built = build(Samples([sample], "mine"), tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out/samples.jsonl").read_text().splitlines()]
    for row in rows:
        assert said.items() <= row.items()
        assert (row["bbox"], row["size"], row["group"], row["label"]) == (
            [[10.12, 10.0, 40.0, 40.0]], [100, 100], "p 1", "lung nodule",
        )  # fmt: skip
        assert "age" not in row
        assert row["image"] == f"images/p-1-axi-003-{sample.image_fingerprints[0][:8]}.png"
        assert row["id"] == f"{Path(row['image']).stem}:{row['about']}:lung-nodule"
    assert Image.open(tmp_path / "out" / rows[0]["image"]).mode == "L"
    record = built.record
    assert (record["data"], record["samples"], record["pictures"], record["groups"]) == ("mine", 2, 1, 1)
    assert set(record["counts"]) == {"kind", "about", "answer", "modality", "region", "label"}
    assert (record["counts"]["kind"], record["failures"]) == ({"attribute": 1, "localization": 1}, [])
    assert set(record["versions"]) == {"interp", "numpy", "pillow"}
    assert record["settings"] == {
        "n": None, "seed": 0, "share": 0.8, "area": [0.005, 0.6], "localization": ["presence", "identity"],
        "attribute": ["size", "shape", "abnormality"], "complete": False,
    }  # fmt: skip


def test_names_and_modality_come_from_the_folder_or_the_caller(tmp_path: Path) -> None:
    source = volume_folder(tmp_path / "in", cases=1)
    labels = lambda found: {one.meta["label"] for one in found}  # noqa: E731
    assert labels(scans(source)) == {"liver", "kidney tumor", "spleen"}
    assert {one.meta["modality"] for one in scans(source)} == {"CT"}
    mr = scans(source, {1: "organ"}, modality="MR", region="Abdomen", name="mine")
    assert (labels(mr), mr.name, mr.skipped["labels without a name"]) == ({"organ"}, "mine", 2)
    assert {(one.meta["modality"], one.meta["region"]) for one in mr} == {("MR", "Abdomen")}
    assert not np.array_equal(np.asarray(mr[0].load()), np.asarray(scans(source)[0].load()))  # by percentiles
    (source / "labels.json").write_text(json.dumps({"background": 0, "hepar": 1}))
    assert (labels(scans(source)), {one.meta.get("modality") for one in scans(source)}) == ({"hepar"}, {None})
    (source / "labels.json").write_text(json.dumps({"liver": [1, 2]}))
    with pytest.raises(
        DataError, match=r"labels\.json: a label is one value and its name.*Name the labels with names="
    ):
        scans(source)
    (source / "labelsTr/.hidden.nii.gz").write_bytes(b"")
    assert labels(scans(source, {3: "spleen"})) == {"spleen"}


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_slices_are_cut_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    source = volume_folder(tmp_path / "in")
    if kind == "dicom":
        for image in list((source / "imagesTr").iterdir()):
            image.unlink()
            (source / "imagesTr" / image.name.replace("_0000.nii.gz", "")).mkdir()
    asked: list[Any] = []

    def read(image: Path, labels: Path, *given: Any, **options: Any) -> Samples:
        asked.append((image.name, labels.name, options))
        return Samples([], "one")

    monkeypatch.setattr(importlib.import_module("interp.data_build.scans"), kind, read)
    cut = {"plane": "coronal", "slices": [3, 4], "longest": 99, "grey": "bone"}
    scans(source, orientation="LPS", **cut)  # type: ignore[arg-type]
    more = {**cut, "masks": True, "least": 1} | ({"orientation": "LPS"} if kind == "nifti" else {})
    ending = "_0000.nii.gz" if kind == "nifti" else ""
    assert asked == [
        (f"case_{k}{ending}", f"case_{k}.nii.gz", {**more, "name": f"case_{k}"}) for k in range(2)
    ]


def test_what_is_built_has_its_type(tmp_path: Path, unchecked: None) -> None:
    good = Samples([Sample(np.zeros((9, 9), np.uint8), "?")])
    for given, name in (
        (([],), "samples is of the type Samples"),
        ((good, tmp_path / "out", 3), "settings is of the type Settings"),
    ):
        with pytest.raises(DataError, match=name):
            build(*(given if len(given) > 1 else (given[0], tmp_path / "out")))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="endpoint is of the type Endpoint"):
        build(good, tmp_path / "out", endpoint=3)  # type: ignore[arg-type]
    for options in ({"modality": 3}, {"region": 3}):
        with pytest.raises(DataError, match="is a text or None; got 3"):
            scans(tmp_path, **options)  # type: ignore[arg-type]
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is no folder; a build writes into one"):
        build(good, tmp_path / "file")


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("x")
    with pytest.raises(DataError, match=r"holds 'thesis\.tex', which no build wrote"):
        build(scans(picture_folder(tmp_path / "in")), tmp_path / "out")


def test_a_label_map_without_its_image_is_named(tmp_path: Path) -> None:
    source = volume_folder(tmp_path / "in", cases=1)
    (source / "imagesTr/case_0_0000.nii.gz").unlink()
    with pytest.raises(DataError, match=r"case_0\.nii\.gz has no image: expected .*case_0\.nii"):
        scans(source)
    with pytest.raises(DataError, match="has no folders images and labels"):
        scans(tmp_path)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n is a whole number of at least 1"),
        ({"share": 0.0}, "share is a finite number above 0"),
        ({"area": (0.5, 0.1)}, "the largest area is a finite number of at least 0.5"),
        ({"area": 3}, "area is .least, largest."),
        ({"attribute": ()}, "attribute is a list of size, shape, abnormality"),
        ({"attribute": ("colour",)}, "a kind of attribute is 'size' or 'shape' or 'abnormality'"),
        ({"complete": 1}, "complete is True or False"),
    ],
)
def test_settings_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Settings(**options)
