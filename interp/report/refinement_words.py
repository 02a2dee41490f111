"""The fixed sentences of a refinement's page."""

from __future__ import annotations

__all__ = ["FIGURES", "FLIPS", "GALLERY", "LEAD", "LOOKS", "METHODS", "PAIRS", "PER_GROUP", "TERMS"]

LEAD = """<b>{model}</b> answers {samples} twice, greedily: as it is, and under the method. Every difference is
after − before on the same samples; positive means more often right."""

FIGURES = {
    "difference": (
        "Accuracy, after − before",
        """Points are means over samples, bars 95 % bootstrap intervals over groups. Where groups are too few for an
        interval, open circles are the single groups.""",
    ),
    "heat": (
        "Accuracy change over both parameters",
        """Each cell is the change of accuracy against the plain model, in points, on the same samples; blue is better,
        red worse. Hover for the interval and the number of samples. The best cell of a table flatters: choose
        parameters on validation samples.""",
    ),
}

METHODS = """Each line: one method against the plain model on the same samples. + and − count answers that became right
and wrong. Holm’s p is that of the group-wise sign test, adjusted over the lines. “Points”
are percentage points of accuracy, with the 95 % interval. Cost is the method’s over the plain model’s."""

PAIRS = """Accuracy under the first method less accuracy under the second. p: the signs of whole groups’ differences
flipped; Holm’s p is adjusted over this table."""

FLIPS = """McNemar’s exact test asks whether a fair coin would split the flips so unevenly. It takes samples as
independent: where several share a patient, a volume or an image, read the interval over groups instead."""

PER_GROUP = """Too few groups for an interval that speaks of others: these are the values, group by group, and no claim
about a population is made."""

GALLERY = """Drawn with seed {seed}, not picked by what came of them. Maps run low {ramp} high, each scaled to its own
99.5th percentile. Dark tokens are those the method hides. Beside each answer: the probability of beginning the
sample’s own answer. {layer}"""

LOOKS = """“Looks” is the last prompt row’s attention at layer {layers}, head mean, over that of a generic prompt on
the plain model; “after” was read anew under the method’s edits. Where a method edits that very layer, the change is
its own doing and no evidence of grounding."""

TERMS = {
    "Probability of the answer": """Of beginning it: the summed probability of the first tokens of the answer’s
    spellings, after the last prompt token. Under PAI’s guidance logits are contrasted and cut off, so probabilities
    are sharper by construction, and 0 where it rules the answer out; their logarithms are left out and counted.""",
    "Attention ratio": """The relative map’s mean inside the sample’s boxes over its mean everywhere; an even map
    scores 1.""",
    "Intervals": """Percentile bootstrap over groups (2,000 resamplings). Fewer than 20 groups carry no claim about a
    population, and no interval is shown.""",
    "Cost": """Seconds, passes and token positions of the method’s whole call, its own measuring passes included, over
    those of plain generation on the same batches, each as if it ran alone: an image prefix that methods share is
    counted for each. A prefix, what follows it and each generated token are a pass; tokens are positions that went
    through the language model. Other work on the machine makes seconds uncertain; passes and tokens are exact.""",
}
