"""The study behind a choice of heads: which heads of a model look at the box?"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.data import Samples
from interp.errors import StudyError
from interp.indicators import Attention
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Prompt
from interp.metrics import METRICS
from interp.run import canonical
from interp.study.head_ranking.head_set import HeadSet
from interp.study.head_ranking.result import HeadGrid, HeadResult
from interp.study.head_ranking.task import HeadTask
from interp.study.model_spec import as_model, open_model
from interp.study.runs import GridCell, run_study
from interp.study.study import study_labels

if TYPE_CHECKING:
    from interp.tracing import Mllm

__all__ = ["HeadRanking"]

PAPER_INDICATOR = Attention(relative_to=GENERIC_PROMPT, per_head=True)
RULES = ("touch", "center", "stretch")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class HeadRanking:
    """Every head's map of every sample, scored against its boxes; heads are ranked by their mean score.

        heads = HeadRanking(data=interp.data.bundled("medical", split="validation")).top(20)
        interp.Site(heads=heads.resolve("runs"))

    A head's score is its mean over the samples on which the metric is defined, whatever their group. Heads of
    equal mean keep the order of (layer, head); heads with no defined value come last and are counted.

    Args:
        data: Samples with boxes; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        indicator: What gives the maps (layer, head, token).
        metric: Short name of one of `interp.metrics.METRICS`; its own direction decides what is best.
        split: What the samples are for: "validation" or "train" to choose heads, "test" to describe only.
            Samples that say in `meta["split"]` that they are of another split are left out.
        prompt: How the question is put.
        rule: When a token belongs to a box: "touch" (the paper's), "center", "stretch" (its code's).
        seed: Of the bootstrap; no stored number depends on it.
        batch: Samples per forward pass. Part of the hash: other batches round differently.

    Raises:
        StudyError: No sample of the split, an unknown metric, rule or split, an indicator without heads,
            `batch` below 1, or a `data`, `model`, `prompt` or `seed` of the wrong type.

    Source: arXiv 2603.14323, Fig. D.1: per-head attention over the same head's generic attention, by KL.
    """

    data: Any  # checked and turned into Samples, a ModelSpec and so on below
    model: Any = "organism"
    indicator: Any = PAPER_INDICATOR
    metric: str = "kl"
    split: str = "validation"
    prompt: Any = PAPER_PROMPT
    rule: str = "touch"
    seed: int = field(default=0, compare=False)
    batch: int = 8

    name = "head-ranking"
    title = "Head ranking"

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", as_model(self.model))
        _check(self)
        object.__setattr__(self, "data", _of_split(self.data, self.split))

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return "Which heads look at what the question is about?"

    @property
    def labels(self) -> dict[str, str]:
        """Short names of the model and the data."""
        return study_labels(self)

    @property
    def label(self) -> str:
        """Model and data, for figures and messages."""
        return " · ".join(self.labels.values())

    def to_dict(self, mllm: Mllm | None = None) -> dict[str, Any]:
        """The study as JSON: everything its stored numbers depend on, with model and data by fingerprint.

        Args:
            mllm: The opened model, when there is one; otherwise it is opened to take its fingerprint.
        """
        return self.task(open_model(self.model) if mllm is None else mllm).to_dict()

    def to_json(self, mllm: Mllm | None = None) -> str:
        """The canonical text of `to_dict`; the first 12 hex digits of its sha256 name the run's folder."""
        return canonical(self.to_dict(mllm))

    def replace(self, **changes: Any) -> HeadRanking:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def top(self, k: int) -> HeadSet:
        """The k best heads, by reference: nothing is computed until the set is resolved.

        Raises:
            StudyError: The split is "test", or k is no whole number ≥ 1.
        """
        return HeadSet(ranking=self, k=k)

    def run(
        self,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int = 1,
        progress: bool = True,
        part: tuple[int, int] | None = None,
        mllm: Mllm | None = None,
    ) -> HeadResult:
        """The study's result; what is already under `out` is not computed again.

        Args:
            out: The folder that holds runs; this one's is `head-ranking-<hash>`.
            workers: Processes, each with its own copy of the model; the bytes are the same for any number.
            progress: Show progress on stderr.
            part: (i, n) computes only part i of n; the result can be read once every part is under `out`.
            mllm: The study's model, when it is open already.
        """
        return run_study(self, out, workers=workers, progress=progress, part=part, mllm=mllm)

    def task(self, mllm: Any) -> HeadTask:
        """The study as work for the runner."""
        return HeadTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> HeadResult | HeadGrid:
        """The result of this ranking, or of a grid over it."""
        return HeadResult(self, cells[0].folder) if whole is self else HeadGrid(whole, cells, folder)


def _check(study: HeadRanking) -> None:
    if not isinstance(study.metric, str) or study.metric not in METRICS:
        raise StudyError(f"metric is one of {', '.join(METRICS)}; got {study.metric!r}.")
    if study.split not in SPLITS:
        raise StudyError(f"split is one of {', '.join(SPLITS)}; got {study.split!r}.")
    if study.rule not in RULES:
        raise StudyError(f"rule is one of {', '.join(RULES)}; got {study.rule!r}.")
    if not isinstance(study.prompt, Prompt):
        raise StudyError(f"prompt is an interp.Prompt; got {study.prompt!r}. Write Prompt(template=…).")
    if not callable(study.indicator) or not hasattr(study.indicator, "to_dict"):
        raise StudyError(
            f"indicator is one of interp.indicators, such as Attention(per_head=True); got {study.indicator!r}."
        )
    if not getattr(study.indicator, "per_head", True):
        raise StudyError("a HeadRanking reads one map per head; use an indicator with per_head=True.")
    if not isinstance(study.batch, int) or study.batch < 1:
        raise StudyError(f"batch is a whole number ≥ 1; got {study.batch!r}.")
    if not isinstance(study.seed, int) or study.seed < 0:
        raise StudyError(f"seed is a whole number ≥ 0; got {study.seed!r}.")


def _of_split(data: Any, split: str) -> Samples:
    """The samples that are of the split or do not say of which they are."""
    if not isinstance(data, Samples):
        if not isinstance(data, Sequence) or isinstance(data, str):
            raise StudyError(
                f'data is Samples or a list of Sample, such as interp.data.bundled("medical", '
                f'split="validation"); got {type(data).__name__}.'
            )
        data = Samples(data)
    kept = data.filter(lambda sample: (sample.meta.get("split") or split) == split)
    if len(kept) == 0:
        said = f"all say they are of {data.split}" if len(data) else "there is none at all"
        raise StudyError(
            f"the data {data.name!r} hold no sample of the split {split!r}: {said}. Read that split, or pass "
            f"split= to say what the samples are for: heads are chosen on validation, and test is described."
        )
    return kept
