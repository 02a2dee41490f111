"""Runs the scripts of a request one after another and records each outcome, so that a repeated command continues."""

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
from interp.inputs.text import meant
from interp.organism.places import ORGANISMS
from interp.reproduce.registry import DATA, Figure

__all__ = ["RECORD", "Request", "Session", "State"]


RECORD = "reproduce.json"
"""The file in the folder of a reproduction that records the state of each figure."""
LAST_LINES = 6

Outcome = Literal["done", "failed", "missing", "not run"]


ALL = 10**9
"""More samples than any data set has."""


@dataclass(frozen=True)
class Request:
    """The models, data and settings of a reproduction.

    Attributes:
        out: Folder for runs, pages and the index.
        models: Hub ids or folders of models; "organism" is the bundled model organism.
        folders: A mapping from names of `DATA` to folders.
        paper: Whether the scripts follow the paper where the paper and this toolkit differ.
        n: The number of samples of a data set. None takes each script's default; 0 takes all samples, where data were
            given and the page does not show every sample.
        published_heads: The name of a published set of heads, for a model that is a copy of its checkpoint.
        options: Options that every script with a model takes, such as "device".

    Raises:
        RunError: No model, a folder that does not exist, or data of an unknown name.
    """

    out: Path
    models: tuple[str, ...] = ("organism",)
    folders: Mapping[str, Path] = field(default_factory=dict)
    paper: bool = True
    n: int | None = None
    published_heads: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.models:
            raise RunError('expected at least one model, such as "organism" or a folder; got none.')
        for name, folder in self.folders.items():
            if name not in DATA:
                raise RunError(f"expected data named {', '.join(DATA)}; got {name!r}.{meant(name, DATA)}")
            if not folder.exists():
                raise RunError(
                    f"no {DATA[name].label} at {folder}: the folder does not exist. How to get it: {DATA[name].how}."
                )
        if self.n is not None and self.n < 0:
            raise RunError(f"n is a number of samples, or 0 for all; got {self.n}.")

    @property
    def on_organism(self) -> bool:
        """Whether one of the models is a bundled organism, whose numbers are not the paper's."""
        return any(map(_is_organism, self.models))

    def models_of(self, figure: Figure) -> tuple[str, ...]:
        """The models that the script of a figure gets: only the first where it takes one."""
        return {"none": (), "one": self.models[:1], "many": self.models}[figure.models]

    def data_of(self, figure: Figure) -> tuple[str, ...]:
        """The figure's data that were given."""
        return tuple(name for name in figure.data if name in self.folders)

    def missing(self, figure: Figure) -> str:
        """The reason why a figure cannot be run, as a sentence; empty where it can.

        On the organism every script has data of its own. With another model, a benchmark's script needs at least one of
        its benchmarks, and choosing heads as the paper does needs COCO, unless heads are published for the model.
        """
        real = [one for one in self.models_of(figure) if not _is_organism(one)]
        if not real:
            return ""
        if figure.benchmark and figure.data and not self.data_of(figure):
            options = ", ".join(DATA[name].option for name in figure.data)
            return f"None of its data was given: {options}."
        known = all(map(_has_published_heads, real)) or self.published_heads
        if figure.chooses and self.paper and not known and "coco" not in self.folders:
            return (
                f"The paper chooses heads and layer on COCO, which was not given: {DATA['coco'].option}. Or choose on "
                "the data themselves: --no-paper."
            )
        return ""

    def arguments(self, figure: Figure) -> list[str]:
        """The arguments of the figure's script."""
        models, data = self.models_of(figure), self.data_of(figure)
        found = ["--out", str(self.out)]
        found += ["--model", *models] if models and models != ("organism",) else []
        if data:
            found += self._data(figure, data)
        found += ["--paper"] if figure.paper_mode and self.paper else []
        found += ["--tokens", "1"] if figure.one_token and self.paper else []
        if figure.chooses and self.paper and "coco" in self.folders and not self._published(models):
            found += ["--choose-on", str(self.folders["coco"])]
        found += (
            ["--published-heads", self.published_heads] if figure.chooses and self.published_heads else []
        )
        if self.n or (self.n == 0 and data and not figure.shows_all):
            found += [part for option in figure.n for part in (f"--{option}", str(self.n or ALL))]
        if models:
            found += [part for name, value in self.options.items() for part in (f"--{name}", value)]
        return found

    def _data(self, figure: Figure, names: tuple[str, ...]) -> list[str]:
        """The arguments that name these data."""
        if not figure.benchmark:
            return ["--data", *(str(self.folders[name]) for name in (names[:1] if figure.one_set else names))]
        asked = [f"{name},questions=open" if figure.open_questions else DATA[name].name for name in names]
        splits = ["test" if figure.open_questions else DATA[name].split for name in names]
        folders = (self.folders[name] for name in names)
        return [
            "--data",
            *(f"{one}:{folder}" for one, folder in zip(asked, folders, strict=True)),
            "--split",
            *splits,
        ]

    def _published(self, models: tuple[str, ...]) -> bool:
        """Whether the heads of these models are published, so that nothing is chosen."""
        known = all(map(_has_published_heads, models))
        return bool(self.published_heads) or known


def _is_organism(model: str) -> bool:
    """Whether a name or a folder is one of the bundled organisms; their names are known without the studies."""
    if model in ORGANISMS:
        return True
    from interp.study.model_spec import ModelSpec, is_organism

    return is_organism(ModelSpec(model))


def _has_published_heads(model: str) -> bool:
    """Whether a set of heads is published for a model; for no organism."""
    if model in ORGANISMS:
        return False
    from interp.study.head_ranking.head_set import published_checkpoint
    from interp.study.model_spec import ModelSpec

    return published_checkpoint(ModelSpec(model)) is not None


@dataclass(frozen=True)
class State:
    """The state of a figure.

    Attributes:
        outcome: "done": its page exists. "failed": its script failed. "missing": its script or data do not exist.
            "not run": its script has not run with these arguments.
        reason: The reason, where the figure is not done.
        seconds: How long the script ran, in seconds.
        command: The command that ran, as text.
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
        request: The models, data and settings.
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
        """The state of a figure under this request; nothing is run."""
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
        """Runs a figure's script, unless it is done or cannot run, and returns the figure's state.

        A failing script gives a state, not an error, so that the other scripts still run. An interrupt ends the script
        and is passed on.
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
        """The page that the script writes."""
        return self.request.out / figure.page

    def log(self, figure: Figure) -> Path:
        """The file that holds what the script printed."""
        return self.request.out / "logs" / f"{figure.name}.txt"

    def key(self, figure: Figure) -> str:
        """A hash of everything that decides whether a page belongs to this request."""
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
            return f"The script ended without an error but wrote no {figure.page}."
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
