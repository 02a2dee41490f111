"""Models that think before they answer: which tokens are the thought's, and given thoughts.

A model that thinks writes its thought between two marks, or after a mark that the chat template writes, and then its
answer. Its marks are those of `MARKS` that its chat template writes or that are tokens of its tokenizer.

While a batch generates, `Stages` tells edits and reads which tokens belong to the thought and which to the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from interp.errors import EditError, ModelError, PromptError, ServerError, SiteError
from interp.inputs.argument_checks import check_text
from interp.inputs.prompt import Prompt
from interp.inputs.text import count
from interp.tracing.attention.edit_cells import Live
from interp.tracing.edits import AttentionEdit, Edit
from interp.tracing.encoding.batch import Batch, Encoded, longer
from interp.tracing.prefix import Prefix
from interp.tracing.reads import Read
from interp.tracing.wrapped_model import WrappedModel

__all__ = [
    "BLIND",
    "CLOSE",
    "MARKS",
    "Follower",
    "Marks",
    "Said",
    "Stages",
    "blind_from",
    "check_closed",
    "check_stages",
    "leaves_open",
    "make_stages",
    "marks",
    "n_sentences",
    "reasoned",
    "said",
    "said_by",
    "sentences",
]


CLOSE = (
    "Write interp.Prompt(thinking=False) for an answer without a thought, or give the thought: mllm.reasoned(samples, "
    "thoughts) adds one after each prompt."
)
"""Advice for a prompt that a thought follows where an answer is wanted."""
_WRAPS = (("<answer>", "</answer>"), ("<|begin_of_box|>", "<|end_of_box|>"))
"""The marks that GLM puts around the answer after its thought."""
_known: WeakKeyDictionary[Any, tuple[tuple[int, str], Marks | None]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Marks:
    """The marks around a thought.

    Attributes:
        start: The mark before the thought.
        end: The mark after the thought.
        inner: What is written after `start` and before `end`.
        after: What is written after `end`.
    """

    start: str
    end: str
    inner: str = ""
    after: str = ""


MARKS = (
    Marks("<think>", "</think>", "\n", "\n\n"),
    Marks("◁think▷", "◁/think▷"),
    Marks("<|channel>thought", "<channel|>", "\n"),
    Marks("<unused94>thought", "<unused95>", "\n"),
    Marks("[THINK]", "[/THINK]"),
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),
    Marks("<|think|>", "<|/think|>"),
    Marks("<thought>", "</thought>"),
)
"""Known marks: those of Qwen3, GLM, DeepSeek and most others; Kimi-VL; Gemma 4; MedGemma 1.5; Mistral; Cohere; and two
spellings of other fine-tuned checkpoints."""


def marks(processor: Any) -> Marks | None:
    """The marks of a model's thoughts, from its processor; None for a model without marks.

    Marks that the chat template writes take precedence over marks that are only tokens of the vocabulary.
    """
    tokenizer = processor.tokenizer
    written = "".join(str(getattr(one, "chat_template", None) or "") for one in (processor, tokenizer))
    key = len(tokenizer), written
    known = _known.get(tokenizer)
    if known is None or known[0] != key:
        in_template = [one for one in MARKS if one.end in written]
        found = in_template or [one for one in MARKS if _is_token(tokenizer, one.end)]
        _known[tokenizer] = known = key, found[0] if found else None
    return known[1]


def _is_token(tokenizer: Any, text: str) -> bool:
    """Whether a text is one token of the vocabulary."""
    place = tokenizer.convert_tokens_to_ids(text)
    return isinstance(place, int) and place >= 0 and tokenizer.convert_ids_to_tokens(place) == text


def leaves_open(text: str, prompt: Prompt, processor: Any) -> bool:
    """Whether a thought follows a rendered prompt: the prompt ends with its start mark, or asks for a thought."""
    own = marks(processor)
    if own is None or text.rstrip().endswith(own.end):
        return False
    return prompt.thinking is True or text.rstrip().endswith(own.start)


def check_closed(texts: Sequence[str], prompt: Prompt, processor: Any) -> None:
    """Refuses prompts that a thought follows, where the next tokens are meant to be the answer.

    Args:
        texts: The rendered prompts.
        prompt: The prompt that they were rendered from.
        processor: The model's processor.

    Raises:
        PromptError: A prompt that a thought follows.
    """
    if any(leaves_open(text, prompt, processor) for text in texts):
        raise PromptError(
            "what follows this prompt is the model's thought and not its answer, so its next tokens say nothing about "
            f"the answer. {CLOSE}"
        )


@dataclass(frozen=True)
class Said:
    """What a model generated.

    Attributes:
        answer: The text after the thought, or the whole text without a thought; None where the thought did not end or
            nothing came after it.
        reasoning: The thought without its marks; None without a thought.
        n_reasoning: The number of tokens of the thought, its marks included.
    """

    answer: str | None
    reasoning: str | None = None
    n_reasoning: int = 0


def said(ids: Sequence[int], processor: Any, opened: bool) -> Said:
    """The thought and the answer among generated tokens.

    Args:
        ids: The generated tokens, with the end token if it came.
        processor: The model's processor.
        opened: Whether the prompt leaves a thought open (`leaves_open`).
    """
    tokenizer, own = processor.tokenizer, marks(processor)
    whole = "" if own is None else _text(tokenizer, ids)
    if own is None or not (opened or whole.lstrip().startswith(own.start) or own.end in whole):
        return Said(tokenizer.decode(list(ids), skip_special_tokens=True).strip())
    if own.end not in whole:
        return Said(None, _inner(whole, own), len(ids))
    low, high = 1, len(ids)
    while low < high:  # find the fewest tokens that hold the mark
        middle = (low + high) // 2
        low, high = (low, middle) if own.end in _text(tokenizer, ids[:middle]) else (middle + 1, high)
    thought, _, begun = _text(tokenizer, ids[:low]).partition(own.end)
    rest = begun + tokenizer.decode(list(ids[low:]), skip_special_tokens=True)
    return Said(_unwrapped(rest) or None, _inner(thought, own), low)


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False)


def _inner(text: str, own: Marks) -> str:
    """A thought without its start mark."""
    return text.strip().removeprefix(own.start).strip()


def _unwrapped(text: str) -> str:
    """An answer without the marks that the model puts around it."""
    found = text.strip()
    for start, end in _WRAPS:
        if found.startswith(start) and found.endswith(end) and found.count(start) == 1:
            found = found[len(start) : -len(end)].strip()
    return found


class Follower:
    """Says for each token of one sample, as it is generated, whether it belongs to the thought.

    White space and the first tokens of a mark count as part of the thought until it is clear that no thought begins.
    """

    def __init__(self, processor: Any, opened: bool) -> None:
        self._tokenizer, self._marks = processor.tokenizer, marks(processor)
        self._inside: bool | None = None if self._marks is not None else False
        if opened:
            self._inside = True
        self._ids: list[int] = []
        self.labels: list[bool] = []

    def __call__(self, token: int) -> bool:
        """Whether the next token belongs to the thought, its marks included."""
        self._ids.append(token)
        inside = self._of(self._marks) if self._inside is not False and self._marks is not None else False
        self.labels.append(inside)
        return inside

    def _of(self, own: Marks) -> bool:
        if self._inside is None:
            text = _text(self._tokenizer, self._ids).rstrip("�").lstrip()
            if text.startswith(own.start):
                self._inside = True
            elif not own.start.startswith(text):
                self._inside = False
                return False
        latest = self._ids[-len(own.end.encode()) - 1 :]
        if self._inside and own.end in _text(self._tokenizer, latest):
            self._inside = False
        return True


class Stages:
    """Tells edits of only the thought or only the answer to which of them each sample's latest token belongs.

    Attributes:
        followers: One follower per sample.
        lives: The edits' cells that are told; the plan of a run adds its own.
    """

    def __init__(self, processor: Any, opened: Sequence[bool]) -> None:
        self.followers = [Follower(processor, one) for one in opened]
        self.lives: list[Live] = []

    def __call__(self, tokens: Sequence[int]) -> None:
        """Follows the samples' next tokens, and tells the edits."""
        labels = [follow(token) for follow, token in zip(self.followers, tokens, strict=True)]
        for live in self.lives:
            live.follow(labels)


def make_stages(
    mllm: WrappedModel, batch: Batch, reads: Sequence[Read], edits: Sequence[Edit]
) -> Stages | None:
    """The `Stages` of a run, where edits apply to only the thought or only the answer; None without such edits.

    Raises:
        SiteError: Rows of the thought, of a model without marks of a thought.
        ServerError: Such edits of a model on a server.
    """
    stages = [edit.stage_of_tokens for edit in edits if isinstance(edit, AttentionEdit)]
    asked = [*stages, *("reasoning" for read in reads if read.site.groups[0] == ("reasoning",))]
    put = all("reasoning" in tokens.spans for tokens in batch.tokens)
    if marks(mllm.processor) is None:
        if "reasoning" in asked and not put:
            raise SiteError(
                'queries="reasoning" are the rows of a thought before the answer, but neither the chat template nor '
                "the tokenizer of this model has the marks of one (interp.tracing.reasoning.MARKS). Write "
                'queries="answer" for all that it generates.'
            )
        return None
    if not any(stages):
        return None
    if mllm.server is not None:
        raise ServerError(
            'edits of queries="reasoning" or "answer" check after each token whether the thought has ended, which a '
            'job on an NDIF server cannot do. Write queries="last" with steps="decode" for all generated tokens.'
        )
    return Stages(mllm.processor, _opened(mllm, batch))


def _opened(mllm: WrappedModel, batch: Batch) -> list[bool]:
    return [leaves_open(one.text, batch.prompt, mllm.processor) for one in batch.singles]


def check_stages(stages: Stages, found: Sequence[Said], n_steps: Sequence[int]) -> None:
    """Refuses the results of edits that took part of a thought for the answer.

    This happens where a thought was closed that neither the prompt nor the first token had opened.

    Raises:
        EditError: Such a thought.
    """
    for i, (one, n, follower) in enumerate(zip(found, n_steps, stages.followers, strict=True)):
        n = min(n, len(follower.labels))  # the last token is not run
        if one.reasoning is not None and sum(follower.labels[:n]) != min(one.n_reasoning, n):
            raise EditError(
                f"sample {i} of the batch ended a thought that neither its prompt nor its first token had begun, so "
                "the edit could not tell it from the answer. Write interp.Prompt(thinking=True): then all tokens "
                "before the end mark count as the thought."
            )


def said_by(
    mllm: WrappedModel, batch: Batch, lines: Sequence[Sequence[int]], ends: frozenset[int]
) -> tuple[list[tuple[int, ...]], list[Said]]:
    """The tokens that each sample generated, with its end token, and the thought and the answer in them.

    Args:
        mllm: The model.
        batch: The samples.
        lines: All generated tokens of each sample, with those after its end token.
        ends: The tokens that end an answer.
    """
    lengths = [next((i + 1 for i, t in enumerate(line) if t in ends), len(line)) for line in lines]
    own = [tuple(line[:n]) for line, n in zip(lines, lengths, strict=True)]
    opened = _opened(mllm, batch)
    return own, [said(ids, mllm.processor, one) for ids, one in zip(own, opened, strict=True)]


BLIND = "blind"
"""The name of the group of tokens that `blind_from` marks."""
_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*|\s*\n\s*")


def sentences(thought: str) -> tuple[tuple[int, int], ...]:
    """The sentences of a text, as half-open spans of characters, in order.

    A sentence ends at a full stop, question mark or exclamation mark before white space, or at the end of its line.

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
    """The batch with a given thought after each prompt; see `Mllm.reasoned`."""
    own = marks(mllm.processor)
    if isinstance(batch, Prefix):
        raise PromptError(
            "a thought is added after the prompts of samples or a batch; got a prefix. Give its samples."
        )
    if own is None:
        raise PromptError(
            "neither the chat template nor the tokenizer of this model has the marks of a thought "
            "(interp.tracing.reasoning.MARKS), so the end of a thought cannot be found. Use a model that thinks."
        )
    if mllm.visibility.attends == "prefix":
        raise ModelError(
            f"in {mllm.family} every row of the prompt sees the whole prompt, so the rows before a thought would see "
            "the thought too. Use a causal model."
        )
    if isinstance(thoughts, str) or not isinstance(thoughts, Sequence) or len(thoughts) != len(batch):
        raise PromptError(
            f"thoughts= is a list with one text per sample ({count(len(batch), 'sample')}); got "
            f"{thoughts!r:.200}."
        )
    pairs = zip(batch.singles, thoughts, strict=True)
    singles = [_with_thought(one, thought, own, mllm.processor) for one, thought in pairs]
    return mllm.encoder.joined(batch.samples, batch.prompt, singles)


def _with_thought(one: Encoded, thought: str, own: Marks, processor: Any) -> Encoded:
    """A sample's encoding with a thought and its marks added at the end."""
    if not isinstance(thought, str) or not thought.strip():
        raise PromptError(f"a thought is a text; got {thought!r:.200}.")
    check_text("a thought", thought, PromptError)
    if own.start in thought or own.end in thought:
        raise PromptError(
            f"a thought is given without its marks {own.start!r} and {own.end!r}; got {thought!r:.200}. Leave them out."
        )
    if one.text.rstrip().endswith(own.end):
        raise PromptError(
            "the chat template closes the thought in the prompt, so no thought can follow. Write "
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
    """The tokens of a text that follows a prompt, and each token's characters, counted from the start of the text.

    Prompt and text are tokenised together, and the prompt's tokens are removed. Where a token would span the boundary,
    the text is tokenised alone.
    """
    tokenizer = processor.tokenizer
    if not getattr(tokenizer, "is_fast", False):
        raise PromptError(
            "cutting a thought into sentences needs the places of its tokens in the text, which only a fast tokenizer "
            "gives. Load the processor with a fast tokenizer."
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
    """The number of sentences in the thought after a sample's prompt."""
    return sum(name.startswith("from sentence ") for name in batch.tokens[sample].spans)


def blind_from(mllm: WrappedModel, batch: Batch, sample: int) -> Batch:
    """A batch of one sample of `reasoned`, repeated once for each sentence of its thought and once for the answer.

    In line k the group `BLIND` holds the tokens from sentence k on; in the last line, those from the end mark of the
    thought on. One knockout with queries (BLIND, "answer") then hides the image from there on.
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
