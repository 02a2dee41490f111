"""Runs the scripts one after another, and keeps what became of each, so that the same command goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any, Literal

import interp
from interp.errors import RunError
from interp.inputs.files import canonical, digest, file_checksum, read_json, write_atomically
from interp.reproduce.arguments import Request
from interp.reproduce.registry import Figure

__all__ = ["RECORD", "Session", "State"]

RECORD = "reproduce.json"
"""In the folder of a reproduction: what became of each figure."""
LAST_LINES = 6

Outcome = Literal["done", "failed", "missing", "not run"]


@dataclass(frozen=True)
class State:
    """What became of a figure.

    Attributes:
        outcome: "done", its page is there; "failed"; "missing", its script or data are not there; "not run" yet, or not
            with these arguments.
        reason: Why, where it is not done.
        seconds: How long the script ran.
        command: What was run, as text.
        key: A hash of the command, the script and the version of interp.
    """

    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0
    command: str = ""
    key: str = ""


@dataclass(frozen=True)
class Session:
    """A reproduction in a folder.

    Attributes:
        request: What is asked.
        scripts: The folder of the scripts.
    """

    request: Request
    scripts: Path
    _kept: dict[str, State] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        stored = read_json(self.request.out / RECORD)
        names = {one.name for one in fields(State)}
        for name, values in (stored if isinstance(stored, dict) else {}).items():
            if isinstance(values, Mapping) and set(values) == names:
                self._kept[name] = State(**values)

    def state(self, figure: Figure) -> State:
        """What is known of a figure under this request; nothing is run."""
        if not self.script(figure).is_file():
            return State("missing", f"The script {figure.script}.py is not in {self.scripts}.")
        if missing := self.request.missing(figure):
            return State("missing", missing)
        kept = self._kept.get(figure.name)
        if kept is None or kept.key != self.key(figure):
            return State("not run")
        if kept.outcome == "done" and not self.page(figure).is_file():
            return State("not run", "Its page was removed.")
        return kept

    def run(self, figure: Figure) -> State:
        """What became of a figure: its script is run unless it is done, or cannot be.

        Whatever ends the script badly is a state, not an error, so that others run. An interrupt ends the script and is
        passed on.
        """
        before = self.state(figure)
        if before.outcome in ("done", "missing"):
            return before
        started = time.monotonic()
        code = self._call(figure)
        seconds = round(time.monotonic() - started, 1)
        command = " ".join([f"python studies/{self.script(figure).name}", *self.request.arguments(figure)])
        whole = code == 0 and self.page(figure).is_file()
        reason = "" if whole else self._why(figure, code)
        state = State("done" if whole else "failed", reason, seconds, command, self.key(figure))
        self._kept[figure.name] = state
        record: Mapping[str, Any] = {name: asdict(one) for name, one in self._kept.items()}
        write_atomically(self.request.out / RECORD, canonical(record).encode())
        return state

    def script(self, figure: Figure) -> Path:
        """The file of a figure's script."""
        return self.scripts / f"{figure.script}.py"

    def page(self, figure: Figure) -> Path:
        """The page that the script leaves."""
        return self.request.out / figure.page

    def log(self, figure: Figure) -> Path:
        """What the script printed."""
        return self.request.out / "logs" / f"{figure.name}.txt"

    def key(self, figure: Figure) -> str:
        """A hash of all that decides whether a page is that of this request."""
        return digest(
            {
                "arguments": self.request.arguments(figure),
                "script": file_checksum(self.script(figure)),
                "interp": interp.__version__,
            }
        )

    def _call(self, figure: Figure) -> int:
        """Runs the script and returns its exit code; what it prints goes to its log."""
        log = self.log(figure)
        log.parent.mkdir(parents=True, exist_ok=True)
        here = str(Path(interp.__file__).resolve().parents[1])
        path = os.pathsep.join(part for part in (here, os.environ.get("PYTHONPATH", "")) if part)
        command = [sys.executable, str(self.script(figure)), *self.request.arguments(figure)]
        with log.open("wb") as out:
            return _ended(command, {**os.environ, "PYTHONPATH": path}, out)

    def _why(self, figure: Figure, code: int) -> str:
        """The reason of a failure: the script's own line of an error, or the last lines it printed."""
        lines = [
            line
            for line in self.log(figure).read_text("utf-8", errors="replace").splitlines()
            if line.strip()
        ]
        said = [line for line in lines if line.startswith("error: ")]
        if said:
            return said[-1].removeprefix("error: ")
        if code == 0:
            return f"The script ended well and left no {figure.page}."
        last = " / ".join(line.strip() for line in lines[-LAST_LINES:])
        return f"The script ended with code {code}: {last or 'it printed nothing'}"


def _ended(command: list[str], environment: Mapping[str, str], out: IO[bytes]) -> int:
    """The exit code of a process; an interrupt of this one ends it."""
    try:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=dict(environment))
    except OSError as error:
        raise RunError(
            f"{command[0]} cannot be started to run {command[1]}: {error}. Start interp with a Python that is there."
        ) from error
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
