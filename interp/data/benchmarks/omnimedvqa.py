"""OmniMedVQA: multiple-choice questions made from the labels of 73 medical data sets, 42 of them open."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from interp.data.benchmarks.benchmark_rows import (
    SplitRow,
    answer_among,
    check_columns,
    check_multiple_choice,
    existing_folder,
)
from interp.data.lines import collect, json_rows, read_json, shown
from interp.data.questions import Wanted, checked_names, chosen_splits
from interp.data.row_fields import as_path_in, text_of
from interp.data.samples import Samples
from interp.data.table_rows import is_missing, plain
from interp.errors import DataError
from interp.inputs.argument_checks import check_one_of
from interp.inputs.sample import Sample

__all__ = ["MODALITIES", "omnimedvqa"]

ACCESS = {
    "open": ("Open-access",),
    "restricted": ("Restricted-access",),
    "all": ("Open-access", "Restricted-access"),
}
MODALITIES: Mapping[str, str] = MappingProxyType(
    {
        "ct": "CT",
        "mr": "MRI",
        "oct": "OCT",
        "x-ray": "X-ray",
        "x ray": "X-ray",
        "fundus": "fundus photography",
        "dermoscopy": "dermoscopy",
        "microscopy": "microscopy",
        "ultrasound": "ultrasound",
    }
)
"""The beginning of the field `modality_type`, in lower case → `meta["modality"]`; others keep their own words."""
OPTIONS = tuple(f"option_{letter}" for letter in "ABCD")
READ = ("image_path", "question", "gt_answer", *OPTIONS)


def omnimedvqa(
    folder: str | os.PathLike[str],
    *,
    split: str = "test",
    questions: str = "closed",
    access: str = "open",
    modalities: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    name: str | None = None,
    bad_rows: str = "raise",
) -> Samples:
    """Returns the questions of OmniMedVQA: `QA_information/Open-access/*.json` beside the folder `Images`.

    A row has `dataset`, `question_id`, `question_type`, `question`, `gt_answer` (the text of an option), `image_path`
    (`Images/ACRIMA/….png`), `option_A` to `option_D`, of which two to four are there, and `modality_type` (in one file
    `modality`). Every question is of the kind "choice". `meta` has `benchmark`, `split`, `kind`, `modality` (`CT`,
    `MRI`, `OCT`, `X-ray`, `fundus photography`, `dermoscopy`, `microscopy`, `ultrasound`), and the row's other fields.
    The group is the image. There is one split, the test. A mean over all samples weighs modalities by their numbers of
    questions, as the reference paper does over 88,995. On the hub it is one archive of 11 GB: unpack it first.

    Args:
        folder: The folder `OmniMedVQA`, which holds `QA_information` and `Images`.
        split: "test" or "all", which are the same.
        questions: "closed" or "all", which are the same here.
        access: The part to read: "open" for `Open-access`, "restricted" for `Restricted-access`, whose images come from
            their owners, or "all" for both.
        modalities: The values of `meta["modality"]` to keep; None for all. Others are left out and counted.
        datasets: The values of `dataset` to keep, such as ["ACRIMA"]; None for all. Others are left out and counted.
        name: The name of the samples.
        bad_rows: "raise" raises an error at the first bad row; "record" keeps a stand-in for each, which a study
            records as a failure. Rows that give an option twice are bad.

    Raises:
        DataError: A folder in another layout, an unknown split, a data set or modality without a row, or an invalid
            row; the message names the file and the item.

    Source: Hu et al., 2024 (arXiv 2402.09181) and the data's card. The field names are from public loaders; the words
    that `modality_type` begins with are from memory.
    """
    check_multiple_choice(questions, "OmniMedVQA")
    check_one_of("access", access, ACCESS, DataError)
    splits = chosen_splits(split, ("test",), "OmniMedVQA")
    root = existing_folder(folder, "OmniMedVQA")
    files = [
        path for one in ACCESS[access] for path in sorted((root / "QA_information" / one).glob("*.json"))
    ]
    if not files:
        raise DataError(
            f"{shown(root)} has no QA_information/{ACCESS[access][0]}/*.json. Give the folder OmniMedVQA that the "
            "archive unpacks to."
        )
    wanted = Wanted(questions, splits)
    kept = None if modalities is None else checked_names("modalities", modalities, "CT")
    some = None if datasets is None else checked_names("datasets", datasets, "ACRIMA")
    reading = _Reading(root, kept, some, wanted, set(), set())
    samples = collect(_rows(files), reading.samples, bad_rows)
    reading.check_met()
    return Samples(samples, "OmniMedVQA" if name is None else name, wanted.left_out)


def _rows(files: Sequence[Path]) -> Iterator[SplitRow]:
    for path in files:
        for row in json_rows(path, read_json(path, list)):
            yield SplitRow(row.path, row.number, row.values, row.unit, "test", row.number)


@dataclass(frozen=True)
class _Reading:
    root: Path
    modalities: tuple[str, ...] | None
    datasets: tuple[str, ...] | None
    wanted: Wanted
    met_modalities: set[str]
    met_datasets: set[str]

    def samples(self, row: SplitRow) -> list[Sample]:
        """The sample of a row, if its modality and data set are wanted."""
        check_columns(row, ("dataset", *READ[:3], *OPTIONS[:2]), "OmniMedVQA")
        dataset, modality = text_of(row, "dataset"), _modality(row)
        self.met_modalities.add(modality)
        self.met_datasets.add(dataset)
        for kept, one in ((self.modalities, modality), (self.datasets, dataset)):
            if kept is not None and one not in kept:
                self.wanted.left_out[f"questions of {one}"] += 1
                return []
        options = [text_of(row, name).strip() for name in OPTIONS if not is_missing(row.values.get(name))]
        answer = answer_among(row, "gt_answer", row.values.get("gt_answer"), options)
        image = text_of(row, "image_path")
        about = {"benchmark": "OmniMedVQA", "split": "test", "kind": "choice", "modality": modality}
        return [
            Sample(
                as_path_in(self.root, row, "image_path", image),
                text_of(row, "question"),
                answer=answer,
                options=options,
                group=image,
                meta={**{key: plain(one) for key, one in row.values.items() if key not in READ}, **about},
                id=str(row.values.get("question_id") or f"{dataset}:{row.number}"),
            )
        ]

    def check_met(self) -> None:
        """Raises `DataError` for a requested modality or data set that has no row."""
        for what, asked, met in (
            ("modalities", self.modalities, self.met_modalities),
            ("datasets", self.datasets, self.met_datasets),
        ):
            if unknown := sorted(set(asked or ()) - met):
                raise DataError(
                    f"OmniMedVQA has no {what} {', '.join(unknown)}; there are {', '.join(sorted(met))}."
                )


def _modality(row: SplitRow) -> str:
    """The modality in the words of `MODALITIES`."""
    name = "modality_type" if "modality_type" in row.values else "modality"
    words = text_of(row, name).strip()
    start = words.lower().replace("_", " ")
    return next((short for sign, short in MODALITIES.items() if start.startswith(sign)), words)
