from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from interp.cli import merge_command
from interp.errors import RunError
from interp.run import RunFolder, merge, run_task
from interp.run.merge import _copy_sessions
from tests.run.fake_task import Roots
from tests.run.other_versions import older
from tests.run.run_fingerprints import fingerprints, leftovers

OF = 3


def parts(tmp_path: Path, **changes: object) -> list[Path]:
    """Three machines, each with its own folder."""
    places = [tmp_path / f"machine-{number}" for number in range(1, OF + 1)]
    for number, place in enumerate(places, 1):
        task = Roots(bad=(5, 9), **changes)  # pyright: ignore[reportArgumentType]
        run_task(task, place, progress=False, part=(number, OF))
    return places


def whole(tmp_path: Path) -> dict[str, str]:
    run_task(Roots(bad=(5, 9)), tmp_path / "whole", progress=False)
    return fingerprints(tmp_path / "whole")


def test_three_parts_become_the_bytes_of_a_single_run(tmp_path: Path) -> None:
    places = parts(tmp_path)
    (folder,) = merge(places, tmp_path / "out")
    assert fingerprints(tmp_path / "out") == whole(tmp_path)
    assert folder.path.parent == tmp_path / "out"
    again = Roots(bad=(5, 9))
    assert run_task(again, tmp_path / "out", progress=False) == folder
    assert again.calls == []
    sessions = folder.read_json("manifest.json", {})["sessions"]
    assert sorted(session["shards"]["part"] for session in sessions) == [[1, 3], [2, 3], [3, 3]]
    cost = folder.read_json("cost.json", {})
    assert (
        cost["total"]["seconds"]
        == json.loads(next((tmp_path / "whole").glob("*/cost.json")).read_text())["total"]["seconds"]
    )
    assert set(cost["shards"]) == {str(shard) for shard in range(8)}


def test_parts_may_be_run_folders_in_any_order(tmp_path: Path) -> None:
    places = parts(tmp_path)
    expected = whole(tmp_path)
    single = [next(place.iterdir()) for place in reversed(places)]
    merge(single, tmp_path / "out")
    assert fingerprints(tmp_path / "out") == expected
    merge(places[1:], places[0])
    assert fingerprints(places[0]) == expected
    before = {file: file.stat().st_mtime_ns for file in places[0].glob("**/*.parquet")}
    merge(places, places[0])
    assert {file: file.stat().st_mtime_ns for file in places[0].glob("**/*.parquet")} == before


def test_a_merge_adds_up_what_its_parts_cost(tmp_path: Path) -> None:
    (folder,) = merge(parts(tmp_path), tmp_path / "out")
    cost = folder.read_json("cost.json", {})
    assert cost["total"]["seconds"] == 0.5 * 15  # for each micro-batch of thirty samples
    assert set(cost["shards"]) == {str(shard) for shard in range(8)}
    assert len(folder.read_json("manifest.json", {})["sessions"]) == 3


def test_a_single_path_is_a_list_of_one(tmp_path: Path, unchecked: None) -> None:
    folder = run_task(Roots(n=6), tmp_path / "one", progress=False)
    for number, given in enumerate((str(tmp_path / "one"), folder.path)):
        merge(given, tmp_path / str(number))  # pyright: ignore[reportArgumentType]
        assert fingerprints(tmp_path / str(number)) == fingerprints(tmp_path / "one")


def test_more_parts_than_shards(tmp_path: Path) -> None:
    places = [tmp_path / str(number) for number in range(1, 4)]
    for number, place in enumerate(places, 1):
        run_task(Roots(n=6), place, progress=False, part=(number, 3))
    run_task(Roots(n=6), tmp_path / "whole", progress=False)
    merge(places, tmp_path / "out")
    assert fingerprints(tmp_path / "out") == fingerprints(tmp_path / "whole")


def test_a_missing_part_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    places = parts(tmp_path)
    with pytest.raises(
        RunError, match=r"all 8 shards .* shards \[1, 4, 7\] .*--shard 2/3.*Nothing was written"
    ):
        merge([places[0], places[2]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unfinished_or_damaged_part_counts_as_missing(tmp_path: Path) -> None:
    places = parts(tmp_path)
    folder = RunFolder.open(next(places[1].iterdir()))
    file = folder.shard_file(4, "maps")
    data = bytearray(file.read_bytes())
    data[-12] ^= 1
    file.write_bytes(data)
    with pytest.raises(RunError, match=r"shards \[4\] are absent or damaged .*--shard 2/3"):
        merge(places, tmp_path / "out")
    run_task(Roots(bad=(5, 9)), places[1], progress=False, part=(2, 3))
    merge(places, tmp_path / "out")
    assert fingerprints(tmp_path / "out") == whole(tmp_path)


def test_overlapping_parts_that_agree_are_merged(tmp_path: Path) -> None:
    places = parts(tmp_path)
    run_task(Roots(bad=(5, 9)), places[0], progress=False, part=(1, 2))
    RunFolder.open(next(places[0].iterdir())).seal_file(4).write_bytes(b"{}")
    merge(places, tmp_path / "out")
    assert fingerprints(tmp_path / "out") == whole(tmp_path)


def test_parts_that_overlap_and_differ_are_refused(tmp_path: Path) -> None:
    places = parts(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(places[1], other)
    folder = RunFolder.open(next(other.iterdir()))
    tables = folder.read_shard(4, {"failures": _schema("failures"), **Roots().schemas()})
    assert tables is not None
    column = tables["scores"].column("value")
    nudged = tables["scores"].set_column(2, "value", pa.array([v + 1e-7 for v in column.to_pylist()]))
    folder.write_shard(4, {**tables, "scores": nudged})
    with pytest.raises(
        RunError, match=r"same shard 4 .*machine-2.* and .*other.* differ.*00004\.\*.*trust less"
    ):
        merge([*places, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _schema(table: str) -> pa.Schema:
    from interp.run.shards import schemas_of

    return schemas_of(Roots())[table]


def test_foreign_parts_are_refused(tmp_path: Path) -> None:
    places = parts(tmp_path)
    (tmp_path / "empty").mkdir()
    run_task(Roots(n=6), tmp_path / "other", progress=False, part=(2, 3))
    mine, foreign = next(places[0].iterdir()), next((tmp_path / "other").iterdir())
    for wrong, message in (
        ([], "at least one part to merge, got none"),
        ([*places, tmp_path / "empty"], r"expected runs in .*empty.*got none"),
        ([mine, foreign], r"parts of one run, got different ones: .*Their studies differ"),
        ([*places, tmp_path / "other"], rf"all 2 shards of {foreign.name}"),
    ):
        with pytest.raises(RunError, match=message):
            merge(wrong, tmp_path / "out")
    renamed = mine.with_name("roots-0123456789ab")
    mine.rename(renamed)
    with pytest.raises(RunError, match=r"named by the hash of its study\.json"):
        merge(places, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_shard_of_another_run_in_a_part_counts_as_missing(tmp_path: Path) -> None:
    places = parts(tmp_path)
    foreign = run_task(Roots(), tmp_path / "foreign", progress=False)
    folder = RunFolder.open(next(places[1].iterdir()))
    for file in foreign.path.glob("shards/00001.*"):
        shutil.copyfile(file, folder.path / "shards" / file.name)
    with pytest.raises(RunError, match=r"shards \[1\] are absent or damaged"):
        merge(places, tmp_path / "out")


def test_parts_of_another_plan_schema_or_version_are_refused(tmp_path: Path) -> None:
    places = parts(tmp_path)
    moved = tmp_path / "moved"
    run_task(Roots(bad=(5, 9), moved=True), moved, progress=False, part=(2, 3))
    with pytest.raises(RunError, match=r"one plan\.json .*different versions of interp: run them again"):
        merge([places[0], moved, places[2]], tmp_path / "out")
    folder = RunFolder.open(next(places[1].iterdir()))
    tables = {
        name: pa.table({"index": list(Roots().plan().indices(4))}) for name in ("failures", "maps", "scores")
    }
    folder.write_shard(4, tables)
    with pytest.raises(RunError, match=r"same columns in every shard, but those of shard 4 in .*machine-2"):
        merge(places, tmp_path / "out")
    plan = folder.path / "plan.json"
    plan.unlink()
    for other in (places[0], places[2]):
        shutil.rmtree(other)
    with pytest.raises(RunError, match=r"whole plan\.json beside the shards of .*Run the part again"):
        merge([places[1]], tmp_path / "out")
    run_task(Roots(bad=(5, 9)), places[1], progress=False, part=(2, 3))
    older(folder.path)
    with pytest.raises(RunError, match=r"version 4 in .*, got 1\. An older interp wrote it"):
        merge([places[1]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_run_in_the_parts_is_merged(tmp_path: Path) -> None:
    places = parts(tmp_path)
    for number, place in enumerate(places, 1):
        run_task(Roots(n=10), place, progress=False, part=(number, OF))
        RunFolder.create(place, "grid", {"study": "grid", "cells": ["a", "b"]})
    merged = merge(places, tmp_path / "out")
    for task in (Roots(bad=(5, 9)), Roots(n=10)):
        run_task(task, tmp_path / "whole", progress=False)
    RunFolder.create(tmp_path / "whole", "grid", {"study": "grid", "cells": ["a", "b"]})
    assert [folder.path.name.split("-")[0] for folder in merged] == ["grid", "roots", "roots"]
    assert fingerprints(tmp_path / "out") == fingerprints(tmp_path / "whole")


def test_of_two_copies_of_an_account_the_longer_is_kept(tmp_path: Path) -> None:
    for place, text in (("early", "{}"), ("late", '{"shards": {}}')):
        (tmp_path / place / "s" / "p").mkdir(parents=True)
        (tmp_path / place / "s" / "p" / "cost.json").write_text(text)
    for order in (("early", "late"), ("late", "early")):
        for place in order:
            _copy_sessions(tmp_path / place, tmp_path / "-".join(order))
        kept = tmp_path / "-".join(order) / "s" / "p" / "cost.json"
        assert kept.read_text() == '{"shards": {}}'


def test_the_command_names_what_it_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = parts(tmp_path)
    assert merge_command(places, tmp_path / "out") == 0
    (folder,) = (tmp_path / "out").iterdir()
    assert capsys.readouterr().out == f"merged {folder}\n"


def test_merged_parts_are_the_bytes_of_one_run(tmp_path: Path) -> None:
    from interp.study import Grid
    from tests.study.planted import samples, sweep

    study = Grid(sweep(), data={"natural": samples(20), "medical": samples(9, start=30)})
    single = study.run(tmp_path / "whole", progress=False)
    for number in (1, 2):
        part = study.run(tmp_path / str(number), progress=False, part=(number, 2))
        with pytest.raises(RunError, match="interp merge"):
            _ = part.scores
    merge([tmp_path / "1", tmp_path / "2"], tmp_path / "out")
    assert fingerprints(tmp_path / "out") == fingerprints(tmp_path / "whole")
    joined = study.run(tmp_path / "out", progress=False)
    assert joined.scores.equals(single.scores)
    assert joined.cost.forwards.tolist() == single.cost.forwards.tolist()


def test_a_run_without_its_study_is_not_left_out_in_silence(tmp_path: Path) -> None:
    places = parts(tmp_path)
    (next(places[1].iterdir()) / "study.json").unlink()
    run_task(Roots(n=4), places[1], progress=False)  # another run, which is whole
    with pytest.raises(
        RunError, match=r"expected a study.json in every run's folder, .* absent from .*machine-2"
    ):
        merge(places, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_shard_that_vanishes_during_a_merge_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = parts(tmp_path)
    read, times = RunFolder.shard_bytes, [0]

    def vanishing(self: RunFolder, shard: int, tables: Any) -> Any:
        times[0] += shard == 4 and "machine-2" in str(self.path)
        if times[0] == 2:  # it was there when the merge was planned
            self.shard_file(4, "maps").unlink(missing_ok=True)
        return read(self, shard, tables)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "shard_bytes", vanishing)
        with pytest.raises(
            RunError, match=r"shard 4 of .*machine-2.* stay whole while it was merged.*Run that part again"
        ):
            merge(places, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*/tables/*.json"))  # nothing looks finished
    run_task(Roots(bad=(5, 9)), places[1], progress=False, part=(2, 3))
    merge(places, tmp_path / "out")
    assert fingerprints(tmp_path / "out") == whole(tmp_path)


def test_parts_that_disagree_on_their_number_give_no_hint(tmp_path: Path) -> None:
    for number, part in ((1, (1, 3)), (2, (1, 2))):
        run_task(Roots(n=12), tmp_path / str(number), progress=False, part=part)
    with pytest.raises(RunError, match=r"shards \[1\] are absent") as caught:
        merge([tmp_path / "1", tmp_path / "2"], tmp_path / "out")
    assert "--shard" not in str(caught.value)


def test_a_merge_killed_before_it_joined_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    places = parts(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            merge(places, tmp_path / "out")
    merge(places, tmp_path / "out")
    assert fingerprints(tmp_path / "out") == whole(tmp_path)


def test_what_a_run_was_made_of_is_of_the_first_part_that_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, written = parts(tmp_path), list[str]()
    for number, place in enumerate(places[1:], 2):
        (folder,) = place.iterdir()
        (folder / "declared.json").write_text(f"part {number}")
        (folder / "samples-a.jsonl").write_text(f"samples {number}")
    replace = os.replace

    def noted(source: Any, target: Any) -> None:
        written.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", noted)
    (merged,) = merge(places, tmp_path / "out")
    assert (merged.path / "declared.json").read_text() == "part 2"
    assert (merged.path / "samples-a.jsonl").read_text() == "samples 2"
    assert written.index("samples-a.jsonl") < written.index("declared.json")  # which says that they are there
    (merged.path / "declared.json").write_text("its own")
    merge(places[2:], tmp_path / "out")
    assert (merged.path / "declared.json").read_text() == "its own"


@pytest.mark.parametrize("name", ["scores", "failures"])
def test_a_merge_joins_whichever_table_is_not_there(tmp_path: Path, name: str) -> None:
    places = parts(tmp_path)
    (folder,) = merge(places, tmp_path / "out")
    before = fingerprints(tmp_path / "out")
    (folder.path / "tables" / f"{name}.json").unlink()
    merge(places, tmp_path / "out")
    assert fingerprints(tmp_path / "out") == before


def test_leftovers_of_a_killed_merge_are_removed(tmp_path: Path) -> None:
    places = parts(tmp_path)
    target = tmp_path / "out" / next(places[0].iterdir()).name
    dead = f".{os.uname().nodename}.{2**22 + 1}.0123abcd.tmp"
    for name in (".study.json", "shards/.00000.json", "tables/.scores.parquet"):
        file = target / f"{name}{dead}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("half")
    merge(places, tmp_path / "out")
    assert leftovers(tmp_path / "out") == []
    assert fingerprints(tmp_path / "out") == whole(tmp_path)


def test_a_part_that_cannot_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = parts(tmp_path)
    record = next(places[0].glob("*/sessions/*/manifest.json"))
    record.unlink()
    record.mkdir()
    with pytest.raises(
        RunError, match=r"expected to read the parts and to write .*Nothing in the parts was changed"
    ):
        merge(places, tmp_path / "out")


@pytest.mark.parametrize("given", [5, None, [None], [""]])
def test_what_are_no_parts_is_refused(tmp_path: Path, unchecked: None, given: Any) -> None:
    with pytest.raises(RunError, match=r"expected (a list of folders|parts to be a path)"):
        merge(given, tmp_path)
    with pytest.raises(RunError, match="expected out to be a path"):
        merge([tmp_path], given if given is None else 5)  # pyright: ignore[reportArgumentType]
