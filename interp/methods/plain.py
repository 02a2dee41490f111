"""The unedited model, for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from interp.methods.edited_generation import EditedGeneration
from interp.tracing import Edit, Mllm

__all__ = ["Plain"]


@dataclass(frozen=True)
class Plain(EditedGeneration):
    """The unedited model's greedy answer, with which every method is compared."""

    name: ClassVar[str] = "Plain"

    def edits(self, mllm: Mllm) -> Sequence[Edit]:
        """No edits."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        """The method as JSON values."""
        return {"method": self.name}
