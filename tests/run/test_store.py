from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interp.errors import RunError
from interp.run import RunFolder, canonical, digest, folder_name, run_task
from interp.run.store import read_plan
from tests.fuzz.trials import limited
from tests.run.fake_task import Roots
from tests.run.other_versions import newer, older

SCHEMA = {"scores": pa.schema([("index", pa.int64()), ("value", pa.float64())])}
STUDY: dict[str, object] = {"study": "s", "b": 1, "a": [1, 2]}


def make(
    tmp_path: Path, values: tuple[float, ...] = (0.5, 1.5), study: dict[str, object] = STUDY
) -> RunFolder:
    folder = RunFolder.create(tmp_path, "s", study)
    rows = [{"index": index, "value": value} for index, value in enumerate(values)]
    folder.write_shard(3, {"scores": pa.Table.from_pylist(rows, schema=SCHEMA["scores"])})
    return folder


def test_the_folder_is_named_by_the_sha256_of_its_study_json(tmp_path: Path) -> None:
    folder = make(tmp_path)
    stored = (folder.path / "study.json").read_bytes()
    assert folder.path.name == "s-" + hashlib.sha256(stored).hexdigest()[:12]
    assert RunFolder.open(folder.path) == folder
    assert digest({"b": 1, "a": [1, 2], "study": "s"}) == folder.digest
    assert canonical({"é": 1}) == '{\n "é": 1\n}\n'


def test_a_seal_and_its_files_say_what_they_are_of(tmp_path: Path) -> None:
    folder = make(tmp_path)
    file = folder.path / "shards" / "00003.scores.parquet"
    assert json.loads((folder.path / "shards" / "00003.json").read_text()) == {
        "run": folder.digest,
        "shard": "3",
        "version": 4,
        "sha256": {"scores": hashlib.sha256(file.read_bytes()).hexdigest()},
    }
    folder.write_table("scores", pa.table({"index": [1]}))
    for part, shard in ((file, "3"), (folder.path / "tables" / "scores.parquet", "all")):
        marks = {"run": folder.digest, "shard": shard, "version": "4"}
        found = pq.read_schema(part).metadata
        assert {name.decode(): value.decode() for name, value in found.items()} == marks


def test_a_stored_plan_names_shards_and_tables(tmp_path: Path) -> None:
    folder = run_task(Roots(n=6), tmp_path, progress=False)
    stored = json.loads((folder.path / "plan.json").read_text())
    sha = stored.pop("sha256")
    assert stored == {
        "version": 4,
        "run": folder.digest,
        "shards": [[[0, 3], [1, 4]], [[2, 5]]],  # two samples of one length in each micro-batch
        "tables": ["failures", "maps", "scores"],
        "joined": ["scores", "failures"],
    }
    assert sha == digest(stored)


def test_a_shard_reads_back_as_it_was_written(tmp_path: Path) -> None:
    folder = make(tmp_path)
    read = folder.read_shard(3, SCHEMA)
    assert read is not None
    assert read["scores"].to_pydict() == {"index": [0, 1], "value": [0.5, 1.5]}
    assert folder.read_shard(2, SCHEMA) is None


def test_rows_are_found_across_shards(tmp_path: Path) -> None:
    folder = make(tmp_path)
    rows = [{"index": index, "value": float(index)} for index in (7, 8, 9)]
    folder.write_shard(4, {"scores": pa.Table.from_pylist(rows, schema=SCHEMA["scores"])})
    assert folder.find("scores", index=[1, 8, 12]).to_pydict() == {"index": [1, 8], "value": [1.5, 8.0]}


def test_rows_come_in_the_order_of_their_shards(tmp_path: Path) -> None:
    folder = make(tmp_path)
    for shard in (12, 5, 100, 0, 7, 30, 1):
        folder.write_shard(shard, {"maps": pa.table({"index": [shard]})})
    assert folder.find("maps", index=range(200)).to_pydict() == {"index": [0, 1, 5, 7, 12, 30, 100]}


def test_rows_are_found_by_several_columns_at_once(tmp_path: Path) -> None:
    folder = make(tmp_path)
    table = pa.table({"index": [1, 1, 2], "layer": [0, 1, 1]})
    folder.write_shard(0, {"maps": table})
    assert folder.find("maps", index=[1], layer=[1, 2]).to_pylist() == [{"index": 1, "layer": 1}]


def test_some_columns_of_a_joined_table_are_read(tmp_path: Path) -> None:
    folder = make(tmp_path)
    folder.write_table("scores", pa.table({"index": [1, 2], "value": [0.5, 1.5], "layer": [3, 4]}))
    assert folder.read_table("scores", ["value", "index"]).to_pydict() == {
        "value": [0.5, 1.5],
        "index": [1, 2],
    }


def test_a_table_that_the_seal_does_not_name_is_not_there(tmp_path: Path) -> None:
    folder = make(tmp_path)
    assert folder.has_shard(3, ["scores"])
    folder.shard_file(3, "maps").write_bytes(folder.shard_file(3, "scores").read_bytes())
    assert not folder.has_shard(3, ["scores", "maps"])
    assert folder.shard_bytes(3, ["scores", "maps"]) is None


def test_a_shard_of_some_of_its_tables_is_sealed_as_such(tmp_path: Path) -> None:
    folder, other = make(tmp_path), make(tmp_path / "other")
    (table,) = (folder.read_shard(3, SCHEMA) or {}).values()
    folder.write_shard(3, {"scores": table, "maps": table})
    files, alone = (one.shard_bytes(3, ["scores"]) for one in (folder, other))
    assert files == alone
    assert list(files or {})[-1] == "00003.json"  # the seal, which makes it complete, is written last


def test_a_record_of_another_type_is_the_default(tmp_path: Path) -> None:
    folder = make(tmp_path)
    folder.write_json("cost.json", [1])
    assert folder.read_json("cost.json", {"a": 1}) == {"a": 1}
    assert folder.read_json("cost.json", []) == folder.read_json("cost.json", None) == [1]
    assert folder.read_json("absent.json", None) is None


def test_nothing_is_joined_in_a_folder_that_is_gone(tmp_path: Path) -> None:
    folder = make(tmp_path)
    folder.path.rename(tmp_path / "moved")
    with pytest.raises(RunError, match=r"study\.json, but it is gone"):
        folder.write_table("scores", pa.table({"index": [1]}))
    assert not folder.path.exists()


def test_an_edited_study_json_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (folder.path / "study.json").write_text("{}")
    with pytest.raises(RunError, match="was edited or copied"):
        RunFolder.create(tmp_path, "s", STUDY)


@pytest.mark.parametrize(
    "damage", ["truncate", "empty", "foreign", "other shard", "other columns", "no seal"]
)
def test_a_damaged_shard_counts_as_absent(tmp_path: Path, damage: str) -> None:
    folder = make(tmp_path, tuple(range(500)))
    file, seal = folder.shard_file(3, "scores"), folder.seal_file(3)
    data = file.read_bytes()
    if damage == "truncate":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "foreign":  # whole, with its seal, but another run's
        other = make(tmp_path / "other", tuple(range(500)), {**STUDY, "b": 2})
        file.write_bytes(other.shard_file(3, "scores").read_bytes())
        assert folder.read_shard(3, SCHEMA) is None
        seal.write_bytes(other.seal_file(3).read_bytes())
    elif damage == "other shard":
        folder.shard_file(4, "scores").write_bytes(data)
        folder.seal_file(4).write_bytes(seal.read_bytes())
        assert folder.read_shard(4, SCHEMA) is None
        return
    elif damage == "no seal":
        seal.unlink()
    else:
        assert folder.read_shard(3, {"scores": pa.schema([("index", pa.int64())])}) is None
        assert folder.read_shard(3, {**SCHEMA, "maps": SCHEMA["scores"]}) is None
        return
    assert folder.read_shard(3, SCHEMA) is None


def test_whichever_bit_flips_a_shard_counts_as_absent(tmp_path: Path) -> None:
    folder, chance = make(tmp_path), random.Random(0)
    for file in (folder.shard_file(3, "scores"), folder.seal_file(3)):
        whole = file.read_bytes()
        for _ in range(100):
            data, bit = bytearray(whole), chance.randrange(8 * len(whole))
            data[bit // 8] ^= 1 << bit % 8
            file.write_bytes(data)
            assert folder.read_shard(3, SCHEMA) is None, (file.name, bit)
        file.write_bytes(whole)
    assert folder.read_shard(3, SCHEMA) is not None


def test_whichever_bit_of_a_joined_table_flips_it_is_noticed(tmp_path: Path) -> None:
    folder, chance = make(tmp_path), random.Random(1)
    folder.write_table("scores", pa.table({"index": [1, 2], "value": [0.5, 1.5]}))
    file = folder.path / "tables" / "scores.parquet"
    whole = file.read_bytes()
    for _ in range(100):
        data, bit = bytearray(whole), chance.randrange(8 * len(whole))
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        assert not folder.has_table("scores"), bit
    file.write_bytes(whole)
    assert folder.has_table("scores")


def test_a_damaged_shard_is_not_searched(tmp_path: Path) -> None:
    folder = make(tmp_path, tuple(range(500)))
    file = folder.shard_file(3, "scores")
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(RunError, match=r"whole shards with a table scores.*Run the study again"):
        folder.find("scores", index=[1])
    with pytest.raises(RunError, match="whole shards with a table maps"):
        folder.find("maps", index=[1])


def test_a_folder_of_another_store_version_is_refused(tmp_path: Path) -> None:
    folder = run_task(Roots(), tmp_path, progress=False)
    for change, message in (
        (newer, r"run store version 4 in .*, got 99\. A newer interp wrote it: update interp"),
        (
            older,
            r"run store version 4 in .*, got 1\. An older interp wrote it.*move .* away and run the study",
        ),
    ):
        change(folder.path)
        before = {file: file.read_bytes() for file in folder.path.glob("**/*") if file.is_file()}
        for attempt in (
            lambda: run_task(Roots(), tmp_path, progress=False),
            lambda: RunFolder.open(folder.path),
        ):
            with pytest.raises(RunError, match=message):
                attempt()
        assert {file: file.read_bytes() for file in folder.path.glob("**/*") if file.is_file()} == before


def test_a_run_of_another_version_is_not_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = {**STUDY, "schema": 1}
    path = tmp_path / folder_name("s", old)
    path.mkdir()
    (path / "study.json").write_text(canonical(old))
    with pytest.raises(RunError, match=r"got 1\. An older interp wrote it"):
        RunFolder.open(path)
    RunFolder.create(tmp_path, "s", {**STUDY, "b": 7, "schema": 3})
    assert capsys.readouterr().err == ""
    new = RunFolder.create(tmp_path, "s", {**STUDY, "schema": 3})
    said = capsys.readouterr().err
    assert f"{path} holds this study in run store version 1" in said
    assert new.path != path
    RunFolder.create(tmp_path, "s", {**STUDY, "schema": 3})
    assert capsys.readouterr().err == ""


def test_temporary_files_of_dead_writers_are_removed(tmp_path: Path) -> None:
    folder = make(tmp_path)
    host = os.uname().nodename
    shards = folder.path / "shards"
    alive = shards / f".00000.scores.parquet.{host}.{os.getpid()}.0123abcd.tmp"
    dead = shards / f".00000.scores.parquet.{host}.{2**22 + 1}.0123abcd.tmp"  # above Linux's largest pid
    alive.write_bytes(b"x")
    dead.write_bytes(b"x")
    RunFolder.create(tmp_path, "s", STUDY)
    assert alive.exists()
    assert not dead.exists()


def test_a_plan_of_another_run_or_version_is_none(tmp_path: Path) -> None:
    folder = run_task(Roots(n=4), tmp_path, progress=False)
    plan = read_plan(folder.path, folder.digest)
    assert plan is not None
    assert plan.joined == ("scores", "failures")
    assert read_plan(folder.path, "0" * 64) is None
    newer(folder.path)
    assert read_plan(folder.path, folder.digest) is None


def test_an_absent_table_says_how_to_get_it(tmp_path: Path) -> None:
    folder = make(tmp_path)
    assert not folder.has_table("scores")
    with pytest.raises(RunError, match="Run the study again"):
        folder.read_table("scores")
    with pytest.raises(RunError, match=r"study\.json"):
        RunFolder.open(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["scores", "seal", "study"])
def test_a_pipe_in_a_files_place_is_not_waited_for(tmp_path: Path, name: str) -> None:
    folder = run_task(Roots(n=8), tmp_path, progress=False)
    named = {"seal": folder.seal_file(1), "study": folder.path / "study.json"}
    file = named.get(name, folder.shard_file(0, "scores"))
    file.unlink()
    os.mkfifo(file)
    with limited(20.0), pytest.raises(RunError):
        run_task(Roots(n=8), tmp_path, progress=False)
    if name == "scores":
        with limited(20.0), pytest.raises(RunError, match="no regular file"):
            folder.find("scores", index=[1])
