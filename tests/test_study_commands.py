"""`interp run` and `interp report`: a run is resumed, its page made again, and another's data refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from interp import study
from interp.cli import main
from interp.data import bundled
from interp.run import run_task
from interp.study_commands import COMMAND, STUDIES, Asked
from tests.run.fake_task import Roots


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

    for file in folder.glob("declared.json"):  # as in a run of an older interp, which kept the command alone
        file.unlink()
    assert main(["report", str(folder), "--out", str(page)]) == 0
    stored = json.loads((folder / COMMAND).read_text())
    (folder / "declared.json").unlink()
    (folder / COMMAND).write_text(json.dumps({**stored, "n": 2}))
    assert main(["report", str(folder)]) == 2
    assert "was made of other data, another model" in capsys.readouterr().err
    assert len(list(out.glob("layer-sweep-*"))) == 1
    (folder / COMMAND).unlink()
    assert main(["report", str(folder)]) == 2
    assert "holds no declared.json" in capsys.readouterr().err


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
        (["run", "layer-swep"], "Did you mean 'layer-sweep'?"),
        (["run", "layer-sweep", "--set", "rulle=touch"], "Did you mean 'rule'?"),
        (["run", "refinement", "--set", "method=VGrefin"], "Did you mean 'VGRefine'?"),
        (["run", "refinement", "--set", "method=scalingvis"], "ScalingVis needs a weight"),
        (["run", "layer-sweep", "--data", "naturel"], "Did you mean 'natural'?"),
        (["run", "layer-sweep", "--data", "slak:FOLDER"], "Did you mean 'slake:FOLDER'?"),
        (["run", "layer-sweep", "--model", "organsim"], "Did you mean 'organism'?"),
        (["rnu"], "Did you mean 'run'?"),
        (["models", "lava"], "Did you mean 'llava'?"),
        (["reproduce", "--only", "figg3"], "Did you mean 'fig3'?"),
        (["data", "check", "x", "--reader", "slak"], "Did you mean 'slake'?"),
        (["report", "nowhere"], "expected the folder of a run or a grid"),
    ],
)
def test_errors_are_a_line(capsys: Any, given: list[str], message: str) -> None:
    assert code_of(given) == 2
    shown = capsys.readouterr().err.strip()
    assert message in shown
    assert "\n" not in shown


def test_runs_are_listed_and_the_newest_reported(
    capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["report"]) == 2
    assert "there is no folder runs" in capsys.readouterr().err
    data = bundled("natural", n=3)
    study.Grid(study.LayerSweep(data=data, metrics="ar"), rule=["touch", "center"]).run(progress=False)
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "data", "n", "state", "when", "folder"]
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[:4] == ["organism", "natural", "3", "finished"]
    (grid,) = Path("runs").glob("grid-*")
    assert lines[1].split()[-1] == str(grid)
    assert main(["report"]) == 0
    assert f"page: {(grid / 'report.html').resolve()}" in capsys.readouterr().out
    next(Path("runs").glob("layer-sweep-*/tables/scores.json")).unlink()
    assert main(["runs", "--unfinished"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3  # the run and its grid
    monkeypatch.setenv("COLUMNS", "150")
    assert main(["runs"]) == 0
    assert "grid of layer-sweep" in capsys.readouterr().out


def test_a_run_of_failures_alone_is_no_unfinished_one(capsys: Any, tmp_path: Path) -> None:
    none = run_task(Roots(3, bad=(0, 1, 2)), tmp_path, progress=False).path
    pq.write_table(pa.table({"index": pa.array([], pa.int64())}), none / "tables" / "samples.parquet")
    part = run_task(Roots(9), tmp_path, progress=False, part=(1, 2)).path
    assert main(["runs", str(tmp_path)]) == 0
    assert "none measured" in " ".join(capsys.readouterr().out.split())
    assert main(["runs", str(tmp_path), "--unfinished"]) == 0
    said = capsys.readouterr().out
    assert said.count("shards") == 1
    assert part.name in "".join(said.split())  # a long path is folded


def test_methods_are_compared_by_their_names(capsys: Any, tmp_path: Path) -> None:
    given = ["run", "refinement", "--n", "3", "--out", str(tmp_path), "--set", "max_new_tokens=1"]
    assert main([*given, 'method=["plain", "VGRefine"]', "prompt={question}"]) == 0
    said = capsys.readouterr().out
    assert "natural: the top 6 of 48 heads by kl, and layer" in said
    assert {path.name.rpartition("-")[0] for path in tmp_path.iterdir()} == {
        *("grid", "refinement", "head-ranking", "layer-sweep")
    }


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
