from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tests.tiny as tiny
from interp.tracing import Batch, Mllm, wrap
from tests.tracing.reference_attention import attention_of


@pytest.fixture(scope="session")
def mllm() -> Mllm:
    return wrap(tiny.llava(), tiny.processor())


@pytest.fixture(scope="session")
def eager() -> Any:
    """The same weights in transformers' eager attention, never wrapped."""
    return tiny.llava("eager")


@pytest.fixture(scope="session")
def plain() -> Any:
    """The same weights in transformers' sdpa attention, never wrapped."""
    return tiny.llava("sdpa")


@pytest.fixture(scope="session")
def batch(mllm: Mllm) -> Batch:
    """Three samples of different lengths, so two are left-padded."""
    return mllm.encode(tiny.samples())


@pytest.fixture(scope="session")
def attentions(eager: Any, batch: Batch) -> list[np.ndarray]:
    """Eager attention of each sample, alone and without padding: (layer, head, query, key)."""
    return [attention_of(eager, single.inputs) for single in batch.singles]
