"""What the tasks that read a model through TransformerLens have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interp.study.task import StudyTask

if TYPE_CHECKING:
    from interp.tracing.lens import Lens

__all__ = ["LensTask"]


class LensTask(StudyTask):
    """A task that reads the model through TransformerLens; each process makes its lens once."""

    def __init__(self, study: Any, mllm: Any) -> None:
        super().__init__(study, mllm)
        self._made: Lens | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_made": None}

    @property
    def lens(self) -> Lens:
        """The model through TransformerLens."""
        made = self.mllm.to_lens() if self._made is None else self._made
        self._made = made
        return made

    def to_dict(self) -> dict[str, Any]:
        """What the numbers depend on: attention is eager, and no prefix is shared."""
        found = super().to_dict()
        return {**found, "plan": {**found["plan"], "prefix": "none"}, "through": "transformer_lens"}
