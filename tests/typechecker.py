"""The checker that annotations go through in tests: beartype, taking an int where a float is asked for (PEP 484).

A function's checks are made when it is first called, since a test run calls few of the functions: made at import, they
took half of the seconds that importing `interp` takes.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable
from functools import wraps
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
_jaxtyped = jaxtyping.jaxtyped


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

    @wraps(function)
    def check(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if not made:
            made.append(_jaxtyped(function, typechecker=typechecker))
        return made[0](*args, **kwargs)

    check._checked_when_called = True  # pyright: ignore[reportFunctionMemberAccess]
    return check


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
