"""What a study must give, so that a `Grid` can vary it, workers can run it and its cells become one frame.

A new study is a frozen dataclass and a task:

    @dataclass(frozen=True, kw_only=True)
    class MethodStudy:
        data: Any                                # checked and normalised in __post_init__
        model: Any = "organism"
        prompt: Any = PAPER_PROMPT
        method: Any = Plain()                    # any field can be an axis: Grid(study, method=[…], data={…})
        batch: int = 8

        name = "method-study"                    # the run's folder is <name>-<hash>
        title = "Methods"
        question = "…?"

        @property
        def labels(self):
            return study_labels(self)            # {"model": …, "data": …}

        def replace(self, **changes):
            return dataclasses.replace(self, **changes)

        def task(self, mllm):
            return MethodTask(self, mllm)        # a StudyTask: schemas, joined, to_dict, measure

        def collect(self, whole, cells, folder):
            return GridResult(whole, cells, folder)    # or a result of its own, with figures and a page

        def run(self, out="runs", *, workers=1, progress=True, part=None):
            return run_study(self, out, workers=workers, progress=progress, part=part)

The task's `to_dict` names the run's folder: all that the stored numbers depend on must be in it, and nothing else.
Its tables: `samples` (index, sample, group, …: one row per measured sample), `scores` (index, …, value: what the tidy
frame is made of), and whatever else it needs. `StudyTask` does the model, the plan, the samples that cannot be
used and the pickling; `SamplesTask` also runs the study's indicator.

A study that needs another's result first has one method more, `resolved(out, *, workers, progress, mllm)`, which
gives the study to run in its place; `Refinement` ranks heads so.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from interp.run import Task
from interp.study.model_spec import model_label

__all__ = ["Study", "study_labels"]


@runtime_checkable
class Study(Protocol):
    """A study: a frozen dataclass whose fields say what is measured on what.

    `replace` refuses (with an `InterpError`) a value that makes no sense, as making the study does.
    """

    @property
    def name(self) -> str:
        """What its runs' folders begin with."""
        ...

    @property
    def title(self) -> str:
        """What reports call it."""
        ...

    @property
    def question(self) -> str:
        """What it answers, in a sentence."""
        ...

    @property
    def model(self) -> Any:
        """A `ModelSpec` or an opened model (see `as_model`)."""
        ...

    @property
    def labels(self) -> dict[str, str]:
        """What a tidy frame says of it in any case: "model" and "data" first."""
        ...

    def replace(self, **changes: Any) -> Study:
        """A copy with some fields changed."""
        ...

    def run(
        self,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int = 1,
        progress: bool = True,
        part: tuple[int, int] | None = None,
    ) -> Any:
        """Its result; what is already under `out` is not computed again. See `run_study`."""
        ...

    def task(self, mllm: Any) -> Task:
        """The study as work for the runner, on its opened model."""
        ...

    def collect(self, whole: Any, cells: tuple[Any, ...], folder: Path) -> Any:
        """The result of `whole`: this study itself, or a grid over it.

        Args:
            whole: The study whose result it is.
            cells: Its finished runs, `GridCell`s, in order; one when `whole` is this study.
            folder: Where the result's own files go.
        """
        ...


def study_labels(study: Any) -> dict[str, str]:
    """The labels of a study with `model` and `data`: short names of both."""
    return {"model": model_label(study.model), "data": study.data.name}
