"""The unedited model, for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from interp.methods.edited_generation import EditedGeneration

__all__ = ["Plain"]


@dataclass(frozen=True)
class Plain(EditedGeneration):
    """The unedited model's greedy answer, with which every method is compared."""

    name: ClassVar[str] = "Plain"

    def to_dict(self) -> dict[str, Any]:
        """The method as JSON values."""
        return {"method": self.name}
