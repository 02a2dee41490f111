"""Compares a method with the plain model on the same samples: accuracy, probability, cost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

from interp.errors import MethodError, StudyError
from interp.methods import Method, Plain, VGRefine, method_named
from interp.methods.names import REFINES, is_refine
from interp.run import Workers
from interp.study.head_ranking.head_set import CHECKPOINTS, HeadSet, published_checkpoint, published_heads
from interp.study.model_spec import ModelSpec, OpenModel, model_label
from interp.study.refinement.result import RefinementResult
from interp.study.refinement.task import RefinementTask, references, resolved
from interp.study.runs import GridCell
from interp.study.study import Study, field, whole_number
from interp.tracing import Site

__all__ = ["Refinement", "WithMethod", "as_method", "check_heads", "is_method", "method_name"]


R = TypeVar("R")
Own = TypeVar("Own", bound="WithMethod[Any]")


def as_method(value: Any) -> Any:
    """The method of a name; any other value unchanged. VGRefine's name stays until the study's model is known."""
    if not isinstance(value, str) or is_refine(value):
        return value
    try:
        return method_named(value)
    except MethodError as error:
        raise StudyError(str(error)) from error


def is_method(name: str, value: Any) -> None:
    """Raise `StudyError` for a value that is neither a `Method` nor VGRefine's name."""
    if not isinstance(value, Method) and not is_refine(value):
        raise StudyError(
            f"{name} is one of interp.methods, such as PAI() or VGRefine(heads=…), or the name of one; got {value!r}."
        )


def check_heads(heads: Any, model: Any) -> None:
    """Raise `StudyError` for heads that were ranked on another model, because they mean nothing on this one."""
    ranked = heads.ranking.model if isinstance(heads, HeadSet) and heads.ranking is not None else model
    if ranked != model:
        raise StudyError(
            f"heads are ranked on the model that uses them, {model_label(model)}; got a ranking on "
            f"{model_label(ranked)}. Rank with HeadRanking(model=…) of this model; run one Refinement per model."
        )


def _refine(model: ModelSpec | OpenModel) -> VGRefine:
    """VGRefine with the heads and the layer that are published for a model.

    Raises:
        StudyError: None are published.
    """
    known = published_checkpoint(model) if isinstance(model, ModelSpec) else None
    if known is None:
        raise StudyError(
            f"{REFINES} needs heads of the model, and none are published for {model_label(model)}. Rank its own on "
            "samples held out for that: method=VGRefine(heads=interp.HeadRanking(data=held_out).top(20))."
        )
    heads = published_heads(CHECKPOINTS[known])
    return VGRefine(heads=heads, layers=None if heads.masked_layer is None else (heads.masked_layer,))


def method_name(method: Any) -> str:
    """The name of a method in tables."""
    return str(getattr(method, "name", type(method).__name__))


class WithMethod(Study[R]):
    """A study with a `method`, whose heads can be the top of a ranking that has not run yet."""

    method: Method

    def check(self) -> None:
        """Complete VGRefine where its name was given, and refuse heads that were ranked on another model."""
        if isinstance(self.method, str):
            object.__setattr__(self, "method", _refine(self.model))
        for heads in references(self.method).values():
            check_heads(heads, self.model)

    @property
    def unresolved(self) -> bool:
        """Whether the method refers to heads that have to be ranked first."""
        return bool(references(self.method))

    def check_resolved(self) -> None:
        """Raise `StudyError` if the method refers to heads that are not resolved yet."""
        if self.unresolved:
            raise StudyError(
                f"which heads {method_name(self.method)} uses is known once their ranking has run. Run the study, or "
                'name them first: study.resolved("runs").'
            )

    def resolved(
        self: Own,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int | Workers = 1,
        progress: bool = True,
        mllm: OpenModel | None = None,
    ) -> Own:
        """The study with the heads that its method refers to; a ranking whose run is under `out` does not run again.

        Args:
            out: The folder that holds runs.
            workers: The number of processes, or an `interp.run.Workers`, in case a ranking has to run.
            progress: Whether to show progress on stderr.
            mllm: The study's model, if it is already open.
        """
        if not self.unresolved:
            return self
        options: dict[str, Any] = {"workers": workers, "progress": progress, "mllm": mllm}
        return self.replace(method=resolved(self.method, out, **options))


class Refinement(WithMethod[RefinementResult]):
    """Compares one method with the plain model on the same samples.

        heads = interp.HeadRanking(data=interp.data.bundled("medical", split="validation")).top(20)
        study = interp.Refinement(data=interp.data.bundled("medical"), method=VGRefine(heads=heads))
        methods = interp.Grid(study, method={"VGRefine": VGRefine(heads=heads), "PAI": PAI()})

    Each sample is answered twice, greedily: as the model is (before) and under the method (after). An answer is right
    when its whole text is (`interp.inputs.answers`); other measures are the probability of beginning the sample's own
    answer and, with `read_layer`, the attention ratio of the last prompt row at that layer. The cells of a `Grid` that
    differ in method alone share the plain model's answers.

    Heads that are the top of a ranking, as above, are ranked when the study runs, once for all cells with the same
    ranking.

    Args:
        data: Samples; those without an answer show what a method changes, not whether the answer is right. A plain list
            becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        method: One of `interp.methods`, its name such as "PAI" (published constants; "VGRefine" where heads are
            published for the model), or anything that is a `Method`.
        prompt: How the question is put.
        max_new_tokens: The maximum number of tokens of each answer.
        read_layer: The layer at which attention is read before and after, 0-based, in separate passes that are not
            counted as the method's cost; None reads none. At a layer that a method edits, attention changes by
            construction. A method without edits to repeat, such as ViCrop, has no attention after.
        seed: The seed of the bootstrap and of the samples that a report shows; no stored number depends on it.
        batch: Samples per forward pass. Part of the hash: other batches round differently.

    Raises:
        StudyError: There are no samples, `method` is no method, its heads were ranked on another model, or a field has
            the wrong type.
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
        return f"Is the model right more often with {method_name(self.method)} than without?"

    @property
    def labels(self) -> dict[str, str]:
        """Short names of the model, the data and the method."""
        return {**super().labels, "method": method_name(self.method)}

    def task(self, mllm: Any) -> RefinementTask:
        """The study as work for the runner.

        Raises:
            StudyError: The method refers to heads that are not resolved yet, or the model has no such layer.
        """
        self.check_resolved()
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
