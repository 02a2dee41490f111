"""Files that a worker sends to the driver instead of writing them, for clusters without a shared file system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from interp.inputs.files import write_atomically
from interp.run.store import RunFolder

__all__ = ["SentFiles", "UnwrittenFolder", "store_sent_files"]

SentFiles = Mapping[str, bytes]
"""The content of files by their path in the run's folder, in the order in which they are to be written."""


@dataclass(frozen=True)
class UnwrittenFolder(RunFolder):
    """A run's folder that holds nothing and keeps in memory what is written to it.

    Its path is that of the driver's folder, which may not exist on the worker's machine, or hold something else.
    """

    files: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def like(cls, folder: RunFolder) -> UnwrittenFolder:
        """Returns the unwritten folder of the same run."""
        return cls(folder.path, folder.digest)

    def check_there(self) -> None:
        """Does nothing: the driver checks its folder when it writes."""

    def read_shard(self, shard: int, tables: Mapping[str, pa.Schema]) -> dict[str, pa.Table] | None:
        """Returns None: no shard is here."""
        return None

    def read_json(self, name: str, default: Any) -> Any:
        """Returns the default: no file is here."""
        return default

    def take(self) -> dict[str, bytes]:
        """Returns what was written since the last call."""
        taken = dict(self.files)
        self.files.clear()
        return taken

    def _write(self, file: Path, data: bytes) -> None:
        self.files[file.relative_to(self.path).as_posix()] = data


def store_sent_files(folder: RunFolder, files: SentFiles) -> None:
    """Writes what a worker sent into the run's folder, each file atomically and in order: a shard's seal is last.

    Raises:
        RunError: The folder is gone or cannot be written.
    """
    for name, data in files.items():
        folder.check_there()
        write_atomically(folder.path / name, data)
