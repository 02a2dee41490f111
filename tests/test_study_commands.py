"""`interp run` and `interp report`: a run is resumed, its page made again, and another's data refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from interp import study
from interp.cli import main
from interp.study_commands import COMMAND, STUDIES, Asked


def code_of(given: list[str]) -> object:
    """The exit code of a command; tyro ends the process where it refuses arguments."""
    try:
        return main(given)
    except SystemExit as end:
        return end.code


def test_every_study_has_its_name() -> None:
    named = {getattr(study, kind).name: kind for kind in STUDIES.values()}
    assert named == STUDIES
    every = {
        kind.name
        for kind in map(study.__dict__.get, study.__all__)
        if getattr(kind, "page", "") and kind.name
    }
    assert every <= {*STUDIES, "grid"}


def test_rows_of_another_split_are_counted(capsys: Any, tmp_path: Path) -> None:
    rows = ["image,question,x0,y0,x1,y1,split"]
    for i, split in enumerate(("test", "test", "validation")):
        Image.new("RGB", (64, 64), (80 * i, 9, 9)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,What color is the circle?,1,2,30,40,{split}")
    (tmp_path / "rows.csv").write_text("\n".join(rows))
    given = ["run", "layer-sweep", "--out", str(tmp_path / "runs"), "--data", str(tmp_path / "rows.csv")]
    assert main([*given, "--set", 'metrics=["ar"]', "indicator=attention"]) == 0
    said = capsys.readouterr().out
    assert (
        "rows: 1 of 3 rows are of the split validation and not used; --split validation takes those" in said
    )


def test_a_run_is_kept_and_its_page_made_again(capsys: Any, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    given = [
        "run",
        "layer-sweep",
        "--n",
        "3",
        "--out",
        str(out),
        "--set",
        'metrics=["ar"]',
        "indicator=attention",
    ]
    assert main(given) == 0
    said = capsys.readouterr().out
    (folder,) = out.glob("layer-sweep-*")
    assert f"page: {folder / 'report.html'}" in said
    assert "attention ratio" in said
    tables = {file: file.stat().st_mtime_ns for file in folder.rglob("*.parquet")}
    page = tmp_path / "again.html"
    assert main(["report", str(folder), "--out", str(page)]) == 0
    assert page.is_file()
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.parquet")} == tables
    assert Asked.read(folder).settings == {"metrics": ["ar"], "indicator": "attention"}

    stored = json.loads((folder / COMMAND).read_text())
    (folder / COMMAND).write_text(json.dumps({**stored, "n": 2}))
    assert main(["report", str(folder)]) == 2
    assert "was made of other data, another model" in capsys.readouterr().err
    assert len(list(out.glob("layer-sweep-*"))) == 1
    (folder / COMMAND).unlink()
    assert main(["report", str(folder)]) == 2
    assert f"holds no {COMMAND}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["run", "layer-sweep", "--set", "colour=1"],
            "layer-sweep has no setting colour; it has batch, edits",
        ),
        (["run", "layer-sweep", "--set", "colour"], "--set takes NAME=JSON"),
        (["run", "layer-sweep", "--set", "rule=x"], "rule is one of touch"),
        (["run", "benchmark", "--set", "scorer=magic"], "the scorers by name are strict, huatuo"),
        (["run", "layer-sweep", "--data", "none.csv"], "none.csv"),
        (["run", "sweep"], "layer-sweep"),
        (["report", "nowhere"], "expected the folder of a run or a grid"),
    ],
)
def test_errors_are_a_line(capsys: Any, given: list[str], message: str) -> None:
    assert code_of(given) == 2
    shown = capsys.readouterr().err.strip()
    assert message in shown
    assert "\n" not in shown


def test_runs_are_compared_on_one_page(capsys: Any, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    given = [
        "run",
        "layer-sweep",
        "--n",
        "3",
        "--out",
        str(out),
        "--set",
        'metrics=["ar"]',
        "indicator=attention",
    ]
    for more in ((), ("rule=center",)):
        assert main([*given, *more]) == 0
    one, other = out.glob("layer-sweep-*")
    capsys.readouterr()
    assert main(["report", str(one), str(other)]) == 0
    page = (one / "comparison.html").read_text()
    assert f"page: {one / 'comparison.html'}" in capsys.readouterr().out
    assert "rule touch" in page  # what the study takes where nothing is said
    assert "rule center" in page
    assert main(["report", str(one), str(one)]) == 2
    assert "each once" in capsys.readouterr().err
