"""The fake task with a device, on which each process notes that it computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import RunError
from interp.run import Outcome
from tests.run.fake_task import Roots


@dataclass
class Placed(Roots):
    device: str = "fake"
    diary: str = ""
    file: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "device": self.device.partition(":")[0]}

    def move(self, device: str) -> None:
        self.device = device

    def check_inputs(self, indices: Sequence[int]) -> None:
        if self.file and not Path(self.file).exists():
            raise RunError(f"samples {list(indices)} need {self.file}, which is not here.")

    def compute(self, indices: tuple[int, ...]) -> Outcome:
        if self.diary:
            with open(self.diary, "a") as file:
                file.write(f"{self.device}\n")
        return super().compute(indices)
