"""How a page speaks of each lens: its name, its score and the score's unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

__all__ = ["LENS_WORDING", "MIXED", "Wording", "lens_kind", "wording_of"]

_LEAD = """<b>{models}</b>. {samples} ({data}). Models are seldom trained to put words at image tokens. If words can
be read there, that is a finding. If not, the information may still be there in another form."""
_OF_ALL = "the likeliest of the whole vocabulary"


@dataclass(frozen=True)
class Wording:
    """How a page describes a lens.

    Attributes:
        title: The lens's name.
        does: How the lens turns image tokens into words; the model's name follows.
        score: What the lens's numbers are.
        short: The name of the score on an axis.
        unit: The unit of the score.
        first: What the word is where its rank is 0.
        shown: What a map of the word shows; the word follows.
        is_log: Whether maps show the exponential of the score.
    """

    title: str
    does: str
    score: str = "log-probability"
    short: str = "log p"
    unit: str = "nats"
    first: str = _OF_ALL
    shown: str = "p"
    is_log: bool = True

    @property
    def lead(self) -> str:
        """The page's first paragraph; {models}, {samples} and {data} are filled in later."""
        return f"{self.does} {_LEAD}"

    def map_values(self, values: Float[np.ndarray, " token"]) -> Float[np.ndarray, " token"]:
        """The values that a map shows; tokens that were not read get the smallest value of those that were."""
        known = values[~np.isnan(values)]
        filled = np.where(np.isnan(values), known.min(initial=np.inf), values)
        return np.exp(filled) if self.is_log else filled


LENS_WORDING: Mapping[str, Wording] = {
    "logit": Wording(
        "Logit lens",
        "The final norm and the unembedding, applied after every layer, turn each image token into words: those of",
    ),
    "contextual": Wording(
        "Contextual-embedding lens",
        "The words of a text corpus whose embeddings in context are nearest to what stands at each image token, after "
        "every layer (LatentLens): the image tokens of",
        score="cosine similarity",
        short="cosine similarity",
        unit="from −2 to 2",
        first="the nearest of all words of the corpus",
        shown="similarity to",
        is_log=False,
    ),
    "jacobian": Wording(
        "Jacobian lens",
        "What stands at each image token after a layer, carried to the last layer by its average effect there, then "
        "read by the final norm and the unembedding: the image tokens of",
    ),
    "patchscope": Wording(
        "Patchscope",
        "What stands at each image token after a layer, put in the place of a token of a text prompt after the same "
        "layer, so that the model itself says the next word: the image tokens of",
    ),
}
"""By the lens's kind."""
MIXED = Wording(
    "Word lenses",
    "Several lenses read at each image token, after every layer; their scores have units of their own, so compare "
    "where and at which layers they are high, not how high: the image tokens of",
    score="score",
    short="score",
    unit="the lens's unit",
    first="the first of all that the lens ranks",
)


def lens_kind(lens: Any) -> str:
    """The name of a study's lens."""
    return lens if isinstance(lens, str) else str(lens.kind)


def wording_of(lenses: Iterable[Any]) -> Wording:
    """The wording for a page's lenses: that of their kind, or `MIXED` where there are several kinds."""
    kinds = {lens_kind(lens) for lens in lenses}
    return LENS_WORDING[kinds.pop()] if len(kinds) == 1 else MIXED
