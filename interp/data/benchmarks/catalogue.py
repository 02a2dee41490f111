"""Benchmarks by name, for scripts and the command line: `vqa_rad:FOLDER`, `mmmu,subjects=Pharmacy:hub`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from interp.data.benchmarks import mmmu, path_vqa, vqa_rad
from interp.data.benchmarks.benchmark_rows import HUB
from interp.data.benchmarks.huatuo import huatuo
from interp.data.benchmarks.omnimedvqa import omnimedvqa
from interp.data.benchmarks.pmc_vqa import pmc_vqa
from interp.data.readers.slake import slake
from interp.data.samples import Samples
from interp.errors import DataError
from interp.inputs.text import meant

__all__ = ["BENCHMARKS", "BenchmarkSource", "benchmark_source"]

EVERY = "all"
OPTIONS = ("access", "closed", "language", "questions", "regions", "revision", "version")
LISTS = ("datasets", "modalities", "subjects")
"""Options that may hold several values, with + between them."""
WORDS = {"questions": "{value} questions", "closed": "closed by {value}", "access": "{value} access"}
"""Option → its words in a label."""


@dataclass(frozen=True)
class Entry:
    """A benchmark.

    Attributes:
        read: The reader.
        splits: The splits for evaluation, for which "all" stands. MMMU's "dev" is left out: it holds examples for
            prompts.
        hub: Whether `datasets` can read the benchmark from the hub.
    """

    read: Callable[..., Samples]
    splits: tuple[str, ...]
    hub: bool = False


BENCHMARKS: Mapping[str, Entry] = MappingProxyType(
    {
        "vqa_rad": Entry(vqa_rad.vqa_rad, vqa_rad.SPLITS, hub=True),
        "slake": Entry(slake, ("train", "validation", "test")),
        "path_vqa": Entry(path_vqa.path_vqa, path_vqa.SPLITS, hub=True),
        "pmc_vqa": Entry(pmc_vqa, ("train", "test")),
        "omnimedvqa": Entry(omnimedvqa, ("test",)),
        "mmmu": Entry(mmmu.mmmu, ("validation", "test"), hub=True),
        "huatuo": Entry(huatuo, ("test",)),
    }
)
"""Benchmarks by the name of their reader."""


@dataclass(frozen=True)
class BenchmarkSource:
    """A benchmark as a name such as `vqa_rad,questions=open:FOLDER` gives it.

    Attributes:
        benchmark: The name of the reader, a key of `BENCHMARKS`.
        options: The options of the reader.
        place: The folder, or "hub".
        label: The name in figures and tables: the benchmark and the given options, in words.
    """

    benchmark: str
    options: Mapping[str, Any]
    place: str
    label: str

    def samples(self, split: str) -> Samples:
        """Returns the samples of a split, or of every split for "all"; none where the benchmark has no such split.

        Bad rows become stand-ins, which a study records as failures.

        Raises:
            DataError: The reader refuses the folder, an option or the split.
        """
        entry = BENCHMARKS[self.benchmark]
        known = ("test",) if self.options.get("version") == "clean" else entry.splits
        wanted = known if split == EVERY else tuple(one for one in known if one == split)
        read = [
            _of_split(
                entry.read(self.place, split=one, name=self.label, bad_rows="record", **self.options),
                {*entry.splits} - {one} if len(wanted) > 1 else set(),
            )
            for one in wanted
        ]
        return sum(read[1:], read[0]) if read else Samples((), self.label)


def _of_split(samples: Samples, others: Collection[str]) -> Samples:
    """The samples, whose counts of what was left out no longer include the other splits, which are read too.

    Args:
        samples: The samples of one split of a file that holds several.
        others: The other splits.
    """
    kept = {why: n for why, n in samples.skipped.items() if why.rpartition(" of ")[2] not in others}
    return Samples((), samples.name, kept).like(samples)


def benchmark_source(name: Any) -> BenchmarkSource | None:
    """Returns the benchmark that a name stands for; None for any other name, such as a path.

    A name is `BENCHMARK:FOLDER`, or `BENCHMARK,OPTION=VALUE,…:FOLDER` with options of the reader: `questions=open`,
    `closed=answer_type`, `version=2`, or lists such as `subjects=Pharmacy+Public_Health`. In the place of the folder
    `hub` reads the cache of `datasets`. Without `questions=`, closed and multiple-choice questions are read.

    Raises:
        DataError: An option that the reader does not have, or a name without a folder.

    >>> benchmark_source("slake,questions=open:Slake1.0").options
    {'questions': 'open'}
    >>> benchmark_source("vqa_rad,closed=answer_type:folder").label
    'vqa_rad, closed by answer type'
    >>> benchmark_source("rows.csv") is None
    True
    """
    head, colon, place = name.partition(":") if isinstance(name, str) else ("", "", "")
    benchmark, *pairs = head.split(",")
    if not colon or benchmark not in BENCHMARKS:
        return None
    entry = BENCHMARKS[benchmark]
    if not place.strip() or (place == HUB and not entry.hub):
        why = (
            "needs a folder" if place != HUB else "has its images in an archive on the hub, which you unpack"
        )
        raise DataError(f"{benchmark} {why}: write {benchmark}:FOLDER. docs/benchmarks.md lists its files.")
    known = [one for one in (*OPTIONS, *LISTS) if one in inspect.signature(entry.read).parameters]
    options: dict[str, Any] = {"questions": "closed", **({"version": "clean"} if "version" in known else {})}
    for pair in pairs:
        found = re.fullmatch(r"(\w+)=(.+)", pair)
        if found is None or found[1] not in known:
            raise DataError(
                f"{name!r}: {pair!r} is no option of {benchmark}. Write {benchmark},OPTION=VALUE:FOLDER with one of "
                f"{', '.join(known)}.{meant(pair.partition('=')[0], known)}"
            )
        options[found[1]] = found[2].split("+") if found[1] in LISTS else found[2]
    given = {pair.partition("=")[0]: pair.partition("=")[2] for pair in pairs}
    return BenchmarkSource(benchmark, options, place, _label(benchmark, given))


def _label(benchmark: str, given: Mapping[str, str]) -> str:
    """“vqa_rad, open questions”: a name for a column of a table."""
    said = [
        WORDS.get(option, "{option} {value}").format(
            option=option, value=value.replace("_", " ").replace("+", " + ")
        )
        for option, value in given.items()
    ]
    return ", ".join([benchmark, *said])
