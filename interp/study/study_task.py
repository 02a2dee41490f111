"""What the tasks of all studies have in common: model, plan, samples that cannot be used, pickling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from interp.errors import InterpError, RunError
from interp.run import FAILURES, Outcome, Plan, make_plan
from interp.run.store import SCHEMA_VERSION
from interp.run.task import failure
from interp.study.data import data_identity, fault, group_of, prompt_length
from interp.study.model import ModelSpec, model_provenance, open_model

__all__ = ["Rows", "StudyTask"]

BATCHES_PER_SHARD = 4
Rows = Mapping[str, Sequence[Mapping[str, Any]]]


class StudyTask(ABC):
    """A task over the samples of a study with `data`, `model`, `prompt` and `batch`.

    A subclass says what its numbers depend on besides those (`to_dict`), what its tables are (`schemas`, `joined`)
    and how a micro-batch becomes rows (`measure`). Pickles without its model, which each process opens again.

    Attributes:
        name: The study's name.
        needs_boxes: Whether a sample without boxes is a failure.
    """

    name: str
    needs_boxes: bool = True

    def __init__(self, study: Any, mllm: Any) -> None:
        self.study, self._mllm, self._fingerprint = study, mllm, mllm.fingerprint

    @abstractmethod
    def schemas(self) -> Mapping[str, pa.Schema]:
        """The tables of a shard, without the failures."""

    @abstractmethod
    def joined(self) -> tuple[str, ...]:
        """The tables joined over all shards."""

    @abstractmethod
    def measure(self, indices: tuple[int, ...]) -> Outcome:
        """Rows of a micro-batch of samples that have no fault (see `each`), and what they cost."""

    def __getstate__(self) -> dict[str, Any]:
        if not isinstance(self.study.model, ModelSpec):
            raise RunError(
                'expected a model that other processes can open, got an opened one. Pass model="an id" or a '
                "ModelSpec to the study, or run with workers=1."
            )
        return {**self.__dict__, "_mllm": None}

    @property
    def mllm(self) -> Any:
        """The opened model."""
        if self._mllm is None:
            self._mllm = open_model(self.study.model)
            if self._mllm.fingerprint != self._fingerprint:
                raise RunError(
                    f"expected the model {self.study.model} with fingerprint {self._fingerprint}, got "
                    f"{self._mllm.fingerprint}. Did its files change while the study ran?"
                )
        return self._mllm

    def to_dict(self) -> dict[str, Any]:
        """What the numbers of every such task depend on; subclasses add their own."""
        study, mllm = self.study, self.mllm
        return {
            "study": self.name,
            "schema": SCHEMA_VERSION,
            "model": {
                "fingerprint": self._fingerprint,
                "dtype": str(mllm.dtype).removeprefix("torch."),
                "device": str(mllm.device).partition(":")[0],
            },
            "data": self._data,
            "prompt": study.prompt.to_dict(),
            "plan": {"batch": study.batch, "shard": study.batch * BATCHES_PER_SHARD},
        }

    def provenance(self) -> dict[str, Any]:
        """Names of what `to_dict` knows by fingerprint."""
        return {
            "model": model_provenance(self.study.model, self.mllm),
            "data": {"name": self.study.data.name, **self._data},
            "device": str(self.mllm.device),
        }

    def plan(self) -> Plan:
        """Micro-batches of prompts of like length."""
        return self._plan

    def identity(self, index: int) -> tuple[str, str]:
        """The sample's id and group."""
        sample = self.study.data[index]
        return sample.id, group_of(sample)

    def compute(self, indices: tuple[int, ...]) -> Outcome:
        """Rows of the samples that can be used; the others' failures."""
        faults = {index: self._faults[index] for index in indices}
        failures = [failure(self, index, *found) for index, found in faults.items() if found]
        able = tuple(index for index, found in faults.items() if found is None)
        outcome = self.measure(able) if able else Outcome({})
        rows = {name: list(outcome.rows.get(name, ())) for name in (*self.schemas(), FAILURES)}
        return Outcome({**rows, FAILURES: [*failures, *rows[FAILURES]]}, outcome.cost)

    def each(
        self, indices: Sequence[int], rows: Callable[[int, int], Rows]
    ) -> dict[str, list[Mapping[str, Any]]]:
        """The rows of every sample together; one whose `rows(place, index)` raises an `InterpError` has failed.

        Args:
            indices: The samples.
            rows: From a sample's place among `indices` and its index to its rows by table.
        """
        found: dict[str, list[Mapping[str, Any]]] = {name: [] for name in (*self.schemas(), FAILURES)}
        for place, index in enumerate(indices):
            try:
                own = rows(place, index)
            except InterpError as error:
                own = {FAILURES: [failure(self, index, type(error).__name__, str(error))]}
            for name, more in own.items():
                found[name].extend(more)
        return found

    @cached_property
    def _data(self) -> dict[str, Any]:
        return data_identity(self.study.data)

    @cached_property
    def _plan(self) -> Plan:
        lengths = [prompt_length(sample, self.study.prompt) for sample in self.study.data]
        return make_plan(lengths, batch=self.study.batch, shard=self.study.batch * BATCHES_PER_SHARD)

    @cached_property
    def _faults(self) -> list[tuple[str, str] | None]:
        """What is wrong with each sample before any model sees it: (error, reason) or None."""
        return [fault(sample, boxes=self.needs_boxes) for sample in self.study.data]
