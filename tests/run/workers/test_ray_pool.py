"""A pool of Ray's actors without a cluster: a stand-in takes Ray's place, and its actors are of this process."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from interp.errors import RunError
from interp.run import RunFolder, Workers
from interp.run.prepare import Unit
from interp.run.sessions import begin_session
from interp.run.shards import Job
from interp.run.workers import packed_jobs, ray_cluster, store_sent_files
from interp.run.workers.private_ray import PrivateRay
from interp.run.workers.ray_cluster import RayCluster, RemoteWorker
from interp.run.workers.worker import Message, about_this_process
from tests.run.fake_task import Roots
from tests.run.workers.stand_in_ray import ActorDiedError, Call, StandInRay


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> StandInRay:
    """What `import ray` gives."""
    found: Any = StandInRay()
    monkeypatch.setitem(sys.modules, "ray", found)
    for name in ("services", "worker"):
        monkeypatch.setitem(sys.modules, f"ray._private.{name}", ModuleType(name))
    return found


def pool(said: list[str] | None = None, groups: list[bytes] | None = None, **options: Any) -> RayCluster:
    workers = Workers(2, **{"address": "auto", **options})
    say = [].append if said is None else said.append
    return RayCluster(groups or [b"one", b"two"], workers, 2, None, say)


@pytest.mark.parametrize(("gpus", "device"), [(None, None), (0, None), (0.5, "cuda"), (2, "cuda")])
def test_an_actor_has_a_cpu_its_gpus_and_the_groups(ray: StandInRay, gpus: Any, device: Any) -> None:
    RayCluster([b"one", b"two"], Workers(2, address="auto", gpus=gpus), 2, 3, print).start(0, 0)
    assert ray.options["num_cpus"] == 1
    assert ray.options["num_gpus"] == (gpus or 0)
    assert ray.options["max_restarts"] == 0  # the pool replaces workers itself
    ((groups, threads, own),) = ray.made
    assert [one.give() for one in groups] == [b"one", b"two"]
    assert (threads, own) == (3, device)


def test_an_actor_computes_a_unit_and_sends_its_files(ray: StandInRay, tmp_path: Path) -> None:
    task = Roots()
    folder = RunFolder.create(tmp_path, task.name, task.to_dict())
    packed = pickle.dumps([Job(task, folder, begin_session(folder, {}))])
    cluster = pool(groups=[pickle.dumps([]), packed])
    cluster.start(7, 0)
    assert cluster.wait() == [Message(7, "ready", about_this_process())]
    cluster.send(7, Unit(1, (0,), 2))
    (done,) = cluster.wait()
    assert (done.worker, done.kind) == (7, "done")
    assert not (folder.path / "shards").exists()
    store_sent_files(folder, done.value[0])
    assert folder.has_shard(2, ["scores", "maps", "failures"])
    assert cluster.wait() == []  # every message is told once


def test_jobs_travel_to_ray_with_their_code(ray: StandInRay) -> None:
    assert packed_jobs([], Workers(2, address="auto")) == b"code of []"
    assert pickle.loads(packed_jobs([], Workers(2))) == []


def test_an_actor_fetches_a_group_once(ray: StandInRay, tmp_path: Path) -> None:
    task, fetched = Roots(), list[int]()
    folder = RunFolder.create(tmp_path, task.name, task.to_dict())
    packed = pickle.dumps([Job(task, folder, "session")])

    def fetch() -> bytes:
        fetched.append(1)
        return packed

    worker = RemoteWorker([Call(fetch)], None, None)
    assert [worker.compute(Unit(0, (0,), shard))[0] for shard in (0, 1)] == ["done"] * 2
    assert fetched == [1]


def test_an_actor_that_is_gone_has_died_and_is_ended(ray: StandInRay) -> None:
    cluster = pool()
    for worker in (0, 1):
        cluster.start(worker, worker)

    def gone() -> Any:
        raise ActorDiedError("the node\n  is down" + "!" * 600)

    first = next(iter(cluster._calls))
    first.give = gone
    died, ready = cluster.wait()
    assert (died.worker, died.kind, ready.worker, ready.kind) == (0, "died", 1, "ready")
    assert died.value.startswith("ActorDiedError: the node is down!")
    assert len(died.value) == 500
    assert len(ray.killed) == 1
    cluster.close(kill=False)
    assert len(ray.killed) == 2  # the dead one is not ended twice


def test_a_cluster_that_was_joined_is_left_and_no_other(ray: StandInRay) -> None:
    pool().close(kill=True)
    (given,) = ray.inits
    assert (given["address"], given["log_to_driver"]) == ("auto", False)
    assert ray.n_shutdowns == 1
    pool().close(kill=False)  # the user's own program began with Ray
    assert (len(ray.inits), ray.n_shutdowns) == (1, 1)


def test_a_cluster_that_cannot_be_joined_is_told(ray: StandInRay) -> None:
    ray.fault = ValueError("no\n   such cluster")
    with pytest.raises(RunError, match=r"use Ray at 'auto', got: no such cluster.*ray start --head"):
        pool()
    assert ray.n_shutdowns == 1
    ray.fault = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        pool()
    assert ray.n_shutdowns == 2


class OwnRay(PrivateRay):
    """What stands for a private Ray; notes how it is closed."""

    def __init__(self, n_cpus: int) -> None:
        self.address, self.folder, self.n_cpus = "127.0.0.1:77", "/tmp/interp-ray-x", n_cpus
        self.closed: list[bool] = []
        made.append(self)

    def close(self, *, leave_messages: bool = False) -> None:
        self.closed.append(leave_messages)


made: list[OwnRay] = []


@pytest.fixture
def private(ray: StandInRay, monkeypatch: pytest.MonkeyPatch) -> list[OwnRay]:
    """The private Rays that are made."""
    made.clear()
    monkeypatch.setattr(ray_cluster, "PrivateRay", OwnRay)
    monkeypatch.setattr(ray_cluster, "show_token", lambda: None)
    return made


@pytest.mark.parametrize("kill", [False, True])
def test_a_private_ray_ends_with_the_pool(ray: StandInRay, private: list[OwnRay], kill: bool) -> None:
    said: list[str] = []
    pool(said, address="local").close(kill=kill)
    assert ray.inits[0]["address"] == "127.0.0.1:77"
    assert ray.n_shutdowns == 1
    assert private[0].closed == [kill]  # what Ray said is of use where a run went wrong
    assert said == (["Ray's own messages are in /tmp/interp-ray-x/session_latest/logs."] if kill else [])


@pytest.mark.parametrize("n_cpus", [1, 64])
def test_a_private_ray_has_room_for_every_worker(
    private: list[OwnRay], monkeypatch: pytest.MonkeyPatch, n_cpus: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: n_cpus)
    pool(address="local")
    assert private[0].n_cpus == max(n_cpus, 2)


def test_a_private_ray_that_cannot_be_used_is_closed(ray: StandInRay, private: list[OwnRay]) -> None:
    ray.fault = RuntimeError("too slow")
    with pytest.raises(RunError, match=r"at 'local', got: too slow\. Is this machine very busy"):
        pool(address="local")
    assert private[0].closed == [False]


@pytest.mark.parametrize(
    ("address", "asked"),
    [("head:6379", ("head", 6379)), ("ray://[::1]:9", ("::1", 9)), ("auto", None)],
)
def test_an_address_is_tried_before_ray_is(
    ray: StandInRay, monkeypatch: pytest.MonkeyPatch, address: str, asked: Any
) -> None:
    tried: list[Any] = []

    def connect(place: Any, timeout: float) -> Any:
        tried.append(place)
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(ray_cluster.socket, "create_connection", connect)
    if asked is None:
        pool(address=address)
    else:
        with pytest.raises(RunError, match=f"{address!r}, got: refused".replace("[", r"\[")):
            pool(address=address)
    assert tried == ([] if asked is None else [asked])
    assert len(ray.inits) == (asked is None)


def test_who_waits_for_a_place_is_told_and_then_gives_up(
    ray: StandInRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, said = [100.0], list[str]()
    monkeypatch.setattr(ray_cluster, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    cluster = pool(said, gpus=2)
    cluster.start(0, 0)
    ray.ready = False
    for clock[0], n_said in ((119.0, 0), (121.0, 1), (130.0, 1), (699.0, 1)):
        assert cluster.wait() == []
        assert len(said) == n_said
    assert said[0].startswith("waiting for Ray to place a worker with 1 CPU and 2 GPU; ")
    assert said[0].endswith("the cluster has 8 CPUs and 0 GPUs in all.")
    clock[0] = 701.0
    with pytest.raises(
        RunError, match=r"with 1 CPU and 2 GPU within 600 s.*8 CPUs and 0 GPUs.*smaller gpus="
    ):
        cluster.wait()


def test_a_long_computation_is_no_wait_for_a_place(ray: StandInRay, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = [0.0], list[str]()
    monkeypatch.setattr(ray_cluster, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    cluster = pool(said)
    cluster.start(0, 0)
    assert cluster.wait()[0].kind == "ready"
    cluster.send(0, Unit(0, (0,), 0))
    ray.ready, clock[0] = False, 5000.0
    assert cluster.wait() == []
    assert said == []


def test_a_place_that_came_late_is_taken(ray: StandInRay, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(ray_cluster, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    cluster = pool()
    cluster.start(0, 0)
    clock[0] = 5000.0  # this process slept meanwhile
    assert cluster.wait()[0].kind == "ready"
