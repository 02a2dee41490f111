"""What tasks of a study with an indicator share: each sample's map, made once for all that read it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict
from functools import cached_property
from typing import Any, ClassVar

from interp.errors import RunError
from interp.indicators import Maps
from interp.run import Outcome, digest
from interp.run.task import TableRows
from interp.study.task import StudyTask, edited, suitable_threads

__all__ = ["SamplesTask"]


class SamplesTask(StudyTask):
    """A task of a study with an `indicator` too, and perhaps `edits`: rows from each sample's map.

    Tasks that differ only in what they compute from the maps share them: the first runs the indicator on a
    micro-batch, and the others take its maps from the cache, exactly as it returned them (stored maps are rounded).
    """

    map_dims: ClassVar[tuple[str, ...]] = ()
    """The dimensions that a map must have; () for any."""

    @abstractmethod
    def rows(self, indices: tuple[int, ...], maps: Maps) -> TableRows:
        """Table name → rows of these samples, failures included (see `each`), from their maps."""

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
        self._check_dims(maps)
        cost = {name: float(value) for name, value in asdict(maps.cost).items() if value is not None}
        return Outcome(self.rows(indices, maps), {} if paid else cost)

    def _check_dims(self, maps: Maps) -> None:
        """Stops a run whose indicator gives maps of other dimensions: every further sample would fail like these.

        Raises:
            RunError: The maps have other dimensions; raised after the first micro-batch.
        """
        found = {tuple(map(str, array.dims)) for array in maps}
        if self.map_dims and found and self.map_dims not in found:
            came = " and ".join(f"({', '.join(dims)})" for dims in sorted(found))
            kind, indicator = type(self.study).__name__, type(self.study.indicator).__name__
            raise RunError(
                f"a {kind} needs maps ({', '.join(self.map_dims)}); {indicator} gives {came}. Use another indicator; "
                f"one that says dims = (…) of its maps is refused when the study is made, before anything runs."
            )

    def _maps(self, indices: tuple[int, ...]) -> tuple[Maps, bool]:
        """The maps of a micro-batch, and whether another task has computed them already."""

        def run() -> Maps:
            study = self.study
            mllm = edited(self.mllm, getattr(study, "edits", ()))
            with suitable_threads(mllm):
                return study.indicator(mllm, [study.data[index] for index in indices], prompt=study.prompt)

        return self._shelf.once(f"maps {self._pass} {indices}", run, _n_bytes)

    @cached_property
    def _pass(self) -> str:
        """A hash of what the maps depend on, equal for every kind of study."""
        return digest({name: value for name, value in SamplesTask.to_dict(self).items() if name != "study"})


def _n_bytes(maps: Maps) -> int:
    """The bytes that maps take in memory, without the few kilobytes of their tokens."""
    return sum(array.nbytes for array in maps) + (0 if maps.logits is None else maps.logits.nbytes)
