"""A third kind of study, as small as one can be: how long the questions are, stretched by a method."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from interp.errors import SampleError, StudyError
from interp.inputs.prompt import PAPER_PROMPT
from interp.run import Outcome
from interp.study import GridResult, StudyTask, run_study, study_labels
from interp.study.task import Rows
from tests.study.planted import Model, samples


@dataclass(frozen=True)
class Times:
    """A method: lengths are multiplied."""

    factor: int
    name: str = "times"


class LengthTask(StudyTask):
    name = "lengths"
    needs_boxes = False

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "method": self.study.method.factor, "unit": self.study.unit}

    def schemas(self) -> Mapping[str, pa.Schema]:
        index, text = ("index", pa.int64()), pa.string()
        return {
            "samples": pa.schema([index, ("sample", text), ("group", text)]),
            "scores": pa.schema([index, ("what", text), ("value", pa.float64())]),
        }

    def joined(self) -> tuple[str, ...]:
        return ("samples", "scores")

    def measure(self, indices: tuple[int, ...]) -> Outcome:
        return Outcome(self.each(indices, self.rows), {"forwards": 1.0})

    def rows(self, place: int, index: int) -> Rows:
        sample, group = self.identity(index)
        question = self.study.data[index].question
        if not question:
            raise SampleError("there is no question.")
        n = len(question) if self.study.unit == "letters" else len(question.split())
        score = {"index": index, "what": "length", "value": float(n * self.study.method.factor)}
        return {"samples": [{"index": index, "sample": sample, "group": group}], "scores": [score]}


@dataclass(frozen=True, kw_only=True)
class Lengths:
    data: Any = dataclasses.field(default_factory=samples)
    model: Any = dataclasses.field(default_factory=Model)
    prompt: Any = PAPER_PROMPT
    method: Any = Times(1)
    unit: str = "words"
    batch: int = 2

    name = "lengths"
    title = "Lengths of questions"
    question = "How long are the questions?"

    def __post_init__(self) -> None:
        if self.unit not in ("words", "letters"):
            raise StudyError(f"unit is words or letters; got {self.unit!r}.")

    @property
    def labels(self) -> dict[str, str]:
        return study_labels(self)

    def replace(self, **changes: Any) -> Lengths:
        return dataclasses.replace(self, **changes)

    def run(
        self,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int = 1,
        progress: bool = False,
        part: tuple[int, int] | None = None,
    ) -> GridResult:
        return run_study(self, out, workers=workers, progress=progress, part=part)

    def task(self, mllm: Any) -> LengthTask:
        return LengthTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[Any, ...], folder: Path) -> GridResult:
        return GridResult(whole, cells, folder)
