"""One call with one wrong argument: it must succeed or raise an error of this package, in time."""

from __future__ import annotations

import copy
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import numpy as np
import torch

from interp.errors import InterpError

SECONDS = 20.0
"""What one call may take: much more than any needs, much less than a hang."""

WRONG: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "text": lambda: "x",
    "empty text": lambda: "",
    "text with a null byte": lambda: "a\0b",
    "long text": lambda: "a/b" * 3000,
    "bytes": lambda: b"x",
    "-1": lambda: -1,
    "0": lambda: 0,
    "0.5": lambda: 0.5,
    "10**30": lambda: 10**30,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "True": lambda: True,
    "[]": list,
    "[None]": lambda: [None],
    "nested list": lambda: [[[1]]],
    "dict": dict,
    "dict of None": lambda: {"x": None},
    "set": lambda: {"x"},
    "object": lambda: object(),
    "class": lambda: dict,
    "tuple": lambda: (1, "x"),
    "array": lambda: np.arange(4.0).reshape(2, 2),
    "tensor": lambda: torch.ones(2, 2),
    "bfloat16 tensor": lambda: torch.ones(3, dtype=torch.bfloat16, requires_grad=True),
    "function": lambda: lambda: None,
    "generator": lambda: (one for one in (1,)),
    "complex": lambda: 1j,
}
"""Values of types and sizes that hardly any argument takes."""


class TooSlow(BaseException):
    """A call took longer than `SECONDS`. Not an `Exception`, so that nothing on the way catches it."""


@contextmanager
def limited(seconds: float = SECONDS) -> Iterator[None]:
    """Raises `TooSlow` in the block when it takes longer."""

    def stop(*_: Any) -> None:
        raise TooSlow(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def bare_error(call: Callable[[], Any], seconds: float | None = None) -> str:
    """Empty when the call succeeds or raises an `InterpError` with a message; else what it raised, on one line."""
    try:
        with limited(SECONDS if seconds is None else seconds):
            call()
    except InterpError as error:
        return "" if str(error).strip() else f"{type(error).__name__} without a message"
    except (Exception, SystemExit, TooSlow) as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    return ""


@dataclass(frozen=True)
class Call:
    """A public function and arguments that it takes.

    Attributes:
        name: As a user writes it.
        function: The function or class.
        given: Makes arguments by name, all of which are right.
        spared: Arguments, or trials as "argument=value", that are not made, for a reason that the table gives.
    """

    name: str
    function: Callable[..., Any]
    given: Callable[[], Mapping[str, Any]] = dict
    spared: frozenset[str] = frozenset()

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of its arguments."""
        kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
        found = signature(self.function).parameters.values()
        own = [one.name for one in found if one.kind in kinds and one.name not in self.spared]
        return (*own, *(name for name in self.given() if name not in own and name not in self.spared))

    def trials(self) -> Iterator[tuple[str, str]]:
        """Every argument with every wrong value."""
        for argument in self.arguments:
            for value in WRONG:
                if f"{argument}={value}" not in self.spared:
                    yield argument, value

    def tried(self, argument: str, value: str) -> str:
        """What `bare_error` says of the call with this argument replaced by that value."""
        found = bare_error(lambda: self.function(**{**self.given(), argument: WRONG[value]()}))
        return re.sub(r"0x[0-9a-f]+", "0x…", f"{self.name}({argument}={value}): {found}") if found else ""


def given(**arguments: Any) -> Callable[[], Mapping[str, Any]]:
    """Makes these arguments anew."""
    return lambda: copy.copy(arguments)


def called_back(argument: str) -> frozenset[str]:
    """Trials with functions that take nothing: what a user's own function raises comes through as it is."""
    return frozenset({f"{argument}=function", f"{argument}=class"})
