"""One map over image tokens from an indicator that gives one per layer: its layer is chosen on other samples."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.errors import InterpError, MapError, RunError, StudyError
from interp.indicators import Maps
from interp.inputs.prompt import PAPER_PROMPT, Prompt, Target
from interp.metrics import METRICS
from interp.run import Workers
from interp.study.layer_choice import LayerChoice, choose_layer
from interp.study.layer_sweep.study import LayerSweep
from interp.study.model_spec import open_model
from interp.study.task import fault, suitable_threads
from interp.study.truth import at_truth

__all__ = ["SUM", "Aimed", "one_map", "with_layers"]

SUM = "sum"
TRIES = 3


@dataclass(frozen=True)
class Aimed:
    """An indicator with a fixed target, for studies that have no target of their own."""

    indicator: Any
    target: Target

    def __call__(self, mllm: Any, samples: Any, *, prompt: Prompt = PAPER_PROMPT) -> Maps:
        """The indicator's maps for the target."""
        return self.indicator(mllm, samples, prompt=prompt, target=self.target)

    def to_dict(self) -> dict[str, Any]:
        """Everything the maps depend on."""
        return {**self.indicator.to_dict(), "target": self.target.to_dict()}


def one_map(array: Any, label: str, layers: Mapping[str, int | str]) -> Float[np.ndarray, " token"]:
    """The map (token) of an indicator's array ([layer,] token), as float64.

    Raises:
        MapError: A map per head, a layer it does not have, several layers and no word on which, or values that are
            not finite.
    """
    dims = tuple(array.dims)
    if dims not in (("token",), ("layer", "token")):
        raise MapError(
            f"the indicator {label!r} gives a map {dims}; one over (layer, token) or (token) can be compared. Use "
            "per_head=False."
        )
    values = np.asarray(array.values, np.float64)
    if dims == ("layer", "token"):
        values = _of_layers(values, [int(one) for one in array.coords["layer"].values], label, layers)
    if not np.isfinite(values).all():
        raise MapError(
            f'the map of {label!r} holds NaN or infinity. Does the model overflow? Try dtype="float32".'
        )
    return values


def _of_layers(
    values: Float[np.ndarray, "layer token"], found: list[int], label: str, layers: Mapping[str, int | str]
) -> Float[np.ndarray, " token"]:
    chosen = layers.get(label, found[0] if len(found) == 1 else None)
    if chosen == SUM:
        return values.sum(axis=0)
    if chosen not in found:
        raise MapError(
            f"the indicator {label!r} gives a map for each of the layers {found}; got {chosen!r}. Name one in layers={{"
            f"{label!r}: …}}, {SUM!r} to add them up, or give validation samples to choose it on."
        )
    return values[found.index(int(chosen))]


def with_layers(
    study: Any,
    out: str | os.PathLike[str],
    *,
    workers: int | Workers = 1,
    progress: bool = True,
    mllm: Any = None,
) -> Any:
    """The comparison with a layer, or "sum", for each indicator that gives several; see `IndicatorComparison`.

    An indicator's map of one sample shows whether it gives several. A layer has the best mean of the study's
    `choose_by` against its first truth on the validation samples; these runs stay under `out` and are found again.

    Raises:
        StudyError: An indicator with several layers and nothing to choose on, or validation samples of a test split.
    """
    opened = open_model(study.model) if mllm is None else mllm
    layers, choices = dict(study.layers), dict(study.choices)
    for label, indicator in study.indicators.items():
        if label in layers or not _layered(study, indicator, opened):
            continue
        if getattr(indicator, "layers_add_up", False):
            layers[label], choices[label] = SUM, "its layers added up"
            continue
        if study.validation is None:
            raise StudyError(
                f"the indicator {label!r} gives a map per layer, and one is compared. Give validation=samples to "
                f"choose it on (never the samples it is shown on), or name it: layers={{{label!r}: 3}}."
            )
        sweep = LayerSweep(
            data=at_truth(study.validation, study.truth[0]),
            model=study.model,
            indicator=indicator if study.target == Target() else Aimed(indicator, study.target),
            metrics=(study.choose_by,),
            prompt=study.prompt,
            rule=study.rule,
            batch=study.batch,
        )
        found = sweep.run(out, workers=workers, progress=progress, mllm=opened)
        choice = choose_layer(found, study.choose_by)
        (layers[label],) = choice.layers.values()
        choices[label] = _words(choice, study)
    return study.replace(layers=layers, choices=choices, validation=None)


def _words(choice: LayerChoice, study: Any) -> str:
    """How a layer was chosen."""
    groups = set(study.data.groups)
    apart = (
        "sharing no group with these"
        if not choice.groups & groups
        else "SOME OF WHOSE GROUPS ARE AMONG THESE"
    )
    n, name = len(study.validation), study.validation.name
    few = f". {choice.caution}" if choice.caution else ""
    return f"the best mean {METRICS[choice.metric].label} of all layers on {n} other samples of {name}, {apart}{few}"


def _layered(study: Any, indicator: Any, mllm: Any) -> bool:
    """Whether the indicator gives several layers, by its map of one of the first samples."""
    usable = (sample for sample in study.data if not fault(sample, boxes=False))
    for sample in itertools.islice(usable, TRIES):
        try:
            with suitable_threads(mllm):
                maps = indicator(mllm, [sample], prompt=study.prompt, target=study.target)
        except RunError:
            raise
        except InterpError:
            continue
        return "layer" in maps[0].dims and maps[0].sizes["layer"] > 1
    return False
