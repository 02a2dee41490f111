"""What image tokens say, through any lens: scores of words at each layer and token."""

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
from interp.inputs.tokens import TokenMap
from interp.tracing.cost import Meter
from interp.tracing.lens.bridge import Samples, encoded
from interp.tracing.lens.logit_lens import Said, check_words, labelled
from interp.tracing.passes.streams import read_streams
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["OpenedLens", "WordLens", "WordReadings", "as_layers", "need_weights_here", "read_tokens"]


@runtime_checkable
class OpenedLens(Protocol):
    """A lens on one model, ready to read streams."""

    unit: str
    """Of its scores."""
    layers: tuple[int, ...]
    """The layers it reads: −1 is what enters the first one."""
    every: int | None
    """At most how many image tokens of a sample it reads, evenly spaced; None for all."""

    def find(self, words: Sequence[str], top: int) -> list[Tensor]:
        """What `at` needs to know of each word.

        Raises:
            PromptError: A word that it cannot read, or `top` out of range.
        """
        ...

    def at(
        self, layer: int, stream: Float[Tensor, "token hidden"], found: Sequence[Tensor], top: int
    ) -> Said:
        """Scores (token, word) and ranks of the words, ids and scores (token, place) of those that score highest."""
        ...

    def text(self, id: int) -> str:
        """The word of an id that `at` gives."""
        ...


@runtime_checkable
class WordLens(Protocol):
    """A lens as a value that says how streams are read; `open` makes it ready for a model."""

    kind: str
    """Its name in `LensSweep(lens=…)`."""

    def open(self, mllm: WrappedModel, words: Sequence[str], meter: Meter) -> OpenedLens:
        """The lens on a model.

        Args:
            mllm: the model.
            words: all words that it will be asked for.
            meter: counts what making it ready runs.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """Everything the scores depend on, beside the model and the words, as JSON values."""
        ...


@dataclass(frozen=True, eq=False)
class WordReadings(Sequence):
    """Words read at image tokens, per sample. `found[i]` is a Dataset over (layer, token):

    - `score` (layer, token, word): larger means more of the word. `unit` says what it is.
    - `rank` (layer, token, word): how many of the lens's words score higher; 0 is the first. The logit lens, the
      Jacobian lens and patchscopes rank by likeliest spelling among all tokens of the vocabulary, `LatentLens` among
      all words of its corpus.
    - `top_word` and `top_score` (layer, token, place): the words that score highest.

    Layer −1 is what enters the first layer, layer ℓ what layer ℓ returns. "token" counts image tokens from 0; those
    that were not read are not there.

    Attributes:
        samples: the Datasets.
        tokens: where each sample's tokens are.
        logits: (sample, token_id) after the last prompt token.
        unit: of the scores: "log probability, nats" (≤ 0) or "cosine similarity" (from −1 to 1).
    """

    samples: tuple[xr.Dataset, ...]
    tokens: tuple[TokenMap, ...]
    logits: xr.DataArray
    unit: str

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:
        return self.samples[index]


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
    """What the image tokens of samples say through a lens.

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
        made.append(labelled(said, words, row, tokens, opened.text, opened.layers))
    after = xr.DataArray(logits.cpu().numpy(), dims=["sample", "token_id"], name="logits")
    names = {"logprob": "score", "top_logprob": "top_score"}
    return WordReadings(
        tuple(one.rename(names).drop_vars("top") for one in made), batch.tokens, after, opened.unit
    )


def _spaced(n: int, most: int | None) -> list[int]:
    """The numbers of at most `most` of n tokens, evenly spaced."""
    if most is None or n <= most:
        return list(range(n))
    return [(2 * i + 1) * n // (2 * most) for i in range(most)]


def as_layers(name: str, value: Any, words: Sequence[str] = ("all",)) -> str | tuple[int, ...]:
    """The layers of a lens, sorted and each once, or one of the words that stand for some.

    Args:
        name: what they are called.
        value: any iterable of layers, from −1 on, or a word.
        words: the words.

    Raises:
        PromptError: Something else.
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
    """Raise `ModelError` for a model on a server."""
    if mllm.server is not None:
        raise ModelError(
            f"the {kind} lens reads a model on this machine; this one is on a server. Use the logit lens there, or "
            "load the model here."
        )
