"""The common part of tasks that read a model through TransformerLens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interp.errors import InterpError, RunError
from interp.study.task import StudyTask

if TYPE_CHECKING:
    from interp.tracing.lens import Lens
    from interp.tracing.lens.lens import ServedLens

__all__ = ["LensTask"]


class LensTask(StudyTask):
    """A task that reads the model through TransformerLens; each process makes its lens once."""

    def __init__(self, study: Any, mllm: Any) -> None:
        super().__init__(study, mllm)
        self._made: Lens | ServedLens | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_made": None}

    @property
    def lens(self) -> Lens | ServedLens:
        """The model through TransformerLens; for a model on a server, an object that does the same in jobs there.

        Raises:
            RunError: The lens cannot be made. No sample causes this, so the run stops and can be resumed.
        """
        made = self._made
        if made is None:
            try:
                made = self.mllm.to_lens() if self.mllm.server is None else _served(self.mllm)
            except InterpError as error:
                raise RunError(f"the model cannot be read through TransformerLens: {error}") from error
            self._made = made
        return made

    def to_dict(self) -> dict[str, Any]:
        """What the numbers depend on: attention is eager, or the server's own, and no prefix is shared."""
        found = super().to_dict()
        through = "transformer_lens" if self.mllm.server is None else "server"
        return {**found, "plan": {**found["plan"], "prefix": "none"}, "through": through}


def _served(mllm: Any) -> ServedLens:
    from interp.tracing.lens.lens import ServedLens

    return ServedLens(mllm)
