"""The keeper of a private Ray, with a stand-in for Ray: a node, and a helper that outlives it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from interp.run.workers import private_ray
from interp.run.workers.private_ray import PrivateRay

RAY = """
import ctypes, os, subprocess, sys
HELPER = "import time; time.sleep(600)"
NODE = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {HELPER!r}]).pid, flush=True)"

def init(*, _temp_dir, **_):
    node = subprocess.Popen([sys.executable, "-c", NODE], stdout=subprocess.PIPE, text=True)
    helper = node.stdout.readline().strip()
    node.wait()  # its helper is an orphan from here on
    other = subprocess.Popen([sys.executable, "-c", HELPER])
    open(os.environ["PIDS"], "w").write(f"{helper} {other.pid} {os.getpid()} {os.getppid()}")
    open(os.path.join(_temp_dir, "messages"), "w").close()
    if "STUCK" in os.environ:
        ctypes.PyDLL(None).pause()  # as Ray does where its node is slow: no thread of this process goes on
    if "FAULT" in os.environ:
        raise OSError(os.environ["FAULT"])

def shutdown():
    pass

class get_runtime_context:
    gcs_address = "127.0.0.1:1"
"""
DRIVER = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from private_ray import PrivateRay
ray = PrivateRay(1)
if sys.argv[2] == "forked" and not os.fork():
    time.sleep(600)  # a child that holds the pipe to the keeper open
print(ray.folder, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keepers import as Ray."""
    package = tmp_path / "lib" / "ray"
    (package / "_private").mkdir(parents=True)
    (package / "__init__.py").write_text(RAY)
    for name in ("__init__", "services", "worker"):
        (package / "_private" / f"{name}.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))


def started(tmp_path: Path) -> list[psutil.Process]:
    """The helpers, what started them and the keeper, as far as they are there."""
    pids = map(int, (tmp_path / "pids").read_text().split())
    return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]


def await_end(processes: list[psutil.Process]) -> None:
    until = time.monotonic() + 20
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes):
        assert time.monotonic() < until, "processes outlive their driver"
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["alone", "forked"])
def test_a_killed_driver_ends_all_that_its_keeper_started(how: str, tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", DRIVER, str(Path(private_ray.__file__).parent), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        folder = driver.stdout.readline().strip()
        own, children = started(tmp_path), psutil.Process(driver.pid).children()
        other = psutil.Process()
        driver.kill()
        driver.wait()
        await_end(own)
        for child in children:  # the forked one, which is the user's own
            assert child in own or child.is_running()
            if child not in own:
                child.kill()
    assert other.is_running()
    assert folder
    assert not Path(folder).exists()


def test_a_driver_killed_while_ray_starts_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUCK", "")
    command = [sys.executable, "-P", "-c", DRIVER, str(Path(private_ray.__file__).parent), "alone"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as driver:
        until = time.monotonic() + 60
        while not (tmp_path / "pids").exists() or len((tmp_path / "pids").read_text().split()) < 4:
            assert time.monotonic() < until
            time.sleep(0.05)
        own = started(tmp_path)
        driver.kill()
    assert len(own) == 4
    await_end(own)


def test_a_private_ray_is_closed_with_or_without_its_messages(tmp_path: Path) -> None:
    for leave in (False, True):
        ray = PrivateRay(1)
        own = started(tmp_path)
        assert ray.address == "127.0.0.1:1"
        assert all(one.is_running() for one in own)
        ray.close(leave_messages=leave)
        await_end(own)
        assert Path(ray.folder, "messages").exists() is leave
    (Path(ray.folder) / "messages").unlink()
    Path(ray.folder).rmdir()


def test_a_private_ray_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(Path("/tmp").glob("interp-ray-*"))
    monkeypatch.setenv("FAULT", "no room in /dev/shm")
    with pytest.raises(RuntimeError, match=r"OSError: no room in /dev/shm"):
        PrivateRay(1)
    await_end(started(tmp_path))
    assert set(Path("/tmp").glob("interp-ray-*")) == before


def test_a_number_that_another_process_took_is_no_driver(tmp_path: Path) -> None:
    """As when the driver died before its keeper looked for it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    command = [sys.executable, "-P", private_ray.__file__, "1", str(folder), str(os.getppid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
        assert keeper.wait(60) == 0
    assert not folder.exists()
