"""PathVQA: questions on figures of pathology textbooks and a digital library."""

from __future__ import annotations

import os

from interp.data.benchmarks.benchmark_rows import Published, folder_of, question_row
from interp.data.lines import collect, shown
from interp.data.questions import Wanted, chosen_splits
from interp.data.samples import Samples
from interp.errors import DataError

__all__ = ["REPOSITORY", "SPLITS", "path_vqa"]

SPLITS = ("train", "validation", "test")
REPOSITORY = "flaviagiammarino/path-vqa"


def path_vqa(
    folder: str | os.PathLike[str] | None = None,
    *,
    split: str = "test",
    questions: str = "closed",
    hub: bool = False,
    download: bool = False,
    revision: str | None = None,
    name: str | None = None,
    bad_rows: str = "raise",
) -> Samples:
    """Returns the questions of PathVQA from the parquet files of `flaviagiammarino/path-vqa`.

    A row is `image`, `question` and `answer`. Closed questions are those answered yes or no: 3,362 of the 6,719 test
    questions. `meta` has `benchmark`, `split` and `kind`. The group is the image, by content: all questions about one
    figure. `skipped` counts what was left out by kind and split. Needs the extra `data`.

    Args:
        folder: The folder of the hub's data set, with `data/test-00000-of-00003.parquet` and so on; "hub" is
            `hub=True`. The authors' own layout holds pickles, which can run code when they are read: it is refused.
        split: The split, "train", "validation" or "test"; "all" for every one.
        questions: The kind of questions, "closed", "open" or "all".
        hub: Whether to read the hub's data set from the cache of `datasets`.
        download: Whether `datasets` may download it.
        revision: A commit or tag of the hub's data set; only with `download`.
        name: The name of the samples.
        bad_rows: "raise" raises an error at the first bad row; "record" keeps a stand-in for each, which a study
            records as a failure.

    Raises:
        DataError: A folder in another layout, an unknown split, or an invalid row; the message names the file and the
            row.

    Source: He et al., 2020 (arXiv 2003.10286), MIT. The columns are those of the hub's card.
    """
    splits = chosen_splits(split, SPLITS, "PathVQA")
    wanted = Wanted(questions, splits)
    place = folder_of(folder, "PathVQA", REPOSITORY, hub, download)
    if place is not None and not any(place.rglob("*.parquet")):
        pickles = sorted([*place.glob("*.pkl"), *place.glob("qas/**/*.pkl"), *place.glob("*/qas/**/*.pkl")])
        if pickles:
            raise DataError(
                f"{shown(pickles[0])} is a pickle, which can run code when it is read. Give the folder of the parquet "
                f"files of {REPOSITORY}, which hold the same questions, doubles removed."
            )
    rows = Published("PathVQA", REPOSITORY, place, download, revision).rows(splits)
    samples = collect(rows, lambda row: question_row(row, "PathVQA", wanted), bad_rows)
    return Samples(samples, f"PathVQA {split}" if name is None else name, wanted.left_out)
