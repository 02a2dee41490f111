"""A small task without a model: thirty numbers and their square roots, with the faults a test asks for."""

from __future__ import annotations

import math
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
from interp.run import Outcome, Plan, make_plan, run_task


@dataclass
class Roots:
    n: int = 30
    bad: tuple[int, ...] = ()
    bug: int | None = None
    together: tuple[int, int] | None = None
    pause: float = 0.0
    calls: list[tuple[int, ...]] = field(default_factory=list)
    name: str = "roots"

    def to_dict(self) -> dict[str, Any]:
        return {"study": "roots", "n": self.n, "bad": list(self.bad)}

    def provenance(self) -> dict[str, Any]:
        return {"model": {"id": "none"}}

    def schemas(self) -> Mapping[str, pa.Schema]:
        scores = pa.schema([("index", pa.int64()), ("layer", pa.int32()), ("value", pa.float64())])
        return {"scores": scores, "maps": pa.schema([("index", pa.int64()), ("map", pa.list_(pa.float32()))])}

    def joined(self) -> tuple[str, ...]:
        return ("scores",)

    def plan(self) -> Plan:
        return make_plan([index % 3 * 16 for index in range(self.n)], batch=2, shard=4)

    def identity(self, index: int) -> tuple[str, str]:
        return f"sample-{index}", f"group-{index // 2}"

    def compute(self, indices: tuple[int, ...]) -> Outcome:
        self.calls.append(indices)
        time.sleep(self.pause)
        for index in indices:
            if index in self.bad:
                raise ImageError(f"image of {index} is broken.")
            if index == self.bug:
                raise ZeroDivisionError("a bug")
        if self.together is not None and set(self.together) <= set(indices):
            raise ImageError("these two do not go together.")
        pairs = [(index, layer) for index in indices for layer in (0, 1)]
        scores = [
            {"index": index, "layer": layer, "value": math.sqrt(index + layer)} for index, layer in pairs
        ]
        maps = [{"index": index, "map": [float(index), 0.5]} for index in indices]
        return Outcome({"scores": scores, "maps": maps}, {"seconds": 0.5, "peak_bytes": float(max(indices))})


if __name__ == "__main__":
    run_task(Roots(bad=(5, 9), pause=0.02), Path(sys.argv[1]), progress=False)
