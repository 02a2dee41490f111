"""The task of a `HeadAttribution`: parts' direct effects on a sample's answer, heads' total effects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import xarray as xr
from jaxtyping import Float

from interp.errors import SampleError
from interp.inputs.prompt import Target
from interp.run import Outcome
from interp.study.dataframes import NAME, SAMPLE_FIELDS
from interp.study.first_token import answer_columns
from interp.study.task import TableRows, suitable_threads
from interp.study.transformer_lens import LensTask
from interp.tracing.variants.knockouts import Knockouts, KnockoutVariant

__all__ = ["AttributionTask"]

SCORES = pa.schema(
    [
        ("index", pa.int64()),
        ("part", NAME),
        ("layer", pa.int32()),
        ("head", pa.int32()),
        ("measure", NAME),
        ("value", pa.float64()),
    ]
)
SAMPLES = pa.schema(
    [
        *SAMPLE_FIELDS,
        ("token", pa.string()),
        ("token_id", pa.int64()),
        ("logit", pa.float64()),
        ("completeness_error", pa.float64()),
        ("predicted", pa.string()),
        ("correct", pa.bool_()),
        ("logprob", pa.float64()),
    ]
)


class AttributionTask(LensTask):
    """Computes a `HeadAttribution`."""

    name = "head-attribution"
    needs_boxes = False

    def to_dict(self) -> dict[str, Any]:
        """Everything the stored numbers depend on; the seed only affects the intervals, which are not stored."""
        return {**super().to_dict(), "target": self.study.target, "relative_to": "mean", "knockout": "zero"}

    def schemas(self) -> Mapping[str, pa.Schema]:
        """The tables: one row per sample, part and measure, and one per sample."""
        return {"scores": SCORES, "samples": SAMPLES}

    def joined(self) -> tuple[str, ...]:
        """Both tables."""
        return ("scores", "samples")

    def measure(self, indices: tuple[int, ...]) -> Outcome:
        """The rows of each sample; the samples' own answers differ, so with target="answer" samples run one by one."""
        data, costs = self.study.data, [2.0]
        with suitable_threads(self.mllm):
            together = None
            if self.study.target == "greedy":
                together = self._attributed([data[index] for index in indices], Target("greedy"))

            def rows(place: int, index: int) -> TableRows:
                """A sample's rows, from the batch's attribution or from its own."""
                if together is not None:
                    return self._rows(index, together[place], together.logits.values[place], costs)
                if data[index].answer is None:
                    raise SampleError(
                        'the sample has no answer to follow. Give it one, or use target="greedy".'
                    )
                found = self._attributed([data[index]], Target(str(data[index].answer)))
                return self._rows(index, found[0], found.logits.values[0], costs)

            tables = self.each(indices, rows)
        return Outcome(tables, {"forwards": float(sum(costs))})

    def _attributed(self, samples: list[Any], target: Target) -> Any:
        return self.lens.attribution(samples, target, prompt=self.study.prompt, relative_to="mean")

    def _rows(
        self, index: int, found: xr.Dataset, logits: Float[np.ndarray, " token_id"], costs: list[float]
    ) -> TableRows:
        sample = self.study.data[index]
        token = int(found.attrs["answers"][0])
        row = {
            **self._sample_fields(index),
            "token": found.attrs["words"][0],
            "token_id": token,
            "logit": float(found.logit),
            "completeness_error": found.attrs["completeness_error"],
            **answer_columns(logits, sample, self.study.prompt, self.tokenizer),
        }
        total = self._total(index, token, costs)
        scores = [{"index": index, **one} for one in _shares(found, total)]
        return {"scores": scores, "samples": [row]}

    def _total(self, index: int, token: int, costs: list[float]) -> Float[np.ndarray, "layer head"]:
        """How far the answer's logit above the mean logit falls without each head at the last token, in logits."""
        knockouts = Knockouts.of(self.mllm, self.study.data[index], self.study.prompt)
        keys = tuple(range(knockouts.tokens.length))
        shape = (self.mllm.n_layers, self.mllm.n_heads)
        variants = [KnockoutVariant((layer,), keys[-1:], keys, (head,)) for layer, head in np.ndindex(*shape)]
        passes = knockouts.run(variants, mode="zero", batch=self.study.batch)
        costs.append(float(knockouts.plain.cost.forwards + passes.cost.forwards))
        plain, without = (_above_mean(each, token) for each in (knockouts.plain.logits, passes.logits))
        return (plain - without).reshape(shape)


def _above_mean(logits: Float[np.ndarray, "line token_id"], token: int) -> Float[np.ndarray, " line"]:
    values = logits.astype(np.float64)
    return values[:, token] - values.mean(axis=-1)


def _shares(found: xr.Dataset, total: Float[np.ndarray, "layer head"]) -> Iterator[dict[str, Any]]:
    """The rows of one sample's scores."""
    direct = {"measure": "direct"}
    yield {"part": "embedding", "layer": -1, "head": -1, **direct, "value": float(found.embedding)}
    for part in ("attention", "mlp"):
        for layer, value in enumerate(found[part].values):
            yield {"part": part, "layer": layer, "head": -1, **direct, "value": float(value)}
    for measure, effects in (("direct", found.heads.values), ("total", total)):
        for (layer, head), value in np.ndenumerate(effects):
            place = {"part": "head", "layer": layer, "head": head}
            yield {**place, "measure": measure, "value": float(value)}
