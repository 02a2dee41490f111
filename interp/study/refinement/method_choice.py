"""A method's heads, layer and parameters, chosen on validation samples."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from interp.data import Samples
from interp.errors import StudyError
from interp.run import Workers
from interp.study.dataframes import records, where
from interp.study.grid import Grid
from interp.study.head_ranking.head_set import PUBLISHED, HeadSet
from interp.study.head_ranking.study import HeadRanking
from interp.study.layer_choice import check_split, choose_layer
from interp.study.layer_sweep.study import LayerSweep
from interp.study.model_spec import ModelSpec
from interp.study.refinement.result import RefinementResult
from interp.study.refinement.study import Refinement

__all__ = ["Grounding", "best_method", "grounding"]


@dataclass(frozen=True)
class Grounding:
    """Heads for VGRefine's triage and the layer it masks.

    Attributes:
        heads: A published set, or the top of a ranking, which has run.
        layer: The masked layer, 0-based.
        read_layer: The layer after it, where there is one: the first to work on what masking left.
        n_heads: How many heads could be ranked; the number of a published set.
        said: How both were chosen, in a sentence.
    """

    heads: HeadSet
    layer: int
    read_layer: int
    n_heads: int
    said: str

    def top(self, k: int) -> HeadSet:
        """The best k of these heads' own ranking, or the first k of a published set."""
        if self.heads.ranking is not None:
            return self.heads.ranking.top(k)
        return HeadSet.of(self.heads.pairs[:k], name=self.heads.name, source=self.heads.source)


def grounding(
    model: ModelSpec,
    validation: Samples | None,
    *,
    out: str | os.PathLike[str] = "runs",
    k: int | None = None,
    metric: str = "kl",
    seed: int = 0,
    workers: int | Workers = 1,
    batch: int = 8,
) -> Grounding:
    """The heads and the layer for VGRefine on this model: published, where they are, else found on validation samples.

    Otherwise: the top k heads of a `HeadRanking` by `metric`, and the layer with the best mean attention ratio of a
    `LayerSweep`, which is how we read the paper; it does not say how its layer was picked.

    Args:
        model: The model.
        validation: Samples to choose on.
        out: The folder that holds runs.
        k: How many heads; by default 20, as published, or an eighth of a small model's.
        metric: What ranks the heads; the paper's is KL.
        seed: Of the layer sweep.
        workers: Processes, or an `interp.run.Workers`.
        batch: Samples per forward pass.

    Raises:
        StudyError: No validation samples for a model without published heads, or samples of the test split.
    """
    name = model.id.rstrip("/").rsplit("/", 1)[-1].lower().removesuffix("-hf")
    if name in PUBLISHED:
        found = PUBLISHED[name]
        kept = found if k is None else HeadSet.of(found.pairs[:k], name=name, source=found.source)
        layer = int(found.masked_layer or 0)
        said = f"{len(kept)} published heads, layer {layer} ({found.source})"
        return Grounding(kept, layer, layer + 1, len(found), said)
    if validation is None or not len(validation):
        raise StudyError(
            f"no heads are published for {model.id}, so they are ranked on validation samples, and there are none. "
            'Give rows a "split" of "validation", or choose other data.'
        )
    check_split([validation], "heads and a layer")
    ranking = HeadRanking(model=model, data=validation, metric=metric, batch=batch)
    ranked = ranking.run(out, workers=workers)
    n_heads = ranked.n_heads - ranked.n_unranked
    chosen = k or min(20, max(n_heads // 8, 1))
    layers = LayerSweep(model=model, data=validation, metrics=("ar",), seed=seed, batch=batch)
    sweep = layers.run(out, workers=workers)
    choice = choose_layer(sweep)
    layer = next(iter(choice.layers.values()))
    split = f"{validation.split} " if validation.split else ""
    said = (
        f"{validation.name}: the top {chosen} of {n_heads} heads by {metric}, and layer {layer} by attention ratio, on "
        f"{len(validation)} {split}samples. {choice.caution} {ranked.none_beats_even()} {ranked.verdict(chosen)}"
    )
    said = " ".join(said.split())
    return Grounding(ranking.top(chosen), layer, min(layer + 1, int(sweep.scores.layer.max())), n_heads, said)


def best_method(
    base: Refinement,
    methods: dict[str, Any],
    *,
    out: str | os.PathLike[str] = "runs",
    workers: int | Workers = 1,
) -> tuple[Any, RefinementResult]:
    """The method with the best accuracy on validation samples, and what it was found from.

    Equal accuracies are decided by the mean log-probability of the answer, then by the order given.

    Raises:
        StudyError: Samples of the test split, or without answers.
    """
    check_split([base.data], "a method's parameters")
    found = Grid(base, method=methods).run(out, workers=workers)
    summary = found.summary()
    marks = records(where(summary, summary.measure == "correct"))
    if not marks:
        raise StudyError(
            f"a method's parameters are chosen by accuracy, and the samples of {base.data.name} have no answers."
        )
    likely = {row["method"]: row["after"] for row in records(where(summary, summary.measure == "logprob"))}
    best = max(marks, key=lambda row: (row["after"], likely.get(row["method"], float("-inf"))))
    return methods[best["method"]], found
