"""Runs chat templates within limits: they come with checkpoints, and one can ask for endless loops or memory.

transformers runs them in jinja2's sandbox, which keeps them from files and code but not from `"x" * 10**9`. Here each
render has a budget of steps and characters. What would exceed it is refused before it is computed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache, wraps
from itertools import islice
from math import prod
from threading import RLock
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer
from transformers.utils import chat_template_utils

__all__ = ["LARGEST", "bounded"]

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
    """A call of the environment's function, which no template can put another in the place of."""
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
