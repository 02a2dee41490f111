"""The checker that annotations go through in tests: beartype, taking an int where a float is asked for (PEP 484).

A function's checks are made when it is first called, since a test run calls few of the functions: made at import, they
took half of the seconds that importing `interp` takes.

jaxtyping's checks of shapes take half of a test run when they are made at every call. So functions without arrays go
through beartype alone, which is quick, at every call; shapes are checked in the first `FIRST` calls of a function, in
one test of `SHARE` (always the same ones), and at every call of a run that includes the slow tests.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable
from functools import wraps
from typing import Any
from zlib import crc32

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeError))
_jaxtyped = jaxtyping.jaxtyped

FIRST = 20
"""How many calls of each function have their shapes checked in each process, whichever tests make them."""
SHARE = 8
"""One test of so many has the shapes of every call checked."""
_every_call = True


def check_shapes(nodeid: str, every_test: bool) -> None:
    """Says which test makes the calls from now on, and whether the run checks the shapes of every test's calls."""
    global _every_call
    _every_call = every_test or crc32(nodeid.encode()) % SHARE == 0


def jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
    """Stands for `jaxtyping.jaxtyped` in the code that its import hook writes."""

    def decorated(target: Any) -> Any:
        if not inspect.isclass(target):
            return _when_called(target, typechecker)
        if dataclasses.is_dataclass(target) and not hasattr(target.__init__, "_checked_when_called"):
            target.__init__ = _when_called(target.__init__, typechecker)
        return target

    return decorated


def check_annotations(package: str) -> None:
    """Checks arguments, results and array shapes of every function of a package that is imported afterwards."""
    jaxtyping.jaxtyped = jaxtyped  # pyright: ignore[reportAttributeAccessIssue]
    if sys.version_info < (3, 12):
        _check_protocols_by_class(package)
    install_import_hook(package, "tests.typechecker.typechecked")


def _when_called(function: Callable[..., Any], typechecker: Any) -> Callable[..., Any]:
    made: list[Callable[..., Any]] = []
    left: float = FIRST

    @wraps(function)
    def check(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable or (left <= 0 and not _every_call):
            return function(*args, **kwargs)
        if not made:
            quick = _without_arrays(function, typechecker)
            made.append(quick or _jaxtyped(function, typechecker=typechecker))
            left = math.inf if quick else FIRST
        left -= 1
        return made[0](*args, **kwargs)

    check._checked_when_called = True  # pyright: ignore[reportFunctionMemberAccess]
    return check


def _without_arrays(function: Callable[..., Any], typechecker: Any) -> Callable[..., Any] | None:
    """The function checked by beartype alone; None where a hint names an array's shape, or the function yields.

    Hints are read one by one, as jaxtyping reads them: one that cannot be read takes anything.
    """
    if not isinstance(function, types.FunctionType) or inspect.isgeneratorfunction(function):
        return None
    hints = {name: _hint(hint, function.__globals__) for name, hint in function.__annotations__.items()}
    if any(map(_has_array, hints.values())):
        return None
    twin = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    twin.__kwdefaults__, twin.__annotations__ = function.__kwdefaults__, hints
    twin.__qualname__, twin.__module__ = function.__qualname__, function.__module__
    return typechecker(twin)


def _hint(hint: Any, names: dict[str, Any]) -> Any:
    def holder(value: Any) -> None: ...

    holder.__annotations__ = {"value": hint}
    try:
        return typing.get_type_hints(holder, names, include_extras=True)["value"]
    except Exception:  # a name that only a type checker imports
        return Any


def _has_array(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    parts = hint if isinstance(hint, list | tuple) else typing.get_args(hint)
    return any(map(_has_array, parts))


def _check_protocols_by_class(package: str) -> None:
    """Lets `isinstance` with a protocol of the package look at the class first, as Python does from 3.12 on.

    Python 3.11 evaluates each property that the protocol names: the fingerprint of a model's weights for every argument
    that is an opened model. What only the instance has is looked up as ever.
    """
    metaclass: Any = type(typing.Protocol)
    usual = metaclass.__instancecheck__
    known: set[tuple[type, type]] = set()

    def check(cls: Any, instance: Any) -> bool:
        pair = (cls, type(instance))
        if pair not in known:
            if not cls.__module__.startswith(f"{package}.") or not _has_every_member(*pair):
                return usual(cls, instance)
            known.add(pair)
        return True

    metaclass.__instancecheck__ = check


def _has_every_member(protocol: Any, kind: type) -> bool:
    if not getattr(protocol, "_is_runtime_protocol", False) or not getattr(protocol, "_is_protocol", False):
        return False
    names = typing._get_protocol_attrs(protocol)  # pyright: ignore[reportAttributeAccessIssue]
    return all(getattr(kind, name, None) is not None for name in names)
