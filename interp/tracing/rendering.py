"""One sample's prompt as text: rendered, its placeholders expanded, its question found among the tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image

from interp.errors import PromptError
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.models.adapter import Adapter

__all__ = ["Wording", "expand", "laid_out", "locate", "question_tokens", "render"]

_WORD = re.compile(r"\w+(?:[-'’]\w+)*")

Span = tuple[int, int]
"""Half-open, in characters."""


@dataclass(frozen=True)
class Wording:
    """A rendered prompt. `question` is where the user's words are in it; None when it has none."""

    text: str
    question: Span | None


def render(sample: Sample, prompt: Prompt, processor: Any, adapter: Adapter) -> str:
    """The prompt in the model's chat template (or the family's fallback), image placeholders not expanded.

    Raises:
        PromptError: Not one image placeholder per image.
    """
    template = getattr(processor, "chat_template", None)
    template = template or getattr(processor.tokenizer, "chat_template", None)
    if template is None:
        text = adapter.fallback_prompt(prompt.text(sample), len(sample.images), prompt.system)
    else:
        text = processor.apply_chat_template(
            prompt.messages(sample), chat_template=template, tokenize=False, add_generation_prompt=True
        )
    placeholder = getattr(processor, "image_token", None)
    if placeholder and text.count(placeholder) != len(sample.images):
        raise PromptError(
            f"the rendered prompt of sample {sample.id} holds the image placeholder {placeholder!r} "
            f"{text.count(placeholder)}× for {len(sample.images)} image(s): {text!r}. The chat template "
            "places one per image; take it out of the question and of the prompt's template."
        )
    return text


def laid_out(processor: Any, text: str, n_images: int) -> str:
    """The text once the processor has added to it, before it expands its placeholders.

    What it adds does not depend on the images, so blank ones stand for them.
    """
    prepare = getattr(processor, "prepare_inputs_layout", None)
    if prepare is None or not n_images:
        return text
    blank = Image.new("RGB", (1, 1))
    return prepare(images=[[blank] * n_images], text=[text])[1][0]


def locate(text: str, prompt: Prompt, sample: Sample) -> Wording:
    """The rendered text, and where the question is in it."""
    return Wording(text, _question(text, prompt, sample))


def _question(text: str, prompt: Prompt, sample: Sample) -> Span | None:
    """Where the question is in the rendered prompt; None without one, or when the template rewrote it."""
    span = prompt.question_span(sample)
    if span is None:
        return None
    body = prompt.text(sample)
    start = text.rfind(body)
    if start >= 0:
        return start + span[0], start + span[1]
    question = body[span[0] : span[1]].strip()
    start = text.rfind(question)  # the template may trim its text
    return None if start < 0 else (start, start + len(question))


def expand(text: str, placeholder: str, replacements: Sequence[str]) -> tuple[str, list[dict[str, Span]]]:
    """The text with its placeholders expanded in order; for each, its "span" before and "new_span" after."""
    pieces = text.split(placeholder)
    expanded, at = pieces[0], len(pieces[0])
    spans: list[dict[str, Span]] = []
    for replacement, piece in zip(replacements, pieces[1:], strict=True):
        new = (len(expanded), len(expanded) + len(replacement))
        spans.append({"span": (at, at + len(placeholder)), "new_span": new})
        expanded += replacement + piece
        at += len(placeholder) + len(piece)
    return expanded, spans


def question_tokens(
    wording: Wording, spans: Sequence[Mapping[str, Any]], offsets: Int[np.ndarray, "position 2"]
) -> dict[str, Any]:
    """The `spans` and `words` of a `TokenMap`: the question's positions, and those of each of its words.

    Args:
        wording: the rendered prompt.
        spans: where its placeholders were, and are once expanded (`expand`).
        offsets: (start, end) of each token in the expanded text, in characters.
    """
    if wording.question is None:
        return {"spans": {}, "words": ()}
    start, end = wording.question
    moved = _moved(start, spans)
    words = tuple(
        (found.group(), _between(offsets, moved + found.start(), moved + found.end()))
        for found in _WORD.finditer(wording.text[start:end])
    )
    question = np.array(_between(offsets, moved, moved + end - start), dtype=np.int64)
    return {"spans": {"question": question}, "words": words}


def _moved(place: int, spans: Sequence[Mapping[str, Any]]) -> int:
    """Where a character is once the placeholders before it are expanded."""
    growth = [(s["new_span"][1] - s["new_span"][0]) - (s["span"][1] - s["span"][0]) for s in spans]
    return place + sum(g for g, s in zip(growth, spans, strict=True) if s["span"][1] <= place)


def _between(offsets: Int[np.ndarray, "position 2"], start: int, end: int) -> tuple[int, ...]:
    """Tokens that share a character with [start, end)."""
    first, last = np.maximum(offsets[:, 0], start), np.minimum(offsets[:, 1], end)
    return tuple(int(i) for i in np.flatnonzero(first < last))
