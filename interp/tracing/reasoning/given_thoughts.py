"""Puts a given thought behind a prompt: the answer follows, and the thought has rows like any text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from interp.errors import ModelError, PromptError
from interp.inputs.argument_checks import check_text
from interp.tracing.encoding.batch import Batch, Encoded, longer
from interp.tracing.prefix import Prefix
from interp.tracing.reasoning.thoughts import Marks, marks
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["BLIND", "blind_from", "n_sentences", "reasoned", "sentences"]

BLIND = "blind"
"""The group of tokens that `blind_from` names."""
_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*|\s*\n\s*")


def sentences(thought: str) -> tuple[tuple[int, int], ...]:
    """Where the sentences of a text are: half-open spans of characters, in order.

    A sentence ends with a full stop, a question mark or an exclamation mark before white space, or with its line.

    >>> text = "It is red. Is it round?\\nYes, 2.5 cm."
    >>> [text[start:end] for start, end in sentences(text)]
    ['It is red.', 'Is it round?', 'Yes, 2.5 cm.']
    """
    ends = [(one.start(), one.end()) for one in _END.finditer(thought)]
    starts = [0, *(end for _, end in ends)]
    stops = [*(start for start, _ in ends), len(thought)]
    return tuple(
        (start, stop) for start, stop in zip(starts, stops, strict=True) if thought[start:stop].strip()
    )


def reasoned(mllm: WrappedModel, batch: Batch | Prefix, thoughts: Sequence[str]) -> Batch:
    """The batch with a thought behind each prompt; see `Mllm.reasoned`."""
    own = marks(mllm.processor)
    if isinstance(batch, Prefix):
        raise PromptError("a thought is put behind samples or a batch; got a prefix. Give its samples.")
    if own is None:
        raise PromptError(
            "neither the chat template nor the tokenizer of this model has the marks of a thought "
            "(interp.tracing.reasoning.thoughts.MARKS), so there is no telling where one ends. Use a model that thinks."
        )
    if mllm.visibility.attends == "prefix":
        raise ModelError(
            f"{mllm.family} lets every row of its prompt see the whole prompt, so a thought behind it would be seen "
            "by the rows before it. Use a causal model."
        )
    if isinstance(thoughts, str) or not isinstance(thoughts, Sequence) or len(thoughts) != len(batch):
        raise PromptError(
            f"thoughts= is a list with one text for each of the {len(batch)} samples; got {thoughts!r:.200}."
        )
    pairs = zip(batch.singles, thoughts, strict=True)
    singles = [_with_thought(one, thought, own, mllm.processor) for one, thought in pairs]
    return mllm.encoder.joined(batch.samples, batch.prompt, singles)


def _with_thought(one: Encoded, thought: str, own: Marks, processor: Any) -> Encoded:
    """A sample's encoding with a thought and its marks at the end."""
    if not isinstance(thought, str) or not thought.strip():
        raise PromptError(f"a thought is a text; got {thought!r:.200}.")
    check_text("a thought", thought, PromptError)
    if own.start in thought or own.end in thought:
        raise PromptError(
            f"a thought is given without its marks {own.start!r} and {own.end!r}; got {thought!r:.200}. Leave them out."
        )
    if one.text.rstrip().endswith(own.end):
        raise PromptError(
            "the chat template closes the thought before it begins, so none can follow. Write "
            "interp.Prompt(thinking=True), or leave thinking= out."
        )
    open_already = one.text.rstrip().endswith(own.start)
    head = "" if open_already else own.start + own.inner
    body = thought.strip()
    added = head + body + own.inner + own.end + own.after
    ids, places = _tokens(processor, one.text, added)
    spans: dict[str, list[int]] = {"reasoning": list(range(len(ids)))}
    for number, (start, _) in enumerate(sentences(body)):
        first = next(i for i, (_, end) in enumerate(places) if end > len(head) + start)
        spans[f"from sentence {number}"] = list(range(first, len(ids)))
    closing = next(i for i, (_, end) in enumerate(places) if end > len(head) + len(body) + len(own.inner))
    spans["from the end"] = list(range(closing, len(ids)))
    found = longer(one, ids, spans)
    rendered = replace(one.rendered, text=one.rendered.text + added, laid=one.rendered.laid + added)
    return replace(found, rendered=rendered)


def _tokens(processor: Any, prompt: str, added: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The tokens of a text that follows a prompt, and the characters of each, counted from the text's first.

    Both are tokenised together, and the prompt's own taken off; where a token would reach across the seam, the text is
    tokenised alone.
    """
    tokenizer = processor.tokenizer
    if not getattr(tokenizer, "is_fast", False):
        raise PromptError(
            "a thought is cut into sentences by where its tokens are, which only a fast tokenizer says. Load the "
            "processor with one."
        )
    placeholder = getattr(processor, "image_token", None)
    tail = prompt.rpartition(placeholder)[2] if placeholder else prompt

    def read(text: str) -> tuple[list[int], list[tuple[int, int]]]:
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(found["input_ids"]), [(int(a), int(b)) for a, b in found["offset_mapping"]]

    before, (both, places) = read(tail)[0], read(tail + added)
    n = len(before)
    if both[:n] != before:
        return read(added)
    return both[n:], [(start - len(tail), end - len(tail)) for start, end in places[n:]]


def n_sentences(batch: Batch, sample: int) -> int:
    """How many sentences the thought behind a sample's prompt has."""
    return sum(name.startswith("from sentence ") for name in batch.tokens[sample].spans)


def blind_from(mllm: WrappedModel, batch: Batch, sample: int) -> Batch:
    """A sample of `reasoned` once for each sentence of its thought, and once for the answer alone.

    In line k the group `BLIND` holds the tokens from sentence k on; in the last one those from the mark that ends the
    thought. So one knockout with queries (BLIND, "answer") hides the image from there on.
    """
    single = batch.singles[sample]
    names = [*(f"from sentence {k}" for k in range(n_sentences(batch, sample))), "from the end"]
    lines = [
        replace(
            single,
            tokens=replace(single.tokens, spans={**single.tokens.spans, BLIND: single.tokens.spans[name]}),
        )
        for name in names
    ]
    return mllm.encoder.joined([batch.samples[sample]] * len(lines), batch.prompt, lines)
