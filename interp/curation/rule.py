"""The rule that decides which rated samples are kept and with which question, and the report of a curation."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from interp.curation.ratings import LOWEST, PAPER_SHARES, SCALES, SCORES, Ratings, kind_of
from interp.data.samples import Samples
from interp.errors import DataError
from interp.inputs.argument_checks import check_one_of, check_text, check_whole
from interp.inputs.files import as_path, write_atomically
from interp.inputs.sample import Sample
from interp.report.html import card, code, details, grid, headline, paragraph, save_page, section, table
from interp.report.tables import count, number, rows
from interp.study.dataframes import records, where

__all__ = ["RULES", "Curation", "curate", "write_page"]


RULES = {
    "any": "A sample is dropped if any score of any rater is below {lowest}",
    "median": "A sample is dropped if the median of its raters' scores on some scale is below {lowest}",
}
"""How the scores of several raters decide: the lowest of them, as in the paper, or their median."""


@dataclass(frozen=True)
class Curation:
    """The samples that a rule keeps, as `curate` returns it.

    Attributes:
        ratings: The ratings.
        lowest: The lowest score that keeps a sample.
        several: The scores that are compared with `lowest` where several raters rated a sample: "any" or "median".
        n_raters: The number of raters whose three scores a sample needs.
        questions: A mapping from a sample's id to the question to take where raters' edits differ.
    """

    ratings: Ratings
    lowest: int = LOWEST
    several: str = "any"
    n_raters: int = 1
    questions: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def decisions(self) -> pd.DataFrame:
        """One row per sample: index, sample, kind, `decision`, `reason`, `question` (as kept), `edited`, `n_raters`.

        Decisions: "kept"; "dropped", a score is too low; "undecided", raters edited the question differently;
        "unrated", fewer raters than needed gave all three scores.
        """
        return pd.DataFrame([self._decision(i, sample) for i, sample in enumerate(self.ratings.samples)])

    def _decision(self, index: int, sample: Sample) -> dict[str, Any]:
        """The row of one sample."""
        scores = self.ratings.scores(index)
        n_whole = sum(len(own) == len(SCALES) for own in scores.values())
        edits = self.ratings.edited(index)
        asked = sorted(set(edits.values()))
        question = self.questions.get(sample.id, asked[0] if len(asked) == 1 else sample.question)
        low = self._low(scores)
        if low and (self.several == "any" or n_whole >= self.n_raters):
            decision, reason = "dropped", "; ".join(low)
        elif n_whole < self.n_raters:
            decision, reason = "unrated", f"{n_whole} of {self.n_raters} raters gave all three scores"
        elif len(asked) > 1 and sample.id not in self.questions:
            decision, reason = "undecided", f"{len(asked)} different edits of the question"
        else:
            decision, reason = "kept", ""
        return {
            "index": index, "sample": sample.id, "kind": kind_of(sample), "decision": decision, "reason": reason,
            "question": question, "edited": question != sample.question, "n_raters": n_whole,
        }  # fmt: skip

    def _low(self, scores: Mapping[str, Mapping[str, int]]) -> list[str]:
        """The scales whose score is too low, in words."""
        said = []
        for scale in SCALES:
            own = {rater: given[scale.name] for rater, given in scores.items() if scale.name in given}
            if self.several == "any":
                said += [
                    f"{scale.name} {score} by {rater}" for rater, score in own.items() if score < self.lowest
                ]
            elif own and (middle := float(np.median(list(own.values())))) < self.lowest:
                said.append(f"{scale.name} {middle:g}, the median of {len(own)}")
        return said

    @cached_property
    def samples(self) -> Samples:
        """The kept samples, with edited questions; `meta["curation"]` records the rule, the scores and the edits."""
        kept = records(where(self.decisions, self.decisions.decision == "kept"))
        return self.ratings.samples.like([self._kept(row["index"], row["question"]) for row in kept])

    def _kept(self, index: int, question: str) -> Sample:
        sample = self.ratings.samples[index]
        history = {
            "rule": {"lowest": self.lowest, "several": self.several, "n_raters": self.n_raters},
            "scores": self.ratings.scores(index),
            "question": sample.question,
            "edited_by": sorted(self.ratings.edited(index)) if question != sample.question else [],
            "fingerprint": sample.fingerprint,
        }
        return sample.replace(question=question, id=sample.id, meta={**sample.meta, "curation": history})

    def table(self) -> pd.DataFrame:
        """The shares of scores among kept samples, as the paper's table N.6, one row per kind of question and scale.

        Columns `kind`, `scale`, `n` (scores), `rating_1` … `rating_5` (per cent of them), and `paper_3`, `paper_4`,
        `paper_5`, the paper's for VGMED, NaN for kinds that it does not have. Kinds are `meta["kind"]`, "all" without.
        """
        kept = where(self.decisions, self.decisions.decision == "kept")["index"]
        frame = where(self.ratings.frame, self.ratings.frame["index"].isin(kept))
        rows = []
        for kind in sorted(set(frame.kind)):
            for scale in SCALES:
                scores = frame.score[(frame.kind == kind) & (frame.scale == scale.name)].to_numpy()
                shares = {
                    f"rating_{s}": 100 * float((scores == s).mean()) if len(scores) else np.nan
                    for s in SCORES
                }
                paper = PAPER_SHARES.get((kind, scale.name), (np.nan,) * 3)
                published = {f"paper_{score}": share for score, share in zip((3, 4, 5), paper, strict=True)}
                rows.append({"kind": kind, "scale": scale.name, "n": len(scores), **shares, **published})
        columns = ["kind", "scale", "n", *(f"rating_{s}" for s in SCORES), *(f"paper_{s}" for s in (3, 4, 5))]
        return pd.DataFrame(rows, columns=columns)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the kept samples as JSON lines, which `interp.data.jsonl` reads, and returns the path.

        Paths of images are written relative to the file; images in memory are saved beside it, in `images`. Ratings and
        the original question are in each row's `meta["curation"]`. Rows have no masks: of a sample that has only masks
        the boxes that hold them are written (`samples` keeps the masks).

        Raises:
            DataError: No sample is kept.
            SampleError: A sample's meta is not JSON.
            RunError: A file cannot be written.
        """
        target = as_path("path", path, endings=(".jsonl",), what="Samples are written as lines of JSON.")
        if not len(self.samples):
            counts = self.decisions.decision.value_counts().to_dict()
            raise DataError(f"no sample is kept: {counts}. Read decisions for the reasons.")
        lines = [
            json.dumps(_row(sample, target.parent), ensure_ascii=False) + "\n" for sample in self.samples
        ]
        write_atomically(target, "".join(lines).encode())
        return target

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Writes the report, one HTML file: the decisions with reasons, scores beside the paper's, agreement.

        Raises:
            RunError: The file cannot be written.
            StudyError: The library of Krippendorff's alpha is not installed.
        """
        found, needed = (
            self.ratings,
            f"A sample needs all three scores of at least {count(self.n_raters, 'rater')}.",
        )
        rule = RULES[self.several].format(lowest=self.lowest)
        names = f"{count(len(found.samples), 'sample')} ({found.samples.name}), rated by {', '.join(found.raters)}."
        return write_page(
            as_path("path", path),
            words=f"{names} {rule}. {needed}",
            decisions=self.decisions,
            scores=self.table(),
            raters=self.per_rater(),
            agreement=found.agreement() if len(found.answers) > 1 else None,
            edits=found.edits,
        )

    def per_rater(self) -> pd.DataFrame:
        """One row per rater: `rater`, `n` (samples), the mean score on each scale, `n_low`, `n_edited`.

        `n_low` counts the samples to which the rater gave a score below `lowest`.
        """
        rows = []
        for one in self.ratings.answers:
            given = [dict(values) for values in one.values.values() if values]
            scores = {
                scale.name: [int(own[scale.name]) for own in given if scale.name in own] for scale in SCALES
            }
            means = {name: float(np.mean(found)) if found else np.nan for name, found in scores.items()}
            n_low = sum(any(int(score) < self.lowest for score in own.values()) for own in given)
            rows.append(
                {"rater": one.by, "n": len(given), **means, "n_low": n_low, "n_edited": len(one.texts)}
            )
        return pd.DataFrame(rows)


def curate(
    ratings: Ratings,
    *,
    lowest: int = LOWEST,
    several: str = "any",
    n_raters: int = 1,
    questions: Mapping[str, str] | None = None,
) -> Curation:
    """Applies the paper's rule: a sample with any score below 3 is dropped.

    With several raters, "any" drops the sample if any score of any rater is below `lowest`; "median" if the median of
    the raters' scores on some scale is. Scores of a rater who left out a scale count too, but that rater does not count
    towards `n_raters`. A question that one rater edited, or that several edited alike, is replaced; where edits differ
    the sample is undecided until `questions` says which question to take.

    Args:
        ratings: The ratings, as `read_ratings` returns them.
        lowest: The lowest score that keeps a sample, 1 to 5.
        several: The rule for several raters, "any" or "median".
        n_raters: The number of raters whose three scores a sample needs; with fewer it is unrated and not kept.
        questions: A mapping from a sample's id to the question to take.

    Raises:
        DataError: An argument that is no `Ratings`, an unknown rule, or an id that no sample has.
    """
    if not isinstance(ratings, Ratings):
        raise DataError(
            f"ratings are what read_ratings(paths, samples) returns; got {type(ratings).__name__}."
        )
    check_whole("lowest", lowest, 1, DataError, most=5)
    check_one_of("several", several, RULES, DataError)
    check_whole("n_raters", n_raters, 1, DataError, most=len(ratings.answers))
    chosen = {} if questions is None else questions
    if not isinstance(chosen, Mapping) or not all(
        isinstance(text, str) and text.strip() for text in chosen.values()
    ):
        raise DataError(f"questions are a mapping of a sample's id to its question; got {chosen!r}.")
    strange = sorted(map(str, set(chosen) - set(ratings.samples.sample_ids)))
    if strange:
        raise DataError(
            f"questions name the samples {strange}, which were not rated. Read ratings.edits for the ids."
        )
    for one, text in chosen.items():
        check_text(f"the question of {one}", text, DataError)
    return Curation(ratings, lowest, several, n_raters, dict(chosen))


def _row(sample: Sample, folder: Path) -> dict[str, Any]:
    """The sample as a row of a file in that folder; images in memory are saved."""
    if sample.video is not None:
        return _video_row(sample, folder)
    paths = []
    for i, raw in enumerate(sample.images):
        if isinstance(raw, str | os.PathLike):
            paths.append(os.path.abspath(raw))
            continue
        paths.append(os.path.abspath(folder / "images" / f"{sample.image_fingerprints[i][:32]}.png"))
        write_atomically(paths[-1], _png(sample, i))
    record = sample.replace(images=paths, boxes=sample.boxes, masks=()).to_dict()
    record.pop("box_format", None)
    return record | {"images": [os.path.relpath(one, os.path.abspath(folder)) for one in paths]}


def _video_row(sample: Sample, folder: Path) -> dict[str, Any]:
    """A sample with a video as a row; its frames must be files."""
    record = sample.replace(boxes=sample.boxes, masks=()).to_dict()
    record.pop("box_format", None)
    named, here = record["video"], os.path.abspath(folder)
    paths = [
        os.path.relpath(os.path.abspath(one), here) for one in ([named] if isinstance(named, str) else named)
    ]
    return record | {"video": paths[0] if isinstance(named, str) else paths}


def _png(sample: Sample, i: int) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    sample.load(i).save(buffer, format="PNG")
    return buffer.getvalue()


LABELS = {scale.name: scale.label for scale in SCALES}
MEANINGS = {
    "kept": "every score is high enough",
    "dropped": "a score is too low",
    "undecided": "raters edited the question differently",
    "unrated": "too few raters gave all three scores",
}
SCORED = """Per cent of the scores of kept samples, as the paper's table N.6. The columns on the right are the paper's,
for VGMED and its clinicians; they are shown for comparison and say nothing about these samples."""
AGREE = """Same: share of pairs of scores that are equal. α: Krippendorff's, for ordered values. κ: mean quadratic
weighted kappa of pairs of raters. α and κ compare with chance: 1 is perfect, 0 is chance. Where nearly all scores are
one value they are low or undefined although raters agree."""
SHOWN = 200


def write_page(
    path: Path,
    *,
    words: str,
    decisions: pd.DataFrame,
    scores: pd.DataFrame,
    raters: pd.DataFrame,
    agreement: pd.DataFrame | None,
    edits: pd.DataFrame,
) -> Path:
    """Writes the page and returns its path.

    Args:
        path: The HTML file.
        words: A text that says what was rated by whom, and the rule.
        decisions: The frame of `Curation.decisions`.
        scores: The frame of `Curation.table()`.
        raters: The frame of `Curation.per_rater()`.
        agreement: The frame of `Ratings.agreement()`; None for a single rater.
        edits: The frame of `Ratings.edits`.
    """
    counts = decisions.decision.value_counts()
    parts = (
        card(headline(str(int(counts.get(name, 0))), f"{name}: {said}")) for name, said in MEANINGS.items()
    )
    others = where(decisions, decisions.decision != "kept")
    reasons = {"sample": _sample, "decision": "decision", "reason": "reason", "question": "question"}
    changes = {"sample": _sample, "rater": "rater", "question": "question", "edited": "edited"}
    alone = paragraph("One rater: there is nothing to compare.", kind="soft")
    body = [
        grid(parts),
        section("Scores of the kept samples", card(_scores(scores)), intro=SCORED),
        section("Agreement", alone if agreement is None else card(_agreement(agreement)), intro=AGREE),
        section("Raters", card(_raters(raters))),
        section("Not kept", _folded(count(len(others), "sample"), others, reasons)),
        section("Edited questions", _folded(count(len(edits), "edit"), edits, changes)),
    ]
    question = "Which samples do the raters keep?"
    return save_page(path, title="Curation", question=question, lead=paragraph(words, kind="lead"), body=body)


def _sample(row: Mapping[str, Any]) -> Markup:
    return code(row["sample"])


def _scores(scores: pd.DataFrame) -> Markup:
    columns: dict[str, Any] = {"kind": "kind", "scale": lambda row: LABELS[row["scale"]], "scores": "n"}
    columns |= {f"{score}, %": _number(f"rating_{score}") for score in SCORES}
    columns |= {f"paper {score}, %": _number(f"paper_{score}") for score in (3, 4, 5)}
    return table(list(columns), rows(scores, columns))


def _agreement(agreement: pd.DataFrame) -> Markup:
    columns: dict[str, Any] = {
        "scale": lambda row: LABELS[row["scale"]],
        "samples with two scores": "n",
        "same, %": lambda row: number(100 * row["same"], 1),
        "α": _number("alpha"),
        "κ": _number("kappa"),
        "pairs of raters in κ": "n_pairs",
    }
    return table(list(columns), rows(agreement, columns))


def _raters(raters: pd.DataFrame) -> Markup:
    columns: dict[str, Any] = {"rater": "rater", "samples": "n"}
    columns |= {f"mean {scale.label.lower()}": _number(scale.name) for scale in SCALES}
    columns |= {"samples with too low a score": "n_low", "edited questions": "n_edited"}
    return table(list(columns), rows(raters, columns))


def _number(name: str) -> Any:
    return lambda row: number(row[name])


def _folded(summary: str, found: pd.DataFrame, columns: Mapping[str, Any]) -> Markup:
    """The first rows as a table under a summary; empty without rows."""
    if found.empty:
        return Markup()
    left = len(found) - SHOWN
    more = paragraph(f"And {left} more.", kind="soft") if left > 0 else ""
    return details(summary, table(list(columns), rows(found.head(SHOWN), columns), kind="text"), more)
