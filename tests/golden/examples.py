"""The small studies whose numbers are held: a few bundled samples on the bundled organisms."""

from __future__ import annotations

from functools import cache
from typing import Any

from interp.data import Samples, bundled
from interp.indicators import Attention, CentrePrior, HideTokens, RandomMap, ReplaceEmbeddings, TokenKnockout
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Prompt, Target
from interp.methods import Plain, ScalingVis, VGRefine
from interp.metrics.scorers import OpenRecall, Strict
from interp.study import (
    Benchmark,
    Grid,
    HeadAttribution,
    HeadRanking,
    IndicatorComparison,
    KnockoutSweep,
    LayerSweep,
    LensSweep,
    Refinement,
)
from interp.tracing import Decoding, Knockout, Site

N_NATURAL = 20
"""Groups enough for intervals; the medical samples are of three volumes, too few."""
FLOWS = ("box→last", "elsewhere→last", "image→last")
HEADS = ((0, 1), (3, 1), (4, 5))
ALL = tuple(range(6))
KINDS = {"last token": "last", "question's words": "question"}
RELATIVE = Attention(relative_to=GENERIC_PROMPT)
SHORT = Prompt(template="{question} Answer in one word.")


@cache
def natural(split: str = "test") -> Samples:
    """Scenes, each a group."""
    return bundled("natural", split=split, n=N_NATURAL, seed=3)


@cache
def medical(split: str = "test") -> Samples:
    """Five slices of few volumes: one without a box, one without an answer."""
    drawn = list(bundled("medical", split=split, n=5, seed=5))
    drawn[1], drawn[3] = drawn[1].replace(boxes=()), drawn[3].replace(answer=None)
    return Samples(drawn, "medical")


def both(split: str = "test") -> dict[str, Samples]:
    """Both kinds of data."""
    return {"natural": natural(split), "medical": medical(split)}


def marked() -> dict[str, Samples]:
    """Scenes with two truths: enough groups, and too few."""
    found = bundled("marked", n=22, seed=2)
    return {"marked": Samples(found[:20], "marked"), "a few": Samples(found[20:], "a few")}


def sweep(split: str = "test") -> Grid:
    """A layer sweep over both kinds of data."""
    batch = 6 if split == "test" else N_NATURAL
    base = LayerSweep(data=natural(split), metrics=("ar", "kl_gain", "js"), seed=1, batch=batch)
    return Grid(base, data=both(split))


def token_sweep(divisor: Prompt | None) -> Grid:
    """What two kinds of text tokens attend to."""
    indicators = {kind: Attention(relative_to=divisor, queries=rows) for kind, rows in KINDS.items()}
    base = LayerSweep(data=natural(), metrics=("ar",), seed=1, batch=N_NATURAL)
    return Grid(base, indicator=indicators, data=both())


def plain_maps() -> Grid:
    """Plain attention, beside the relative one of `sweep`."""
    base = LayerSweep(data=natural(), indicator=Attention(), metrics=("ar",), seed=1, batch=N_NATURAL)
    return Grid(base, data=both())


def ranking(data: str, metric: str = "kl", split: str = "validation") -> HeadRanking:
    """A head ranking on one kind of data."""
    return HeadRanking(data=both(split)[data], metric=metric, split=split, seed=1, batch=8)


def attribution() -> Grid:
    """A head attribution over both kinds of data."""
    return Grid(HeadAttribution(data=natural(), target="answer", seed=1, batch=8), data=both())


def lens() -> Grid:
    """A logit lens over both kinds of data."""
    return Grid(LensSweep(data=natural(), seed=1), data=both())


def knockout() -> Grid:
    """Windows of two layers, every other layer."""
    return Grid(KnockoutSweep(data=natural(), flows=FLOWS, window=2, stride=2, seed=1), data=both())


def knockout_heads() -> KnockoutSweep:
    """Heads blocked one by one, on few samples."""
    flows = ("image→last", "question→last")
    return KnockoutSweep(
        data=Samples(natural()[:6], "natural"), flows=flows, by="head", stride=2, target="greedy"
    )


def refinement(method: Any = None, data: Samples | None = None) -> Refinement:
    """One method."""
    chosen = method or VGRefine(heads=HEADS, layers=ALL, percentile=90)
    return Refinement(data=data or natural(), method=chosen, max_new_tokens=3, read_layer=2, seed=1, batch=10)


def methods() -> Grid:
    """Methods over both kinds of data."""
    listed = {
        "Plain": Plain(),
        "VGRefine": VGRefine(heads=HEADS, layers=ALL, percentile=90),
        "ScalingVis": ScalingVis(0.2),
    }
    return Grid(refinement(), data=both(), method=listed)


def benchmark() -> Grid:
    """Marks of answers over both kinds of data, two scorers."""
    listed = {"Plain": Plain(), "VGRefine": VGRefine(heads=HEADS, layers=ALL, percentile=90)}
    scorer = (Strict(), OpenRecall())
    study = Benchmark(data=natural(), scorer=scorer, max_new_tokens=3, seed=1, batch=10)
    return Grid(study, data=both(), method=listed)


def parameters() -> Grid:
    """One method over two parameters."""
    listed = {
        f"{k}, {p}": VGRefine(heads=HEADS[:k], layers=ALL, percentile=p) for k in (1, 3) for p in (20, 95)
    }
    return Grid(refinement(data=Samples(natural()[:9], "natural")).replace(read_layer=None), method=listed)


def comparison() -> Grid:
    """Indicators on scenes with a planted marker."""
    study = IndicatorComparison(
        data=marked()["marked"],
        model="shortcut-organism",
        indicators={
            "attention": Attention(),
            "relative attention": RELATIVE,
            "token knockout": TokenKnockout(),
            "centre": CentrePrior(),
            "random": RandomMap(4),
        },
        removals=(HideTokens(), ReplaceEmbeddings("mean")),
        metrics=("auroc", "ar"),
        truth=("marker", "boxes"),
        layers={"attention": 2, "relative attention": 3},
        steps=(0.1, 0.3, 0.6),
        erased=(0.1, 0.3),
        n_faithful=3,
        n_checked=2,
        randomised=("all",),
        few={"token knockout": 3},
        seed=1,
    )
    return Grid(study, data=marked())


def described() -> dict[str, Any]:
    """Every kind of study with fields that are not the defaults, and a grid."""
    few = Samples(natural()[:3], "natural")
    edits = (Knockout(Site(layers=[1, 2], heads=[0, 3], queries="last", keys="image"), mode="zero"),)
    return {
        "benchmark": Benchmark(
            data=few, edits=edits, scorer=(OpenRecall(clean=True), Strict(extract="first_word")), max_new_tokens=2,
            decoding=Decoding(temperature=0.5, top_k=3), prompt=SHORT, seed=3, batch=2,
        ),
        "layer_sweep": LayerSweep(
            data=few, indicator=Attention(), metrics=("js", "auroc"), prompt=SHORT, edits=edits,
            rule="center", seed=5, batch=3,
        ),
        "head_ranking": HeadRanking(
            data=few, indicator=Attention(per_head=True), metric="ar", split="test", prompt=SHORT, rule="stretch",
            batch=2,
        ),
        "head_attribution": HeadAttribution(data=few, target="answer", prompt=SHORT, seed=4, batch=5),
        "logit_lens": LensSweep(data=few, words=("answer",), prompt=SHORT, rule="center", seed=6, batch=2),
        "knockout_sweep": KnockoutSweep(
            data=few, flows=FLOWS, window=3, stride=2, mode="zero", target="greedy", prompt=SHORT,
            rule="center", seed=2, batch=7,
        ),
        "refinement": refinement(data=few).replace(prompt=SHORT),
        "indicator_comparison": comparison().base.replace(
            data=Samples(marked()["a few"], "marked"), target=Target("an answer"), prompt=SHORT, choose_by="ap",
            least=0.2, agreement=("kendall",), randomised=(0.25,), few={"token knockout": 2}, rule="center", batch=3,
        ),
        "grid": Grid(
            LayerSweep(data=few, metrics=("ar",)),
            prompt={"paper": PAPER_PROMPT, "short": SHORT}, rule=["touch", "center"],
        ),
    }  # fmt: skip
