"""The task of a `Refinement`: each sample is answered without and with the method, and both answers are marked."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from interp.indicators.attention import relative
from interp.inputs.answers import is_right
from interp.inputs.prompt import GENERIC_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.methods import Answer, Method, Plain
from interp.metrics import attention_ratio
from interp.run import Outcome, ProcessCache, digest
from interp.study.dataframes import NAME, SAMPLE_FIELDS
from interp.study.first_token import answer_columns
from interp.study.prefix_cost import billed
from interp.study.task import StudyTask, TableRows, suitable_threads
from interp.tracing import Cost, Edit, Rows, Site

__all__ = [
    "PLAIN",
    "SCORES",
    "SPENT",
    "TIMES",
    "RefinementTask",
    "generic_rows",
    "last_rows",
    "over",
    "references",
    "repeated",
    "resolved",
    "score_row",
    "spent_columns",
]


def references(method: Any) -> dict[str, Any]:
    """The method's fields that hold a reference: anything with a `resolve(out, …)`, such as a `HeadSet`."""
    if not dataclasses.is_dataclass(method):
        return {}
    held = {own.name: getattr(method, own.name) for own in dataclasses.fields(method)}
    return {name: value for name, value in held.items() if callable(getattr(value, "resolve", None))}


def resolved(method: Any, out: str | os.PathLike[str], **options: Any) -> Any:
    """The method with its references resolved; `options` are those of `resolve`."""
    found = {name: value.resolve(out, **options) for name, value in references(method).items()}
    return dataclasses.replace(method, **found)


Weights = list[Float[np.ndarray, " token"]]


def repeated(method: Any, mllm: Any, answers: Sequence[Any]) -> list[Edit] | None:
    """The edits that gave these answers, for another trace of the same batch; None where the method has none.

    A method gives them in `repeat(mllm, answers)`.
    """
    repeat = getattr(method, "repeat", None)
    return None if repeat is None else list(repeat(mllm, answers))


def last_rows(
    mllm: Any, samples: Sequence[Sample], prompt: Prompt, layer: int, edits: Sequence[Edit] = ()
) -> Weights:
    """Each sample's attention from the last prompt row to the image tokens at a layer, averaged over heads."""
    rows = Rows(Site(layers=[layer], queries="last", keys="image"), reduce="head")
    trace = mllm.trace(samples, prompt=prompt, reads=[rows], edits=list(edits))
    return [np.asarray(one.rows.values, np.float64).reshape(-1) for one in trace]


def generic_rows(mllm: Any, samples: Sequence[Sample], prompt: Prompt, layer: int) -> Weights:
    """The same rows under the generic prompt, unedited: the attention that any question on the image draws."""
    generic = Prompt(template=GENERIC_PROMPT.template, image_first=prompt.image_first, system=prompt.system)
    return last_rows(mllm, samples, generic, layer)


def over(question: Weights, generic: Weights) -> Weights:
    """Relative attention, token by token: question / generic, 0/0 = 0."""
    return [relative(a, g)[0] for a, g in zip(question, generic, strict=True)]


PLAIN: Method = Plain()
TIMES = ("before", "after")
SPENT = ("seconds", "forwards", "backwards", "tokens")
SCORES = pa.schema([("index", pa.int64()), ("measure", NAME), ("when", NAME), ("value", pa.float64())])
SAMPLES = pa.schema(
    [
        *SAMPLE_FIELDS,
        ("text_before", pa.string()),
        ("text_after", pa.string()),
        ("correct_before", pa.bool_()),
        ("correct_after", pa.bool_()),
        ("n_tokens", pa.int32()),
        ("n_kept", pa.int32()),
        ("crop", pa.list_(pa.int32())),
        ("confidence", pa.float64()),
        ("weight", pa.float64()),
        ("image_index", pa.list_(pa.int32())),
        ("footprints", pa.list_(pa.float32())),
    ]
)
MAPS = pa.schema([("index", pa.int64()), ("map", NAME), ("values", pa.list_(pa.float32()))])


@dataclass(frozen=True)
class _Plain:
    """The plain model's answers for a micro-batch, and their cost if they ran alone."""

    answers: Sequence[Answer]
    tokens: tuple[TokenMap, ...]
    cost: Cost


class RefinementTask(StudyTask):
    """Computes a `Refinement`. Cells of a grid that differ in method alone share the plain model's answers."""

    name = "refinement"
    needs_boxes = False
    takes_thoughts = True
    _warm = False

    def to_dict(self) -> dict[str, Any]:
        """Everything the stored numbers depend on; the seed only affects the intervals, which are not stored."""
        study = self.study
        return {
            **super().to_dict(),
            "method": study.method.to_dict(),
            "max_new_tokens": study.max_new_tokens,
            "read_layer": study.read_layer,
        }

    def schemas(self) -> Mapping[str, pa.Schema]:
        """The tables: measures before and after, one row per sample, and the maps of the method and those read."""
        return {"scores": SCORES, "samples": SAMPLES, "maps": MAPS}

    def joined(self) -> tuple[str, ...]:
        """All tables except the maps."""
        return ("scores", "samples")

    def measure(self, indices: tuple[int, ...]) -> Outcome:
        """The rows of each sample; the costs of the method and of the plain model are listed beside the total."""
        study = self.study
        samples = [study.data[index] for index in indices]
        options = {"prompt": study.prompt, "max_new_tokens": study.max_new_tokens}
        with suitable_threads(self.mllm):
            plain, paid = self._once("plain", indices, lambda: self._plain(samples, options), _n_bytes)
            mllm, bill = billed(self.mllm, self._shelf)
            answers = study.method.answer(mllm, samples, **options)
            read = self._read(indices, samples, answers)

        def rows(place: int, index: int) -> TableRows:
            pair = (plain.answers[place], answers[place])
            looks = {when: found[place] for when, found in read.items()}
            return self._rows(index, pair, plain.tokens[place], looks)

        spent = answers[0].cost if paid else answers[0].cost + plain.answers[0].cost
        costs = spent_columns(spent, plain.cost, answers[0].cost + bill.found)
        return Outcome(self.each(indices, rows), costs)

    def _plain(self, samples: list[Any], options: Mapping[str, Any]) -> _Plain:
        if not self._warm:  # exclude the warm-up: the first pass of a process takes longer
            self._warm = True
            PLAIN.answer(billed(self.mllm, ProcessCache())[0], samples[:1], **options)
        mllm, bill = billed(self.mllm, self._shelf)
        answers = PLAIN.answer(mllm, samples, **options)
        tokens = tuple(mllm.encode(samples, self.study.prompt).tokens)
        return _Plain(answers, tokens, answers[0].cost + bill.found)

    def _read(
        self, indices: tuple[int, ...], samples: list[Any], answers: Sequence[Answer]
    ) -> dict[str, list[Float[np.ndarray, " token"]]]:
        """Relative attention of the last prompt row at the layer, before and, where it can be repeated, after."""
        study, layer = self.study, self.study.read_layer
        if layer is None:
            return {}

        def run() -> Any:
            own = last_rows(self.mllm, samples, study.prompt, layer)
            return own, generic_rows(self.mllm, samples, study.prompt, layer)

        (before, generic), _ = self._once(f"rows of layer {layer}", indices, run, lambda _: 0)
        edits = repeated(study.method, self.mllm, answers)
        found = {"before": over(before, generic)}
        if edits is not None:
            after = last_rows(self.mllm, samples, study.prompt, layer, edits) if edits else before
            found["after"] = over(after, generic)
        return found

    def _once(self, what: str, indices: tuple[int, ...], run: Any, size: Any) -> tuple[Any, bool]:
        """A value that does not depend on the method, and whether another cell has already computed it."""
        return self._shelf.once(f"{what} {self._before} {indices}", run, size)

    @cached_property
    def _before(self) -> str:
        """A hash of everything that the plain model's answers depend on."""
        return digest({**super().to_dict(), "max_new_tokens": self.study.max_new_tokens})

    def _rows(
        self, index: int, pair: tuple[Answer, Answer], tokens: TokenMap, looks: Mapping[str, np.ndarray]
    ) -> TableRows:
        """The sample's scores, its own row and its maps."""
        sample, prompt = self.study.data[index], self.study.prompt
        right = [is_right(one.text, sample, prompt) for one in pair]
        details = dict(pair[1].details)
        scores = [
            *self._scores(index, pair, right),
            *self._ratios(index, tokens, looks),
        ]
        row = {
            **self._sample_fields(index),
            "text_before": pair[0].text,
            "text_after": pair[1].text,
            "correct_before": right[0],
            "correct_after": right[1],
            "n_tokens": tokens.n,
            "n_kept": int(np.sum(details["kept"])) if "kept" in details else None,
            "crop": [int(edge) for edge in details["crop"]] if "crop" in details else None,
            "confidence": _float(details.get("confidence")),
            "weight": _float(details.get("weight")),
            "image_index": tokens.image_index.tolist(),
            "footprints": tokens.footprints.astype(np.float32).ravel().tolist(),
        }
        drawn = {"method": details.get("map"), "kept": details.get("kept"), **looks}
        maps = [
            {"index": index, "map": name, "values": np.asarray(values, np.float32).tolist()}
            for name, values in drawn.items()
            if values is not None
        ]
        return {"scores": scores, "samples": [row], "maps": maps}

    def _scores(
        self, index: int, pair: tuple[Answer, Answer], right: list[bool | None]
    ) -> list[dict[str, Any]]:
        """Right or wrong, and the log-probability and probability of beginning the sample's answer."""
        found = []
        sample, tokenizer = self.study.data[index], self.tokenizer
        for when, answer, mark in zip(TIMES, pair, right, strict=True):
            begins = (
                None if self.thinks(index) else answer.logits
            )  # the first token of reasoning says nothing about the answer
            logprob = answer_columns(begins, sample, self.study.prompt, tokenizer)["logprob"]
            values = {
                "correct": None if mark is None else float(mark),
                "logprob": logprob,
                "probability": None if logprob is None else float(np.exp(logprob)),
            }
            found += [score_row(index, name, when, value) for name, value in values.items()]
        return found

    def _ratios(self, index: int, tokens: TokenMap, looks: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        """The attention ratio of each map that was read; tokens without a footprint are left out."""
        sample = self.study.data[index]
        if not sample.boxes:
            return []
        seen = ~np.isnan(tokens.footprints).any(axis=1)
        inside = tokens.mask(sample.boxes)[seen]
        return [
            score_row(index, "ar", when, float(attention_ratio(np.asarray(values)[seen], inside)))
            for when, values in looks.items()
        ]


def score_row(index: int, measure: str, when: str, value: float | None) -> dict[str, Any]:
    """A row of the table `scores`; an undefined value is NaN."""
    return {
        "index": index,
        "measure": measure,
        "when": when,
        "value": float("nan") if value is None else value,
    }


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _n_bytes(plain: _Plain) -> int:
    """The bytes of the plain model's logits; texts and tokens are small."""
    return sum(answer.logits.nbytes for answer in plain.answers)


def spent_columns(spent: Cost, plain: Cost, method: Cost) -> dict[str, float]:
    """The cost spent here, and the costs of the plain model and of the method, each as if it ran alone."""
    found = {name: float(getattr(spent, name)) for name in (*SPENT, "peak_bytes")}
    for side, cost in (("plain", plain), ("method", method)):
        found |= {f"{side}_{name}": float(getattr(cost, name)) for name in SPENT}
    return found
