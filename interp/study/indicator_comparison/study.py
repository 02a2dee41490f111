"""Compares indicators (others say attribution methods) on the same samples: localisation, faithfulness, cost."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.data import Samples
from interp.errors import StudyError
from interp.indicators import Attention, CentrePrior, RandomMap, Removal
from interp.indicators.names import labelled
from interp.inputs.prompt import GENERIC_PROMPT, Target
from interp.metrics import METRICS
from interp.run import Workers
from interp.study.indicator_comparison.checks import (
    AGREEMENT,
    check_choices,
    check_erased,
    check_few,
    check_indicators,
    check_layers,
    check_least,
    check_randomised,
    check_removals,
    check_steps,
    check_target,
    check_weights,
    distinct,
)
from interp.study.indicator_comparison.one_map import with_layers
from interp.study.indicator_comparison.result import IndicatorResult
from interp.study.indicator_comparison.task import IndicatorTask
from interp.study.model_spec import OpenModel
from interp.study.runs import GridCell
from interp.study.study import (
    RULES,
    Indicator,
    Study,
    as_indicator,
    as_samples,
    as_tuple,
    field,
    metric_names,
    one_of,
    some_of,
    whole_number,
    words,
)
from interp.study.truth import BOXES, MASKS, check_truth

__all__ = ["IndicatorComparison"]


def _usual() -> dict[str, Indicator]:
    return {
        "relative attention": Attention(relative_to=GENERIC_PROMPT),
        "attention": Attention(),
        "centre": CentrePrior(),
        "random": RandomMap(),
    }


def _validation(samples: Any) -> Samples | None:
    return None if samples is None else as_samples(samples, "validation")


def _labelled(value: Any) -> Any:
    """Label → indicator, also of a list, whose labels are the indicators' names; names stand for indicators."""
    if isinstance(value, Mapping):
        return {label: as_indicator(one) for label, one in value.items()}
    if not isinstance(value, list | tuple):
        return value  # its validator speaks
    pairs = [labelled(one) for one in value]
    if len({label for label, _ in pairs}) < len(pairs):
        raise StudyError(
            "two of the indicators have the same name. Give them labels of your own: indicators={'first': …, "
            "'second': …}."
        )
    return dict(pairs)


def _as_dict(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value  # else its validator speaks


class IndicatorComparison(Study[IndicatorResult]):
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
        indicators: Label → indicator, or a list of indicators or of their names. Without a baseline among them,
            `CentrePrior()` or `RandomMap()`, none can be said to find the truth.
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
        few: Label → on how many samples, drawn by seed, an indicator runs that costs too much to run on all; the sanity
            checks run it on an eighth as many.
        rule: When a token belongs to a box: "touch" (the paper's), "center", "stretch" (its code's). "masks" takes the
            fraction of each token that the sample's masks cover in the place of its boxes.
        seed: Draws samples, other questions, shuffled weights and the order of tied tokens; and of the bootstrap.
        batch: Samples per call of an indicator. Part of the hash: other batches round differently.
        choices: How each layer was chosen, in words; filled in by `resolved`.

    Raises:
        StudyError: No sample, no indicator, an unknown metric, truth or rule, steps out of range, or something of the
            wrong type. When run: an indicator with several layers and nothing to choose one by.
    """

    indicators: Mapping[str, Indicator] = field(
        factory=_usual, converter=_labelled, validator=check_indicators
    )
    removals: tuple[Removal, ...] = field(default=(), converter=as_tuple, validator=check_removals)
    metrics: tuple[str, ...] = field(
        default=("auroc", "ap", "pointing", "ar"), converter=words, validator=metric_names
    )
    truth: tuple[str, ...] = field(default=(BOXES,), converter=words, validator=distinct)
    target: Target = field(default=Target(), validator=check_target)
    validation: Samples | None = field(default=None, converter=_validation, compare=False)
    layers: Mapping[str, int | str] = field(factory=dict, converter=_as_dict)
    choose_by: str = field(default="auroc", validator=one_of(*METRICS))
    steps: tuple[float, ...] = field(
        default=(0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75), converter=as_tuple, validator=check_steps
    )
    erased: tuple[float, ...] = field(
        default=(0.01, 0.05, 0.1, 0.2, 0.5), converter=as_tuple, validator=check_erased
    )
    least: float = field(default=0.1, validator=check_least)
    agreement: tuple[str, ...] = field(default=("spearman",), converter=words, validator=some_of(AGREEMENT))
    randomised: tuple[float | str, ...] = field(
        default=(0.5, "all"), converter=as_tuple, validator=check_randomised
    )
    n_faithful: int | None = field(default=None, validator=whole_number(0, or_none=True))
    n_checked: int | None = field(default=24, validator=whole_number(0, or_none=True))
    few: Mapping[str, int] = field(factory=dict, converter=_as_dict)
    rule: str = field(default="touch", validator=one_of(*RULES))
    choices: Mapping[str, str] = field(
        factory=dict, converter=_as_dict, validator=check_choices, compare=False
    )

    name = "indicator-comparison"
    title = "Indicators compared"
    page = "interp.study.indicator_comparison.page"

    def check(self) -> None:
        """Refuse labels of no indicator, truths that samples lack, shares that are no steps, weights elsewhere."""
        check_layers(self.layers, self.indicators)
        check_few(self.few, self.indicators)
        check_weights(self.model, self.randomised, self.n_checked)
        if not set(self.erased) <= set(self.steps):
            raise StudyError(f"erased are some of the steps {self.steps!r}; got {self.erased!r}.")
        check_truth(self.data, self.truth)
        if self.rule == MASKS and set(self.truth) != {BOXES}:
            raise StudyError(
                f'rule="masks" scores maps against masks; the truths {", ".join(self.truth)} name boxes of the meta. '
                'Use rule="touch" for those, or truth=["boxes"].'
            )
        if self.validation is not None:
            check_truth(self.validation, self.truth[:1])

    def __hash__(self) -> int:
        return hash((self.data, self.model, tuple(self.indicators), self.removals, self.metrics, self.truth))

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return "Which indicator can be trusted, and what does it cost?"

    @property
    def unresolved(self) -> bool:
        """Whether layers may have to be chosen: only the indicators, once they run, tell which give several."""
        return True

    def resolved(
        self,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int | Workers = 1,
        progress: bool = True,
        mllm: OpenModel | None = None,
    ) -> IndicatorComparison:
        """The study with a layer for every indicator that needs one; sweeps on validation samples lie under `out`.

        Raises:
            StudyError: A layer to choose and nothing to choose it on, or samples of a test split to choose on.
        """
        return with_layers(self, out, workers=workers, progress=progress, mllm=mllm)

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
