"""What raters answered, joined over their files, and how far they agree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.curation.rating_page import FORMAT, SCALES, SCORES, as_rated, form_id, item_keys
from interp.data.samples import Samples
from interp.errors import DataError
from interp.inputs.sample import Sample
from interp.report.form import FormAnswers, read_answers
from interp.stats import krippendorff_alpha, weighted_kappa

__all__ = ["Ratings", "kind_of", "read_ratings"]


@dataclass(frozen=True)
class Ratings:
    """The ratings of samples by one or more raters, as `read_ratings` returns them.

    Attributes:
        samples: What was rated.
        answers: What each rater answered.
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
        """Rater → scale → score of one sample, by its place; raters without any score are left out."""
        found = {one.by: one.values.get(str(index), {}) for one in self.answers}
        return {by: {name: int(value) for name, value in own.items()} for by, own in found.items() if own}

    def edited(self, index: int) -> dict[str, str]:
        """Rater → question as they edited it, of one sample, by its place; spaces are evened out."""
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
        paths: One file for each rater. A rater may have left out samples and scales.
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
