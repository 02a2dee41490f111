"""Shapes and types are checked at test time: see `tests/typechecker.py`."""

import functools
import gc
import importlib.metadata
import os
import sys
from collections.abc import Generator, Iterator

import jaxtyping

from tests.covering import covering_set, parameters_of
from tests.typechecker import check_annotations, check_shapes

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Beside other work, threads that wait for one another spend 16 times the time of one alone; so the programs that tests
# start have one each, as the workers have.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Workers, the processes that tests start, and the next run read what the first one compiled.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Nothing is installed while tests run; each look at what hundreds of packages offer opens hundreds of files.
importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)

check_annotations("interp")

import pytest  # noqa: E402


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as slow what `ci`, `by_default` and `covering` leave out; puts the longest tests, the notebooks, first."""
    matrices: dict[str, list[pytest.Function]] = {}
    for item in items:
        if item.get_closest_marker("ci") is not None:
            item.add_marker(pytest.mark.slow)
        for mark in item.iter_markers("by_default"):
            if any(item.callspec.params[name] not in values for name, values in mark.kwargs.items()):
                item.add_marker(pytest.mark.slow)
        if isinstance(item, pytest.Function) and item.get_closest_marker("covering") is not None:
            matrices.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for every in matrices.values():
        matrix = [item for item in every if item.get_closest_marker("slow") is None]
        kept = covering_set([parameters_of(item) for item in matrix])
        for place, item in enumerate(matrix):
            if place not in kept:
                item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.get_closest_marker("notebook") is None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leaves modules and collected tests, which stay, out of every search for garbage: in those they take a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


class _Shapes:
    """Tells the checker which test runs; a run that includes the slow tests checks every call."""

    def __init__(self, every_test: bool) -> None:
        self.every_test = every_test

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        check_shapes(nodeid, self.every_test)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Shapes("not slow" not in config.option.markexpr))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Two test workers share two cores."""
    import torch  # takes seconds, and what starts the workers does without

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """A kill loses nothing that the kernel holds; `tests/run/test_disk.py` sees what is synced."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Annotations unchecked, as for a user: our own messages must then speak."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints how many cases of each kind the fuzz tests made (`record_property("fuzzed", (kind, n))`)."""
    reports = [
        one
        for found in terminalreporter.stats.values()
        for one in found
        if getattr(one, "when", "") == "call"
    ]
    made = [
        value for one in reports for name, value in getattr(one, "user_properties", ()) if name == "fuzzed"
    ]
    for kind, n in made:
        terminalreporter.write_line(f"fuzzed {kind}: {n} cases")
    if made:
        terminalreporter.write_line(f"fuzzed in all: {sum(n for _, n in made)} cases")
