"""A spreadsheet runs no cell of an exported table, and the data come back as they were."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest

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
