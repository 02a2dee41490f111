"""A comparison of indicators as the runner sees it: each sample's maps, and everything they are measured by."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from interp.errors import InterpError
from interp.metrics import kendall, named, spearman
from interp.run import FAILURES, Outcome, Shelf
from interp.run.task import failure
from interp.sample import Sample
from interp.study.indicator_costs import PLAIN, cost_entries, flops
from interp.study.indicator_layers import one_map
from interp.study.indicator_removals import CURVES, Curves, measured, run_removal
from interp.study.indicator_sanity import asked_otherwise, fixed_targets, other_questions, shuffled, stage_name
from interp.study.indicator_truth import BOXES, truth_boxes, truth_identity
from interp.study.pricing import billed
from interp.study.study_task import Rows, StudyTask
from interp.study.threads import suitable_threads
from interp.tokens import TokenMap
from interp.tracing import Cost

__all__ = ["FAITHFUL", "QUESTION", "WEIGHTS", "IndicatorTask"]

WEIGHTS, QUESTION = "weights", "question"
FAITHFUL, CHECKED = 1, 2
"""What besides the seed draws the samples for removals and for the sanity checks."""
AGREEMENT = {"spearman": spearman, "kendall": kendall}
NAME = pa.dictionary(pa.int32(), pa.string())
SCORES = pa.schema(
    [("index", pa.int64()), ("indicator", NAME), ("measure", NAME), ("against", NAME), ("value", pa.float64())]
)
"""`against`: the truth of a metric, the other indicator of an agreement, the removal of a faithfulness, the stage of
shuffled weights; of "question" the metric, or "spearman"."""
CURVE = pa.schema(
    [
        ("index", pa.int64()),
        ("indicator", NAME),
        ("removal", NAME),
        ("curve", NAME),
        ("fraction", pa.float64()),
        ("value", pa.float64()),
    ]
)
"""`value`: the target in nats."""
SAMPLES = pa.schema(
    [
        ("index", pa.int64()),
        ("sample", pa.string()),
        ("group", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("predicted", pa.string()),
        ("other_question", pa.string()),
        ("n_tokens", pa.int32()),
        ("n_prompt", pa.int32()),
        ("n_truth_tokens", pa.list_(pa.int32())),
        ("faithful", pa.bool_()),
        ("checked", pa.bool_()),
        ("image_index", pa.list_(pa.int32())),
        ("footprints", pa.list_(pa.float32())),
    ]
)
MAPS = pa.schema([("index", pa.int64()), ("indicator", NAME), ("values", pa.list_(pa.float32()))])
Map = Float[np.ndarray, " token"]


@dataclass(eq=False)
class Found:
    """What was made of one sample of a micro-batch."""

    maps: dict[str, Map] = field(default_factory=dict)
    shuffled: dict[tuple[str, str], Map] = field(default_factory=dict)
    asked: dict[str, Map] = field(default_factory=dict)
    lost: list[tuple[str, str, str]] = field(default_factory=list)


class IndicatorTask(StudyTask):
    """Computes an `IndicatorComparison`. An indicator that cannot be had of a sample is a failure of its own."""

    name = "indicator-comparison"

    def __init__(self, study: Any, mllm: Any) -> None:
        super().__init__(study, mllm)
        self.needs_boxes = BOXES in study.truth
        self._copies: dict[Any, Any] = {}
        self._warm = False

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_copies": {}, "_warm": False}

    def to_dict(self) -> dict[str, Any]:
        """Everything the stored numbers depend on."""
        study = self.study
        plain = ("metrics", "steps", "erased", "agreement", "randomised")
        return {
            **super().to_dict(),
            "indicators": {label: indicator.to_dict() for label, indicator in study.indicators.items()},
            "layers": {label: study.layers[label] for label in study.indicators if label in study.layers},
            "removals": {removal.name: removal.to_dict() for removal in study.removals},
            "truth": {truth: truth_identity(study.data, truth) for truth in study.truth},
            "target": study.target.to_dict(),
            **{name: list(getattr(study, name)) for name in plain},
            **{name: getattr(study, name) for name in ("n_faithful", "n_checked", "rule", "seed")},
        }

    def schemas(self) -> Mapping[str, pa.Schema]:
        """One row per value, per point of a curve, per sample, and the maps."""
        return {"scores": SCORES, "curves": CURVE, "samples": SAMPLES, "maps": MAPS}

    def joined(self) -> tuple[str, ...]:
        """All but the maps."""
        return ("scores", "curves", "samples")

    def measure(self, indices: tuple[int, ...]) -> Outcome:
        """Rows of each sample; the cost of each indicator stands beside the cost of all."""
        study = self.study
        samples = [study.data[index] for index in indices]
        costs: list[dict[str, float]] = []
        with suitable_threads(self.mllm):
            tokens, said = self._plain(samples, costs)
            found = [Found() for _ in indices]
            for label, indicator in study.indicators.items():
                self._run(label, indicator, samples, tokens, found, costs)
            self._check(indices, samples, found, costs)

            def rows(place: int, index: int) -> Rows:
                return self._rows(index, tokens[place], said[place], found[place], costs)

            whole = self.each(indices, rows)
        return Outcome(whole, _added(costs))

    def _plain(
        self, samples: list[Sample], costs: list[dict[str, float]]
    ) -> tuple[tuple[TokenMap, ...], list[str]]:
        """Where the image tokens are, what the model says, and the price of one plain forward."""
        study = self.study
        if not self._warm:  # what only the first pass of a process takes is nobody's cost
            self._warm = True
            billed(self.mllm, Shelf())[0].trace(samples[:1], prompt=study.prompt)
        mllm, bill = billed(self.mllm, self._shelf)
        trace = mllm.trace(samples, prompt=study.prompt)
        self._pay(PLAIN, trace.cost, bill.found, trace.tokens, costs)
        best = trace.logits.values.argmax(axis=-1)
        said = [str(mllm.processor.tokenizer.decode([int(token)])).strip() for token in best]
        return tuple(trace.tokens), said

    def _run(
        self,
        label: str,
        indicator: Any,
        samples: list[Sample],
        tokens: Sequence[TokenMap],
        found: list[Found],
        costs: list[dict[str, float]],
    ) -> None:
        """One indicator's map of every sample; where the batch fails, of each alone."""
        mllm, bill = billed(self.mllm, self._shelf)
        try:
            maps = self._call(indicator, mllm, samples)
        except InterpError:
            parts = [(place,) for place in range(len(samples))]
        else:
            self._pay(label, maps.cost, bill.found, tokens, costs)
            parts = []
            for place, own in enumerate(found):
                self._keep(own, label, lambda place=place: one_map(maps[place], label, self.study.layers))
        for (place,) in parts:
            mllm, bill = billed(self.mllm, self._shelf)
            try:
                maps = self._call(indicator, mllm, [samples[place]])
            except InterpError as error:
                found[place].lost.append((label, type(error).__name__, str(error)))
                continue
            self._pay(label, maps.cost, bill.found, tokens[place : place + 1], costs)
            self._keep(found[place], label, lambda maps=maps: one_map(maps[0], label, self.study.layers))

    def _keep(self, own: Found, label: str, make: Any) -> None:
        try:
            own.maps[label] = make()
        except InterpError as error:
            own.lost.append((label, type(error).__name__, str(error)))

    def _call(self, indicator: Any, mllm: Any, samples: list[Sample], target: Any = None) -> Any:
        chosen = self.study.target if target is None else target
        return indicator(mllm, samples, prompt=self.study.prompt, target=chosen)

    def _pay(
        self, label: str, cost: Cost, shared: Cost, tokens: Sequence[TokenMap], costs: list[dict[str, float]]
    ) -> None:
        """Write a cost down twice: what was spent, and under the indicator's name what it takes alone."""
        costs.append({name: float(value) for name, value in asdict(cost).items()})
        alone = cost + shared
        length = float(np.mean([one.length for one in tokens]))
        costs.append(cost_entries(label, alone, len(tokens), flops(self.mllm, alone, length)))

    def _check(
        self,
        indices: tuple[int, ...],
        samples: list[Sample],
        found: list[Found],
        costs: list[dict[str, float]],
    ) -> None:
        """The maps of the model with shuffled weights, and those under another question, of the samples drawn."""
        places = [place for place, index in enumerate(indices) if index in self._drawn[CHECKED]]
        if not places:
            return
        chosen = [samples[place] for place in places]
        targets = fixed_targets(self.mllm, chosen, self.study.prompt, self.study.target)
        for place, sample, target in zip(places, chosen, targets, strict=True):
            other = self._others[indices[place]]
            asked = None if other is None else asked_otherwise(sample, self.study.data[other])
            for label, indicator in self.study.indicators.items():
                if label not in found[place].maps:
                    continue
                for share in self.study.randomised:
                    made = self._once_more(label, indicator, self._copy(share), sample, target, found[place], costs)
                    if made is not None:
                        found[place].shuffled[label, stage_name(share)] = made
                if asked is not None:
                    made = self._once_more(label, indicator, self.mllm, asked, None, found[place], costs)
                    if made is not None:
                        found[place].asked[label] = made

    def _once_more(
        self,
        label: str,
        indicator: Any,
        mllm: Any,
        sample: Sample,
        target: Any,
        own: Found,
        costs: list[dict[str, float]],
    ) -> Map | None:
        try:
            maps = self._call(indicator, mllm, [sample], target)
            costs.append({name: float(value) for name, value in asdict(maps.cost).items()})
            return one_map(maps[0], label, self.study.layers)
        except InterpError as error:
            own.lost.append((label, type(error).__name__, f"in a sanity check: {error}"))
            return None

    def _copy(self, share: float | str) -> Any:
        """The model with shuffled weights, made once per process."""
        if share not in self._copies:
            self._copies[share] = shuffled(self.mllm, share, self.study.seed)
        return self._copies[share]

    def _rows(
        self, index: int, tokens: TokenMap, said: str, found: Found, costs: list[dict[str, float]]
    ) -> Rows:
        """The sample's scores, curves, own row and maps."""
        study, sample = self.study, self.study.data[index]
        masks = {truth: tokens.mask(truth_boxes(sample, truth), rule=study.rule) for truth in study.truth}
        curves, failures = self._curves(index, sample, found.maps, costs)
        scores = [
            *self._localised(found, masks, tokens),
            *self._agreed(found.maps),
            *self._faithful(curves),
            *self._sane(found, masks[study.truth[0]], tokens),
        ]
        rows = [dict(zip(SCORES.names, (index, *score), strict=True)) for score in scores]
        failures += [failure(self, index, error, reason, control=label) for label, error, reason in found.lost]
        failures += [self._silent(row) for row in rows if math.isnan(row["value"]) and row["measure"] not in AGREEMENT]
        maps = [
            {"index": index, "indicator": label, "values": values.astype(np.float32).tolist()}
            for label, values in found.maps.items()
        ]
        own = self._sample_row(index, tokens, said, [int(mask.sum()) for mask in masks.values()])
        return {
            "scores": rows,
            "curves": [dict(zip(CURVE.names, (index, *point), strict=True)) for point in self._points(curves)],
            "samples": [own],
            "maps": maps,
            FAILURES: failures,
        }

    def _localised(
        self, found: Found, masks: Mapping[str, np.ndarray], tokens: TokenMap
    ) -> Iterator[tuple[str, str, str, float]]:
        for label, values in found.maps.items():
            for truth, mask in masks.items():
                for name, value in self._scored(values, mask, tokens).items():
                    yield label, name, truth, value

    def _scored(self, values: Map, mask: np.ndarray, tokens: TokenMap) -> dict[str, float]:
        """Every metric of a map; tokens without a footprint are left out."""
        seen = ~np.isnan(tokens.footprints).any(axis=1)
        grid = tokens.grid if seen.all() else None
        chosen = named(self.study.metrics)
        return {metric.name: float(metric(values[seen], mask[seen], grid)) for metric in chosen}

    def _agreed(self, maps: Mapping[str, Map]) -> Iterator[tuple[str, str, str, float]]:
        for (a, first), (b, second) in itertools.combinations(maps.items(), 2):
            for name in self.study.agreement:
                yield a, name, b, AGREEMENT[name](first, second)

    def _curves(
        self, index: int, sample: Sample, maps: Mapping[str, Map], costs: list[dict[str, float]]
    ) -> tuple[dict[str, dict[str, Curves]], list[dict[str, Any]]]:
        """Removal → indicator → its curves; a removal that cannot be run of this sample is a failure."""
        study = self.study
        curves: dict[str, dict[str, Curves]] = {}
        failures: list[dict[str, Any]] = []
        if index not in self._drawn[FAITHFUL] or not maps:
            return curves, failures
        options = {"prompt": study.prompt, "target": study.target}
        for removal in study.removals:
            try:
                curves[removal.name], cost = run_removal(
                    removal, self.mllm, sample, maps, study.steps, seed=study.seed, options=options
                )
                costs.append({name: float(value) for name, value in asdict(cost).items()})
            except InterpError as error:
                failures.append(failure(self, index, type(error).__name__, str(error), metric=removal.name))
        return curves, failures

    def _faithful(self, curves: Mapping[str, Mapping[str, Curves]]) -> Iterator[tuple[str, str, str, float]]:
        study = self.study
        for removal, own in curves.items():
            for label, pair in own.items():
                for name, value in measured(pair, study.steps, study.erased, study.target).items():
                    yield label, name, removal, value

    def _points(
        self, curves: Mapping[str, Mapping[str, Curves]]
    ) -> Iterator[tuple[str, str, str, float, float]]:
        shares = (0.0, *self.study.steps, 1.0)
        for removal, own in curves.items():
            for label, pair in own.items():
                for name in CURVES:
                    for share, value in zip(shares, getattr(pair, name), strict=True):
                        yield label, removal, name, share, float(value)

    def _sane(
        self, found: Found, mask: np.ndarray, tokens: TokenMap
    ) -> Iterator[tuple[str, str, str, float]]:
        first = self.study.metrics[0]
        for (label, stage), values in found.shuffled.items():
            yield label, WEIGHTS, stage, spearman(found.maps[label], values)
        for label, values in found.asked.items():
            yield label, QUESTION, "spearman", spearman(found.maps[label], values)
            yield label, QUESTION, first, self._scored(values, mask, tokens)[first]

    def _silent(self, row: Mapping[str, Any]) -> dict[str, Any]:
        reason = (
            "undefined here: the map is the same everywhere, the truth covers no token or all, or taking every token "
            "away does not lower the target."
        )
        place = {"metric": f"{row['measure']} · {row['against']}", "control": row["indicator"]}
        return failure(self, row["index"], "undefined", reason, **place)

    def _sample_row(self, index: int, tokens: TokenMap, said: str, n_truth: list[int]) -> dict[str, Any]:
        sample, other = self.study.data[index], self._others[index]
        checked = index in self._drawn[CHECKED]
        return {
            "index": index,
            **dict(zip(("sample", "group"), self.identity(index), strict=True)),
            "question": sample.question,
            "answer": sample.answer,
            "predicted": said,
            "other_question": self.study.data[other].question if checked and other is not None else None,
            "n_tokens": tokens.n,
            "n_prompt": tokens.length,
            "n_truth_tokens": n_truth,
            "faithful": index in self._drawn[FAITHFUL],
            "checked": checked,
            "image_index": tokens.image_index.tolist(),
            "footprints": tokens.footprints.astype(np.float32).ravel().tolist(),
        }

    @cached_property
    def _usable(self) -> list[bool]:
        return [fault is None for fault in self._faults]

    @cached_property
    def _others(self) -> tuple[int | None, ...]:
        return other_questions(self.study.data, self._usable, self.study.seed)

    @cached_property
    def _drawn(self) -> dict[int, frozenset[int]]:
        """The samples on which removals and sanity checks are run."""
        able = [index for index, usable in enumerate(self._usable) if usable]
        limits = {FAITHFUL: self.study.n_faithful, CHECKED: self.study.n_checked}
        found = {}
        for stream, limit in limits.items():
            order = np.random.default_rng([self.study.seed, stream]).permutation(able).tolist() if able else []
            found[stream] = frozenset(int(index) for index in order[:limit])
        return found


def _added(costs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for cost in costs:
        for name, value in cost.items():
            join = max if name.startswith("peak") else float.__add__
            total[name] = join(total[name], value) if name in total else value
    return total
