"""Studies of a model on an NDIF server: equal to those of the same model here, and resumed after a fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import interp
from interp import ModelSpec, indicators, study
from interp.data import Samples
from interp.errors import RunError, ServerError, StudyError
from tests.remote.serving import KEY, Serving, samples, serving, settings

STUDIES = {
    "layer sweep": lambda **at: interp.LayerSweep(batch=2, **at),
    "layer sweep by gradients": lambda **at: interp.LayerSweep(
        batch=2, indicator=indicators.AttentionGradient(), **at
    ),
    "head ranking": lambda **at: interp.HeadRanking(batch=2, **at),
    "knockout sweep": lambda **at: interp.KnockoutSweep(target="greedy", **at),
    "comparison": lambda **at: interp.IndicatorComparison(
        indicators={"rows": indicators.AttentionGradient(), "pixels": indicators.InputGradient()},
        layers={"rows": 1},
        randomised=(),
        removals=(indicators.HideTokens(), indicators.ReplaceEmbeddings(), indicators.PaintPixels()),
        **at,
    ),
    "logit lens": lambda **at: study.LensSweep(batch=2, words=("answer",), **at),
    "head attribution": lambda **at: study.HeadAttribution(batch=2, **at),
    "layer sweep by values": lambda **at: interp.LayerSweep(
        batch=2, indicator=indicators.ValueWeightedAttention(), **at
    ),
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


def test_a_comparison_that_shuffles_weights_is_refused(data: Samples) -> None:
    comparison = interp.IndicatorComparison(data=data, model=ModelSpec("x", remote=True), n_checked=0)
    with pytest.raises(StudyError, match=r"^randomised= shuffles the model's weights, and those on an NDIF"):
        comparison.replace(n_checked=4)


@pytest.mark.slow
def test_workers_send_jobs_of_their_own(
    server: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDIF_HOST", server.address)
    monkeypatch.setenv("NDIF_API_KEY", KEY)
    many = Samples(samples(40), name="made")
    sweep = interp.LayerSweep(data=many, model=ModelSpec(server.folders["llava"], remote=True), batch=4)
    one, two = (sweep.run(tmp_path / str(n), workers=n, progress=False) for n in (1, 2))
    assert one.scores.equals(two.scores)
    task = sweep.task(interp.load(server.folders["llava"], remote=True))
    task.move("cuda")
    assert task.device == "remote"
    assert task.study.model == sweep.model
    with pytest.raises(RunError, match="expected no devices for workers whose model runs on a server"):
        sweep.run(tmp_path / "three", devices=["cpu"], progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", STUDIES)
def test_every_study_there_equals_here(kind: str, server: Serving, data: Samples, tmp_path: Path) -> None:
    folder = server.folders["llava"]
    there, here = (
        STUDIES[kind](data=data, model=model).run(tmp_path / name, progress=False)
        for name, model in (("there", ModelSpec(folder, remote=True)), ("here", ModelSpec(folder)))
    )
    assert len(there.failures) == len(here.failures)  # a comparison says where a curve is undefined
    assert len(there.failures) < len(there.scores)
    mine, theirs = (one.scores for one in (there, here))
    percent = mine["measure"].eq("relative") if "measure" in mine else np.zeros(len(mine), bool)
    for column in mine.select_dtypes("number"):
        # here prefixes are shared, which rounds differently: 1e-5 nats of an answer are 1e-3 % of its probability
        off = np.abs(mine[column].to_numpy(float) - theirs[column].to_numpy(float))
        assert np.array_equal(np.isnan(mine[column]), np.isnan(theirs[column]))
        assert np.nanmax(off / np.where(percent, 100.0, 1.0), initial=0.0) < 1e-5


@pytest.mark.slow
def test_a_lost_server_loses_no_finished_shard(server: Serving, tmp_path: Path) -> None:
    folder, data = server.folders["llava"], Samples(samples(10), name="made")

    def study(name: str) -> Any:
        sweep = interp.LayerSweep(data=data, model=ModelSpec(folder, remote=True), batch=1)
        return sweep.run(tmp_path / name, progress=False)

    whole = study("whole").scores
    n_before = len(server.sizes())
    server.fault(error="RuntimeError: the node went away", after=10)
    with pytest.raises(ServerError, match=r"the node went away\. Finished work is stored"):
        study("broken")
    n_first = len(server.sizes()) - n_before
    stored = sorted(path.name for path in (tmp_path / "broken").rglob("*.parquet"))
    assert stored
    server.fault()
    again = study("broken").scores
    assert len(server.sizes()) - n_before - n_first < 20  # the finished shard is not run again
    assert again.equals(whole)


class Tapped:
    """An indicator that works on the model's own modules."""

    name = "tapped"

    def to_dict(self) -> dict[str, Any]:
        return {"indicator": self.name}

    def __call__(self, mllm: interp.Mllm, *_: Any, **__: Any) -> Any:
        with mllm.tap():
            raise AssertionError


@pytest.mark.slow
def test_what_needs_the_weights_ends_a_study(server: Serving, data: Samples, tmp_path: Path) -> None:
    spec = ModelSpec(server.folders["llava"], remote=True)
    comparison = interp.IndicatorComparison(
        data=data, model=spec, indicators={"own": Tapped()}, removals=(), randomised=()
    )
    with pytest.raises(ServerError, match="needs the model's weights on this machine"):
        comparison.run(tmp_path, progress=False)
