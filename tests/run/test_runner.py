from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from interp.errors import RunError
from interp.run import RunFolder, run_task
from interp.run.runner import run_tasks
from interp.run.shards import schemas_of
from interp.run.workers import dispatch
from tests.run.fake_task import Roots
from tests.run.run_fingerprints import fingerprints


def run(task: Roots, out: Path, **options: Any) -> RunFolder:
    return run_task(task, out, progress=False, **options)


def test_tables_hold_every_sample_in_order(tmp_path: Path) -> None:
    table = run(Roots(), tmp_path).read_table("scores").to_pydict()
    assert not list(tmp_path.glob("*/tables/maps.parquet"))
    assert table["index"] == [index for index in range(30) for _ in (0, 1)]
    assert table["layer"] == [0, 1] * 30
    assert table["value"] == [math.sqrt(index + layer) for index in range(30) for layer in (0, 1)]


def test_a_second_run_computes_nothing_and_changes_no_byte(tmp_path: Path) -> None:
    folder = run(Roots(), tmp_path)
    before = {file: file.read_bytes() for file in folder.path.glob("**/*") if file.is_file()}
    again = Roots()
    assert run(again, tmp_path) == folder
    assert again.calls == []
    assert {file: file.read_bytes() for file in folder.path.glob("**/*") if file.is_file()} == before


@pytest.mark.parametrize("harm", ["delete", "truncate", "flip", "foreign", "unsealed", "other schema"])
def test_only_the_harmed_shard_is_computed_again(tmp_path: Path, harm: str) -> None:
    folder = run(Roots(), tmp_path)
    before = fingerprints(folder.path)
    file = folder.shard_file(1, "maps")
    data = bytearray(file.read_bytes())
    if harm == "delete":
        file.unlink()
    elif harm == "truncate":
        file.write_bytes(data[:-7])
    elif harm == "flip":
        data[-12] ^= 1  # in the footer, where no page checksum looks
        file.write_bytes(data)
    elif harm == "foreign":
        other = run(Roots(bad=(5,)), tmp_path / "other")
        for place in (lambda where: where.shard_file(1, "maps"), lambda where: where.seal_file(1)):
            place(folder).write_bytes(place(other).read_bytes())
    elif harm == "unsealed":
        folder.seal_file(1).unlink()
    else:
        tables = {name: pa.table({"index": [0]}) for name in ("failures", "maps", "scores")}
        folder.write_shard(1, tables)
    again = Roots()
    run(again, tmp_path)
    assert sorted(again.calls) == sorted(Roots().plan().shards[1])
    assert fingerprints(folder.path) == before


def test_a_shard_of_too_few_samples_is_computed_again(tmp_path: Path) -> None:
    folder = run(Roots(), tmp_path)
    before = fingerprints(folder.path)
    schemas = schemas_of(Roots())
    tables = folder.read_shard(2, schemas)
    assert tables is not None
    folder.write_shard(2, {name: table.slice(0, 2) for name, table in tables.items()})
    again = Roots()
    run(again, tmp_path)
    assert sorted(again.calls) == sorted(Roots().plan().shards[2])
    assert fingerprints(folder.path) == before


def test_a_damaged_joined_table_is_joined_again(tmp_path: Path) -> None:
    folder = run(Roots(), tmp_path)
    before = fingerprints(folder.path)
    (folder.path / "tables" / "scores.parquet").write_bytes(b"PAR1")
    again = Roots()
    run(again, tmp_path)
    assert again.calls == []
    assert fingerprints(folder.path) == before


def test_bad_samples_become_failures_and_the_rest_runs(tmp_path: Path) -> None:
    task = Roots(bad=(4, 5, 9))
    folder = run(task, tmp_path)
    failures = folder.read_table("failures").to_pylist()
    assert [(row["index"], row["sample"], row["group"], row["error"]) for row in failures] == [
        (4, "sample-4", "group-2", "ImageError"),
        (5, "sample-5", "group-2", "ImageError"),
        (9, "sample-9", "group-4", "ImageError"),
    ]
    assert failures[0]["reason"] == "image of 4 is broken."
    assert failures[0]["layer"] is None
    kept = set(folder.read_table("scores").column("index").to_pylist())
    assert kept == set(range(30)) - {4, 5, 9}
    partner = next(set(batch) - {9} for batch in sum(task.plan().shards, ()) if 9 in batch)
    assert tuple(partner) in task.calls


def test_a_batch_that_fails_only_together_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="each passes"):
        run(Roots(together=(0, 3)), tmp_path)


def test_a_bug_stops_the_run_and_keeps_finished_shards(tmp_path: Path) -> None:
    last = Roots().plan().shards[-1][-1][-1]
    with pytest.raises(ZeroDivisionError) as caught:
        run(Roots(bug=last), tmp_path)
    note = caught.value.__notes__[0]
    assert f"sample-{last}" in note
    assert "run again to resume" in note
    again = Roots()
    run(again, tmp_path)
    assert sorted(again.calls) == sorted(again.plan().shards[-1])


def test_processes_give_the_same_bytes_and_errors_with_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "n_threads", lambda: None)  # so that the workers need not import torch
    alone = run(Roots(bad=(5,)), tmp_path / "one")
    last = Roots().plan().shards[-1][-1][-1]
    with pytest.raises(ZeroDivisionError) as caught:
        run(Roots(bad=(5,), bug=last), tmp_path / "two", workers=2)
    assert any(f"sample-{last}" in note for note in caught.value.__notes__)
    finish = Roots(bad=(5,))
    many = run(finish, tmp_path / "two")
    assert sorted(finish.calls) == sorted(finish.plan().shards[-1])  # the processes did all the rest
    assert fingerprints(many.path) == fingerprints(alone.path)
    assert json.loads((many.path / "cost.json").read_text())["total"]["peak_bytes"] == 29


def test_seconds_and_dates_live_outside_the_shards(tmp_path: Path) -> None:
    folder = run(Roots(), tmp_path)
    cost = json.loads((folder.path / "cost.json").read_text())
    assert cost["total"]["seconds"] == pytest.approx(0.5 * 15 + 0.5 * 0)
    assert set(cost["shards"]) == {str(shard) for shard in range(8)}
    manifest = json.loads((folder.path / "manifest.json").read_text())
    assert manifest["run"] == folder.digest
    assert manifest["model"] == {"id": "none"}
    session = manifest["sessions"][0]
    assert session["shards"] == {"missing": 8, "total": 8}
    assert {"python", "torch", "transformers", "nnsight"} <= set(session["versions"])


def test_a_part_computes_its_own_shards_and_the_last_one_joins(tmp_path: Path) -> None:
    whole = run(Roots(bad=(5,)), tmp_path / "whole")
    tasks = [Roots(bad=(5,)) for _ in range(3)]
    for number, task in enumerate(tasks, 1):
        folder = run(task, tmp_path / "shared", part=(number, 3))
        sealed = [int(file.stem) for file in sorted((folder.path / "shards").glob("*.json"))]
        assert sealed == [shard for shard in range(8) if shard % 3 < number]
        if number < 3:
            with pytest.raises(RunError, match=r"absent or damaged.*interp merge"):
                folder.read_table("scores")
    computed = [sorted({index for call in task.calls for index in call}) for task in tasks]
    assert sorted(index for own in computed for index in own) == list(range(30))
    assert fingerprints(tmp_path / "shared") == fingerprints(tmp_path / "whole")
    sessions = json.loads((tmp_path / "shared" / whole.path.name / "manifest.json").read_text())["sessions"]
    assert [session["shards"] for session in sessions] == [
        {"missing": missing, "total": 8, "part": [number, 3]} for number, missing in ((1, 3), (2, 3), (3, 2))
    ]


def test_the_progress_of_a_part_counts_the_parts_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_task(Roots(), tmp_path, label="roots", part=(3, 3))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "roots: 8 samples"
    assert lines[-1].startswith("roots: 8/8 samples")


@pytest.mark.parametrize("part", [(0, 3), (4, 3), (1, 0)])
def test_a_part_that_is_none_is_refused(tmp_path: Path, part: tuple[int, int]) -> None:
    with pytest.raises(RunError, match=r"1 ≤ i ≤ n"):
        run(Roots(), tmp_path, part=part)
    assert list(tmp_path.iterdir()) == []


def test_another_plan_of_the_same_study_is_refused(tmp_path: Path) -> None:
    folder = run(Roots(), tmp_path)
    before = fingerprints(folder.path)
    with pytest.raises(RunError, match=r"holds another.*way of batching has changed.*Move .* away"):
        run(Roots(moved=True), tmp_path)
    plan = folder.path / "plan.json"
    plan.write_text(plan.read_text().replace("2", "3", 1))  # damaged: not what its own sha256 says
    run(Roots(), tmp_path)
    assert fingerprints(folder.path) == before


def test_progress_without_a_terminal_is_a_few_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_task(Roots(), tmp_path, label="roots")
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0] == "roots: 30 samples"
    assert lines[-1].startswith("roots: 30/30 samples")
    assert len(lines) <= 5
    run_task(Roots(), tmp_path / "quiet", progress=False)
    assert capsys.readouterr().err == ""


def test_a_run_without_a_label_is_called_as_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_task(Roots(n=4), tmp_path)
    assert capsys.readouterr().err.splitlines()[0] == f"{folder.path.name}: 4 samples"


def test_zero_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="workers ≥ 1, got 0"):
        run(Roots(), tmp_path, workers=0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "nowhere"}, "expected address to be None"),
        ({"address": "local", "gpus": 1.5}, "a fraction below 1 or a whole number, got 1.5"),
        ({"gpus": 1}, "expected gpus only with an address"),
        ({"devices": [3]}, "device"),
        ({"loaders": 65}, "loaders"),
        ({"part": (3, 2)}, "part"),
    ],
)
def test_every_option_counts_for_one_task_and_for_many(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RunError, match=message):
        run(Roots(), tmp_path, **options)
    with pytest.raises(RunError, match=message):
        run_tasks([[("", Roots())]], tmp_path, progress=False, **options)
