"""Joins the shards' tables in the order of the samples, in memory that does not grow with the number of samples.

Rows that take less than `BUDGET` bytes are sorted at once. More of them are first parted into ranges of samples, a
temporary file each, and then one range after the other is sorted and written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from interp.errors import RunError
from interp.inputs.files import temporary_name
from interp.run.store import RunFolder

__all__ = ["BUDGET", "join_tables"]

BUDGET = 2**26
"""Bytes of a table that are sorted at once."""
MOST_RANGES = 256
"""The largest number of temporary files of a table, which are open at the same time."""


def join_tables(
    folder: RunFolder,
    n_shards: int,
    schemas: Mapping[str, pa.Schema],
    *,
    n_samples: int | None = None,
    budget: int = BUDGET,
) -> None:
    """Joins each table over all shards, with its rows in the order of the samples, and stores it.

    Args:
        folder: The run's folder.
        n_shards: How many shards the run has.
        schemas: The columns of each table to join.
        n_samples: How many samples the run has, where that is known; ranges of samples are cut more evenly then.
        budget: Bytes of a table that are held in memory at once.

    Raises:
        RunError: A shard is no longer complete, or a table cannot be written.
    """
    with ExitStack() as stack:
        sorters = {
            name: _Sorter(folder, name, schema, (n_shards, n_samples), budget, stack)
            for name, schema in schemas.items()
        }
        for shard in range(n_shards):
            tables = folder.read_shard(shard, schemas)
            if tables is None:
                raise RunError(
                    f"expected shard {shard} of {folder.path} to be whole after it was written. Is the disk "
                    f"failing, or does another program write there? Run again."
                )
            for name, table in tables.items():
                sorters[name].add(table.replace_schema_metadata(None))
        for name, sorter in sorters.items():
            folder.write_rows(name, sorter.parts())


class _Sorter:
    """One table's rows, shard by shard, to be given back in the order of the samples."""

    def __init__(
        self,
        folder: RunFolder,
        name: str,
        schema: pa.Schema,
        sizes: tuple[int, int | None],
        budget: int,
        stack: ExitStack,
    ) -> None:
        self._schema, self._budget, self._stack = schema, budget, stack
        self._n_shards, self._n_samples = sizes
        self._place = folder.path / "tables" / name
        self._held: list[pa.Table] = []
        self._n_bytes = 0
        self._ends = np.empty(0)
        """The first sample of each range but the first."""
        self._files: list[Path] = []
        self._writers: list[Any] = []

    def add(self, table: pa.Table) -> None:
        """Takes the rows of the next shard."""
        if not self._writers:
            self._held.append(table)
            self._n_bytes += table.nbytes
            if self._n_bytes > self._budget:
                self._spill()
        else:
            self._part(table)

    def parts(self) -> Iterator[pa.Table]:
        """Yields all rows in order; of more than the budget one range of samples after the other."""
        if not self._writers:
            yield _sorted(pa.concat_tables(self._held or [self._schema.empty_table()]))
            return
        for writer in self._writers:
            writer.close()
        for file in self._files:
            with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as reader:
                yield _sorted(reader.read_all())
            file.unlink()

    def _spill(self) -> None:
        """Parts what is held among temporary files, and from now on what comes."""
        share = self._n_shards / len(self._held)
        largest = max(int(table.column("index").to_numpy().max(initial=0)) for table in self._held)
        n_samples = self._n_samples or share * (largest + 1)
        n = min(MOST_RANGES, 1 + int(2 * share * self._n_bytes / self._budget))
        self._ends = np.linspace(0, n_samples, n + 1)[1:-1]
        for _ in range(n):
            file = temporary_name(self._place)
            self._stack.callback(file.unlink, missing_ok=True)
            self._files.append(file)
            file.parent.mkdir(parents=True, exist_ok=True)
            sink = self._stack.enter_context(pa.OSFile(str(file), "wb"))
            self._writers.append(self._stack.enter_context(pa.ipc.new_stream(sink, self._schema)))
        for table in self._held:
            self._part(table)
        self._held.clear()

    def _part(self, table: pa.Table) -> None:
        at = np.searchsorted(self._ends, table.column("index").to_numpy(), side="right")
        for number in np.unique(at).tolist():
            self._writers[number].write_table(table.filter(pa.array(at == number)).combine_chunks())


def _sorted(table: pa.Table) -> pa.Table:
    """The rows by sample; those of one sample keep their order."""
    order = np.argsort(table.column("index").to_numpy(), kind="stable")
    return table.take(order).combine_chunks()
