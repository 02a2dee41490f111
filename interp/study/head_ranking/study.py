"""Ranks heads by how well their attention falls inside the annotated boxes."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from interp.data import Samples
from interp.errors import StudyError
from interp.indicators import Attention
from interp.inputs.prompt import GENERIC_PROMPT
from interp.metrics import METRICS
from interp.study.head_ranking.head_set import HeadSet
from interp.study.head_ranking.result import HeadGrid, HeadResult
from interp.study.head_ranking.task import HeadTask
from interp.study.runs import GridCell
from interp.study.study import (
    RULES,
    Indicator,
    Study,
    as_indicator,
    as_samples,
    field,
    is_indicator,
    is_per_layer,
    one_of,
    whole_number,
)

__all__ = ["HeadRanking"]


def _per_head(value: Any) -> Any:
    """The indicator of a name, with per_head=True where it has that field; any other value unchanged."""
    found = as_indicator(value)
    named = isinstance(value, str) and any(one.name == "per_head" for one in fields(found))
    return replace(found, per_head=True) if named else found


class HeadRanking(Study[HeadResult]):
    """Scores every head's map of every sample against the sample's boxes, and ranks heads by their mean score.

        heads = HeadRanking(data=interp.data.bundled("medical", split="validation")).top(20)
        interp.Site(heads=heads.resolve("runs"))

    A head's score is its mean over the samples on which the metric is defined; each sample counts once. Heads of equal
    mean keep the order of (layer, head); heads with no defined value come last and are counted.

    Args:
        data: Samples with boxes; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        indicator: The indicator that gives the maps (layer, head, token).
        metric: Short name of one of `interp.metrics.METRICS`, whose direction decides what is best. The default is the
            paper's, "kl". KL requires weight on every part of the boxes, so a sharp map that leaves part of a box dark
            scores worse than a uniform map. "ar" and "auroc" measure whether the weight lies inside the boxes: rank by
            one of them too, because other heads may lead.
        split: The split of the samples: "validation" or "train" to choose heads, "test" only to describe. Samples with
            another split in `meta["split"]` are left out.
        prompt: How the question is put.
        rule: When a token belongs to a box: "touch" (the paper's), "center", "stretch" (its code's). "masks" takes the
            fraction of each token that the sample's masks cover in the place of its boxes.
        seed: The seed of the bootstrap; no stored number depends on it.
        batch: Samples per forward pass. Part of the hash: other batches round differently.

    Raises:
        StudyError: No sample is of the split, the metric, rule or split is unknown, the indicator gives no map per
            head, `batch` is below 1, or a field has the wrong type.

    Source: arXiv 2603.14323, Fig. D.1: per-head attention over the same head's generic attention, by KL.
    """

    data: Samples = field(converter=as_samples)  # those of the split; see `check`
    indicator: Indicator = field(
        default=Attention(relative_to=GENERIC_PROMPT, per_head=True),
        converter=_per_head,
        validator=is_indicator,
    )
    metric: str = field(default="kl", validator=one_of(*METRICS))
    split: str = field(default="validation", validator=one_of("train", "validation", "test"))
    rule: str = field(default="touch", validator=one_of(*RULES))
    seed: int = field(default=0, validator=whole_number(0), compare=False)

    name = "head-ranking"
    title = "Head ranking"
    page = "interp.study.head_ranking.page"

    def check(self) -> None:
        """Keep the samples of the split, and refuse an indicator without heads."""
        if not getattr(self.indicator, "per_head", True):
            raise StudyError("a HeadRanking reads one map per head; use an indicator with per_head=True.")
        is_per_layer("a HeadRanking", self.indicator)
        object.__setattr__(self, "data", _of_split(self.data, self.split))

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return "Which heads look at what the question is about?"

    def top(self, k: int) -> HeadSet:
        """The k best heads as a reference; nothing is computed until the set is resolved.

        Raises:
            StudyError: The split is "test", or `k` is no whole number ≥ 1.
        """
        return HeadSet(ranking=self, k=k)

    def task(self, mllm: Any) -> HeadTask:
        """The study as work for the runner."""
        return HeadTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> HeadResult | HeadGrid:
        """The result of this ranking, or of a grid over it."""
        return (HeadResult if whole is self else HeadGrid).of(whole, cells, folder)


def _of_split(data: Samples, split: str) -> Samples:
    """The samples that are of the split or name no split."""
    kept = data.filter(lambda sample: (sample.meta.get("split") or split) == split)
    if len(kept) == 0:
        said = f"all say they are of {data.split}" if len(data) else "there is none at all"
        raise StudyError(
            f"the data {data.name!r} hold no sample of the split {split!r}: {said}. Read that split, or pass "
            f"split= to say what the samples are for: heads are chosen on validation, and test is described."
        )
    return kept
