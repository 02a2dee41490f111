"""Compares indicators (attribution methods) on the same samples: localisation, faithfulness, cost."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.data import Samples
from interp.errors import StudyError
from interp.indicators import Attention, CentrePrior, RandomMap, Removal
from interp.indicators.names import labelled
from interp.inputs.prompt import GENERIC_PROMPT, Target
from interp.metrics import METRICS
from interp.run import Workers
from interp.study.indicator_comparison.indicator_maps import ALL, SUM, with_layers
from interp.study.indicator_comparison.result import IndicatorResult
from interp.study.indicator_comparison.task import AGREEMENT, IndicatorTask
from interp.study.model_spec import OpenModel, is_remote
from interp.study.runs import GridCell
from interp.study.study import (
    RULES,
    Indicator,
    Study,
    as_indicator,
    as_samples,
    as_tuple,
    field,
    is_indicator,
    metric_names,
    one_of,
    some_of,
    whole_number,
    words,
)
from interp.study.truth import BOXES, MASKS, check_truth

__all__ = ["IndicatorComparison"]


def check_indicators(name: str, value: Any) -> None:
    """Raise `StudyError` unless it is a mapping from labels without "|" to indicators without a map per head."""
    if not isinstance(value, Mapping) or not value:
        raise StudyError(
            f"{name} is a list of indicators or a mapping from label to indicator, at least one; got {value!r}."
        )
    for label, one in value.items():
        if not isinstance(label, str) or not label.strip() or "|" in label:
            raise StudyError(f"an indicator's label is a text without '|'; got {label!r}.")
        is_indicator(f"the indicator {label!r}", one)
        if getattr(one, "per_head", False):
            raise StudyError(
                f"a comparison takes one map per layer or one in all; {label!r} has per_head=True."
            )


def check_layers(layers: Any, indicators: Mapping[str, Any]) -> None:
    """A mapping from labels of the indicators to a layer or "sum"."""
    if not isinstance(layers, Mapping):
        raise StudyError(f"layers is a mapping from an indicator's label to a layer; got {layers!r}.")
    for label, layer in layers.items():
        right = layer == SUM or (isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0)
        if label not in indicators or not right:
            raise StudyError(
                f"layers maps labels of the indicators to a layer 0, 1, … or {SUM!r}; got {label!r}: {layer!r}."
            )


def check_few(few: Any, indicators: Mapping[str, Any]) -> None:
    """A mapping from labels of the indicators to a number of samples."""
    for label, n in few.items() if isinstance(few, Mapping) else [(few, None)]:
        if (
            not isinstance(label, str)
            or label not in indicators
            or isinstance(n, bool)
            or not isinstance(n, int)
            or n < 1
        ):
            raise StudyError(
                f"few maps labels of the indicators to a number of samples ≥ 1; got {label!r}: {n!r}."
            )


def check_choices(name: str, value: Any) -> None:
    """A mapping from labels to sentences."""
    texts = [*value.keys(), *value.values()] if isinstance(value, Mapping) else [None]
    if not all(isinstance(one, str) for one in texts):
        raise StudyError(
            f"{name} maps labels to how their layer was chosen, in words; got {value!r}. Leave it out."
        )


def check_removals(name: str, value: Any) -> None:
    """Removals of distinct names."""
    for removal in value if isinstance(value, tuple) else (value,):
        if not callable(getattr(removal, "scores", None)) or not hasattr(removal, "to_dict"):
            raise StudyError(f"{name} are of interp.indicators, such as HideTokens(); got {removal!r}.")
    names = [removal.name for removal in value]
    if len(set(names)) < len(names):
        raise StudyError(f"{name} have a name of their own each; got {', '.join(names)}.")


def check_erased(name: str, value: Any) -> None:
    """One or more fractions."""
    if not isinstance(value, tuple) or not value or not all(isinstance(one, int | float) for one in value):
        raise StudyError(f"{name} are some of the steps, such as (0.1, 0.2); got {value!r}.")


def check_steps(name: str, value: Any) -> None:
    """Increasing fractions between 0 and 1."""
    numbers = isinstance(value, tuple) and all(isinstance(one, int | float) for one in value)
    inside = numbers and all(0 < one < 1 for one in value)
    if not value or not inside or any(a >= b for a, b in itertools.pairwise(value)):
        raise StudyError(f"{name} are increasing fractions between 0 and 1, both left out; got {value!r}.")


def check_least(name: str, value: Any) -> None:
    """A number above 0."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise StudyError(f"{name} is a number > 0, on the scale of the target; got {value!r}.")


def check_randomised(name: str, value: Any) -> None:
    """Shares of the layers in (0, 1], and "all"."""
    for share in value if isinstance(value, tuple) else (value,):
        number = isinstance(share, int | float) and not isinstance(share, bool) and 0 < share <= 1
        if not isinstance(value, tuple) or not (number or (isinstance(share, str) and share == ALL)):
            raise StudyError(f"{name} holds shares of the layers in (0, 1], and {ALL!r}; got {share!r}.")


def check_weights(model: Any, randomised: Sequence[Any], n_checked: int | None) -> None:
    """No shuffled weights where a server has the model."""
    if randomised and n_checked != 0 and is_remote(model):
        raise StudyError(
            "randomised= shuffles the model's weights, and those on an NDIF server are the same for all who use it. "
            "Pass randomised=(), or a model without remote=True."
        )


def check_target(name: str, value: Any) -> None:
    """An `interp.Target`."""
    if not isinstance(value, Target):
        raise StudyError(f'{name} is an interp.Target, such as Target("answer"); got {value!r}.')


def distinct(name: str, value: Any) -> None:
    """One or more words, each once."""
    texts = isinstance(value, tuple) and all(isinstance(one, str) for one in value)
    if not texts or not value or len(set(value)) < len(value):
        raise StudyError(f"{name} names one or more boxes, each once; got {value!r}.")


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
    """Label → indicator, also from a list, where the indicators' names are the labels; names become indicators."""
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
    """Compares several indicators on the same samples, under one protocol.

        study = interp.IndicatorComparison(
            data=interp.data.bundled("natural"),
            validation=interp.data.bundled("natural", split="validation", n=20),
            indicators={"attention": Attention(), "knockout": TokenKnockout(), "random": RandomMap()},
            removals=(HideTokens(), ReplaceEmbeddings("mean"), PaintPixels("blur")),
        )
        result = study.run("runs")
        print(result.table())

    Each indicator gives one map over the image tokens of each sample. The maps are scored against the truth
    (`metrics`); against one another (rank correlation per sample); by removing their tokens (deletion, insertion,
    comprehensiveness and sufficiency, under each removal, with the same fractions for all); and by two sanity checks:
    the rank correlation with the map of a copy with shuffled weights (`interp.tracing.copies.randomised`), and with the
    map under another sample's question on the same image. Costs are counted as if each indicator ran alone.

    An indicator that gives one map per layer needs a choice of layer: the one in `layers`; else the sum, where the
    indicator says that its layers add up (`layers_add_up`); else the layer with the best mean of `choose_by` on
    `validation`, never on the reported samples. This choice uses the truth, which indicators without layers do not.

    Args:
        data: Samples; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        indicators: Label → indicator, or a list of indicators or of their names. Without a baseline among them,
            `CentrePrior()` or `RandomMap()`, no indicator gets a verdict.
        removals: Ways to remove tokens, from `interp.indicators`; empty to leave out faithfulness.
        metrics: Short names of `interp.metrics.METRICS`; reports lead with the first.
        truth: What maps should point at: "boxes", or a key of each sample's meta that holds a box, such as "marker" of
            the bundled "marked" scenes. Of several truths the first is the certified one.
        target: The answer that is explained.
        prompt: How the question is put.
        validation: The samples on which layers are chosen.
        layers: Label → layer or "sum", for indicators whose layer is given and not chosen.
        choose_by: The metric that chooses layers.
        steps: Fractions of the tokens, between 0 and 1, at which the curves are measured; 0 and 1 are added.
        erased: The steps over which comprehensiveness and sufficiency are averaged.
        least: The smallest fall of the target, when every token is removed, by which curves are normalised: in
            probability, or in nats for a difference of answers. Samples with a smaller fall have no areas and are
            counted.
        agreement: "spearman", "kendall" or both.
        randomised: Which weights are shuffled in the sanity check: shares of the decoder layers from the top, and
            "all" for every weight of the model.
        n_faithful: The number of samples, drawn by seed, on which removals run; None for all.
        n_checked: The number of samples, drawn by seed, on which the sanity checks run; None for all.
        few: Label → the number of samples, drawn by seed, for an indicator that is too expensive to run on all; the
            sanity checks run it on an eighth of them.
        rule: When a token belongs to a box: "touch" (the paper's), "center", "stretch" (its code's). "masks" takes the
            fraction of each token that the sample's masks cover in the place of its boxes.
        seed: The seed of the draws of samples, other questions, shuffled weights and the order of tied tokens, and of
            the bootstrap.
        batch: Samples per call of an indicator. Part of the hash: other batches round differently.
        choices: How each layer was chosen, in words; filled in by `resolved`.

    Raises:
        StudyError: There are no samples or indicators; a metric, truth or rule is unknown; steps are out of range; or a
            field has the wrong type. Also when run: an indicator gives several layers and there are no validation
            samples.
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
        """Refuse labels of no indicator, truths that samples lack, erased shares that are no steps, remote weights."""
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
        """Whether layers may have to be chosen: True, because only a run shows which indicators give several."""
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
            StudyError: A layer has to be chosen and there are no validation samples, or these are of a test split.
        """
        return with_layers(self, out, workers=workers, progress=progress, mllm=mllm)

    def task(self, mllm: Any) -> IndicatorTask:
        """The study as work for the runner.

        Raises:
            StudyError: Layers have not been chosen yet.
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
