"""Every field of every study either changes what names the run's folder, or is listed here as one that need not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import interp
import tests.tiny as tiny
from interp.data import Samples
from interp.indicators import Attention, CentrePrior
from interp.indicators.removals import HideTokens, PaintPixels
from interp.methods import PAI
from interp.metrics.scorers import OpenRecall, Strict
from interp.study import Flow
from interp.study.study import Study
from interp.tracing import Decoding, Knockout, Mllm, Site, wrap

EDIT = Knockout(Site(queries="last", keys="image"))
COMMON: dict[str, Any] = {"prompt": interp.Prompt(template="{question} Say yes."), "batch": 5}
SEED = {"seed": 3}
CHANGES: dict[str, dict[str, Any]] = {
    "Benchmark": {
        "method": PAI(), "edits": (EDIT,), "scorer": (Strict(), OpenRecall()), "max_new_tokens": 3,
        "decoding": Decoding(temperature=1.0),
    },
    "Circuit": {
        "against": "zero", "sizes": (5, 10), "exact": 2, "graph": (("image", "head 0.1"),),
        "executor": "transformer_lens", **SEED,
    },
    "HeadAttribution": {"target": "answer"},
    "HeadRanking": {
        "indicator": Attention(per_head=True), "metric": "ar", "split": "test", "rule": "center",
    },
    "HeadRoles": {"target": "answer", "ablate": False, **SEED},
    "IndicatorComparison": {
        "indicators": {"one": CentrePrior(), "two": Attention(layers=[1])}, "removals": [PaintPixels()],
        "metrics": ["auroc"], "truth": ["marker"], "target": interp.Target("answer"),
        "layers": {"two": 1}, "steps": (0.01, 0.05, 0.1, 0.2, 0.5), "erased": (0.1,), "least": 0.2,
        "agreement": ("kendall",),
        "randomised": (0.25,), "n_faithful": 2, "n_checked": 2, "few": {"two": 1}, "rule": "center", **SEED,
    },
    "KnockoutSweep": {
        "flows": {"one": Flow("image", "last")}, "by": "layer", "window": 1, "stride": 2, "mode": "zero",
        "target": "greedy", "rule": "center", **SEED,
    },
    "LayerSweep": {
        "indicator": Attention(), "metrics": ("ar",), "edits": (EDIT,), "rule": "center", **SEED,
    },
    "LensSweep": {"lens": "patchscope", "words": ("answer",), "rule": "center", **SEED},
    "ProbeSweep": {"target": "question", "positions": ("last",), "control": "answer"},
    "ReasoningSweep": {"thoughts": "given", "max_new_tokens": 3, "answer_tokens": 3},
    "Refinement": {"method": PAI(), "max_new_tokens": 3, "read_layer": 1},
    "StatedBoxes": {
        "convention": "qwen3_vl", "answers": {"0": "x"}, "generate": 3, "indicator": CentrePrior(), "layers": (1,),
        "upsample": "nearest", "threshold": 0.9, "rule": "center", **SEED,
    },
}  # fmt: skip
"""Study → field → a value that is not its default and gives other numbers."""
ELSEWHERE: dict[str, set[str]] = {
    "Benchmark": {"seed"},  # only where tokens are drawn
    "Circuit": {"n_images"},  # only of the mean
    "HeadAttribution": {"seed"},  # of the intervals, which are not stored; so below
    "HeadRanking": {"seed"},
    "IndicatorComparison": {"validation", "choose_by", "choices"},  # they choose the layers, which it holds
    "ProbeSweep": {"seed", "folds", "penalty"},  # of the probes, which are not stored
    "ReasoningSweep": {"seed"},
    "Refinement": {"seed"},
}
GIVEN: dict[str, dict[str, Any]] = {
    "IndicatorComparison": {"indicators": {"one": CentrePrior(), "two": Attention()}, "removals": [HideTokens()]},
    "StatedBoxes": {"convention": "fractions"},
}  # fmt: skip


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(tiny.llava(), tiny.processor())


def study(name: str, **fields: Any) -> Study[Any]:
    meta = {"label": "nodule", "reasoning": "it is .", "marker": [0, 0, 20, 20]}
    samples = [
        tiny.sample("is it red?", i, boxes=[(8, 8, 40, 30)], id=f"{i}", answer=one, meta=meta)
        for i, one in enumerate(("red", "left"))
    ]
    make: Any = getattr(interp.study, name)
    return make(data=Samples(samples, "two"), **GIVEN.get(name, {}), **fields)


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_each_field_is_in_the_hash_or_need_not(mllm: Mllm, name: str) -> None:
    base = study(name)
    own = base.task(mllm).to_dict()
    fields = {one.name for one in dataclasses.fields(base)}
    changes = {**COMMON, **CHANGES[name]}
    free = ELSEWHERE.get(name, set())
    assert fields == {*changes, *free, "data", "model"}
    for field, value in changes.items():
        assert base.replace(**{field: value}).task(mllm).to_dict() != own, field
    for field in free & {"seed", "folds", "penalty", "n_images"}:
        assert base.replace(**{field: 3}).task(mllm).to_dict() == own, field


def test_every_study_is_in_the_table() -> None:
    found = {
        name
        for name in interp.study.__all__
        if isinstance(one := getattr(interp.study, name), type)
        and issubclass(one, Study)
        and one is not Study
    }
    assert found == set(CHANGES)


@pytest.mark.parametrize(
    ("name", "case", "field"),
    [
        ("Benchmark", {"decoding": Decoding(temperature=1.0)}, "seed"),
        ("Circuit", {"against": "mean"}, "n_images"),
    ],
)
def test_a_field_counts_where_it_changes_numbers(mllm: Mllm, name: str, case: Any, field: str) -> None:
    base = study(name, **case)
    assert base.replace(**{field: 3}).task(mllm).to_dict() != base.task(mllm).to_dict()


def test_given_thoughts_are_in_the_hash(mllm: Mllm) -> None:
    base = study("ReasoningSweep", thoughts="given")
    other = [one.replace(meta={**one.meta, "reasoning": "it is not ."}) for one in base.data]
    changed = base.replace(data=Samples(other, "two"))
    assert changed.task(mllm).to_dict()["given"] != base.task(mllm).to_dict()["given"]


def test_the_first_truth_is_in_the_hash(mllm: Mllm) -> None:
    """Maps under other questions are scored against it."""
    one, other = (
        study("IndicatorComparison", truth=truth).to_json(mllm)
        for truth in (["boxes", "marker"], ["marker", "boxes"])
    )
    assert one != other


def test_labels_are_in_the_hash_where_maps_are_read_at_them(mllm: Mllm) -> None:
    sample = tiny.sample("is it red?", 0, boxes=[(8, 8, 40, 30)], meta={"label": "red"})
    for queries, differ in (("label", True), ("last", False)):
        sweep = interp.LayerSweep(data=[sample], indicator=Attention(queries=queries))
        other = sweep.replace(data=[sample.replace(meta={"label": "is"})])
        assert (sweep.task(mllm).to_dict() != other.task(mllm).to_dict()) is differ
