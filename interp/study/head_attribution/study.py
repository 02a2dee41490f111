"""Direct and total effects of heads on the answer, at the last token's residual stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.study.head_attribution.task import AttributionTask
from interp.study.result import GridResult
from interp.study.runs import GridCell
from interp.study.study import Study, field, one_of

__all__ = ["HeadAttribution"]


class HeadAttribution(Study[GridResult]):
    """The direct effect of each head, MLP and the embedding on the answer's first token, and each head's total effect.

    Both are at the last prompt token, in logits above the vocabulary's mean logit (log p saturates where a model is
    sure). Above 0: the part supports the answer. Direct: `interp.tracing.lens.Lens.attribution`. Total: how far the
    logit falls when the head writes nothing at the last token (`interp.Knockout` of all its keys, mode="zero"), so that
    later layers lose its output too and may compensate for it. Needs the extra `lens` and a family that TransformerLens
    knows.

    The result's `scores` have columns part ("head", "attention", "mlp", "embedding"), layer, head (−1 where there
    is none), measure ("direct", or "total" of heads), value.

    Args:
        data: Samples; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        target: "greedy": the first token the model says. "answer": the first token of the sample's own answer.
        prompt: How the question is put.
        seed: The seed of the bootstrap.
        batch: Samples per forward pass, and heads knocked out in one pass. Part of the hash, because other batches
            round differently.

    Raises:
        StudyError: There are no samples, the target is unknown, or a field has the wrong type.

    Source: Elhage et al., A Mathematical Framework for Transformer Circuits (2021); TransformerLens.
    """

    target: str = field(default="greedy", validator=one_of("greedy", "answer"))

    name = "head-attribution"
    title = "Head attribution"
    page = "interp.study.head_attribution.page"

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return "Which heads write the answer into the last token's residual stream?"

    def task(self, mllm: Any) -> AttributionTask:
        """The study as work for the runner."""
        return AttributionTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> GridResult:
        """The result of this study, or of a grid over it."""
        return GridResult.of(whole, cells, folder)
