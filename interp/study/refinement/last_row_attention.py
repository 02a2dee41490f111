"""Attention of the last prompt row at one layer, without and with a method's edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.indicators.attention import relative
from interp.inputs.prompt import GENERIC_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.tracing import Edit, Rows, Site

__all__ = ["generic_rows", "last_rows", "over", "repeated"]

Weights = list[Float[np.ndarray, " token"]]


def repeated(method: Any, mllm: Any, answers: Sequence[Any]) -> list[Edit] | None:
    """The edits that gave these answers, for another trace of the same batch; None where there are none to repeat.

    A method says them itself, in `repeat(mllm, answers)`.
    """
    repeat = getattr(method, "repeat", None)
    return None if repeat is None else list(repeat(mllm, answers))


def last_rows(
    mllm: Any, samples: Sequence[Sample], prompt: Prompt, layer: int, edits: Sequence[Edit] = ()
) -> Weights:
    """Each sample's head-mean attention of the last prompt row to the image tokens at a layer."""
    rows = Rows(Site(layers=[layer], queries="last", keys="image"), reduce="head")
    trace = mllm.trace(samples, prompt=prompt, reads=[rows], edits=list(edits))
    return [np.asarray(one.rows.values, np.float64).reshape(-1) for one in trace]


def generic_rows(mllm: Any, samples: Sequence[Sample], prompt: Prompt, layer: int) -> Weights:
    """What every question on the image draws: the same rows under the generic prompt, unedited."""
    generic = Prompt(template=GENERIC_PROMPT.template, image_first=prompt.image_first, system=prompt.system)
    return last_rows(mllm, samples, generic, layer)


def over(question: Weights, generic: Weights) -> Weights:
    """Relative attention, token by token: question / generic, 0/0 = 0."""
    return [relative(a, g)[0] for a, g in zip(question, generic, strict=True)]
