"""A small task without a model: thirty numbers and their square roots, with the faults a test asks for.

python tests/run/fake_task.py OUT [WORKERS] [i/n] [ADDRESS] [LOG]     runs it in a process that never imports torch
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

if "interp" not in sys.modules:  # in a process of its own: the package's front door would open torch
    front = types.ModuleType("interp")
    front.__path__ = [str(Path(__file__).parents[2] / "interp")]
    sys.modules["interp"] = front

from interp.errors import ImageError
from interp.run import Outcome, Plan, as_part, make_plan, run_task


@dataclass
class Roots:
    n: int = 30
    bad: tuple[int, ...] = ()
    bug: int | None = None
    together: tuple[int, int] | None = None
    pause: float = 0.0
    room: int = 99  # a micro-batch of more samples does not fit in memory
    deadly: tuple[int, str] | None = (
        None  # the first process to meet this sample is killed, and leaves a file
    )
    poison: int | None = None  # every process that meets this sample is killed
    log: str | None = None  # a file that gets a line per micro-batch computed: its samples and the process
    moved: bool = False  # another plan for the same study
    blind: bool = False  # another process sees another study
    home: int = field(default_factory=os.getpid)
    calls: list[tuple[int, ...]] = field(default_factory=list)
    name: str = "roots"

    def to_dict(self) -> dict[str, Any]:
        seen = self.n + (self.blind and os.getpid() != self.home)
        return {"study": "roots", "n": seen, "bad": list(self.bad)}

    def provenance(self) -> dict[str, Any]:
        return {"model": {"id": "none"}}

    def schemas(self) -> Mapping[str, pa.Schema]:
        scores = pa.schema([("index", pa.int64()), ("layer", pa.int32()), ("value", pa.float64())])
        return {"scores": scores, "maps": pa.schema([("index", pa.int64()), ("map", pa.list_(pa.float32()))])}

    def joined(self) -> tuple[str, ...]:
        return ("scores",)

    def plan(self) -> Plan:
        return make_plan([index % 3 * 16 for index in range(self.n)], batch=2 - self.moved, shard=4)

    def identity(self, index: int) -> tuple[str, str]:
        return f"sample-{index}", f"group-{index // 2}"

    def compute(self, indices: tuple[int, ...]) -> Outcome:
        self.calls.append(indices)
        time.sleep(self.pause)
        self._faults(indices)
        if self.log is not None:
            with open(self.log, "a") as file:
                file.write(f"{indices} {os.getpid()}\n")
        pairs = [(index, layer) for index in indices for layer in (0, 1)]
        scores = [
            {"index": index, "layer": layer, "value": math.sqrt(index + layer)} for index, layer in pairs
        ]
        maps = [{"index": index, "map": [float(index), 0.5]} for index in indices]
        return Outcome({"scores": scores, "maps": maps}, {"seconds": 0.5, "peak_bytes": float(max(indices))})

    def _faults(self, indices: tuple[int, ...]) -> None:
        if len(indices) > self.room:
            import torch

            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if self.deadly is not None and self.deadly[0] in indices and not Path(self.deadly[1]).exists():
            Path(self.deadly[1]).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.poison in indices:
            os.kill(os.getpid(), signal.SIGKILL)
        for index in indices:
            if index in self.bad:
                raise ImageError(f"image of {index} is broken.")
            if index == self.bug:
                raise ZeroDivisionError("a bug")
        if self.together is not None and set(self.together) <= set(indices):
            raise ImageError("these two do not go together.")


if __name__ == "__main__":
    given = dict(enumerate(sys.argv[1:]))
    task = Roots(bad=(5, 9), pause=0.02, log=given.get(4))
    options = {
        "workers": int(given.get(1, 1)),
        "part": as_part(given.get(2, "")),
        "address": given.get(3) or None,
    }
    run_task(task, Path(given[0]), progress=False, **options)
