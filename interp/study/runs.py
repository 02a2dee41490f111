"""The runs behind a result, one per study or per cell of a grid, and the studies that their folders keep.

    <run>/declared.json            the study's fields: values of this package's own classes, and plain ones
    <run>/samples-<12 hex>.jsonl   the samples of one of its data sets, a line each: paths, questions, boxes, …

No number depends on them, and they are no part of what names the folder. What cannot be written, such as images that
are in memory alone, is named in the file in the place of the study. Only dataclasses of this package are read back, so
that a folder from elsewhere runs no code of its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from interp.data import Samples
from interp.errors import InterpError, RunError, StudyError
from interp.inputs.argument_checks import check_bool
from interp.inputs.files import read_json, write_atomically
from interp.inputs.sample import Sample
from interp.inputs.text import count, unstorable
from interp.run import FAILURES, RunFolder, Task, Workers, check_options, run_tasks
from interp.study.model_spec import ModelSpec, model_label, open_model

__all__ = ["FILE", "Cells", "GridCell", "by_model", "read_study", "run_cells", "store_study"]


Cells = tuple[tuple[dict[str, str], Any], ...]
"""Labels along the axes, and a study each."""


@dataclass(frozen=True)
class GridCell:
    """One finished run inside a result, with its labels along the axes."""

    labels: Mapping[str, str]
    study: Any
    folder: RunFolder

    @property
    def key(self) -> tuple[str, ...]:
        """The labels alone, in the order of the axes."""
        return tuple(self.labels.values())

    @cached_property
    def measured(self) -> bool:
        """Whether at least one sample could be measured."""
        return self.folder.read_table("samples", columns=["index"]).num_rows > 0

    def check(self) -> None:
        """Raise `StudyError` when not one sample could be measured."""
        if not self.measured:
            first = self.folder.read_table(FAILURES).to_pylist()[0]
            raise StudyError(
                f"expected at least one of {count(len(self.study.data), 'sample')} of {' · '.join(self.key)} to be "
                f"measured, but all failed. The first, {first['sample']}: {first['error']}: "
                f"{first['reason']}"
            )

    def named_frame(self, table: str) -> pd.DataFrame:
        """The table as `frame` gives it, with groups named for people; see `Samples.group_names`."""
        frame = self.frame(table)
        if "group" in frame and frame.group.astype(str).str.startswith("image ").any():
            names = self.study.data.group_names
            frame["group"] = [names.get(group, group) for group in frame.group]
        return frame

    def frame(self, table: str) -> pd.DataFrame:
        """One of the run's joined tables as stored, with a leading column per axis; groups of images by content."""
        frame = self.folder.read_table(table).to_pandas()
        for place, (axis, label) in enumerate(self.labels.items()):
            frame.insert(place, axis, label)
        return frame


def run_cells(
    cells: Cells,
    out: str | os.PathLike[str],
    *,
    workers: int | Workers,
    progress: bool,
    part: tuple[int, int] | None = None,
    loaders: int = 0,
    mllm: Any = None,
) -> tuple[GridCell, ...]:
    """Run the cells, or part i of n of each, over one pool of workers.

    Cells of one model and the same samples are computed side by side, so that they share image prefixes, and maps
    where they differ only in what is computed from those. The bytes are those of each cell run alone.

    Raises:
        StudyError: Nothing could be measured in any cell, an axis has the name of a table's column, or `mllm` is no
            model.
        RunError: `out`, `workers`, `loaders` or `part` make no sense, or a folder cannot be used.
    """
    found = check_options(out, workers, part, loaders)
    check_bool("progress", progress, StudyError)
    if mllm is not None and (isinstance(mllm, str) or not hasattr(mllm, "encode")):
        raise StudyError(
            f"mllm is the study's model, opened by interp.load or interp.wrap, or None; got {mllm!r:.200}."
        )
    ready, opened = _ready(cells, mllm, out, workers=found, progress=progress)
    options: dict[str, Any] = {"workers": found, "progress": progress, "part": part, "loaders": loaders}
    folders = run_tasks(_groups(ready, opened), out, **options)
    del opened
    done = tuple(
        GridCell(labels, study, folder) for (labels, study), folder in zip(cells, folders, strict=True)
    )
    for cell in done:
        store_study(cell.study, cell.folder.path)
    if part is None and not any(cell.measured for cell in done):
        done[0].check()
    return done


def _ready(
    cells: Cells, mllm: Any, out: str | os.PathLike[str], *, workers: Workers, progress: bool
) -> tuple[Cells, Any]:
    """The cells with the results of other studies that they need, and the first cell's model, if it is open."""
    if not any(study.unresolved for _, study in cells):
        return cells, mllm
    ready: list[tuple[dict[str, str], Any]] = []
    kept = None
    for model, same in by_model(cells, mllm):
        options: dict[str, Any] = {"workers": workers, "progress": progress, "mllm": model}
        ready += [(labels, study.resolved(out, **options)) for labels, study in same]
        kept = model if len(same) == len(cells) else None  # of several models one is open at a time
        del model, options
    return tuple(ready), kept


def _groups(cells: Cells, mllm: Any) -> Iterator[list[tuple[str, Task]]]:
    """The tasks of each model's cells with their labels."""
    for model, same in by_model(cells, mllm):
        group = [(" · ".join(labels.values()), _checked(labels, study.task(model))) for labels, study in same]
        del model
        yield group
        del group  # before the next model is loaded


def by_model(cells: Cells, mllm: Any = None) -> Iterator[tuple[Any, Cells]]:
    """Each model, opened, with the consecutive cells that use it; it is released before the next one is loaded.

    Args:
        cells: The cells, those of one model side by side.
        mllm: The first cell's model, if it is open.
    """
    for model, same in itertools.groupby(cells, key=lambda cell: cell[1].model):
        opened, mllm = (open_model(model) if mllm is None else mllm), None
        yield opened, tuple(same)
        del opened


def _checked(labels: Mapping[str, str], task: Task) -> Task:
    """The task; an axis is a column of every table, so it cannot have the name of another."""
    for table, schema in task.schemas().items():
        taken = [axis for axis in labels if axis in schema.names]
        if taken:
            raise StudyError(
                f"the axes {', '.join(labels)} become columns, but the table {table} of {task.name} has a column "
                f"{taken[0]} already. Vary another field, or run its values as studies of their own."
            )
    return task


FILE = "declared.json"
PACKAGES = (
    *("interp", "interp.study", "interp.indicators", "interp.methods", "interp.metrics.scorers"),
    *(
        "interp.tracing",
        "interp.tracing.word_lenses",
        "interp.inputs.prompt",
        "interp.inputs.box_conventions",
    ),
)
"""Where the classes that a study is made of are offered to users."""
MOST = 20_000
"""Samples of one data set that are written; with more the folder would grow by hundreds of megabytes."""
SCENE = re.compile(r"scene-(\d+)-(train|validation|test)-(\d{5,})")
"""The id of a bundled scene, which says how it is drawn: seed, split and number."""


class _UnwritableError(Exception):
    """A value that cannot be written down; the text says which."""


def store_study(study: Any, folder: Path) -> None:
    """Writes a study, or a grid, into its folder; a folder that cannot be written any more stays as it is."""
    files: dict[str, str] = {}
    try:
        found = {"study": _written(study, files)}
    except _UnwritableError as error:
        found, files = {"missing": str(error)}, {}
    files[FILE] = _json(found, indent=1) + "\n"
    with suppress(OSError):
        for name, text in files.items():
            data = text.encode()
            if not (folder / name).is_file() or (folder / name).read_bytes() != data:
                write_atomically(folder / name, data)


def read_study(folder: Path) -> Any:
    """The study that is written in a folder.

    Raises:
        RunError: The folder holds no study, or not all of it could be written; the message says what is missing.
    """
    stored = read_json(folder / FILE)
    if not isinstance(stored, dict):
        raise RunError(
            f"{folder} holds no {FILE}, which says what a run was made of: an interp without it made the run, or the "
            "run was not finished."
        )
    if "study" not in stored:
        raise RunError(f"the page of {folder} needs what its run could not keep: {stored.get('missing')}.")
    try:
        return _read(stored["study"], folder)
    except (KeyError, TypeError, ValueError, AttributeError, ImportError, OSError) as error:
        raise RunError(
            f"{folder / FILE} cannot be read ({type(error).__name__}: {error}): it was edited, or another version of "
            "interp wrote it."
        ) from error


def _written(value: Any, files: dict[str, str]) -> Any:
    """The value as JSON; data sets go to `files`, name → text."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Samples):
        return {"samples": _data_file(value, files), "name": value.name, "skipped": dict(value.skipped)}
    if isinstance(value, Mapping):
        return {"mapping": [[_written(key, files), _written(one, files)] for key, one in value.items()]}
    if isinstance(value, list | tuple):
        listed = [_written(one, files) for one in value]
        return listed if isinstance(value, list) else {"tuple": listed}
    if hasattr(value, "encode") and hasattr(
        value, "processor"
    ):  # an open model, of which a page needs the name
        return _written(ModelSpec(model_label(value), dtype=str(value.dtype).removeprefix("torch.")), files)
    if _is_own(type(value)):
        return _fields(value, files)
    raise _UnwritableError(
        f"a {type(value).__module__}.{type(value).__name__}, which is no dataclass of interp"
    )


def _fields(value: Any, files: dict[str, str]) -> dict[str, Any]:
    kind = type(value)
    if hasattr(value, "base") and hasattr(value, "axes"):  # a grid, which is made of both and nothing else
        fields = {"base": value.base, "axes": dict(value.axes)}
    else:
        fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(value) if one.init}
    held = {name: _written(one, files) for name, one in fields.items()}
    return {"class": f"{_home(kind)}:{kind.__qualname__}", "fields": held}


def _home(kind: type) -> str:
    """The package that offers a class to users, so that a run can still be read after the class has moved."""
    loaded = (
        one for one in PACKAGES if one in sys.modules
    )  # the class is here, so what offers it is here too
    return next((one for one in loaded if _offered(one, kind.__qualname__) is kind), kind.__module__)


def _offered(module: str, name: str) -> Any:
    try:
        return getattr(sys.modules.get(module) or import_module(module), name, None)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[
            0
        ] != "interp":  # something that the module needs is not installed
            raise
        return None


def _is_own(kind: type) -> bool:
    return dataclasses.is_dataclass(kind) and kind.__module__.split(".")[0] == "interp"


def _data_file(samples: Samples, files: dict[str, str]) -> str:
    """Adds the file of a data set and returns its name."""
    if len(samples) > MOST:
        raise _UnwritableError(
            f"the {len(samples):,} samples of {samples.name!r}; at most {MOST:,} are written"
        )
    text = "".join(_json(_record(one)) + "\n" for one in samples)
    name = f"samples-{hashlib.sha256(text.encode()).hexdigest()[:12]}.jsonl"
    files[name] = text
    return name


def _json(value: Any, **options: Any) -> str:
    """JSON that UTF-8 can hold: with escapes where a file's name is of bytes that are no UTF-8."""
    text = json.dumps(value, ensure_ascii=False, **options)
    return text if unstorable(text) is None else json.dumps(value, **options)


def _record(sample: Sample) -> dict[str, Any]:
    if not sample.is_usable:
        kept = {"group": sample.group, "id": sample.id, "meta": _plain(sample.meta)}
        return {"unusable": sample.fault, **kept}
    if (scene := SCENE.fullmatch(sample.id)) and _scene(*scene.groups()) == sample:
        return {"scene": list(scene.groups()), "meta": _plain(sample.meta)}
    try:
        return _absolute(sample.to_dict())
    except InterpError as error:
        raise _UnwritableError(str(error).rstrip(".")) from error


def _plain(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a sample's `meta` that JSON can hold."""
    return json.loads(json.dumps(dict(meta), default=str))


def _absolute(record: dict[str, Any]) -> dict[str, Any]:
    """The record with absolute paths, so that the run can be read from another folder."""
    found = dict(record)
    for name in ("images", "video"):
        value = found.get(name)
        if isinstance(value, list):
            found[name] = [os.path.abspath(one) if isinstance(one, str) else one for one in value]
        elif isinstance(value, str):
            found[name] = os.path.abspath(value)
    if "masks" in found:
        found["masks"] = [
            {**one, "path": os.path.abspath(one["path"])} if "path" in one else one for one in found["masks"]
        ]
    return found


@cache
def _scene(seed: str, split: str, number: str) -> Sample:
    """A bundled scene; it is drawn by its own number, whatever the others are."""
    from interp.data.scenes import natural_sample

    return natural_sample(split, int(number), int(seed))


def _read(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_read(one, folder) for one in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_read(one, folder) for one in value["tuple"])
    if "mapping" in value:
        return {_read(key, folder): _read(one, folder) for key, one in value["mapping"]}
    if "samples" in value:
        name = Path(value["samples"]).name
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        return Samples(map(_sample, map(json.loads, lines)), value["name"], value["skipped"])
    kind = _class_named(value["class"])
    fields = {name: _read(one, folder) for name, one in value["fields"].items()}
    return kind(fields["base"], **fields["axes"]) if {*fields} == {"base", "axes"} else kind(**fields)


def _sample(record: dict[str, Any]) -> Sample:
    if "unusable" in record:
        return Sample.unusable(record.pop("unusable"), **record)
    if "scene" in record:
        return _scene(*record["scene"]).replace(meta=record["meta"])
    return Sample.from_dict(record)


def _class_named(name: str) -> type:
    """A dataclass of this package, by its module and name; where its module is gone, by its name alone.

    Raises:
        TypeError: Anything else.
    """
    module, _, place = name.partition(":")
    if module.split(".")[0] != "interp" or not all(part.isidentifier() for part in module.split(".")):
        raise TypeError(f"{name!r} is no class of interp")
    places = (_offered(one, place) for one in (module, *PACKAGES))
    found = next((one for one in places if isinstance(one, type) and _is_own(one)), None)
    if found is None:
        raise TypeError(f"{name!r} is no class of interp that a study is made of")
    return found
