from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interp.data import s_chain
from interp.errors import BoxError, DataError
from tests.data.source_files import image, s_chain_row

COLUMN = "Bbox coordinates normalized (X, Y, W, H)"


def test_a_sample_for_each_step_with_the_boxes_of_the_row() -> None:
    samples = s_chain([s_chain_row()])
    assert [(sample.meta["step"], sample.meta["kind"]) for sample in samples] == [
        (1, "localization"), (2, "description"), (3, "grading"), (4, "diagnosis"),
    ]  # fmt: skip
    assert all(sample.boxes[0].as_tuple() == (10, 2, 30, 10) for sample in samples)
    last = samples[3]
    assert (last.question, last.answer, last.group) == (
        "How developed is the illness?",
        "Mild-Dementia",
        "OAS1_0003",
    )
    assert [turn[1] for turn in last.meta["chain"]] == [
        "[[0.25, 0.1, 0.5, 0.4]]",
        "widening of the temporal horn",
        "MTA=2",
    ]
    assert last.meta["Slide"] == "mpr-2_115"


def test_corners_and_rows_without_disease() -> None:
    (sample,) = s_chain([s_chain_row()], steps=[4], box_format="fraction")
    assert sample.boxes[0].as_tuple() == (10, 2, 20, 8)
    (healthy,) = s_chain([s_chain_row(**{COLUMN: None, "A1": None})], steps=[4])
    assert healthy.boxes == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {COLUMN: "[[0.5, 0.5, 0.9, 0.9]]"},
            r"row 1, field 'Bbox.*ends outside the image.*box_format='fraction'",
        ),
        ({COLUMN: "[[0.5, 0.5, 0.9]]"}, "row 1, field 'Bbox.*expected boxes of four fractions"),
        ({COLUMN: "left"}, "row 1, field 'Bbox.*not JSON"),
        ({"Q3": ""}, "row 1, field 'Q3': expected a text"),
        ({"image": "no.png"}, "row 1, field 'image': no file 'no.png'"),
    ],
)
def test_a_bad_row_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        s_chain([s_chain_row(), s_chain_row(**change)])


def test_where_boxes_images_and_meta_come_from(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    row = s_chain_row(image="a.png", **{COLUMN: None, "A1": "[[0.5, 0.25, 0.5, 0.75]]", "A4": None})
    samples = s_chain([row], images=tmp_path, steps=[4, 1])
    assert [one.meta["step"] for one in samples] == [4, 1]
    assert samples[0].boxes[0].as_tuple() == (20, 5, 40, 20)
    assert (samples[0].answer, samples[1].meta["chain"]) == (None, [])
    assert len({one.id for one in samples}) == 2
    assert not {"image", COLUMN, "Q1", "A1", "Q4", "A4"} & set(samples[0].meta)
    (listed,) = s_chain([s_chain_row(**{COLUMN: [0.25, 0.1, 0.5, 0.4]})], steps=[1])
    assert listed.boxes[0].as_tuple() == (10, 2, 30, 10)
    (said,) = s_chain([s_chain_row(**{COLUMN: None, "A1": "no disease"})], steps=[1])
    assert said.boxes == ()


def test_steps_and_layout_are_checked(unchecked: None) -> None:
    for steps in ([5], [], [True], [1, 5], [0], "1"):
        with pytest.raises(DataError, match="steps are some of 1, 2, 3 and 4"):
            s_chain([s_chain_row()], steps=steps)
    with pytest.raises(BoxError, match="box_format is one of"):
        s_chain([s_chain_row()], box_format="yolo")
    with pytest.raises(DataError, match="has no columns Q1 … Q4 of S-Chain"):
        s_chain([{"image": 1}])


@pytest.mark.parametrize(
    ("box", "fits"),
    [([0, 0, 1.0005, 1], True), ([0.5, 0, 0.5, 1.0005], True), ([-0.0005, 0, 0.5, 0.5], True),
     ([0, 0, 1.01, 1], False), ([0, 0.5, 0.5, 0.51], False), ([-0.01, 0, 0.5, 0.5], False)],
)  # fmt: skip
def test_a_box_may_end_outside_by_a_rounding_error(box: list[float], fits: bool) -> None:
    row = s_chain_row(**{COLUMN: [box, [0.1, 0.1, 0.2, 0.2]]})
    if fits:
        assert len(s_chain([row], steps=[1])[0].boxes) == 2
    else:
        with pytest.raises(DataError, match="ends outside the image"):
            s_chain([row], steps=[1])


def test_the_split_and_the_chain_are_told() -> None:
    import datasets

    rows = {"train": [s_chain_row()], "test": [s_chain_row(A4="None", **{"Patient ID": None})]}
    parts = datasets.DatasetDict({name: datasets.Dataset.from_list(held) for name, held in rows.items()})
    (found,) = s_chain(parts, "test", "mine", steps=[3])
    assert (found.meta["split"], found.meta["modality"], found.group) == ("test", "MR", None)
    assert found.meta["chain"] == [
        ["Recognize the disease area", "[[0.25, 0.1, 0.5, 0.4]]"],
        ["What is the visual identity of this lesion?", "widening of the temporal horn"],
    ]
    assert s_chain(parts, "train", "mine").name == "mine"
