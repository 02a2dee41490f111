"""One pass for several cells: what a model gave for a micro-batch, kept while a grid runs."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.indicators import Maps

__all__ = ["AFTER_THE_PASS", "Passes", "shared_passes"]

AFTER_THE_PASS = ("metrics", "metric", "rule", "seed")
"""Fields of a study with an indicator that only say what is computed from its maps."""


@dataclass(frozen=True)
class Passes:
    """The maps of finished micro-batches, one file each, exactly as the indicator returned them.

    It travels to worker processes by its path. The stored shards would not do: they round to float32.
    """

    folder: Path

    def once(self, indices: tuple[int, ...], run: Callable[[], Maps]) -> tuple[Maps, bool]:
        """The maps of these samples, and whether they were there already; otherwise `run` makes them."""
        file = self.folder / hashlib.sha256(repr(indices).encode()).hexdigest()[:32]
        if file.exists():
            return pickle.loads(file.read_bytes()), True
        maps = run()
        with suppress(OSError):  # a full disk costs another pass, not the run
            self.folder.mkdir(parents=True, exist_ok=True)
            unfinished = file.with_suffix(f".{os.getpid()}")
            unfinished.write_bytes(pickle.dumps(maps, protocol=pickle.HIGHEST_PROTOCOL))
            unfinished.replace(file)
        return maps, False

    def clear(self) -> None:
        """Give the disk back."""
        shutil.rmtree(self.folder, ignore_errors=True)


def shared_passes(studies: Sequence[Any], folder: Path) -> tuple[Passes | None, ...]:
    """For each study the passes it shares with others of them; None where it is alone."""
    first, kinds, places = studies[0], [], []
    after = [name for name in AFTER_THE_PASS if hasattr(first, name)]
    for study in studies:
        kind = study.replace(**{name: getattr(first, name) for name in after})
        if kind not in kinds:
            kinds.append(kind)
        places.append(kinds.index(kind))
    return tuple(Passes(folder / str(place)) if places.count(place) > 1 else None for place in places)
