"""The task of a `KnockoutSweep`: the answer's probability in every blocked pass of a sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float

from interp.errors import InterpError, MapError, StudyError
from interp.run import FAILURES, Outcome, Plan, make_plan
from interp.run.sessions import sum_costs
from interp.run.task import failure
from interp.study.dataframes import NAME, SAMPLE_FIELDS
from interp.study.first_token import FirstToken, first_token
from interp.study.knockout_sweep.flows import Flow, Window
from interp.study.prefix_cost import stored_cost
from interp.study.task import StudyTask, TableRows, suitable_threads
from interp.tracing.target import log_probabilities
from interp.tracing.variants.knockouts import Knockouts, KnockoutVariant, VariantLogits

__all__ = ["KnockoutTask"]

SHARD = 8
PASSES = pa.schema(
    [
        ("index", pa.int64()),
        ("flow", NAME),
        ("layer", pa.int32()),
        ("head", pa.int32()),
        ("first", pa.int32()),
        ("last", pa.int32()),
        ("logprob", pa.float64()),
        ("correct", pa.bool_()),
        ("flipped", pa.bool_()),
    ]
)
"""`logprob`: the followed token's, in nats. `correct`, `flipped`: of the likeliest token. `head`: null for all
heads."""
SAMPLES = pa.schema(
    [
        *SAMPLE_FIELDS,
        ("predicted", pa.string()),
        ("token", pa.string()),
        ("token_id", pa.int64()),
        ("correct", pa.bool_()),
        ("logprob", pa.float64()),
        ("n_tokens", pa.int32()),
        ("n_prefix", pa.int32()),
        ("n_prompt", pa.int32()),
    ]
)
SIZES = pa.schema([("index", pa.int64()), ("flow", NAME), ("n_queries", pa.int32()), ("n_keys", pa.int32())])
Place = tuple[str, Window, int | None]


class KnockoutTask(StudyTask):
    """Computes a `KnockoutSweep`."""

    name = "knockout-sweep"
    needs_boxes = False

    def __init__(self, study: Any, mllm: Any) -> None:
        super().__init__(study, mllm)
        self._windows: tuple[Window, ...] = study.windows(mllm.n_layers)
        self._n_heads = int(mllm.n_heads)
        self._linear: dict[int, int] = mllm.linear_heads
        if self._linear and study.mode == "zero":
            raise StudyError(
                f"mode='zero' sets weights of a softmax to 0, and layers {list(self._linear)} of this model are linear "
                "(gated DeltaNet) and have none. Use mode='renormalise', which erases what tokens write there."
            )

    def to_dict(self) -> dict[str, Any]:
        """Everything the stored numbers depend on."""
        study = self.study
        return {
            **super().to_dict(),
            "flows": {name: flow.to_dict() for name, flow in study.blocked.items()},
            "windows": [[window.layer, window.first, window.last] for window in self._windows],
            "plan": {"batch": study.batch, "shard": SHARD},
            **{name: getattr(study, name) for name in ("by", "mode", "target", "rule", "seed")},
        }

    def schemas(self) -> Mapping[str, pa.Schema]:
        """The tables: one row per sample, flow and window (and head), one per sample, one per sample and flow."""
        return {"passes": PASSES, "samples": SAMPLES, "sizes": SIZES}

    def joined(self) -> tuple[str, ...]:
        """All tables."""
        return ("passes", "samples", "sizes")

    def measure(self, indices: tuple[int, ...]) -> Outcome:
        """The rows of each sample, and the cost of its passes; `layer_tokens` counts token positions × layers."""
        costs: list[dict[str, float]] = []
        with suitable_threads(self.mllm):
            rows = self.each(indices, lambda _, index: self._rows(index, costs))
        return Outcome(rows, sum_costs(costs))

    def _rows(self, index: int, costs: list[dict[str, float]]) -> TableRows:
        study, sample = self.study, self.study.data[index]
        knockouts = Knockouts.of(self.mllm, sample, study.prompt)
        costs.append(_cost(knockouts.plain))
        tokenizer, logits = self.tokenizer, knockouts.plain.logits[0]
        followed = first_token(logits, sample, study.prompt, tokenizer, study.target)
        row = self._sample_row(index, knockouts, followed)
        found: dict[str, list[Any]] = {"passes": [], "samples": [row], "sizes": [], FAILURES: []}
        variants: list[tuple[Place, KnockoutVariant]] = []
        for name, flow in study.blocked.items():
            try:
                queries, keys = self._places(knockouts, flow, index)
            except InterpError as error:
                found[FAILURES].append(self._lost(index, name, type(error).__name__, str(error)))
                continue
            sizes = {"n_queries": len(queries), "n_keys": len(keys)}
            found["sizes"].append({"index": index, "flow": name, **sizes})
            for window in self._windows:
                variant = KnockoutVariant(window.layers, tuple(queries.tolist()), tuple(keys.tolist()))
                refusal = knockouts.refusal(variant, study.mode)
                if refusal is None:
                    variants += [((name, window, head), one) for head, one in self._each(variant)]
                else:
                    found[FAILURES].append(self._lost(index, name, "EditError", refusal, window.layer))
        if not variants:
            reason = "none of the flows can be blocked in this sample; see its other failures."
            return {FAILURES: [*found[FAILURES], failure(self, index, "MapError", reason)]}
        passes = knockouts.run([variant for _, variant in variants], mode=study.mode, batch=study.batch)
        costs.append(_cost(passes))
        before = int(np.argmax(logits))
        for (place, _), line in zip(variants, passes.logits, strict=True):
            self._add(found, index, place, line, followed, before)
        return found

    def _add(
        self,
        found: dict[str, list[Any]],
        index: int,
        place: Place,
        logits: Float[np.ndarray, " token_id"],
        followed: FirstToken,
        before: int,
    ) -> None:
        """The row of one blocked pass."""
        name, window, head = place
        if np.isnan(logits).any() or not np.isfinite(logits[followed.token]):
            reason = 'the logits are NaN or infinite under this knockout. Try dtype="float32".'
            found[FAILURES].append(self._lost(index, name, "undefined", reason, window.layer))
            return
        predicted = int(np.argmax(logits))
        found["passes"].append(
            {
                "index": index,
                "flow": name,
                "layer": window.layer,
                "head": head,
                "first": window.first,
                "last": window.last,
                "logprob": _logprob(logits, followed.token),
                "correct": followed.right(predicted, self.tokenizer),
                "flipped": predicted != before,
            }
        )

    def _each(self, variant: KnockoutVariant) -> Iterator[tuple[int | None, KnockoutVariant]]:
        """The variant in all heads, or in each head alone."""
        if self.study.by != "head":
            yield None, variant
            return
        for head in range(self._linear.get(variant.layers[0], self._n_heads)):
            yield head, replace(variant, heads=(head,))

    def _places(self, knockouts: Knockouts, flow: Flow, index: int) -> tuple[Any, Any]:
        """The positions of the flow's queries and keys; an error where no query can attend to any key."""
        study = self.study
        where = {"index": index, "n_samples": len(study.data), "rule": study.rule, "seed": study.seed}
        queries, keys = flow.places(knockouts.tokens, study.data[index], **where)
        if not knockouts.hides(KnockoutVariant((0,), tuple(queries.tolist()), tuple(keys.tolist()))):
            raise MapError(
                "its queries all come before its keys, so there is no attention between them to block."
            )
        return queries, keys

    def _sample_row(self, index: int, knockouts: Knockouts, followed: FirstToken) -> dict[str, Any]:
        logits, tokenizer = knockouts.plain.logits[0], self.tokenizer
        predicted = int(np.argmax(logits))
        return {
            **self._sample_fields(index),
            "predicted": str(tokenizer.decode([predicted])).strip(),
            "token": followed.text,
            "token_id": followed.token,
            "correct": followed.right(predicted, tokenizer),
            "logprob": _logprob(logits, followed.token),
            "n_tokens": knockouts.tokens.n,
            "n_prefix": knockouts.n_prefix,
            "n_prompt": knockouts.tokens.length,
        }

    def _lost(
        self, index: int, flow: str, error: str, reason: str, layer: int | None = None
    ) -> dict[str, Any]:
        return failure(self, index, error, reason, layer=layer, metric=flow)

    @cached_property
    def _plan(self) -> Plan:
        """One sample at a time, in the order of the data: its blocked passes are the batch."""
        return make_plan([0] * len(self.study.data), batch=1, shard=SHARD)


def _logprob(logits: Float[np.ndarray, " token_id"], token: int) -> float:
    """The token's log-probability, nats."""
    return float(log_probabilities(torch.from_numpy(logits)[None], (token,)))


def _cost(passes: VariantLogits) -> dict[str, float]:
    return {**stored_cost(passes.cost), "layer_tokens": float(passes.layer_tokens)}
