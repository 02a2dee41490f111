from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from interp.data import csv
from interp.errors import BoxError, DataError
from tests.data.source_files import image

HEADER = "image,question,answer,x0,y0,x1,y1"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    image(tmp_path / "a.png")

    def writer(text: str, name: str = "rows.csv") -> Path:
        (tmp_path / name).write_bytes(text.encode())
        return tmp_path / name

    return writer


def test_recognised_columns_become_fields_and_others_meta(write: Any, tmp_path: Path) -> None:
    header = "file,question,answer,options,patient,xmin,ymin,xmax,ymax,modality"
    rows = f'{header}\na.png,"Left, or right?",left,left|right,17,1,2,3,4,CT\n'
    (sample,) = csv(write(rows))
    assert sample.image == str(tmp_path / "a.png")
    assert (sample.question, sample.answer, sample.options) == ("Left, or right?", "left", ("left", "right"))
    assert (sample.group, sample.id, dict(sample.meta)) == ("17", "rows:2", {"modality": "CT"})
    assert [box.as_tuple() for box in sample.boxes] == [(1, 2, 3, 4)]


def test_boxes_as_json_and_empty_cells(write: Any) -> None:
    rows = 'image;question;answer;bbox\na.png;?;;"[[1,2,3,4],[5,6,7,8]]"\n\na.png;?;yes;"[1, 2, 3, 4]"\na.png;?;;\n'
    two, one, none = csv(write(rows))
    assert [len(sample.boxes) for sample in (two, one, none)] == [2, 1, 0]
    assert (two.answer, one.answer) == (None, "yes")


def test_spaces_around_cells_and_empty_lines(write: Any) -> None:
    (sample,) = csv(write("image, question ,note,age\na.png,?, ,3\n , , , \n"), "mine")
    assert (sample.question, dict(sample.meta)) == ("?", {"note": None, "age": "3"})
    assert csv(write("image,question\na.png,?\n"), "mine").name == "mine"
    assert csv(write("image,question\na.png,?\n")).name == "rows"


def test_columns_images_and_question_can_be_said(write: Any, tmp_path: Path) -> None:
    image(tmp_path / "scans/b.png")
    path = write("scan\tlabel\tpath\nb.png\tliver\tx\n", "rows.tsv")
    (sample,) = csv(
        path, columns={"image": "scan"}, images=tmp_path / "scans", question="Where is the {label}?"
    )
    assert (sample.question, dict(sample.meta)) == ("Where is the liver?", {"label": "liver", "path": "x"})


def test_box_formats(write: Any) -> None:
    for box_format, box in {"xywh": "4,2,16,8", "cxcywh": "12,6,16,8", "fraction": "0.1,0.1,0.5,0.5"}.items():
        (sample,) = csv(write(f"{HEADER}\na.png,?,,{box}\n"), box_format=box_format)
        assert sample.boxes[0].as_tuple() == (4, 2, 20, 10)
    with pytest.raises(BoxError, match="box_format is one of"):
        csv(write(HEADER), box_format="yx")


def test_several_images_in_a_cell(write: Any, tmp_path: Path) -> None:
    image(tmp_path / "b.png")
    (sample,) = csv(write('image,question,boxes\n"[""a.png"", ""b.png""]",?,"[[1,2,3,4,1]]"\n'))
    assert (len(sample.images), sample.boxes[0].image) == (2, 1)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("b.png,?,,1,2,3,4", "line 3, field 'image': no file 'b.png' in"),
        ("/dev/zero,?,,1,2,3,4", "line 3, field 'image': .*it is a device"),
        ("a.png,,,1,2,3,4", "line 3, field 'question': expected a text"),
        ("a.png,?,,1,2,3,", "line 3, field 'y1': expected a finite number, got None"),
        ("a.png,?,,1,2,3,nan", "line 3, field 'y1': expected a finite number, got 'nan'"),
        ("a.png,?,,3,2,1,4", "line 3, field 'x0': a box needs x1 > x0"),
        ("a.png,?,,0.1,0.2,0.5,0.6", "line 3, field 'x0': every edge .* at most 1"),
        ("a.png,?,1,2,3,4", "line 3: it has 6 cells, but the header has 7 columns"),
    ],
)
def test_a_bad_row_is_named(write: Any, row: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"rows\.csv, {message}"):
        csv(write(f"{HEADER}\na.png,?,,1,2,3,4\n{row}\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no rows"),
        ("image,question\n", "holds no rows below its header"),
        ("a,question\n1,2\n", r"no column for the image; it has .* columns=\{\"image\": \"…\"\}"),
        ("image,x\n1,2\n", "no column for the question"),
        ("image,image\n1,2\n", "line 1: the columns .'image'. are there twice"),
        ('image,question\n"a"b,c\n', r"line 2: not a table \("),
    ],
)
def test_a_file_that_is_no_such_table(write: Any, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        csv(write(text))


def test_arguments_are_checked(write: Any, tmp_path: Path) -> None:
    path = write("image,question\na.png,?\n")
    with pytest.raises(DataError, match="has no column 'scan'; it has"):
        csv(path, columns={"image": "scan"})
    with pytest.raises(DataError, match="columns maps the fields image, question"):
        csv(path, columns={"colour": "image"})
    with pytest.raises(DataError, match="separator is one character"):
        csv(path, separator="ab")
    with pytest.raises(DataError, match=r"question 'Is it \{x\}\?' cannot be filled in"):
        csv(path, question="Is it {x}?")
    with pytest.raises(DataError, match="cannot be read"):
        csv(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("image,question\nä,?\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        csv(tmp_path / "latin.csv")


def test_bad_rows_are_recorded_and_boxes_beyond_are_said(write: Any) -> None:
    good, bad = csv(write("image,question\na.png,?\nb.png,?\n"), bad_rows="record")
    assert (good.is_usable, bad.is_usable, bad.id) == (True, False, "rows:3")
    with pytest.warns(UserWarning, match='their image: 1 of 1, on 1 sample.*box_format="xywh"'):
        csv(write(f"{HEADER}\na.png,?,,30,10,45,15\n"))


def test_a_byte_order_mark_and_windows_lines_are_read(write: Any) -> None:
    samples = csv(
        write(
            '\ufeffimage,question,options\r\na.png,?,"'
            + json.dumps(["a|b", "c"]).replace('"', '""')
            + '"\r\n'
        )
    )
    assert samples[0].options == ("a|b", "c")
    assert samples[:1].filter(lambda sample: sample.answer is None).fingerprint == samples.fingerprint


def test_a_box_that_lacks_a_column_is_refused(write: Any) -> None:
    path = write("image,question,xmim,ymin,xmax,ymax\na.png,?,1,2,3,4\n")
    with pytest.raises(
        DataError, match=r"has y0, x1, y1 but no x0\. Did you mean 'xmim'\? .*\{\"x0\": \"xmim\"\}"
    ):
        csv(path)
    assert csv(path, columns={"x0": "xmim"})[0].boxes[0].as_tuple() == (1, 2, 3, 4)
    with pytest.raises(DataError, match=r"has x0, y0 but no x1, y1\. Give all four, or rename"):
        csv(write("image,question,x0,y0,age\na.png,?,1,2,3\n"))
    assert csv(write("image,question,x0,bbox\na.png,?,1,\n"))[0].boxes == ()


def test_the_separator_is_given_or_the_headers_most_frequent(write: Any) -> None:
    for name, mark in (("a.csv", ";"), ("b.csv", "\t"), ("c.tab", "\t"), ("d.TSV", "\t"), ("e.csv", ",")):
        (sample,) = csv(
            write(
                f"image{mark}question{mark}note, seen\na.png{mark}?{mark}x\n".replace(
                    "note, seen", "note" if mark == "," else "note, seen"
                ),
                name,
            )
        )
        assert len(sample.meta) == 1, name
    (sample,) = csv(write("image|question|a,b,c,d\na.png|?|x\n"), separator="|")
    assert dict(sample.meta) == {"a,b,c,d": "x"}
    (sample,) = csv(write("image,question\na.png,?\n", "f.tsv"), separator=",")
    assert sample.question == "?"


def test_a_row_is_numbered_by_the_line_it_ends_on(write: Any) -> None:
    first, second = csv(write('image,question\n\na.png,"Is it\nthere?"\na.png,?\n'))
    assert (first.question, first.id, second.id) == ("Is it\nthere?", "rows:4", "rows:5")


def test_texts_keep_their_spaces_and_numbers_their_form(write: Any) -> None:
    (sample,) = csv(write("image,question,answer,group,note\na.png, Is it? ,1.0,007, x \n"))
    assert (sample.question, sample.answer, sample.group) == (" Is it? ", "1.0", "007")
    assert dict(sample.meta) == {"note": " x "}


def test_some_empty_corners_are_an_error_and_four_no_box(write: Any) -> None:
    header = "image,question,x0,y0,x1,y1"
    assert csv(write(f"{header}\na.png,?,,, ,\n"))[0].boxes == ()
    with pytest.raises(DataError, match="line 2, field 'x0': expected a finite number, got None"):
        csv(write(f"{header}\na.png,?,,2,3,4\n"))
