"""The task of a `Benchmark`: each sample is answered as the model is and under the change; both answers are scored."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from interp.errors import StudyError
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.methods import Answer, Plain
from interp.metrics.scorers import Scorer
from interp.run import Outcome, ProcessCache, digest
from interp.study.dataframes import SAMPLE_FIELDS
from interp.study.prefix_cost import billed
from interp.study.refinement.task import SCORES, TIMES, repeated, score_row, spent_columns
from interp.study.task import StudyTask, TableRows, suitable_threads
from interp.tracing import Cost, Edit
from interp.tracing.answers_only_mllm import AnsweringMllm
from interp.tracing.cost import Meter

__all__ = ["BenchmarkTask", "Options", "about", "gives_marks", "label", "option_log_probabilities", "scored"]


SAMPLES = pa.schema(
    [
        *SAMPLE_FIELDS,
        ("options", pa.list_(pa.string())),
        ("text_before", pa.string()),
        ("text_after", pa.string()),
    ]
)


@dataclass(frozen=True)
class _Answered:
    """The model's answers to a micro-batch, the log-probabilities of options that scorers need, and the cost."""

    texts: tuple[str | None, ...]
    options: Mapping[str, Options]
    cost: Cost


class BenchmarkTask(StudyTask):
    """Computes a `Benchmark`. Cells of a grid that differ in method, edits or scorer share the plain answers."""

    name = "benchmark"
    needs_boxes = False
    takes_thoughts = True
    _warm = False

    def to_dict(self) -> dict[str, Any]:
        """Everything the stored numbers depend on; the seed only if tokens are drawn."""
        study = self.study
        edits = {"edits": [edit.to_dict() for edit in study.edits]} if study.edits else {}
        return {
            **self._plainly(),
            "method": study.method.to_dict(),
            **edits,
            "scorers": [scorer.to_dict() for scorer in study.scorer],
        }

    def _plainly(self) -> dict[str, Any]:
        """Everything that the plain model's answers depend on."""
        study = self.study
        drawn = {"seed": study.seed} if study.decoding.temperature > 0 else {}
        generated = {"max_new_tokens": study.max_new_tokens, "decoding": study.decoding.to_dict()}
        return {**super().to_dict(), **generated, **drawn}

    def schemas(self) -> Mapping[str, pa.Schema]:
        """The tables: scores before and after, and one row per sample with both texts."""
        return {"scores": SCORES, "samples": SAMPLES}

    def joined(self) -> tuple[str, ...]:
        """All tables."""
        return ("scores", "samples")

    def measure(self, indices: tuple[int, ...]) -> Outcome:
        """The rows of each sample; the costs of the change and of the plain model are listed beside the total."""
        study = self.study
        samples = [study.data[index] for index in indices]
        needs = [scorer for scorer in study.scorer if scorer.needs_log_probabilities]
        key = f"plain {self._before} {[scorer.to_dict() for scorer in needs]} {indices}"
        with suitable_threads(self.mllm):
            before, paid = self._shelf.once(key, lambda: self._plain(samples, needs), lambda _: 0)
            after = self._changed(samples, needs) if study.changes else before
        spent = after.cost if not study.changes else after.cost + (Cost() if paid else before.cost)
        if not study.changes and paid:
            spent = Cost()
        columns = [self._scores(samples, said) for said in (before, after)]

        def rows(place: int, index: int) -> TableRows:
            values = [{name: column[place] for name, column in both.items()} for both in columns]
            return self._rows(index, (before.texts[place], after.texts[place]), values)

        return Outcome(self.each(indices, rows), spent_columns(spent, before.cost, after.cost))

    @cached_property
    def _before(self) -> str:
        return digest(self._plainly())

    def _plain(self, samples: list[Any], needs: Sequence[Any]) -> _Answered:
        if not self._warm:  # exclude the warm-up: the first pass of a process takes longer
            self._warm = True
            self._generated(billed(self.mllm, ProcessCache())[0], samples[:1], ())
        mllm, bill = billed(self.mllm, self._shelf)
        texts, cost = self._generated(mllm, samples, ())
        options = {one.name: option_log_probabilities(mllm, samples, self.study.prompt, one) for one in needs}
        return _Answered(texts, options, cost + bill.found)

    def _changed(self, samples: list[Any], needs: Sequence[Any]) -> _Answered:
        """The answers under the edits or the method."""
        study = self.study
        mllm, bill = billed(self.mllm, self._shelf)
        edits: Sequence[Edit] | None = study.edits
        if study.method == Plain():
            texts, cost = self._generated(mllm, samples, study.edits)
        else:
            options = {"prompt": study.prompt, "max_new_tokens": study.max_new_tokens}
            found: Sequence[Answer] = study.method.answer(mllm, samples, **options)
            texts, cost = tuple(answer.text for answer in found), found[0].cost
            edits = repeated(study.method, mllm, found) if needs else ()
        options = {
            one.name: option_log_probabilities(
                mllm, samples, study.prompt, one, edits, study.labels["method"]
            )
            for one in needs
        }
        return _Answered(texts, options, cost + bill.found)

    def _generated(
        self, mllm: Any, samples: list[Any], edits: Sequence[Edit]
    ) -> tuple[tuple[str | None, ...], Cost]:
        """The model's own answers, and their cost."""
        study = self.study
        drawn = {} if study.decoding.temperature == 0 else {"seed": study.seed}
        chosen = {} if study.decoding == type(study.decoding)() else {"decoding": study.decoding}
        options = {
            "prompt": study.prompt,
            "edits": list(edits),
            "generate": study.max_new_tokens,
            **drawn,
            **chosen,
        }
        if isinstance(mllm, AnsweringMllm):
            with Meter(mllm.device) as meter:
                texts = mllm.answers(samples, progress=False, **options)
            return tuple(texts), meter.cost
        trace = mllm.trace(samples, **options)
        return tuple(trace.answers), trace.cost

    def _scores(self, samples: list[Any], said: _Answered) -> dict[str, list[float | None]]:
        """Each scorer's values, by its name."""
        study = self.study
        return {
            scorer.name: scored(scorer, said.texts, samples, study.prompt, said.options)
            for scorer in study.scorer
        }

    def _rows(
        self, index: int, texts: tuple[str | None, ...], values: Sequence[Mapping[str, float | None]]
    ) -> TableRows:
        sample = self.study.data[index]
        scores = [
            score_row(index, name, when, value)
            for when, own in zip(TIMES, values, strict=True)
            for name, value in own.items()
        ]
        row = {
            **self._sample_fields(index),
            "options": None if sample.options is None else list(sample.options),
            "text_before": texts[0],
            "text_after": texts[1],
        }
        return {"scores": scores, "samples": [row]}


Options = Sequence[Float[np.ndarray, " option"] | None]
"""For each sample the log-probability of each of its options in nats; None for a sample without options."""
SHARE_RIGHT = "share right"


def gives_marks(scorer: Scorer) -> bool:
    """Whether a scorer gives right or wrong; one that decides by log-probabilities gives shares where options tie."""
    return scorer.unit == SHARE_RIGHT


def label(scorer: Scorer) -> str:
    """The name of the mean of a scorer's scores in tables."""
    if not gives_marks(scorer):
        return scorer.name
    return "accuracy" if scorer.name == "strict" else f"accuracy by {scorer.name}"


def about(scorer: Scorer) -> str:
    """What a scorer does: the first two paragraphs of its documentation."""
    paragraphs = (inspect.getdoc(type(scorer)) or "").split("\n\n")
    return " ".join(" ".join(paragraphs[:2]).replace("`", "").split())


def scored(
    scorer: Any,
    texts: Sequence[str | None],
    samples: Sequence[Sample],
    prompt: Prompt,
    options: Mapping[str, Options],
) -> list[float | None]:
    """The scorer's value for each answer; None for a sample that it cannot mark."""
    given = options[scorer.name] if scorer.needs_log_probabilities else texts
    return list(scorer.scores(given, samples, prompt))


def option_log_probabilities(
    mllm: Any,
    samples: Sequence[Sample],
    prompt: Prompt,
    scorer: Any,
    edits: Sequence[Edit] | None = (),
    method: str = "",
) -> Options:
    """The log-probability, after each sample's prompt, of each text that a scorer decides by; in nats.

    Args:
        mllm: The model.
        samples: The samples of a micro-batch; edits that a method repeats are for exactly these.
        prompt: How the question is put.
        scorer: A scorer with `answers(sample, prompt)`, the texts, and `target(text)`.
        edits: The edits under which the texts are scored; None for a method without edits to repeat.
        method: The method's name, for an error message.

    Raises:
        StudyError: The method's edits cannot be repeated.
    """
    if edits is None:
        raise StudyError(
            f"log-probabilities of options need further passes under the same edits, but {method} has no edits that "
            "can be repeated. Score its texts, for instance with Strict()."
        )
    texts = [scorer.answers(sample, prompt) for sample in samples]
    options: dict[str, Any] = {"prompt": prompt, "edits": list(edits), "progress": False}
    values = {
        text: mllm.score(samples, scorer.target(text), **options).values
        for text in dict.fromkeys(text for own in texts for text in own)
    }
    return [
        np.array([values[text][place] for text in own]) if own else None for place, own in enumerate(texts)
    ]
