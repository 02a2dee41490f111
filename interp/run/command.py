"""`interp merge`: the command line's door to `merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from interp.run.merge import merge

__all__ = ["merge_command"]


def merge_command(parts: Annotated[list[Path], tyro.conf.Positional], out: Path = Path("runs")) -> int:
    """Join the parts of runs that several machines computed with --shard i/n.

    Afterwards the same study, run without --shard on the same --out, computes nothing and shows its result.

    Args:
        parts: folders that were the --out of the parts; every run in them is merged.
        out: folder for the whole runs; what it already holds counts as a part.
    """
    for folder in merge(parts, out):
        print(f"merged {folder.path}")
    return 0
