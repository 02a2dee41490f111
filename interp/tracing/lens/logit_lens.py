"""The logit lens: the tokens that the unembedding reads from the stream after each layer, at each image token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.errors import PromptError
from interp.inputs.tokens import TokenMap
from interp.tracing.lens.bridge import BridgedModel, LensCache, SampleReadings, places
from interp.tracing.site import Selector

__all__ = [
    "LogitLens",
    "WordScores",
    "check_words",
    "label_scores",
    "logit_lens",
    "score_words",
    "spellings",
    "token_text",
    "word_ids",
]


def word_ids(tokenizer: Any, word: str) -> tuple[int, ...]:
    """The tokens that spell a whole word: as written, in lower case or capitalised, with or without a leading space.

    Raises:
        PromptError: A word none of whose spellings is one token.
    """
    unknown = getattr(tokenizer, "unk_token_id", None)
    spellings = dict.fromkeys((word, word.lower(), word.capitalize()))
    pieces = [
        tokenizer.encode(before + spelling, add_special_tokens=False)
        for spelling in spellings
        for before in ("", " ")
    ]
    found = {ids[0] for ids in pieces if len(ids) == 1 and ids[0] != unknown}
    found |= {
        ids[1]
        for ids in pieces
        if len(ids) == 2 and not tokenizer.decode(ids[:1]).strip() and ids[1] != unknown
    }
    if not word.strip() or not found:
        pieced = tokenizer.convert_ids_to_tokens(pieces[0]) if word.strip() else []
        raise PromptError(
            f"a lens looks for words that are one token; {word!r} is {pieced} in this vocabulary. Give one of its "
            "tokens, or a shorter word."
        )
    return tuple(sorted(found))


CHUNK = 128
"""The number of places whose logits over the whole vocabulary are in memory at a time."""


@dataclass(frozen=True, eq=False)
class LogitLens(SampleReadings):
    """Words read from the stream, per sample. `found[i]` is a Dataset over (layer, token):

    - `logprob` (layer, token, word): the word's log-probability, nats; the probabilities of its spellings are summed.
    - `rank` (layer, token, word): the rank of its likeliest spelling among all tokens; 0 is the likeliest.
    - `top` (layer, token, place): the ids of the likeliest tokens; `top_word` holds their text, `top_logprob` their
      log-probabilities in nats.

    Layer −1 is the input of the first layer, layer ℓ is the output of layer ℓ. Where only image tokens were read,
    "token" counts them from 0, and `tokens[i].to_pixels(found[i].logprob.sel(layer=3, word="red"))` draws them.
    Otherwise the dimension is "position", which is unpadded.

    Attributes:
        samples: One Dataset per sample.
        tokens: Where each sample's tokens are.
        logits: (sample, token_id), the logits after the last prompt token.
    """


def logit_lens(
    lens: BridgedModel,
    logits: xr.DataArray,
    cache: LensCache,
    words: Sequence[str],
    positions: Selector | Sequence[Selector],
    top: int,
) -> LogitLens:
    """The lens on the activations that a run kept; see `Lens.logit_lens`."""
    tokenizer = lens.mllm.processor.tokenizer
    spelt = spellings(tokenizer, int(lens.readout.head.weight.shape[0]), words, top)
    read = lens.readout.logits
    found = []
    for i, own in enumerate(places(cache.batch, positions)):
        rows = torch.from_numpy(own + int(cache.batch.pad[i]))
        with torch.no_grad():
            said = [score_words(read, stream[rows], spelt, top) for stream in _streams(cache, i)]
        found.append(label_scores(said, words, own, cache.batch.tokens[i], token_text(tokenizer)))
    return LogitLens(tuple(found), cache.batch.tokens, logits)


def spellings(tokenizer: Any, n_ids: int, words: Sequence[str], top: int) -> list[Tensor]:
    """The tokens of each word, after a check of the words and `top`.

    Args:
        tokenizer: The tokenizer.
        n_ids: The number of token ids that have logits.
        words: The words.
        top: The number of likeliest tokens to keep.

    Raises:
        PromptError: Words that are not different words of one token each, or `top` out of range.
    """
    if isinstance(top, bool) or not isinstance(top, int) or not 0 <= top <= n_ids:
        raise PromptError(f"top is a number of tokens from 0 to {n_ids}; got {top!r}.")
    return [torch.tensor(word_ids(tokenizer, word)) for word in check_words(words)]


def check_words(words: Sequence[str]) -> list[str]:
    """The words as a list.

    Raises:
        PromptError: Something other than a list of different words.
    """
    given: Any = words
    listed: list[Any] = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [None]
    if not all(isinstance(word, str) for word in listed) or len(set(listed)) < len(listed):
        raise PromptError(f"words is a list of different words; got {words!r:.100}.")
    return listed


def _streams(cache: LensCache, sample: int) -> list[Tensor]:
    """The input of the first layer, and the output of each layer, (position, hidden)."""
    names = ["blocks.0.hook_resid_pre", *(f"blocks.{layer}.hook_resid_post" for layer in cache.layers)]
    return [cache.activations[name][sample] for name in names]


def token_text(tokenizer: Any) -> Callable[[int], str]:
    """A function from a token id to its text."""
    return lambda token: tokenizer.decode([token]).strip()


WordScores = tuple[Tensor, Tensor, Tensor, Tensor]
"""Scores of the words, ranks of the words, ids of the words or tokens that score highest, and their scores. The logit
lens scores by log-probability, in nats."""


def score_words(
    read: Callable[[Tensor], Tensor], stream: Float[Tensor, "place hidden"], spelt: Sequence[Tensor], top: int
) -> WordScores:
    """The scores of words, and the likeliest tokens, at each place of a residual stream.

    Args:
        read: A function from a stream to its logits, float32.
        stream: The stream.
        spelt: The tokens of each word.
        top: The number of likeliest tokens to keep.
    """
    parts: list[tuple[Tensor, ...]] = []
    for chunk in stream.split(CHUNK):
        logits = read(chunk)
        logprobs = logits.log_softmax(dim=-1)
        own = [ids.to(logits.device) for ids in spelt]
        empty = logits.new_zeros(len(chunk), 0)
        said = [logprobs[:, ids].logsumexp(dim=-1) for ids in own]
        ranks = [(logits > logits[:, ids].amax(dim=-1, keepdim=True)).sum(dim=-1) for ids in own]
        best = logprobs.topk(top, dim=-1)
        parts.append(
            (
                torch.stack(said, dim=-1) if said else empty,
                torch.stack(ranks, dim=-1) if ranks else empty.long(),
                best.indices,
                best.values,
            )
        )
    logprob, rank, ids, values = (torch.cat(each) for each in zip(*parts, strict=True))
    return logprob, rank, ids, values


def label_scores(
    said: Sequence[WordScores],
    words: Sequence[str],
    positions: np.ndarray,
    tokens: TokenMap,
    text: Callable[[int], str],
    layers: Sequence[int] | None = None,
) -> xr.Dataset:
    """The scores of one sample, layer by layer, as a Dataset of `LogitLens`.

    Args:
        said: The scores at the input of the first layer, and at the output of each layer.
        words: The words that were scored.
        positions: The places, unpadded.
        tokens: Where the sample's tokens are.
        text: A function from a token id to its text.
        layers: The layers of `said`; None for −1 and every layer.
    """
    arrays = [[one.cpu().numpy() for one in layer] for layer in said]
    logprob, rank, ids, values = (np.stack(each) for each in zip(*arrays, strict=True))
    numbers = {int(position): i for i, position in enumerate(tokens.image)}
    image = all(int(position) in numbers for position in positions)
    over = "token" if image else "position"
    texts = {int(one): text(int(one)) for one in np.unique(ids)}
    likeliest = np.array([texts[int(one)] for one in ids.ravel()], dtype=object).reshape(ids.shape)
    coords: dict[str, Any] = {
        "layer": np.arange(-1, len(said) - 1) if layers is None else list(layers),
        "word": list(words),
        over: [numbers[int(position)] for position in positions] if image else positions,
    }
    coords |= {"position": ("token", positions)} if image else {}
    return xr.Dataset(
        {
            "logprob": (("layer", over, "word"), logprob),
            "rank": (("layer", over, "word"), rank),
            "top": (("layer", over, "place"), ids),
            "top_word": (("layer", over, "place"), likeliest),
            "top_logprob": (("layer", over, "place"), values),
        },
        coords=coords,
    )
