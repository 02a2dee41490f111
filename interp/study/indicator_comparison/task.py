"""The task of an `IndicatorComparison`: each sample's maps and all their measures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from interp.errors import InterpError
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.metrics import kendall, named, spearman
from interp.run import FAILURES, Outcome
from interp.run.sessions import sum_costs
from interp.run.task import failure
from interp.study.dataframes import NAME, SAMPLE_FIELDS
from interp.study.indicator_comparison.indicator_maps import Costs, Found, MapMaker, other_questions
from interp.study.indicator_comparison.removal_curves import CURVES, Curves, measured, run_removal
from interp.study.prefix_cost import stored_cost
from interp.study.task import StudyTask, TableRows, suitable_threads
from interp.study.truth import BOXES, inside_of, truth_boxes, truth_identity

__all__ = ["AGREEMENT", "CURVE", "MAPS", "QUESTION", "SAMPLES", "SCORES", "WEIGHTS", "IndicatorTask"]

SCORES = pa.schema(
    [
        ("index", pa.int64()),
        ("indicator", NAME),
        ("measure", NAME),
        ("against", NAME),
        ("value", pa.float64()),
    ]
)
"""`against`: for a metric the truth, for an agreement the other indicator, for faithfulness the removal, for "weights"
the stage of shuffled weights, for "question" the metric or "spearman"."""
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
        *SAMPLE_FIELDS,
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

WEIGHTS, QUESTION = "weights", "question"
AGREEMENT = {"spearman": spearman, "kendall": kendall}
Map = Float[np.ndarray, " token"]
Score = tuple[str, str, str, float]
"""Indicator, measure, against, value: see `SCORES`."""


class IndicatorTask(StudyTask):
    """Computes an `IndicatorComparison`. Each indicator that gives no map of a sample is a failure of its own."""

    name = "indicator-comparison"

    def __init__(self, study: Any, mllm: Any) -> None:
        super().__init__(study, mllm)
        self.needs_boxes = BOXES in study.truth
        self._maker = MapMaker(study)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_maker": MapMaker(self.study)}

    def to_dict(self) -> dict[str, Any]:
        """Everything the stored numbers depend on."""
        study = self.study
        plain = ("metrics", "steps", "erased", "agreement", "randomised")
        order = (
            {"truth_order": list(study.truth)} if len(study.truth) > 1 else {}
        )  # the first has more scores
        return {
            **super().to_dict(),
            "indicators": {label: indicator.to_dict() for label, indicator in study.indicators.items()},
            "few": {label: study.few[label] for label in study.indicators if label in study.few},
            "layers": {label: study.layers[label] for label in study.indicators if label in study.layers},
            "removals": {removal.name: removal.to_dict() for removal in study.removals},
            "truth": {truth: truth_identity(study.data, truth) for truth in study.truth},
            **order,
            "target": study.target.to_dict(),
            **{name: list(getattr(study, name)) for name in plain},
            **{name: getattr(study, name) for name in ("least", "n_faithful", "n_checked", "rule", "seed")},
        }

    @property
    def _planned(self) -> dict[str, Any]:
        """A shard is one micro-batch, because each sample takes hundreds of passes and workers share shards."""
        return {**super()._planned, "shard": self.study.batch}

    def provenance(self) -> dict[str, Any]:
        """Names, and how each layer was chosen."""
        return {**super().provenance(), "layers": dict(self.study.choices)}

    def schemas(self) -> Mapping[str, pa.Schema]:
        """The tables: one row per value, one per point of a curve, one per sample, and the maps."""
        return {"scores": SCORES, "curves": CURVE, "samples": SAMPLES, "maps": MAPS}

    def joined(self) -> tuple[str, ...]:
        """All tables except the maps."""
        return ("scores", "curves", "samples")

    def measure(self, indices: tuple[int, ...]) -> Outcome:
        """The rows of each sample; the cost of each indicator is listed beside the total."""
        data, costs = self.study.data, Costs()
        with suitable_threads(self.mllm):
            ranks = [self._ranks[index] for index in indices]
            found = self._maker.make(self.mllm, self._shelf, [data[index] for index in indices], ranks, costs)
            pairs = []
            for index, own in zip(indices, found, strict=True):
                other = self._others[index]
                if index in self._checked_on:
                    pairs.append((data[index], None if other is None else data[other], own))
            self._maker.check(self.mllm, pairs, costs)
            rows = self.each(indices, lambda place, index: self._rows(index, found[place], costs))
        return Outcome(rows, sum_costs(costs))

    def _rows(self, index: int, found: Found, costs: Costs) -> TableRows:
        """The sample's scores, curves, own row and maps."""
        study, sample, tokens = self.study, self.study.data[index], found.tokens
        masks = {truth: self._inside(tokens, sample, truth) for truth in study.truth}
        curves, failures = self._curves(index, sample, found.maps, costs)
        scores = [
            *self._localised(found, masks),
            *self._agreed(found.maps),
            *self._faithful(curves),
            *self._sane(found, masks[study.truth[0]]),
        ]
        rows = [dict(zip(SCORES.names, (index, *score), strict=True)) for score in scores]
        failures += [
            failure(self, index, error, reason, control=label) for label, error, reason in found.lost
        ]
        undefined = [score for score in scores if math.isnan(score[3]) and score[1] not in AGREEMENT]
        failures += self._silent(index, undefined)
        maps = [
            {"index": index, "indicator": label, "values": values.astype(np.float32).tolist()}
            for label, values in found.maps.items()
        ]
        own = self._sample_row(index, found, [int((mask > 0).sum()) for mask in masks.values()])
        return {
            "scores": rows,
            "curves": [
                dict(zip(CURVE.names, (index, *point), strict=True)) for point in self._points(curves)
            ],
            "samples": [own],
            "maps": maps,
            FAILURES: failures,
        }

    def _inside(self, tokens: TokenMap, sample: Sample, truth: str) -> np.ndarray:
        """Which tokens belong to a truth: bool, or the fraction that masks cover."""
        if truth == BOXES:
            return inside_of(tokens, sample, self.study.rule)
        return tokens.mask(truth_boxes(sample, truth), rule=self.study.rule)

    def _localised(self, found: Found, masks: Mapping[str, np.ndarray]) -> Iterator[Score]:
        for label, values in found.maps.items():
            for truth, mask in masks.items():
                for name, value in self._scored(values, mask, found.tokens).items():
                    yield label, name, truth, value

    def _scored(self, values: Map, mask: np.ndarray, tokens: TokenMap) -> dict[str, float]:
        """Every metric of a map; tokens without a footprint are left out."""
        seen = ~np.isnan(tokens.footprints).any(axis=1)
        grid = tokens.grid if seen.all() else None
        chosen = named(self.study.metrics)
        return {metric.name: float(metric(values[seen], mask[seen], grid)) for metric in chosen}

    def _agreed(self, maps: Mapping[str, Map]) -> Iterator[Score]:
        for (a, first), (b, second) in itertools.combinations(maps.items(), 2):
            for name in self.study.agreement:
                yield a, name, b, AGREEMENT[name](first, second)

    def _curves(
        self, index: int, sample: Sample, maps: Mapping[str, Map], costs: Costs
    ) -> tuple[dict[str, dict[str, Curves]], list[dict[str, Any]]]:
        """Removal → indicator → its curves; a removal that cannot run on this sample is a failure."""
        study = self.study
        curves: dict[str, dict[str, Curves]] = {}
        failures: list[dict[str, Any]] = []
        if index not in self._faithful_on or not maps:
            return curves, failures
        options = {"prompt": study.prompt, "target": study.target}
        for removal in study.removals:
            try:
                curves[removal.name], cost = run_removal(
                    removal, self.mllm, sample, maps, study.steps, seed=study.seed, options=options
                )
                costs.append(stored_cost(cost))
            except InterpError as error:
                failures.append(failure(self, index, type(error).__name__, str(error), metric=removal.name))
        return curves, failures

    def _faithful(self, curves: Mapping[str, Mapping[str, Curves]]) -> Iterator[Score]:
        study = self.study
        for removal, own in curves.items():
            for label, pair in own.items():
                for name, value in measured(
                    pair, study.steps, study.erased, study.target, study.least
                ).items():
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

    def _sane(self, found: Found, mask: np.ndarray) -> Iterator[Score]:
        first = self.study.metrics[0]
        for (label, stage), values in found.shuffled.items():
            yield label, WEIGHTS, stage, spearman(found.maps[label], values)
        for label, values in found.asked.items():
            yield label, QUESTION, "spearman", spearman(found.maps[label], values)
            yield label, QUESTION, first, self._scored(values, mask, found.tokens)[first]

    def _silent(self, index: int, scores: Sequence[Score]) -> list[dict[str, Any]]:
        """A failure for each undefined value, and one per removal that does not lower the target enough."""
        flat = dict.fromkeys(against for _, measure, against, _ in scores if measure in CURVES)
        rest = [score for score in scores if score[1] not in CURVES]
        reason = "undefined here: the map is the same everywhere, or the truth covers no token or all."
        nothing = f"taking every token away lowers the target by less than {self.study.least:g}: there are no areas."
        return [
            *(failure(self, index, "undefined", nothing, metric=removal) for removal in flat),
            *(
                failure(self, index, "undefined", reason, metric=f"{m} · {a}", control=i)
                for i, m, a, _ in rest
            ),
        ]

    def _sample_row(self, index: int, found: Found, n_truth: list[int]) -> dict[str, Any]:
        other, tokens = self._others[index], found.tokens
        checked = index in self._checked_on
        return {
            **self._sample_fields(index),
            "predicted": found.said,
            "other_question": self.study.data[other].question if checked and other is not None else None,
            "n_tokens": tokens.n,
            "n_prompt": tokens.length,
            "n_truth_tokens": n_truth,
            "faithful": index in self._faithful_on,
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
    def _order(self) -> list[int]:
        """The usable samples in random order; fewer samples are always the first of these, so that sets nest."""
        able = [index for index, usable in enumerate(self._usable) if usable]
        order = np.random.default_rng(self.study.seed).permutation(len(able))
        return [able[place] for place in order]

    @cached_property
    def _faithful_on(self) -> frozenset[int]:
        return frozenset(self._order[: self.study.n_faithful])

    @cached_property
    def _checked_on(self) -> frozenset[int]:
        return frozenset(self._order[: self.study.n_checked])

    @cached_property
    def _ranks(self) -> dict[int, int]:
        return {index: rank for rank, index in enumerate(self._order)}
