"""The task of a `LayerSweep`: what it depends on, its tables, and the rows of a micro-batch.

Samples with equally many tokens are scored together: one call of a metric for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from interp.errors import InterpError, MapError
from interp.indicators import Maps
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.metrics import Metric, named
from interp.metrics.map_and_mask import check
from interp.metrics.metric import Grid
from interp.run import FAILURES
from interp.run.task import Columns, TableRows, failure, joined_rows
from interp.study.baselines import CENTRE_SIGMA, centre_prior, moved_boxes, moved_masks
from interp.study.dataframes import NAME, SAMPLE_FIELDS
from interp.study.first_token import answer_columns
from interp.study.samples_task import SamplesTask
from interp.study.truth import MASKS, inside_of, lost_share

__all__ = ["AFTER_THE_PASS", "Scorable", "SweepTask", "columns_of", "scored"]


AFTER_THE_PASS = ("metrics", "rule", "seed")
"""Fields of a sweep that only say what is computed from its maps."""

SCORES = pa.schema(
    [
        ("index", pa.int64()),
        ("layer", pa.int32()),
        ("metric", NAME),
        ("control", NAME),
        ("value", pa.float64()),
    ]
)
SAMPLES = pa.schema(
    [
        *SAMPLE_FIELDS,
        ("predicted", pa.string()),
        ("correct", pa.bool_()),
        ("logprob", pa.float64()),
        ("n_tokens", pa.int32()),
        ("n_box_tokens", pa.int32()),
        ("lost_area", pa.float64()),
        ("partner", pa.string()),
        ("image_index", pa.list_(pa.int32())),
        ("footprints", pa.list_(pa.float32())),
    ]
)
MAPS = pa.schema([("index", pa.int64()), ("layer", pa.int32()), ("map", pa.list_(pa.float32()))])


@dataclass(frozen=True, eq=False)
class _Read:
    """What the rows of a sample are made of, besides its scores."""

    tokens: TokenMap
    layers: list[int]
    values: Float[np.ndarray, "layer token"]
    own: np.ndarray
    logits: Float[np.ndarray, " token_id"] | None


class SweepTask(SamplesTask):
    """Computes a `LayerSweep`."""

    map_dims = ("layer", "token")
    name = "layer-sweep"

    def to_dict(self) -> dict[str, Any]:
        """Everything the numbers depend on."""
        sweep = self.study
        return {
            **super().to_dict(),
            "metrics": list(sweep.metrics),
            "nulls": {"shuffled_boxes": {"seed": sweep.seed}, "centre_prior": {"sigma": CENTRE_SIGMA}},
            "rule": sweep.rule,
            "seed": sweep.seed,
        }

    def schemas(self) -> Mapping[str, pa.Schema]:
        """Scores, one row per sample, and the maps."""
        return {"scores": SCORES, "samples": SAMPLES, "maps": MAPS}

    def joined(self) -> tuple[str, ...]:
        """All but the maps."""
        return ("scores", "samples")

    def rows(self, indices: tuple[int, ...], maps: Maps) -> TableRows:
        """Each sample's scores at every layer, its own row and its maps."""
        metrics = named(self.study.metrics)
        found: dict[int, tuple[_Read, Scorable]] = {}

        def read(place: int, index: int) -> TableRows:
            found[index] = self._read(index, maps, place)
            return {}

        def rows(place: int, index: int) -> TableRows:
            one, scorable = found[index]
            # where they cannot be scored together each is scored alone, and so fails alone
            scores = together[place] if together else scored(metrics, [scorable])[0]
            return self._rows(index, one, columns_of(metrics, scorable), scores)

        unread = self.each(indices, read)
        together: list[np.ndarray] = []
        with suppress(InterpError):
            together = scored(metrics, [scorable for _, scorable in found.values()])
        done = self.each(tuple(found), rows)
        return {name: joined_rows([unread[name], done[name]]) for name in done}

    def _read(self, index: int, maps: Maps, place: int) -> tuple[_Read, Scorable]:
        """A sample's maps, and what scores compare; tokens without a footprint are left out of that."""
        sample, tokens = self.study.data[index], maps.tokens[place]
        layers, values = _layers(maps[place], sample)
        own = inside_of(tokens, sample, self.study.rule)
        unseen = np.isnan(tokens.footprints)
        grid, chosen = (None, ~unseen.any(axis=1)) if unseen.any() else (tokens.grid, slice(None))
        centre = centre_prior(tokens.footprints, tokens.image_index, tokens.sizes)
        every = np.concatenate([values, centre[None]])[:, chosen]
        masks = np.stack([own, *self._borrowed(index, tokens)])[:, chosen]
        logits = None if maps.logits is None else maps.logits.values[place]
        return _Read(tokens, layers, values, own, logits), Scorable(every, masks, grid)

    def _rows(self, index: int, read: _Read, columns: list[tuple[str, str]], scores: np.ndarray) -> TableRows:
        """One sample's scores, its own row and its maps."""
        sample, partner = self.study.data[index], self._partners[index]
        tokens, layers = read.tokens, read.layers
        identity = dict(zip(("sample", "group"), self.identity(index), strict=True))
        row = {
            "index": index,
            **identity,
            "question": sample.question,
            "answer": sample.answer,
            **answer_columns(read.logits, sample, self.study.prompt, self.tokenizer),
            "n_tokens": tokens.n,
            "n_box_tokens": int((read.own > 0).sum()),
            "lost_area": lost_share(tokens, sample, self.study.rule),
            "partner": None if partner is None else self.study.data[partner].id,
            "image_index": tokens.image_index.astype(np.int32),
            "footprints": tokens.footprints.astype(np.float32).ravel(),
        }
        metrics, controls = zip(*columns, strict=True)
        table = Columns(
            {
                "index": np.full(scores.size, index),
                "layer": np.repeat(layers, len(columns)),
                "metric": list(metrics) * len(layers),
                "control": list(controls) * len(layers),
                "value": scores.ravel(),
            }
        )
        failures = [self._silent(table[at]) for at in np.flatnonzero(np.isnan(scores)).tolist()]
        lines = list(read.values.astype(np.float32))
        maps = Columns({"index": np.full(len(layers), index), "layer": np.array(layers), "map": lines})
        return {"scores": table, "samples": [row], "maps": maps, FAILURES: failures}

    def _borrowed(self, index: int, tokens: TokenMap) -> list[np.ndarray]:
        """What the boxes or masks of the sample's partner would cover; empty where there is nothing to borrow."""
        partner = self._partners[index]
        if partner is None:
            return []
        lender, sizes = self.study.data[partner], self.study.data[index].sizes
        if self.study.rule == MASKS:
            masks = moved_masks(lender.masks, sizes)
            return [tokens.coverage(masks)] if masks else []
        boxes = moved_boxes(lender.boxes, lender.sizes, sizes, video=tokens.is_video)
        return [tokens.mask(boxes, rule=self.study.rule)] if boxes else []

    def _silent(self, score: Mapping[str, Any]) -> dict[str, Any]:
        place = {key: score[key] for key in ("layer", "metric", "control")}
        reason = (
            "the metric is undefined here: the map is zero everywhere, or the box covers no token or all."
        )
        return failure(self, score["index"], "undefined", reason, **place)


def _layers(array: Any, sample: Sample) -> tuple[list[int], np.ndarray]:
    """The map's layers and its values (layer, token), checked."""
    if tuple(array.dims) != ("layer", "token"):
        raise MapError(
            f"a LayerSweep needs a map (layer, token), got {tuple(array.dims)} for {sample.id}. Use an "
            f"indicator that gives one map per layer."
        )
    values = np.asarray(array.values, dtype=np.float64)
    layers = array.get_index("layer").tolist()
    finite = np.asarray(np.isfinite(values).all(axis=1))
    if not finite.all():
        wrong = [layer for layer, whole in zip(layers, finite, strict=True) if not whole]
        raise MapError(
            f"the map of sample {sample.id} holds NaN or infinity at layers {wrong}. Does it overflow in "
            f'this dtype? Try dtype="float32".'
        )
    return layers, values


@dataclass(frozen=True, eq=False)
class Scorable:
    """A sample's maps and what they are compared with, over the tokens that have a footprint.

    Attributes:
        maps: (map, token) a map for each layer, and last the centre prior.
        masks: (mask, token) the tokens inside the sample's own boxes or masks, then those inside the boxes or masks
            borrowed from its partner, if it has one.
        grid: The grid of the tokens; None where they have none, or some were left out.
    """

    maps: Float[np.ndarray, "map token"]
    masks: Bool[np.ndarray, "mask token"] | Float[np.ndarray, "mask token"]
    grid: Grid


def columns_of(metrics: Iterable[Metric], one: Scorable) -> list[tuple[str, str]]:
    """The (metric, control) of each column of the sample's scores."""
    borrowed = ("shuffled_boxes",) if len(one.masks) > 1 else ()
    return [(metric.name, control) for metric in metrics for control in ("boxes", "centre_prior", *borrowed)]


def scored(metrics: Sequence[Metric], samples: Sequence[Scorable]) -> list[Float[np.ndarray, "layer column"]]:
    """Each sample's scores at every layer, with the columns of `columns_of`.

    Raises:
        MapError: A metric that does not take these maps, such as one that needs a grid.
    """
    found: dict[int, np.ndarray] = {}
    groups: dict[tuple[tuple[int, ...], tuple[int, ...], Grid], list[int]] = {}
    for i, one in enumerate(samples):
        groups.setdefault((one.maps.shape, one.masks.shape, one.grid), []).append(i)
    for (_, _, grid), at in groups.items():
        maps = np.stack([samples[i].maps for i in at])[:, :, None]
        masks = np.stack([samples[i].masks for i in at])[:, None]
        pair, columns = check(maps, masks), []
        for metric in metrics:
            scores = metric(pair, masks, grid)  # (sample, map, mask)
            own, prior = scores[:, :-1], scores[:, -1:, 0]
            columns += [own[..., 0], np.broadcast_to(prior, own.shape[:2]), *np.moveaxis(own[..., 1:], -1, 0)]
        found.update(zip(at, np.stack(columns, axis=-1), strict=True))
    return [found[i] for i in range(len(samples))]
