"""The prompt around a question, and the target: the answer that an indicator explains."""

from __future__ import annotations

import string
from dataclasses import asdict, dataclass
from functools import lru_cache
from numbers import Integral
from typing import TYPE_CHECKING, Any

from interp.errors import PromptError
from interp.inputs.argument_checks import check_bool, check_text

if TYPE_CHECKING:
    from interp.inputs.sample import Sample

__all__ = ["GENERIC_PROMPT", "PAPER_PROMPT", "Diff", "Prompt", "Target", "diff"]

SHORT_ANSWER = "Answer the question using a single word or phrase."
LETTER_ANSWER = "Answer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class Prompt:
    """The text around a question. It is a value and part of a study's hash.

    Args:
        template: Text with at most one `{question}`; write a literal brace twice. A template without
            `{question}` is generic: the same for every sample.
        options: "letters" writes a multiple-choice sample as the question, one line `A. …` per choice, and
            the instruction to answer with a letter; this instruction replaces the template's short-answer
            sentence. "none" leaves the choices out.
        image_first: Whether images come before the text (True) or after it (False).
        system: The system message, if there is one.
        thinking: Whether a model that can reason before it answers does: True or False, as its chat template
            takes it (`enable_thinking` and the like; one that has no such switch is refused when it is rendered).
            None is the chat template's own default. With True, what has no end of a thought is not an answer.

    Raises:
        PromptError: A template with other fields, an unknown way to render options, or values of another type.

    Source: the templates of arXiv 2603.14323 and, for multiple choice, of LLaVA-1.5.
    """

    template: str = "{question} " + SHORT_ANSWER
    options: str = "letters"
    image_first: bool = True
    system: str | None = None
    thinking: bool | None = None

    def __post_init__(self) -> None:
        _split(self.template)
        if not isinstance(self.options, str) or self.options not in ("letters", "none"):
            raise PromptError(f'options is "letters" or "none"; got {self.options!r}.')
        check_bool("image_first", self.image_first, PromptError)
        if self.system is not None and not isinstance(self.system, str):
            raise PromptError(f"system is the system message, a text, or None; got {self.system!r}.")
        if self.thinking is not None:
            check_bool("thinking", self.thinking, PromptError)
        for name, text in (("template", self.template), ("system", self.system or "")):
            check_text(name, text, PromptError)

    def text(self, sample: Sample) -> str:
        """Returns the user's turn as text, without the model's chat template.

        Raises:
            PromptError: The template asks for a question and the sample has none, or over 26 options.
        """
        before, question, choices, after = self._parts(sample)
        return before + question + choices + after

    def question_span(self, sample: Sample) -> tuple[int, int] | None:
        """Returns (start, end) of the question inside `text(sample)`; None for a generic prompt.

        The span is half-open and counts characters. Options and instructions are not part of it.
        """
        if not self.has_question:
            return None
        before, question, _, _ = self._parts(sample)
        return len(before), len(before) + len(question)

    @property
    def has_question(self) -> bool:
        """Whether the template holds `{question}`."""
        return _split(self.template)[1] is not None

    def messages(self, sample: Sample) -> list[dict[str, Any]]:
        """Returns chat messages in transformers' format: one part per image or video, before or after the text."""
        text = [{"type": "text", "text": self.text(sample)}]
        images = [{"type": "image"} for _ in sample.images] if sample.video is None else [{"type": "video"}]
        content = images + text if self.image_first else text + images
        turn = [{"role": "user", "content": content}]
        if self.system is None:
            return turn
        return [{"role": "system", "content": [{"type": "text", "text": self.system}]}, *turn]

    def to_dict(self) -> dict[str, Any]:
        """Returns the prompt as JSON values: `Prompt(**prompt.to_dict()) == prompt`.

        `thinking` appears only where it is given, so that prompts without it keep their hash.
        """
        found = asdict(self)
        return found if self.thinking is not None else {n: v for n, v in found.items() if n != "thinking"}

    def _parts(self, sample: Sample) -> tuple[str, str, str, str]:
        """Text before the question, the question, its choices, text after."""
        if not hasattr(sample, "question"):
            raise PromptError(f"a prompt is written for an interp.Sample; got {sample!r}.")
        before, after = _split(self.template)
        if after is None:
            return before, "", "", ""
        if not sample.question.strip():
            raise PromptError(
                f"sample {sample.id} has no question, but the template {self.template!r} asks for one. Give "
                "the sample a question or use a prompt without {question}, such as GENERIC_PROMPT."
            )
        if self.options == "none" or not sample.options:
            return before, sample.question, "", after
        return before, sample.question, _choices(sample.options), _without_short_answer(after)


def _split(template: str) -> tuple[str, str | None]:
    """The literal text before and after `{question}`; None after when there is no such field."""
    if not isinstance(template, str) or not template.strip():
        raise PromptError(f"a template is a text, usually with {{question}} in it; got {template!r}.")
    return _sides(template)


@lru_cache(maxsize=64)
def _sides(template: str) -> tuple[str, str | None]:
    """As `_split`, of a text; kept, because one prompt is put around all questions of a study."""
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise PromptError(
            f"template {template!r}: {error}. Write {{{{ and }}}} for literal braces."
        ) from error
    sides: list[str] = [""]
    for literal, field, spec, conversion in pieces:
        sides[-1] += literal
        if field is None:
            continue
        if field != "question" or spec or conversion:
            shown = (
                "{" + field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}"
            )
            raise PromptError(
                f"a template may contain {{question}} and no other field; got {shown} in {template!r}."
            )
        sides.append("")
    if len(sides) > 2:
        raise PromptError(
            f"a template holds {{question}} at most once; got it {len(sides) - 1}× in {template!r}."
        )
    return sides[0], sides[1] if len(sides) == 2 else None


def _choices(options: tuple[str, ...]) -> str:
    """Lettered choices and the instruction to answer with a letter."""
    if len(options) > len(string.ascii_uppercase):
        raise PromptError(
            f'options="letters" has letters for 26 choices; got {len(options)}. Use options="none".'
        )
    lines = [f"\n{letter}. {option}" for letter, option in zip(string.ascii_uppercase, options, strict=False)]
    return "".join(lines) + "\n" + LETTER_ANSWER


def _without_short_answer(text: str) -> str:
    """Returns `text` without the short-answer sentence and the blank before it."""
    head, found, tail = text.partition(SHORT_ANSWER)
    return head.rstrip() + tail if found else text


PAPER_PROMPT = Prompt()
GENERIC_PROMPT = Prompt(template="Write a general description of the image. " + SHORT_ANSWER)


@dataclass(frozen=True)
class Diff:
    """The log-probability of one answer minus that of another; built by `diff`."""

    first: str
    second: str

    def __post_init__(self) -> None:
        for answer in (self.first, self.second):
            if not isinstance(answer, str) or not answer.strip():
                raise PromptError(f"diff compares two non-empty answers; got {answer!r}.")
            check_text("an answer", answer, PromptError)
        if self.first == self.second:
            raise PromptError(
                f"diff of {self.first!r} with itself is always zero; name two different answers."
            )


def diff(first: str, second: str) -> Diff:
    """Returns the target log p(first) − log p(second), for `Target(diff("yes", "no"))`."""
    return Diff(first, second)


@dataclass(frozen=True)
class Target:
    """The answer whose log-probability an indicator explains. It is tokenised in context and teacher-forced.

    A space is put between the prompt and the answer, unless the prompt ends or the answer begins with white
    space: `Target("yes")` after `ASSISTANT:` is " yes".

    Args:
        spec: "greedy" for the model's own answer, any other text for that answer, or `diff(a, b)`.
        reduce: "sum" or "mean" over the answer's tokens.
        tokens: The largest number of tokens of the model's own answer that count; 1 means the most likely next
            token. An end token counts only where it is the whole answer. Only for "greedy": all tokens of a
            given answer count.

    Raises:
        PromptError: An empty answer, an unknown reduction, or an invalid number of tokens.
    """

    spec: str | Diff = "greedy"
    reduce: str = "sum"
    tokens: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.spec, Diff) and (not isinstance(self.spec, str) or not self.spec.strip()):
            raise PromptError(f'a target is "greedy", an answer or diff(a, b); got {self.spec!r}.')
        if isinstance(self.spec, str):
            check_text("a target", self.spec, PromptError)
        if not isinstance(self.reduce, str) or self.reduce not in ("sum", "mean"):
            raise PromptError(f'reduce is "sum" or "mean"; got {self.reduce!r}.')
        if isinstance(self.tokens, bool) or not isinstance(self.tokens, Integral) or self.tokens < 1:
            raise PromptError(f"tokens is a number of tokens, 1 or more; got {self.tokens!r}.")
        object.__setattr__(self, "tokens", int(self.tokens))
        if self.tokens > 1 and self.spec != "greedy":
            raise PromptError(
                f'tokens={self.tokens} is for Target("greedy"); of the answer {self.spec!r} all tokens '
                "count. Leave tokens= out."
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns the target as JSON values; `tokens` appears only where it is not 1."""
        spec = self.spec if isinstance(self.spec, str) else {"diff": [self.spec.first, self.spec.second]}
        tokens = {} if self.tokens == 1 else {"tokens": self.tokens}
        return {"spec": spec, "reduce": self.reduce, **tokens}
