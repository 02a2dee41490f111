"""A spreadsheet runs no cell of an exported table, and the data come back as they were."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from interp.report import tables
from interp.report.tables import estimate, listed, neutral, read_csv, write_csv

FORMULAS = ['=HYPERLINK("http://x")', "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\tx", " =1", "＝1+1",
            "＋cmd", "－2+3", "＠SUM(A1)", "﹦1", "−2+3", "\ufeff=1", "\u200b=1", "\u00a0=1", "-", "'=1"]  # fmt: skip
HARMLESS = [
    "a = b",
    "boxes − shuffled_boxes",
    "'quoted'",
    "-0.5",
    "+3",
    "−0.5",
    "-1e-5",
    " -2 ",
    "x\n=1",
    "",
    "é",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_gets_an_apostrophe(text: str) -> None:
    assert neutral(text) == f"'{text}"


@pytest.mark.parametrize("cell", [*HARMLESS, -0.5, -3, None, True, float("nan"), -float("inf")])
def test_what_is_no_formula_stays(cell: object) -> None:
    assert neutral(cell) is cell


def test_an_interval_is_shown_from_20_groups_on() -> None:
    row = {"mean": 0.25, "low": -0.125, "high": 0.5}
    assert estimate({**row, "n_groups": 19}) == "0.25"
    assert estimate({**row, "n_groups": 20}, sign=True, digits=3) == "+0.250 [−0.125, 0.500]"
    assert estimate({**row, "n_groups": 20, "low": float("nan")}) == "0.25"


def test_headers_and_cells_come_back(tmp_path: Path) -> None:
    texts = [*FORMULAS, *filter(None, HARMLESS), 'say "hi"', "a\r=1", "a;=1", "NA", "None", "a\n\nb"]
    frame = pd.DataFrame({"=head": texts, "value": [-0.5 * place for place in range(len(texts))]})
    frame = frame.assign(kind=pd.Categorical(["=kind"] * len(texts)))
    file = write_csv(frame, tmp_path / "table.csv")
    with file.open(newline="", encoding="utf-8") as rows:
        cells = [cell for row in csv.reader(rows) for cell in row]
    starts = ("=", "+", "@", "\t", "\r", "＝", "﹦")
    assert [cell for cell in cells if cell.startswith(starts) and cell != "+3"] == []
    assert "'=head" in cells
    assert "-0.5" in cells
    found = read_csv(file)
    assert found["=head"].tolist() == texts
    assert found.value.tolist() == frame.value.tolist()
    assert found["kind"].tolist() == ["=kind"] * len(texts)


def test_text_is_quoted_so_that_no_separator_cuts_it(tmp_path: Path) -> None:
    raw = write_csv(pd.DataFrame({"a": ["x;=1", "y\r=1"], "n": [1, 2]}), tmp_path / "t.csv").read_bytes()
    assert raw == b'"a","n"\n"x;=1",1\n"y\r=1",2\n'


def test_a_name_with_a_comma_is_told_from_two_names() -> None:
    named = ["VGRefine, code", "PAI", "VGRefine, paper", "PAI", "“a, b”"]
    assert listed(named) == "“VGRefine, code”, PAI, “VGRefine, paper”, “a, b”"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (tables.number(-0.001), "0.00"),
        (tables.number(-0.126), "−0.13"),
        (tables.number(0.126, 1), "0.1"),
        (tables.number(float("nan")), "–"),
        (tables.signed(0.004), "0.00"),
        (tables.signed(0.006), "+0.01"),
        (tables.signed(-0.5, 1), "−0.5"),
        (tables.percent(0.314), "31 %"),
        (tables.percent(-0.0625, 1), "−6.2 %"),
        (tables.interval(-0.1, 0.25), "[−0.10, 0.25]"),
        (tables.p_value(0.00099), "< 0.001"),
        (tables.p_value(0.001), "0.001"),
        (tables.p_value(None), "–"),
        (tables.p_value(float("nan")), "–"),
        (tables.size_of(999), "999 B"),
        (tables.size_of(1000), "1.0 kB"),
        (tables.size_of(2.5e6), "2.5 MB"),
        (tables.size_of(1e12), "1.0 TB"),
        (tables.in_groups({"n": 80, "n_groups": 1}), "80 in 1 group"),
        (tables.times(pd.Series({"a": 3, "b": 1})), "a ×3, b ×1"),
        (tables.group_values(pd.Series([1.0, 2.0, 4.0]), ["y", "x", "y"]), "y: 2.50, x: 2.00"),
    ],
)
def test_numbers_are_written_in_one_way(said: str, expected: str) -> None:
    assert said == expected


def test_an_estimate_takes_its_own_columns_and_scale() -> None:
    row = {"n_groups": 30, "difference": 0.25, "least": -0.5, "most": 0.75, "mean": 9.0}
    of = ("difference", "least", "most")
    assert estimate(row, of=of, scale=100, digits=0) == "25 [−50, 75]"
    assert tables.estimates([row], of=of, sign=True) == ["+0.25 [−0.50, 0.75]"]


@dataclass(frozen=True)
class Cell:
    labels: dict[str, str]


def test_a_cell_is_named_by_what_varies() -> None:
    cells = [Cell({"model": model, "data": "d", "seed": seed}) for model in "ab" for seed in "01"]
    assert tables.varying(cells) == ["model", "seed"]
    assert tables.cell_names(cells) == ["a · 0", "a · 1", "b · 0", "b · 1"]
    assert tables.cell_name(cells, cells[2], without=["model"]) == "0"
    assert tables.cell_names(cells, without=["seed"], of=cells[1:3]) == ["a", "b"]
    assert tables.cell_name(cells[:1], cells[0]) == "d"  # nothing varies
    assert tables.cell_name(cells[:1], cells[0], default=["seed"]) == "0"


def test_rows_take_columns_and_functions_of_a_row() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    expected = [[3, 4], [4, 6]]
    columns = {"B": "b", "sum": lambda row: row["a"] + row["b"]}
    assert tables.rows(frame, columns) == tables.rows(frame.to_dict("records"), columns) == expected


def test_an_empty_cell_comes_back_as_undefined(tmp_path: Path) -> None:
    found = read_csv(write_csv(pd.DataFrame({"a": [1.5, None], "b": ["x", None]}), tmp_path / "t.csv"))
    assert found.a.dtype == float
    assert found.isna().to_numpy().tolist() == [[False, False], [True, True]]
