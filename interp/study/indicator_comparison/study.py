"""The study of indicators: which of them points at the cause, which does the model bear out, and what do they cost?"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.data import Samples
from interp.errors import StudyError
from interp.indicators import Attention, CentrePrior, RandomMap
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Target
from interp.metrics import named
from interp.run import canonical
from interp.study.indicator_comparison.checks import check_comparison
from interp.study.indicator_comparison.one_map import with_layers
from interp.study.indicator_comparison.result import IndicatorResult
from interp.study.indicator_comparison.task import IndicatorTask
from interp.study.indicator_comparison.truth import BOXES, check_truth
from interp.study.model_spec import as_model, open_model
from interp.study.runs import GridCell, run_study
from interp.study.study import study_labels

if TYPE_CHECKING:
    from interp.tracing import Mllm

__all__ = ["IndicatorComparison"]

GREEDY = Target()
USUAL = {
    "relative attention": Attention(relative_to=GENERIC_PROMPT),
    "attention": Attention(),
    "centre": CentrePrior(),
    "random": RandomMap(),
}


@dataclass(frozen=True, kw_only=True)
class IndicatorComparison:
    """Several indicators on the same samples, under one protocol.

        study = interp.IndicatorComparison(
            data=interp.data.bundled("natural"),
            validation=interp.data.bundled("natural", split="validation", n=20),
            indicators={"attention": Attention(), "knockout": TokenKnockout(), "random": RandomMap()},
            removals=(HideTokens(), ReplaceEmbeddings("mean"), PaintPixels("blur")),
        )
        result = study.run("runs")
        print(result.table())

    Each indicator gives one map over the image tokens of each sample. The maps are scored against the truth
    (`metrics`), against one another (rank correlation per sample), by taking their tokens away (deletion, insertion,
    comprehensiveness, sufficiency, under each removal with the same fractions for all), and by two sanity checks: the
    rank correlation with the map of a copy with shuffled weights (`interp.tracing.copies.randomised`), and with
    the map under another sample's question on the same image. Costs are counted as if each indicator ran alone.

    An indicator that gives a map per layer needs one layer. It is the one in `layers`; else the sum, where the
    indicator says that its layers add up (`layers_add_up`); else the layer with the best mean of `choose_by` on
    `validation`, never on the samples reported. Such a choice knows the truth, as indicators without layers do not.

    Args:
        data: Samples; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        indicators: Label → indicator.
        removals: Ways to take tokens away, of `interp.indicators`; none for no faithfulness.
        metrics: Short names of `interp.metrics.METRICS`; the first is the one that reports lead with.
        truth: What maps should point at: "boxes", or a key of each sample's meta that holds a box, such as "marker"
            of the bundled "marked" scenes. Several are scored side by side; the first is the certified one.
        target: The answer that is explained.
        prompt: How the question is put.
        validation: Samples to choose layers on.
        layers: Label → layer or "sum", where it is not to be chosen.
        choose_by: The metric that chooses layers.
        steps: Fractions of the tokens, between 0 and 1, at which the curves are measured; 0 and 1 are added.
        erased: Those of the steps over which comprehensiveness and sufficiency are means.
        least: The least fall of the target, when every token is taken away, that curves are normalised by: of its
            probability, or of nats for a difference of answers. Samples with less have no areas, and are counted.
        agreement: "spearman", "kendall" or both.
        randomised: Which weights are shuffled in the sanity check: shares of the decoder layers from the top, and
            "all" for every weight of the model.
        n_faithful: On how many samples, drawn by seed, removals are run; None for all.
        n_checked: On how many samples, drawn by seed, the sanity checks are run; None for all.
        few: Label → on how many samples, drawn by seed, an indicator too dear for all is asked; the sanity checks ask
            it on an eighth as many.
        rule: When a token belongs to a box: "touch" (the paper's), "center", "stretch" (its code's).
        seed: Draws samples, other questions, shuffled weights and the order of tied tokens; and of the bootstrap.
        batch: Samples per call of an indicator. Part of the hash: other batches round differently.
        choices: How each layer was chosen, in words; filled in by `resolved`.

    Raises:
        StudyError: No sample, no indicator, an unknown metric, truth or rule, steps out of range, or something of the
            wrong type. When run: an indicator with several layers and nothing to choose one by.
    """

    data: Any  # checked and turned into Samples, a ModelSpec and so on below
    model: Any = "organism"
    indicators: Any = field(default_factory=lambda: dict(USUAL))
    removals: Any = ()
    metrics: Any = ("auroc", "ap", "pointing", "ar")
    truth: Any = (BOXES,)
    target: Any = GREEDY
    prompt: Any = PAPER_PROMPT
    validation: Any = field(default=None, compare=False)
    layers: Any = field(default_factory=dict)
    choose_by: str = "auroc"
    steps: Any = (0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75)
    erased: Any = (0.01, 0.05, 0.1, 0.2, 0.5)
    least: float = 0.1
    agreement: Any = ("spearman",)
    randomised: Any = (0.5, "all")
    n_faithful: int | None = None
    n_checked: int | None = 24
    few: Any = field(default_factory=dict)
    rule: str = "touch"
    seed: int = 0
    batch: int = 8
    choices: Any = field(default_factory=dict, compare=False)

    name = "indicator-comparison"
    title = "Indicators compared"
    question = "Which indicator can be trusted, and what does it cost?"

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "model", as_model(self.model))
        put(self, "data", _samples(self.data, "data"))
        if self.validation is not None:
            put(self, "validation", _samples(self.validation, "validation"))
        put(self, "metrics", tuple(metric.name for metric in named(self.metrics)))
        for name in ("truth", "agreement"):
            value = getattr(self, name)
            put(self, name, (value,) if isinstance(value, str) else tuple(value))
        for name in ("removals", "steps", "erased", "randomised"):
            put(self, name, tuple(getattr(self, name)))
        check_comparison(self)
        for name in ("indicators", "layers", "choices", "few"):
            put(self, name, dict(getattr(self, name)))
        check_truth(self.data, self.truth)
        if self.validation is not None:
            check_truth(self.validation, self.truth[:1])

    def __hash__(self) -> int:
        return hash((self.data, self.model, tuple(self.indicators), self.removals, self.metrics, self.truth))

    @property
    def labels(self) -> dict[str, str]:
        """Short names of the model and the data."""
        return study_labels(self)

    def to_dict(self, mllm: Mllm | None = None) -> dict[str, Any]:
        """The study as JSON: everything its stored numbers depend on, with model and data by fingerprint.

        Args:
            mllm: The opened model, when there is one; otherwise it is opened to take its fingerprint.

        Raises:
            StudyError: Layers are still to be chosen (see `resolved`).
        """
        return self.task(open_model(self.model) if mllm is None else mllm).to_dict()

    def to_json(self, mllm: Mllm | None = None) -> str:
        """The canonical text of `to_dict`; the first 12 hex digits of its sha256 name the run's folder."""
        return canonical(self.to_dict(mllm))

    def replace(self, **changes: Any) -> IndicatorComparison:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def resolved(
        self,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int = 1,
        progress: bool = True,
        mllm: Mllm | None = None,
    ) -> IndicatorComparison:
        """The study with a layer for every indicator that needs one; sweeps on validation samples lie under `out`.

        Raises:
            StudyError: A layer to choose and nothing to choose it on, or samples of a test split to choose on.
        """
        return with_layers(self, out, workers=workers, progress=progress, mllm=mllm)

    def run(
        self,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int = 1,
        progress: bool = True,
        part: tuple[int, int] | None = None,
        mllm: Mllm | None = None,
    ) -> IndicatorResult:
        """The study's result; what is already under `out` is not computed again.

        Args:
            out: The folder that holds runs; this one's is `indicator-comparison-<hash>`.
            workers: Processes, each with its own copy of the model; the bytes are the same for any number.
            progress: Show progress on stderr.
            part: (i, n) computes only part i of n; the result can be read once every part is under `out`.
            mllm: The study's model, when it is open already.
        """
        return run_study(self, out, workers=workers, progress=progress, part=part, mllm=mllm)

    def task(self, mllm: Any) -> IndicatorTask:
        """The study as work for the runner.

        Raises:
            StudyError: Layers are still to be chosen.
        """
        if self.validation is not None:
            raise StudyError(
                "which layers are compared is known once they are chosen on the validation samples. Run the study, or "
                'choose first: study.resolved("runs").'
            )
        return IndicatorTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> IndicatorResult:
        """The result of this study, or of a grid over it."""
        return IndicatorResult.of(whole, cells, folder)


def _samples(data: Any, what: str) -> Samples:
    if isinstance(data, Samples):
        return data
    if isinstance(data, Sequence) and not isinstance(data, str | Mapping):
        return Samples(data)
    raise StudyError(
        f'{what} is Samples or a list of Sample, such as interp.data.bundled("natural"); got {type(data).__name__}.'
    )
