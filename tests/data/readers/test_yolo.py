from __future__ import annotations

from pathlib import Path

import pytest

from interp.data import yolo
from interp.errors import BoxError, DataError
from tests.data.source_files import image, yolo_folder


def test_boxes_and_polygons_in_fractions(tmp_path: Path) -> None:
    lines = "1 0.5 0.5 0.5 0.4\n\n0 0.1 0.2 0.5 0.2 0.3 0.6\n1 0.2 0.2 0 0.1\n"
    samples = yolo(yolo_folder(tmp_path, lines))
    cat, dog = samples
    assert cat.boxes[0].as_tuple() == pytest.approx((4, 4, 20, 12))
    assert [box.as_tuple() for box in dog.boxes] == [pytest.approx((10, 6, 30, 14))]
    assert (dog.question, dog.meta["split"], dog.group) == (
        "Is there a dog in the image?",
        "validation",
        "validation/a",
    )
    assert samples.skipped == {"boxes without an area": 1}


def test_a_box_a_rounding_error_outside_is_cut_to_the_image(tmp_path: Path) -> None:
    (sample,) = yolo(yolo_folder(tmp_path, "0 0.7502 0.5 0.5 1\n"))
    assert sample.boxes[0].as_tuple() == pytest.approx((20.008, 0, 40, 20))


def test_a_folder_with_classes_txt_and_pixels(tmp_path: Path) -> None:
    folder = yolo_folder(tmp_path, "1 12 6 16 8\n")
    (folder / "data.yaml").unlink()
    (folder / "classes.txt").write_text("cat\ndog\n")
    (sample,) = yolo(folder, box_format="cxcywh")
    assert (sample.boxes[0].as_tuple(), sample.meta["label"]) == ((4, 2, 20, 10), "dog")
    assert "split" not in sample.meta
    assert yolo(folder, classes=["a", "b"], box_format="cxcywh")[0].meta["label"] == "b"


def test_labels_stand_in_place_of_the_last_folder_named_images(tmp_path: Path) -> None:
    (sample,) = yolo(yolo_folder(tmp_path / "images" / "mine", "1 0.5 0.5 0.5 0.4\n"))
    assert sample.boxes[0].as_tuple() == pytest.approx((10, 6, 30, 14))


def test_the_folder_one_stands_in_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = yolo_folder(tmp_path, "1 0.5 0.5 0.5 0.4\n")
    monkeypatch.chdir(folder)
    assert yolo(".").name == folder.name


def test_names_as_a_mapping_and_images_in_a_list(tmp_path: Path) -> None:
    folder = yolo_folder(tmp_path, "3 0.5 0.5 0.5 0.4\n", "names: {3: cow}\n")
    (folder / "val.txt").write_text("images/val/a.jpg\n")
    (folder / "data.yaml").write_text("val: val.txt\nnames: {3: cow}\n")
    assert [sample.meta["label"] for sample in yolo(folder / "data.yaml", split="val")] == ["cow"]


@pytest.mark.parametrize("place", ["classes.txt", "labels/classes.txt", "obj.names"])
def test_names_of_classes_without_a_yaml(tmp_path: Path, place: str) -> None:
    folder = yolo_folder(tmp_path, "1 0.5 0.5 0.5 0.4\n")
    (folder / "data.yaml").unlink()
    (folder / place).write_text(" cat \n\n dog\n")
    (folder / "images/val/notes.txt").write_text("no image")
    assert [one.meta["label"] for one in yolo(folder)] == ["dog"]


def test_the_folder_of_the_yaml_and_its_splits(tmp_path: Path) -> None:
    inner = yolo_folder(tmp_path / "set", "1 0.5 0.5 0.5 0.4\n")
    (inner / "data.yaml").rename(tmp_path / "all.yml")
    (tmp_path / "all.yml").write_text("path: set\ntest: images/val\nval: [images/val]\nnames: [cat, dog]\n")
    (inner / "list.txt").write_text("\n images/val/a.jpg \n")
    found = yolo(tmp_path / "all.yml", name="mine")
    assert [one.meta["split"] for one in found] == ["validation", "test"]
    assert found.name == "mine"
    (tmp_path / "all.yml").write_text("path: set\ntest: list.txt\nnames: [cat, dog]\n")
    assert len(yolo(tmp_path / "all.yml")) == 1
    with pytest.raises(BoxError, match="box_format is one of"):
        yolo(tmp_path / "all.yml", box_format="yolo")


@pytest.mark.parametrize(
    "content", ["[]", "3", "names: [cat]", "val: images/val\nnames: {a: cat}", "val: images/val\nnames: [cat, ' ']",
                "val: images/val\nnames: {0: cat, 1: 2}", "val: images/val\nnames: cat"],
)  # fmt: skip
def test_a_yaml_without_splits_or_names(tmp_path: Path, content: str) -> None:
    folder = yolo_folder(tmp_path, "0 0.5 0.5 0.5 0.4\n")
    (folder / "data.yaml").write_text(content)
    with pytest.raises(DataError, match=r"expected train, val or test and names|gives no names of classes"):
        yolo(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.5", "line 2, field 'line': expected 'class x y width height'"),
        ("0 0.5 0.5 0.5 x", "line 2, field 'line': expected 'class"),
        ("0 0.5 0.5 0.5 0.5 0.9", "line 2, field 'line': expected 'class"),
        ("0 0.1 0.2 0.5 0.2 0.3 0.6 0.1", "line 2, field 'line': expected 'class"),
        ("7 0.5 0.5 0.5 0.5", "line 2, field 'class': no class 7"),
        ("0 0.9 0.5 0.5 0.5", "line 2, field 'box': .* reach outside the image"),
        ("0 12 6 16 8", "line 2, field 'box': .* box_format='cxcywh'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"labels/val/a\.txt, {message}"):
        yolo(yolo_folder(tmp_path, f"0 0.5 0.5 0.5 0.4\n{line}\n"))


def test_a_bad_layout_is_told(tmp_path: Path) -> None:
    folder = yolo_folder(tmp_path, "")
    with pytest.raises(DataError, match="gives no names of classes"):
        yolo(yolo_folder(tmp_path, "", ""))
    (folder / "data.yaml").write_text("val: images/none\nnames: [a]\n")
    with pytest.raises(DataError, match=r"no images in .*images/none"):
        yolo(folder)
    with pytest.raises(DataError, match=r"data\.yaml, train: expected a folder"):
        yolo(folder, split="train")
    (folder / "data.yaml").write_text("[")
    with pytest.raises(DataError, match="not YAML"):
        yolo(folder)
    with pytest.raises(DataError, match=r"has no data.yaml, so no split 'val'"):
        yolo(image(tmp_path / "plain/a.png").parent, split="val")
    with pytest.raises(DataError, match=r"no folder and no data.yaml"):
        yolo(tmp_path / "none")


def test_a_box_over_the_whole_image_is_within_the_slack(tmp_path: Path) -> None:
    (sample,) = yolo(yolo_folder(tmp_path, "0 0.5 0.5 1.001 1.0005\n"))
    assert sample.boxes[0].as_tuple() == pytest.approx((0, 0, 40, 20))
    for line in ("0 0.5 0.5 1.01 1", "0 0.5 0.5 1 1.01", "0 0.1 0.5 0.5 0.1", "0 0.5 0.5 -0.1 0.1"):
        with pytest.raises(DataError, match="reach outside the image"):
            yolo(yolo_folder(tmp_path, f"{line}\n"))


@pytest.mark.parametrize(
    ("box_format", "line"),
    [("xywh", "4 2 16 8"), ("xyxy", "4 2 20 10"), ("cxcywh", "12 6 16 8"), ("fraction", "0.1 0.1 0.5 0.5")],
)
def test_other_formats_of_boxes(tmp_path: Path, box_format: str, line: str) -> None:
    flat = (
        "4 2 4 10" if box_format == "xyxy" else "0.1 0.1 0.1 0.5" if box_format == "fraction" else "4 2 0 8"
    )
    found = yolo(yolo_folder(tmp_path, f"0 {line}\n0 {flat}\n"), box_format=box_format)
    assert [box.as_tuple() for box in found[0].boxes] == [pytest.approx((4, 2, 20, 10))]
    assert found.skipped == {"boxes without an area": 1}


def test_every_image_of_every_split_is_read_in_order(tmp_path: Path) -> None:
    folder = yolo_folder(tmp_path, "1 0.5 0.5 0.5 0.4\n0 0.5 0.5 0.5 0.4\n")
    for place in ("train/b", "train/a", "val/c/deep"):
        image(folder / f"images/{place}.PNG")
        (folder / f"labels/{place}.txt").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"labels/{place}.txt").write_text("0 0.5 0.5 0.5 0.4\n")
    (folder / "data.yaml").write_text("val: images/val\ntrain: images/train\nnames: [cat, dog]\n")
    found = yolo(folder)
    assert [(one.group, one.meta["label"]) for one in found] == [
        ("train/a", "cat"), ("train/b", "cat"), ("validation/a", "cat"), ("validation/a", "dog"),
        ("validation/deep", "cat"),
    ]  # fmt: skip
    assert [one.meta["split"] for one in found] == ["train"] * 2 + ["validation"] * 3
    assert {one.group for one in yolo(folder, split="train")} == {"train/a", "train/b"}
    (folder / "data.yaml").unlink()
    assert [one.group for one in yolo(folder, classes=["cat", "dog"])] == ["a", "b", "a", "a", "deep"]
