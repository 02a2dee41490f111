"""A layer chosen on some samples, remembering which: nobody reports it on the same ones unnoticed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.errors import StudyError
from interp.metrics import METRICS

if TYPE_CHECKING:
    from interp.study.result import Result

__all__ = ["LayerChoice", "choose_layer"]


@dataclass(frozen=True)
class LayerChoice:
    """One layer per model.

    Attributes:
        metric: The metric by which it was chosen.
        layers: Model label → layer.
        groups: The groups of the samples it was chosen on.
    """

    metric: str
    layers: Mapping[str, int]
    groups: frozenset[str]

    def held_out(self, result: Result) -> bool:
        """Whether no group of the result took part in the choice."""
        return not self.groups & result.groups

    def sentence(self, result: Result) -> str:
        """How the layer was chosen, for a caption."""
        which = ", ".join(f"layer {layer} of {model}" for model, layer in self.layers.items())
        label = METRICS[self.metric].label
        if self.held_out(result):
            return f"{which}: the best mean {label} on validation samples that share no group with these."
        return (
            f"{which}: the best mean {label} on these same samples. Descriptive only: a maximum over layers "
            f"flatters; choose on a validation split to make a claim."
        )


def choose_layer(validation: Result, metric: str = "ar") -> LayerChoice:
    """For each model the layer with the best mean of a metric, every cell of the result counting the same.

    Raises:
        StudyError: The metric was not measured, or is undefined everywhere.
    """
    if metric not in validation.metrics:
        raise StudyError(
            f"expected one of the metrics measured, {', '.join(validation.metrics)}; got {metric!r}."
        )
    scores = validation.scores
    own = scores[(scores.control == "boxes") & (scores.metric == metric)]
    cells = own.groupby([*validation.axes, "layer"]).value.mean().reset_index()
    means = cells.groupby(["model", "layer"]).value.mean().dropna().reset_index()
    if means.empty:
        raise StudyError(f"the metric {metric} is undefined on every sample; see result.failures.")
    sign = 1 if METRICS[metric].better == "higher" else -1
    best = means.loc[(sign * means.value).groupby(means.model).idxmax()]
    return LayerChoice(metric, dict(zip(best.model, best.layer.astype(int), strict=True)), validation.groups)
