"""One map per sample and indicator: of the model as it is, of copies with shuffled weights, under other questions."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.data import Samples
from interp.errors import InterpError, MapError, RunError, StudyError
from interp.indicators import Maps
from interp.inputs.prompt import PAPER_PROMPT, Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.metrics import METRICS
from interp.models.configs import layer_configs
from interp.run import ProcessCache, Workers, cost_of
from interp.study.layer_choice import LayerChoice, choose_layer
from interp.study.layer_sweep.study import LayerSweep
from interp.study.model_spec import open_model
from interp.study.prefix_cost import billed, stored_cost
from interp.study.runs import GridCell
from interp.study.task import fault, suitable_threads
from interp.study.truth import at_truth
from interp.tracing import Cost
from interp.tracing.copies import randomised

__all__ = [
    "ALL",
    "FLOPS",
    "PLAIN",
    "SPENT",
    "SUM",
    "Aimed",
    "Found",
    "MapMaker",
    "asked_otherwise",
    "cost_entries",
    "costs",
    "fixed_targets",
    "flops",
    "one_map",
    "other_questions",
    "shuffled",
    "stage_name",
    "with_layers",
]


PLAIN = "plain forward"
SPENT = ("seconds", "forwards", "backwards", "tokens")
FLOPS = """Estimated floating-point operations of the language model's decoder layers: 2 · P · T for the weights, where
P is their number of parameters and T the number of token positions processed, plus 4 · L · d · S · T for attention,
where L is the number of layers, d the width of all heads and S the mean length of a prompt, as if every position
attended to a whole prompt. A backward pass counts as two average forward passes. Not included: vision tower and
projector (which indicators on pixels run again for every variant), output head, softmax, norms, and the arithmetic on
maps."""


def flops(mllm: Any, cost: Cost, length: float) -> float:
    """The estimate that `FLOPS` describes; NaN for a model without weights to count.

    Args:
        mllm: The model.
        cost: The forward and backward passes and the token positions.
        length: S, the mean number of positions of a prompt.
    """
    if not hasattr(mllm, "hf"):
        return math.nan
    layers = mllm.adapter.layers(mllm.hf)
    weights = sum(weight.numel() for layer in layers for weight in layer.parameters())
    config = mllm.hf.config.get_text_config(decoder=True)
    each_size = config.hidden_size // config.num_attention_heads
    sizes = [getattr(one, "head_dim", None) or each_size for one in layer_configs(config)]
    size = sum(sizes) / len(sizes)  # layers of Gemma 4 differ
    each = 2 * weights + 4 * len(layers) * size * config.num_attention_heads * length
    backward = 2 * cost.backwards / cost.forwards if cost.forwards else 0.0
    return float(each * cost.tokens * (1 + backward))


def cost_entries(label: str, cost: Cost, n: int, operations: float) -> dict[str, float]:
    """The cost of one indicator on a micro-batch, under the names that `costs` reads. Entries add up; peaks do not."""
    found = {f"{name}|{label}": float(getattr(cost, name)) for name in SPENT}
    counted = {} if math.isnan(operations) else {f"flops|{label}": operations}
    return {
        **found,
        f"peak_bytes|{label}": float(cost.peak_bytes),
        f"samples|{label}": float(n),
        **counted,
    }


def costs(cells: Sequence[GridCell]) -> pd.DataFrame:
    """One row per (axes…, indicator), the plain forward first: the cost of a map of one sample.

    Columns `seconds`, `forwards`, `backwards`, `tokens` and `flops` per sample; `peak_bytes`; `samples` (the number of
    samples it ran on); and `seconds_ratio`, `tokens_ratio` and `flops_ratio`: divided by the plain forward of the same
    samples.
    """
    rows = []
    for cell in cells:
        total = cost_of(cell.folder)
        plain = _each(total, PLAIN)
        for label in (PLAIN, *cell.study.indicators):
            own = _each(total, label)
            if own is None:
                continue
            ratios = {
                f"{name}_ratio": own[name] / plain[name] if plain and plain[name] else math.nan
                for name in ("seconds", "tokens", "flops")
            }
            rows.append({**cell.labels, "indicator": label, **own, **ratios})
    return pd.DataFrame(rows)


def _each(total: dict[str, float], label: str) -> dict[str, float] | None:
    n = total.get(f"samples|{label}", 0.0)
    if not n:
        return None
    found = {name: total.get(f"{name}|{label}", math.nan) / n for name in (*SPENT, "flops")}
    return {**found, "peak_bytes": total.get(f"peak_bytes|{label}", math.nan), "samples": n}


ALL = "all"
"""The stage of the sanity check that shuffles every weight."""
CHECKS = 8
"""In the sanity checks an indicator that is limited by `few` runs on this many times fewer samples."""
Map = Float[np.ndarray, " token"]
Costs = list[dict[str, float]]
"""What a micro-batch costs, piece by piece; `interp.run.sessions.sum_costs` adds the pieces up."""


@dataclass(eq=False)
class Found:
    """The maps of one sample.

    Attributes:
        tokens: Where its image tokens lie.
        said: The likeliest first token of the answer.
        rank: Its place in the random order by which samples are chosen.
        maps: Indicator → the map.
        shuffled: (indicator, stage of shuffled weights) → the map.
        asked: Indicator → the map under another question.
        lost: (indicator, error, reason) of each map that could not be made.
    """

    tokens: TokenMap
    said: str
    rank: int
    maps: dict[str, Map] = field(default_factory=dict)
    shuffled: dict[tuple[str, str], Map] = field(default_factory=dict)
    asked: dict[str, Map] = field(default_factory=dict)
    lost: list[tuple[str, str, str]] = field(default_factory=list)


class MapMaker:
    """Makes the maps of a study's indicators on one process's model; copies with shuffled weights are made once."""

    def __init__(self, study: Any) -> None:
        self._study = study
        self._copies: dict[Any, Any] = {}
        self._warm = False

    def make(
        self, mllm: Any, shelf: ProcessCache, samples: Sequence[Sample], ranks: Sequence[int], costs: Costs
    ) -> list[Found]:
        """Every indicator's map of every sample; one that fails on the batch runs again on each sample alone."""
        found = self._plain(mllm, shelf, samples, ranks, costs)
        for label in self._study.indicators:
            limit = self._study.few.get(label, math.inf)
            chosen = [(sample, own) for sample, own in zip(samples, found, strict=True) if own.rank < limit]
            asked, of = [sample for sample, _ in chosen], [own for _, own in chosen]
            if asked and not self._batch(label, mllm, shelf, asked, of, costs):
                for sample, own in chosen:
                    self._batch(label, mllm, shelf, [sample], [own], costs, last=True)
        return found

    def check(self, mllm: Any, pairs: Sequence[tuple[Sample, Sample | None, Found]], costs: Costs) -> None:
        """Add the maps under shuffled weights and under the question of each sample's partner."""
        study = self._study
        samples = [sample for sample, _, _ in pairs]
        targets = fixed_targets(mllm, samples, study.prompt, study.target) if samples else []
        for (sample, other, own), target in zip(pairs, targets, strict=True):
            for label in [one for one in own.maps if self._checks(one, own)]:
                for share in study.randomised:
                    made = self._again(label, self._copy(mllm, share), sample, target, own, costs)
                    if made is not None:
                        own.shuffled[label, stage_name(share)] = made
                if other is not None:
                    asked = asked_otherwise(sample, other)
                    made = self._again(label, mllm, asked, study.target, own, costs)
                    if made is not None:
                        own.asked[label] = made

    def _checks(self, label: str, own: Found) -> bool:
        few = self._study.few.get(label)
        return few is None or own.rank < max(1, few // CHECKS)

    def _plain(
        self, mllm: Any, shelf: ProcessCache, samples: Sequence[Sample], ranks: Sequence[int], costs: Costs
    ) -> list[Found]:
        """Where the image tokens are, the model's first token, and the cost of one plain forward."""
        prompt = self._study.prompt
        if not self._warm:  # exclude the warm-up: the first pass of a process takes longer
            self._warm = True
            billed(mllm, ProcessCache())[0].trace(samples[:1], prompt=prompt)
        own, bill = billed(mllm, shelf)
        trace = own.trace(samples, prompt=prompt)
        best = trace.logits.values.argmax(axis=-1)
        said = [str(mllm.processor.tokenizer.decode([int(token)])).strip() for token in best]
        found = [Found(*one) for one in zip(trace.tokens, said, ranks, strict=True)]
        self._pay(PLAIN, mllm, trace.cost, bill.found, found, costs)
        return found

    def _batch(
        self,
        label: str,
        mllm: Any,
        shelf: ProcessCache,
        samples: Sequence[Sample],
        found: Sequence[Found],
        costs: Costs,
        *,
        last: bool = False,
    ) -> bool:
        """Run one indicator on some samples, and return whether it ran; with `last`, record why it did not."""
        own, bill = billed(mllm, shelf)
        try:
            maps = self._call(label, own, samples, self._study.target)
        except RunError:  # an error of the run, such as a lost server, not of the samples
            raise
        except InterpError as error:
            if last:
                found[0].lost.append((label, type(error).__name__, str(error)))
            return False
        self._pay(label, mllm, maps.cost, bill.found, found, costs)
        for one, array in zip(found, maps, strict=True):
            try:
                one.maps[label] = one_map(array, label, self._study.layers)
            except InterpError as error:
                one.lost.append((label, type(error).__name__, str(error)))
        return True

    def _again(
        self, label: str, mllm: Any, sample: Sample, target: Any, own: Found, costs: Costs
    ) -> Map | None:
        try:
            maps = self._call(label, mllm, [sample], target)
            costs.append(stored_cost(maps.cost))
            return one_map(maps[0], label, self._study.layers)
        except RunError:
            raise
        except InterpError as error:
            own.lost.append((label, type(error).__name__, f"in a sanity check: {error}"))
            return None

    def _call(self, label: str, mllm: Any, samples: Sequence[Sample], target: Any) -> Any:
        return self._study.indicators[label](mllm, list(samples), prompt=self._study.prompt, target=target)

    def _pay(
        self, label: str, mllm: Any, cost: Cost, shared: Cost, found: Sequence[Found], costs: Costs
    ) -> None:
        """Record a cost twice: what was spent, and under the indicator's name the cost if it ran alone."""
        costs.append(stored_cost(cost))
        alone = cost + shared
        length = float(np.mean([one.tokens.length for one in found]))
        costs.append(cost_entries(label, alone, len(found), flops(mllm, alone, length)))

    def _copy(self, mllm: Any, share: float | str) -> Any:
        if share not in self._copies:
            self._copies[share] = shuffled(mllm, share, self._study.seed)
        return self._copies[share]


def stage_name(share: float | str) -> str:
    """The name of a stage of shuffled weights in tables."""
    return "all weights" if share == ALL else f"top {100 * float(share):.0f} % of layers"


def shuffled(mllm: Any, share: float | str, seed: int) -> Any:
    """A copy of the model with the shuffled weights of a stage."""
    if share == ALL:
        return randomised(mllm, everything=True, seed=seed)
    return randomised(mllm, float(share), seed=seed)


def fixed_targets(mllm: Any, samples: Sequence[Sample], prompt: Any, target: Target) -> list[Target]:
    """Each sample's target, fixed to an answer that does not change with the model.

    "greedy" is the model's own answer. A copy with other weights would give another answer, and its map would differ
    for that reason alone. An empty answer stays "greedy".
    """
    if target.spec != "greedy":
        return [target] * len(samples)
    n = int(getattr(target, "tokens", 1))
    said = mllm.trace(samples, prompt=prompt, generate=n).answers
    return [Target(text, reduce=target.reduce) if text and text.strip() else target for text in said]


def other_questions(data: Samples, usable: Sequence[bool], seed: int) -> tuple[int | None, ...]:
    """For every sample the index of a sample with another question; None where all ask the same.

    The usable samples form a ring in random order, and each takes the question of the next that asks otherwise.
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


SUM = "sum"
TRIES = 3


@dataclass(frozen=True)
class Aimed:
    """An indicator with a fixed target, for studies without a target."""

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
        MapError: The array has a map per head, lacks the chosen layer, has several layers without a choice, or is not
            finite.
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
    """The comparison with a layer, or "sum", for each indicator that gives several layers.

    An indicator's map of one sample shows whether it gives several layers. The chosen layer has the best mean of the
    study's `choose_by` against its first truth on the validation samples. These runs stay under `out`, so a second call
    finds them.

    Raises:
        StudyError: An indicator gives several layers and there are no validation samples, or these are of a test split.
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
    """How a layer was chosen, in words."""
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
