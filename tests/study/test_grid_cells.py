"""The finished runs inside a result: their frames and names, and the models that they were run on, one at a time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from interp.data import bundled
from interp.errors import StudyError
from interp.study import LayerSweep
from interp.study.runs import GridCell, _written, by_model, run_cells, store_study
from interp.study.stored_result import _again
from tests.study.fake_study import Lengths
from tests.study.planted import Model, samples

pytestmark = pytest.mark.usefixtures("unchecked")


def cell(groups: list[str], **tables: list[dict[str, Any]]) -> GridCell:
    """A cell with a samples table of these groups, and other tables."""
    frames = {"samples": pd.DataFrame({"index": range(len(groups)), "group": groups})}
    frames |= {name: pd.DataFrame(rows) for name, rows in tables.items()}

    def read(name: str, columns: Any = None) -> pa.Table:
        return pa.Table.from_pandas(frames[name][columns or list(frames[name])], preserve_index=False)

    data: Any = SimpleNamespace(group_names={"image f00": "scan.png"}, __len__=lambda: 2)
    study = SimpleNamespace(data=samples(2) if not groups else data)
    folder: Any = SimpleNamespace(read_table=read)
    return GridCell({"model": "m", "data": "d"}, study, folder)


def test_a_frame_has_its_labels_in_front_and_groups_as_stored() -> None:
    own = cell(["image f00", "image b4d"])
    assert own.key == ("m", "d")
    assert own.measured
    frame = own.frame("samples")
    assert list(frame) == ["model", "data", "index", "group"]
    assert frame.group.tolist() == ["image f00", "image b4d"]
    assert own.named_frame("samples").group.tolist() == ["scan.png", "image b4d"]  # as far as they are known
    assert cell(["patient 1"]).named_frame("samples").group.tolist() == ["patient 1"]


def test_a_run_in_which_all_failed_names_the_first() -> None:
    failures = [
        {"sample": "s0", "error": "MapError", "reason": "dark."},
        {"sample": "s1", "error": "E", "reason": "r"},
    ]
    own = cell([], failures=failures)
    assert not own.measured
    with pytest.raises(
        StudyError, match=r"one of 2 samples of m · d .*all failed\. The first, s0: MapError: dark\."
    ):
        own.check()
    cell(["g"]).check()


def test_each_model_is_opened_once_and_the_first_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("interp.study.runs.open_model", lambda model: opened.append(model) or f"open {model}")
    cells: Any = tuple(({"n": str(i)}, SimpleNamespace(model=model)) for i, model in enumerate("aab"))
    found = [(model, [labels["n"] for labels, _ in same]) for model, same in by_model(cells)]
    assert found == [("open a", ["0", "1"]), ("open b", ["2"])]
    assert opened == ["a", "b"]
    assert [model for model, _ in by_model(cells, "given")] == ["given", "open b"]
    assert opened == ["a", "b", "b"]


def test_a_part_without_a_measured_sample_is_no_error(tmp_path: Path) -> None:
    """Only the questions of the second half are there; the first half fails whole."""
    rows = [one.replace(question="" if i < 8 else "why?") for i, one in enumerate(samples(16))]
    study = Lengths(data=rows)
    cells: Any = ((study.labels, study),)
    (first,) = run_cells(cells, tmp_path, workers=1, progress=False, part=(1, 2))
    assert first.folder.path.exists()
    with pytest.raises(StudyError, match="progress is True or False; got 1"):
        run_cells(cells, tmp_path, workers=1, progress=1)  # pyright: ignore[reportArgumentType]


def test_what_is_written_is_left_alone_where_it_is_the_same(tmp_path: Path) -> None:
    study = LayerSweep(data=bundled("natural", n=1))
    store_study(study, tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    store_study(study, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == stamps
    store_study(study.replace(seed=3), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} != stamps


def test_numbers_of_numpy_are_written_as_numbers() -> None:
    assert _written([np.int64(3), np.float32(0.5), np.bool_(True)], {}) == [3, 0.5, True]
    opened = SimpleNamespace(encode=1, processor=2, dtype="torch.float16", family="llava")
    assert _written(opened, {})["fields"]["dtype"] == "float16"
    assert _written(Model(), {})["fields"]["id"] == "planted"


@pytest.mark.parametrize(
    ("sessions", "said"),
    [
        ([{"command": "one"}, {"command": "two"}, {"command": ""}], "computes only what is missing: two"),
        ([{}], "Run the study again where it was made"),
        ([], "Run the study again where it was made"),
    ],
)
def test_the_last_command_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sessions: list[Any], said: str
) -> None:
    monkeypatch.setattr("interp.study.stored_result.manifest_of", lambda _: {"sessions": sessions})
    assert said in _again(tmp_path)
