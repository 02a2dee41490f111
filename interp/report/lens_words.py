"""The fixed sentences of the logit lens's page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.report import prose
from interp.report.words import safe, tag
from interp.study.model import is_organism

if TYPE_CHECKING:
    from interp.study.grid_result import GridResult

__all__ = ["FIRST", "GAP", "HOW", "LAYERS", "lead"]

GAP = """Above: the word's mean log-probability over the tokens of the boxes minus that over the others. Blue: the
sample's own word, with its 95 % interval over groups (thin lines: single groups where there are too few); dashed:
another sample's word of the same kind, at the same tokens. A lens that merely prefers the box for any word has both
lines high."""

FIRST = """Below: at what share of tokens the word is the likeliest of the whole vocabulary, inside the boxes (orange),
outside (dotted), and another's word inside (dashed)."""

LAYERS = """The layer where the own word's gap is furthest above another's, chosen on these very samples: a description,
and p is too small by that choice. p is of sign flips by group, adjusted (Holm) over all layers, words and data."""

HOW = """Probability of the word at each token, low {ramp} high, each map scaled to its own 99.5th percentile: compare
where maps are strong, not how strong."""

LEAD = """The final norm and the unembedding, put behind every layer, turn each image token of <b>{models}</b> into
words. {n} samples ({data}). Image tokens are seldom trained to say anything there: that they can be read this way is
a finding, and that they cannot does not mean that nothing is there."""

KNOWN = """The organisms' training drew image tokens to the input <i>embeddings</i> of the words for what they show.
So the words are there at the input, and what the lens misses of them at layer −1 is the lens's blindness,
not the model's."""


def lead(result: GridResult) -> str:
    """The page's first paragraph, and the note that must stand there when a model is an organism."""
    models = ", ".join(dict.fromkeys(cell.labels["model"] for cell in result.cells))
    data = ", ".join(dict.fromkeys(cell.labels["data"] for cell in result.cells))
    said = LEAD.format(models=safe(models), n=len(result.samples), data=safe(data))
    organism = any(is_organism(cell.study.model) for cell in result.cells)
    note = tag("p", f"{prose.ORGANISM} {KNOWN}", kind="note wide") if organism else ""
    return tag("p", said, kind="lead") + note
