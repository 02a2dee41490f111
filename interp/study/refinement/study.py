"""Compares a method with the plain model on the same samples: accuracy, probability, cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.errors import StudyError
from interp.methods import Method, Plain
from interp.study.refinement.result import RefinementResult
from interp.study.refinement.task import RefinementTask
from interp.study.refinement.with_method import WithMethod, as_method, is_method
from interp.study.runs import GridCell
from interp.study.study import field, whole_number
from interp.tracing import Site

__all__ = ["Refinement"]


class Refinement(WithMethod[RefinementResult]):
    """One method on some samples, beside the plain model on the same samples.

        heads = interp.HeadRanking(data=interp.data.bundled("medical", split="validation")).top(20)
        study = interp.Refinement(data=interp.data.bundled("medical"), method=VGRefine(heads=heads))
        methods = interp.Grid(study, method={"VGRefine": VGRefine(heads=heads), "PAI": PAI()})

    Each sample is answered twice, greedily: as the model is (before) and under the method (after). An answer is
    right when its whole text is (`interp.inputs.answers`); beside it stand the probability of beginning the
    sample's own answer and, with `read_layer`, the attention ratio of the last prompt row at that layer. The
    cells of a `Grid` that differ in method alone share the plain model's answers.

    Heads that are the top of a ranking, as above, are ranked when the study runs: once for all cells that name
    the same ranking.

    Args:
        data: Samples; those without an answer show what a method changes, not whether it is right. A plain list
            becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        method: One of `interp.methods`, its name such as "PAI" (published constants; "VGRefine" where heads are
            published for the model), or anything that is a `Method`.
        prompt: How the question is put.
        max_new_tokens: How many tokens each answer has at most.
        read_layer: The layer at which attention is read before and after, in passes of their own whose cost is
            not the method's; None reads none. At a layer that a method edits, its attention changes by
            construction. Nothing is read after a method that has no edits to repeat, such as ViCrop.
        seed: Of the bootstrap and of the samples a report shows; no stored number depends on it.
        batch: Samples per forward pass. Part of the hash: other batches round differently.

    Raises:
        StudyError: No sample, something that is no method, heads ranked on another model, or a `data`, `model`,
            `prompt`, `max_new_tokens`, `read_layer`, `seed` or `batch` of the wrong type.
    """

    method: Method = field(default=Plain(), converter=as_method, validator=is_method)
    max_new_tokens: int = field(default=16, validator=whole_number(1))
    read_layer: int | None = field(default=None, validator=whole_number(0, or_none=True))
    seed: int = field(default=0, validator=whole_number(0), compare=False)

    name = "refinement"
    title = "Refinement"
    page = "interp.study.refinement.page"

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return f"Is the model right more often with {_name(self.method)} than without?"

    @property
    def labels(self) -> dict[str, str]:
        """Short names of the model, the data and the method."""
        return {**super().labels, "method": _name(self.method)}

    def task(self, mllm: Any) -> RefinementTask:
        """The study as work for the runner.

        Raises:
            StudyError: The method refers to heads that have not been resolved, or the model has no such layer.
        """
        if self.unresolved:
            raise StudyError(
                f"which heads {_name(self.method)} uses is known once their ranking has run. Run the study, or name "
                'them first: study.resolved("runs").'
            )
        if self.read_layer is not None and self.read_layer >= mllm.n_layers:
            raise StudyError(
                f"read_layer is one of 0 … {mllm.n_layers - 1} in this model; got {self.read_layer}."
            )
        if self.read_layer is not None:
            mllm.decoder.softmax(Site(layers=[self.read_layer]), "read_layer")
        return RefinementTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> RefinementResult:
        """The result of this study, or of a grid over it."""
        return RefinementResult.of(whole, cells, folder)


def _name(method: Any) -> str:
    return str(getattr(method, "name", type(method).__name__))
