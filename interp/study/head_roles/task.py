"""The task of a `HeadRoles`: each head's measures on each sample, and its copying score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from scipy.spatial.distance import jensenshannon
from scipy.special import entr, log_softmax

from interp.errors import ImageTokenMismatch, MapError, PromptError, SampleError
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.run import Outcome
from interp.study.baselines import has_one_image, with_image_of
from interp.study.dataframes import NAME, SAMPLE_FIELDS
from interp.study.first_token import first_token
from interp.study.task import StudyTask, TableRows, suitable_threads
from interp.tracing import Rows, Site
from interp.tracing.derived.ov_circuits import copying_scores
from interp.tracing.variants.knockouts import Knockouts, KnockoutVariant

__all__ = ["MEASURES", "HeadRolesTask", "row_measures"]

MEASURES = ("image_share", "entropy", "sink_share", "position", "ablation")
"""The measures of each sample, in the order of the tables."""
PLACE = [("layer", pa.int32()), ("head", pa.int32())]
SCORES = pa.schema([("index", pa.int64()), *PLACE, ("measure", NAME), ("value", pa.float64())])
COPYING = pa.schema([("index", pa.int64()), *PLACE, ("value", pa.float64())])
SAMPLES = pa.schema(
    [
        *SAMPLE_FIELDS,
        ("token", pa.string()),
        ("logprob", pa.float64()),
        ("n_tokens", pa.int32()),
        ("other", pa.string()),
    ]
)
_UNUSABLE = (SampleError, PromptError, ImageTokenMismatch)
Found = tuple[Float[np.ndarray, "layer head key"], tuple[int, ...], TokenMap, Float[np.ndarray, " token_id"]]
"""The last token's rows, their layers, the positions of the tokens, and the logits."""


def row_measures(
    rows: Float[np.ndarray, "layer head key"], image: np.ndarray, other: np.ndarray | None
) -> dict[str, Float[np.ndarray, "layer head"]]:
    """The measures of a row of attention over every key, without the ablation; `HeadRoles` defines them.

    Args:
        rows: The rows of the last prompt token.
        image: The positions of the image tokens among the keys.
        other: (layer, head, token): The image part of the rows of the same question on another image; None where there
            is no other image.
    """
    maps = rows[..., image].astype(float)
    mass = maps.sum(axis=-1)
    nothing = np.full(mass.shape, np.nan)
    shares = _normalised(maps)
    n = maps.shape[-1]
    found = {
        "image_share": mass,
        "entropy": np.sum(entr(shares), axis=-1) / np.log(n) if n > 1 else nothing,
        "sink_share": rows[..., 0].astype(float),
        "position": nothing,
    }
    if other is not None and other.shape == maps.shape:
        distance: Any = jensenshannon(shares, _normalised(other.astype(float)), axis=-1)  # pyright: ignore[reportCallIssue]
        found["position"] = 1 - distance**2 / np.log(2)
    return found


def _normalised(maps: Float[np.ndarray, "layer head token"]) -> Float[np.ndarray, "layer head token"]:
    mass = maps.sum(axis=-1, keepdims=True)
    return np.divide(maps, mass, out=np.full(maps.shape, np.nan), where=mass > 0)


class HeadRolesTask(StudyTask):
    """Computes a `HeadRoles`."""

    name = "head-roles"
    needs_boxes = False

    def to_dict(self) -> dict[str, Any]:
        """Everything the stored numbers depend on, including the seed, which decides which image a sample borrows."""
        study = self.study
        own = {"target": study.target, "ablate": study.ablate, "seed": study.seed, "measures": list(MEASURES)}
        return {**super().to_dict(), **own}

    def schemas(self) -> Mapping[str, pa.Schema]:
        """The tables: one row per sample, head and measure, one per micro-batch and head, one per sample."""
        return {"scores": SCORES, "copying": COPYING, "samples": SAMPLES}

    def joined(self) -> tuple[str, ...]:
        """All tables."""
        return ("scores", "copying", "samples")

    @cached_property
    def copying(self) -> Float[np.ndarray, "layer head"]:
        """The copying score of each head; it depends on the weights alone, so it is the same for all samples."""
        return copying_scores(self.mllm)

    def measure(self, indices: tuple[int, ...]) -> Outcome:
        """The rows of each sample, from its own image and a borrowed one."""
        mllm, data = self.mllm, self.study.data
        mllm.need_image_rows("HeadRoles")
        with suitable_threads(mllm):
            trace = self._traced([data[index] for index in indices])
            costs = [float(trace.cost.forwards)]
            borrowed = self._borrowed(indices, costs)

            def rows(place: int, index: int) -> TableRows:
                found = trace[place].rows
                layers = tuple(int(layer) for layer in found["layer"].values)
                own = (found.values[:, :, 0], layers, trace[place].tokens, trace.logits.values[place])
                return self._rows(index, own, borrowed[place], costs)

            tables = self.each(indices, rows)
        copying = [
            {"index": indices[0], "layer": layer, "head": head, "value": float(value)}
            for (layer, head), value in np.ndenumerate(self.copying)
        ]
        return Outcome({**tables, "copying": copying}, {"forwards": float(sum(costs))})

    def _traced(self, samples: list[Any]) -> Any:
        site = Site(layers="attention", queries="last", keys="all")
        return self.mllm.trace(samples, prompt=self.study.prompt, reads=[Rows(site)])

    def _borrowed(self, indices: tuple[int, ...], costs: list[float]) -> list[np.ndarray | None]:
        """The maps of the samples' questions on borrowed images; None where no image can be borrowed."""
        found: list[np.ndarray | None] = [None] * len(indices)
        able = [place for place, index in enumerate(indices) if self._lender(index) is not None]
        if not able:
            return found
        swapped = [self._swapped(indices[place]) for place in able]
        try:
            self._keep_maps(swapped, able, found, costs)
        except _UNUSABLE:  # one image cannot be encoded with the question: try each alone
            for place, one in zip(able, swapped, strict=True):
                with suppress(*_UNUSABLE):
                    self._keep_maps([one], [place], found, costs)
        return found

    def _keep_maps(
        self, samples: list[Sample], places: list[int], found: list[np.ndarray | None], costs: list[float]
    ) -> None:
        """Put the maps of these samples at their places."""
        trace = self._traced(samples)
        costs.append(float(trace.cost.forwards))
        for place, one in zip(places, trace, strict=True):
            found[place] = one.rows.values[:, :, 0][..., one.tokens.image]

    def _swapped(self, index: int) -> Sample:
        """The sample's question on the image that it borrows."""
        return with_image_of(self.study.data[index], self.study.data[self._lender(index)])

    def _lender(self, index: int) -> int | None:
        """The index of the sample whose image this one borrows; None unless both have one image and no video."""
        other = self._partners[index]
        if other is None or not all(has_one_image(self.study.data[one]) for one in (index, other)):
            return None
        return other

    def _rows(self, index: int, own: Found, other: np.ndarray | None, costs: list[float]) -> TableRows:
        rows, layers, tokens, logits = own
        sample = self.study.data[index]
        if not tokens.n:
            raise MapError("the sample has no image tokens, so no head has a map of it.")
        said = first_token(logits, sample, self.study.prompt, self.tokenizer, self.study.target)
        measured = row_measures(rows, tokens.image, other)
        if self.study.ablate:
            measured["ablation"] = self._ablation(index, said.token, layers, costs)
        lender = self._lender(index)
        row = {
            **self._sample_fields(index),
            "token": said.text,
            "logprob": float(log_softmax(logits.astype(float))[said.token]),
            "n_tokens": tokens.n,
            "other": None if lender is None else self.identity(lender)[0],
        }
        return {"scores": list(_scores(index, layers, measured)), "samples": [row]}

    def _ablation(
        self, index: int, token: int, layers: tuple[int, ...], costs: list[float]
    ) -> Float[np.ndarray, "layer head"]:
        """How far the token's log-probability falls, in nats, without each head at the last prompt token."""
        knockouts = Knockouts.of(self.mllm, self.study.data[index], self.study.prompt)
        keys, n_heads = tuple(range(knockouts.tokens.length)), self.mllm.n_heads
        variants = [
            KnockoutVariant((layer,), keys[-1:], keys, (head,)) for layer in layers for head in range(n_heads)
        ]
        passes = knockouts.run(variants, mode="zero", batch=self.study.batch)
        costs.append(float(knockouts.plain.cost.forwards + passes.cost.forwards))
        plain, without = (
            log_softmax(each.logits.astype(float), axis=-1)[:, token] for each in (knockouts.plain, passes)
        )
        return (plain - without).reshape(len(layers), n_heads)


def _scores(
    index: int, layers: tuple[int, ...], measured: Mapping[str, Float[np.ndarray, "layer head"]]
) -> Iterator[dict[str, Any]]:
    for measure, values in measured.items():
        for (place, head), value in np.ndenumerate(values):
            where = {"index": index, "layer": layers[place], "head": head}
            yield {**where, "measure": measure, "value": float(value)}
