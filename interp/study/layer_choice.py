"""A layer chosen on some samples, which it names, so that a report on the same samples can say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from interp.data import Samples
from interp.errors import StudyError
from interp.inputs.text import count
from interp.metrics import METRICS
from interp.stats import MIN_GROUPS
from interp.study.result import GridResult, is_result

__all__ = [
    "LayerChoice",
    "check_metric",
    "check_split",
    "choose_layer",
    "is_choice",
    "layers_of",
    "metrics_of",
    "metrics_to_choose_by",
]


@dataclass(frozen=True)
class LayerChoice:
    """One layer per model.

    Attributes:
        metric: The metric by which the layers were chosen.
        layers: Model label → layer.
        groups: The groups of the samples that the layers were chosen on.
        split: The split of the samples that the layers were chosen on; None if they name none.
        n: The number of samples that the layers were chosen on; 0 if it is not known.
        warning: Which models have no layer that beats a uniform map, in a sentence; empty where all have one, or where
            it is not known: by KL, if "kl_gain" was not measured beside it (`metrics_to_choose_by`).
    """

    metric: str
    layers: Mapping[str, int]
    groups: frozenset[str]
    split: str | None = None
    n: int = 0
    warning: str = ""

    def held_out(self, result: GridResult) -> bool:
        """Whether no group of the result took part in the choice."""
        return not self.groups & result.groups

    def sentence(self, result: GridResult) -> str:
        """How the layer was chosen, for a caption."""
        which = ", ".join(f"layer {layer} of {model}" for model, layer in self.layers.items())
        best = f"{which}: the best mean {METRICS[self.metric].label} on"
        if not self.held_out(result):
            said = (
                f"{best} these same samples. Descriptive only: a maximum over layers flatters; choose on a "
                f"validation split to make a claim."
            )
        elif _of_test(self.split):
            said = f"{best} test samples that share no group with these. Descriptive only: test is not for choosing."
        elif self.split is None:
            said = f"{best} other samples, which share no group with these."
        else:
            said = f"{best} {self.split} samples that share no group with these."
        return " ".join(part for part in (said, self.caution, self.warning) if part)

    @property
    def caution(self) -> str:
        """What to say of a choice made on few samples or groups; empty where there are enough."""
        n_groups = len(self.groups)
        if not self.n or min(self.n, n_groups) >= MIN_GROUPS:
            return ""
        groups = "" if n_groups == self.n else f" in {count(n_groups, 'group')}"
        return (
            f"It was chosen on only {count(self.n, 'sample')}{groups}. On other samples another layer may well be the "
            "best."
        )


def choose_layer(validation: GridResult, metric: str = "ar", *, descriptive: bool = False) -> LayerChoice:
    """For each model the layer with the best mean of a metric, every cell of the result counting the same.

    Args:
        validation: A result on samples that are there to choose on.
        metric: The metric to choose by; its own direction decides what is best.
        descriptive: Whether test samples are allowed, to describe them; captions then say so.

    Raises:
        StudyError: Samples of the test split without `descriptive`, a metric that was not measured, or one
            that is undefined everywhere.
    """
    is_result(validation)
    if not isinstance(descriptive, bool):
        raise StudyError(f"descriptive is True or False; got {descriptive!r}.")
    check_split((cell.study.data for cell in validation.cells), "the best layer", descriptive=descriptive)
    check_metric(validation, metric)
    means = _layer_means(validation, metric)
    if means.empty:
        raise StudyError(f"the metric {metric} is undefined on every sample; see result.failures.")
    sign = 1 if METRICS[metric].better == "higher" else -1
    best = means.loc[(sign * means.value).groupby(means.model).idxmax()]
    layers = dict(zip(best.model, best.layer.astype(int), strict=True))
    splits = {cell.study.data.split for cell in validation.cells} - {None}
    said = " + ".join(sorted(map(str, splits))) or None
    warning = _none_beats_uniform(validation, metric)
    return LayerChoice(metric, layers, validation.groups, said, validation.n_samples, warning)


def _layer_means(result: GridResult, metric: str) -> pd.DataFrame:
    """The mean per model and layer, every cell counting the same; layers without one are left out."""
    scores = result.scores
    own = scores[(scores.control == "boxes") & (scores.metric == metric)]
    cells = own.groupby([*result.axes, "layer"]).value.mean().reset_index()
    return cells.groupby(["model", "layer"]).value.mean().dropna().reset_index()


BESIDE = {"kl": "kl_gain"}
"""Metric whose score of a uniform map depends on the boxes → the metric that compares with that score."""


def metrics_to_choose_by(metric: str) -> tuple[str, ...]:
    """The metrics to measure for `choose_layer(…, metric)`: with KL its gain too, which says what beats a uniform map.

    >>> metrics_to_choose_by("kl"), metrics_to_choose_by("ar")
    (('kl', 'kl_gain'), ('ar',))
    """
    return (metric, *([BESIDE[metric]] if metric in BESIDE else []))


def _none_beats_uniform(result: GridResult, metric: str) -> str:
    """A sentence that names the models of which no layer's mean is better than a uniform map's; empty without one.

    By KL a uniform map's score depends on the boxes' sizes, so the gain over it is compared, if it was measured. Empty
    too for a metric, such as JS, of which nothing says what a uniform map scores.
    """
    judge = BESIDE.get(metric, metric)
    chance = METRICS[judge].chance_value
    if chance is None or judge not in metrics_of(result):
        return ""
    sign = 1 if METRICS[judge].better == "higher" else -1
    means = _layer_means(result, judge)
    best = (sign * (means.value - chance)).groupby(means.model).max()
    bad = [str(model) for model, gain in best.items() if gain <= 0]
    if not bad:
        return ""
    return (
        f"{', '.join(bad)}: by {METRICS[judge].label} no layer is better than a uniform map, so the chosen layer is "
        "the least bad, not one that looks at the boxes."
    )


def is_choice(value: Any) -> None:
    """Raise `StudyError` for anything but a `LayerChoice` or None."""
    if value is not None and not isinstance(value, LayerChoice):
        raise StudyError(f"choice is what interp.choose_layer returns, or None; got {value!r}.")


def metrics_of(result: GridResult) -> tuple[str, ...]:
    """Short names of the metrics that a layer sweep measured, of all cells together."""
    return tuple(dict.fromkeys(name for cell in result.cells for name in cell.study.metrics))


def check_metric(result: GridResult, metric: str) -> None:
    """Raise `StudyError` for a metric that was not measured."""
    is_result(result)
    known = metrics_of(result)
    if not isinstance(metric, str) or metric not in known:
        raise StudyError(f"expected one of the metrics measured, {', '.join(known)}; got {metric!r}.")


def layers_of(result: GridResult, layer: int | LayerChoice) -> dict[str, int]:
    """The layer per model label; models of which nothing could be measured are left out.

    Raises:
        StudyError: A layer that was not measured, or a choice that lacks a model of this result.
    """
    is_result(result)
    if not isinstance(layer, LayerChoice | int | np.integer) or isinstance(layer, bool):
        raise StudyError(f"layer is a layer 0, 1, …, or what interp.choose_layer returns; got {layer!r}.")
    models = list(dict.fromkeys(cell.labels["model"] for cell in result.cells if cell.measured))
    layers = dict(layer.layers) if isinstance(layer, LayerChoice) else dict.fromkeys(models, int(layer))
    for model in models:
        measured = set(result.scores.layer[result.scores.model == model].unique().tolist())
        if layers.get(model) not in measured:
            raise StudyError(
                f"expected a layer of {sorted(measured)} for model {model}, got {layers.get(model)}."
            )
    return {model: layers[model] for model in models}


def check_split(data: Iterable[Samples], what: str, *, descriptive: bool = False) -> None:
    """Refuse to choose something on samples that say they are of a test split.

    Samples that name no split pass: nothing is known of them.

    Args:
        data: The samples to choose on.
        what: The thing to be chosen, for the message: "the best layer", "the top heads".
        descriptive: Whether the choice only describes these samples, so that any split is allowed.

    Raises:
        StudyError: Samples of a test split, unless `descriptive`.
    """
    found = list(dict.fromkeys(samples.name for samples in data if _of_test(samples.split)))
    if found and not descriptive:
        raise StudyError(
            f"expected samples of a validation split to choose {what} on; got {', '.join(found)} of the test "
            f"split. A maximum over many candidates is too good on the samples it was found on, and then no "
            f"samples are left to "
            f'show it on. Choose on split="validation" and report on "test", or pass descriptive=True to '
            f"describe these samples only."
        )


def _of_test(split: str | None) -> bool:
    return split is not None and "test" in split.split(" + ")
