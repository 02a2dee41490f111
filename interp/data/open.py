"""Opens data by name or path: bundled data, benchmarks, a file or a folder that a reader knows by its layout."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from interp.data.benchmarks.catalogue import BENCHMARKS, benchmark_source
from interp.data.lines import as_path
from interp.data.reader_choice import read
from interp.data.readers.bundled import SPLITS, bundled, check_draw
from interp.data.samples import Samples
from interp.errors import DataError
from interp.inputs.files import unreadable
from interp.inputs.sample import Sample
from interp.inputs.text import brief, meant, storable

__all__ = ["BUNDLED", "OTHER", "label", "named", "sets"]

BUNDLED = ("natural", "medical")
ALL = "all"
"""What stands for every split."""
SHARE = 1 / 3
MOST_NAMES = 10_000
"""Of the files beside one that is not there, so many are compared with its name."""
OTHER = "rows of the split "
"""Begins the reason in `Samples.skipped` for rows that are of another split."""


def named(name: str, *, split: str = "test", n: int | None = None, seed: int = 0) -> Samples:
    """Returns the samples of one split of the data that `name` names.

    `"natural"` and `"medical"` are bundled and have their own splits. `vqa_rad:FOLDER` and the like open a benchmark
    (`interp.data.benchmarks.catalogue.benchmark_source`), which has its own too. Any other `name` is a path: a file or
    folder whose layout says which reader it needs (`interp.data.reader_choice.guess`), such as a .jsonl or .csv file,
    or a folder of `VGMED_*.jsonl` with their images. If a folder holds several kinds of questions or splits, all are
    read. Rows of a file belong to the split in `meta["split"]`. If that names none of the three splits, a hash of the
    group's name (of the image's content, where there is no group) decides: a third of the groups are "validation" and
    the others "test", so that no group is used both to choose and to report. Every sample returned has its split in
    `meta["split"]`, and `samples.skipped` counts the rows of the other splits.

    Args:
        name: A bundled name, a benchmark and its folder, or a path.
        split: "train", "validation" or "test"; "all" for every split, each sample with its own.
        n: The largest number of rows, drawn with `seed` and kept in order; None for all (200 natural scenes).
        seed: The seed of the draw and of the natural scenes.

    Raises:
        DataError: The name or the split is unknown, or a file cannot be read. An empty split is no error.

    >>> import interp.data
    >>> len(interp.data.named("medical", split="validation", n=20))
    20
    """
    if not isinstance(split, str) or split not in (*SPLITS, ALL):
        raise DataError(
            f"no split {split!r}; choose one of {', '.join(SPLITS)}, or {ALL!r}.{meant(split, (*SPLITS, ALL))}"
        )
    check_draw(n, seed)
    if isinstance(name, str) and name == "natural" and split != ALL:
        return bundled(name, split=split, n=n, seed=seed)
    rows = _rows(name, split, seed)
    if n is None or n >= len(rows):
        return rows
    drawn = np.sort(np.random.default_rng(seed).choice(len(rows), n, replace=False)).tolist()
    return rows.like(rows[i] for i in drawn)


def _rows(name: str, split: str, seed: int) -> Samples:
    """All samples of a split of what `name` names."""
    if isinstance(name, str) and name in BUNDLED:
        return _bundled(name, split, seed)
    source = benchmark_source(name)
    return _of_split(_read(as_path(name, "data")), split) if source is None else source.samples(split)


def _bundled(name: str, split: str, seed: int) -> Samples:
    """The bundled samples of a split, or of all of them."""
    first, *others = (bundled(name, split=one, seed=seed) for one in (SPLITS if split == ALL else (split,)))
    return sum(others, first)


def sets(
    names: Sequence[str],
    *,
    split: str = "test",
    n: int | None = None,
    seed: int = 0,
    needed: bool = False,
) -> dict[str, Samples]:
    """Returns a dict of label → `named(…)` for each name; sets without samples of the split are left out.

    Args:
        names: Bundled names, benchmarks and their folders, or paths.
        split: As for `named`.
        n: As for `named`, of each set.
        seed: As for `named`.
        needed: Whether it is an error that none of the sets has samples of the split.

    Raises:
        DataError: As for `named`; or there are no names, or two names have the same label, or nothing is left.
    """
    labels = [label(name) for name in names]
    if not names or len(set(labels)) < len(labels):
        raise DataError(f"expected one or more data sets with different labels, got {labels}. Rename a file.")
    read = {label(name): named(name, split=split, n=n, seed=seed) for name in names}
    found = {name: samples for name, samples in read.items() if len(samples)}
    if needed and not found:
        raise DataError(
            f'none of {", ".join(names)} has {split} samples. Rows belong to the split that their "split" names; '
            f"without one, a third of the groups are validation and the others test."
        )
    return found


def label(name: str) -> str:
    """Returns the label of the data in figures: the name of the file or folder without its path, or the benchmark."""
    if name in BUNDLED:
        return name
    source = benchmark_source(name)
    return storable(Path(os.path.realpath(name)).stem if source is None else source.label)


def _read(path: Path) -> Samples:
    problem = unreadable(path)
    if problem is not None and not os.path.isdir(path):
        raise DataError(
            f"no data {brief(str(path))}: it {problem} Expected 'natural', 'medical', a file such as rows.jsonl or "
            "rows.csv, a folder of a data set that docs/data.md lists, or a benchmark such as vqa_rad:FOLDER."
            f"{_meant(path)}"
        )
    return read(path)


def _meant(path: Path) -> str:
    """The bundled name, the benchmark, or the file of the same folder, that a path which is not there is like."""
    name, colon, rest = str(path).partition(":")
    if colon:
        close = meant(name.split(",")[0], BENCHMARKS)
        return close.replace("'?", f":{rest}'?")
    with suppress(OSError, ValueError):
        there = {one.name: str(one) for one in sorted(path.parent.iterdir())[:MOST_NAMES]}
        if close := meant(path.name, there):
            return close
    return meant(name, BUNDLED)


def _of_split(rows: Samples, split: str) -> Samples:
    drawn = all(row.meta.get("split") in SPLITS for row in rows)
    groups = [""] * len(rows) if drawn else rows.groups
    splits = [_split(row, group) for row, group in zip(rows, groups, strict=True)]
    own = [
        row.replace(meta={**row.meta, "split": of})
        for row, of in zip(rows, splits, strict=True)
        if split in (of, ALL)
    ]
    others = Counter(f"{OTHER}{of}" for of in splits if split not in (of, ALL))
    return Samples((), rows.name, {**rows.skipped, **others}).like(own)


def _split(sample: Sample, group: str) -> str:
    """The sample's own split, or one drawn by a hash of its group."""
    given = sample.meta.get("split")
    if given in SPLITS:
        return str(given)
    drawn = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    return "validation" if drawn < SHARE else "test"
