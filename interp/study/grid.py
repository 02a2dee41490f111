"""Many studies as one: a base and the axes along which it varies."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from interp.errors import InterpError, StudyError
from interp.inputs.text import meant
from interp.run import RunFolder, Workers, folder_name
from interp.study.model_spec import as_model, model_label
from interp.study.runs import Cells, by_model, run_cells, store_study
from interp.study.study import Study, as_tuple

__all__ = ["Grid"]


@dataclass(frozen=True, init=False)
class Grid:
    """The product of a study's variations; its result is one tidy frame with a column per axis.

    Every cell is a run of its own under its own hash, so cells shared with other studies are computed once.
    Cells of one model over the same samples are computed side by side: those that differ in prompt, indicator or
    edits share the image prefix, wherever going on from it is exact, and those that differ only in what is
    computed from the maps (`metrics`, `rule`, `seed`) share their forward passes. The bytes are those of each
    cell run alone; `cost` counts each pass in the cell that ran it. A sample that fails in one cell is a row of
    `result.failures` with that cell's labels; so is every sample of a cell in which nothing could be measured,
    as long as another cell has something.

        Grid(sweep, model=["organism", other], data={"natural": samples, "medical": other_samples})
        Grid(sweep, edits={"as it is": (), "no image": [interp.Knockout(interp.Site(keys="image"))]})
        Grid(interp.HeadRanking(data=samples), metric=["kl", "ar"], prompt={"paper": …, "short": …})

    Args:
        base: The study that varies: a `LayerSweep`, a `HeadRanking`, any `Study`.
        **axes: Values of any of the base's fields, such as `model`, `data`, `prompt`, `indicator`, `edits`,
            `metrics`, `rule`, `seed`: a mapping from label to value, or a list, whose labels are then made
            from the values.

    Raises:
        StudyError: Something that is no study, no axis or an empty one, an unknown axis, two values of one
            label, or a value that the base refuses.
    """

    base: Study[Any]
    axes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    name = "grid"

    @property
    def title(self) -> str:
        """What the study is called in a report."""
        return f"{self.base.title} over {', '.join(self.axes)}"

    @property
    def page(self) -> str:
        """The module of its page and figures: that of the study that varies."""
        return self.base.page

    def __init__(self, base: Study[Any], **axes: Mapping[str, Any] | Sequence[Any]) -> None:
        if not isinstance(base, Study):
            raise StudyError(
                f"a Grid varies a study, such as LayerSweep(data=…) or HeadRanking(data=…); got {base!r}."
            )
        known = sorted((own.name for own in fields(base)), key=lambda name: (name != "model", name != "data"))
        unknown = [name for name in axes if name not in known]
        if unknown or not axes:
            raise StudyError(
                f"a Grid varies at least one of {', '.join(known)}; got {unknown or 'none'}.{meant(unknown, known)}"
            )
        object.__setattr__(self, "base", base)
        object.__setattr__(self, "axes", {name: _labelled(name, values) for name, values in axes.items()})
        for name, values in self.axes.items():
            for label, value in values.items():
                _check_value(base, name, label, value)

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return f"{self.base.question} Does it depend on the {' or the '.join(self.axes)}?"

    @property
    def studies(self) -> Cells:
        """Each cell's labels and its study, the last axis fastest; a model's cells side by side."""
        order = sorted(self.axes, key=lambda name: (name != "model", list(self.axes).index(name)))
        cells = []
        for values in itertools.product(*(self.axes[name].items() for name in order)):
            changes = {name: value for name, (_, value) in zip(order, values, strict=True)}
            study = self.base.replace(**changes)
            labels = {name: label for name, (label, _) in zip(order, values, strict=True)}
            cells.append(({**study.labels, **labels}, study))
        return tuple(cells)

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
    ) -> Any:
        """The result of every cell; what is already under `out` is not computed again.

        With `part=(i, n)` only part i of n of every cell is computed. The options are those of `Study.run`; all
        cells share one pool of workers.

        Returns:
            What the base makes of several cells: a `Result` of a `LayerSweep`, a `HeadGrid` of a `HeadRanking`;
            in any case a `GridResult`.
        """
        found = Workers.of(workers, address=address, gpus=gpus, devices=devices)
        options: dict[str, Any] = {"workers": found, "progress": progress, "part": part, "loaders": loaders}
        cells = run_cells(self.studies, out, **options)
        listed = [(cell.labels, cell.folder.path.name) for cell in cells]
        folder = RunFolder.create(out, self.name, self._described(listed))
        store_study(self, folder.path)
        return self.base.collect(self, cells, folder.path)

    def to_dict(self) -> dict[str, Any]:
        """The study as JSON: each cell's labels and the folder of its run, which is the hash of its study.

        Models that are not open are opened, one at a time, to take their fingerprints.
        """
        runs = []
        for mllm, cells in by_model(self.studies):
            tasks = [(labels, study.task(mllm)) for labels, study in cells]
            runs += [(labels, folder_name(task.name, task.to_dict())) for labels, task in tasks]
            del mllm, tasks
        return self._described(runs)

    def _described(self, cells: Sequence[tuple[Mapping[str, str], str]]) -> dict[str, Any]:
        listed = [{"labels": dict(labels), "run": run} for labels, run in cells]
        return {"study": self.name, "axes": list(self.axes), "cells": listed}

    def __hash__(self) -> int:
        return hash((self.base, tuple((name, *values) for name, values in self.axes.items())))


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
        "data": lambda: getattr(value, "name", "samples"),
        "prompt": lambda: getattr(value, "template", value),
        "metrics": lambda: _listed(value, str),
        "edits": lambda: _listed(value, repr) or "none",
        "method": lambda: getattr(value, "name", value),
    }
    return str(makers.get(axis, lambda: value)())


def _listed(value: Any, text: Callable[[Any], str]) -> str:
    """What a list holds, in one line; anything else as text."""
    listed = as_tuple(value)
    return ", ".join(map(text, listed)) if isinstance(listed, tuple) else str(value)


def _check_value(base: Study[Any], axis: str, label: str, value: Any) -> None:
    """Refuse a value before anything runs, rather than when its cell starts, perhaps hours later."""
    try:
        base.replace(**{axis: value})
    except InterpError as error:
        raise StudyError(f"the axis {axis} holds a value that does not fit, {label!r}: {error}") from error
