"""The small tables of a run, joined over its shards."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from interp.errors import RunError
from interp.run.store import RunFolder

__all__ = ["join_tables"]


def join_tables(folder: RunFolder, n_shards: int, schemas: Mapping[str, pa.Schema]) -> None:
    """Store each table over all shards, its rows in the order of the samples.

    Raises:
        RunError: A shard is no longer whole, or a table cannot be written.
    """
    parts: dict[str, list[pa.Table]] = {name: [] for name in schemas}
    for shard in range(n_shards):
        tables = folder.read_shard(shard, schemas)
        if tables is None:
            raise RunError(
                f"expected shard {shard} of {folder.path} to be whole after it was written. Is the disk "
                f"failing, or does another program write there? Run again."
            )
        for name, table in tables.items():
            parts[name].append(table)
    for name, tables in parts.items():
        joined = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
        order = np.argsort(joined.column("index").to_numpy(), kind="stable")
        folder.write_table(name, joined.take(order).combine_chunks())
