"""The adapter of models that answer without a map: it has no image tokens and no footprints, and says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from interp.errors import ModelError

__all__ = ["ANSWERS_ONLY", "AnswersOnly"]

ANSWERS_ONLY = "answers_only"
"""What `adapter=` is for a model that only answers."""


class AnswersOnly:
    """Stands in for an adapter where a model has no map: `Mllm.answers` and `Mllm.score` alone are served.

    Attributes:
        why: Why there is no map, in a sentence.
    """

    name = ANSWERS_ONLY
    layout = "no image tokens that are places: answers and scores only"

    def __init__(self, why: str) -> None:
        self.why = why

    def matches(self, config: Any) -> bool:
        """Never: it is asked for by name."""
        return False

    def refuse(self, what: str = "reads, edits, footprints and studies of maps") -> NoReturn:
        """Raises `ModelError` with the reason.

        Args:
            what: What was asked for.
        """
        raise ModelError(
            f"this model was opened with adapter={ANSWERS_ONLY!r}: it serves mllm.answers and mllm.score alone, "
            f"without edits; {what} need image tokens that are places. {self.why}"
        )

    def layers(self, model: Any) -> NoReturn:
        """Refused."""
        self.refuse("decoder layers")

    def image_positions(self, input_ids: Any, config: Any) -> NoReturn:
        """Refused."""
        self.refuse("image positions")

    def footprints(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> NoReturn:
        """Refused."""
        self.refuse("footprints")

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns the text alone: processors without a chat template place the image themselves."""
        return text if system is None else f"{system}\n{text}"
