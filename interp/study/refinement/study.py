"""The study of a method: is the model right more often with it than without, and what does it cost?"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.data import Samples
from interp.errors import StudyError
from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.methods import Method, Plain
from interp.run import canonical
from interp.study.head_ranking.head_set import HeadSet
from interp.study.model_spec import as_model, model_label, open_model
from interp.study.refinement.head_references import references, resolved
from interp.study.refinement.result import RefinementResult
from interp.study.refinement.task import RefinementTask
from interp.study.runs import GridCell, run_study
from interp.study.study import study_labels

if TYPE_CHECKING:
    from interp.tracing import Mllm

__all__ = ["Refinement"]

PLAIN = Plain()


@dataclass(frozen=True, kw_only=True)
class Refinement:
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
        method: One of `interp.methods`, or anything that is a `Method`.
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

    data: Any  # checked and turned into Samples, a ModelSpec and so on below
    model: Any = "organism"
    method: Any = PLAIN
    prompt: Any = PAPER_PROMPT
    max_new_tokens: int = 16
    read_layer: int | None = None
    seed: int = field(default=0, compare=False)
    batch: int = 8

    name = "refinement"
    title = "Refinement"

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", as_model(self.model))
        object.__setattr__(self, "data", _samples(self.data))
        _check(self)

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return f"Is the model right more often with {_name(self.method)} than without?"

    @property
    def labels(self) -> dict[str, str]:
        """Short names of the model, the data and the method."""
        return {**study_labels(self), "method": _name(self.method)}

    def to_dict(self, mllm: Mllm | None = None) -> dict[str, Any]:
        """The study as JSON: everything its stored numbers depend on, with model and data by fingerprint.

        Args:
            mllm: The opened model, when there is one; otherwise it is opened to take its fingerprint.

        Raises:
            StudyError: The method's heads are a reference that has not been resolved.
        """
        return self.task(open_model(self.model) if mllm is None else mllm).to_dict()

    def to_json(self, mllm: Mllm | None = None) -> str:
        """The canonical text of `to_dict`; the first 12 hex digits of its sha256 name the run's folder."""
        return canonical(self.to_dict(mllm))

    def replace(self, **changes: Any) -> Refinement:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def resolved(
        self,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int = 1,
        progress: bool = True,
        mllm: Mllm | None = None,
    ) -> Refinement:
        """The study with the heads its method refers to; a ranking whose run is under `out` is not run again.

        Args:
            out: The folder that holds runs.
            workers: Processes, when a ranking has to run.
            progress: Show progress on stderr.
            mllm: The study's model, when it is open already.
        """
        if not references(self.method):
            return self
        options: dict[str, Any] = {"workers": workers, "progress": progress, "mllm": mllm}
        return self.replace(method=resolved(self.method, out, **options))

    def run(
        self,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int = 1,
        progress: bool = True,
        part: tuple[int, int] | None = None,
        mllm: Mllm | None = None,
    ) -> RefinementResult:
        """The study's result; what is already under `out` is not computed again.

        Args:
            out: The folder that holds runs; this one's is `refinement-<hash>`.
            workers: Processes, each with its own copy of the model; the bytes are the same for any number.
            progress: Show progress on stderr.
            part: (i, n) computes only part i of n; the result can be read once every part is under `out`.
            mllm: The study's model, when it is open already.
        """
        return run_study(self, out, workers=workers, progress=progress, part=part, mllm=mllm)

    def task(self, mllm: Any) -> RefinementTask:
        """The study as work for the runner.

        Raises:
            StudyError: The method refers to heads that have not been resolved, or the model has no such layer.
        """
        if references(self.method):
            raise StudyError(
                f"which heads {_name(self.method)} uses is known once their ranking has run. Run the study, or name "
                'them first: study.resolved("runs").'
            )
        if self.read_layer is not None and self.read_layer >= mllm.n_layers:
            raise StudyError(
                f"read_layer is one of 0 … {mllm.n_layers - 1} in this model; got {self.read_layer}."
            )
        return RefinementTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> RefinementResult:
        """The result of this study, or of a grid over it."""
        return RefinementResult.of(whole, cells, folder)


def _name(method: Any) -> str:
    return str(getattr(method, "name", type(method).__name__))


def _samples(data: Any) -> Samples:
    if isinstance(data, Samples):
        return data
    if isinstance(data, Sequence) and not isinstance(data, str):
        return Samples(data)
    raise StudyError(
        f'data is Samples or a list of Sample, such as interp.data.bundled("medical"); got '
        f"{type(data).__name__}."
    )


def _check(study: Refinement) -> None:
    if len(study.data) == 0:
        raise StudyError(f"the data {study.data.name!r} hold no sample. Was a filter too strict?")
    if not isinstance(study.method, Method):
        raise StudyError(
            f"method is one of interp.methods, such as PAI() or VGRefine(heads=…); got {study.method!r}."
        )
    if not isinstance(study.prompt, Prompt):
        raise StudyError(f"prompt is an interp.Prompt; got {study.prompt!r}. Write Prompt(template=…).")
    for name, low in (("max_new_tokens", 1), ("seed", 0), ("batch", 1), ("read_layer", 0)):
        value = getattr(study, name)
        right = isinstance(value, int) and not isinstance(value, bool) and value >= low
        if not right and not (name == "read_layer" and value is None):
            raise StudyError(f"{name} is a whole number ≥ {low}; got {value!r}.")
    for heads in references(study.method).values():
        _check_model(heads, study.model)


def _check_model(heads: Any, model: Any) -> None:
    """Heads of one model mean nothing in another."""
    ranked = heads.ranking.model if isinstance(heads, HeadSet) and heads.ranking is not None else model
    if ranked != model:
        raise StudyError(
            f"heads are ranked on the model that uses them, {model_label(model)}; got a ranking on "
            f"{model_label(ranked)}. Rank with HeadRanking(model=…) of this model; run one Refinement per model."
        )
