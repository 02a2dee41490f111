"""The task of a `Benchmark`: each sample answered as the model is and under the change, and both answers scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from interp.methods import Answer, Plain
from interp.run import Outcome, ProcessCache, digest
from interp.study.benchmark.answer_scoring import Options, option_log_probabilities, scored
from interp.study.dataframes import SAMPLE_FIELDS
from interp.study.prefix_cost import billed
from interp.study.refinement.task import SCORES, TIMES, repeated, score_row, spent_columns
from interp.study.task import StudyTask, TableRows, suitable_threads
from interp.tracing import Cost, Edit
from interp.tracing.answers_only_mllm import AnsweringMllm
from interp.tracing.cost import Meter

__all__ = ["BenchmarkTask"]

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
    """What the model said to a micro-batch, the log-probabilities of options as far as needed, and the cost."""

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
        """Everything the stored numbers depend on; the seed only where tokens are drawn."""
        study = self.study
        edits = {"edits": [edit.to_dict() for edit in study.edits]} if study.edits else {}
        return {
            **self._plainly(),
            "method": study.method.to_dict(),
            **edits,
            "scorers": [scorer.to_dict() for scorer in study.scorer],
        }

    def _plainly(self) -> dict[str, Any]:
        """What the plain model's answers depend on."""
        study = self.study
        drawn = {"seed": study.seed} if study.decoding.temperature > 0 else {}
        generated = {"max_new_tokens": study.max_new_tokens, "decoding": study.decoding.to_dict()}
        return {**super().to_dict(), **generated, **drawn}

    def schemas(self) -> Mapping[str, pa.Schema]:
        """Scores before and after, and one row per sample with both texts."""
        return {"scores": SCORES, "samples": SAMPLES}

    def joined(self) -> tuple[str, ...]:
        """All tables."""
        return ("scores", "samples")

    def measure(self, indices: tuple[int, ...]) -> Outcome:
        """Rows of each sample; the costs of the change and of the plain model are listed beside the total."""
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
            "index": index,
            **dict(zip(("sample", "group"), self.identity(index), strict=True)),
            "question": sample.question,
            "answer": sample.answer,
            "options": None if sample.options is None else list(sample.options),
            "text_before": texts[0],
            "text_after": texts[1],
        }
        return {"scores": scores, "samples": [row]}
