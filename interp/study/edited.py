"""A model whose every trace is edited, so that any indicator can be asked what it shows then."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from interp.errors import StudyError
from interp.prompt import Prompt
from interp.sample import Sample
from interp.tracing import Batch, Decoding, Edit, Mllm, Prefix, Residual, Rows, Trace

__all__ = ["edited"]


def edited(mllm: Any, edits: Sequence[Edit]) -> Any:
    """The model with these edits before those of each trace; itself when there are none.

    All that a trace reads, generates or predicts is then of the edited model, a relative map's generic prompt
    included: an edit there must fit it too (a generic prompt has no rows "question"; "after_image" fits both).
    What an indicator does past `Mllm.trace` is not edited.

    Raises:
        StudyError: Edits on something that is not an `Mllm`.
    """
    if not edits:
        return mllm
    if not isinstance(mllm, Mllm):
        raise StudyError(f"edits need a model of interp.load or interp.wrap; got {type(mllm).__name__}.")
    parts = {field.name: getattr(mllm, field.name) for field in fields(mllm)}
    return _Edited(**parts, edits=tuple(edits))


@dataclass(frozen=True, eq=False, repr=False)
class _Edited(Mllm):
    """An `Mllm` with edits of its own."""

    edits: tuple[Edit, ...] = ()

    def trace(
        self,
        samples: Sample | Iterable[Sample] | Batch | Prefix,
        prompt: Prompt | None = None,
        reads: Sequence[Rows | Residual] = (),
        edits: Sequence[Edit] = (),
        generate: int = 0,
        seed: int | None = None,
        decoding: Decoding = Decoding(),  # noqa: B008 - frozen
    ) -> Trace:
        """`Mllm.trace`, with the model's own edits first."""
        return super().trace(samples, prompt, reads, (*self.edits, *edits), generate, seed, decoding)
