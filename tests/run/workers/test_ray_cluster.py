from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from interp.errors import RunError
from interp.run import run_task
from interp.run.workers import dispatch, ray_cluster
from tests.run.fake_task import Roots
from tests.run.run_fingerprints import fingerprints, leftovers

os.environ["RAY_AUTH_MODE"] = "disabled"  # Ray reads it when it is imported, and its processes must all agree
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is missing")
SCRIPT = Path(__file__).parents[1] / "fake_task.py"


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers need not import torch, and find the tests."""
    monkeypatch.setattr(dispatch, "n_threads", lambda: None)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


def rays(parent: int) -> set[int]:
    """The processes of the Ray that a process has started."""
    return {child.pid for child in psutil.Process(parent).children(recursive=True) if child.is_running()}


def is_idle(process: int) -> bool:
    """Whether it is a worker without work, which Ray ends by itself."""
    try:
        return "IDLE" in " ".join(psutil.Process(process).cmdline())
    except psutil.NoSuchProcess:
        return True


def is_alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def await_end(processes: set[int], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while any(map(is_alive, processes)):
        assert time.monotonic() < deadline, "Ray's processes outlive their driver"
        time.sleep(0.2)


@pytest.mark.ci
def test_a_private_ray_gives_the_bytes_of_one_process(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before, first = rays(os.getpid()), Roots().plan().shards[0][-1][-1]
    task = Roots(bad=(5,), deadly=(first, str(tmp_path / "died")))
    run_task(task, tmp_path / "ray", workers=2, address="local", label="roots")
    captured = capfd.readouterr()
    run_task(Roots(bad=(5,)), tmp_path / "whole", progress=False)
    assert (tmp_path / "died").exists()
    assert fingerprints(tmp_path / "ray") == fingerprints(tmp_path / "whole")
    lines = captured.err.splitlines()
    assert [line.partition(",")[0] for line in (lines[0], lines[-1])] == [
        "roots: 30 samples",
        "roots: 30/30 samples",
    ]
    (death,) = (
        line for line in lines if not line.startswith("roots: ")
    )  # the progress, and nothing of Ray's
    assert death.startswith("a worker died (ActorDiedError")
    assert captured.out == ""
    assert task.calls == []
    await_end(rays(os.getpid()) - before)


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunError, match=r'pip install "interp\[ray\]"'):
        run_task(Roots(), tmp_path, workers=2, address="local", progress=False)
    run_task(Roots(n=4), tmp_path, progress=False)
    run_task(Roots(n=4), tmp_path, workers=2, address="local", progress=False)  # nothing is left to compute


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray cluster of one machine that outlives its drivers."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, str(Path(__file__).with_name("ray_head.py"))]
    said = tmp_path_factory.mktemp("head") / "stderr"
    with said.open("w") as file:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": file}
        with subprocess.Popen(command, env=environment, text=True, **pipes) as head:
            address = head.stdout.readline().strip()
            assert address, said.read_text()
            yield address  # leaving the block closes the pipe, and the cluster ends


def await_port(port: int) -> None:
    """Waits until something listens there."""
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "Ray's server for clients does not start"
            time.sleep(0.2)


@pytest.fixture
def client(cluster: str) -> Iterator[str]:
    """The address of a server for Ray's clients."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ray.util.client.server", f"--address={cluster}", f"--port={port}"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([*command, "--host=127.0.0.1"], **quiet)
    try:
        await_port(port)
        yield f"ray://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cluster", "auto", "client"])
def test_a_cluster_is_joined_and_left_running(
    tmp_path: Path, cluster: str, kind: str, request: pytest.FixtureRequest
) -> None:
    run_task(Roots(), tmp_path / "whole", progress=False)
    address = "auto" if kind == "auto" else request.getfixturevalue(kind)
    for number in range(2):
        run_task(Roots(), tmp_path / str(number), workers=3, address=address, progress=False)
        assert fingerprints(tmp_path / str(number)) == fingerprints(tmp_path / "whole")


@pytest.mark.slow
def test_errors_of_a_ray_worker_reach_the_driver(tmp_path: Path, cluster: str) -> None:
    last = Roots().plan().shards[-1][-1][-1]
    with pytest.raises(ZeroDivisionError) as caught:
        run_task(Roots(bug=last), tmp_path / "bug", workers=2, address=cluster, progress=False)
    assert any(f"sample-{last}" in note for note in caught.value.__notes__)
    with pytest.raises(
        RunError, match=r"expected a worker process to compute the study .* different devices"
    ):
        run_task(Roots(blind=True), tmp_path / "blind", workers=2, address=cluster, progress=False)
    poison = Roots().plan().shards[2][0][0]
    with pytest.raises(RunError, match=rf"shard 2 of .*sample-{poison}\b.*3 workers died"):
        run_task(Roots(poison=poison), tmp_path / "poison", workers=2, address=cluster, progress=False)
    (folder,) = (tmp_path / "poison").iterdir()
    assert len(list((folder / "shards").glob("*.json"))) == 7


@pytest.mark.slow
def test_a_run_waits_for_a_place_and_then_says_what_lacks(
    tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_cluster, "SLOW", 1.0)
    monkeypatch.setattr(ray_cluster, "PATIENCE", 4.0)
    with pytest.raises(
        RunError, match=r"with 1 CPU and 2 GPU within 4 s.*the cluster has 8 CPUs and 0 GPUs in all"
    ):
        run_task(Roots(), tmp_path, workers=2, address=cluster, gpus=2, label="roots")
    assert "waiting for Ray to place a worker with 1 CPU and 2 GPU" in capsys.readouterr().err


@pytest.mark.slow
def test_more_workers_than_fit_are_as_many_as_fit(tmp_path: Path, cluster: str) -> None:
    run_task(Roots(), tmp_path / "whole", progress=False)
    run_task(Roots(pause=0.05), tmp_path / "many", workers=20, address=cluster, progress=False)
    assert fingerprints(tmp_path / "many") == fingerprints(tmp_path / "whole")


def test_an_address_without_a_cluster_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=r"expected to use Ray at '127.0.0.1:9', got: .*refused.*ray start --head"
    ):
        run_task(Roots(), tmp_path, workers=2, address="127.0.0.1:9", progress=False)


def folders() -> set[str]:
    """The folders of private Rays."""
    return {one.name for one in Path("/tmp").glob("interp-ray-*")}


@pytest.mark.slow
def test_a_killed_driver_takes_its_private_ray_with_it(
    tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_task(Roots(bad=(5, 9)), tmp_path / "whole", progress=False)
    others = {one for one in rays(os.getpid()) if not is_idle(one)}
    log, before = tmp_path / "log", folders()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE")  # so that Ray makes a token, and asks for it
    driver = started(tmp_path / "out", "local", log)
    await_lines(log, driver, 1)
    assert (tmp_path / ".ray" / "auth_token").exists()
    own = rays(driver.pid)
    assert len(own) > 4
    (folder,) = folders() - before
    driver.kill()
    driver.wait()
    await_end(own, 15)
    assert folder not in folders()
    assert all(map(is_alive, others)), "another Ray was ended too"
    run_task(Roots(bad=(5, 9)), tmp_path / "out", progress=False)
    assert fingerprints(tmp_path / "out") == fingerprints(tmp_path / "whole")


def started(out: Path, address: str, log: Path) -> subprocess.Popen[Any]:
    command = [sys.executable, str(SCRIPT), str(out), "2", "", address, str(log)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def await_lines(log: Path, driver: subprocess.Popen[Any], n: int) -> None:
    """Waits until n micro-batches are computed, or the driver has ended."""
    while driver.poll() is None and (not log.exists() or len(log.read_text().splitlines()) < n):
        time.sleep(0.01)


def worker_of(log: Path, driver: int) -> int | None:
    """A living process that computed a micro-batch; none if there is none."""
    listed = [int(line.split()[-1]) for line in log.read_text().splitlines()] if log.exists() else []
    living = [
        process for process in dict.fromkeys(listed[-4:]) if process != driver and psutil.pid_exists(process)
    ]
    return living[-1] if living else None


@pytest.mark.slow
@pytest.mark.parametrize("where", ["processes", "ray"])
def test_forty_kills_of_workers_and_drivers_change_no_byte(
    tmp_path: Path, where: str, request: pytest.FixtureRequest
) -> None:
    address = "" if where == "processes" else request.getfixturevalue("cluster")
    run_task(Roots(bad=(5, 9)), tmp_path / "whole", progress=False)
    whole, chance = fingerprints(tmp_path / "whole"), random.Random(15)
    killed, finished = {"driver": 0, "worker": 0}, 0
    while sum(killed.values()) < 40:
        out = tmp_path / f"run-{finished}"
        log = tmp_path / f"log-{finished}-{sum(killed.values())}"
        driver = started(out, address, log)
        while driver.poll() is None and sum(killed.values()) < 40:
            await_lines(log, driver, 1 + chance.randrange(8))
            time.sleep(chance.uniform(0.0, 0.1))
            kind = chance.choice(["driver", "worker", "worker"])
            victim = driver.pid if kind == "driver" else worker_of(log, driver.pid)
            if victim is None or driver.poll() is not None:
                break
            os.kill(victim, signal.SIGKILL)
            killed[kind] += 1
            time.sleep(chance.uniform(0.0, 0.3))
        _, said = driver.communicate(timeout=120)
        assert driver.returncode in (0, -signal.SIGKILL) or "workers died over it" in said, said
        if driver.returncode == 0:
            assert fingerprints(out) == whole
            assert leftovers(out) == []
            finished += 1
    run_task(Roots(bad=(5, 9)), tmp_path / f"run-{finished}", progress=False)
    assert fingerprints(tmp_path / f"run-{finished}") == whole
    assert min(killed.values()) >= 8
    assert finished >= 3
