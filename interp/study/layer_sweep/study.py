"""Scores every layer's attention map against the annotated boxes (the paper's figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp.errors import StudyError
from interp.indicators import Attention
from interp.inputs.prompt import GENERIC_PROMPT
from interp.study.layer_sweep.result import Result
from interp.study.layer_sweep.task import SweepTask
from interp.study.runs import GridCell
from interp.study.study import (
    RULES,
    Indicator,
    Study,
    as_indicator,
    field,
    is_indicator,
    is_per_layer,
    metric_names,
    one_of,
    words,
)
from interp.tracing.edits import Edit, check_order

__all__ = ["LayerSweep"]


def _edits(edits: Any) -> tuple[Edit, ...]:
    if not isinstance(edits, Sequence):
        raise StudyError(f"edits is a list of edits; got {edits!r}. Write edits=[{edits!r}].")
    check_order(edits)
    return tuple(edits)


class LayerSweep(Study[Result]):
    """Every layer's map of every sample, scored against its boxes and compared with two baselines.

    For each sample and layer the indicator's map over image tokens is compared with the tokens the sample's
    boxes cover and with another sample's boxes (`shuffled_boxes`); and a map with its peak at the image's centre
    is compared with the sample's own boxes (`centre_prior`).

    Args:
        data: Samples with boxes; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        indicator: The indicator of the maps, or its name such as "attention"; one map per layer, so not per head.
        metrics: Short names of `interp.metrics.METRICS`.
        prompt: The prompt of every question.
        edits: Changes of the model's attention that hold in every pass, such as `interp.Knockout(site)`; for a
            relative map in the generic prompt's pass too.
        rule: When a token belongs to a box: "touch" (the paper's), "center", "stretch" (its code's). "masks" takes the
            fraction of each token that the sample's masks cover in the place of its boxes.
        seed: The seed of the choice of borrowed boxes and of the bootstrap.
        batch: Samples per forward pass; part of the hash, because other batches round differently.

    Raises:
        StudyError: No samples, an unknown metric or rule, an indicator per head or without layers, `batch` below 1, a
            `seed` that is no whole number, or a `data`, `model` or `prompt` of the wrong type.
        EditError: Something in `edits` that is not an edit, or edits out of order.
    """

    indicator: Indicator = field(
        default=Attention(relative_to=GENERIC_PROMPT), converter=as_indicator, validator=is_indicator
    )
    metrics: tuple[str, ...] = field(default=("ar", "kl_gain", "js"), converter=words, validator=metric_names)
    edits: tuple[Edit, ...] = field(default=(), converter=_edits)
    rule: str = field(default="touch", validator=one_of(*RULES))

    name = "layer-sweep"
    title = "Layer sweep"
    page = "interp.study.layer_sweep.page"

    def check(self) -> None:
        """Refuse maps per head, and indicators that say that they give no map per layer."""
        if getattr(self.indicator, "per_head", False):
            raise StudyError("a LayerSweep reads one map per layer; use an indicator with per_head=False.")
        is_per_layer("a LayerSweep", self.indicator)

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return "At which layers does the model look at what the question is about?"

    def task(self, mllm: Any) -> SweepTask:
        """The study as work for the runner."""
        return SweepTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> Result:
        """The result of this sweep, or of a grid over it."""
        return Result.of(whole, cells, folder)
