"""The report's fixed sentences. Lines break where they like: HTML does not mind."""

from __future__ import annotations

__all__ = [
    "BEATS_BOTH",
    "BEATS_NONE",
    "CENTRE_PRIOR",
    "CHOSEN_HERE",
    "COMPARING",
    "COMPARISONS",
    "FEATURED",
    "FIGURES",
    "GALLERY",
    "INTERVALS",
    "LEAD",
    "ORGANISM",
    "SHUFFLED",
    "SYMBOLS",
]

BEATS_BOTH = """More inside the boxes than <b>both</b> nulls: the interval of each paired difference lies
beyond zero."""

BEATS_NONE = "Not distinguishable from the nulls: the interval of each paired difference holds zero."

LEAD = """Measured on <b>{models}</b> with {n} samples ({data}): how much of each layer's map over the image
tokens falls inside the annotated boxes."""

ORGANISM = """The model is a <b>model organism</b>: a small network trained for this toolkit so that the
cause of its answers is known. It shows that the instruments work. These are not the paper's numbers, and
they say nothing about a clinical model."""

FIGURES = """Lines are means over samples, bands their 95 % bootstrap intervals over groups (thin lines:
single groups, where there are too few for an interval). Grey: what the same maps score on another sample's
boxes (dashed), and what a look at the middle scores on the samples' own boxes (dotted)."""

GALLERY = """By {metric} at the featured layer. Left: the image with its box. Right: the map over its
tokens, low <span class="ramp" style="background:linear-gradient(90deg, {ramp})"></span> high, scaled to
each map's own 99.5th percentile."""

SYMBOLS = """R: the map over the N image tokens that see some of the image. B: the tokens that the boxes
cover, by the rule “{rule}”. G: even inside B, zero outside. Â = R / Σ R. KL = Σ G ln(G / Â)."""

SHUFFLED = """The sample's own map against the boxes of another sample, of another group where there is one,
moved to the same relative place. High scores here mean that boxes lie where maps are high anyway."""

CENTRE_PRIOR = """A Gaussian around the image's middle (σ = a quarter of each side) against the sample's own
boxes. High scores here mean that boxes lie in the middle."""

INTERVALS = """Percentile bootstrap over groups (2,000 resamplings): questions about one patient, volume or
image are not independent. Fewer than 20 groups carry no claim about a population."""

FEATURED = "One layer per model. It counts as an estimate only if it was chosen on other groups."

COMPARING = """KL and JS depend on the boxes' size, and AR cannot exceed N/|B|; KL gain subtracts the even
map's score. Compare data sets only at like box sizes."""

COMPARISONS = """Differences are first minus second. p: permutation test that moves whole groups (signs of the
paired differences, or which side a group is on); Holm's p is adjusted over the table, so that reading all its
rows still errs once in twenty at most. Different samples may have boxes of different size: “at like box
sizes” compares pairs whose boxes cover the same share of the tokens, to 10 %."""

CHOSEN_HERE = """The layer was chosen on these very samples, so these p-values are too small: read them as a
description."""
