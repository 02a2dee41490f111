"""What the tasks of all studies have in common: model, plan, samples that cannot be used, pickling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from interp.errors import InterpError, RunError
from interp.run import FAILURES, Outcome, Plan, Shelf, canonical, digest, make_plan
from interp.run.store import SCHEMA_VERSION
from interp.run.task import failure
from interp.study.data import data_identity, fault, group_of, question_length
from interp.study.model import ModelSpec, model_provenance, open_model
from interp.tracing import Mllm, Prefixes

__all__ = ["Rows", "StudyTask"]

BATCHES_PER_SHARD = 4
Rows = Mapping[str, Sequence[Mapping[str, Any]]]


class StudyTask(ABC):
    """A task over the samples of a study with `data`, `model`, `prompt` and `batch`.

    A subclass says what its numbers depend on besides those (`to_dict`), what its tables are (`schemas`, `joined`)
    and how a micro-batch becomes rows (`measure`). Pickles without its model, which each process opens again.

    Traces of `mllm` go on from an image prefix wherever that is exact, and leave it for the tasks of the same
    kin: those of the same model, samples and batches. Whether a prefix was made or found changes the cost
    alone; that a trace goes on from one at all is part of `to_dict`, because it rounds differently (about 1e-5).

    Attributes:
        name: The study's name.
        needs_boxes: Whether a sample without boxes is a failure.
    """

    name: str
    needs_boxes: bool = True

    def __init__(self, study: Any, mllm: Any) -> None:
        self.study, self._mllm, self._shelf = study, mllm, Shelf()
        dtype, device = str(mllm.dtype).removeprefix("torch."), str(mllm.device)
        self._identity = {"fingerprint": mllm.fingerprint, "dtype": dtype, "device": device}

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
        return {**self.__dict__, "_mllm": None, "_shelf": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _shelf=Shelf())

    def use(self, shelf: Shelf) -> None:
        """Share prefixes, passes and the opened model with other tasks of this process."""
        self._shelf = shelf

    @cached_property
    def kin(self) -> str:
        """Equal for tasks of one model, the same samples and the same micro-batches, which can share passes."""
        return digest({"model": self._identity, "data": self._data, "plan": self._planned})

    @property
    def mllm(self) -> Any:
        """The opened model; its traces share image prefixes."""
        key = canonical(self._identity)
        mllm = self._shelf.model(key, self._opened) if self._mllm is None else self._mllm
        return mllm.sharing(Prefixes(self._shelf.once, key)) if isinstance(mllm, Mllm) else mllm

    def _opened(self) -> Any:
        mllm = open_model(self.study.model)
        if mllm.fingerprint != self._identity["fingerprint"]:
            raise RunError(
                f"expected the model {self.study.model} with fingerprint {self._identity['fingerprint']}, got "
                f"{mllm.fingerprint}. Did its files change while the study ran?"
            )
        return mllm

    def to_dict(self) -> dict[str, Any]:
        """What the numbers of every such task depend on; subclasses add their own."""
        device = str(self.mllm.device).partition(":")[0]
        return {
            "study": self.name,
            "schema": SCHEMA_VERSION,
            "model": {**self._identity, "device": device},
            "data": self._data,
            "prompt": self.study.prompt.to_dict(),
            "plan": self._planned,
        }

    def provenance(self) -> dict[str, Any]:
        """Names of what `to_dict` knows by fingerprint."""
        return {
            "model": model_provenance(self.study.model, self.mllm),
            "data": {"name": self.study.data.name, **self._data},
            "device": str(self.mllm.device),
        }

    def plan(self) -> Plan:
        """Micro-batches of questions of like length: the same whatever the prompt around them."""
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
        lengths = [question_length(sample) for sample in self.study.data]
        return make_plan(lengths, batch=self._planned["batch"], shard=self._planned["shard"])

    @property
    def _planned(self) -> dict[str, Any]:
        """How samples are batched and run, in so far as the bytes depend on it."""
        shard = self.study.batch * BATCHES_PER_SHARD
        return {"batch": self.study.batch, "shard": shard, "order": "question", "prefix": "where exact"}

    @cached_property
    def _faults(self) -> list[tuple[str, str] | None]:
        """What is wrong with each sample before any model sees it: (error, reason) or None."""
        return [fault(sample, boxes=self.needs_boxes) for sample in self.study.data]
