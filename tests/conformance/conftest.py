from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from interp.conformance import Subject
from interp.conformance.tiny import tiny
from interp.tracing import Mllm, wrap


@cache
def _mllm(family: str) -> Mllm:
    return wrap(*tiny(family), family)


@pytest.fixture(scope="session")
def mllm() -> Callable[[str], Mllm]:
    """Each family's tiny model, built once; tests do not change it."""
    return _mllm


@pytest.fixture
def subject() -> Callable[[str], Subject]:
    """A family's tiny model under test, few probes."""
    return lambda family: Subject(_mllm(family), probes=16)
