"""What tasks that read each sample's map from an indicator have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np

from interp.indicators import Maps
from interp.run import Outcome, digest
from interp.study.edited import edited
from interp.study.study_task import Rows, StudyTask
from interp.study.threads import suitable_threads
from interp.tokens import TokenMap

__all__ = ["Rows", "SamplesTask"]


class SamplesTask(StudyTask):
    """A task of a study with an `indicator` too, and perhaps `edits`: rows from each sample's map.

    Tasks that differ only in what they compute from the maps share them: the first runs the indicator on a
    micro-batch, and the others find its maps, exactly as it returned them (what is stored is rounded), on the shelf.
    """

    @abstractmethod
    def rows(self, index: int, array: Any, tokens: TokenMap, logits: np.ndarray | None) -> Rows:
        """Table name → rows of one sample, failures included; raises `InterpError` when it cannot be used."""

    def to_dict(self) -> dict[str, Any]:
        """What the maps depend on."""
        edits = getattr(self.study, "edits", ())
        return {
            **super().to_dict(),
            "indicator": self.study.indicator.to_dict(),
            **({"edits": [edit.to_dict() for edit in edits]} if edits else {}),
        }

    def measure(self, indices: tuple[int, ...]) -> Outcome:
        """Rows of each sample's map."""
        maps, paid = self._maps(indices)

        def rows(place: int, index: int) -> Rows:
            logits = None if maps.logits is None else maps.logits.values[place]
            return self.rows(index, maps[place], maps.tokens[place], logits)

        cost = {name: float(value) for name, value in asdict(maps.cost).items() if value is not None}
        return Outcome(self.each(indices, rows), {} if paid else cost)

    def _maps(self, indices: tuple[int, ...]) -> tuple[Maps, bool]:
        """The maps of a micro-batch, and whether another task has already paid for them."""

        def run() -> Maps:
            study = self.study
            mllm = edited(self.mllm, getattr(study, "edits", ()))
            with suitable_threads(mllm):
                return study.indicator(mllm, [study.data[index] for index in indices], prompt=study.prompt)

        return self._shelf.once(f"maps {self._pass} {indices}", run, _n_bytes)

    @cached_property
    def _pass(self) -> str:
        """What the maps depend on, in short: the same for every kind of study."""
        return digest({name: value for name, value in SamplesTask.to_dict(self).items() if name != "study"})


def _n_bytes(maps: Maps) -> int:
    """What maps take in memory, but for the few kilobytes of their tokens."""
    return sum(array.nbytes for array in maps) + (0 if maps.logits is None else maps.logits.nbytes)
