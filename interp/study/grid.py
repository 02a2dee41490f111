"""Many studies as one: a base and the axes along which it varies."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import StudyError
from interp.run import RunFolder, folder_name, run_task
from interp.study.model import as_model, model_label, open_model
from interp.study.result import Cell, Result
from interp.study.sweep_task import SweepTask

if TYPE_CHECKING:
    from interp.study.layer_sweep import LayerSweep

__all__ = ["Grid", "run_cells"]

AXES = ("model", "data", "prompt", "indicator", "rule", "seed")
Cells = tuple[tuple[dict[str, str], "LayerSweep"], ...]


@dataclass(frozen=True, init=False)
class Grid:
    """The product of a study's variations; its result is one tidy frame with a column per axis.

    Every cell is a run of its own under its own hash, so cells shared with other studies are computed once.

        Grid(sweep, model=["organism", other], data={"natural": samples, "medical": other_samples})

    Args:
        base: The study that varies.
        **axes: Values of the base's fields `model`, `data`, `prompt`, `indicator`, `rule` or `seed`: a
            mapping from label to value, or a list, whose labels are then made from the values.

    Raises:
        StudyError: No axis or an empty one, an unknown axis, or two values of one label.
    """

    base: LayerSweep
    axes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    name = "grid"

    @property
    def title(self) -> str:
        """What the study is called in a report."""
        return f"{self.base.title} over {', '.join(self.axes)}"

    def __init__(self, base: LayerSweep, **axes: Mapping[str, Any] | Sequence[Any]) -> None:
        unknown = [name for name in axes if name not in AXES]
        if unknown or not axes:
            raise StudyError(f"a Grid varies at least one of {', '.join(AXES)}; got {unknown or 'none'}.")
        object.__setattr__(self, "base", base)
        object.__setattr__(self, "axes", {name: _labelled(name, values) for name, values in axes.items()})

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return f"{self.base.question} Does it depend on the {' or the '.join(self.axes)}?"

    @property
    def sweeps(self) -> Cells:
        """Each cell's labels and its study, the last axis fastest; a model's cells side by side."""
        order = sorted(self.axes, key=lambda name: (name != "model", list(self.axes).index(name)))
        cells = []
        for values in itertools.product(*(self.axes[name].items() for name in order)):
            changes = {name: value for name, (_, value) in zip(order, values, strict=True)}
            sweep = self.base.replace(**changes)
            labels = {"model": model_label(sweep.model), "data": sweep.data.name}
            cells.append(
                ({**labels, **{name: label for name, (label, _) in zip(order, values, strict=True)}}, sweep)
            )
        return tuple(cells)

    def run(self, out: str | os.PathLike[str] = "runs", *, workers: int = 1, progress: bool = True) -> Result:
        """The result of every cell; what is already under `out` is not computed again."""
        cells = tuple(run_cells(self.sweeps, out, workers=workers, progress=progress))
        listed = [(cell.labels, cell.folder.path.name) for cell in cells]
        folder = RunFolder.create(out, self.name, self._described(listed))
        return Result(self, cells, Path(folder.path))

    def to_dict(self) -> dict[str, Any]:
        """The study as JSON: each cell's labels and the folder of its run, which is the hash of its study.

        Models that are not open are opened, one at a time, to take their fingerprints.
        """
        tasks = [(labels, SweepTask(sweep, mllm)) for labels, sweep, mllm in _opened(self.sweeps)]
        return self._described([(labels, folder_name(task.name, task.to_dict())) for labels, task in tasks])

    def _described(self, cells: Sequence[tuple[Mapping[str, str], str]]) -> dict[str, Any]:
        listed = [{"labels": dict(labels), "run": run} for labels, run in cells]
        return {"study": self.name, "axes": list(self.axes), "cells": listed}

    def __hash__(self) -> int:
        return hash((self.base, tuple((name, *values) for name, values in self.axes.items())))


def run_cells(cells: Cells, out: str | os.PathLike[str], *, workers: int, progress: bool) -> Iterator[Cell]:
    """Run each cell in turn."""
    for labels, sweep, mllm in _opened(cells):
        label = " · ".join(labels.values())
        folder = run_task(SweepTask(sweep, mllm), out, workers=workers, progress=progress, label=label)
        cell = Cell(labels, sweep, folder)
        cell.check()
        yield cell


def _opened(cells: Cells) -> Iterator[tuple[dict[str, str], LayerSweep, Any]]:
    """Each cell with its opened model; one model is open at a time."""
    mllm, current = None, None
    for labels, sweep in cells:
        if current is None or sweep.model != current:
            mllm = None  # let go of the last model before the next is loaded
            mllm, current = open_model(sweep.model), sweep.model
        yield labels, sweep, mllm


def _labelled(axis: str, values: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    if not isinstance(values, Mapping) and (isinstance(values, str) or not isinstance(values, Sequence)):
        raise StudyError(f"the axis {axis} takes a list or a mapping from label to value; got {values!r}.")
    if axis == "data" and isinstance(values, Sequence) and hasattr(values, "fingerprint"):
        raise StudyError('the axis data takes several Samples, got one. Write data={"a name": samples, …}.')
    pairs = (
        list(values.items())
        if isinstance(values, Mapping)
        else [(_label(axis, value), value) for value in values]
    )
    if axis == "model":
        pairs = [(label, as_model(value)) for label, value in pairs]
    labels = [str(label) for label, _ in pairs]
    if not labels or len(set(labels)) != len(labels):
        raise StudyError(
            f"the axis {axis} needs at least one value and distinct labels; got {labels}. Pass a mapping."
        )
    return dict(zip(labels, (value for _, value in pairs), strict=True))


def _label(axis: str, value: Any) -> str:
    makers = {
        "model": lambda: model_label(as_model(value)),
        "data": lambda: value.name,
        "prompt": lambda: value.template,
    }
    return str(makers.get(axis, lambda: value)())
