"""What a model reasons before it answers: the marks of its thoughts, and which generated tokens are which.

A model that thinks writes its thought between two marks, or after a mark that the chat template writes, and then its
answer. The marks are those of `MARKS` that its own chat template writes or that are tokens of its own tokenizer.

While a batch generates, `Stages` tells edits and reads which tokens are a thought's and which the answer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from interp.errors import EditError, PromptError, ServerError, SiteError
from interp.inputs.prompt import Prompt
from interp.tracing.attention.edit_cells import Live
from interp.tracing.edits import AttentionEdit, Edit
from interp.tracing.encoding.batch import Batch
from interp.tracing.reads import Read
from interp.tracing.wrapped_model import WrappedModel

__all__ = [
    "CLOSE",
    "MARKS",
    "Follower",
    "Marks",
    "Said",
    "Stages",
    "check_closed",
    "check_stages",
    "leaves_open",
    "make_stages",
    "marks",
    "said",
    "said_by",
]


CLOSE = (
    "Write interp.Prompt(thinking=False) for an answer without a thought, or give the thought: mllm.reasoned(samples, "
    "thoughts) puts one behind each prompt."
)
"""What to do where an answer is wanted and a thought would come."""
_WRAPS = (("<answer>", "</answer>"), ("<|begin_of_box|>", "<|end_of_box|>"))
"""What GLM puts around the answer that follows its thought."""
_known: WeakKeyDictionary[Any, tuple[tuple[int, str], Marks | None]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Marks:
    """What a thought begins and ends with; `inner` is written inside either mark, and `after` behind the second."""

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
"""Known marks: Qwen3's, GLM's, DeepSeek's and most others'; Kimi-VL's; Gemma 4's; MedGemma 1.5's; Mistral's; Cohere's;
and two spellings that checkpoints trained by hand use."""


def marks(processor: Any) -> Marks | None:
    """The marks of a model's thoughts, from its processor; None where it has none.

    Those that the chat template writes come before those that are only tokens of the vocabulary.
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
    """Whether what follows a rendered prompt is a thought: the prompt ends with its mark, or asks for one."""
    own = marks(processor)
    if own is None or text.rstrip().endswith(own.end):
        return False
    return prompt.thinking is True or text.rstrip().endswith(own.start)


def check_closed(texts: Sequence[str], prompt: Prompt, processor: Any) -> None:
    """Refuses prompts that a thought follows, where what comes next is taken for the answer.

    Args:
        texts: Rendered prompts.
        prompt: What they were rendered from.
        processor: The model's.

    Raises:
        PromptError: As said.
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
        answer: The text after the thought, or all of it where there is no thought; None where the thought did not end,
            or nothing came after it.
        reasoning: The thought without its marks; None where there is none.
        n_reasoning: How many of the tokens are the thought's, its marks included.
    """

    answer: str | None
    reasoning: str | None = None
    n_reasoning: int = 0


def said(ids: Sequence[int], processor: Any, opened: bool) -> Said:
    """The thought and the answer among generated tokens.

    Args:
        ids: The tokens, the end included if it came.
        processor: The model's.
        opened: Whether a thought is open before the first of them (`leaves_open`).
    """
    tokenizer, own = processor.tokenizer, marks(processor)
    whole = "" if own is None else _text(tokenizer, ids)
    if own is None or not (opened or whole.lstrip().startswith(own.start) or own.end in whole):
        return Said(tokenizer.decode(list(ids), skip_special_tokens=True).strip())
    if own.end not in whole:
        return Said(None, _inner(whole, own), len(ids))
    low, high = 1, len(ids)
    while low < high:  # the fewest tokens that hold the mark
        middle = (low + high) // 2
        low, high = (low, middle) if own.end in _text(tokenizer, ids[:middle]) else (middle + 1, high)
    thought, _, begun = _text(tokenizer, ids[:low]).partition(own.end)
    rest = begun + tokenizer.decode(list(ids[low:]), skip_special_tokens=True)
    return Said(_unwrapped(rest) or None, _inner(thought, own), low)


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False)


def _inner(text: str, own: Marks) -> str:
    """A thought without the mark it begins with."""
    return text.strip().removeprefix(own.start).strip()


def _unwrapped(text: str) -> str:
    """An answer without what the model wraps it in."""
    found = text.strip()
    for start, end in _WRAPS:
        if found.startswith(start) and found.endswith(end) and found.count(start) == 1:
            found = found[len(start) : -len(end)].strip()
    return found


class Follower:
    """Tells for each token of one sample, as it comes, whether it belongs to the thought.

    White space and the first tokens of a mark count as the thought's until it is clear that none begins.
    """

    def __init__(self, processor: Any, opened: bool) -> None:
        self._tokenizer, self._marks = processor.tokenizer, marks(processor)
        self._inside: bool | None = None if self._marks is not None else False
        if opened:
            self._inside = True
        self._ids: list[int] = []
        self.labels: list[bool] = []

    def __call__(self, token: int) -> bool:
        """Whether the next token is one of the thought's; its marks are."""
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
    """Tells edits of the thought alone, or of the answer alone, which of them each sample's latest token belongs to.

    Attributes:
        followers: One per sample.
        lives: What is told; the plan of a run puts in its own.
    """

    def __init__(self, processor: Any, opened: Sequence[bool]) -> None:
        self.followers = [Follower(processor, one) for one in opened]
        self.lives: list[Live] = []

    def __call__(self, tokens: Sequence[int]) -> None:
        """Takes in the samples' next tokens."""
        labels = [follow(token) for follow, token in zip(self.followers, tokens, strict=True)]
        for live in self.lives:
            live.follow(labels)


def make_stages(
    mllm: WrappedModel, batch: Batch, reads: Sequence[Read], edits: Sequence[Edit]
) -> Stages | None:
    """What tells edits of the thought or the answer alone which of them a token belongs to; None without such edits.

    Raises:
        SiteError: Rows of the thought of a model that has no marks of one.
        ServerError: Such edits on a server.
    """
    stages = [edit.stage_of_tokens for edit in edits if isinstance(edit, AttentionEdit)]
    asked = [*stages, *("reasoning" for read in reads if read.site.groups[0] == ("reasoning",))]
    put = all("reasoning" in tokens.spans for tokens in batch.tokens)
    if marks(mllm.processor) is None:
        if "reasoning" in asked and not put:
            raise SiteError(
                'queries="reasoning" are the rows of a thought before the answer, but neither the chat template nor '
                "the tokenizer of this model has the marks of one (interp.tracing.reasoning.thoughts.MARKS). Write "
                'queries="answer" for all that it generates.'
            )
        return None
    if not any(stages):
        return None
    if mllm.server is not None:
        raise ServerError(
            'edits of queries="reasoning" or "answer" follow a model that thinks token by token, which a job on an '
            'NDIF server does not. Write queries="last" with steps="decode" for all generated tokens.'
        )
    return Stages(mllm.processor, _opened(mllm, batch))


def _opened(mllm: WrappedModel, batch: Batch) -> list[bool]:
    return [leaves_open(one.text, batch.prompt, mllm.processor) for one in batch.singles]


def check_stages(stages: Stages, found: Sequence[Said], n_steps: Sequence[int]) -> None:
    """Refuses an edit that took part of a thought for the answer: of a thought that was closed but never opened."""
    for i, (one, n, follower) in enumerate(zip(found, n_steps, stages.followers, strict=True)):
        n = min(n, len(follower.labels))  # the last token is not run
        if one.reasoning is not None and sum(follower.labels[:n]) != min(one.n_reasoning, n):
            raise EditError(
                f"sample {i} of the batch ended a thought that neither its prompt nor its first token had begun, so "
                "the edit could not tell it from the answer. Write interp.Prompt(thinking=True), which takes all "
                "before the end mark for the thought."
            )


def said_by(
    mllm: WrappedModel, batch: Batch, lines: Sequence[Sequence[int]], ends: frozenset[int]
) -> tuple[list[tuple[int, ...]], list[Said]]:
    """The tokens that each sample generated, its end included, and the thought and the answer among them.

    Args:
        mllm: The model.
        batch: The samples.
        lines: All tokens of each, what follows its end too.
        ends: The tokens that end an answer.
    """
    lengths = [next((i + 1 for i, t in enumerate(line) if t in ends), len(line)) for line in lines]
    own = [tuple(line[:n]) for line, n in zip(lines, lengths, strict=True)]
    opened = _opened(mllm, batch)
    return own, [said(ids, mllm.processor, one) for ids, one in zip(own, opened, strict=True)]
