"""Results as text and tables, and the record of them that is kept."""

from __future__ import annotations

import datetime
from pathlib import Path

from rich.console import Console

from interp.conformance.check_result import CheckResult, Conformance, read_record, write_record

GOOD = CheckResult("rows", True, 2e-6, "largest difference", 1e-5, False, "64 rows", 0.5)
BAD = CheckResult("locality", False, 0.25, "share that hit", 0.9, True, "1 of 4\n  and so on", 61.25)
RAISED = CheckResult("tiling", False, None, "", None, False, "footprints overlap", 0.0)


def test_a_record_says_what_passed_and_what_did_not(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    assert read_record(path) == {}
    before = datetime.datetime.now(datetime.UTC).date().isoformat()
    write_record([Conformance("llava", "a", (GOOD, BAD, RAISED)), Conformance("vila", "b", (GOOD,))], path)
    found = read_record(path)
    assert list(found) == ["llava", "vila"]
    assert found["llava"]["checks"] == ["rows", "locality", "tiling"]
    assert found["llava"]["failed"] == ["locality", "tiling"]
    assert (found["llava"]["passed"], found["llava"]["total"]) == (1, 3)
    assert (found["vila"]["passed"], found["vila"]["total"], found["vila"]["failed"]) == (1, 1, [])
    assert found["vila"]["date"] in (before, datetime.datetime.now(datetime.UTC).date().isoformat())
    assert set(found["vila"]["versions"]) == {"torch", "transformers", "nnsight"}
    write_record([Conformance("vila", "b", (BAD,))], path)
    assert list(read_record(path)) == ["vila"]  # replaced


def test_a_line_stays_a_line() -> None:
    assert BAD.line == "FAIL  locality, 0.25 ≥ 0.9, 61.2 s: 1 of 4 and so on"
    assert RAISED.line == "FAIL  tiling, –, 0.0 s: footprints overlap"
    assert GOOD.line == "pass  rows, 2e-06 ≤ 1e-05, 0.5 s"


def test_a_table_says_what_each_number_means() -> None:
    console = Console(width=140, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(Conformance("llava", "a model", (GOOD, BAD, RAISED)))
    lines = console.export_text().splitlines()
    assert "a model: 1 of 3 checks passed" in lines[0]
    (row,) = [line for line in lines if "locality" in line]
    for part in ("FAIL", "0.25 ≥ 0.9", "share that hit", "61.2"):
        assert part in row
    (row,) = [line for line in lines if " rows " in line and "2e-06" in line]
    assert "pass" in row
    assert any("64 rows" in line for line in lines)


def test_a_frame_holds_each_result_with_its_family() -> None:
    frame = Conformance("llava", "a model", (GOOD, BAD)).to_frame()
    assert frame.family.tolist() == ["llava"] * 2
    assert frame.at_least.tolist() == [False, True]
    assert frame.seconds.tolist() == [0.5, 61.25]
    assert frame.limit.tolist() == [1e-5, 0.9]
