from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from interp.data import Samples, bundled, named
from interp.data import open as open_room
from interp.data.benchmarks.mmmu import HEALTH_AND_MEDICINE
from interp.data.open import READERS, guess, label, read, sets
from interp.errors import DataError
from tests.data import source_files as files
from tests.data.benchmarks import layouts
from tests.data.volume_files import marked_pair


def line(image: str, **changes: object) -> str:
    return json.dumps({"image": image, "question": "?", "bbox": [[1, 2, 3, 4]], **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """VGMED's two files over 30 volumes of two slices; COCO's over one photograph."""
    names = [f"ct_00--Set--Case_{case}--x_{slice_}.png" for case in range(30) for slice_ in range(2)]
    (tmp_path / "vgmed").mkdir()
    (tmp_path / "coco" / "val2014").mkdir(parents=True)
    for name in names:
        Image.new("L", (8, 8)).save(tmp_path / "vgmed" / name)
    Image.new("L", (8, 8)).save(tmp_path / "coco" / "val2014" / "a.jpg")
    for kind in ("localization", "attribute"):
        (tmp_path / "vgmed" / f"VGMED_{kind}.jsonl").write_text("\n".join(map(line, names)))
    (tmp_path / "coco" / "COCO_attribute.jsonl").write_text(line("a.jpg"))
    return tmp_path


def test_bundled_names_keep_their_splits() -> None:
    assert named("natural", split="validation", n=5, seed=3) == bundled(
        "natural", split="validation", n=5, seed=3
    )
    assert named("medical") == bundled("medical")
    drawn = named("medical", n=9, seed=1)
    assert len(drawn) == 9
    assert drawn == bundled("medical", n=9, seed=1)
    assert len(named("medical", n=10_000)) == 718


def test_a_folder_of_vgmed_is_read_whole_and_split_by_volume(folder: Path) -> None:
    splits = {split: named(str(folder / "vgmed"), split=split) for split in ("validation", "test")}
    groups = {split: {sample.group for sample in rows} for split, rows in splits.items()}
    assert sum(map(len, splits.values())) == 120
    assert not groups["validation"] & groups["test"]
    assert len(groups["validation"] | groups["test"]) == 30
    assert 3 <= len(groups["validation"]) <= 17
    assert {sample.meta["kind"] for sample in splits["test"]} == {"localization", "attribute"}
    assert splits["validation"].split == "validation"
    assert splits["test"].name == "VGMED"


def test_the_split_ignores_the_folder_and_the_other_rows(folder: Path) -> None:
    before = {sample.group for sample in named(str(folder / "vgmed"), split="validation")}
    moved = folder.rename(folder.parent / "elsewhere")
    path = moved / "vgmed" / "VGMED_localization.jsonl"
    path.write_text("\n".join(path.read_text().split("\n")[::-1][:-2]))
    assert {sample.group for sample in named(str(moved / "vgmed"), split="validation")} == before


def test_coco_finds_its_images_in_val2014(folder: Path) -> None:
    rows = [*named(str(folder / "coco"), split="validation"), *named(str(folder / "coco"))]
    assert [(sample.group, sample.boxes[0].as_tuple()) for sample in rows] == [("a.jpg", (1, 2, 4, 6))]


def test_coco_finds_its_images_beside_its_file(folder: Path) -> None:
    (folder / "coco" / "val2014" / "a.jpg").rename(folder / "coco" / "a.jpg")
    (folder / "coco" / "val2014").rmdir()
    assert [one.group for one in named(str(folder / "coco"), split="all")] == ["a.jpg"]


def test_a_jsonl_files_own_splits_are_kept(folder: Path) -> None:
    path = folder / "vgmed" / "mine.jsonl"
    name = "ct_00--Set--Case_0--x_0.png"
    splits = ("test", "validation", "validation", "train")
    path.write_text("\n".join(line(name, split=split, id=i) for i, split in enumerate(splits)))
    assert [sample.id for sample in named(str(path), split="validation")] == ["1", "2"]
    assert [sample.id for sample in named(str(path))] == ["0"]
    assert label(str(path)) == "mine"
    assert label("medical") == "medical"


def test_all_splits_are_every_sample_with_its_own(folder: Path) -> None:
    whole = named(str(folder / "vgmed"), split="all")
    parts = [named(str(folder / "vgmed"), split=split) for split in ("validation", "test")]
    assert len(whole) == 120 == sum(map(len, parts))
    for split, part in zip(("validation", "test"), parts, strict=True):
        assert [sample for sample in whole if sample.meta["split"] == split] == list(part)
    assert len(named("medical", split="all", n=5)) == 5


def test_what_is_not_there_is_named(folder: Path, unchecked: None) -> None:
    with pytest.raises(DataError, match="no reader knows the layout of"):
        named(str(folder))
    with pytest.raises(DataError, match="no split 'dev'; choose one of train, validation, test, or 'all'"):
        named("medical", split="dev")
    with pytest.raises(DataError, match=r"no split \['test'\]; choose one of"):
        named("medical", split=["test"])  # type: ignore[arg-type]


def test_sets_go_by_their_labels_and_empty_ones_are_left_out(folder: Path) -> None:
    (folder / "none.jsonl").write_text(
        line("vgmed/ct_00--Set--Case_0--x_0.png", split="train"), encoding="utf-8"
    )
    names = ["medical", str(folder / "vgmed"), str(folder / "none.jsonl")]
    found = sets(names, n=7)
    assert {name: len(samples) for name, samples in found.items()} == {"medical": 7, "vgmed": 7}
    with pytest.raises(DataError, match=r"different labels, got \['vgmed', 'vgmed'\]"):
        sets([names[1], names[1] + "/"])
    with pytest.raises(DataError, match=r"one or more data sets .*got \[\]"):
        sets([])


def test_copies_of_an_image_are_in_one_split(tmp_path: Path) -> None:
    for number in range(12):
        Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
        (tmp_path / f"copy of {number}.png").write_bytes((tmp_path / f"{number}.png").read_bytes())
    names = [f"{of}{number}.png" for number in range(12) for of in ("", "copy of ")]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(line, names)))
    splits = {split: named(str(tmp_path / "mine.jsonl"), split=split) for split in ("validation", "test")}
    shown = {
        split: {Path(str(s.image)).stem.removeprefix("copy of ") for s in rows}
        for split, rows in splits.items()
    }
    assert not shown["validation"] & shown["test"]
    assert len(splits["validation"]) == 2 * len(shown["validation"]) > 0


def test_special_files_and_wrong_types_are_refused(tmp_path: Path, unchecked: None) -> None:
    for name, reason in {
        "/dev/zero": "is a device",
        "x" * 5_000: "too long",
        str(tmp_path / "x"): "does not exist",
    }.items():
        with pytest.raises(DataError, match=f"no data .*{reason}.* Expected 'natural'"):
            named(name)
    with pytest.raises(DataError, match=r"data is a path, such as .*got int 3"):
        named(3)  # type: ignore[arg-type]
    for n in ("5", 0, True, 1.5):
        with pytest.raises(DataError, match="n is a number of samples, at least 1"):
            named("natural", n=n)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="seed is a whole number ≥ 0; got 'x'"):
        named("natural", n=1, seed="x")  # type: ignore[arg-type]


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


def test_a_folder_is_read_with_all_its_splits_and_kinds(tmp_path: Path, folder: Path) -> None:
    for split in ("validation", "test"):
        layouts.mmmu_folder(tmp_path / "mmmu", layouts.mmmu_row(split=split), split=split)
    rows = [layouts.vqa_rad_row(1, "?", "yes", "para"), layouts.vqa_rad_row(2, "?", "liver")]
    found = read(layouts.vqa_rad_folder(tmp_path / "rad", *rows))
    assert [(one.meta["split"], one.meta["kind"]) for one in found] == [("train", "closed"), ("test", "open")]
    (folder / "vgmed" / "VGMED_attribute.jsonl").unlink()
    assert {one.meta["kind"] for one in read(folder / "vgmed")} == {"localization"}
    (folder / "coco" / "val2014").rename(folder / "photographs")
    assert len(read(folder / "coco", images=folder / "photographs")) == 1
    assert {one.meta["split"] for one in named("medical", split="all")} == {"train", "validation", "test"}


def test_sets_are_drawn_as_one_by_one() -> None:
    assert sets(["medical"], split="validation", n=5, seed=2)["medical"] == named(
        "medical", split="validation", n=5, seed=2
    )
    assert sets(["medical"], n=5)["medical"] == named("medical", split="test", n=5, seed=0)
    assert named("natural", n=2) == bundled("natural", split="test", n=2, seed=0)
    assert named("natural", n=2) != named("natural", n=2, seed=1)


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


def test_every_split_of_bundled_data_is_drawn_with_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        open_room, "bundled", lambda name, **given: asked.append((name, given)) or Samples([], name)
    )
    assert named("natural", split="all", seed=3).name == "natural"
    splits = [given.pop("split") for _, given in asked]
    assert (splits, asked) == (["train", "validation", "test"], [("natural", {"seed": 3})] * 3)


def test_empty_sets_are_an_error_only_where_one_is_needed(tmp_path: Path) -> None:
    files.image(tmp_path / "a.png")
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(line("a.png", split=split))
    train, test = str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl")
    assert sets([train]) == {}
    assert list(sets([train, test], needed=True)) == ["test"]
    with pytest.raises(DataError, match=r"none of .*train\.jsonl has test samples"):
        sets([train], needed=True)


def test_rows_of_other_splits_are_counted(tmp_path: Path) -> None:
    files.image(tmp_path / "a.png")
    rows = [line("a.png", split=split) for split in ("test", "train", "train", "validation")]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    path = str(tmp_path / "rows.jsonl")
    assert dict(named(path).skipped) == {"rows of the split train": 2, "rows of the split validation": 1}
    assert dict(named(path, split="all").skipped) == {}
    crowd = {**files.thing(2, [1, 1, 9, 9]), "iscrowd": 1}
    photographs = files.coco_file(tmp_path, [files.thing(1, [1, 1, 9, 9]), crowd])
    counts = [named(str(photographs), split=split).skipped for split in ("validation", "test")]
    assert [one["crowd regions"] for one in counts] == [1, 1]
    assert sum("rows of the split" in why for one in counts for why in one) == 1


def test_a_row_without_a_known_split_is_drawn_by_its_group(tmp_path: Path) -> None:
    files.image(tmp_path / "a.png")
    groups = [f"g{i}" for i in range(12)]
    (tmp_path / "all.jsonl").write_text("\n".join(line("a.png", group=one) for one in groups))
    drawn = {one.group: one.meta["split"] for one in named(str(tmp_path / "all.jsonl"), split="all")}
    share = {one: int(hashlib.sha256(one.encode()).hexdigest()[:16], 16) / 16**16 for one in groups}
    assert drawn == {one: "validation" if share[one] < 1 / 3 else "test" for one in groups}
    assert set(drawn.values()) == {"validation", "test"}
    mixed = [line("a.png", group="first", split="train")]
    mixed += [line("a.png", group=one, split="dev") for one in groups]
    (tmp_path / "mixed.jsonl").write_text("\n".join(mixed))
    found = {one.group: one.meta["split"] for one in named(str(tmp_path / "mixed.jsonl"), split="all")}
    assert found == {"first": "train", **drawn}


@pytest.mark.parametrize(
    ("name", "meant"),
    [("rows.jsnl", "rows.jsonl"), ("medicl", "medical"), ("vqa_rd:there", "vqa_rad:there"),
     ("vqa_rd,questions=open:there", "vqa_rad:there")],
)  # fmt: skip
def test_a_name_like_a_known_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(DataError, match=rf"Did you mean '{meant}'\?$"):
        named(name)


def test_a_folder_is_called_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "link").symlink_to("scans")
    monkeypatch.chdir(tmp_path / "scans")
    assert [label("."), label(str(tmp_path / "link"))] == ["scans", "scans"]
    assert label("vqa_rad,questions=open:there") == "vqa_rad, open questions"


def test_endings_are_read_in_any_case(tmp_path: Path) -> None:
    endings = (".CSV", ".Tsv", ".JSONL", ".NPZ", ".NII", ".nii.GZ", ".Parquet", ".YML", ".p")
    readers = ["csv", "csv", "jsonl", "medsam", "nifti", "nifti", "hub", "yolo", "refcoco"]
    assert [guess(tmp_path / f"a{ending}") for ending in endings] == readers
    assert guess(files.as_json(tmp_path / "A.JSON", [{"question": "?", "image": "a.png"}])) == "hub"


@pytest.mark.parametrize(
    "content", [{"images": []}, [], [3], [{"image": "a.png"}], {"images": [], "annotations": []}]
)
def test_a_json_file_of_other_names_has_no_reader(tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError, match="no reader knows the layout of"):
        guess(files.as_json(tmp_path / "a.json", content))


def test_json_lists_are_told_apart_by_their_names(tmp_path: Path) -> None:
    rows = {
        "hub": {"images": ["a.png"], "question": "?"},
        "medsg": {"images": [], "question": "?", "answer": [1]},
        "refcoco": {"sentences": [], "ann_id": 1, "question": "?"},
    }
    for name, row in rows.items():
        assert guess(files.as_json(tmp_path / f"{name}.json", [row])) == name


@pytest.mark.parametrize("table", ["rows.csv", "ROWS.JSONL"])
def test_a_folder_with_a_table_names_the_table(tmp_path: Path, table: str) -> None:
    files.image(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match="It holds pictures, and data need questions too"):
        guess(tmp_path)
    (tmp_path / table).write_text("")
    with pytest.raises(DataError, match=f"It holds {table}: name that file"):
        guess(tmp_path)


@pytest.mark.parametrize("place", ["", "val2017", "images", "images/val2017"])
@pytest.mark.parametrize("up", ["", "annotations"])
def test_photographs_are_found_near_their_annotations(tmp_path: Path, place: str, up: str) -> None:
    made = files.coco_file(tmp_path / "made", [files.thing(1, [1, 1, 9, 9])])
    path = tmp_path / "set" / up / "instances_val2017.json"
    path.parent.mkdir(parents=True)
    made.rename(path)
    (tmp_path / "set" / place).mkdir(parents=True, exist_ok=True)
    for file in (tmp_path / "made" / "val2017").iterdir():
        file.rename(tmp_path / "set" / place / file.name)
    (sample,) = read(path)
    assert Path(str(sample.image)) == tmp_path / "set" / place / "000000000001.jpg"


def test_either_version_of_pmc_vqa_is_found_by_its_file(tmp_path: Path) -> None:
    one = layouts.pmc_vqa_folder(
        tmp_path / "1", layouts.pmc_vqa_row(), file="test_clean.csv", images="elsewhere"
    )
    two = layouts.pmc_vqa_folder(tmp_path / "2", layouts.pmc_vqa_row_2(), file="test_2.csv")
    found = [read(one, images=one / "elsewhere"), read(two)]
    assert [samples[0].meta["version"] for samples in found] == ["clean", "2"]


def test_slake_is_found_by_any_of_its_splits(tmp_path: Path) -> None:
    folder = files.slake_folder(tmp_path, files.slake_row())
    (folder / "test.json").rename(folder / "train.json")
    found = read(folder)
    assert [(one.meta["split"], found.name) for one in found] == [("train", "SLAKE")]


def mmmu_with(folder: Path, **changes: Any) -> Path:
    """A folder of MMMU with one row of each split and subject."""
    for split in ("validation", "test"):
        for subject in HEALTH_AND_MEDICINE:
            row = layouts.mmmu_row(split=split, **changes)
            layouts.mmmu_folder(folder, row, split=split, subject=subject)
    return folder


def test_both_splits_of_mmmu_are_read_with_open_questions(tmp_path: Path) -> None:
    about = {"question_type": "open", "options": "[]", "question": "Which is <image 1>?"}
    found = read(mmmu_with(tmp_path, **about))
    n = len(HEALTH_AND_MEDICINE)
    assert [one.meta["split"] for one in found] == ["validation"] * n + ["test"] * n
    assert {one.meta["kind"] for one in found} == {"open"}


def test_refcoco_finds_the_boxes_beside_its_expressions(tmp_path: Path) -> None:
    refs, instances, images = files.refcoco_files(tmp_path)
    assert {one.boxes[0].as_tuple() for one in read(refs, images=images)} == {(4, 2, 20, 10)}
    instances.unlink()
    with pytest.raises(DataError, match="instances"):
        read(refs, images=images)


def _broken_vgmed(folder: Path, name: str = "VGMED") -> Path:
    (folder / f"{name}_attribute.jsonl").write_text(line("none.png"))
    return folder


def _broken_dict(folder: Path) -> Path:
    import datasets

    rows = datasets.Dataset.from_dict({"image": ["none.png"], "question": ["?"]})
    datasets.DatasetDict({"train": rows}).save_to_disk(folder / "two")
    return folder / "two"


def _written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def _broken_refs(folder: Path) -> Path:
    refs, _, images = files.refcoco_files(folder)
    for file in images.iterdir():
        file.unlink()
    return refs


BROKEN: dict[str, Callable[[Path], Path]] = {
    "csv": lambda folder: _written(folder, "rows.csv", "image,question\nnone.png,?\n"),
    "jsonl": lambda folder: _written(folder, "rows.jsonl", line("none.png")),
    "vgmed": _broken_vgmed,
    "coco": lambda folder: _broken_vgmed(folder, "COCO"),
    "coco_instances": lambda folder: files.coco_file(folder, [files.thing(1, [1, 1, 99, 99])]),
    "slake": lambda folder: files.slake_folder(folder, files.slake_row(question="")),
    "refcoco": _broken_refs,
    "hub": _broken_dict,
    "voc": lambda folder: files.voc_folder(folder, files.voc_object("cat", 1, 1, 99, 9)),
    "yolo": lambda folder: files.yolo_folder(folder, "7 0.5 0.5 0.5 0.5\n"),
    "medsg": lambda folder: files.medsg_folder(folder, files.medsg_row(answer=[1])),
    "huatuo": lambda folder: layouts.huatuo_folder(folder, layouts.huatuo_row(answer="Maybe")),
    "mmmu": lambda folder: mmmu_with(folder, answer="Z"),
    "omnimedvqa": lambda folder: layouts.omnimedvqa_folder(folder, layouts.omnimedvqa_row(gt_answer="x")),
    "path_vqa": lambda folder: layouts.hub_folder(
        folder, train=[("", "no")], validation=[("?", "no")], test=[("?", "no")]
    ),
    "pmc_vqa": lambda folder: layouts.pmc_vqa_folder(folder, layouts.pmc_vqa_row(label="Z")),
    "vqa_rad": lambda folder: layouts.vqa_rad_folder(folder, layouts.vqa_rad_row(1, "", "yes")),
}


@pytest.mark.parametrize("reader", BROKEN)
def test_bad_rows_are_kept_by_every_reader_that_is_asked(tmp_path: Path, reader: str) -> None:
    path = BROKEN[reader](tmp_path)
    with pytest.raises(DataError):
        read(path, reader, images=tmp_path)
    assert not all(one.is_usable for one in read(path, reader, images=tmp_path, bad_rows="record"))


def _with_image(folder: Path, name: str, text: str) -> Path:
    files.image(folder / "a.png")
    return _written(folder, name, text)


def _boxed_dict(folder: Path) -> Path:
    import datasets

    files.image(folder / "a.png")
    rows = datasets.Dataset.from_dict({"image": ["a.png"], "question": ["?"], "bbox": [[4, 2, 16, 8]]})
    datasets.DatasetDict({"train": rows}).save_to_disk(folder / "two")
    return folder / "two"


def _boxed_vgmed(folder: Path, name: str = "VGMED") -> Path:
    row = line("a.png", bbox=[[4, 2, 16, 8]])
    return _with_image(folder, f"{name}_attribute.jsonl", row).parent


BOXES: dict[str, Callable[[Path], Path]] = {
    "csv": lambda folder: _with_image(folder, "rows.csv", 'image,question,bbox\na.png,?,"[4,2,16,8]"\n'),
    "jsonl": lambda folder: _with_image(folder, "rows.jsonl", line("a.png", bbox=[[4, 2, 16, 8]])),
    "vgmed": _boxed_vgmed,
    "coco": lambda folder: _boxed_vgmed(folder, "COCO"),
    "coco_instances": lambda folder: files.coco_file(folder, [files.thing(1, [4, 2, 16, 8])]),
    "slake": lambda folder: files.slake_folder(
        folder, files.slake_row(), detections=[{"Liver": [4, 2, 16, 8]}]
    ),
    "refcoco": lambda folder: files.refcoco_files(folder)[0],
    "hub": _boxed_dict,
    "yolo": lambda folder: files.yolo_folder(folder, "0 4 2 16 8\n"),
}
"""Files with one box, 4 2 16 8."""


@pytest.mark.parametrize("reader", BOXES)
def test_boxes_are_read_in_the_format_that_is_given(tmp_path: Path, reader: str) -> None:
    path = BOXES[reader](tmp_path)
    folder = next((tmp_path / one for one in ("val2017", "train2014") if (tmp_path / one).is_dir()), tmp_path)
    for box_format, box in (("xyxy", (4, 2, 16, 8)), ("xywh", (4, 2, 20, 10))):
        found = read(path, reader, images=folder, box_format=box_format)
        assert {one.boxes[0].as_tuple() for one in found} == {box}


def test_tables_are_read_by_the_columns_that_are_given(tmp_path: Path) -> None:
    import datasets

    table = _with_image(tmp_path, "rows.csv", "scan,question,other\na.png,?,why\n")
    rows = {"image": ["a.png"], "question": ["?"], "other": ["why"]}
    datasets.DatasetDict({"a": datasets.Dataset.from_dict(rows)}).save_to_disk(tmp_path / "two")
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "one")
    for path, more in ((table, {"image": "scan"}), (tmp_path / "one", {}), (tmp_path / "two", {})):
        (found,) = read(path, images=tmp_path, columns={"question": "other", **more})
        assert found.question == "why"


def test_a_volume_is_read_with_its_label_map(tmp_path: Path) -> None:
    image, labels = marked_pair(tmp_path)
    found = read(image, labels=labels)
    assert {one.meta["label"] for one in found} == {"label 1", "label 2"}
