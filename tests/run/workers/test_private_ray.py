"""The keeper of a private Ray, with a stand-in for Ray: a node, and a helper that outlives it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from interp.run.workers import private_ray
from interp.run.workers.private_ray import PrivateRay, quiet_and_patient, show_token

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
        assert Path(ray.folder).parent == Path("/tmp")  # Ray's sockets need short names
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


def module(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> Any:
    """A module of Ray's with this content, as an import of this process finds it."""
    found = ModuleType(name)
    vars(found).update(content)
    monkeypatch.setitem(sys.modules, name, found)
    return found


def test_ray_begins_quietly_and_is_then_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    look, listen = (lambda: "node"), (lambda *_: "heard")
    services = module(monkeypatch, "ray._private.services", get_node=look)
    worker = module(monkeypatch, "ray._private.worker", listen_error_messages=listen)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.delenv("RAY_agent_register_timeout_ms", raising=False)
    names = ("RAY_USAGE_STATS_ENABLED", "RAY_agent_register_timeout_ms")

    def seen() -> None:
        with quiet_and_patient():
            assert [os.environ[name] for name in names] == ["0", "300000"]
            assert worker.listen_error_messages(1, 2) is None
            assert services.get_node() == "node"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        seen()
    assert [os.environ.get(name) for name in names] == ["1", None]
    assert (services.get_node, worker.listen_error_messages) == (look, listen)


@pytest.mark.parametrize(
    ("faults", "died", "seconds"),
    [
        ([RuntimeError("not yet")] * 3, False, 0.3),  # asked again each tenth of a second
        ([RuntimeError("dead")], True, None),
        ([RuntimeError("never")] * 5000, False, None),
        ([KeyError("a bug")], False, None),
    ],
)
def test_a_node_is_waited_for_while_it_lives(
    monkeypatch: pytest.MonkeyPatch, faults: list[Exception], died: bool, seconds: float | None
) -> None:
    clock, left = [50.0], [*faults]

    def look(where: str) -> str:
        if left:
            raise left.pop()
        return f"node of {where}"

    def sleep(pause: float) -> None:
        clock[0] += pause

    monkeypatch.setattr(private_ray, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    monkeypatch.setattr(private_ray, "_node_died", lambda: died)
    services = module(monkeypatch, "ray._private.services", get_node=look)
    module(monkeypatch, "ray._private.worker")
    with quiet_and_patient():
        if seconds is None:
            with pytest.raises(type(faults[0])):
                services.get_node("here")
        else:
            assert services.get_node("here") == "node of here"
            assert clock[0] - 50 == pytest.approx(seconds)
    if len(faults) == 5000:
        assert clock[0] - 50 == pytest.approx(300, abs=0.2)


@pytest.mark.parametrize(
    ("children", "n_looks"),
    [
        ([("raylet", "zombie"), ("gcs", "running")], 1),
        ([("raylet", "running"), ("gcs", "zombie")], 4),
        ([], 4),
    ],
)
def test_a_node_that_ended_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, children: list[tuple[str, str]], n_looks: int
) -> None:
    looks: list[int] = []

    def look() -> str:
        looks.append(1)
        if len(looks) < 4:
            raise RuntimeError("no node")
        return "node"

    below = [SimpleNamespace(name=lambda n=name: n, status=lambda s=state: s) for name, state in children]
    process = SimpleNamespace(children=lambda: below)
    module(monkeypatch, "psutil", STATUS_ZOMBIE="zombie", Process=lambda: process)
    monkeypatch.setattr(private_ray, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda _: None))
    services = module(monkeypatch, "ray._private.services", get_node=look)
    module(monkeypatch, "ray._private.worker")
    with quiet_and_patient():
        if n_looks == 1:
            with pytest.raises(RuntimeError, match="no node"):
                services.get_node()
        else:
            assert services.get_node() == "node"
    assert len(looks) == n_looks


def test_a_token_is_shown_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "ray._private.authentication.authentication_token_setup"
    warned: list[str] = []

    def warn() -> None:
        warned.append("warned")

    def enable() -> None:
        warned.append("enabled")
        setup._warn_token_auth_enabled()

    setup = module(monkeypatch, name, _warn_token_auth_enabled=warn, enable_token_auth_by_default=enable)
    show_token()
    assert warned == ["enabled"]
    assert setup._warn_token_auth_enabled is warn
    module(monkeypatch, name)  # another version of Ray, which knows no tokens
    show_token()


@pytest.mark.parametrize(("n_faults", "n_shutdowns"), [(0, 0), (2, 2), (3, 2)])
def test_a_node_that_dies_is_started_three_times(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, n_faults: int, n_shutdowns: int
) -> None:
    given, ended = list[dict[str, Any]](), list[int]()

    def init(**options: Any) -> None:
        given.append(options)
        if len(given) <= n_faults:
            raise OSError("the node died")

    context = SimpleNamespace(gcs_address="there:1")
    module(
        monkeypatch, "ray", init=init, shutdown=lambda: ended.append(1), get_runtime_context=lambda: context
    )
    for name in ("services", "worker"):
        module(monkeypatch, f"ray._private.{name}")
    said: list[str] = []
    monkeypatch.setattr("builtins.print", lambda text, flush: said.append(text))
    monkeypatch.setattr(private_ray, "_close_output", lambda: None)
    monkeypatch.setattr(private_ray.signal, "pause", lambda: None)
    if n_faults == 3:
        with pytest.raises(OSError, match="the node died"):
            private_ray.start(5, str(tmp_path))
    else:
        private_ray.start(5, str(tmp_path))
    assert said == ([] if n_faults == 3 else ["there:1"])
    assert len(ended) == n_shutdowns
    assert (given[-1]["address"], given[-1]["num_cpus"]) == ("local", 5)
    assert given[-1]["_temp_dir"] == str(tmp_path)
