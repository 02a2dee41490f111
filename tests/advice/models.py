"""Advice of the errors of models."""

from __future__ import annotations

from typing import Any

ROWS: list[tuple[str, str, str]] = []  # (a call that fails, words of its message, a call that follows them)

ELSEWHERE: dict[str, str] = {}  # the beginning of a message: why no row follows it, or the test that does


def names() -> dict[str, Any]:
    """What the calls use, beside the names of `tests/test_advice.py`."""
    return {}
