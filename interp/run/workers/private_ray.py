"""A Ray of this machine alone, which ends when the process that started it ends, also when that is killed.

Ray's own processes are started below a keeper: this file, run as a script in a process of its own. They descend from
it, so it knows them without looking for names, and ends them, and nothing else, as soon as the process that started it
is gone. Without it, a killed driver leaves Ray's agents and workers behind for more than a minute.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["PrivateRay", "quiet_and_patient", "show_token"]

START = 300.0
"""Seconds that Ray's processes have to start."""
ATTEMPTS = 3
"""How often Ray is started where its node dies."""
END = 30.0
"""Seconds that the keeper has to end them, and the driver waits for the keeper."""
LEAVE = b"leave the messages"
"""What a driver writes to its keeper so that the folder stays."""
SHORT = "/tmp"
"""Where folders have short names: the paths of Ray's sockets may have no more than 103 to 107 bytes."""
SUBREAPER = 36
"""`PR_SET_CHILD_SUBREAPER` of prctl(2)."""


class PrivateRay:
    """A Ray of this machine, and the keeper that ends it together with this process.

    Args:
        n_cpus: The CPUs that Ray may give to workers.

    Attributes:
        address: Where `ray.init` finds it.
        folder: Where Ray has its sockets and messages.

    Raises:
        RuntimeError: Ray did not start; with what it said.
    """

    def __init__(self, n_cpus: int) -> None:
        self.folder = tempfile.mkdtemp(prefix="interp-ray-", dir=SHORT if os.path.isdir(SHORT) else None)
        command = [sys.executable, "-P", __file__, str(n_cpus), self.folder, str(os.getpid())]
        with tempfile.TemporaryFile() as said:
            self._keeper = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,  # Ctrl-C is for the driver, which ends the keeper
            )
            try:
                assert self._keeper.stdout is not None
                self.address = self._keeper.stdout.readline().decode().strip()
            except BaseException:
                self.close()
                raise
            if not self.address:
                self.close()
                said.seek(0)
                raise RuntimeError(" ".join(said.read().decode(errors="replace").split())[-800:])

    def close(self, *, leave_messages: bool = False) -> None:
        """Ends Ray, and deletes its folder unless its messages are wanted."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        with contextlib.suppress(OSError):  # the keeper is gone
            self._keeper.stdin.write(LEAVE if leave_messages else b"")
            self._keeper.stdin.close()
        try:
            self._keeper.wait(END)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        self._keeper.stdout.close()
        if not leave_messages:
            shutil.rmtree(self.folder, ignore_errors=True)


def keep(n_cpus: int, folder: str, driver: int) -> None:
    """Starts Ray in another process, and ends it when the driver closes this process's input or is gone, or Ray fails.

    Ray is started in a process of its own, because Ray's code may hold up every thread of its process.

    Args:
        n_cpus: As for `PrivateRay`.
        folder: As for `PrivateRay`.
        driver: The number of the process that started this one.
    """
    _adopt_orphans()
    starter = subprocess.Popen(
        [sys.executable, "-P", __file__, str(n_cpus), folder], stdin=subprocess.DEVNULL
    )
    _close_output()
    said = _await_end(driver, starter)
    end_processes()
    if said != LEAVE:
        shutil.rmtree(folder, ignore_errors=True)


def start(n_cpus: int, folder: str) -> None:
    """Starts Ray, prints its address and waits; the keeper ends this process with the others."""
    ray = importlib.import_module("ray")
    with quiet_and_patient():
        _started(ray, n_cpus, folder)
    print(ray.get_runtime_context().gcs_address, flush=True)
    _close_output()
    signal.pause()


def _close_output() -> None:
    """Closes the standard output, which is the driver's pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _started(ray: Any, n_cpus: int, folder: str) -> None:
    """Starts Ray, and again if its node dies: Ray waits 15 s for its helpers, and a busy machine may take longer."""
    for left in reversed(range(ATTEMPTS)):
        try:
            ray.init(
                address="local",
                num_cpus=n_cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=folder,
            )
            return
        except Exception:
            if not left:
                raise
            ray.shutdown()


def _adopt_orphans() -> None:
    """Makes this process the parent of its children's children when their own parent ends, where Linux can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


def _await_end(driver: int, starter: subprocess.Popen[bytes]) -> bytes:
    """Waits until the driver closes the pipe or is gone, or the starter is; returns what the driver wrote."""
    pipe, watched, said = sys.stdin.fileno(), [sys.stdin.fileno()], b""
    for process in (driver, starter.pid):
        with contextlib.suppress(OSError, AttributeError):  # none on macOS; or it is gone already
            watched.append(os.pidfd_open(process))  # a child that the driver forked may hold the pipe open
    while (
        os.getppid() == driver and starter.poll() is None
    ):  # a number that was given away is nobody's parent
        ready = select.select(watched, [], [], None if len(watched) == 3 else 1.0)[0]
        if pipe in ready:
            more = os.read(pipe, len(LEAVE))
            said += more
            if not more:
                break
    return said


def end_processes() -> None:
    """Kills every process below this one, and those that they start meanwhile."""
    psutil = _psutil()
    until = time.monotonic() + END
    while (below := psutil.Process().children(recursive=True)) and time.monotonic() < until:
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(below, timeout=1.0)


def show_token() -> None:
    """Makes this process show Ray's token, as a private Ray asks for one unless `RAY_AUTH_MODE` says otherwise.

    Ray does so by itself only in the process that starts it.
    """
    with contextlib.suppress(ImportError, AttributeError):  # another version of Ray
        setup = importlib.import_module("ray._private.authentication.authentication_token_setup")
        with _replaced(setup, "_warn_token_auth_enabled", lambda: None):
            setup.enable_token_auth_by_default()


@contextlib.contextmanager
def quiet_and_patient() -> Iterator[None]:
    """Ray begins without sending statistics home, without printing its nodes' messages, and with time to start.

    Ray has no options for the latter two: it prints into a script's output whenever a worker dies, and gives up a
    node that does not start within 30 s, which a busy machine may take.
    """
    services = importlib.import_module("ray._private.services")
    with (
        _environment("RAY_USAGE_STATS_ENABLED", "0"),
        _environment("RAY_agent_register_timeout_ms", f"{1000 * START:.0f}"),
        _replaced(importlib.import_module("ray._private.worker"), "listen_error_messages", lambda *_: None),
        _replaced(services, "get_node", _patient(getattr(services, "get_node", None))),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def _patient(look: Any) -> Callable[..., Any]:
    """The function, called again until it raises no `RuntimeError`; for `START` seconds, or until Ray's node died."""

    def looked(*args: Any, **options: Any) -> Any:
        """Calls the function until it returns, or raises its error when the time is up."""
        until = time.monotonic() + START
        while True:
            try:
                return look(*args, **options)
            except RuntimeError:
                if time.monotonic() > until or _node_died():
                    raise
                time.sleep(0.1)

    return looked


def _psutil() -> Any:
    """The module psutil, which Ray brings along."""
    with contextlib.suppress(ImportError):
        return importlib.import_module("psutil")
    found = importlib.util.find_spec("ray")
    assert found is not None
    assert found.origin is not None
    sys.path.append(os.path.join(os.path.dirname(found.origin), "thirdparty_files"))
    return importlib.import_module("psutil")


def _node_died() -> bool:
    """Whether a node that this process started has ended; Ray itself goes on waiting for it."""
    psutil = _psutil()
    found = psutil.Process().children()
    return any(one.name() == "raylet" and one.status() == psutil.STATUS_ZOMBIE for one in found)


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Replaces a function of Ray's for the block, where this version of Ray has it."""
    before = getattr(module, name, None)
    if before is None:
        yield
        return
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


if __name__ == "__main__":
    if len(sys.argv) == 4:
        keep(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    else:
        start(int(sys.argv[1]), sys.argv[2])
