"""Each study runs once a session; workers share the folder of runs and wait for one another."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.golden import examples
from tests.tracing.scripted import scripted

Run = Callable[[Any], Any]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of runs."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "golden-runs"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def run(runs: Path) -> Run:
    """Gives a study's result; what another worker ran is read."""

    def found(study: Any) -> Any:
        with (runs / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return study.run(runs, progress=False)

    return found


@pytest.fixture(scope="session")
def sweep(run: Run) -> Any:
    """A layer sweep on test samples."""
    return run(examples.sweep())


@pytest.fixture(scope="session")
def validation(run: Run) -> Any:
    """The same on validation samples."""
    return run(examples.sweep("validation"))


@pytest.fixture(scope="session")
def rankings(run: Run) -> dict[str, Any]:
    """Head rankings on validation samples."""
    return {name: run(examples.ranking(name)) for name in examples.both()}


@pytest.fixture(scope="session")
def attribution(run: Run) -> Any:
    """A head attribution."""
    return run(examples.attribution())


@pytest.fixture(scope="session")
def described_rankings(run: Run) -> dict[str, Any]:
    """Head rankings by attention ratio on the samples of the attribution."""
    return {name: run(examples.ranking(name, "ar", "test")) for name in examples.both()}


@pytest.fixture(scope="session")
def lens(run: Run) -> Any:
    """A logit lens."""
    return run(examples.lens())


@pytest.fixture(scope="session")
def knockout(run: Run) -> Any:
    """A knockout sweep over windows."""
    return run(examples.knockout())


@pytest.fixture(scope="session")
def knockout_heads(run: Run) -> Any:
    """A knockout sweep over heads."""
    return run(examples.knockout_heads())


@pytest.fixture(scope="session")
def methods(run: Run) -> Any:
    """Refinements by several methods."""
    return run(examples.methods())


@pytest.fixture(scope="session")
def comparison(run: Run) -> Any:
    """A comparison of indicators."""
    return run(examples.comparison())


@pytest.fixture(scope="session")
def benchmark(run: Run) -> Any:
    """Marks of answers under a method."""
    return run(examples.benchmark())


@pytest.fixture(scope="session")
def circuit(run: Run) -> Any:
    """A circuit of few samples."""
    return run(examples.circuit())


@pytest.fixture(scope="session")
def roles(run: Run) -> Any:
    """What each head does."""
    return run(examples.head_roles())


@pytest.fixture(scope="session")
def probes(run: Run) -> Any:
    """Probes of a colour."""
    return run(examples.probes())


@pytest.fixture(scope="session")
def reasoning(run: Run) -> Any:
    """Thoughts without the image."""
    return run(examples.reasoning(scripted("eager")[0]))


@pytest.fixture(scope="session")
def stated(run: Run) -> Any:
    """Boxes that were put in a model's mouth."""
    return run(examples.stated_boxes())
