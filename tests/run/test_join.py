from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from interp.run.merge import join_tables
from interp.run.store import SCHEMA_VERSION, RunFolder

SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("name", pa.dictionary(pa.int32(), pa.string())),
        ("value", pa.float64()),
        ("cells", pa.list_(pa.float32())),
    ]
)
SHARDS, EACH = 30, 8


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run whose shards hold samples in random order, three rows each; some samples have none."""
    folder = RunFolder.create(tmp_path, "joined", {"schema": SCHEMA_VERSION})
    order = np.random.default_rng(0).permutation(SHARDS * EACH)
    for shard in range(SHARDS):
        samples = [int(i) for i in np.sort(order[shard * EACH : (shard + 1) * EACH]) if i % 7]
        rows = [
            {"index": i, "name": f"{shard} {k}", "value": i + k / 4, "cells": [i] * k}
            for i in samples
            for k in range(3)
        ]
        folder.write_shard(shard, {"scores": pa.Table.from_pylist(rows, schema=SCHEMA)})
    return folder


def test_rows_come_in_the_order_of_the_samples(folder: RunFolder) -> None:
    join_tables(folder, SHARDS, {"scores": SCHEMA})
    table = folder.read_table("scores")
    expected = [i + k / 4 for i in range(SHARDS * EACH) if i % 7 for k in range(3)]
    assert table.column("value").to_pylist() == expected
    assert folder.n_rows("scores") == len(expected)


@pytest.mark.parametrize("budget", [1, 3000])
def test_little_memory_gives_the_same_rows(folder: RunFolder, budget: int) -> None:
    join_tables(folder, SHARDS, {"scores": SCHEMA})
    whole = folder.read_table("scores")
    join_tables(folder, SHARDS, {"scores": SCHEMA}, budget=budget)
    assert folder.read_table("scores").to_pylist() == whole.to_pylist()
    assert sorted(file.name for file in (folder.path / "tables").iterdir()) == [
        "scores.json",
        "scores.parquet",
    ]


@pytest.mark.parametrize("budget", [1, 100, 10**6])
@pytest.mark.parametrize("empty", [{0, 2}, {3}, {0, 1, 2, 3}])
def test_shards_without_rows_are_joined(tmp_path: Path, empty: set[int], budget: int) -> None:
    folder = RunFolder.create(tmp_path, "joined", {"schema": SCHEMA_VERSION})
    for shard in range(4):
        rows = [] if shard in empty else [{"index": i, "value": i / 2} for i in (7 - shard, shard)]
        folder.write_shard(shard, {"scores": pa.Table.from_pylist(rows, schema=SCHEMA)})
    join_tables(folder, 4, {"scores": SCHEMA}, budget=budget)
    samples = sorted(i for shard in {0, 1, 2, 3} - empty for i in (7 - shard, shard))
    assert folder.read_table("scores").column("value").to_pylist() == [i / 2 for i in samples]


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each part of a table that is written."""
    parts: list[int] = []
    write = RunFolder.write_rows

    def counting(self: RunFolder, name: str, given: object) -> None:
        def seen() -> object:
            for part in given:  # type: ignore[attr-defined]
                parts.append(part.nbytes)
                yield part

        write(self, name, seen())  # type: ignore[arg-type]

    monkeypatch.setattr(RunFolder, "write_rows", counting)
    return parts


def test_a_range_of_samples_is_in_memory_at_a_time(folder: RunFolder, parts: list[int]) -> None:
    join_tables(folder, SHARDS, {"scores": SCHEMA}, n_samples=SHARDS * EACH, budget=3000)
    assert len(parts) > 4
    assert max(parts) < 2 * 3000, parts
    parts.clear()
    join_tables(folder, SHARDS, {"scores": SCHEMA}, budget=1)
    assert len(parts) == 256  # files that are open at once


def test_ranges_are_guessed_where_n_samples_is_not_known(tmp_path: Path, parts: list[int]) -> None:
    """From the shards that were read first, of which each holds as many samples."""
    folder = RunFolder.create(tmp_path, "joined", {"schema": SCHEMA_VERSION})
    for shard in range(SHARDS):
        rows = [
            {"index": i, "value": float(i)} for i in range(shard * EACH, (shard + 1) * EACH) for _ in range(3)
        ]
        folder.write_shard(shard, {"scores": pa.Table.from_pylist(rows, schema=SCHEMA)})
    join_tables(folder, SHARDS, {"scores": SCHEMA}, budget=3000)
    assert len(parts) > 4
    assert max(parts) < 2 * 3000, parts
