"""How a `Benchmark` has answers scored: by their texts, or by the log-probabilities of options."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.errors import StudyError
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.metrics.scorers import Scorer
from interp.tracing import Edit

__all__ = ["Options", "about", "gives_marks", "label", "option_log_probabilities", "scored"]

Options = Sequence[Float[np.ndarray, " option"] | None]
"""For each sample the log-probability of each of its options in nats; None for a sample without options."""
SHARE_RIGHT = "share right"


def gives_marks(scorer: Scorer) -> bool:
    """Whether a scorer says right or wrong; one that decides by log-probabilities gives shares where options tie."""
    return scorer.unit == SHARE_RIGHT


def label(scorer: Scorer) -> str:
    """What tables call the mean of a scorer's scores."""
    if not gives_marks(scorer):
        return scorer.name
    return "accuracy" if scorer.name == "strict" else f"accuracy by {scorer.name}"


def about(scorer: Scorer) -> str:
    """What a scorer does, in the words of its own documentation."""
    paragraphs = (inspect.getdoc(type(scorer)) or "").split("\n\n")
    return " ".join(" ".join(paragraphs[:2]).replace("`", "").split())


def scored(
    scorer: Any,
    texts: Sequence[str | None],
    samples: Sequence[Sample],
    prompt: Prompt,
    options: Mapping[str, Options],
) -> list[float | None]:
    """The scorer's value for each answer; None for a sample that it cannot mark."""
    given = options[scorer.name] if scorer.needs_log_probabilities else texts
    return list(scorer.scores(given, samples, prompt))


def option_log_probabilities(
    mllm: Any,
    samples: Sequence[Sample],
    prompt: Prompt,
    scorer: Any,
    edits: Sequence[Edit] | None = (),
    method: str = "",
) -> Options:
    """The log-probability of each text that a scorer decides by, after each sample's prompt.

    Args:
        mllm: The model.
        samples: A micro-batch: edits that a method repeats are for just these.
        prompt: How the question is put.
        scorer: Has `answers(sample, prompt)`, the texts, and `target(text)`.
        edits: Edits under which they are scored; None for a method that has none to repeat.
        method: What to call it in a message.

    Raises:
        StudyError: A method whose edits cannot be repeated.
    """
    if edits is None:
        raise StudyError(
            f"log-probabilities of options are read in passes of their own, under the same edits, and {method} has "
            "none to repeat. Score its texts, for instance with Strict()."
        )
    texts = [scorer.answers(sample, prompt) for sample in samples]
    options: dict[str, Any] = {"prompt": prompt, "edits": list(edits), "progress": False}
    values = {
        text: mllm.score(samples, scorer.target(text), **options).values
        for text in dict.fromkeys(text for own in texts for text in own)
    }
    return [
        np.array([values[text][place] for text in own]) if own else None for place, own in enumerate(texts)
    ]
