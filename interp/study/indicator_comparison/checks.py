"""What a comparison of indicators is refused for, before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interp.data import Samples
from interp.errors import StudyError
from interp.inputs.prompt import Prompt, Target
from interp.inputs.sample import Sample
from interp.metrics import METRICS
from interp.study.indicator_comparison.one_map import SUM
from interp.tracing.copies import randomised

__all__ = [
    "AGREEMENT",
    "ALL",
    "asked_otherwise",
    "check_comparison",
    "fixed_targets",
    "other_questions",
    "shuffled",
    "stage_name",
]

RULES = ("touch", "center", "stretch")
AGREEMENT = ("spearman", "kendall")
ALL = "all"


def check_comparison(study: Any) -> None:
    """Raise `StudyError` for a study that makes no sense."""
    if len(study.data) == 0:
        raise StudyError(f"the data {study.data.name!r} hold no sample. Was a filter too strict?")
    _check_indicators(study)
    _check_removals(study.removals)
    _check_steps(study)
    if not isinstance(study.prompt, Prompt) or not isinstance(study.target, Target):
        raise StudyError(
            f"prompt is an interp.Prompt and target an interp.Target; got {study.prompt!r}, {study.target!r}."
        )
    if study.choose_by not in METRICS:
        raise StudyError(f"choose_by is one of {', '.join(METRICS)}; got {study.choose_by!r}.")
    if study.rule not in RULES:
        raise StudyError(f"rule is one of {', '.join(RULES)}; got {study.rule!r}.")
    if not study.truth or len(set(study.truth)) < len(study.truth):
        raise StudyError(f"truth names one or more boxes, each once; got {study.truth!r}.")
    if not set(study.agreement) <= set(AGREEMENT) or len(set(study.agreement)) < len(study.agreement):
        raise StudyError(
            f"agreement holds some of {', '.join(AGREEMENT)}, each once; got {study.agreement!r}."
        )
    for name, low, none in (
        ("seed", 0, False),
        ("batch", 1, False),
        ("n_faithful", 0, True),
        ("n_checked", 0, True),
    ):
        value = getattr(study, name)
        right = isinstance(value, int) and not isinstance(value, bool) and value >= low
        if not right and not (none and value is None):
            raise StudyError(f"{name} is a whole number ≥ {low}{', or None' if none else ''}; got {value!r}.")


def _check_indicators(study: Any) -> None:
    named = study.indicators
    if not isinstance(named, Mapping) or not named:
        raise StudyError(f"indicators is a mapping from label to indicator, at least one; got {named!r}.")
    for label, indicator in named.items():
        if not isinstance(label, str) or not label.strip() or "|" in label:
            raise StudyError(f"an indicator's label is a text without '|'; got {label!r}.")
        if not callable(indicator) or not hasattr(indicator, "to_dict"):
            raise StudyError(
                f"indicators are of interp.indicators, such as Attention(); got {indicator!r} under {label!r}."
            )
        if getattr(indicator, "per_head", False):
            raise StudyError(
                f"a comparison takes one map per layer or one in all; {label!r} has per_head=True."
            )
    if not isinstance(study.layers, Mapping):
        raise StudyError(f"layers is a mapping from an indicator's label to a layer; got {study.layers!r}.")
    for label, layer in study.layers.items():
        right = layer == SUM or (isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0)
        if label not in named or not right:
            raise StudyError(
                f"layers maps labels of the indicators to a layer 0, 1, … or {SUM!r}; got {label!r}: {layer!r}."
            )

    for label, n in study.few.items() if isinstance(study.few, Mapping) else [(study.few, None)]:
        if label not in named or isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise StudyError(
                f"few maps labels of the indicators to a number of samples ≥ 1; got {label!r}: {n!r}."
            )


def _check_removals(removals: tuple[Any, ...]) -> None:
    for removal in removals:
        if not callable(getattr(removal, "scores", None)) or not hasattr(removal, "to_dict"):
            raise StudyError(f"removals are of interp.indicators, such as HideTokens(); got {removal!r}.")
    names = [removal.name for removal in removals]
    if len(set(names)) < len(names):
        raise StudyError(f"removals have a name of their own each; got {', '.join(names)}.")


def _check_steps(study: Any) -> None:
    steps = study.steps
    inside = all(isinstance(one, int | float) and 0 < one < 1 for one in steps)
    if not steps or not inside or any(a >= b for a, b in itertools.pairwise(steps)):
        raise StudyError(f"steps are increasing fractions between 0 and 1, both left out; got {steps!r}.")
    if not study.erased or not set(study.erased) <= set(steps):
        raise StudyError(f"erased are some of the steps {steps!r}; got {study.erased!r}.")
    if not isinstance(study.least, int | float) or not study.least > 0:
        raise StudyError(f"least is a number > 0, on the scale of the target; got {study.least!r}.")
    for share in study.randomised:
        number = isinstance(share, int | float) and not isinstance(share, bool) and 0 < share <= 1
        if share != ALL and not number:
            raise StudyError(f"randomised holds shares of the layers in (0, 1], and {ALL!r}; got {share!r}.")


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
    return [Target(text, reduce=target.reduce) if text.strip() else target for text in said]


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
