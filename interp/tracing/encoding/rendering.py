"""Renders a sample's prompt as text with the model's chat template, and finds the question in it.

Chat templates come with checkpoints. transformers runs them in jinja2's sandbox, which keeps them from files and code
but not from `"x" * 10**9`. Here each render has a budget of steps and characters, which it cannot exceed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial, wraps
from itertools import islice
from math import prod
from threading import RLock
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jinja2
from jinja2 import TemplateError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer
from PIL import Image
from transformers.utils import chat_template_utils

from interp.errors import PromptError
from interp.inputs.argument_checks import check_text
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.inputs.text import count
from interp.models.adapter import Adapter

__all__ = ["LARGEST", "Rendered", "bounded", "placeholder", "plain_text", "render"]


Span = tuple[int, int]
"""Half-open, in characters."""


@dataclass(frozen=True)
class Rendered:
    """A rendered prompt.

    Attributes:
        text: What the processor is given: the prompt in the model's chat template.
        laid: The text after the processor's additions, before its placeholders are expanded.
        question: The span of the user's words in `laid`; None without a question, or where the template rewrites it.
    """

    text: str
    laid: str
    question: Span | None


class _Turn(NamedTuple):
    """The texts that a prompt puts into the chat template."""

    user: str
    system: str | None


def render(sample: Sample, prompt: Prompt, processor: Any, adapter: Adapter) -> Rendered:
    """The prompt in the model's chat template (or the family's fallback), image placeholders not expanded.

    It is rendered twice, the second time with marks around the user's text, the question and the system message; they
    show where the question is, whatever its words are, and what a template leaves out.

    Raises:
        PromptError: A template that fails, or leaves out the system message or part of the user's text; not one image
            placeholder per image; special tokens in the question.
    """
    if not isinstance(prompt, Prompt):
        raise PromptError(_no_prompt(prompt))
    given = _Turn(prompt.text(sample), prompt.system)
    span, messages = prompt.question_span(sample), prompt.messages(sample)
    write = partial(_written, messages, sample, processor, adapter)
    if prompt.thinking is not None:
        _check_switch(prompt, processor, partial(write, given))
    check_text(f"the text of sample {sample.id}", given.user, PromptError)
    write = partial(write, prompt=prompt)
    text = write(given)
    if not getattr(adapter, "leading_images", False):
        _check_placeholders(text, sample, processor)
    if span is not None:
        _check_special(sample, processor)
    nested = getattr(adapter, "nested_images", True) and sample.video is None
    lay = partial(_laid_out, processor, n_images=len(sample.images) if nested else 0)
    laid = lay(text)
    marks = _Marks.not_in(laid + given.user + (given.system or ""))
    try:
        marked = lay(write(marks.around(given, span)))
    except PromptError:  # a template that reads its text, and takes no marks in it
        marked = None
    marks.check(marked, laid, given, sample, prompt)
    question = None if span is None else marks.place(marked, laid, given.user[slice(*span)])
    return Rendered(text, laid, question)


def plain_text(sample: Sample, prompt: Prompt, processor: Any, adapter: Adapter) -> str:
    """The prompt as text, for models whose tokens are not located; without a chat template it is the adapter's.

    Raises:
        PromptError: As `render` raises.
    """
    if not isinstance(prompt, Prompt):
        raise PromptError(_no_prompt(prompt))
    if _chat_template(processor) is not None:
        return render(sample, prompt, processor, adapter).text
    text = prompt.text(sample)
    check_text(f"the text of sample {sample.id}", text, PromptError)
    if prompt.has_question:
        _check_special(sample, processor)
    return adapter.fallback_prompt(text, len(sample.images), prompt.system)


def _no_prompt(given: Any) -> str:
    if isinstance(given, str):
        return (
            f"prompt= is an interp.Prompt, the text around every question; got the text {given[:80]!r}. A question "
            "belongs to its sample: interp.Sample(image, question). A text around it is a template: "
            'interp.Prompt("{question} Be brief.").'
        )
    if isinstance(given, Sample):
        return (
            "prompt= is an interp.Prompt; got a Sample. Give several samples as one list, [sample, another], before "
            "the prompt."
        )
    return f'prompt= is an interp.Prompt, such as interp.Prompt("{{question}} Be brief."); got {str(given)[:80]}.'


def _written(
    messages: Sequence[Mapping[str, Any]],
    sample: Sample,
    processor: Any,
    adapter: Adapter,
    turn: _Turn,
    prompt: Prompt,
) -> str:
    """The text that the chat template, or the family's fallback, makes of the messages with the turn's texts."""
    begun = getattr(adapter, "begun", lambda text, _: text)
    template = _chat_template(processor)
    if template is None:
        return begun(_fallback(sample, processor, adapter, turn), processor)
    texts = {"system": turn.system, "user": turn.user}
    given = [
        {"role": one["role"], "content": [_filled(part, texts.get(one["role"])) for part in one["content"]]}
        for one in messages
    ]
    options = {"tokenize": False, "add_generation_prompt": True, **_switch(template, prompt)}
    try:
        with bounded():
            text = processor.apply_chat_template(given, chat_template=template, **options)
    except Exception as error:  # whatever a checkpoint's template raises
        raise PromptError(_failed(error, sample, prompt)) from error
    if not isinstance(text, str) or not text.strip():
        raise PromptError(
            f"the chat template should give the prompt of sample {sample.id} as text; it gave {text!r:.80}. {_REPAIR}"
        )
    if len(text) > LARGEST:
        raise PromptError(
            f"the prompt of sample {sample.id} has {len(text):,} characters; a prompt has at most {LARGEST:,}. Shorten "
            "its question."
        )
    return begun(text, processor)


def _filled(part: Mapping[str, Any], text: str | None) -> dict[str, Any]:
    return {**part, "text": text} if part["type"] == "text" else dict(part)


def _fallback(sample: Sample, processor: Any, adapter: Adapter, turn: _Turn) -> str:
    """The family's own prompt; a video has its placeholder where one image would have its."""
    if sample.video is None:
        return adapter.fallback_prompt(turn.user, len(sample.images), turn.system)
    whole = adapter.fallback_prompt(turn.user, 1, turn.system)
    return whole.replace(str(placeholder(processor)), str(placeholder(processor, video=True)), 1)


def placeholder(processor: Any, *, video: bool = False) -> str | None:
    """The text that stands for an image or a video in a prompt; None where the processor has none."""
    return getattr(processor, "video_token" if video else "image_token", None)


_SWITCHES = ("enable_thinking", "thinking")
"""What chat templates call the switch between answers with and without a thought before them."""


def _switch(template: str, prompt: Prompt) -> dict[str, bool]:
    """The template's own switch, set as the prompt says; none where it leaves that to the template."""
    if prompt.thinking is None:
        return {}
    return dict.fromkeys(_read_by(template), prompt.thinking)


@lru_cache(maxsize=16)
def _read_by(template: str) -> tuple[str, ...]:
    """Those of `_SWITCHES` that a chat template reads."""
    try:
        names = meta.find_undeclared_variables(ImmutableSandboxedEnvironment().parse(template))
    except TemplateError:  # transformers' own tags and the like: the words then
        names = {one for one in _SWITCHES if re.search(rf"\b{one}\b", template)}
    return tuple(one for one in _SWITCHES if one in names)


def _check_switch(prompt: Prompt, processor: Any, write: Callable[..., str]) -> None:
    """Refuses `thinking` for a chat template without a switch, or one whose switch changes nothing.

    Args:
        prompt: The prompt with `thinking`.
        processor: The processor with the chat template.
        write: The rendered text, from `prompt=`.
    """
    template = _chat_template(processor)
    texts = {write(prompt=replace(prompt, thinking=one)) for one in (True, False)}
    if template is None or not _read_by(template) or len(texts) == 1:
        raise PromptError(
            f"thinking={prompt.thinking} sets the chat template's own switch ({' or '.join(_SWITCHES)}), and this "
            "model's has none, or one that changes nothing here: it always thinks or never does. Leave thinking= out."
        )


_REPAIR = (
    "Set mllm.processor.chat_template to a template that writes the images and the text of every turn, or to None for "
    "the family's own prompt."
)


def _failed(error: Exception, sample: Sample, prompt: Prompt) -> str:
    reason = next(iter(str(error).strip().splitlines()), "no message")
    line = getattr(error, "lineno", None)
    where = "" if line is None else f" in its line {line}"
    system = (
        "If it takes no system message, write it into the text, as interp.Prompt(template='Be brief. {question}'). "
        if prompt.system is not None
        else ""
    )
    return (
        f"the chat template does not render the prompt of sample {sample.id} ({type(error).__name__}{where}: "
        f"{reason[:300]}). {system}{_REPAIR}"
    )


def _chat_template(processor: Any) -> str | None:
    """The processor's template or the tokenizer's; of several named ones, the one called "default"."""
    found = getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)
    if isinstance(found, Mapping) and "default" in found:
        found = found["default"]
    if found is not None and not isinstance(found, str):
        known = (
            f"one of those named {', '.join(map(str, found))}"
            if isinstance(found, Mapping)
            else repr(found)[:80]
        )
        raise PromptError(f"a chat template is a text; the processor has {known}. {_REPAIR}")
    return found


def _check_placeholders(text: str, sample: Sample, processor: Any) -> None:
    n, what = (len(sample.images), "image") if sample.video is None else (1, "video")
    token = placeholder(processor, video=sample.video is not None)
    if token and text.count(token) != n:
        raise PromptError(
            f"the rendered prompt of sample {sample.id} holds the {what} placeholder {token!r} "
            f"{text.count(token)}× for {count(n, what)}: {text[:500]!r}. The chat template "
            f"places one per {what}; take it out of the question and of the prompt's template."
        )


_special: WeakKeyDictionary[Any, tuple[int, re.Pattern[str]]] = WeakKeyDictionary()
"""For each tokenizer, its size and its special tokens: to list them takes as long as to encode a prompt."""


def _check_special(sample: Sample, processor: Any) -> None:
    """Refuses special tokens in what a data set says: they would begin a turn, end a text or stand for an image."""
    tokenizer = processor.tokenizer
    known = _special.get(tokenizer)
    if known is None or known[0] != len(tokenizer):
        _special[tokenizer] = known = len(tokenizer), _special_tokens(processor)
    for name, said in (("question", sample.question), *(("option", one) for one in sample.options or ())):
        found = known[1].search(said)
        if found is not None:
            raise PromptError(
                f"the {name} of sample {sample.id} holds {found.group()!r}, which the tokenizer reads as a special "
                f"token and not as words: {said[:200]!r}. Write it otherwise: sample.replace({name}"
                f"{'s' if name == 'option' else ''}=…)."
            )


def _special_tokens(processor: Any) -> re.Pattern[str]:
    """The tokenizer's special tokens and the processor's placeholders. One that could be a word is not among them."""
    tokenizer = processor.tokenizer
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    tokens = {str(one) for one in added if one.special} | {str(one) for one in tokenizer.all_special_tokens}
    tokens |= {
        value for name, value in vars(processor).items() if name.endswith("_token") and isinstance(value, str)
    }
    unlike_words = [re.escape(one) for one in sorted(tokens) if len(one) > 2 and not one.isalnum()]
    return re.compile("|".join(unlike_words) or "(?!)")


def _laid_out(processor: Any, text: str, n_images: int) -> str:
    """The text after the processor's additions, before its placeholders are expanded.

    What it adds does not depend on the images, so blank ones stand for them. A processor that takes a sample's images
    as a flat list (GOT-OCR's) adds nothing; there the number of images is given as 0.
    """
    prepare = getattr(processor, "prepare_inputs_layout", None)
    if prepare is None or not n_images:
        return text
    return prepare(images=[[_BLANK] * n_images], text=[text])[1][0]


_BLANK = Image.new("RGB", (1, 1))


@dataclass(frozen=True)
class _Marks:
    """Pairs of characters that a prompt does not hold, to be put around parts of it; white space stays outside."""

    user: str
    question: str
    system: str

    @classmethod
    def not_in(cls, text: str) -> _Marks:
        """Marks for a prompt with this text."""
        used = set(text)
        six = "".join(islice((c for c in map(chr, range(0xE000, 0xF900)) if c not in used), 6))
        return cls(six[:2], six[2:4], six[4:])

    def around(self, turn: _Turn, span: Span | None) -> _Turn:
        """The turn with marks around the user's text, the question at `span` in it, and the system message."""
        user, (start, stop) = turn.user, _core(turn.user)
        inner = user[start:stop]
        if span is not None:
            first, last = _core(user, *span)
            inner = _put(self.question, user[start:first], user[first:last], user[last:stop])
        system = turn.system
        if system is not None:
            begin, end = _core(system)
            system = _put(self.system, system[:begin], system[begin:end], system[end:])
        return _Turn(_put(self.user, user[:start], inner, user[stop:]), system)

    def check(self, marked: str | None, laid: str, turn: _Turn, sample: Sample, prompt: Prompt) -> None:
        """Refuses a template that leaves something out; `marked` is None where it takes no marks."""

        def written(marks: str, text: str) -> bool:
            if marked is None:
                return text.strip() in laid
            return not text.strip() or all(mark in marked for mark in marks)

        if turn.system is not None and not written(self.system, turn.system):
            literal = turn.system.strip().replace("{", "{{").replace("}", "}}")
            raise PromptError(
                f"the chat template leaves out the system message {turn.system!r}: sample {sample.id} becomes "
                f"{laid[:500]!r}. Write it into the text: "
                f"interp.Prompt(template={literal + ' ' + prompt.template!r}), and leave out system=."
            )
        if not written(self.user, turn.user):
            raise PromptError(
                f"the chat template leaves out the text {turn.user[:200]!r}, or part of it: sample {sample.id} becomes "
                f"{laid[:500]!r}. {_REPAIR}"
            )

    def place(self, marked: str | None, laid: str, question: str) -> Span | None:
        """Where the question is in `laid`; None where the template rewrites it, or writes it more than once."""
        if marked is None or any(marked.count(mark) != 1 for mark in self.question):
            return None
        start, stop = (marked.index(mark) for mark in self.question)
        if self._off(marked) != laid or marked[start + 1 : stop] != question.strip():
            return None
        first = len(self._off(marked[:start]))
        return first, first + stop - start - 1

    def _off(self, text: str) -> str:
        return text.translate(dict.fromkeys(map(ord, self.user + self.question + self.system)))


def _put(marks: str, before: str, text: str, after: str) -> str:
    return before + marks[0] + text + marks[1] + after


def _core(text: str, start: int = 0, stop: int | None = None) -> Span:
    """Where the text between `start` and `stop` is without the white space at its ends."""
    part = text[start:stop]
    first = start + len(part) - len(part.lstrip())
    return first, max(first, start + len(part.rstrip()))


LARGEST = 1_000_000
"""Characters of a rendered prompt, and of any value on the way."""
_BUDGET = 2 * LARGEST
"""Characters written in one render; a turn of a loop or a call of a macro counts as `_STEP`."""
_STEP = 100
_LONGEST_CALL = 100 * LARGEST
"""The product of the sizes of what a function is given: how large its result could be."""
_BITS = 10_000
_Surroundings = jinja2.runtime.Context | jinja2.Environment | nodes.EvalContext
"""What jinja2 itself hands to functions."""
_WIDTH = re.compile(r"\d{6,}")
"""A width in a format text."""

_theirs = chat_template_utils._compile_jinja_template
_lock = RLock()


@contextmanager
def bounded() -> Iterator[None]:
    """Chat templates that transformers renders in the block run within limits, one render after the other.

    What goes beyond them raises jinja2's `SecurityError`.
    """
    with _lock:
        before = chat_template_utils._compile_jinja_template
        _environment().left = _BUDGET
        chat_template_utils._compile_jinja_template = _compiled
        try:
            yield
        finally:
            chat_template_utils._compile_jinja_template = before


@lru_cache(maxsize=16)
def _compiled(template: str) -> jinja2.Template:
    return _environment().from_string(template)


@cache
def _environment() -> _Bounded:
    """transformers' own environment, with its filters, functions and extensions, but bounded."""
    plain = _theirs("").environment
    kinds = [type(one) for one in plain.extensions.values()]
    found = _Bounded(trim_blocks=plain.trim_blocks, lstrip_blocks=plain.lstrip_blocks, extensions=kinds)
    found.globals.update(plain.globals)
    del found.globals["lipsum"]  # makes any amount of text
    found.filters.update({name: found.limited(name, function) for name, function in plain.filters.items()})
    return found


class _Bounded(ImmutableSandboxedEnvironment):
    """The sandbox with a budget: `left` is what remains of it."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})
    left = _BUDGET

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, finalize=self.counted)

    def _generate(self, source: nodes.Template, *args: Any, **options: Any) -> str:
        counting = _Counting().visit(source)
        counting.set_environment(self)
        return super()._generate(counting, *args, **options)

    def step(self, n: int = 1) -> None:
        """Takes `n` from the budget."""
        self.left -= n
        if self.left < 0:
            raise SecurityError(f"it takes more than {_BUDGET // _STEP:,} steps or {_BUDGET:,} characters")

    def counted(self, value: Any) -> Any:
        """The value, its size taken from the budget."""
        self.step(_size(value))
        return value

    def joined(self, *values: Any) -> str:
        """The texts of the values, one after the other: jinja's `~`."""
        self.step(sum(map(_size, values)))
        return "".join(map(str, values))

    def wrap_str_format(self, value: Any) -> Any:
        """`str.format` within jinja2's limits, and without wide columns."""
        found = super().wrap_str_format(value)
        if found is not None:
            _check_call(value.__self__, (), {})
        return found

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A function's result. Macros are templates, whose own steps are counted."""
        if not isinstance(obj, Macro) and getattr(obj, "__self__", None) is not self:
            _check_call(getattr(obj, "__self__", None), args, kwargs)
        return super().call(context, obj, *args, **kwargs)

    def limited(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that is given nothing it could make too much of."""

        @wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            listed = tuple(_listed(one) for one in args)
            _check_call(args[0] if name == "format" else None, listed, kwargs)
            return self.counted(function(*listed, **kwargs))

        return checked

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """The result of an operator, if it cannot be large."""
        if operator == "%" and isinstance(left, str):
            _check_call(left, right if isinstance(right, tuple) else (right,), {})
        elif operator == "+":
            self.step(_size(left) + _size(right))
        elif operator == "*" and not all(isinstance(one, int | float) for one in (left, right)):
            self.step(_refused_above(LARGEST, _amount(left) * _amount(right)))
        elif isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * (abs(right) if operator == "**" else 1)
            _refused_above(_BITS, bits + right.bit_length())
        return super().call_binop(context, operator, left, right)


class _Counting(NodeTransformer):
    """Counts the turns of loops and the calls of macros, and hands `~` to the environment."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - jinja2's name
        """A loop, each turn counted."""
        return self._counted(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:  # noqa: N802 - jinja2's name
        """A macro, each call counted."""
        return self._counted(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - jinja2's name
        """A call of `joined`."""
        self.generic_visit(node)
        return _calling("joined", node.nodes, node.lineno)

    def _counted(self, node: Any) -> Any:
        self.generic_visit(node)
        written = sum(len(one.data) for part in node.body for one in _literals(part))
        step = _calling("step", [nodes.Const(_STEP + written, lineno=node.lineno)], node.lineno)
        node.body.insert(0, nodes.ExprStmt(step, lineno=node.lineno))
        return node


def _literals(node: nodes.Node) -> list[nodes.TemplateData]:
    own = [node] if isinstance(node, nodes.TemplateData) else []
    return [*own, *node.find_all(nodes.TemplateData)]


def _calling(name: str, arguments: list[Any], lineno: int) -> nodes.Call:
    """A call of the environment's own function, which a template cannot replace."""
    function = nodes.EnvironmentAttribute(name, lineno=lineno)
    return nodes.Call(function, arguments, [], None, None, lineno=lineno)


def _check_call(owner: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuses a call whose result could be too large: a text padded, repeated, or put between others."""
    if isinstance(owner, str) and _WIDTH.search(owner):
        raise SecurityError(f"it formats a text to a width of more than {LARGEST:,}")
    own = [owner] if isinstance(owner, str | bytes | list | tuple | dict) else []
    given = [one for one in (*own, *args, *kwargs.values()) if not isinstance(one, _Surroundings)]
    if any(isinstance(one, str) and _WIDTH.fullmatch(one) for one in given):
        raise SecurityError(f"it formats a text to a width of more than {LARGEST:,}")
    _refused_above(_LONGEST_CALL, prod(max(_amount(one), 1) for one in given))


def _amount(value: Any) -> int:
    """How often a number repeats something; the size of anything else."""
    return int(abs(value)) if isinstance(value, int | float) and value == value else _size(value)


def _size(value: Any) -> int:
    """Characters of a text; of a container, those of everything in it, however often the same object."""
    total, waiting = 0, [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str | bytes):
            total += len(one)
        elif isinstance(one, Mapping):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += one
        total += 1
        if total > LARGEST:
            break
    return _refused_above(LARGEST, total)


def _refused_above(most: int, n: int) -> int:
    if n > most:
        raise SecurityError(f"it makes a value of more than {LARGEST:,} characters")
    return n


def _listed(value: Any) -> Any:
    """An iterator as a list, so that its size is known."""
    if not isinstance(value, Iterator):
        return value
    found = list(islice(value, LARGEST + 1))
    _refused_above(LARGEST, len(found))
    return found
