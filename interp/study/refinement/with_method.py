"""What studies of a method share: the heads that it refers to are ranked before the study runs."""

from __future__ import annotations

import os
from typing import Any, TypeVar

from interp.errors import MethodError, StudyError
from interp.methods import Method, VGRefine, method_named
from interp.methods.names import REFINES, is_refine
from interp.run import Workers
from interp.study.head_ranking.head_set import HeadSet
from interp.study.head_ranking.published_heads import CHECKPOINTS, published_checkpoint, published_heads
from interp.study.model_spec import ModelSpec, OpenModel, model_label
from interp.study.refinement.task import references, resolved
from interp.study.study import Study

__all__ = ["WithMethod", "as_method", "check_heads", "is_method"]

R = TypeVar("R")
Own = TypeVar("Own", bound="WithMethod[Any]")


def as_method(value: Any) -> Any:
    """The method of a name; anything else as it is. VGRefine's name stays, until the study's model is known."""
    if not isinstance(value, str) or is_refine(value):
        return value
    try:
        return method_named(value)
    except MethodError as error:
        raise StudyError(str(error)) from error


def is_method(name: str, value: Any) -> None:
    """One of `interp.methods`, or anything that is a `Method`; or VGRefine's name."""
    if not isinstance(value, Method) and not is_refine(value):
        raise StudyError(
            f"{name} is one of interp.methods, such as PAI() or VGRefine(heads=…), or the name of one; got {value!r}."
        )


def check_heads(heads: Any, model: Any) -> None:
    """Raise `StudyError` for heads that are ranked on another model, where they mean nothing."""
    ranked = heads.ranking.model if isinstance(heads, HeadSet) and heads.ranking is not None else model
    if ranked != model:
        raise StudyError(
            f"heads are ranked on the model that uses them, {model_label(model)}; got a ranking on "
            f"{model_label(ranked)}. Rank with HeadRanking(model=…) of this model; run one Refinement per model."
        )


def _refine(model: ModelSpec | OpenModel) -> VGRefine:
    """VGRefine with the heads and the layer that are published for a model.

    Raises:
        StudyError: None are.
    """
    known = published_checkpoint(model) if isinstance(model, ModelSpec) else None
    if known is None:
        raise StudyError(
            f"{REFINES} needs heads of the model, and none are published for {model_label(model)}. Rank its own on "
            "samples held out for that: method=VGRefine(heads=interp.HeadRanking(data=held_out).top(20))."
        )
    heads = published_heads(CHECKPOINTS[known])
    return VGRefine(heads=heads, layers=None if heads.masked_layer is None else (heads.masked_layer,))


class WithMethod(Study[R]):
    """A study with a `method`, whose heads may be the top of a ranking that has not run yet."""

    method: Method

    def check(self) -> None:
        """Complete VGRefine where its name was given, and refuse heads that are ranked on another model."""
        if isinstance(self.method, str):
            object.__setattr__(self, "method", _refine(self.model))
        for heads in references(self.method).values():
            check_heads(heads, self.model)

    @property
    def unresolved(self) -> bool:
        """Whether the method refers to heads that have to be ranked first."""
        return bool(references(self.method))

    def resolved(
        self: Own,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int | Workers = 1,
        progress: bool = True,
        mllm: OpenModel | None = None,
    ) -> Own:
        """The study with the heads its method refers to; a ranking whose run is under `out` is not run again.

        Args:
            out: The folder that holds runs.
            workers: Processes, or an `interp.run.Workers`, when a ranking has to run.
            progress: Show progress on stderr.
            mllm: The study's model, when it is open already.
        """
        if not self.unresolved:
            return self
        options: dict[str, Any] = {"workers": workers, "progress": progress, "mllm": mllm}
        return self.replace(method=resolved(self.method, out, **options))
