"""Which samples are kept, with which question, and why."""

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

from interp.curation.ratings import Ratings
from interp.curation.scales import LOWEST, PAPER_SHARES, SCALES, SCORES
from interp.data.samples import Samples
from interp.errors import DataError
from interp.inputs.argument_checks import check_one_of, check_text, check_whole
from interp.inputs.sample import Sample
from interp.run.files import as_path, write_atomically

__all__ = ["SEVERAL", "Curation", "curate"]

SEVERAL = ("any", "median")
"""How the scores of several raters decide: the lowest of them, as in the paper, or their median."""


@dataclass(frozen=True)
class Curation:
    """The samples that a rule keeps, as `curate` returns it.

    Attributes:
        ratings: The ratings that decide.
        lowest: A score below this drops the sample.
        several: "any" or "median": which of the raters' scores is compared with it.
        n_raters: Raters whose three scores a sample needs.
        questions: Id of a sample → the question to take where raters' edits differ.
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
        scores = {int(index): part for index, part in self.ratings.frame.groupby("index")}
        edits = {int(index): part for index, part in self.ratings.edits.groupby("index")}
        rows = [
            self._decision(index, sample, scores.get(index), edits.get(index))
            for index, sample in enumerate(self.ratings.samples)
        ]
        return pd.DataFrame(rows)

    def _decision(
        self, index: int, sample: Sample, scores: pd.DataFrame | None, edits: pd.DataFrame | None
    ) -> dict[str, Any]:
        """The row of one sample."""
        table = pd.DataFrame() if scores is None else scores.pivot(index="rater", columns="scale", values="score")
        whole = table.reindex(columns=[scale.name for scale in SCALES]).dropna()
        asked = [] if edits is None else sorted(set(edits.edited) - {" ".join(sample.question.split())})
        question = self.questions.get(sample.id, asked[0] if len(asked) == 1 else sample.question)
        low = self._low(table)
        if low and (self.several == "any" or len(whole) >= self.n_raters):
            decision, reason = "dropped", "; ".join(low)
        elif len(whole) < self.n_raters:
            decision, reason = "unrated", f"{len(whole)} of {self.n_raters} raters gave all three scores"
        elif len(asked) > 1 and sample.id not in self.questions:
            decision, reason = "undecided", f"{len(asked)} different edits of the question"
        else:
            decision, reason = "kept", ""
        return {
            "index": index, "sample": sample.id, "kind": str(sample.meta.get("kind", "all")), "decision": decision,
            "reason": reason, "question": question, "edited": question != sample.question, "n_raters": len(whole),
        }  # fmt: skip

    def _low(self, table: pd.DataFrame) -> list[str]:
        """The scales whose score is too low, in words."""
        said = []
        for scale in (scale for scale in SCALES if scale.name in table):
            scores = table[scale.name].dropna()
            if self.several == "any":
                said += [f"{scale.name} {int(s)} by {rater}" for rater, s in scores.items() if s < self.lowest]
            elif scores.median() < self.lowest:
                said.append(f"{scale.name} {scores.median():g}, the median of {len(scores)}")
        return said

    @cached_property
    def samples(self) -> Samples:
        """The kept samples, with edited questions; `meta["curation"]` says how each came to be kept."""
        kept = self.decisions[self.decisions.decision == "kept"]
        found = (self._kept(int(index), str(question)) for index, question in zip(kept["index"], kept.question, strict=True))
        return self.ratings.samples.like(found)

    def _kept(self, index: int, question: str) -> Sample:
        sample, frame, edits = self.ratings.samples[index], self.ratings.frame, self.ratings.edits
        own = frame[frame["index"] == index]
        scores = {str(rater): dict(zip(part.scale, map(int, part.score), strict=True)) for rater, part in own.groupby("rater")}
        history = {
            "rule": {"lowest": self.lowest, "several": self.several, "n_raters": self.n_raters},
            "scores": scores,
            "question": sample.question,
            "edited_by": sorted(edits.rater[edits["index"] == index]) if question != sample.question else [],
            "fingerprint": sample.fingerprint,
        }
        return sample.replace(question=question, id=sample.id, meta={**sample.meta, "curation": history})

    def table(self) -> pd.DataFrame:
        """The shares of scores among kept samples, as the paper's table N.6, one row per kind of question and scale.

        Columns `kind`, `scale`, `n` (scores), `rating_1` … `rating_5` (per cent of them), and `paper_3`, `paper_4`,
        `paper_5`, the paper's for VGMED, NaN for kinds that it does not have. Kinds are `meta["kind"]`, "all" without.
        """
        kept = set(self.decisions["index"][self.decisions.decision == "kept"])
        frame = self.ratings.frame
        frame = frame[frame["index"].isin(kept)]
        rows = []
        for kind in sorted(set(frame.kind)):
            for scale in SCALES:
                scores = frame.score[(frame.kind == kind) & (frame.scale == scale.name)].to_numpy()
                shares = {f"rating_{s}": 100 * float((scores == s).mean()) if len(scores) else np.nan for s in SCORES}
                paper = PAPER_SHARES.get((kind, scale.name), (np.nan,) * 3)
                published = {f"paper_{score}": share for score, share in zip((3, 4, 5), paper, strict=True)}
                rows.append({"kind": kind, "scale": scale.name, "n": len(scores), **shares, **published})
        columns = ["kind", "scale", "n", *(f"rating_{s}" for s in SCORES), *(f"paper_{s}" for s in (3, 4, 5))]
        return pd.DataFrame(rows, columns=columns)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the kept samples as JSON lines, which `interp.data.jsonl` reads, and returns the path.

        Paths of images are written relative to the file; images in memory are saved beside it, in `images`. Ratings and
        the original question are in each row's `meta["curation"]`.

        Raises:
            DataError: No sample is kept.
            SampleError: A sample's meta is not JSON.
            RunError: A file cannot be written.
        """
        target = as_path("path", path)
        if not len(self.samples):
            counts = self.decisions.decision.value_counts().to_dict()
            raise DataError(f"no sample is kept: {counts}. Read decisions for the reasons.")
        lines = [json.dumps(_row(sample, target.parent), ensure_ascii=False) + "\n" for sample in self.samples]
        write_atomically(target, "".join(lines).encode())
        return target

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Writes the report, one HTML file: what was kept and why not, scores beside the paper's, agreement.

        Raises:
            RunError: The file cannot be written.
            StudyError: The library of Krippendorff's alpha is not installed.
        """
        from interp.curation.page import write_page

        return write_page(self, as_path("path", path))


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
    the raters' scores on some scale is. Scores of a rater who left out a scale count, too, but that rater does not count
    to `n_raters`. A question that one rater edited, or that several edited alike, is replaced; where edits differ the
    sample is undecided until `questions` says which question to take.

    Args:
        ratings: What raters answered.
        lowest: A score below this drops the sample.
        several: "any" or "median".
        n_raters: Raters whose three scores a sample needs; with fewer it is unrated, and not kept.
        questions: Id of a sample → the question to take.

    Raises:
        DataError: No ratings, an unknown rule, or the id of no sample.
    """
    if not isinstance(ratings, Ratings):
        raise DataError(f"ratings are what read_ratings(paths, samples) returns; got {type(ratings).__name__}.")
    check_whole("lowest", lowest, 1, DataError, most=5)
    check_one_of("several", several, SEVERAL, DataError)
    check_whole("n_raters", n_raters, 1, DataError, most=len(ratings.answers))
    chosen = {} if questions is None else questions
    if not isinstance(chosen, Mapping) or not all(isinstance(text, str) and text.strip() for text in chosen.values()):
        raise DataError(f"questions are a mapping of a sample's id to its question; got {chosen!r}.")
    strange = sorted(map(str, set(chosen) - set(ratings.samples.sample_ids)))
    if strange:
        raise DataError(f"questions name the samples {strange}, which were not rated. Read ratings.edits for the ids.")
    for one, text in chosen.items():
        check_text(f"the question of {one}", text, DataError)
    return Curation(ratings, lowest, several, n_raters, dict(chosen))


def _row(sample: Sample, folder: Path) -> dict[str, Any]:
    """The sample as a row of a file in that folder; images in memory are saved."""
    paths = []
    for i, (raw, held) in enumerate(zip(sample.images, sample.in_memory, strict=True)):
        if not held:
            paths.append(os.path.abspath(os.fspath(raw)))  # pyright: ignore[reportArgumentType]
            continue
        paths.append(str((folder / "images" / f"{sample.image_fingerprints[i][:32]}.png").absolute()))
        write_atomically(paths[-1], _png(sample, i))
    record = sample.replace(images=paths).to_dict()
    record.pop("box_format", None)
    return record | {"images": [os.path.relpath(one, folder.absolute()) for one in paths]}


def _png(sample: Sample, i: int) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    sample.load(i).save(buffer, format="PNG")
    return buffer.getvalue()
