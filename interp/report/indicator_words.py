"""The fixed sentences of a comparison's page."""

from __future__ import annotations

from interp.report import prose
from interp.study.indicator_costs import FLOPS

__all__ = [
    "AGREEMENT", "COSTS", "FAITHFUL", "FINDS", "GALLERY", "LEAD", "LOCALISATION", "PAIRS", "PARETO", "SANITY", "TERMS",
]  # fmt: skip

LEAD = """For {samples}, {n} indicators each gave one map over the image tokens, for the log-probability of {target}.
The maps are set against {truth}, against one another, against what happens when their tokens are taken
away{removals}, and against maps of a model with shuffled weights and under other questions."""

LOCALISATION = """Points are means over samples, bars 95 % bootstrap intervals over groups (none where there are
fewer than 20). Dotted: what an even map scores. Filled: the certified truth; open: what else was scored beside it.
Grey names know nothing of the model."""

FINDS = """<b class="right">✓</b> finds the truth: better than every map that knows nothing, on the same samples: the
interval of each difference on the right side of zero, and the largest p (signs of whole groups flipped) at most 0.05
after Holm over the indicators. It says that a map tells more than nothing, not that it is good."""

PAIRS = """First minus second on the same samples. p: signs of whole groups’ differences flipped; Holm’s p is
adjusted over the pairs of a model and data set, so that reading them all still errs once in twenty at most."""

AGREEMENT = """Mean over samples of the rank correlation of two maps of the same sample (ties share the mean of their
ranks). Two indicators that agree need not be right, and two that are right need not agree outside the truth."""

FAITHFUL = """The most important tokens by each map are taken away first (deletion) or are the only ones left
(insertion), at the same fractions and in the same way for all. Heights run from 0, everything taken away, to 1,
untouched; areas are their means over the fraction: low is better for deletion, high for insertion. The random map’s
area is what to beat. Each way of taking away flatters the indicators built on it: their cells have a frame, and
count for less. Samples on which taking everything away costs less than {least} have no area."""

SANITY = """Rank correlation of a map with the same indicator’s map after a change that should matter: the model’s
weights shuffled within each tensor, from the top down or all (the answer explained stays that of the model as it
is), and another sample’s question on the same image. Near 1 means that the map does not depend on what was learned,
or asked: maps that know nothing stand there. A map read below the shuffled layers cannot change with them. Where the
cause is the same whatever is asked, as a planted marker is, a map under another question should stay as it is."""

COSTS = """Per sample, as if each indicator ran alone, the plain forward of the same batches first. Seconds depend on
what else the machine did; passes and tokens do not. On a CPU peak memory is the whole process’s so far, and says
little."""

PARETO = """The dotted line joins the indicators that none beats in both time and score. Time is wall time over that
of a plain forward of the same samples, on this machine."""

GALLERY = """Drawn with seed {seed}, not picked by what came of them. Maps run low {ramp} high, positive part over
its own 99.5th percentile; boxes show the first truth. Under each map: {metric} against it."""

TERMS = {
    "Comprehensiveness": """How far the target falls without the most important tokens, mean over {erased} % of them;
    higher is better (ERASER, arXiv 1911.03429).""",
    "Sufficiency": """How far the target falls when only the most important tokens are left, mean over the same
    fractions; lower is better.""",
    "Target’s scale": """Probability of the answer, or nats for a difference of answers. “Greedy” is what the
    untouched model says first.""",
    "Ties": """Tokens of one value are ordered by a draw that is the same for all maps.""",
    "Layers": """An indicator with a map per layer is shown at one layer, chosen on other samples by their boxes: a
    choice that indicators without layers do not have.""",
    "Floating-point operations": FLOPS,
    "Intervals": prose.INTERVALS,
    "Undefined": """A map that is the same everywhere has no order; a truth that covers no token asks nothing. Such
    values are left out and counted.""",
}
