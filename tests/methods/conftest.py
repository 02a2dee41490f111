from __future__ import annotations

from typing import Any

import pytest

import tests.tiny as tiny
from interp.tracing import Batch, Mllm, wrap


@pytest.fixture(scope="session")
def mllm() -> Mllm:
    return wrap(tiny.llava(), tiny.processor())


@pytest.fixture(scope="session")
def eager() -> Any:
    """The same weights in transformers' eager attention, never wrapped."""
    return tiny.llava("eager")


@pytest.fixture(scope="session")
def batch(mllm: Mllm) -> Batch:
    """Three samples of different lengths, so two are left-padded."""
    return mllm.encode(tiny.samples())
