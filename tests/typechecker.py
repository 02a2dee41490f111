"""The checker that annotations go through in tests: beartype, taking an int where a float is asked for (PEP 484)."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from beartype import BeartypeConf, beartype

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def typechecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under the checker, which is made when it is first called: a test run calls few of the functions."""
    made: list[Callable[..., Any]] = []

    @wraps(function)
    def check(*args: Any, **kwargs: Any) -> Any:
        if not made:
            made.append(_checked(function))
        return made[0](*args, **kwargs)

    return check
