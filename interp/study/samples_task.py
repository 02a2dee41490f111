"""What tasks that put every sample through a model once have in common: model, plan, faults, one pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from interp.errors import InterpError, RunError
from interp.indicators import Maps
from interp.run import FAILURES, Outcome, Plan, make_plan
from interp.run.store import SCHEMA_VERSION
from interp.run.task import failure
from interp.study.data import data_identity, fault, group_of, prompt_length
from interp.study.model import ModelSpec, model_provenance, open_model
from interp.study.threads import suitable_threads
from interp.tokens import TokenMap

__all__ = ["SamplesTask"]

BATCHES_PER_SHARD = 4
Rows = Mapping[str, Sequence[Mapping[str, Any]]]


class SamplesTask(ABC):
    """A task over the samples of a study with `data`, `model`, `indicator`, `prompt` and `batch`.

    Pickles without its model, which each process opens again.
    """

    name: str

    def __init__(self, study: Any, mllm: Any) -> None:
        self.study, self._mllm, self._fingerprint = study, mllm, mllm.fingerprint

    @abstractmethod
    def schemas(self) -> Mapping[str, pa.Schema]:
        """The tables of a shard, without the failures."""

    @abstractmethod
    def joined(self) -> tuple[str, ...]:
        """The tables joined over all shards."""

    @abstractmethod
    def rows(self, index: int, array: Any, tokens: TokenMap, logits: np.ndarray | None) -> Rows:
        """Table name → rows of one sample, failures included; raises `InterpError` when it cannot be used."""

    def maps(self, indices: tuple[int, ...]) -> tuple[Maps, bool]:
        """The maps of a micro-batch, and whether another run has already paid for them."""
        samples = [self.study.data[index] for index in indices]
        with suitable_threads(self.mllm):
            return self.study.indicator(self.mllm, samples, prompt=self.study.prompt), False

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
        """What the numbers of every such task depend on."""
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
            "indicator": study.indicator.to_dict(),
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
        rows: dict[str, list[Mapping[str, Any]]] = {name: [] for name in (*self.schemas(), FAILURES)}
        faults = {index: self._faults[index] for index in indices}
        rows[FAILURES] = [failure(self, index, *found) for index, found in faults.items() if found]
        able = [index for index, found in faults.items() if found is None]
        if not able:
            return Outcome(rows)
        maps, paid = self.maps(tuple(able))
        for place, index in enumerate(able):
            logits = None if maps.logits is None else maps.logits.values[place]
            try:
                found = self.rows(index, maps[place], maps.tokens[place], logits)
            except InterpError as error:
                rows[FAILURES].append(failure(self, index, type(error).__name__, str(error)))
                continue
            for name, more in found.items():
                rows[name].extend(more)
        cost = {name: float(value) for name, value in asdict(maps.cost).items() if value is not None}
        return Outcome(rows, {} if paid else cost)

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
        return [fault(sample) for sample in self.study.data]
