"""Which runs a folder holds, read from their JSON alone."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

import interp
from interp.errors import RunError
from interp.run import run_task
from interp.run.listing import COLUMNS, state_of
from tests.run.fake_task import Roots


def test_each_run_is_a_row_the_newest_first(tmp_path: Path) -> None:
    whole = run_task(Roots(4), tmp_path, progress=False).path
    part = run_task(Roots(9), tmp_path, progress=False, part=(1, 2)).path
    for folder, year in ((whole, 2031), (part, 2030)):
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["sessions"][0]["started"] = f"{year}-01-01T00:00:00+00:00"
        (folder / "manifest.json").write_text(json.dumps(manifest))
    found = interp.runs(tmp_path)
    assert tuple(found.columns) == COLUMNS
    assert found.folder.tolist() == [str(whole), str(part)]
    assert found.state[0] == "finished"
    n_shards = len(json.loads((part / "plan.json").read_text())["shards"])
    assert found.state[1] == f"{-(-n_shards // 2)} of {n_shards} shards"
    assert found.started[0].year == 2031


def test_a_folder_without_its_files_is_still_a_row(tmp_path: Path) -> None:
    folder = tmp_path / "layer-sweep-0123456789ab"
    folder.mkdir()
    (folder / "study.json").write_text("{")
    row = interp.runs(tmp_path).iloc[0]
    assert (row.study, row.model, row.state) == ("layer-sweep", "", "begun")
    (folder / "study.json").write_text(json.dumps({"cells": [{"labels": {"data": "a"}, "run": "gone"}]}))
    assert state_of(folder) == "0 of 1 run finished"
    assert interp.runs(tmp_path).data.tolist() == ["a"]


def test_runs_are_found_here_and_two_folders_deep(tmp_path: Path) -> None:
    deep = run_task(Roots(4), tmp_path / "project", progress=False).path
    assert interp.runs(tmp_path).folder.tolist() == [str(deep)]
    assert interp.runs(deep).folder.tolist() == [str(deep)]


def test_the_state_says_what_is_not_there(tmp_path: Path) -> None:
    folder = run_task(Roots(9), tmp_path, progress=False).path
    (folder / "tables" / "failures.json").unlink()
    assert state_of(folder) == "not joined"
    run_task(Roots(9), tmp_path, progress=False)
    assert state_of(folder) == "finished"
    (folder / "tables" / "scores.parquet").unlink()
    assert state_of(folder) == "not joined"


def test_a_run_that_measured_nothing_says_so(tmp_path: Path) -> None:
    folder = run_task(Roots(4), tmp_path, progress=False)
    folder.write_table("samples", pa.table({"index": pa.array([], pa.int64())}))
    assert interp.runs(tmp_path).state.tolist() == ["finished, none measured"]
    folder.write_table("samples", pa.table({"index": [0]}))
    assert interp.runs(tmp_path).state.tolist() == ["finished"]


def test_a_run_is_as_new_as_its_last_session(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "study.json").write_text(json.dumps({"study": "a"}))
    sessions = [{"started": f"{year}-01-01T00:00:00+00:00"} for year in (2030, 2032, 2031)]
    model = {"id": "org/model", "family": "llava"}
    (tmp_path / "a" / "manifest.json").write_text(json.dumps({"sessions": sessions, "model": model}))
    (tmp_path / "z").mkdir()
    cells = [{"labels": {}, "run": "a"}]
    (tmp_path / "z" / "study.json").write_text(json.dumps({"cells": cells}))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "study.json").write_text(json.dumps({"study": "b"}))
    found = interp.runs(tmp_path)
    # a grid before its own runs, what has no date last
    assert found.study.tolist() == ["grid of a", "a", "b"]
    assert [one.year for one in found.started[:2]] == [2032, 2032]
    assert found.model[1] == "org/model"


def test_a_start_without_a_time_zone_is_sorted_as_utc(tmp_path: Path) -> None:
    folder = run_task(Roots(4), tmp_path, progress=False).path
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sessions"] = [{"started": "2031-01-01T12:00:00"}, {"started": "2031-01-01T12:30:00+02:00"}]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert interp.runs(tmp_path).started[0].isoformat() == "2031-01-01T12:00:00+00:00"


@pytest.mark.parametrize("fingerprints", [("f", "g"), (None, None)])
def test_a_grid_counts_samples_once_for_all_its_models(
    fingerprints: tuple[str | None, str | None], tmp_path: Path
) -> None:
    cells = []
    first, second = fingerprints
    for model, data, n, fingerprint in (("a", "x", 7, first), ("b", "x", 7, first), ("a", "y", 4, second)):
        folder = tmp_path / f"sweep-{model}{data}"
        folder.mkdir()
        stored = {"study": "sweep", "data": {"n": n, "fingerprint": fingerprint}}
        (folder / "study.json").write_text(json.dumps(stored))
        (folder / "manifest.json").write_text(json.dumps({"data": {"name": data}, "model": {"id": model}}))
        cells.append({"labels": {"model": model, "data": data}, "run": folder.name})
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "study.json").write_text(json.dumps({"cells": cells}))
    found = interp.runs(tmp_path).set_index("study")
    assert found.n["grid of sweep"] == 7 + 4
    assert (found.model["grid of sweep"], found.data["grid of sweep"]) == ("a, b", "x, y")


def test_a_grid_counts_other_samples_of_one_name_apart(tmp_path: Path) -> None:
    first, second = (interp.data.bundled("natural", n=n, seed=n) for n in (2, 3))
    assert first.name == second.name
    interp.Grid(interp.LayerSweep(data=first), data={"a": first, "b": second}).run(tmp_path, progress=False)
    assert interp.runs(tmp_path).set_index("study").n["grid of layer-sweep"] == 5


def test_a_grid_that_names_itself_is_a_row(tmp_path: Path) -> None:
    for name, other in (("grid-a", "grid-a"), ("grid-b", "grid-c"), ("grid-c", "grid-b")):
        (tmp_path / name).mkdir()
        study = {"cells": [{"labels": {"data": "x"}, "run": other}]}
        (tmp_path / name / "study.json").write_text(json.dumps(study))
    assert set(interp.runs(tmp_path).state) == {"0 of 1 run finished"}


def test_a_grid_says_nothing_of_runs_that_are_gone(tmp_path: Path) -> None:
    for name in ("here-0123456789ab", "grid"):
        (tmp_path / name).mkdir()
    (tmp_path / "here-0123456789ab" / "study.json").write_text(json.dumps({"study": "here"}))
    model = json.dumps({"model": {"family": "llava"}})
    (tmp_path / "here-0123456789ab" / "manifest.json").write_text(model)
    cells = [{"labels": {"model": "m"}, "run": name} for name in ("here-0123456789ab", "gone-0123456789ab")]
    (tmp_path / "grid" / "study.json").write_text(json.dumps({"cells": cells}))
    found = interp.runs(tmp_path).set_index("study")
    assert set(found.index) == {"grid of here", "here"}
    assert found.model["here"] == "llava"  # a model without an id
    assert found.n.isna().all()  # no run says how many
    assert found.state["grid of here"] == "0 of 2 runs finished"


def test_no_runs_and_no_folder(tmp_path: Path) -> None:
    assert len(interp.runs(tmp_path)) == 0
    for name in ("nowhere", "x" * 5000):
        with pytest.raises(RunError, match="there is no folder"):
            interp.runs(tmp_path / name)


def test_a_grid_is_finished_when_its_runs_are(tmp_path: Path) -> None:
    runs = [run_task(Roots(n), tmp_path, progress=False).path for n in (4, 6)]
    grid = tmp_path / "grid"
    grid.mkdir()
    (grid / "study.json").write_text(json.dumps({"cells": [{"labels": {}, "run": one.name} for one in runs]}))
    assert state_of(grid) == "finished"
    (runs[0] / "tables" / "scores.json").unlink()
    assert state_of(grid) == "1 of 2 runs finished"
    link = tmp_path / "elsewhere" / "grid"
    link.parent.mkdir()
    link.symlink_to(grid)
    assert state_of(link) == "1 of 2 runs finished"  # its runs lie beside the grid, not beside the link


def test_sessions_without_a_date_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "study.json").write_text(json.dumps({"study": "a"}))
    sessions = [{"started": "2030-01-01T00:00:00+00:00"}, {"started": "soon"}, {}, 3]
    manifest = {"sessions": sessions, "model": {"id": 5}, "data": {"name": 7}}
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(manifest))
    found = interp.runs(tmp_path)
    assert found.started[0].isoformat() == "2030-01-01T00:00:00+00:00"
    assert (found.model[0], found.data[0]) == ("5", "7")
