"""A third kind of study, as small as one can be: how long the questions are, stretched by a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from interp.data import Samples
from interp.errors import SampleError
from interp.run import Outcome
from interp.study import GridResult, Study, StudyTask
from interp.study.model_spec import as_model
from interp.study.study import as_samples, field, not_empty, one_of, whole_number
from interp.study.task import TableRows
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

    def rows(self, place: int, index: int) -> TableRows:
        sample, group = self.identity(index)
        question = self.study.data[index].question
        if not question:
            raise SampleError("there is no question.")
        n = len(question) if self.study.unit == "letters" else len(question.split())
        score = {"index": index, "what": "length", "value": float(n * self.study.method.factor)}
        return {"samples": [{"index": index, "sample": sample, "group": group}], "scores": [score]}


class Lengths(Study[GridResult]):
    data: Samples = field(factory=samples, converter=as_samples, validator=not_empty)
    model: Any = field(factory=Model, converter=as_model)
    method: Times = field(default=Times(1))
    unit: str = field(default="words", validator=one_of("words", "letters"))
    batch: int = field(default=2, validator=whole_number(1))

    name = "lengths"
    title = "Lengths of questions"

    @property
    def question(self) -> str:
        return "How long are the questions?"

    def task(self, mllm: Any) -> LengthTask:
        return LengthTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[Any, ...], folder: Path) -> GridResult:
        return GridResult.of(whole, cells, folder)
