"""The rows of a paper's table: models as they are, and one of them under methods, over the same benchmarks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.data import Samples
from interp.data.open import sets
from interp.errors import StudyError
from interp.methods import Method, Plain, VGRefine
from interp.models.refusals import ANSWERS_ONLY
from interp.run import Workers
from interp.study.benchmark.paper_tables import paper_table
from interp.study.benchmark.result import BenchmarkResult
from interp.study.benchmark.study import Benchmark
from interp.study.benchmark.tables import rows_text
from interp.study.conventions import choice_samples
from interp.study.grid import Grid
from interp.study.model_spec import ModelSpec, is_organism
from interp.study.refinement.method_choice import Grounding, grounding

__all__ = ["ModelRow", "baselines", "question_sets", "refined_row", "run_rows", "show"]


@dataclass(frozen=True)
class ModelRow:
    """A model, and the methods under which it answers: {"Plain": Plain()} for a baseline.

    Attributes:
        model: The model.
        methods: Name in the table → method.
    """

    model: ModelSpec
    methods: Mapping[str, Method]


def question_sets(
    data: Sequence[str], split: Sequence[str], *, n: int | None = None, seed: int = 0
) -> dict[str, Samples]:
    """Label → the questions of each name, each from its own split, as the paper's table 1 needs it.

    Args:
        data: Names as `interp.data.open.named` takes them.
        split: One split for all of them, or one for each.
        n: The maximum number of questions of each, drawn with the seed.
        seed: The seed of the draw.

    Raises:
        StudyError: The number of splits is neither one nor that of the names, or two names have the same label.
        DataError: A name cannot be read (see `interp.data.open.sets`), or one of them has no questions.
    """
    splits = list(split) * len(data) if len(split) == 1 else list(split)
    if len(splits) != len(data):
        raise StudyError(
            f"give one split for all data, or one for each name; got {len(splits)} splits for {len(data)} names."
        )
    found: dict[str, Samples] = {}
    for name, own in zip(data, splits, strict=True):
        read = sets([name], split=own, n=n, seed=seed, needed=True)
        if set(read) & set(found):
            raise StudyError(f"two data sets are called {', '.join(read)}; rename a file, or leave one out.")
        found |= read
    return found


def baselines(models: Sequence[str], answers_only: Sequence[str] = (), **options: Any) -> list[ModelRow]:
    """A row for each model as it is.

    Args:
        models: Ids or folders of models of a known family.
        answers_only: Ids or folders of models that are opened only to answer, without maps.
        **options: Further fields of `ModelSpec`, such as device and dtype.
    """
    plain = {"Plain": Plain()}
    found = [ModelRow(ModelSpec(one, **options), plain) for one in models]
    return [
        *found,
        *(ModelRow(ModelSpec(one, adapter=ANSWERS_ONLY, **options), plain) for one in answers_only),
    ]


def refined_row(
    model: ModelSpec,
    choose_on: str | Sequence[str] = "natural",
    *,
    out: str | os.PathLike[str],
    n: int = 80,
    k: int | None = None,
    layers: Sequence[int] = (),
    seed: int = 0,
    workers: int | Workers = 1,
    batch: int = 8,
    **ways: Any,
) -> tuple[ModelRow, Grounding]:
    """A row for a model as it is and under VGRefine in both variants, and how heads and layer were chosen.

    Benchmarks of answers have no boxes to rank heads on. So heads are the published ones where the checkpoint has some,
    and are otherwise ranked on the validation split of `choose_on`; the paper uses COCO.

    Args:
        model: The model.
        choose_on: Data with boxes: a bundled name, a file or a folder, or several of them.
        out: The folder that holds runs.
        n: The maximum number of samples to choose on.
        k: The number of heads; by default 20, as published, or an eighth of a small model's heads.
        layers: The masked layers; by default the chosen one.
        seed: The seed that draws the samples to choose on.
        workers: The number of processes, or an `interp.run.Workers`.
        batch: Samples per forward pass.
        **ways: Options of `grounding` that say how heads and layer are chosen: layer_by, metric, rank and so on.

    Raises:
        StudyError, DataError: `grounding` or `interp.data.open.sets` refuses an argument.
    """
    names = (choose_on,) if isinstance(choose_on, str) else tuple(choose_on)
    held_out = choice_samples(names, n=n, seed=seed)
    found = grounding(model, held_out, out=out, k=k, seed=seed, workers=workers, batch=batch, **ways)
    masked = tuple(layers) or (found.layer,)
    methods: dict[str, Method] = {"Plain": Plain()}
    methods |= {f"VGRefine, {one}": VGRefine(found.heads, masked, variant=one) for one in ("code", "paper")}
    return ModelRow(model, methods), found


def run_rows(
    rows: Sequence[ModelRow],
    data: Mapping[str, Samples],
    *,
    out: str | os.PathLike[str] = "runs",
    workers: int | Workers = 1,
    **fields: Any,
) -> BenchmarkResult:
    """One result of all rows over the same data; each model is opened once, and its rows share its plain answers.

    Args:
        rows: The models with their methods.
        data: Label → the questions.
        out: The folder that holds runs.
        workers: The number of processes, or an `interp.run.Workers`.
        **fields: Further fields of the `Benchmark`, such as max_new_tokens, scorer, seed and batch.

    Raises:
        StudyError: There is no row or no data, or a model appears twice.
    """
    if not rows or not data:
        missing = (
            "row; got none. Give a ModelRow."
            if not rows
            else "data set; got none. Give data={label: samples}."
        )
        raise StudyError(f"a table has at least one {missing}")
    study = Benchmark(data=next(iter(data.values())), **fields)
    grids = [Grid(study, model=[row.model], data=data, method=dict(row.methods)) for row in rows]
    return BenchmarkResult.join([grid.run(out, workers=workers) for grid in grids])


def show(
    result: BenchmarkResult, page: Path, *, beside: Sequence[str] = (), by: Sequence[str] = (), note: str = ""
) -> None:
    """Print a result's tables, the paper's tables with notes on them, and failures; then write the page.

    Args:
        result: The result.
        page: The file of the page.
        beside: The paper's tables to print and to show on the page, as names for `interp.study.paper_table`.
        by: Fields of `meta` for which a table is printed, where samples have them.
        note: A sentence to print before the paper's tables.
    """
    print(result.table(), end="\n\n")
    if any(is_organism(cell.study.model) for cell in result.cells):
        print(
            "These are numbers of a bundled organism: they say nothing about the paper's models.", end="\n\n"
        )
    for measure in result.measures[1:]:
        print(rows_text(result.rows(measure=measure), f"{result.measure_names[measure]}, %"), end="\n\n")
    for key in (key for key in by if key in result.strata()):
        print(rows_text(result.rows(key), f"{result.measure_names[result.main]}, %, by {key}"), end="\n\n")
    if note:
        print(note, end="\n\n")
    for name in beside:
        print(paper_table(name).text(), end="\n\n")
    if len(result.failures):
        counts = result.failures.groupby(["model", "data", "method", "error", "reason"]).size()
        print(f"Failures:\n{counts.to_string()}", end="\n\n")
    print(f"Report: {result.report(page, beside=beside)}")
