"""The task of a `HeadRanking`: each head's score on each sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from interp.errors import MapError
from interp.indicators import Maps
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.metrics import METRICS
from interp.run import FAILURES
from interp.run.task import failure
from interp.study.samples_task import SamplesTask
from interp.study.task import TableRows
from interp.study.truth import inside_of, lost_share

__all__ = ["HeadTask"]

SCORES = pa.schema(
    [("index", pa.int64()), ("layer", pa.int32()), ("head", pa.int32()), ("value", pa.float64())]
)
SAMPLES = pa.schema(
    [
        ("index", pa.int64()),
        ("sample", pa.string()),
        ("group", pa.string()),
        ("n_tokens", pa.int32()),
        ("n_box_tokens", pa.int32()),
        ("lost_area", pa.float64()),
        ("even", pa.float64()),
    ]
)
NOT_FINITE = "the map holds NaN or infinity; does it overflow in this dtype?"
SILENT = "the metric is undefined: the map is zero everywhere, or has no positive value."


class HeadTask(SamplesTask):
    """Computes a `HeadRanking`."""

    map_dims = ("layer", "head", "token")
    name = "head-ranking"

    def to_dict(self) -> dict[str, Any]:
        """Everything the stored numbers depend on; the seed only affects the intervals, which are not stored."""
        study = self.study
        return {**super().to_dict(), "metric": study.metric, "rule": study.rule, "split": study.split}

    def schemas(self) -> Mapping[str, pa.Schema]:
        """The tables: one row per sample, layer and head, and one per sample with the score of a uniform map."""
        return {"scores": SCORES, "samples": SAMPLES}

    def joined(self) -> tuple[str, ...]:
        """Both tables."""
        return ("scores", "samples")

    def rows(self, indices: tuple[int, ...], maps: Maps) -> TableRows:
        """The rows of each sample."""
        return self.each(indices, lambda at, index: self._rows(index, maps[at], maps.tokens[at]))

    def _rows(self, index: int, array: Any, tokens: TokenMap) -> TableRows:
        """One sample's scores; tokens without a footprint are left out."""
        sample = self.study.data[index]
        layers, heads, values = _checked(array, sample)
        own = inside_of(tokens, sample, self.study.rule)
        seen = ~np.isnan(tokens.footprints).any(axis=1)
        metric = METRICS[self.study.metric]
        grid = tokens.grid if seen.all() else None
        scores = metric(values[..., seen], own[seen], grid)
        if np.isnan(scores).all():
            raise MapError(
                f"the metric {metric.name} is undefined at every head of sample {sample.id}: the maps are zero "
                f"or not finite, or the box covers no image token, or all of them."
            )
        name, group = self.identity(index)
        row = {
            "index": index,
            "sample": name,
            "group": group,
            "n_tokens": tokens.n,
            "n_box_tokens": int((own > 0).sum()),
            "lost_area": lost_share(tokens, sample, self.study.rule),
            "even": float(metric(np.ones(int(seen.sum())), own[seen], grid)),
        }
        found = [
            {"index": index, "layer": layer, "head": head, "value": float(scores[place])}
            for place, (layer, head) in _places(layers, heads)
        ]
        finite = np.asarray(np.isfinite(values[..., seen]).all(axis=-1))
        failures = list(self._undefined(index, layers, heads, scores, finite))
        return {"scores": found, "samples": [row], FAILURES: failures}

    def _undefined(
        self, index: int, layers: list[int], heads: list[int], scores: np.ndarray, finite: np.ndarray
    ) -> Iterator[dict[str, Any]]:
        """One failure per layer and reason, naming its heads."""
        nothing = np.isnan(scores)
        for place, layer in enumerate(layers):
            for wrong, reason in ((nothing & ~finite, NOT_FINITE), (nothing & finite, SILENT)):
                named = [str(head) for head, bad in zip(heads, wrong[place], strict=True) if bad]
                if named:
                    text = f"head {', '.join(named)}: {reason}"
                    place_of = {"layer": layer, "metric": self.study.metric}
                    yield failure(self, index, "undefined", text, **place_of)


def _places(layers: list[int], heads: list[int]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for i, layer in enumerate(layers):
        for j, head in enumerate(heads):
            yield (i, j), (layer, head)


def _checked(
    array: Any, sample: Sample
) -> tuple[list[int], list[int], Float[np.ndarray, "layer head token"]]:
    """The map's layers, heads and values; an error where it has other dimensions."""
    if tuple(array.dims) != ("layer", "head", "token"):
        raise MapError(
            f"a HeadRanking needs a map (layer, head, token), got {tuple(array.dims)} for {sample.id}. Use an "
            f"indicator that gives one map per head, such as Attention(per_head=True)."
        )
    layers, heads = ([int(at) for at in array.coords[name].values] for name in ("layer", "head"))
    return layers, heads, np.asarray(array.values, dtype=np.float64)
