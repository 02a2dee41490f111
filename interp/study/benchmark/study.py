"""Marks the answers to a benchmark's questions, as the model is and under a method or edits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp.errors import StudyError
from interp.methods import Method, Plain
from interp.metrics.scorers import Scorer, Strict, scorer_named
from interp.study.benchmark.result import BenchmarkResult
from interp.study.benchmark.task import BenchmarkTask
from interp.study.refinement.study import WithMethod, as_method, is_method, method_name
from interp.study.runs import GridCell
from interp.study.study import as_tuple, field, whole_number
from interp.tracing import Decoding, Edit

__all__ = ["Benchmark"]


def _listed(value: Any) -> Any:
    """A tuple from one value or several."""
    return as_tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def _scorers(value: Any) -> Any:
    """A tuple of scorers from one or several, each given as a scorer or by its name."""
    listed = _listed(value)
    named = isinstance(listed, tuple) and any(isinstance(one, str) for one in listed)
    return tuple(scorer_named(one) if isinstance(one, str) else one for one in listed) if named else listed


def _are_edits(name: str, value: Any) -> None:
    wrong = [one for one in value if not isinstance(one, Edit)] if isinstance(value, tuple) else [value]
    if wrong:
        raise StudyError(
            f"{name} is a list of edits, such as [interp.Knockout(interp.Site(keys='image'))]; got {wrong[0]!r:.200}."
        )


def _are_scorers(name: str, value: Any) -> None:
    wrong = [one for one in value if not isinstance(one, Scorer)] if isinstance(value, tuple) else [value]
    if wrong or not value:
        raise StudyError(
            f"{name} is one of interp.metrics.scorers or a list of them, such as Strict(); got "
            f"{wrong[0] if wrong else value!r:.200}."
        )
    names = [one.name for one in value]
    if len(set(names)) < len(names):
        raise StudyError(
            f"{name} takes each scorer once, because its name is a column; got {', '.join(names)}."
        )


def _is_decoding(name: str, value: Any) -> None:
    if not isinstance(value, Decoding):
        raise StudyError(
            f"{name} is an interp.Decoding, such as Decoding(temperature=0.7); got {value!r:.200}."
        )


class Benchmark(WithMethod[BenchmarkResult]):
    """Marks a model's answers to a benchmark's questions: as it is, and under a method or edits.

        study = interp.Benchmark(model="organism", data=interp.data.bundled("medical"), max_new_tokens=8)
        table = interp.Grid(study, data={"VQA-RAD": rad, "SLAKE": slake}, method={"Plain": Plain(), "PAI": PAI()})
        print(table.run().rows())           # a table of a paper: models and methods × benchmarks, averages, N

    With neither a method nor edits the model runs alone, and each question is answered once. Otherwise each is answered
    twice (before and after), and the cells of a `Grid` that differ in method, edits or scorer share the plain model's
    answers. It reads no attention and no map, so models that only answer (`adapter="answers_only"`) work too. To see
    where a method makes the model look, use a `Refinement`.

    Args:
        data: The questions; those without an answer get a generated answer and count as not marked.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        method: One of `interp.methods`, its name such as "PAI" (published constants; "VGRefine" where heads are
            published for the model), or anything that is a `Method`. Methods decode greedily.
        edits: Edits under which the model answers, instead of a method.
        prompt: How the question is put: `PAPER_PROMPT` suits closed and open questions; for multiple choice use
            lettered options, `Prompt(options="letters")`.
        scorer: What marks an answer: one of `interp.metrics.scorers` or its name, such as "strict"; or several, of
            which tables show the first.
        max_new_tokens: The maximum number of tokens of each answer; the paper's official code generates exactly one.
        decoding: How tokens are chosen when no method is given; drawn tokens depend on the seed.
        seed: The seed of the bootstrap, of the samples that a report shows, and of drawn tokens.
        batch: Samples per forward pass. Part of the hash: other batches round differently.

    Raises:
        StudyError: There are no samples or no scorer, a method is given together with edits or with a decoding, its
            heads were ranked on another model, or a field has the wrong type.
    """

    method: Method = field(default=Plain(), converter=as_method, validator=is_method)
    edits: tuple[Edit, ...] = field(default=(), converter=_listed, validator=_are_edits)
    scorer: tuple[Scorer, ...] = field(default=(Strict(),), converter=_scorers, validator=_are_scorers)
    max_new_tokens: int = field(default=16, validator=whole_number(1))
    decoding: Decoding = field(default=Decoding(), validator=_is_decoding)

    name = "benchmark"
    title = "Benchmark"
    page = "interp.study.benchmark.page"

    def check(self) -> None:
        """Refuse a method together with edits or a decoding, and heads that were ranked on another model."""
        super().check()
        if self.method != Plain() and self.edits:
            raise StudyError(
                "a benchmark takes method= or edits=, so that it is clear what changed; got both. Give one of them."
            )
        if self.method != Plain() and self.decoding != Decoding():
            raise StudyError(
                f"{method_name(self.method)} decodes greedily, in its own way; decoding= is for the model alone or "
                "under edits. Leave it out."
            )

    @property
    def changes(self) -> bool:
        """Whether anything differs between before and after."""
        return self.method != Plain() or bool(self.edits)

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        if not self.changes:
            return "How often is the model right?"
        return f"Is the model right more often with {self.labels['method']} than without?"

    @property
    def labels(self) -> dict[str, str]:
        """Short names of the model, the data and the method or edits."""
        edits = ", ".join(dict.fromkeys(type(edit).__name__ for edit in self.edits))
        return {**super().labels, "method": edits or method_name(self.method)}

    def task(self, mllm: Any) -> BenchmarkTask:
        """The study as work for the runner.

        Raises:
            StudyError: The method refers to heads that are not resolved yet.
        """
        self.check_resolved()
        return BenchmarkTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> BenchmarkResult:
        """The result of this study, or of a grid over it."""
        return BenchmarkResult.of(whole, cells, folder)
