"""Studies of a model on an NDIF server: equal to those of the same model here, and resumed after a fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import interp
from interp import ModelSpec, indicators
from interp.data import Samples
from interp.errors import ServerError, StudyError
from tests.remote.serving import Serving, samples, serving, settings

STUDIES = {
    "layer sweep": lambda **at: interp.LayerSweep(batch=2, **at),
    "layer sweep by gradients": lambda **at: interp.LayerSweep(
        batch=2, indicator=indicators.AttentionGradient(), **at
    ),
    "head ranking": lambda **at: interp.HeadRanking(batch=2, **at),
    "knockout sweep": lambda **at: interp.KnockoutSweep(target="greedy", **at),
    "refinement": lambda **at: interp.Refinement(method=interp.methods.AdaptVis(), **at),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(["llava"], tmp_path_factory.mktemp("served")) as found, settings(found.address):
        yield found


@pytest.fixture
def data() -> Samples:
    return Samples(samples(4), name="made")


def test_a_spec_says_whether_it_is_remote(unchecked):
    assert ModelSpec("x").remote is False
    with pytest.raises(StudyError, match="remote is True or False; got 1"):
        ModelSpec("x", remote=1)  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
@pytest.mark.parametrize("kind", STUDIES)
def test_every_study_there_equals_here(kind: str, server: Serving, data: Samples, tmp_path: Path) -> None:
    folder = server.folders["llava"]
    there, here = (
        STUDIES[kind](data=data, model=model).run(tmp_path / name, progress=False)
        for name, model in (("there", ModelSpec(folder, remote=True)), ("here", ModelSpec(folder)))
    )
    assert not len(there.failures)
    mine, theirs = (one.scores.select_dtypes("number").to_numpy(float) for one in (there, here))
    np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5, equal_nan=True)


@pytest.mark.slow
def test_a_lost_server_loses_no_finished_shard(server: Serving, tmp_path: Path) -> None:
    folder, data = server.folders["llava"], Samples(samples(10), name="made")

    def study(name: str) -> Any:
        sweep = interp.LayerSweep(data=data, model=ModelSpec(folder, remote=True), batch=1)
        return sweep.run(tmp_path / name, progress=False)

    whole = study("whole").scores
    n_before = len(server.sizes())
    server.fault(error="RuntimeError: the node went away", after=10)
    with pytest.raises(ServerError, match=r"the node went away\. What was finished is stored"):
        study("broken")
    n_first = len(server.sizes()) - n_before
    stored = sorted(path.name for path in (tmp_path / "broken").rglob("*.parquet"))
    assert stored
    server.fault()
    again = study("broken").scores
    assert len(server.sizes()) - n_before - n_first < 20  # the finished shard is not run again
    assert again.equals(whole)


@pytest.mark.slow
def test_what_needs_the_weights_ends_a_study(server: Serving, data: Samples, tmp_path: Path) -> None:
    spec = ModelSpec(server.folders["llava"], remote=True)
    study = interp.LayerSweep(data=data, model=spec, indicator=indicators.Rollout())
    with pytest.raises(ServerError, match="needs the model's weights on this machine"):
        study.run(tmp_path, progress=False)
