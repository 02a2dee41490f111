"""Closed questions about a structure in a picture, whose answers follow from its mask or box.

"Left" and "right" in a question "Which side …?" and in its answer are sides of the picture, not of the patient.
`diverse` draws from many candidates as evenly as possible over modalities, body regions, labels and volumes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from interp.data.build.slices import BoxTuple, Finding

__all__ = [
    "ABNORMAL",
    "ATTRIBUTE",
    "LOCALIZATION",
    "Question",
    "Structure",
    "absent",
    "diverse",
    "is_abnormal",
    "lottery",
    "outline",
    "questions",
    "side",
    "size",
]


MIDLINE = 0.08
SMALL, LARGE = 0.04, 0.08
ROUND, LONG = 1.3, 2.0
"""The largest ratio of the principal axes of a round mask, and the smallest of an elongated one."""
FILLED = 0.85
"""The least share of an ellipse with the mask's own second moments that the mask must fill."""
ABNORMAL = (
    *("abscess", "adenoma", "aneurysm", "calculus", "cancer", "carcinoma", "consolidation", "cyst", "drusen"),
    *("edema", "effusion", "fracture", "haemorrhage", "hemorrhage", "infarct", "infection", "lesion"),
    *("mass", "melanoma", "metastasis", "metastases", "necrosis", "nodule", "opacity", "pneumonia"),
    *("pneumothorax", "polyp", "stone", "stroke", "tumor", "tumour", "ulcer"),
)
"""Words of labels that name a finding, not anatomy."""


@dataclass(frozen=True)
class Question:
    """A closed question about one label: its kind ("localization" or "attribute"), answer, subject and choices."""

    kind: str
    text: str
    answer: str
    about: str = ""
    options: tuple[str, ...] = ()


def side(box: BoxTuple, width: float, margin: float = MIDLINE) -> str | None:
    """Returns "left" or "right": the half of the picture the box's centre is in, None near the midline."""
    offset = (box[0] + box[2]) / 2 / width - 0.5
    if abs(offset) <= margin:
        return None
    return "left" if offset < 0 else "right"


def size(fraction: float) -> str | None:
    """Returns "small" or "large" from the box's share of the picture's area, None in between."""
    if fraction <= SMALL:
        return "small"
    return "large" if fraction >= LARGE else None


def questions(finding: Finding, width: float) -> list[Question]:
    """Returns the closed questions that the box of a finding answers: side, size and presence."""
    label = finding.label
    asked = [Question("localization", f"Is the {label} visible?", "yes")]
    if answer := side(finding.box, width):
        asked.insert(0, Question("localization", f"Which side is the {label} on?", answer))
    if answer := size(finding.fraction):
        asked.append(Question("attribute", f"What size is the {label}?", answer))
    return asked


def absent(label: str) -> Question:
    """Returns the presence question of a label that is nowhere in the slice."""
    return Question("localization", f"Is the {label} visible?", "no")


@dataclass(frozen=True)
class Structure:
    """The known facts about one label in one picture.

    Attributes:
        label: The label.
        fraction: The share of the picture that the label's box covers.
        outline: The shape of the mask, "round" or "elongated"; None in between, or without a mask.
        away: Labels that are certainly not in the picture; empty where this is unknown.
    """

    label: str
    fraction: float
    outline: str | None = None
    away: Sequence[str] = ()


def lottery(*words: str) -> int:
    """Returns a number from 0 to 2³² − 1 that depends on the words alone, on every machine.

    >>> lottery("liver", "0") == lottery("liver", "0")
    True
    """
    return int(hashlib.sha256("|".join(words).encode()).hexdigest()[:8], 16)


def is_abnormal(label: str) -> bool:
    """Returns whether a label names a finding, such as a tumor, rather than anatomy.

    >>> is_abnormal("kidney tumor"), is_abnormal("masseter"), is_abnormal("lung_nodules")
    (True, False, True)
    """
    words = label.lower().replace("_", " ").replace("-", " ").split()
    return any(word in ABNORMAL or word.removesuffix("s") in ABNORMAL for word in words)


def outline(mask: Bool[np.ndarray, "row col"]) -> str | None:
    """Returns "round" or "elongated" from the principal axes of a mask with square pixels.

    The ratio of the axes is that of the square roots of the eigenvalues of the pixels' covariance (1 for a disc and a
    square). Up to 1.3 the mask is round, from 2.0 on elongated. The result is None in between, and for masks with large
    holes or dents, which fill less than 85 % of the ellipse with the same second moments.
    """
    rows, columns = np.nonzero(mask)
    if rows.size == 0:
        return None
    spread = np.cov(np.stack([rows, columns]), bias=True) + np.eye(2) / 12  # a pixel is a square, not a point
    short, long = np.sqrt(np.linalg.eigvalsh(spread))
    if rows.size < FILLED * 4 * np.pi * short * long:
        return None
    if long <= ROUND * short:
        return "round"
    return "elongated" if long >= LONG * short else None


def _presence(found: Structure) -> Question | None:
    return Question("localization", f"Is the {found.label} visible?", "yes", "presence")


def _identity(found: Structure) -> Question | None:
    if not found.away:
        return None
    other = min(found.away, key=lambda label: lottery(found.label, label, "other"))
    first, second = sorted((found.label, other), key=lambda label: lottery(found.label, other, label))
    text = f"Which of these is visible: the {first} or the {second}?"
    return Question("localization", text, found.label, "identity", (first, second))


def _size(found: Structure) -> Question | None:
    answer = size(found.fraction)
    text = f"What size is the {found.label}, small or large?"
    return Question("attribute", text, answer, "size", ("small", "large")) if answer else None


def _shape(found: Structure) -> Question | None:
    text = f"What shape is the {found.label}, round or elongated?"
    return (
        Question("attribute", text, found.outline, "shape", ("round", "elongated")) if found.outline else None
    )


def _abnormality(found: Structure) -> Question | None:
    if not is_abnormal(found.label):
        return None
    text = f"Is the {found.label} normal or abnormal tissue?"
    return Question("attribute", text, "abnormal", "abnormality", ("normal", "abnormal"))


LOCALIZATION: Mapping[str, Callable[[Structure], Question | None]] = {
    "presence": _presence,
    "identity": _identity,
}
"""Kind → the localization question about a structure, None where it does not apply."""
ATTRIBUTE: Mapping[str, Callable[[Structure], Question | None]] = {
    "size": _size,
    "shape": _shape,
    "abnormality": _abnormality,
}
"""Kind → the attribute question about a structure, None where its mask gives no clear answer."""


def diverse(levels: Sequence[Sequence[Hashable]], n: int | None = None, seed: int = 0) -> list[int]:
    """Returns the indices of `n` candidates, in the order in which they are drawn.

    Each draw takes, among the candidates that are left, the value of the first level (such as modality and body region)
    that was drawn least often so far; within it, the value of the second level (such as the label) drawn least often
    within it; and so on. Ties, and the choice among candidates with equal values, are decided by a hash of the seed,
    the value and the candidate's index. So no stratum gives a second candidate before every other that has candidates
    left gave its first.

    Args:
        levels: The values of each candidate, coarse to fine; all of the same length.
        n: The number of candidates to draw; None, or more than there are, draws all.
        seed: The seed that decides ties.
    """
    tree = _Node()
    for place, values in enumerate(levels):
        tree.add(tuple(values), place, seed)
    wanted = len(levels) if n is None else min(n, len(levels))
    return [tree.draw(seed) for _ in range(wanted)]


class _Node:
    """The candidates that share their coarser values."""

    def __init__(self) -> None:
        self.parts: dict[Hashable, _Node] = {}
        self.places: list[tuple[int, int]] = []
        self.drawn: Counter[Hashable] = Counter()
        self.left = 0

    def add(self, values: tuple[Hashable, ...], place: int, seed: int) -> None:
        """Adds a candidate below the parts that its values name."""
        self.left += 1
        if values:
            self.parts.setdefault(values[0], _Node()).add(values[1:], place, seed)
        else:
            self.places.append((lottery(str(seed), str(place)), place))

    def draw(self, seed: int) -> int:
        """Removes a candidate of the part that was drawn from least, and returns its index."""
        self.left -= 1
        if not self.parts:
            self.places.sort(reverse=True)
            return self.places.pop()[1]
        open_ = (value for value, part in self.parts.items() if part.left)
        chosen = min(open_, key=lambda value: (self.drawn[value], lottery(str(seed), str(value))))
        self.drawn[chosen] += 1
        return self.parts[chosen].draw(seed)
