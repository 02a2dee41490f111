"""Shapes and types are checked at test time: every annotated function of `interp` goes through beartype."""

import os
from collections.abc import Iterator

import jaxtyping
from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401  (jaxtyping looks it up by name)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

HOOK = install_import_hook("interp", "tests.typechecker.typechecked")

import pytest  # noqa: E402
import torch  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Notebooks first: one module of the longest tests, which would else run on one worker at the end."""
    items.sort(key=lambda item: item.get_closest_marker("notebook") is None)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Two test workers share two cores."""
    torch.set_num_threads(1)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Annotations unchecked, as for a user: our own messages must then speak."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
