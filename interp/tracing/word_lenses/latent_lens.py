"""LatentLens: the words whose embeddings in context are nearest to the stream at an image token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import PromptError
from interp.tracing.cost import Meter
from interp.tracing.lens.logit_lens import WordScores
from interp.tracing.passes.progress_bar import progress_bar
from interp.tracing.passes.streams import read_streams
from interp.tracing.word_lenses.corpus import (
    Occurrence,
    as_corpus,
    corpus_digest,
    encoded_texts,
    filled,
    occurrences,
)
from interp.tracing.word_lenses.word_lens import as_layers, need_weights_here
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["LatentLens"]

TEXTS = 16
"""The number of texts in one pass."""
PLACES = 128
"""The number of image tokens compared at a time."""


@dataclass(frozen=True)
class LatentLens:
    """The cosine similarity of the stream at an image token and a word's nearest embedding in context.

    The language model reads the texts of a corpus, without an image. A word's contextual embedding at layer ℓ is the
    residual stream at the word's last token there. At an image token, a word's score is the largest cosine similarity
    with any of its contextual embeddings, over all texts and all candidate layers. It lies in [−1, 1]. Words are ranked
    among all words of the corpus. A text's first token is left out. A zero vector has similarity 0.

    Args:
        corpus: A list of texts, or a text file with one text per line. A text with "{word}" makes one text for each
            word that is read. By default five such templates (`interp.tracing.word_lenses.TEMPLATES`).
        candidates: The layers whose embeddings are compared with every layer of the image: "all" for every layer from
            −1 (the input embeddings) on, as published except for −1; a list of layers; or "same" for only the layer
            that is read.

    Raises:
        PromptError: No texts, a file that cannot be read, or candidates that are not layers.

    Source: Krojer et al., LatentLens, arXiv 2602.00462. Phukan et al., Beyond Logit Lens, arXiv 2411.19187, compare
        image tokens with the model's own answer in the same way.
    """

    corpus: Any = field(default=None, repr=False)
    candidates: Literal["all", "same"] | Sequence[int] = "all"

    kind = "contextual"

    def __post_init__(self) -> None:
        object.__setattr__(self, "corpus", as_corpus(self.corpus))
        object.__setattr__(self, "candidates", as_layers("candidates", self.candidates, ("all", "same")))

    def open(self, mllm: WrappedModel, words: Sequence[str], meter: Meter) -> _OpenedLatentLens:
        """The embeddings of the corpus' words in a model. It runs all texts, 16 in a pass.

        Raises:
            PromptError: A text that cannot be encoded, or candidates that the model does not have.
            ModelError: A slow tokenizer, or a model on a server.
        """
        need_weights_here(mllm, self.kind)
        every = tuple(range(-1, mllm.n_layers))
        kept = every if isinstance(self.candidates, str) else tuple(self.candidates)
        if set(kept) - set(every):
            raise PromptError(
                f"candidates are layers from −1 to {mllm.n_layers - 1} of this model; got {list(kept)}. Leave the "
                "others out."
            )
        met = _new_occurrences(mllm, filled(self.corpus, words), words)
        vectors, names = _embedded(mllm, met, kept, meter)
        return _OpenedLatentLens(every, vectors, names, self.candidates == "same")

    def to_dict(self) -> dict[str, Any]:
        """The lens as JSON values, the corpus by its hash."""
        candidates = self.candidates if isinstance(self.candidates, str) else list(self.candidates)
        return {self.kind: {"corpus_sha256": corpus_digest(self.corpus), "candidates": candidates}}

    def __str__(self) -> str:
        return self.kind


def _new_occurrences(
    mllm: WrappedModel, texts: Sequence[str], words: Sequence[str]
) -> list[tuple[str, list[Occurrence]]]:
    """Each text with its words, except those that an earlier text has after the same tokens."""
    seen: set[Occurrence] = set()
    found = []
    for text in texts:
        own = [one for one in occurrences(mllm.processor.tokenizer, text, words) if one not in seen]
        own = list(dict.fromkeys(own))
        seen.update(own)
        if own:
            found.append((text, own))
    if not found:
        raise PromptError(
            "the corpus holds no word after a text's first token, so there is nothing to compare image tokens with. "
            "Give longer texts: corpus=[…]."
        )
    return sorted(found, key=lambda one: len(one[0]))


def _embedded(
    mllm: WrappedModel, met: Sequence[tuple[str, list[Occurrence]]], layers: Sequence[int], meter: Meter
) -> tuple[dict[int, Tensor], list[str]]:
    """Layer → the stream at each occurrence of a word; and the word of each occurrence."""
    names = [one.word for _, own in met for one in own]
    parts: list[Tensor] = []
    at = [layer + 1 for layer in layers]
    with progress_bar("Reading the corpus", len(met), noun="texts") as advance:
        for start in range(0, len(met), TEXTS):
            some = met[start : start + TEXTS]
            batch = encoded_texts(mllm, [text for text, _ in some])
            rows = [[one.position for one in own] for _, own in some]
            parts += [stream[at] for stream in read_streams(mllm, batch, rows, meter)[0]]
            advance(len(some))
    joined = torch.cat(parts, dim=1)
    return dict(zip(layers, joined, strict=True)), names


class _OpenedLatentLens:
    """Contextual embeddings of one model. An `OpenedLens`; the ids of its words are places in `words`.

    Attributes:
        vectors: Layer → (entry, hidden), in the model's dtype.
        words: The words, without repeats.
        of: (entry,), the place of each entry's word in `words`.
    """

    unit = "cosine similarity"
    every = None

    def __init__(
        self, layers: tuple[int, ...], vectors: dict[int, Tensor], names: Sequence[str], same: bool
    ) -> None:
        self.layers, self.vectors, self.same = layers, vectors, same
        self.words = tuple(dict.fromkeys(names))
        self._place = {word: i for i, word in enumerate(self.words)}
        self.of: Int[Tensor, " entry"] = torch.tensor([self._place[name] for name in names])

    def find(self, words: Sequence[str], top: int) -> list[Tensor]:
        """The places of the words.

        Raises:
            PromptError: A word that the corpus lacks, or `top` out of range.
        """
        if isinstance(top, bool) or not isinstance(top, int) or not 0 <= top <= len(self.words):
            raise PromptError(f"top is a number of words from 0 to {len(self.words)}; got {top!r}.")
        lost = [word for word in words if str(word).casefold() not in self._place]
        if lost:
            raise PromptError(
                f"the corpus has no {lost[0]!r} after a text's first token. Add texts with it, or a template with "
                '"{word}" after other words: corpus=[…].'
            )
        return [torch.tensor(self._place[word.casefold()]) for word in words]

    def at(
        self, layer: int, stream: Float[Tensor, "token hidden"], found: Sequence[Tensor], top: int
    ) -> WordScores:
        """Cosine similarities of the words, their ranks, and the words of the highest similarity."""
        scores = torch.cat([self._scores(layer, chunk) for chunk in stream.split(PLACES)])
        own = scores[:, torch.tensor([int(one) for one in found], dtype=torch.long, device=scores.device)]
        ranks = (
            torch.stack([(scores > one[:, None]).sum(dim=1) for one in own.T], dim=1) if found else own.long()
        )
        best = scores.topk(top, dim=1)
        return own, ranks, best.indices, best.values

    def _scores(self, layer: int, stream: Tensor) -> Float[Tensor, "token word"]:
        """The largest similarity of each word."""
        best = torch.full((len(stream), len(self.words)), -torch.inf, device=stream.device)
        unit = torch.nn.functional.normalize(stream.float(), dim=-1)
        for candidate in [layer] if self.same else self.vectors:
            entries = torch.nn.functional.normalize(self.vectors[candidate].float(), dim=-1)
            found = (unit @ entries.to(unit.device).T).clamp(-1, 1)
            best.scatter_reduce_(1, self.of.to(found.device).expand_as(found), found, "amax")
        return best

    def text(self, id: int) -> str:
        """A word of the corpus, in lower case."""
        return self.words[id]
