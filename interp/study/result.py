"""What the cells of a study found, in one tidy frame with a column per axis."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import pandas as pd
from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from interp.data import Samples
from interp.errors import InterpError, StudyError
from interp.inputs.notebook import block, facts
from interp.report.export import FORMATS, check_export, export_figures, export_tables
from interp.report.html import page_path
from interp.report.tables import count, times
from interp.run import FAILURES, UNDEFINED, cost_of
from interp.stats import population_note
from interp.stats.intervals import bootstrap_parts
from interp.study.dataframes import below, records
from interp.study.grid import Grid
from interp.study.runs import GridCell
from interp.study.study import Study, is_level

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.inputs.tokens import TokenMap
    from interp.study.runs import GridCell

__all__ = [
    "GridResult",
    "counted",
    "differences",
    "is_result",
    "printed",
    "stored_tokens",
    "summarise",
]

BASELINES = ("shuffled_boxes", "centre_prior")
OWN = ("index", "sample", "group", "value")


def summarise(scores: pd.DataFrame, *, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """One row per (axes…, layer, metric, control), in the order they were measured.

    The keys are whatever columns there are besides `index`, `sample`, `group` and `value`. `n` counts defined values,
    `n_undefined` the NaN ones, `n_groups` the groups resampled.
    """
    keys = [str(name) for name in scores.columns if name not in OWN]
    return pd.DataFrame(_estimates(scores, keys, level, seed, dropna=False))


def differences(
    scores: pd.DataFrame, axes: Sequence[str], *, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """The mean of "own boxes minus a baseline" over the same samples, per cell, layer, metric and baseline.

    Args:
        scores: `GridResult.values`: samples are told apart by their `index`, because ids may repeat.
        axes: The columns that name the cell.
        level: Coverage of the intervals.
        seed: The seed of the bootstrap.
    """
    keys = [*axes, "layer", "metric"]
    wide = scores.pivot_table(index=[*keys, "index", "group"], columns="control", values="value", sort=False)
    rows = []
    for baseline in (name for name in BASELINES if name in wide):
        gaps = (wide["boxes"] - wide[baseline]).to_frame("value").reset_index()
        control = {"control": f"boxes − {baseline}"}
        rows += _estimates(gaps, keys, level, seed, more=control)
    return pd.DataFrame(rows)


def _named_runs(results: Sequence[GridResult], runs: Sequence[str] | None) -> list[dict[str, str]]:
    """The label "run" of each result; none where the runs have no names."""
    if runs is None:
        return [{} for _ in results]
    listed = isinstance(runs, list | tuple) and all(isinstance(name, str) for name in runs)
    if not listed or len(runs) != len(results) or len({*runs}) < len(runs):
        raise StudyError(
            f"runs holds one name per result, each once; got {runs!r} for {len(results)} results."
        )
    if taken := [axis for result in results for axis in result.axes if axis == "run"]:
        raise StudyError(f"the results already have an axis {taken[0]!r}; join them without runs=.")
    return [{"run": str(name)} for name in runs]


def _estimates(
    frame: pd.DataFrame,
    keys: list[str],
    level: float,
    seed: int,
    *,
    more: Mapping[str, Any] | None = None,
    dropna: bool = True,
) -> list[dict[str, Any]]:
    """A row for each combination of keys: the keys, `more`, and the mean of `value` with its interval over groups."""
    parts: Any = frame.groupby(keys, sort=False, dropna=dropna)
    numbers = parts.ngroup().fillna(-1).to_numpy(int)
    values, groups = frame.value.to_numpy(), frame.group.to_numpy()
    found = bootstrap_parts(values, groups, numbers, seed=seed, level=level)
    notes = {n: population_note(n) for n in {one.n_groups for one in found}}
    return [
        dict(zip(keys, key, strict=True))
        | dict(more or {})
        | {
            "mean": one.mean,
            "low": one.low,
            "high": one.high,
            "n": one.n,
            "n_groups": one.n_groups,
            "n_undefined": one.n_nan,
            "note": notes[one.n_groups],
        }
        for (key, _), one in zip(parts, found, strict=True)
    ]


BULKY = ("footprints", "image_index")
"""Columns of a samples table that only figures need."""
NUMBERS = ("mean", "low", "high", "n", "n_groups", "n_undefined", "note")
WIDTH, N_ROWS = 130, 60
SHOWN = 8
"""Rows of the summary that a notebook shows, and labels of an axis that a line names."""
Own = TypeVar("Own", bound="GridResult")


@dataclass(frozen=True, repr=False)
class GridResult:
    """The result of a study, or of a grid over it. A notebook shows the first rows of its summary.

    Attributes:
        study: The study that was run.
        cells: The runs of the study.
        folder: The folder of the result's own files.
    """

    study: Study[Any] | Grid
    cells: tuple[GridCell, ...]
    folder: Path

    cell_type: ClassVar[type[GridCell]] = GridCell
    """What `of` makes its cells."""

    @classmethod
    def of(cls: type[Own], study: Study[Any] | Grid, cells: Sequence[GridCell], folder: Path) -> Own:
        """The result of these runs."""
        own = tuple(cls.cell_type(cell.labels, cell.study, cell.folder) for cell in cells)
        return cls(study, own, folder)

    @classmethod
    def join(cls: type[Own], results: Sequence[Own], runs: Sequence[str] | None = None) -> Own:
        """Several results as one, such as those of two data sets with heads of their own, or of two runs.

        Args:
            results: The results.
            runs: A name for each result: it becomes the axis "run", so that results of equal labels, such as those of
                two seeds or two prompts, stand side by side. None: no such axis.

        Raises:
            StudyError: No results, axes that differ, two cells of the same labels, or not one name per result.
        """
        listed = isinstance(results, Sequence) and not isinstance(results, str | bytes)
        for one in results if listed else [results]:
            is_result(one)
        if not listed:
            raise StudyError("join takes a list of results; got one. Write join([result, …]).")
        named = _named_runs(results, runs)
        cells = tuple(
            cls.cell_type({**name, **cell.labels}, cell.study, cell.folder)
            for name, result in zip(named, results, strict=True)
            for cell in result.cells
        )
        if not cells or len({tuple(cell.labels) for cell in cells}) > 1:
            raise StudyError(
                f"join takes results of the same axes; got {[', '.join(result.axes) for result in results]}."
            )
        if len({cell.key for cell in cells}) < len(cells):
            raise StudyError(
                "join takes results that differ in a label; got two cells of the same labels. Name the results, as in "
                'join([one, two], runs=["seed 0", "seed 1"]).'
            )
        return cls(results[0].study, cells, results[0].folder)

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes: "model", "data" and whatever else a grid varied."""
        return tuple(self.cells[0].labels)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per measured sample of each cell."""
        found = below(cell.named_frame("samples") for cell in self.cells)
        return found.drop(columns=list(BULKY), errors="ignore")

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per (axes…, sample, group, what the study measures by): its value, NaN where undefined."""
        keys = [*self.axes, "index"]
        found = self._frames("scores").merge(self.samples[[*keys, "sample", "group"]], on=keys)
        rest = [name for name in found.columns if name not in (*keys, "sample", "group", "value")]
        return found.reindex(columns=[*self.axes, "sample", "group", *rest, "value"])

    @cached_property
    def values(self) -> pd.DataFrame:
        """`scores` with each sample's `index`, which is its own where ids repeat; groups of images by content."""
        keys = [*self.axes, "index"]
        return self._frames("scores").merge(self._frames("samples")[[*keys, "sample", "group"]], on=keys)

    @cached_property
    def failures(self) -> pd.DataFrame:
        """One row per thing that could not be measured, with the reason; empty when all went well."""
        return below(cell.named_frame(FAILURES) for cell in self.cells)

    def failure_counts(self) -> str:
        """How many failures there are, by error, and apart from them how many single values are undefined.

        An undefined value, such as a metric of a map that is the same everywhere, is a finding about a sample that was
        measured; `failures` lists both.
        """
        errors = self.failures.error
        failed, n_undefined = errors[errors != UNDEFINED], int((errors == UNDEFINED).sum())
        by_error = f" ({times(failed.value_counts())})" if len(failed) else ""
        undefined = f", {count(n_undefined, 'undefined value')}" if n_undefined else ""
        return f"{count(len(failed), 'failure')}{by_error}{undefined}"

    @property
    def cost(self) -> pd.DataFrame:
        """Seconds, bytes and forward passes of each cell, over all sessions.

        A cell counts what it ran itself, so what it took over from another cell is counted there.
        """
        return pd.DataFrame([{**cell.labels, **cost_of(cell.folder)} for cell in self.cells])

    def summary(self, level: float = 0.95) -> pd.DataFrame:
        """Mean and bootstrap interval over groups of each (axes…, what the study measures by).

        Columns `mean`, `low`, `high`, `n`, `n_groups`, `n_undefined` and `note`, a sentence where there are
        too few groups to speak of a population.
        """
        is_level("level", level)
        if level not in self._summaries:
            self._summaries[level] = summarise(self.scores, level=level, seed=self.seed)
        return self._summaries[level].copy()

    @cached_property
    def _summaries(self) -> dict[float, pd.DataFrame]:
        return {}

    @property
    def seed(self) -> int:
        """The seed of the study, used for the bootstrap too."""
        return int(getattr(self.cells[0].study, "seed", 0))

    @cached_property
    def n_samples(self) -> int:
        """How many samples were measured; one that several cells measured, such as under two models, counts once."""
        measured: dict[Samples, set[int]] = {}
        for cell in self.cells:
            measured.setdefault(cell.study.data, set()).update(cell.frame("samples")["index"].tolist())
        return sum(map(len, measured.values()))

    @cached_property
    def groups(self) -> frozenset[str]:
        """All groups measured, as stored: those of images by content."""
        return frozenset(self._frames("samples").group)

    @property
    def varied(self) -> tuple[str, ...]:
        """The axes in which the cells differ."""
        return tuple(axis for axis in self.axes if len({cell.labels[axis] for cell in self.cells}) > 1)

    def table(self) -> str:
        """Text: the first rows of `summary`, mean [low, high], and how many more there are."""
        summary = self.summary()
        keys = [str(name) for name in summary.columns if name not in (*NUMBERS, *self.axes)]
        keys = [*self.varied, *keys]
        table = Table(title=Text(f"{self.study.title}: means over samples"), title_justify="left")
        for name in (*keys, "mean [95 %]", "samples", "groups"):
            table.add_column(Text(name), justify="left" if name in self.varied else "right")
        for row in records(summary.head(N_ROWS)):
            texts = [str(row[name]) for name in keys]
            table.add_row(*map(Text, (*texts, mean_text(row), str(row["n"]), str(row["n_groups"]))))
        left = len(summary) - N_ROWS
        more = [f"{left} more rows: read summary()."] if left > 0 else []
        return "\n".join([printed(table, WIDTH), *more])

    def figures(self) -> dict[str, go.Figure]:
        """The Plotly figures of its report, by name.

        Raises:
            StudyError: This kind of study has no page.
        """
        return self._page.figures(self)

    def report(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write the report, one HTML file that loads nothing from elsewhere, and return its path.

        Args:
            path: Where to write it; `report.html` in the study's folder when left out.

        Raises:
            StudyError: This kind of study has no page.
        """
        return self._write(path)

    def _write(self, path: str | os.PathLike[str] | None, **options: Any) -> Path:
        """The page that the study declares, written with these options."""
        target = self.folder / "report.html" if path is None else page_path(path)
        return self._page.write_page(self, target, **options)

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that `export` writes, by name: "summary", and what else this kind of study has."""
        return {"summary": self.summary()}

    def export(
        self,
        folder: str | os.PathLike[str],
        *,
        formats: Sequence[str] = FORMATS,
        columns: Sequence[int] = (1, 2),
    ) -> list[Path]:
        """Write the figures and tables for a paper, and return the paths of the files.

        Figures are those of `figures()`, as "<name>-1col.svg" and so on, with type of at least 7.5 points; tables are
        those of `tables()`, as CSV and LaTeX (booktabs). Figures need the extra `images` and Chrome or Chromium.

        Args:
            folder: Where to write; it is made.
            formats: "svg", "png" (300 dots per inch) or both; () for tables alone.
            columns: Widths of the figures: 1 for one column of a paper (3.25 inches), 2 for two (6.75 inches).

        Raises:
            StudyError: An unknown format or width; kaleido or a browser is missing; the study has no page.
            RunError: A file cannot be written.
        """
        check_export(formats, columns)
        tables = {name: frame.drop(columns="note", errors="ignore") for name, frame in self.tables().items()}
        figures = self.figures() if len(formats) else {}
        written = export_figures(figures, folder, formats=formats, columns=columns)
        return [*written, *export_tables(tables, folder)]

    def save(self, path: Any = None) -> None:
        """Raise `StudyError`: a result is stored already. nnsight gives every object a `.save`, which would do nothing.

        Raises:
            StudyError: Always.
        """
        raise StudyError(
            f"a result is stored already, in {self.folder}: run the study with the same out= and it is read from "
            'there. Write result.export("folder") for figures and tables, result.report("page.html") for the page.'
        )

    def __repr__(self) -> str:
        return "\n".join([self._head, *(f"  {name:<9}{line}" for name, line in self._told().items())])

    def _repr_html_(self) -> str:
        """What a notebook shows: what was measured, and the first rows of the summary."""
        summary = self.summary()
        shown = Markup(summary.head(SHOWN).to_html(index=False, border=0, na_rep="–", float_format="%.3f"))
        left = max(len(summary) - SHOWN, 0)
        more = Markup("<div>and {} more rows: summary()</div>").format(left) if left else Markup("")
        return block(self._head, facts(self._told()), shown, more)

    @property
    def _head(self) -> str:
        n = len(self.cells)
        return f"{self.study.title}: result of {count(n, 'run')}"

    def _told(self) -> dict[str, str]:
        """Name and content of each line about the result."""
        told = {
            axis: ", ".join(list(dict.fromkeys(cell.labels[axis] for cell in self.cells))[:SHOWN])
            for axis in self.axes
        }
        try:
            told["measured"] = (
                f"{count(self.n_samples, 'sample')} in {count(len(self.groups), 'group')}, {self.failure_counts()}"
            )
        except (InterpError, OSError) as error:
            told["measured"] = f"cannot be read: {error}"
        read = ".summary() .scores .samples .failures .figures() .table() .report() .export(folder)"
        return {**told, "folder": str(self.folder), "read": read}

    @property
    def _page(self) -> ModuleType:
        """The module that the study names in `page`: it has `write_page(result, path)` and `figures(result)`."""
        if not self.study.page:
            raise StudyError(
                f"expected a study with a page of its own, got {self.study.title!r}, which names none in `page`. Read "
                "result.scores, result.summary() and result.failures instead."
            )
        return importlib.import_module(self.study.page)

    def _frames(self, table: str) -> pd.DataFrame:
        return below(cell.frame(table) for cell in self.cells)


def is_result(value: Any) -> None:
    """Raise `StudyError` for anything but the result of a study."""
    if not isinstance(value, GridResult):
        raise StudyError(f"expected the result of a study, as study.run() returns it; got {value!r}.")


def counted(result: GridResult) -> list[str]:
    """How many samples in how many groups each cell measured: lines below a table; cells of like counts in one."""
    names: dict[str, list[str]] = {}
    for cell in result.cells:
        samples = cell.frame("samples")
        said = f"{count(len(samples), 'sample')} in {count(samples.group.nunique(), 'group')}"
        names.setdefault(said, []).append(
            " · ".join(cell.labels[axis] for axis in result.varied or ("data",))
        )
    if len(names) == 1 and len(result.cells) > 1:
        return [f"Each: {next(iter(names))}."]
    return [f"{', '.join(own)}: {said}." for said, own in names.items()]


def mean_text(row: dict[str, Any]) -> str:
    """The mean with its interval; without one where groups are too few."""
    ends = "" if row["note"] else f" [{row['low']:.3f}, {row['high']:.3f}]"
    return f"{row['mean']:.3f}{ends}"


def printed(table: Table, width: int) -> str:
    """A table as text."""
    text = StringIO()
    Console(file=text, width=width).print(table)
    return text.getvalue().rstrip()


def stored_tokens(cell: GridCell, index: int) -> TokenMap:
    """The image tokens of one sample of a run whose samples table holds footprints (text positions are not stored)."""
    from interp.inputs.tokens import TokenMap

    row = cell.frame("samples").set_index("index").loc[index]
    footprints = np.asarray(row["footprints"], float).reshape(-1, 4)
    n = len(footprints)
    sample, first = cell.study.data[index], np.asarray(row["image_index"], int)
    time: dict[str, Any] = {}
    if sample.video is not None:
        time = {"frames": _frames(first, len(sample.video)), "frame_times": np.array(sample.video.times)}
    return TokenMap(
        np.arange(n), footprints, None, np.full(n, "stored"), first, tuple(sample.sizes), n, **time
    )


def _frames(first: np.ndarray, n_frames: int) -> np.ndarray:
    """The frames of a video's tokens from the first of each: groups of frames follow each other without a gap."""
    starts = np.append(np.unique(first), n_frames)
    return np.stack([first, starts[np.searchsorted(starts, first, side="right")]], axis=1)
