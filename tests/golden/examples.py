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
    Circuit,
    Grid,
    HeadAttribution,
    HeadRanking,
    HeadRoles,
    IndicatorComparison,
    KnockoutSweep,
    LayerSweep,
    LensSweep,
    ProbeSweep,
    ReasoningSweep,
    Refinement,
    StatedBoxes,
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


def circuit() -> Circuit:
    """The edges of four samples, one of which has no second answer."""
    return Circuit(
        data=Samples(natural()[:4], "natural"), against="zero", sizes=(5, 40, 160), exact=3, seed=1, batch=4
    )


def head_roles() -> Grid:
    """What heads do on both kinds of data."""
    return Grid(HeadRoles(data=natural(), seed=1, batch=10), data=both())


def probes() -> ProbeSweep:
    """Probes of the colour at two places."""
    scenes = bundled("natural", n=120, seed=5).filter(lambda sample: sample.meta["about"] == "colour")
    data = Samples(scenes[:36], "colours")
    return ProbeSweep(data=data, positions=("last", "box"), folds=2, seed=1, batch=36)


def thoughts() -> Samples:
    """Scenes with thoughts of one to three sentences to be forced, and one scene without a thought."""
    lines = ("The circle is there .", "It is big .", "So I know .")
    kept = [
        one.replace(meta={**one.meta, "reasoning": " ".join(lines[: i % 3 + 1])})
        for i, one in enumerate(natural())
    ]
    return Samples([*kept, *bundled("natural", n=1, seed=8)], "thoughts")


def reasoning(model: Any) -> ReasoningSweep:
    """Given thoughts, of a model that thinks."""
    return ReasoningSweep(
        data=thoughts(), model=model, thoughts="given", prompt=Prompt(thinking=True), answer_tokens=2, batch=8
    )


def stated(sample: Any, place: int) -> str:
    """What is put in the model's mouth: the box moved by `place` hundredths, a bad box at each fifth."""
    box, (width, height) = sample.boxes[0], sample.sizes[0]
    shift = place / 100
    x0, y0 = box.x0 / width * 0.9 + shift / 10, box.y0 / height * 0.9
    x1, y1 = box.x1 / width * 0.9 + shift / 10, box.y1 / height * 0.9
    right, left = (x0, x1) if place % 5 == 4 else (x1, x0)
    return f"It is at [{left:.3f}, {y0:.3f}, {right:.3f}, {y1:.3f}]."


def stated_boxes() -> Grid:
    """Boxes that were put in the model's mouth, on both kinds of data; samples without a box fail."""
    texts = {
        one.id: stated(one, place)
        for data in both().values()
        for place, one in enumerate(data)
        if one.boxes and one.sizes[0]
    }
    study = StatedBoxes(
        data=natural(), answers=texts, convention="fractions", layers=(1, 2), seed=1, batch=10
    )
    return Grid(study, data=both())


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
        "circuit": Circuit(
            data=few, against="mean", n_images=3, sizes=(7, 3), exact=2, executor="transformer_lens", prompt=SHORT,
            graph=(("image", "L01H05"), ("L01MLP", "answer")), seed=4, batch=2,
        ),
        "head_roles": HeadRoles(data=few, target="answer", ablate=False, prompt=SHORT, seed=4, batch=2),
        "probe_sweep": ProbeSweep(
            data=few, target="about", positions=("image", "box"), control="question", folds=2, penalty=0.5,
            prompt=SHORT, seed=4, batch=2,
        ),
        "reasoning_sweep": ReasoningSweep(
            data=few, thoughts="given", max_new_tokens=9, answer_tokens=3, prompt=Prompt(thinking=True), seed=4,
            batch=2,
        ),
        "stated_boxes": StatedBoxes(
            data=few, convention="fractions", answers={"a": "[0, 0, 1, 1]"}, generate=7, indicator=Attention(),
            layers=(2, 1), upsample="nearest", threshold=0.75, rule="center", prompt=SHORT, seed=4, batch=2,
        ),
        "grid": Grid(
            LayerSweep(data=few, metrics=("ar",)),
            prompt={"paper": PAPER_PROMPT, "short": SHORT}, rule=["touch", "center"],
        ),
    }  # fmt: skip
