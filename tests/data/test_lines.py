from __future__ import annotations

import json
from pathlib import Path

import pytest

from interp.data.lines import (
    Row,
    as_path,
    collect,
    file_bytes,
    json_rows,
    line_rows,
    needs,
    parsed_json,
    read_json,
    read_lines,
    shown,
    text_in,
)
from interp.errors import DataError, SampleError
from interp.inputs.sample import Sample

GOOD = b'{"question": "q"}'


def made(row: Row) -> Sample:
    return Sample("a.png", row.values["question"])


def read(tmp_path: Path, *lines: bytes, bad_rows: str = "raise") -> list[Sample]:
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    return read_lines(tmp_path / "rows.jsonl", made, bad_rows)


BAD = {
    "not JSON": b"{",
    "Exceeds the limit": b'{"question": "q", "x": ' + b"9" * 5_000 + b"}",
    "'1e400' is not a finite number": b'{"question": "q", "x": 1e400}',
    "'NaN' is not a finite number; write null": b'{"question": "q", "x": NaN}',
    "'-Infinity' is not a finite number": b'{"question": "q", "x": -Infinity}',
    "nested too deep": b"[" * 100_000,
    "the name 'question' is given twice": b'{"question": "q", "question": "r"}',
    "expected a JSON object, got list": b"[]",
    "not UTF-8 text": '{"question": "é"}'.encode("latin-1"),
    "question holds the lone surrogate": b'{"question": "\\ud83d"}',
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_line_is_named_with_its_file_and_number(tmp_path: Path, message: str) -> None:
    with pytest.raises(DataError, match=f"rows.jsonl, line 3: .*{message}|rows.jsonl, line 3: {message}"):
        read(tmp_path, GOOD, b"", BAD[message])


def test_bad_rows_can_be_recorded_and_the_others_read(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD, *BAD.values(), GOOD, bad_rows="record")
    assert [sample.is_usable for sample in found] == [True, *[False] * len(BAD), True]
    assert [sample.id for sample in found[1:-1]] == [f"rows:{line}" for line in range(2, len(BAD) + 2)]
    with pytest.raises(SampleError, match=r"rows.jsonl, line 2: not JSON"):
        found[1].check()
    with pytest.raises(DataError, match="bad_rows is 'raise' or 'record'; got 'skip'"):
        read(tmp_path, GOOD, bad_rows="skip")


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    assert len(read(tmp_path, b"\xef\xbb\xbf" + GOOD + b"\r", GOOD + b"\r", b"\r")) == 2


def test_a_separator_inside_a_text_does_not_cut_the_row(tmp_path: Path) -> None:
    text = "one\u2028two"
    (sample,) = read(tmp_path, json.dumps({"question": text}, ensure_ascii=False).encode())
    assert sample.question == text


def test_the_file_must_be_a_file(tmp_path: Path, unchecked: None) -> None:
    for path, reason in (
        (tmp_path, "is a folder"),
        (Path("/dev/zero"), "is a device"),
        (Path("x" * 5_000), "too long"),
    ):
        with pytest.raises(DataError, match=f"cannot be read: it .*{reason}|cannot be read: it {reason}"):
            read_lines(path, made, "raise")
    with pytest.raises(DataError, match=r"the file is a path, such as .*got int 3"):
        as_path(3)


def test_a_file_without_rows_or_of_another_kind_is_named(tmp_path: Path, unchecked: None) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl holds no rows; expected one JSON object a line"):
        read(tmp_path, b"", b" ")
    for bad_rows in (None, ["raise"]):
        with pytest.raises(DataError, match="bad_rows is 'raise' or 'record'; got"):
            read(tmp_path, GOOD, bad_rows=bad_rows)  # type: ignore[arg-type]
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a.json", list) == [1]
    with pytest.raises(DataError, match=r"a\.json: expected a JSON object, got list"):
        read_json(tmp_path / "a.json", dict)
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(DataError, match=r"a\.json: expected a JSON list of rows, got dict"):
        read_json(tmp_path / "a.json", list)
    with pytest.raises(DataError, match="has 2 bytes; a file of at most 1 is read"):
        file_bytes(tmp_path / "a.json", 1)
    assert file_bytes(tmp_path / "a.json", 2) == b"{}"


def test_elements_that_are_no_objects_are_named_by_their_place(unchecked: None) -> None:
    def make(row: Row) -> list[Sample]:
        return [Sample("a.png", row.values["question"])]

    rows = list(json_rows(Path("a.json"), [{"question": "q"}, 3, {"question": 4}]))
    with pytest.raises(DataError, match=r"^a\.json, item 1: expected an object of fields, got 3$"):
        collect(rows, make, "raise")
    found = collect(rows, make, "record")
    assert [one.fault for one in found[:2]] == [None, "a.json, item 1: expected an object of fields, got 3"]
    assert str(found[2].fault).startswith("a.json, item 2: question must be text; got int 4")
    assert [one.id for one in found[1:]] == ["a:1", "a:2"]


def test_long_paths_are_shown_by_their_ends() -> None:
    assert shown("x" * 1000) == "x" * 1000
    assert shown("a" * 600 + "b" * 600) == "a" * 500 + "…" + "b" * 500


def test_what_a_library_is_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert needs("json") is json
    with pytest.raises(
        DataError, match=r"needs no_such_module; install it with: pip install 'interp\[data\]'"
    ):
        needs("no_such_module")


def test_texts_are_read_without_their_mark_and_up_to_a_size(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffé\n".encode())
    assert text_in(tmp_path / "a.txt") == "é\n"
    assert text_in(tmp_path / "a.txt", 6) == "é\n"
    with pytest.raises(DataError, match="has 6 bytes; a file of at most 5 is read"):
        text_in(tmp_path / "a.txt", 5)
    (tmp_path / "a.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.txt: not UTF-8 text"):
        text_in(tmp_path / "a.txt")


def test_rows_are_numbered_by_their_lines_or_places(tmp_path: Path) -> None:
    (tmp_path / "a.b.jsonl").write_bytes(b'\xef\xbb\xbf\n{"x": 1}\n \n{"x": 2}')
    rows = list(line_rows(tmp_path / "a.b.jsonl"))
    assert [(row.id, row.at.rpartition(", ")[2], row.values) for row in rows] == [
        ("a.b:2", "line 2", {"x": 1}), ("a.b:4", "line 4", {"x": 2}),
    ]  # fmt: skip
    assert [row.at for row in json_rows(Path("a.json"), [{}, {}], "row")] == [
        "a.json, row 0",
        "a.json, row 1",
    ]
    assert str(rows[0].bad("x", "no number")) == f"{tmp_path / 'a.b.jsonl'}, line 2, field 'x': no number"


def test_json_is_strict(tmp_path: Path) -> None:
    assert parsed_json('{"a": [1, 2.5, null, true]}', "here") == {"a": [1, 2.5, None, True]}
    for text, said in (
        ("{", "here: not JSON"),
        ('{"a": 1, "a": 2}', "the name 'a' is given twice"),
        ("[1e999]", "finite"),
    ):
        with pytest.raises(DataError, match=said):
            parsed_json(text, "here")
    with pytest.raises(DataError, match=r"here: nested too deep to be read\. Flatten the cell"):
        parsed_json("[" * 100_000, "here", "cell")


def test_a_row_may_make_several_samples_or_none() -> None:
    def make(row: Row) -> list[Sample]:
        return [Sample("a.png", f"{row.number} {i}?") for i in range(row.values["n"])]

    rows = json_rows(Path("a.json"), [{"n": 2}, {"n": 0}, {"n": 1}])
    assert [one.question for one in collect(rows, make, "raise")] == ["0 0?", "0 1?", "2 0?"]
