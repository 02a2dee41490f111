"""Chooses a method's heads, layer and parameters on validation samples."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from interp.data import Samples
from interp.errors import StudyError
from interp.metrics import METRICS
from interp.run import Workers
from interp.study.dataframes import records, where
from interp.study.grid import Grid
from interp.study.head_ranking.head_set import (
    CHECKPOINTS,
    PUBLISHED,
    UNPUBLISHED,
    HeadSet,
    published_checkpoint,
    published_heads,
)
from interp.study.head_ranking.result import HeadResult
from interp.study.head_ranking.study import HeadRanking
from interp.study.layer_choice import (
    check_split,
    choose_layer,
    metrics_to_choose_by,
)
from interp.study.layer_sweep.result import Result
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
        read_layer: The layer after the masked one, where there is one: the first that reads the masked result.
        n_heads: The number of heads that could be ranked, or of the published set.
        said: How heads and layer were chosen, in sentences.
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
    layer_by: str = "ar",
    rule: str = "touch",
    rank: bool = False,
    published: str = "",
    seed: int = 0,
    workers: int | Workers = 1,
    batch: int = 8,
) -> Grounding:
    """The heads and the layer for VGRefine on this model: the published ones, else chosen on validation samples.

    Chosen are the top k heads of a `HeadRanking` by `metric`, and the layer of a `LayerSweep` with the best mean of
    `layer_by`. The paper ranks heads by KL on COCO and takes the layer with the lowest KL; `layer_by="kl"` does so. KL
    can be best for uniform maps; where no head or no layer is better than a uniform map, `said` says so.

    Published heads are used only where the model is known to be the published checkpoint (`published_checkpoint`), or
    where `published` names them.

    Args:
        model: The model.
        validation: Samples to choose on.
        out: The folder that holds runs.
        k: The number of heads; by default 20, as published, or an eighth of a small model's heads.
        metric: The metric that ranks the heads; the paper uses KL.
        layer_by: The metric that chooses the layer; the paper uses "kl", the lowest.
        rule: The rule by which a token belongs to a box, for heads and layer.
        rank: Whether to rank heads even where they are published.
        published: The name of a published set to use for any model: for a copy of the published checkpoint under
            another name.
        seed: The seed of the layer sweep.
        workers: The number of processes, or an `interp.run.Workers`.
        batch: Samples per forward pass.

    Raises:
        StudyError: A model without published heads has no validation samples, the samples are of the test split, there
            is no set of that name, or both `rank` and `published` are given.
    """
    if rank and published:
        raise StudyError(
            f"heads are either ranked or published; got rank=True and published={published!r}. Leave one out."
        )
    known = published_checkpoint(model)
    if published or (known is not None and not rank):
        return _published(published_heads(published or CHECKPOINTS[known or ""]), k)
    if validation is None or not len(validation):
        raise StudyError(
            f"no heads are published for {model.id}, so heads have to be ranked on validation samples, but there are "
            f'none. Give rows a "split" of "validation", or choose other data.{_namesake(model)}'
        )
    check_split([validation], "heads and a layer")
    shared: dict[str, Any] = {"model": model, "data": validation, "rule": rule, "batch": batch}
    ranking = HeadRanking(metric=metric, **shared)
    ranked = ranking.run(out, workers=workers)
    layers = LayerSweep(metrics=metrics_to_choose_by(layer_by), seed=seed, **shared)
    found = _found(ranking, ranked, layers.run(out, workers=workers), k, layer_by)
    own = f"{_namesake(model)} {UNPUBLISHED.get(model.id, '')}"
    return replace(found, said=" ".join(f"{found.said}{own}".split()))


def _found(
    ranking: HeadRanking, ranked: HeadResult, sweep: Result, k: int | None, layer_by: str
) -> Grounding:
    """The best heads and the best layer of these runs, and how they were chosen."""
    validation = ranking.data
    n_heads = ranked.n_heads - ranked.n_unranked
    chosen = k or min(20, max(n_heads // 8, 1))
    choice = choose_layer(sweep, layer_by)
    layer = next(iter(choice.layers.values()))
    split = f"{validation.split} " if validation.split else ""
    said = (
        f"{validation.name}: the top {chosen} of {n_heads} heads by {ranking.metric}, and layer {layer} by "
        f"{METRICS[layer_by].label}, on {len(validation)} {split}samples. {choice.caution} "
        f"{choice.warning} {ranked.none_beats_even()} {ranked.verdict(chosen)}"
    )
    after = min(layer + 1, int(sweep.scores.layer.max()))
    return Grounding(ranking.top(chosen), layer, after, n_heads, " ".join(said.split()))


def _published(found: HeadSet, k: int | None) -> Grounding:
    """The first k heads of a published set, and its layer."""
    kept = found if k is None else HeadSet.of(found.pairs[:k], name=found.name, source=found.source)
    layer = int(found.masked_layer or 0)
    said = f"{len(kept)} published heads, layer {layer} ({found.source})"
    return Grounding(kept, layer, layer + 1, len(found), said)


def _namesake(model: ModelSpec) -> str:
    """A hint for a folder that has the name of a published checkpoint and nothing else; empty for others."""
    name = model.id.rstrip("/").rsplit("/", 1)[-1].lower().removesuffix("-hf")
    if name not in PUBLISHED or published_checkpoint(model) is not None:
        return ""
    return (
        f" {model.id} has the name of a checkpoint whose heads are published, and nothing else says that it is that "
        f"checkpoint. If it is, say so: --published-heads {name}."
    )


def best_method(
    base: Refinement,
    methods: dict[str, Any],
    *,
    out: str | os.PathLike[str] = "runs",
    workers: int | Workers = 1,
) -> tuple[Any, RefinementResult]:
    """The method with the best accuracy on validation samples, and the result that it was chosen from.

    Equal accuracies are decided by the mean log-probability of the answer, then by the order given.

    Raises:
        StudyError: The samples are of the test split, or have no answers.
    """
    check_split([base.data], "a method's parameters")
    found = Grid(base, method=methods).run(out, workers=workers)
    summary = found.summary()
    marks = records(where(summary, summary.measure == "correct"))
    if not marks:
        raise StudyError(
            f"a method's parameters are chosen by accuracy, and the samples of {base.data.name} have no answers. "
            "Give them answer=…."
        )
    likely = {row["method"]: row["after"] for row in records(where(summary, summary.measure == "logprob"))}
    best = max(marks, key=lambda row: (row["after"], likely.get(row["method"], float("-inf"))))
    return methods[best["method"]], found
