"""The paper's three scales of 1 to 5, and the shares of scores that it reports."""

from __future__ import annotations

from collections.abc import Mapping

from interp.report.form import FormScale, ScaleOption

__all__ = ["LOWEST", "PAPER_SHARES", "SCALES", "SCORES"]

SCORES = (1, 2, 3, 4, 5)
LOWEST = 3
"""A sample with a score below this is dropped, by the paper's rule."""


def _scale(name: str, label: str, words: str, anchors: Mapping[int, str]) -> FormScale:
    options = (ScaleOption(score, anchors.get(score, str(score)), str(score)) for score in SCORES)
    return FormScale(name, label, tuple(options), words)


SCALES = (
    _scale(
        "relevance",
        "Clinical relevance",
        "Does the question make sense for this image, and does answering it support clinical reasoning?",
        {1: "nonsensical", 5: "well phrased, and directly supports reasoning"},
    ),
    _scale(
        "grounding",
        "Visual grounding",
        "Is what the question asks about inside the box, and is the box as large as it needs to be?",
        {1: "other anatomy, or the question ignores the box", 5: "exactly the box"},
    ),
    _scale(
        "semantics",
        "Minimum semantic grounding",
        "How little medical knowledge does the answer need beyond seeing?",
        {
            1: "staging, prognosis or treatment",
            2: "a named disease",
            3: "a broad class of disease",
            4: "descriptors",
            5: "basic recognition",
        },
    ),
)
"""Higher is better on each. The anchors are the paper's (its appendix N); steps without one lie between."""

PAPER_SHARES: Mapping[tuple[str, str], tuple[float, float, float]] = {
    ("attribute", "relevance"): (3.31, 4.11, 92.58),
    ("attribute", "semantics"): (0.37, 10.38, 89.25),
    ("attribute", "grounding"): (4.04, 12.18, 83.77),
    ("localization", "relevance"): (0.02, 0.52, 99.46),
    ("localization", "semantics"): (0.05, 5.76, 94.19),
    ("localization", "grounding"): (3.96, 11.79, 84.25),
}
"""(kind of question, scale) → per cent of the scores 3, 4 and 5 among VGMED's kept samples: the paper's table N.6."""
