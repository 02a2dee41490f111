"""Ratings of samples: the page on which clinicians rate on the paper's three scales, their answers, their agreement."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.data.samples import Samples
from interp.errors import DataError
from interp.inputs.argument_checks import check_text, check_whole
from interp.inputs.files import digest
from interp.inputs.sample import Sample
from interp.report.answer_form import (
    Form,
    FormAnswers,
    FormItem,
    FormPicture,
    FormScale,
    ScaleOption,
    View,
    read_answers,
    write_form,
)
from interp.report.gallery import data_uri, frame_name, picture
from interp.stats import krippendorff_alpha, weighted_kappa

__all__ = [
    "FORMAT",
    "LOWEST",
    "PAPER_SHARES",
    "SCALES",
    "SCORES",
    "Ratings",
    "as_rated",
    "form_id",
    "item_keys",
    "kind_of",
    "rating_page",
    "read_ratings",
]


SCORES = (1, 2, 3, 4, 5)
LOWEST = 3
"""A sample with a score below this is dropped, by the paper's rule."""


PAPER_SHARES: Mapping[tuple[str, str], tuple[float, float, float]] = {
    ("attribute", "relevance"): (3.31, 4.11, 92.58),
    ("attribute", "semantics"): (0.37, 10.38, 89.25),
    ("attribute", "grounding"): (4.04, 12.18, 83.77),
    ("localization", "relevance"): (0.02, 0.52, 99.46),
    ("localization", "semantics"): (0.05, 5.76, 94.19),
    ("localization", "grounding"): (3.96, 11.79, 84.25),
}
"""(kind of question, scale) → per cent of the scores 3, 4 and 5 among VGMED's kept samples: the paper's table N.6."""
FORMAT = "interp ratings"
SIDE = 560
SHOWN = ("modality", "label")
"""The entries of a sample's meta that the page shows."""
INTRO = (
    "Look at the image and its box, read the question, and correct the question where it needs it. Then rate the "
    "sample, with the question as you leave it, on each of the three scales.",
    f"A sample with any score below {LOWEST} is dropped from the data.",
)


def _scale(name: str, label: str, words: str, anchors: Mapping[int, str]) -> FormScale:
    options = (ScaleOption(score, anchors.get(score, str(score)), str(score)) for score in SCORES)
    return FormScale(name, label, tuple(options), words)


SCALES = (
    _scale(
        "relevance",
        "Clinical relevance",
        "Does the question make sense for this image, and does answering it support clinical reasoning?",
        {1: "nonsensical", 5: "well phrased, and directly supports reasoning"},
    ),
    _scale(
        "grounding",
        "Visual grounding",
        "Is what the question asks about inside the box, and is the box as large as it needs to be?",
        {1: "other anatomy, or the question ignores the box", 5: "exactly the box"},
    ),
    _scale(
        "semantics",
        "Minimum semantic grounding",
        "How little medical knowledge does the answer need beyond seeing?",
        {
            1: "staging, prognosis or treatment",
            2: "a named disease",
            3: "a broad class of disease",
            4: "descriptors",
            5: "basic recognition",
        },
    ),
)
"""Higher is better on each. The anchors are the paper's (its appendix N); steps without one lie between."""


@dataclass(frozen=True)
class Ratings:
    """The ratings of samples by one or more raters, as `read_ratings` returns them.

    Attributes:
        samples: The rated samples.
        answers: The answers of each rater.
    """

    samples: Samples
    answers: tuple[FormAnswers, ...]

    def __post_init__(self) -> None:
        listed = isinstance(self.answers, tuple) and all(isinstance(one, FormAnswers) for one in self.answers)
        if not isinstance(self.samples, Samples) or not listed or not self.answers:
            raise DataError(
                f"ratings are of Samples, by at least one rater; got {type(self.samples).__name__} and "
                f"{type(self.answers).__name__}. Read them: read_ratings(paths, samples)."
            )

    @property
    def raters(self) -> tuple[str, ...]:
        """The raters' names, in the order of their files."""
        return tuple(one.by for one in self.answers)

    def scores(self, index: int) -> dict[str, dict[str, int]]:
        """Rater → scale → score of the sample at an index; raters without any score are left out."""
        found = {one.by: one.values.get(str(index), {}) for one in self.answers}
        return {by: {name: int(value) for name, value in own.items()} for by, own in found.items() if own}

    def edited(self, index: int) -> dict[str, str]:
        """Rater → edited question of the sample at an index, spaces normalised; raters without an edit are left out."""
        found = {one.by: " ".join(one.texts.get(str(index), "").split()) for one in self.answers}
        own = " ".join(self.samples[index].question.split())
        return {by: text for by, text in found.items() if text not in ("", own)}

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per score: index, sample (its id), kind, rater, scale, score."""
        rows = [
            (index, sample.id, kind_of(sample), rater, name, score)
            for index, sample in enumerate(self.samples)
            for rater, own in self.scores(index).items()
            for name, score in own.items()
        ]
        return pd.DataFrame(rows, columns=["index", "sample", "kind", "rater", "scale", "score"])

    @cached_property
    def edits(self) -> pd.DataFrame:
        """One row per edited question: index, sample, rater, question, edited."""
        rows = [
            (index, sample.id, rater, sample.question, text)
            for index, sample in enumerate(self.samples)
            for rater, text in self.edited(index).items()
        ]
        return pd.DataFrame(rows, columns=["index", "sample", "rater", "question", "edited"])

    def table(self, scale: str) -> Float[np.ndarray, "rater sample"]:
        """The scores on a scale, NaN where there is none.

        Raises:
            DataError: There is no such scale.
        """
        names = [one.name for one in SCALES]
        if not isinstance(scale, str) or scale not in names:
            raise DataError(f"scale is {' or '.join(map(repr, names))}; got {scale!r}.")
        found = np.full((len(self.answers), len(self.samples)), np.nan)
        for row, one in enumerate(self.answers):
            for key, values in one.values.items():
                found[row, int(key)] = values.get(scale, np.nan)
        return found

    def agreement(self) -> pd.DataFrame:
        """How far the raters agree, one row per scale.

        Columns: `scale`; `n`, the samples with at least two scores; `same`, the share of pairs of scores on them that
        are equal; `alpha`, Krippendorff's for ordered values; `kappa`, the mean quadratic weighted kappa of the pairs
        of raters for which it is defined, `n_pairs` of them. Where nearly all scores are 5, as in the paper's data,
        alpha and kappa are low or undefined although raters agree: read `same` with them.

        Raises:
            StudyError: The library of Krippendorff's alpha is not installed.
        """
        rows = []
        for scale in SCALES:
            table = self.table(scale.name)
            pairs = list(combinations(table, 2))
            kappas = [weighted_kappa(a, b, values=SCORES) for a, b in pairs]
            defined = [kappa for kappa in kappas if not np.isnan(kappa)]
            both = [(a == b)[~np.isnan(a) & ~np.isnan(b)] for a, b in pairs]
            equal = np.concatenate(both) if both else np.array([])
            rows.append(
                {
                    "scale": scale.name,
                    "n": int(((~np.isnan(table)).sum(axis=0) >= 2).sum()),
                    "same": float(equal.mean()) if len(equal) else np.nan,
                    "alpha": krippendorff_alpha(table, level="ordinal"),
                    "kappa": float(np.mean(defined)) if defined else np.nan,
                    "n_pairs": len(defined),
                }
            )
        return pd.DataFrame(rows)


def kind_of(sample: Sample) -> str:
    """The kind of question, `meta["kind"]`; "all" without one."""
    return str(sample.meta.get("kind", "all"))


def read_ratings(paths: Sequence[str | os.PathLike[str]], samples: Samples) -> Ratings:
    """Returns the ratings in the files that raters saved on the page of these samples (`rating_page`).

    Args:
        paths: The files, one for each rater. A rater may have left out samples and scales.
        samples: The samples of the page, in its order.

    Raises:
        DataError: A file that is damaged, was changed by hand to something impossible, or belongs to other samples;
            two files by one rater.
    """
    samples = as_rated(samples)
    found = read_answers(
        paths, format=FORMAT, form=form_id(samples), items=item_keys(samples), scales=SCALES, editable=True
    )
    return Ratings(samples, found)


def rating_page(
    samples: Samples, path: str | os.PathLike[str], *, title: str = "Rating samples", side: int = SIDE
) -> Path:
    """Writes the page on which clinicians rate samples, one HTML file, and returns its path.

    It shows each sample's images with the boxes, its question, answer and options, and the modality and label of its
    meta. The rater gives 1 to 5 on each of `SCALES`, may edit the question and comment, works by mouse or keys, and
    saves the answers as a file for `read_ratings`. Meanwhile the page keeps them in the browser; it sends nothing. The
    images are inside the page, as JPEGs, so take care whom you send it to.

    Args:
        samples: The samples to rate; the same samples, in this order, are needed to read the files.
        path: The HTML file to write.
        title: The small line over the heading.
        side: The longer side of each image on the page, in pixels.

    Raises:
        DataError: No samples.
        SampleError: A sample that cannot be read.
        RunError: The file cannot be written.
    """
    samples = as_rated(samples)
    if not isinstance(title, str):
        raise DataError(f"title is a text; got {title!r}.")
    check_text("title", title, DataError)
    check_whole("side", side, 64, DataError, most=4096)
    items = [_item(key, sample, side) for key, sample in zip(item_keys(samples), samples, strict=True)]
    form = Form(
        FORMAT, form_id(samples), title, "Is each question sound, grounded in its box, and answerable by looking?",
        INTRO, "sample", "ratings", SCALES, items, "Question (edit it where it needs it)",
    )  # fmt: skip
    return write_form(form, path)


def as_rated(samples: Any) -> Samples:
    """The samples as `Samples`.

    Raises:
        DataError: An argument that is no sequence of samples, or an empty one.
    """
    found = samples if isinstance(samples, Samples) else Samples(samples)
    if not len(found):
        raise DataError("rating needs at least one sample; got none. Pass the samples that are to be rated.")
    return found


def form_id(samples: Samples) -> str:
    """A hash that identifies the page of these samples: their content and order, and the scales."""
    return digest({"samples": samples.fingerprint, "scales": [scale.name for scale in SCALES]})[:32]


def item_keys(samples: Samples) -> tuple[str, ...]:
    """The key of each sample on the page: its index, because ids may repeat."""
    return tuple(str(place) for place in range(len(samples)))


def _item(key: str, sample: Sample, side: int) -> FormItem:
    sample.check()
    facts = [
        ("Answer", sample.answer),
        ("Options", None if sample.options is None else ", ".join(sample.options)),
    ]
    facts += [(name.capitalize(), sample.meta.get(name)) for name in SHOWN]
    pictures = tuple(_picture(sample, i, side) for i in range(len(sample.images)))
    return FormItem(
        key,
        sample.question,
        pictures,
        tuple((term, words) for term, words in facts if isinstance(words, str)),
    )


def _picture(sample: Sample, i: int, side: int) -> FormPicture:
    shown = picture(sample, i, side)
    n = sum(one.image == i for one in sample.masks or sample.boxes)
    one, many = ("outline", "outlines") if sample.masks else ("box", "boxes")
    boxes = f"{n or 'no'} {one if n == 1 else many}"
    caption = "Image" if len(sample.images) == 1 else f"Image {i + 1} of {len(sample.images)}"
    caption = frame_name(sample, i).capitalize() or caption
    return FormPicture(
        data_uri(shown, "jpeg"), *shown.size, (View(f"{caption}, {boxes}", f"{caption} with {boxes}"),)
    )
