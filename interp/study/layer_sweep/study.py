"""The study of figure 3: at which layers does a model look at the box?"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.data import Samples
from interp.errors import StudyError
from interp.indicators import Attention
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Prompt
from interp.metrics import named
from interp.run import canonical
from interp.study.layer_sweep.result import Cell, Result
from interp.study.layer_sweep.task import SweepTask
from interp.study.model_spec import as_model, open_model
from interp.study.runs import GridCell, run_study
from interp.study.study import study_labels
from interp.tracing.edits import check_order

if TYPE_CHECKING:
    from interp.study.grid import Grid
    from interp.tracing import Mllm

__all__ = ["LayerSweep"]

PAPER_INDICATOR = Attention(relative_to=GENERIC_PROMPT)
RULES = ("touch", "center", "stretch")


@dataclass(frozen=True, kw_only=True)
class LayerSweep:
    """Every layer's map of every sample, scored against its boxes and against two nulls.

    For each sample and layer the indicator's map over image tokens is compared with the tokens the sample's
    boxes cover and with another sample's boxes (`shuffled_boxes`); and a map that looks at the middle is
    compared with the sample's own boxes (`centre_prior`).

    Args:
        data: Samples with boxes; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        indicator: What gives the map; one map per layer, so not per head.
        metrics: Short names of `interp.metrics.METRICS`.
        prompt: How the question is put.
        edits: Changes of the model's attention that hold in every pass, such as `interp.Knockout(site)`; for a
            relative map in the generic prompt's pass too.
        rule: When a token belongs to a box: "touch" (the paper's), "center", "stretch" (its code's).
        seed: Decides whose boxes each sample borrows.
        batch: Samples per forward pass. Part of the hash: other batches round differently.

    Raises:
        StudyError: No samples, an unknown metric or rule, a per-head indicator, `batch` below 1, a `seed` that
            is no whole number, or a `data`, `model` or `prompt` of the wrong type.
        EditError: Something in `edits` that is not an edit, or edits out of order.
    """

    data: Any  # checked and turned into Samples, a ModelSpec and so on below
    model: Any = "organism"
    indicator: Any = PAPER_INDICATOR
    metrics: Any = ("ar", "kl_gain", "js")
    prompt: Any = PAPER_PROMPT
    edits: Any = ()
    rule: str = "touch"
    seed: int = 0
    batch: int = 8

    name = "layer-sweep"
    title = "Layer sweep"

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", as_model(self.model))
        object.__setattr__(self, "data", _samples(self.data))
        object.__setattr__(self, "metrics", tuple(metric.name for metric in named(self.metrics)))
        object.__setattr__(self, "edits", _edits(self.edits))
        _check(self)

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return "At which layers does the model look at what the question is about?"

    @property
    def labels(self) -> dict[str, str]:
        """Short names of the model and the data."""
        return study_labels(self)

    def to_dict(self, mllm: Mllm | None = None) -> dict[str, Any]:
        """The study as JSON: everything its numbers depend on, with model and data by fingerprint.

        Args:
            mllm: The opened model, when there is one; otherwise it is opened to take its fingerprint.
        """
        return self.task(open_model(self.model) if mllm is None else mllm).to_dict()

    def to_json(self, mllm: Mllm | None = None) -> str:
        """The canonical text of `to_dict`; the first 12 hex digits of its sha256 name the run's folder."""
        return canonical(self.to_dict(mllm))

    def replace(self, **changes: Any) -> LayerSweep:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def run(
        self,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int = 1,
        progress: bool = True,
        part: tuple[int, int] | None = None,
    ) -> Result:
        """The study's result; what is already under `out` is not computed again.

        Args:
            out: The folder that holds runs; this one's is `layer-sweep-<hash>`.
            workers: Processes, each with its own copy of the model; the bytes are the same for any number.
            progress: Show progress on stderr.
            part: (i, n) computes only part i of n, 1 ≤ i ≤ n. The result can be read once every part is under
                `out`: computed there, or joined by `interp.run.merge`.
        """
        return run_study(self, out, workers=workers, progress=progress, part=part)

    def task(self, mllm: Any) -> SweepTask:
        """The study as work for the runner."""
        return SweepTask(self, mllm)

    def collect(self, whole: LayerSweep | Grid, cells: tuple[GridCell, ...], folder: Path) -> Result:
        """The result of this sweep, or of a grid over it."""
        return Result(whole, tuple(Cell(cell.labels, cell.study, cell.folder) for cell in cells), folder)


def _samples(data: Any) -> Samples:
    if isinstance(data, Samples):
        return data
    if isinstance(data, Sequence) and not isinstance(data, str):
        return Samples(data)
    raise StudyError(
        f'data is Samples or a list of Sample, such as interp.data.bundled("medical"); got '
        f"{type(data).__name__}."
    )


def _edits(edits: Any) -> tuple[Any, ...]:
    if not isinstance(edits, Sequence):
        raise StudyError(f"edits is a list of edits; got {edits!r}. Write edits=[{edits!r}].")
    check_order(edits)
    return tuple(edits)


def _check(sweep: LayerSweep) -> None:
    if len(sweep.data) == 0:
        raise StudyError(f"the data {sweep.data.name!r} hold no sample. Was a filter too strict?")
    if not sweep.metrics:
        raise StudyError('a sweep needs at least one metric, such as metrics=("ar",).')
    if sweep.rule not in RULES:
        raise StudyError(f"rule is one of {', '.join(RULES)}; got {sweep.rule!r}.")
    if not isinstance(sweep.prompt, Prompt):
        raise StudyError(f"prompt is an interp.Prompt; got {sweep.prompt!r}. Write Prompt(template=…).")
    if not callable(sweep.indicator) or not hasattr(sweep.indicator, "to_dict"):
        raise StudyError(
            f"indicator is one of interp.indicators, such as Attention(); got {sweep.indicator!r}."
        )
    if getattr(sweep.indicator, "per_head", False):
        raise StudyError("a LayerSweep reads one map per layer; use an indicator with per_head=False.")
    if not isinstance(sweep.seed, int) or sweep.seed < 0:
        raise StudyError(f"seed is a whole number ≥ 0; got {sweep.seed!r}.")
    if not isinstance(sweep.batch, int) or sweep.batch < 1:
        raise StudyError(f"batch is a whole number ≥ 1; got {sweep.batch!r}.")
