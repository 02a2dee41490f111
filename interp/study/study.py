"""What every study is: a value that says what is measured on what, and how it is run.

A new study is a class with its own fields, a task and a result:

    class MethodStudy(Study[GridResult]):
        method: Method = field(default=Plain())      # any field can be an axis: Grid(study, method=[…], data={…})

        name = "method-study"                        # the run's folder is <name>-<hash>
        title = "Methods"
        page = "my_package.method_page"              # has write_page(result, path) and figures(result)

        @property
        def question(self):
            return "Which method is right more often?"

        def task(self, mllm):
            return MethodTask(self, mllm)            # a StudyTask: schemas, joined, to_dict, measure

        def collect(self, whole, cells, folder):
            return GridResult.of(whole, cells, folder)

The task's `to_dict` names the run's folder: all that the stored numbers depend on must be in it, and nothing else.
Its tables: `samples` (index, sample, group, …: one row per measured sample), `scores` (index, …, value: what the tidy
frame is made of), and whatever else it needs. `StudyTask` does the model, the plan, the samples that cannot be
used and the pickling; `SamplesTask` also runs the study's indicator.

A study that needs another's result first overrides `unresolved` and `resolved`; `Refinement` ranks heads so.
"""

from __future__ import annotations

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from interp.data import Samples
from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.run import Task, Workers, canonical
from interp.study.fields import Checked, as_samples, field, is_prompt, not_empty, whole_number
from interp.study.model_spec import ModelSpec, OpenModel, as_model, model_label, open_model
from interp.study.runs import GridCell, run_cells

__all__ = ["Study"]

R = TypeVar("R")
Own = TypeVar("Own", bound="Study[Any]")


class Study(Checked, ABC, Generic[R]):
    """A study: a frozen dataclass whose fields say what is measured on what. `R` is its result.

    Args:
        data: Samples; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        prompt: How the question is put.
        seed: Of whatever is drawn, and of the bootstrap.
        batch: Samples per forward pass. Part of the hash: other batches round differently.

    Raises:
        StudyError: A value that makes no sense.
    """

    data: Samples = field(converter=as_samples, validator=not_empty)
    model: ModelSpec | OpenModel = field(default=ModelSpec("organism"), converter=as_model)
    prompt: Prompt = field(default=PAPER_PROMPT, validator=is_prompt)
    seed: int = field(default=0, validator=whole_number(0))
    batch: int = field(default=8, validator=whole_number(1))

    name: ClassVar[str]
    """What its runs' folders begin with."""
    title: ClassVar[str]
    """What reports call it."""
    page: ClassVar[str] = ""
    """The module of its page and figures; see `interp.study.result.GridResult.report`."""

    @property
    @abstractmethod
    def question(self) -> str:
        """What the study answers, in a sentence."""

    @abstractmethod
    def task(self, mllm: Any) -> Task:
        """The study as work for the runner, on its opened model."""

    @abstractmethod
    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> Any:
        """The result of `whole`: this study itself, or a grid over it.

        Args:
            whole: The study whose result it is.
            cells: Its finished runs in order; one when `whole` is this study.
            folder: Where the result's own files go.
        """

    @property
    def labels(self) -> dict[str, str]:
        """What a tidy frame says of it in any case: short names of the model and the data."""
        return {"model": model_label(self.model), "data": self.data.name}

    @property
    def label(self) -> str:
        """The labels in one text, for figures and messages."""
        return " · ".join(self.labels.values())

    def to_dict(self, mllm: OpenModel | None = None) -> dict[str, Any]:
        """The study as JSON values: everything its stored numbers depend on, with model and data by fingerprint.

        Args:
            mllm: The opened model, when there is one; otherwise it is opened to take its fingerprint.

        Raises:
            StudyError: The study needs another's result first (see `resolved`).
        """
        return dict(self.task(open_model(self.model) if mllm is None else mllm).to_dict())

    def to_json(self, mllm: OpenModel | None = None) -> str:
        """The canonical text of `to_dict`; the first 12 hex digits of its sha256 name the run's folder."""
        return canonical(self.to_dict(mllm))

    def replace(self: Own, **changes: Any) -> Own:
        """A copy with some fields changed.

        Raises:
            StudyError: A value that makes no sense, as when the study is made.
        """
        return dataclasses.replace(self, **changes)  # pyright: ignore[reportArgumentType, reportReturnType]

    def run(
        self,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int | Workers = 1,
        address: str | None = None,
        gpus: float | None = None,
        devices: str | Sequence[str] = (),
        progress: bool = True,
        part: tuple[int, int] | None = None,
        loaders: int = 0,
        mllm: OpenModel | None = None,
    ) -> R:
        """The study's result; what is already under `out` is not computed again.

        Args:
            out: The folder that holds runs; this one's is `<name>-<hash>`.
            workers: Processes, each with its own copy of the model; the bytes are the same for any number. An
                `interp.run.Workers` holds the next three options too.
            address: Where Ray runs the workers: "local" for a private Ray on this machine, "auto", "host:port" or
                "ray://host:port" for a cluster; None for processes of this machine.
            gpus: The GPUs of each worker on Ray, a fraction or a whole number; by default 1 for a model on "cuda".
            devices: The devices that local workers take in turn, such as ["cuda:0", "cuda:1"]; "cuda" for all
                visible ones. With workers=1 there is one worker per device.
            progress: Show progress on stderr.
            part: (i, n) computes only part i of n, 1 ≤ i ≤ n. The result can be read once every part is under
                `out`: computed there, or joined by `interp.run.merge`.
            loaders: Threads of each process that read, decode and tokenise the next micro-batches while the model
                runs; with any, shards are written behind it. The bytes are the same for any number.
            mllm: The study's model, when it is open already.

        Raises:
            StudyError: Nothing could be measured.
        """
        listed = ((self.labels, self),)
        found = Workers.of(workers, address=address, gpus=gpus, devices=devices)
        options: dict[str, Any] = {"workers": found, "progress": progress, "part": part, "loaders": loaders}
        cells = run_cells(listed, out, **options, mllm=mllm)
        return self.collect(self, cells, cells[0].folder.path)

    @property
    def unresolved(self) -> bool:
        """Whether the study needs another's result before it can run."""
        return False

    def resolved(
        self: Own,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int | Workers = 1,
        progress: bool = True,
        mllm: OpenModel | None = None,
    ) -> Own:
        """The study to run in its place, with the results of other studies filled in; itself where it needs none.

        Args:
            out: The folder that holds runs; one that is there is not computed again.
            workers: Processes, or an `interp.run.Workers`, when another study has to run.
            progress: Show progress on stderr.
            mllm: The study's model, when it is open already.
        """
        return self
