"""The task of a `ProbeSweep`: each sample's mean stream at each position and layer, and its class."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from interp.errors import InterpError, SampleError
from interp.inputs.sample import Sample
from interp.run import Outcome
from interp.study.dataframes import NAME, SAMPLE_FIELDS
from interp.study.task import StudyTask, TableRows, suitable_threads
from interp.study.truth import tokens_inside
from interp.tracing import Residual

__all__ = ["POSITIONS", "ProbeTask", "property_of"]

POSITIONS = ("last", "question", "image", "box")
"""The positions at which the stream is read."""
GROUPS = {"last": "last", "question": "question", "image": "image", "box": "image"}
"""Position → the group of tokens that is read for it."""
FEATURES = pa.schema(
    [("index", pa.int64()), ("position", NAME), ("layer", pa.int32()), ("values", pa.list_(pa.float32()))]
)
SAMPLES = pa.schema([*SAMPLE_FIELDS, ("target", pa.string()), ("type", pa.string())])


def property_of(sample: Sample, name: str, group: str) -> str | None:
    """The value of a sample's property: its answer, question, group or an entry of its meta; None where it has none."""
    if name == "group":
        return group
    found = getattr(sample, name) if name in ("answer", "question") else sample.meta.get(name)
    return None if found is None else " ".join(str(found).split())


class ProbeTask(StudyTask):
    """Computes the features for a `ProbeSweep`; the probes are fitted when its result is read."""

    name = "probe-sweep"

    @property
    def needs_boxes(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether a sample without boxes is a failure."""
        return "box" in self.study.positions

    def to_dict(self) -> dict[str, Any]:
        """Everything the stored numbers depend on, and the property; folds and seed only affect the probes."""
        study = self.study
        named = [
            [self._property(i, name) for name in (study.target, study.control)]
            for i in range(len(study.data))
        ]
        own = {"positions": list(study.positions), "target": study.target, "control": study.control}
        return {**super().to_dict(), **own, "properties": hashlib.sha256(repr(named).encode()).hexdigest()}

    def schemas(self) -> Mapping[str, pa.Schema]:
        """The tables: one row per sample, position and layer, and one per sample."""
        return {"features": FEATURES, "samples": SAMPLES}

    def joined(self) -> tuple[str, ...]:
        """Both tables."""
        return ("features", "samples")

    def _property(self, index: int, name: str) -> str | None:
        sample = self.study.data[index]
        return property_of(sample, name, self.study.data.groups[index]) if sample.is_usable else None

    def measure(self, indices: tuple[int, ...]) -> Outcome:
        """The features of each sample; a sample without a class fails."""
        groups = list(dict.fromkeys(GROUPS[position] for position in self.study.positions))
        reads = [Residual("all", group) for group in groups]
        samples = [self.study.data[index] for index in indices]
        with suitable_threads(self.mllm):
            trace = self.mllm.trace(samples, prompt=self.study.prompt, reads=reads)

        def rows(place: int, index: int) -> TableRows:
            streams = dict(zip(groups, trace[place].reads, strict=True))
            return self._rows(index, streams, trace.tokens[place])

        return Outcome(self.each(indices, rows), {"forwards": float(trace.cost.forwards)})

    def _rows(self, index: int, streams: Mapping[str, Any], tokens: Any) -> TableRows:
        study, sample = self.study, self.study.data[index]
        target, kind = (self._property(index, one) for one in (study.target, study.control))
        for asked, found in ((study.target, target), (study.control, kind)):
            if not found:
                raise SampleError(
                    f"the sample has no {asked}, so a probe cannot learn from it or be scored on it."
                )
        features = []
        for position in study.positions:
            stream = streams[GROUPS[position]]
            values = self._averaged(stream.values, position, sample, tokens)
            for layer, vector in zip(stream["layer"].values, values, strict=True):
                place = {"index": index, "position": position, "layer": int(layer)}
                features.append({**place, "values": vector.astype(np.float32).tolist()})
        row = {**self._sample_fields(index), "target": target, "type": kind}
        return {"features": features, "samples": [row]}

    def _averaged(
        self, stream: Float[np.ndarray, "layer place hidden"], position: str, sample: Sample, tokens: Any
    ) -> Float[np.ndarray, "layer hidden"]:
        """The mean over the position's tokens; for "box", over the image tokens that touch the boxes."""
        if position != "box":
            return stream.mean(axis=1, dtype=np.float64)
        weights = np.asarray(tokens_inside(tokens, sample, "touch"), float)
        if not weights.sum():
            raise InterpError("the sample's boxes cover no image token.")
        return np.einsum("lph,p->lh", stream.astype(np.float64), weights / weights.sum())
