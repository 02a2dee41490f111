"""The study of direct and total effects: which heads write the answer into the last token's stream?"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.inputs.prompt import PAPER_PROMPT
from interp.study.head_attribution.task import AttributionTask
from interp.study.lens import check_fields
from interp.study.result import GridResult
from interp.study.runs import GridCell, run_study
from interp.study.study import study_labels

__all__ = ["HeadAttribution"]

CHOICES = {"target": ("greedy", "answer")}


@dataclass(frozen=True, kw_only=True)
class HeadAttribution:
    """The direct effect of each head, MLP and the embedding on the answer's first token, and each head's total effect.

    Both are of the last prompt token, in logits above the vocabulary's mean logit (log p saturates where a model is
    sure). Direct: `interp.tracing.lens.Lens.attribution`. Total: how far the logit falls when the head gives nothing
    at the last token (`interp.Knockout` of all its keys, mode="zero"), so that later layers miss it too, and may
    make up for it. Needs the extra `lens` and a family that TransformerLens knows.

    The result's `scores` have columns part ("head", "attention", "mlp", "embedding"), layer, head (−1 where there
    is none), measure ("direct", or "total" of heads), value.

    Args:
        data: Samples; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        target: "greedy": the first token the model says. "answer": that of the sample's own answer.
        prompt: How the question is put.
        seed: Of the bootstrap.
        batch: Samples per forward pass, and heads knocked out side by side. Part of the hash: other batches round
            differently.

    Raises:
        StudyError: No samples, an unknown target, or something of the wrong type.

    Source: Elhage et al., A Mathematical Framework for Transformer Circuits (2021); TransformerLens.
    """

    data: Any
    model: Any = "organism"
    target: str = "greedy"
    prompt: Any = PAPER_PROMPT
    seed: int = 0
    batch: int = 8

    name = "head-attribution"
    title = "Head attribution"

    def __post_init__(self) -> None:
        check_fields(self, CHOICES)

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return "Which heads write the answer into the last token's stream?"

    @property
    def labels(self) -> dict[str, str]:
        """Short names of the model and the data."""
        return study_labels(self)

    def replace(self, **changes: Any) -> HeadAttribution:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def run(
        self,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int = 1,
        progress: bool = True,
        part: tuple[int, int] | None = None,
    ) -> GridResult:
        """The study's result; what is already under `out` is not computed again. See `run_study`."""
        return run_study(self, out, workers=workers, progress=progress, part=part)

    def task(self, mllm: Any) -> AttributionTask:
        """The study as work for the runner."""
        return AttributionTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> GridResult:
        """The result of this study, or of a grid over it."""
        return GridResult(whole, cells, folder)
