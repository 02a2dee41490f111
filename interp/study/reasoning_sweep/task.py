"""The task of a `ReasoningSweep`: reasoning, its answer, and the answer's log-probability with the image hidden."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from interp.errors import SampleError
from interp.inputs.answers import is_right
from interp.inputs.prompt import Target
from interp.run import Outcome, Plan, make_plan
from interp.study.dataframes import NAME, SAMPLE_FIELDS
from interp.study.prefix_cost import stored_cost
from interp.study.task import StudyTask, TableRows, suitable_threads
from interp.tracing import Batch, Knockout, Site
from interp.tracing.cost import Cost
from interp.tracing.reasoning import BLIND, blind_from, sentences

__all__ = ["SHARES", "TOLERANCE", "ReasoningTask", "until"]

SHARES = tuple(tenth / 10 for tenth in range(11))
TOLERANCE = 0.1
"""In nats; a smaller change of the answer's log-probability counts as no change."""
SHARD = 8
SCORES = pa.schema(
    [("index", pa.int64()), ("seen", pa.float64()), ("measure", NAME), ("value", pa.float64())]
)
SAMPLES = pa.schema(
    [
        *SAMPLE_FIELDS,
        ("reasoning", pa.string()),
        ("said", pa.string()),
        ("correct", pa.bool_()),
        ("logprob", pa.float64()),
        ("until", pa.float64()),
        ("n_sentences", pa.int32()),
        ("n_reasoning_tokens", pa.int32()),
        ("n_tokens", pa.int32()),
    ]
)
SENTENCES = pa.schema(
    [
        ("index", pa.int64()),
        ("sentence", pa.int32()),
        ("text", pa.string()),
        ("logprob", pa.float64()),
        ("change", pa.float64()),
    ]
)
"""`sentence` k: the image is hidden from sentence k on; the last row, without a text, is the answer alone."""


def until(changes: np.ndarray) -> float:
    """The share of the sentences after which hiding the image changes nothing, in [0, 1]; NaN if it always does.

    Args:
        changes: The changes of the log-probability, in nats, with the image hidden from sentence 0, 1, … on; the last
            one is with the image hidden from the answer alone.

    >>> until(np.array([-2.0, -1.0, 0.02, 0.0, 0.01])), until(np.array([0.0, -1.0]))
    (0.5, nan)
    """
    above = np.flatnonzero(~(np.abs(changes) < TOLERANCE))
    first = int(above[-1]) + 1 if len(above) else 0
    return first / (len(changes) - 1) if first < len(changes) else float("nan")


class ReasoningTask(StudyTask):
    """Computes a `ReasoningSweep`."""

    name = "reasoning-sweep"
    needs_boxes = False
    takes_thoughts = True

    def to_dict(self) -> dict[str, Any]:
        """Everything the stored numbers depend on; the seed only affects the intervals, which are not stored."""
        study = self.study
        own = {name: getattr(study, name) for name in ("thoughts", "max_new_tokens", "answer_tokens")}
        if study.thoughts == "given":
            texts = json.dumps([sample.meta.get("reasoning") for sample in study.data], default=str)
            own["given"] = hashlib.sha256(texts.encode()).hexdigest()
        return {**super().to_dict(), **own, "plan": {"batch": study.batch, "shard": SHARD}}

    def schemas(self) -> Mapping[str, pa.Schema]:
        """The tables: scores by share, one row per sample, and one per sample and sentence."""
        return {"scores": SCORES, "samples": SAMPLES, "sentences": SENTENCES}

    def joined(self) -> tuple[str, ...]:
        """All tables."""
        return ("scores", "samples", "sentences")

    def measure(self, indices: tuple[int, ...]) -> Outcome:
        """The rows of each sample, and the cost of its passes."""
        costs: list[Cost] = []
        with suitable_threads(self.mllm):
            rows = self.each(indices, lambda _, index: self._rows(index, costs))
        total = sum(costs[1:], costs[0]) if costs else Cost()
        return Outcome(rows, stored_cost(total))

    def _rows(self, index: int, costs: list[Cost]) -> TableRows:
        study, sample = self.study, self.study.data[index]
        thought = self._thought(index, costs)
        batch = self.mllm.reasoned([sample], [thought], study.prompt)
        after = self.mllm.trace(batch, generate=study.answer_tokens, progress=False)
        costs.append(after.cost)
        said = after.answers[0]
        if not said:
            raise SampleError("nothing came after the reasoning, so there is no answer to follow.")
        logprob, values = self._blinded(batch, Target(said), costs)
        changes = values - logprob
        spans = sentences(thought.strip())
        texts = [*(thought.strip()[start:end] for start, end in spans), None]
        at = [round(share * len(spans)) for share in SHARES]
        scores = [
            {"index": index, "seen": share, "measure": measure, "value": float(line[k])}
            for share, k in zip(SHARES, at, strict=True)
            for measure, line in (("logprob", values), ("change", changes))
        ]
        lines = [
            {"index": index, "sentence": k, "text": text, "logprob": float(value), "change": float(change)}
            for k, (text, value, change) in enumerate(zip(texts, values, changes, strict=True))
        ]
        tokens = batch.tokens[0]
        row = {
            **self._sample_fields(index),
            "reasoning": thought,
            "said": said,
            "correct": is_right(said, sample, study.prompt),
            "logprob": logprob,
            "until": until(changes),
            "n_sentences": len(spans),
            "n_reasoning_tokens": len(tokens.spans["reasoning"]),
            "n_tokens": tokens.n,
        }
        return {"scores": scores, "samples": [row], "sentences": lines}

    def _thought(self, index: int, costs: list[Cost]) -> str:
        """The sample's given reasoning, or the model's own.

        Raises:
            SampleError: There is no reasoning, or it did not end.
        """
        study, sample = self.study, self.study.data[index]
        if study.thoughts == "given":
            found = sample.meta.get("reasoning")
            if not isinstance(found, str) or not found.strip():
                raise SampleError(
                    f'thoughts="given" takes each sample\'s meta["reasoning"], a text; got {found!r:.100}. Write '
                    'thoughts="own" for the model\'s own.'
                )
            return found
        options = {"generate": study.max_new_tokens, "progress": False}
        trace = self.mllm.trace([sample], study.prompt, **options)
        costs.append(trace.cost)
        one = trace[0]
        if not one.reasoning:
            raise SampleError("the model answered without a thought, so there is no reasoning to measure.")
        if one.answer is None:
            raise SampleError(
                f"the model was still reasoning after max_new_tokens={study.max_new_tokens} tokens. Give it more."
            )
        return one.reasoning

    def _blinded(self, batch: Batch, target: Target, costs: list[Cost]) -> tuple[float, np.ndarray]:
        """The answer's log-probability in nats, with the image visible throughout and hidden from each sentence on."""
        options = {"batch_size": self.study.batch, "progress": False}
        plain = self.mllm.score(batch, target, **options)
        hide = Knockout(Site(queries=(BLIND, "answer"), keys="image"), steps="all")
        found = self.mllm.score(blind_from(self.mllm, batch, 0), target, edits=[hide], **options)
        costs += [plain.cost, found.cost]
        return float(plain.values[0]), np.asarray(found.values)

    @cached_property
    def _plan(self) -> Plan:
        """One sample at a time, in the order of the data; its passes with a hidden image are the batch."""
        return make_plan([0] * len(self.study.data), batch=1, shard=SHARD)
