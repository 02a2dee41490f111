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
from interp.study.refinement.with_method import WithMethod, as_method, is_method
from interp.study.runs import GridCell
from interp.study.study import as_tuple, field, whole_number
from interp.tracing import Decoding, Edit

__all__ = ["Benchmark"]


def _listed(value: Any) -> Any:
    """A tuple from one value or several."""
    return as_tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def _scorers(value: Any) -> Any:
    """A tuple of scorers from one or several, each given as it is or by its name."""
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
    """A model's marks on a benchmark's questions: as it is, and under a method or edits on the same questions.

        study = interp.Benchmark(model="organism", data=interp.data.bundled("medical"), max_new_tokens=8)
        table = interp.Grid(study, data={"VQA-RAD": rad, "SLAKE": slake}, method={"Plain": Plain(), "PAI": PAI()})
        print(table.run().rows())           # a table of a paper: models and methods × benchmarks, averages, N

    With neither a method nor edits it is the model alone, and each question is answered once. Otherwise each is
    answered twice (before and after), and the cells of a `Grid` that differ in method, edits or scorer share the plain
    model's answers. It reads no attention and no map, so models that only answer (`adapter="answers_only"`) work too.
    Where a method makes the model look is a `Refinement`'s question.

    Args:
        data: The questions; those without an answer are generated, and counted as not marked.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        method: One of `interp.methods`, its name such as "PAI" (published constants; "VGRefine" where heads are
            published for the model), or anything that is a `Method`; decodes greedily.
        edits: Edits under which the model answers, in the place of a method.
        prompt: How the question is put: closed and open questions with `PAPER_PROMPT`; for multiple choice letter the
            options, as `Prompt(options="letters")` does.
        scorer: What marks an answer, one of `interp.metrics.scorers` or its name, such as "strict"; or several, the
            first of which is what tables are about.
        max_new_tokens: How many tokens each answer has at most; the paper's official code generates exactly one.
        decoding: How tokens are chosen, without a method; drawn ones depend on the seed.
        seed: Of the bootstrap, of the samples a report shows, and of drawn tokens.
        batch: Samples per forward pass. Part of the hash: other batches round differently.

    Raises:
        StudyError: No sample, no method, edit or scorer, a method and edits at once, a method and a decoding at once,
            heads ranked on another model, or another field of the wrong type.
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
        """Refuse a method together with edits or a decoding of one's own, and heads ranked on another model."""
        super().check()
        if self.method != Plain() and self.edits:
            raise StudyError(
                "a benchmark is under a method or under edits, so that it is plain what changed; got both. Give one."
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
        """Short names of the model, the data and what is changed."""
        edits = ", ".join(dict.fromkeys(type(edit).__name__ for edit in self.edits))
        return {**super().labels, "method": edits or method_name(self.method)}

    def task(self, mllm: Any) -> BenchmarkTask:
        """The study as work for the runner.

        Raises:
            StudyError: The method refers to heads that have not been resolved.
        """
        if self.unresolved:
            raise StudyError(
                f"which heads {method_name(self.method)} uses is known once their ranking has run. Run the study, or "
                'name them first: study.resolved("runs").'
            )
        return BenchmarkTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> BenchmarkResult:
        """The result of this study, or of a grid over it."""
        return BenchmarkResult.of(whole, cells, folder)


def method_name(method: Any) -> str:
    """The name of a method in tables."""
    return str(getattr(method, "name", type(method).__name__))
