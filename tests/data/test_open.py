from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from interp.data import bundled, named
from interp.data.open import label, sets
from interp.errors import DataError


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


def test_a_jsonl_files_own_splits_are_kept(folder: Path) -> None:
    path = folder / "vgmed" / "mine.jsonl"
    name = "ct_00--Set--Case_0--x_0.png"
    splits = ("test", "validation", "validation", "train")
    path.write_text("\n".join(line(name, split=split, id=i) for i, split in enumerate(splits)))
    assert [sample.id for sample in named(str(path), split="validation")] == ["1", "2"]
    assert [sample.id for sample in named(str(path))] == ["0"]
    assert label(str(path)) == "mine"
    assert label("medical") == "medical"


def test_what_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"no data .*'natural', 'medical', a \.jsonl file, or a folder"):
        named(str(folder))
    with pytest.raises(DataError, match="no split 'dev'; choose one of train, validation, test"):
        named("medical", split="dev")


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
