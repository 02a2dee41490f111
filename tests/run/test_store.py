from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pyarrow as pa
import pytest

from interp.errors import RunError
from interp.run import RunFolder, canonical, digest
from interp.run.store import write_atomically

SCHEMA = {"scores": pa.schema([("index", pa.int64()), ("value", pa.float64())])}
STUDY = {"study": "s", "b": 1, "a": [1, 2]}


def make(tmp_path: Path, values: tuple[float, ...] = (0.5, 1.5)) -> RunFolder:
    folder = RunFolder.create(tmp_path, "s", STUDY)
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


def test_an_edited_study_json_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (folder.path / "study.json").write_text("{}")
    with pytest.raises(RunError, match="was edited or copied"):
        RunFolder.create(tmp_path, "s", STUDY)


@pytest.mark.parametrize("damage", ["truncate", "empty", "flip", "foreign", "other shard", "other columns"])
def test_a_damaged_shard_counts_as_absent(tmp_path: Path, damage: str) -> None:
    folder = make(tmp_path, tuple(range(500)))
    file = folder.shard_file(3, "scores")
    data = bytearray(file.read_bytes())
    if damage == "truncate":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "flip":  # a bit of the column's data: the footer stays readable
        data[len(data) // 3] ^= 0x10
        file.write_bytes(data)
    elif damage == "foreign":
        other = RunFolder.create(tmp_path, "s", {**STUDY, "b": 2})
        other.write_shard(3, {"scores": folder.read_shard(3, SCHEMA)["scores"]})  # pyright: ignore
        file.write_bytes(other.shard_file(3, "scores").read_bytes())
    elif damage == "other shard":
        folder.shard_file(4, "scores").write_bytes(data)
        assert folder.read_shard(4, SCHEMA) is None
        return
    else:
        assert folder.read_shard(3, {"scores": pa.schema([("index", pa.int64())])}) is None
        return
    assert folder.read_shard(3, SCHEMA) is None


def test_a_failed_write_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.json"
    write_atomically(file, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"No space left on device.*Free space"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_temporary_files_of_dead_writers_are_removed_and_of_live_ones_kept(tmp_path: Path) -> None:
    folder = make(tmp_path)
    host = os.uname().nodename
    shards = folder.path / "shards"
    alive = shards / f".00000.scores.parquet.{host}.{os.getpid()}.0123abcd.tmp"
    dead = shards / f".00000.scores.parquet.{host}.{2**22 + 1}.0123abcd.tmp"  # above Linux's largest pid
    alive.write_bytes(b"x"), dead.write_bytes(b"x")
    RunFolder.create(tmp_path, "s", STUDY)
    assert alive.exists()
    assert not dead.exists()


def test_an_absent_table_says_how_to_get_it(tmp_path: Path) -> None:
    folder = make(tmp_path)
    assert not folder.has_table("scores")
    with pytest.raises(RunError, match="Run the study again"):
        folder.read_table("scores")
    with pytest.raises(RunError, match=r"study\.json"):
        RunFolder.open(tmp_path / "nowhere")
