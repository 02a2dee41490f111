"""How the question is put to the model, and which answer an indicator explains."""

from __future__ import annotations

import string
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from interp.errors import PromptError

if TYPE_CHECKING:
    from interp.inputs.sample import Sample

__all__ = ["GENERIC_PROMPT", "PAPER_PROMPT", "Diff", "Prompt", "Target", "diff"]

SHORT_ANSWER = "Answer the question using a single word or phrase."
LETTER_ANSWER = "Answer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class Prompt:
    """The text around a question, as a value: part of a study's hash.

    Args:
        template: Text with at most one `{question}`; a literal brace is doubled. Without `{question}` the
            prompt is generic: the same for every sample.
        options: "letters" renders a multiple-choice sample as the question, one line `A. …` per choice and
            the instruction to answer with a letter, which takes the place of the template's short-answer
            sentence; "none" leaves the choices out.
        image_first: Images before the text; False puts them after it.
        system: System message, if any.

    Raises:
        PromptError: A template with other fields, or an unknown way to render options.

    Source: the templates of arXiv 2603.14323 and, for multiple choice, of LLaVA-1.5.
    """

    template: str = "{question} " + SHORT_ANSWER
    options: str = "letters"
    image_first: bool = True
    system: str | None = None

    def __post_init__(self) -> None:
        _split(self.template)
        if self.options not in ("letters", "none"):
            raise PromptError(f'options is "letters" or "none"; got {self.options!r}.')

    def text(self, sample: Sample) -> str:
        """The user's turn as text, without the model's chat template.

        Raises:
            PromptError: The template asks for a question and the sample has none, or over 26 options.
        """
        before, question, choices, after = self._parts(sample)
        return before + question + choices + after

    def question_span(self, sample: Sample) -> tuple[int, int] | None:
        """(start, end) of the user's own words inside `text(sample)`; None for a generic prompt.

        Options and instructions are not the user's question. Half-open, in characters.
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
        """Chat messages in transformers' format: one image part per image, first or last, and the text."""
        images = [{"type": "image"} for _ in sample.images]
        text = [{"type": "text", "text": self.text(sample)}]
        content = images + text if self.image_first else text + images
        turn = [{"role": "user", "content": content}]
        if self.system is None:
            return turn
        return [{"role": "system", "content": [{"type": "text", "text": self.system}]}, *turn]

    def to_dict(self) -> dict[str, Any]:
        """The prompt as JSON values: `Prompt(**prompt.to_dict()) == prompt`."""
        return asdict(self)

    def _parts(self, sample: Sample) -> tuple[str, str, str, str]:
        """Text before the question, the question, its choices, text after."""
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
            raise PromptError(f"a template knows only {{question}}; got {shown} in {template!r}.")
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
    """`text` without the short-answer sentence and the blank before it: a letter is asked for instead."""
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
        if self.first == self.second:
            raise PromptError(
                f"diff of {self.first!r} with itself is always zero; name two different answers."
            )


def diff(first: str, second: str) -> Diff:
    """The target log p(first) − log p(second), for `Target(diff("yes", "no"))`."""
    return Diff(first, second)


@dataclass(frozen=True)
class Target:
    """The answer whose log-probability an indicator explains; tokenised in context, teacher-forced.

    An answer follows the prompt after a space, or as it is where the prompt ends in white space or the answer
    begins with some: `Target("yes")` after `ASSISTANT:` is " yes".

    Args:
        spec: "greedy" for the model's own answer, any other text for that answer, or `diff(a, b)`.
        reduce: "sum" or "mean" over the answer's tokens.
        tokens: how many tokens of the model's own answer count, at most; 1 is the likeliest next token. An end
            token counts only where it is the whole answer. For "greedy" alone: a given answer counts whole.

    Raises:
        PromptError: An empty answer, an unknown reduction, or a number of tokens that makes no sense.
    """

    spec: str | Diff = "greedy"
    reduce: str = "sum"
    tokens: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.spec, Diff) and (not isinstance(self.spec, str) or not self.spec.strip()):
            raise PromptError(f'a target is "greedy", an answer or diff(a, b); got {self.spec!r}.')
        if self.reduce not in ("sum", "mean"):
            raise PromptError(f'reduce is "sum" or "mean"; got {self.reduce!r}.')
        if isinstance(self.tokens, bool) or not isinstance(self.tokens, int) or self.tokens < 1:
            raise PromptError(f"tokens is a number of tokens, 1 or more; got {self.tokens!r}.")
        if self.tokens > 1 and self.spec != "greedy":
            raise PromptError(
                f'tokens={self.tokens} is for Target("greedy"); the answer {self.spec!r} counts whole. Leave it out.'
            )

    def to_dict(self) -> dict[str, Any]:
        """The target as JSON values; `tokens` only where it is not 1."""
        spec = self.spec if isinstance(self.spec, str) else {"diff": [self.spec.first, self.spec.second]}
        tokens = {} if self.tokens == 1 else {"tokens": self.tokens}
        return {"spec": spec, "reduce": self.reduce, **tokens}
