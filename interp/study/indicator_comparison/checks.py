"""What a comparison of indicators is refused for, before anything runs: validators of its fields."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interp.data import Samples
from interp.errors import StudyError
from interp.inputs.prompt import Target
from interp.inputs.sample import Sample
from interp.study.indicator_comparison.one_map import SUM
from interp.study.model_spec import is_remote
from interp.study.study import is_indicator
from interp.tracing.copies import randomised

__all__ = [
    "AGREEMENT",
    "ALL",
    "asked_otherwise",
    "check_choices",
    "check_erased",
    "check_few",
    "check_indicators",
    "check_layers",
    "check_least",
    "check_randomised",
    "check_removals",
    "check_steps",
    "check_target",
    "check_weights",
    "distinct",
    "fixed_targets",
    "other_questions",
    "shuffled",
    "stage_name",
]

AGREEMENT = ("spearman", "kendall")
ALL = "all"


def check_indicators(name: str, value: Any) -> None:
    """A mapping from labels without "|" to indicators that do not give a map per head."""
    if not isinstance(value, Mapping) or not value:
        raise StudyError(
            f"{name} is a list of indicators or a mapping from label to indicator, at least one; got {value!r}."
        )
    for label, one in value.items():
        if not isinstance(label, str) or not label.strip() or "|" in label:
            raise StudyError(f"an indicator's label is a text without '|'; got {label!r}.")
        is_indicator(f"the indicator {label!r}", one)
        if getattr(one, "per_head", False):
            raise StudyError(
                f"a comparison takes one map per layer or one in all; {label!r} has per_head=True."
            )


def check_layers(layers: Any, indicators: Mapping[str, Any]) -> None:
    """A mapping from labels of the indicators to a layer or "sum"."""
    if not isinstance(layers, Mapping):
        raise StudyError(f"layers is a mapping from an indicator's label to a layer; got {layers!r}.")
    for label, layer in layers.items():
        right = layer == SUM or (isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0)
        if label not in indicators or not right:
            raise StudyError(
                f"layers maps labels of the indicators to a layer 0, 1, … or {SUM!r}; got {label!r}: {layer!r}."
            )


def check_few(few: Any, indicators: Mapping[str, Any]) -> None:
    """A mapping from labels of the indicators to a number of samples."""
    for label, n in few.items() if isinstance(few, Mapping) else [(few, None)]:
        if (
            not isinstance(label, str)
            or label not in indicators
            or isinstance(n, bool)
            or not isinstance(n, int)
            or n < 1
        ):
            raise StudyError(
                f"few maps labels of the indicators to a number of samples ≥ 1; got {label!r}: {n!r}."
            )


def check_choices(name: str, value: Any) -> None:
    """A mapping from labels to sentences."""
    texts = [*value.keys(), *value.values()] if isinstance(value, Mapping) else [None]
    if not all(isinstance(one, str) for one in texts):
        raise StudyError(
            f"{name} maps labels to how their layer was chosen, in words; got {value!r}. Leave it out."
        )


def check_removals(name: str, value: Any) -> None:
    """Removals of distinct names."""
    for removal in value if isinstance(value, tuple) else (value,):
        if not callable(getattr(removal, "scores", None)) or not hasattr(removal, "to_dict"):
            raise StudyError(f"{name} are of interp.indicators, such as HideTokens(); got {removal!r}.")
    names = [removal.name for removal in value]
    if len(set(names)) < len(names):
        raise StudyError(f"{name} have a name of their own each; got {', '.join(names)}.")


def check_erased(name: str, value: Any) -> None:
    """One or more fractions."""
    if not isinstance(value, tuple) or not value or not all(isinstance(one, int | float) for one in value):
        raise StudyError(f"{name} are some of the steps, such as (0.1, 0.2); got {value!r}.")


def check_steps(name: str, value: Any) -> None:
    """Increasing fractions between 0 and 1."""
    numbers = isinstance(value, tuple) and all(isinstance(one, int | float) for one in value)
    inside = numbers and all(0 < one < 1 for one in value)
    if not value or not inside or any(a >= b for a, b in itertools.pairwise(value)):
        raise StudyError(f"{name} are increasing fractions between 0 and 1, both left out; got {value!r}.")


def check_least(name: str, value: Any) -> None:
    """A number above 0."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise StudyError(f"{name} is a number > 0, on the scale of the target; got {value!r}.")


def check_randomised(name: str, value: Any) -> None:
    """Shares of the layers in (0, 1], and "all"."""
    for share in value if isinstance(value, tuple) else (value,):
        number = isinstance(share, int | float) and not isinstance(share, bool) and 0 < share <= 1
        if not isinstance(value, tuple) or not (number or (isinstance(share, str) and share == ALL)):
            raise StudyError(f"{name} holds shares of the layers in (0, 1], and {ALL!r}; got {share!r}.")


def check_weights(model: Any, randomised: Sequence[Any], n_checked: int | None) -> None:
    """No shuffled weights where a server has the model."""
    if randomised and n_checked != 0 and is_remote(model):
        raise StudyError(
            "randomised= shuffles the model's weights, and those on an NDIF server are the same for all who use it. "
            "Pass randomised=(), or a model without remote=True."
        )


def check_target(name: str, value: Any) -> None:
    """An `interp.Target`."""
    if not isinstance(value, Target):
        raise StudyError(f'{name} is an interp.Target, such as Target("answer"); got {value!r}.')


def distinct(name: str, value: Any) -> None:
    """One or more words, each once."""
    texts = isinstance(value, tuple) and all(isinstance(one, str) for one in value)
    if not texts or not value or len(set(value)) < len(value):
        raise StudyError(f"{name} names one or more boxes, each once; got {value!r}.")


def stage_name(share: float | str) -> str:
    """What tables call a stage of shuffled weights."""
    return "all weights" if share == ALL else f"top {100 * float(share):.0f} % of layers"


def shuffled(mllm: Any, share: float | str, seed: int) -> Any:
    """The copy of the model for a stage."""
    if share == ALL:
        return randomised(mllm, everything=True, seed=seed)
    return randomised(mllm, float(share), seed=seed)


def fixed_targets(mllm: Any, samples: Sequence[Sample], prompt: Any, target: Target) -> list[Target]:
    """The target of each sample as an answer that does not change with the model.

    "greedy" is what the model itself would say; a copy with other weights would say something else, and its map of
    that would differ for that reason alone. An empty answer stays "greedy".
    """
    if target.spec != "greedy":
        return [target] * len(samples)
    n = int(getattr(target, "tokens", 1))
    said = mllm.trace(samples, prompt=prompt, generate=n).answers
    return [Target(text, reduce=target.reduce) if text and text.strip() else target for text in said]


def other_questions(data: Samples, usable: Sequence[bool], seed: int) -> tuple[int | None, ...]:
    """For every sample the index of one with another question; None where all ask the same.

    The usable samples stand in a ring in random order, and each takes the question of the next that asks otherwise.
    """
    able = [index for index in range(len(data)) if usable[index]]
    ring = np.random.default_rng(seed).permutation(able).tolist() if able else []
    found: list[int | None] = [None] * len(data)
    for place, index in enumerate(ring):
        later = (ring[(place + step) % len(ring)] for step in range(1, len(ring)))
        found[index] = next((one for one in later if data[one].question != data[index].question), None)
    return tuple(found)


def asked_otherwise(sample: Sample, other: Sample) -> Sample:
    """The sample's image with another sample's question, options and answer; boxes stay."""
    return sample.replace(question=other.question, options=other.options, answer=other.answer, id=sample.id)
