"""Scores of words at each layer and image token, through any lens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Protocol, runtime_checkable

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError, PromptError
from interp.inputs.prompt import Prompt
from interp.tracing.cost import Meter
from interp.tracing.lens.bridge import SampleReadings, Samples, encoded
from interp.tracing.lens.logit_lens import WordScores, check_words, label_scores
from interp.tracing.passes.streams import read_streams
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["OpenedLens", "WordLens", "WordReadings", "as_layers", "need_weights_here", "read_tokens"]


@runtime_checkable
class OpenedLens(Protocol):
    """A lens on one model, ready to read streams."""

    unit: str
    """The unit of the scores."""
    layers: tuple[int, ...]
    """The layers it reads: −1 is what enters the first one."""
    every: int | None
    """The most image tokens of a sample that it reads, evenly spaced; None for all."""

    def find(self, words: Sequence[str], top: int) -> list[Tensor]:
        """The ids of each word, as `at` takes them.

        Raises:
            PromptError: A word that the lens cannot read, or `top` out of range.
        """
        ...

    def at(
        self, layer: int, stream: Float[Tensor, "token hidden"], found: Sequence[Tensor], top: int
    ) -> WordScores:
        """Scores and ranks of the words, (token, word); ids and scores of the highest-scoring words, (token, place)."""
        ...

    def text(self, id: int) -> str:
        """The word of an id that `at` returns."""
        ...


@runtime_checkable
class WordLens(Protocol):
    """The settings of a lens; `open` makes it ready for a model."""

    kind: str
    """Its name in `LensSweep(lens=…)`."""

    def open(self, mllm: WrappedModel, words: Sequence[str], meter: Meter) -> OpenedLens:
        """The lens on a model.

        Args:
            mllm: The model.
            words: All words that will be read.
            meter: Counts the passes that making it ready takes.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """Everything that the scores depend on except the model and the words, as JSON values."""
        ...


@dataclass(frozen=True, eq=False)
class WordReadings(SampleReadings):
    """Words read at image tokens, per sample. `found[i]` is a Dataset over (layer, token):

    - `score` (layer, token, word): larger means more of the word, in the unit that `unit` names.
    - `rank` (layer, token, word): how many of the lens's words score higher; 0 is the first. The logit lens, the
      Jacobian lens and patchscopes rank the likeliest spelling among all tokens of the vocabulary; `LatentLens` ranks
      the word among all words of its corpus.
    - `top_word` and `top_score` (layer, token, place): the words that score highest, and their scores.

    Layer −1 is the input of the first layer, layer ℓ is the output of layer ℓ. "token" counts image tokens from 0;
    image tokens that were not read are left out.

    Attributes:
        samples: One Dataset per sample.
        tokens: Where each sample's tokens are.
        logits: (sample, token_id), the logits after the last prompt token.
        unit: The unit of the scores: "log probability, nats" (≤ 0) or "cosine similarity" (in [−1, 1]).
    """

    unit: str


def read_tokens(
    opened: OpenedLens,
    mllm: WrappedModel,
    samples: Samples,
    words: Sequence[str],
    meter: Meter,
    *,
    prompt: Prompt | None = None,
    top: int = 1,
) -> WordReadings:
    """Words read at the image tokens of samples, through a lens.

    Raises:
        PromptError: A word that the lens cannot read, or `top` out of range.
        SampleError, ImageTokenMismatch: As in `Mllm.encode`.
    """
    mllm.need_image_rows("lenses")
    found = opened.find(check_words(words), top)
    batch = encoded(mllm, samples, prompt)
    read = [_spaced(tokens.n, opened.every) for tokens in batch.tokens]
    rows = [tokens.image[at] for tokens, at in zip(batch.tokens, read, strict=True)]
    streams, logits = read_streams(mllm, batch, [row.tolist() for row in rows], meter)
    made = []
    for stream, row, tokens in zip(streams, rows, batch.tokens, strict=True):
        with torch.no_grad():
            said = [opened.at(layer, stream[layer + 1], found, top) for layer in opened.layers]
        made.append(label_scores(said, words, row, tokens, opened.text, opened.layers))
    after = xr.DataArray(logits.cpu().numpy(), dims=["sample", "token_id"], name="logits")
    names = {"logprob": "score", "top_logprob": "top_score"}
    return WordReadings(
        tuple(one.rename(names).drop_vars("top") for one in made), batch.tokens, after, opened.unit
    )


def _spaced(n: int, most: int | None) -> list[int]:
    """The indices of at most `most` of n tokens, evenly spaced."""
    if most is None or n <= most:
        return list(range(n))
    return [(2 * i + 1) * n // (2 * most) for i in range(most)]


def as_layers(name: str, value: Any, words: Sequence[str] = ("all",)) -> str | tuple[int, ...]:
    """The layers of a lens, sorted and without repeats, or a word that stands for some layers.

    Args:
        name: The argument's name, for the error.
        value: An iterable of layers, −1 or more, or one of `words`.
        words: The words that stand for layers.

    Raises:
        PromptError: Something other than layers or one of the words.
    """
    if isinstance(value, str) and value in words:
        return value
    try:
        found = () if isinstance(value, str | bytes) else tuple(value)
    except TypeError:
        found = ()
    if not found or any(isinstance(one, bool) or not isinstance(one, Integral) or one < -1 for one in found):
        raise PromptError(
            f"{name} is {', '.join(f'{word!r}' for word in words)}, or layers from −1 (the input embeddings) on, such "
            f"as [-1, 8]; got {value!r:.100}."
        )
    return tuple(sorted({int(one) for one in found}))


def need_weights_here(mllm: WrappedModel, kind: str) -> None:
    """Refuses a model on a server.

    Args:
        mllm: The model.
        kind: The name of the lens, for the error.

    Raises:
        ModelError: A model on a server.
    """
    if mllm.server is not None:
        raise ModelError(
            f"the {kind} lens reads a model on this machine; this one is on a server. Use the logit lens there, or "
            "load the model here."
        )
