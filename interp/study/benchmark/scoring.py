"""What a `Benchmark` asks of a scorer, and the log-probabilities of options that some scorers decide by."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from interp.errors import StudyError
from interp.inputs.prompt import Prompt, Target
from interp.inputs.sample import Sample
from interp.tracing import Edit

__all__ = ["Options", "Scorer", "option_log_probabilities", "scored"]

Options = Sequence[Float[np.ndarray, " option"] | None]
"""For each sample the log-probability of each of its options in nats; None for a sample without options."""


@runtime_checkable
class Scorer(Protocol):
    """What marks answers: one of `interp.metrics.scorers`, or anything of this shape.

    Attributes:
        name: Its name in tables.
        needs_log_probabilities: Whether it decides by the log-probabilities of options, not by the text.
    """

    name: str
    needs_log_probabilities: bool

    def to_dict(self) -> dict[str, Any]:
        """Everything the scores depend on, as JSON values."""
        ...


def scored(
    scorer: Any,
    texts: Sequence[str | None],
    samples: Sequence[Sample],
    prompt: Prompt,
    options: Mapping[str, Options],
) -> list[float | None]:
    """The scorer's value for each answer; None for a sample that it cannot mark."""
    more = {"log_probabilities": options[scorer.normalise]} if scorer.needs_log_probabilities else {}
    return list(scorer.scores(texts, samples, prompt, **more))


def option_log_probabilities(
    mllm: Any,
    samples: Sequence[Sample],
    prompt: Prompt,
    reduce: str,
    edits: Sequence[Edit] | None = (),
    method: str = "",
) -> Options:
    """The log-probability of each sample's options after its prompt: of their letters where the prompt letters them.

    Args:
        mllm: The model.
        samples: A micro-batch: edits that a method repeats are for just these.
        prompt: How the question is put.
        reduce: "sum" or "mean" over an option's tokens.
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
    lettered = prompt.options == "letters"
    texts = [_texts(sample, lettered) for sample in samples]
    values: dict[str, Any] = {}
    for text in dict.fromkeys(text for own in texts for text in own):
        target = Target(f" {text}" if text == "greedy" else text, reduce=reduce)
        found = mllm.score(samples, target, prompt=prompt, edits=list(edits), progress=False)
        values[text] = found.values
    return [
        np.array([values[text][place] for text in own]) if own else None for place, own in enumerate(texts)
    ]


def _texts(sample: Sample, lettered: bool) -> tuple[str, ...]:
    options = sample.options or ()
    return tuple(string.ascii_uppercase[: len(options)]) if lettered else tuple(options)
