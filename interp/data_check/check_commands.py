"""`interp data check`: counts, problems and pictures of the samples at a path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from interp.data.benchmarks.catalogue import benchmark_source
from interp.data.lines import shown
from interp.data.open import BUNDLED, guess, read
from interp.data.readers.bundled import SPLITS, bundled, check_draw
from interp.data.samples import Samples
from interp.data_check.problems import Findings, inspect
from interp.errors import DataError
from interp.inputs.text import count
from interp.terminal import in_options, naming_options

__all__ = ["COMMANDS", "check"]

BoxFormat = Literal["xyxy", "xywh", "cxcywh", "fraction"]
LISTED = 3
"""The most problems of one kind that are printed."""


def check(
    path: Annotated[str, tyro.conf.Positional],
    *,
    reader: str | None = None,
    images: Path | None = None,
    labels: Path | None = None,
    box_format: BoxFormat | None = None,
    columns: tuple[str, ...] = (),
    out: Path = Path("data_check.html"),
    n: int | None = 5000,
    seed: int = 0,
) -> int:
    """Count what a data set holds, look for problems, and show twelve samples with their boxes on a page.

    The exit code is 0 if nothing must be mended, 1 if images are missing, boxes do not fit, or splits share images.

    Args:
        path: a file or folder of data, the name of bundled data, or a benchmark such as vqa_rad:FOLDER.
        reader: name of the reader, such as coco_instances; by default guessed from the layout.
        images: folder of the images, where the layout does not say it.
        labels: label map of a volume (NIfTI or DICOM).
        box_format: how the boxes are written: corners (xyxy), a corner and the size (xywh), the centre and the size
            (cxcywh), or corners as fractions of the image; by default as the reader expects them.
        columns: which columns hold what, as FIELD=COLUMN, such as image=scan boxes=roi.
        out: HTML page to write.
        n: largest number of samples to look at, drawn with the seed; None for all.
        seed: seed of the draws.
    """
    from interp.data_check import page  # with figures, which take seconds to import

    check_draw(n, seed)
    options = {"images": images, "labels": labels, "box_format": box_format, "columns": _columns(columns)}
    with naming_options():
        samples, name = _samples(path, reader, options)
    if not len(samples):
        raise DataError(
            f"{shown(path)} gave no samples. What was left out: {dict(samples.skipped) or 'nothing'}. Is it the folder "
            f"that the reader {name} expects? --reader names another."
        )
    looked_at = _drawn(samples, n, seed)
    found = inspect(looked_at)
    findings = replace(
        found, problems=tuple(replace(one, text=in_options(one.text)) for one in found.problems)
    )
    _print(samples, looked_at, findings, name)
    written = page.write(out, looked_at, findings, source=shown(path), reader=name, seed=seed)
    print(f"page: {written}")
    return 1 if findings.n_errors else 0


def _columns(pairs: Sequence[str]) -> dict[str, str] | None:
    """Field → column, from texts FIELD=COLUMN; None for no text."""
    split = [pair.partition("=") for pair in pairs]
    for pair, (field, _, column) in zip(pairs, split, strict=True):
        if not field or not column:
            raise DataError(f"--columns takes FIELD=COLUMN, such as image=scan boxes=roi; got {pair!r}.")
    return {field: column for field, _, column in split} or None


def _samples(path: str, reader: str | None, options: Mapping[str, Any]) -> tuple[Samples, str]:
    """The samples, and the reader's name. A bad row is a stand-in; bundled data and benchmarks have all splits."""
    known = path in BUNDLED or benchmark_source(path) is not None
    if reader is None and known and (given := [one for one in options if options[one] is not None]):
        raise DataError(f"{path} has a layout that is known. Leave --{given[0].replace('_', '-')} out.")
    if path in BUNDLED and reader is None:
        first, *others = (bundled(path, split) for split in SPLITS)
        return sum(others, first), "bundled"
    if reader is None and (source := benchmark_source(path)) is not None:
        return source.samples("all"), source.benchmark
    place = Path(path)
    name = guess(place) if reader is None else reader
    return read(place, name, bad_rows="record", **options), name


def _drawn(samples: Samples, n: int | None, seed: int) -> Samples:
    if n is None or n >= len(samples):
        return samples
    chosen = np.sort(np.random.default_rng(seed).choice(len(samples), n, replace=False))
    return samples.like(samples[int(i)] for i in chosen)


def _print(samples: Samples, looked_at: Samples, findings: Findings, reader: str) -> None:
    print(f"{samples.name}: {count(len(samples), 'sample')}, read by {reader}")
    if len(looked_at) < len(samples):
        print(f"looked at {len(looked_at)} of them; pass --n None for all")
    width = max(map(len, findings.counts))
    for name, text in findings.counts.items():
        print(f"  {name:<{width}}  {text}")
    for kind, found in findings.by_kind().items():
        print(f"{'PROBLEM' if found[0].is_error else 'note'}: {kind} ({len(found)})")
        for one in found[:LISTED]:
            print(f"  {one.where}: {' '.join(one.text.split())}")
        if len(found) > LISTED:
            print(f"  and {len(found) - LISTED} more, on the page")
    print(
        f"{count(findings.n_errors, 'problem')} to mend, {len(findings.problems) - findings.n_errors} to know of"
    )


COMMANDS: dict[str, Callable[..., int]] = {"check": check}
"""Commands of `interp data` by name."""
