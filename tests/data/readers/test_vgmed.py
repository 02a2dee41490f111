from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import interp.data
from interp.data import vgmed
from interp.errors import BoxError, DataError

CT = "ct_00--AbdomenCT1K--Case_00011--x_0040.png"
SLAKE = "Slake_xmlab102.jpg"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Pictures of 100 × 80 pixels."""
    (tmp_path / "images").mkdir()
    (tmp_path / "Slake").mkdir()
    for name in (CT, SLAKE, "plain.png", f"images/{SLAKE}", f"images/{CT}", "Slake/source.jpg"):
        Image.new("L", (100, 80)).save(tmp_path / name)
    return tmp_path


def row(image: str = CT, **changes: Any) -> dict[str, Any]:
    return {"image": image, "question": "Is there a cyst?", "bbox": [[10, 20, 30, 50]], **changes}


def write(root: Path, *rows: Any, kind: str = "localization") -> Path:
    lines = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in rows]
    (root / f"VGMED_{kind}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return root


def edges(samples: interp.data.Samples) -> list[list[tuple[float, ...]]]:
    return [[box.as_tuple() for box in sample.boxes] for sample in samples]


def test_a_row_becomes_a_sample(root: Path) -> None:
    samples = vgmed(write(root, row(), row(question="Which organ?", answer="liver", label="cyst")))
    first, second = samples
    assert samples.name == "VGMED localization"
    assert Path(str(first.image)) == root / CT
    assert first.question == "Is there a cyst?"
    assert edges(samples) == [[(10, 20, 30, 50)]] * 2
    assert dict(first.meta) == {"modality": "CT", "source": "AbdomenCT1K", "kind": "localization"}
    assert (first.answer, second.answer, second.meta["label"]) == (None, "liver", "cyst")
    assert samples.sample_ids == ("VGMED_localization:1", "VGMED_localization:2")
    first.check()


def test_each_kind_has_its_own_file(root: Path) -> None:
    write(root, row())
    write(root, row(question="What size is the cyst?"), kind="attribute")
    (found,) = vgmed(root, kind="attribute")
    assert (found.question, found.meta["kind"]) == ("What size is the cyst?", "attribute")
    with pytest.raises(DataError, match=r"'localization' or 'attribute'; got 'presence'"):
        vgmed(root, kind="presence")
    with pytest.raises(DataError, match=r"VGMED_localization\.jsonl cannot be read: it does not exist"):
        vgmed(root / "images")


def test_slake_boxes_are_x_y_width_height_and_no_others(root: Path) -> None:
    names = (SLAKE, f"images/{SLAKE}", "Slake/source.jpg", CT, "plain.png")
    samples = vgmed(write(root, *(row(name) for name in names)))
    assert edges(samples) == [[(10, 20, 40, 70)]] * 3 + [[(10, 20, 30, 50)]] * 2
    assert [sample.meta["source"] for sample in samples] == ["SLAKE"] * 3 + ["AbdomenCT1K", None]


def test_a_slake_box_that_leaves_the_image_as_xywh_is_an_error(root: Path) -> None:
    write(root, row(SLAKE, bbox=[[10, 20, 95, 50]]))
    with pytest.raises(DataError, match=r"line 1, field 'bbox': .*read as \(x, y, width, height\).*outside"):
        vgmed(root)


def test_boxes_may_be_nested_flat_several_floats_or_text(root: Path) -> None:
    forms = ([10, 20, 30, 50], [[10, 20, 30, 50]], ["10", "20", "30", "50"], [["10.0", 20, 30.0, "50"]])
    samples = vgmed(write(root, *(row(bbox=form) for form in forms)))
    assert edges(samples) == [[(10, 20, 30, 50)]] * 4
    (two,) = vgmed(write(root, row(bbox=[[10, 20, 30, 50], [0, 0, 5, 5.5]])))
    assert [box.as_tuple() for box in two.boxes] == [(10, 20, 30, 50), (0, 0, 5, 5.5)]


@pytest.mark.parametrize(
    "boxes",
    [
        *(
            [],
            None,
            7,
            "10 20 30 50",
            [1, 2, 3],
            [1, 2, 3, 4, 5, 6, 7, 8],
            [[10, 20, 30]],
            [[[10, 20, 30, 50]]],
        ),
        *(
            [10, 20, 30, True],
            [10, 20, 30, None],
            [10, 20, "wide", 50],
            [10, 20, "nan", 50],
            [10, 20, 10**400, 50],
        ),
        *([[10, 20, 30, 50], []], [[10, 20, 30, 50], 4]),
    ],
)
def test_what_is_no_box_is_an_error(root: Path, boxes: Any) -> None:
    with pytest.raises(DataError, match=r"VGMED_localization\.jsonl, line 2, field 'bbox': expected .*boxes"):
        vgmed(write(root, row(), row(bbox=boxes)))


def test_empty_inverted_and_outside_boxes_are_errors(root: Path) -> None:
    for box, problem in (
        ([30, 20, 30, 50], "x1 > x0"),
        ([30, 20, 10, 50], "x1 > x0"),
        ([60, 20, 101, 50], "outside"),
        ([-1, 20, 30, 50], "outside"),
    ):
        with pytest.raises(DataError, match=rf"line 1, field 'bbox': .*\(x0, y0, x1, y1\).*{problem}"):
            vgmed(write(root, row(bbox=[box])))
    assert edges(vgmed(write(root, row(bbox=[[0, 0, 100, 80]])))) == [[(0, 0, 100, 80)]]


def test_original_bboxes_are_read_and_a_conflict_is_refused(root: Path) -> None:
    alone = {"image": CT, "question": "?", "original_bboxes": [[1, 2, 3, 4]]}
    same = row(original_bboxes=[["10", 20, 30, 50]])
    assert edges(vgmed(write(root, alone, same))) == [[(1, 2, 3, 4)], [(10, 20, 30, 50)]]
    write(root, row(original_bboxes=[[20, 40, 60, 80]]))
    with pytest.raises(DataError, match=r"'bbox' and 'original_bboxes' and they differ.*box_field="):
        vgmed(root)
    assert edges(vgmed(root, box_field="bbox")) == [[(10, 20, 30, 50)]]
    assert edges(vgmed(root, box_field="original_bboxes")) == [[(20, 40, 60, 80)]]
    with pytest.raises(DataError, match="box_field is None, 'bbox' or 'original_bboxes'; got 'box'"):
        vgmed(root, box_field="box")
    with pytest.raises(
        DataError, match=r"expected boxes in 'bbox' or 'original_bboxes'; the row has \['image"
    ):
        vgmed(write(root, {"image": CT, "question": "?"}))


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"question": "?"}, "field 'image': expected a text"),
        (row("absent.png"), "field 'image': no file 'absent.png' in .*another folder"),
        (row(question="  "), "field 'question': expected a text"),
        (row(question=None), "field 'question': expected a text"),
        (row(answer=1), "field 'answer': expected a text or null, got 1"),
        ([1], "expected a JSON object, got list"),
        ("{broken", "not JSON"),
    ],
)
def test_bad_rows_name_file_and_line(root: Path, bad: Any, problem: str) -> None:
    with pytest.raises(DataError, match=rf"VGMED_localization\.jsonl, line 3(, |: ){problem}"):
        vgmed(write(root, row(), "", bad))


def test_an_image_that_is_none_names_its_row(root: Path) -> None:
    (root / "text.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"line 1, field 'image': image .*text\.png"):
        vgmed(write(root, row("text.png")))


def test_a_file_without_rows_is_an_error(root: Path) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        vgmed(write(root, "", " "))


def test_odd_line_ends_inside_a_text_do_not_cut_the_row(root: Path) -> None:
    (found,) = vgmed(write(root, row(question="Is there\u2028a cyst?")))
    assert found.question == "Is there\u2028a cyst?"


def test_slices_of_one_volume_form_one_group(root: Path) -> None:
    names = {
        "ct_00--AbdomenCT1K--Case_00011--x_0041.png": ("AbdomenCT1K--Case_00011", "CT", "AbdomenCT1K"),
        "images/" + CT: ("AbdomenCT1K--Case_00011", "CT", "AbdomenCT1K"),
        "mr_t1--BraTS2020--BraTS20_007--y_0100.png": ("BraTS2020--BraTS20_007", "MR", "BraTS2020"),
        "x_ray--covid--12.png": ("covid--12", "x ray", "covid"),
        "fundus_photography_00--gamma--0001--0000.png": ("gamma--0001", "fundus photography", "gamma"),
        "plain.png": ("plain.png", None, None),
        SLAKE: (SLAKE, None, "SLAKE"),
    }
    for name in names:
        Image.new("L", (100, 80)).save(root / name)
    samples = vgmed(write(root, *(row(name) for name in names)))
    assert [(s.group, s.meta["modality"], s.meta["source"]) for s in samples] == list(names.values())
    (own,) = vgmed(write(root, row(modality="angiography")))
    assert own.meta["modality"] == "angiography"


def test_one_format_for_all_boxes(root: Path) -> None:
    write(root, row(bbox=[10, 20, 30, 40]), row(SLAKE, bbox=[10, 20, 30, 40]))
    assert edges(vgmed(root, box_format="xywh")) == [[(10, 20, 40, 60)]] * 2
    assert edges(vgmed(root, box_format="xyxy")) == [[(10, 20, 30, 40)]] * 2
    assert edges(vgmed(write(root, row(bbox=["0.1", 0, 0.5, 1])), box_format="fraction")) == [
        [(10, 0, 50, 80)]
    ]
    with pytest.raises(BoxError, match="box_format is one of"):
        vgmed(root, box_format="yxyx")


def test_fractions_are_refused_with_file_and_line(root: Path) -> None:
    for image in (CT, SLAKE):
        with pytest.raises(DataError, match=r"line 1, field 'bbox': .*at most 1, but its image is 100×80"):
            vgmed(write(root, row(image, bbox=[0.1, 0.2, 0.5, 0.6])))


def test_bad_text_and_special_files_name_file_and_line(root: Path) -> None:
    with pytest.raises(DataError, match=r"line 1: meta\['note'\] holds the control character"):
        vgmed(write(root, row(note="\0")))
    with pytest.raises(DataError, match=r"line 1, field 'image': .*It is a device"):
        vgmed(write(root, row("/dev/zero")))
    good, bad = vgmed(write(root, row(), row(question="\x1b")), bad_rows="record")
    assert (good.is_usable, bad.id) == (True, "VGMED_localization:2")


def test_a_path_spelled_in_two_ways_is_one_group(root: Path) -> None:
    samples = vgmed(write(root, row("plain.png"), row("./plain.png")))
    assert {sample.group for sample in samples} == {"plain.png"}
