"""The image prefix as a value: what comes up to the last image token, run once for all that follows it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from interp.errors import ModelError
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing.cost import Cost, Meter
from interp.tracing.encode import PER_TOKEN, Batch, left_padded
from interp.tracing.positions import sliced

__all__ = [
    "After",
    "Prefix",
    "Stop",
    "prefix_lengths",
    "prefix_lines",
    "run_prefix",
    "suffix_cache",
    "suffix_inputs",
]

Stop = Literal["image", "last"]
"""Where a prefix ends: with the last image token, or before the last token of the prompt."""


@dataclass(frozen=True, eq=False)
class Prefix:
    """Keys and values of a batch's prompts up to their last image token, or up to their last token. Made by
    `Mllm.prefix`; never changed.

    Wherever samples are accepted, so is their prefix. It serves every prompt that begins with the same
    tokens, and every read and edit of rows after the image; anything else runs as a full forward pass, with
    the same result. Samples whose prompts begin with the same images and tokens share one line of it.

    Attributes:
        batch: the samples as they were encoded for it.
        lengths: tokens of each sample's prefix.
        keys: for each layer, (line, key_value_head, key, dim); lines are left-padded.
        values: the same for values.
        cost: what running it took. Traces on the prefix do not count it again.
        owner: identifies the wrapped model it belongs to.
        lines: the line of each sample, numbered as they first occur; None where each sample has its own.
    """

    batch: Batch
    lengths: tuple[int, ...]
    keys: tuple[Float[Tensor, "line key_value_head key dim"], ...]
    values: tuple[Float[Tensor, "line key_value_head key dim"], ...]
    cost: Cost
    owner: object
    lines: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples."""
        return self.batch.samples

    @property
    def tokens(self) -> tuple[TokenMap, ...]:
        """Where each sample's tokens are, under the prompt the prefix was made with."""
        return self.batch.tokens

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """The keys and values of one layer, (sample, key_value_head, key, dim)."""
        keys, values = self.keys[layer], self.values[layer]
        if self.lines is None:
            return keys, values
        lines = torch.tensor(self.lines, device=keys.device)
        return keys[lines], values[lines]

    @property
    def in_turn(self) -> bool:
        """Whether each line has equally many samples, one line's after another's: then nothing need be copied."""
        if self.lines is None:
            return True
        each, rest = divmod(len(self.lines), max(self.lines) + 1)
        return not rest and all(line == i // each for i, line in enumerate(self.lines))

    def of(self, batch: Batch) -> Prefix:
        """The same keys and values, for a batch of the same samples whose prompts begin with it."""
        return replace(self, batch=batch)

    def part(self, at: Sequence[int], batch: Batch) -> Prefix:
        """The prefix of some samples; `batch` is what these are encoded as."""
        lines = [i if self.lines is None else self.lines[i] for i in at]
        used = sorted(set(lines), key=lines.index)
        lengths = tuple(self.lengths[i] for i in at)
        keys, values = (
            tuple(
                one[used, :, one.shape[2] - max(lengths) :] if len(one) > len(used) else one for one in layers
            )
            for layers in (self.keys, self.values)
        )
        numbers = tuple(used.index(line) for line in lines)
        own = None if numbers == tuple(range(len(at))) else numbers
        return replace(self, batch=batch, lengths=lengths, keys=keys, values=values, lines=own)

    def begins(self, batch: Batch) -> bool:
        """Whether every prompt of `batch` begins with this prefix and goes on after it."""
        return all(
            single.tokens.length > n and torch.equal(_head(single, n), _head(own, n))
            for n, single, own in zip(self.lengths, batch.singles, self.batch.singles, strict=True)
        )


def _head(single: Any, n: int) -> Tensor:
    return single.inputs["input_ids"][0, :n]


def prefix_lengths(batch: Batch, stop: Stop = "image") -> tuple[int, ...]:
    """Tokens of each sample up to and including its last image token, or ("last") up to its last token.

    Raises:
        ModelError: A sample without image tokens, or an unknown `stop`.
    """
    if stop not in ("image", "last"):
        raise ModelError(f'a prefix stops at "image" or at "last"; got {stop!r}.')
    if stop == "last":
        return tuple(tokens.length - 1 for tokens in batch.tokens)
    for i, tokens in enumerate(batch.tokens):
        if not tokens.n:
            raise ModelError(f"sample {i} of the batch has no image tokens, so it has no image prefix.")
    return tuple(int(tokens.image[-1]) + 1 for tokens in batch.tokens)


def prefix_lines(batch: Batch, lengths: Sequence[int]) -> tuple[int, ...]:
    """The number of each sample's prefix among the different ones, in the order they first occur."""
    found: dict[bytes, int] = {}
    contents = (single.content(n) for single, n in zip(batch.singles, lengths, strict=True))
    return tuple(found.setdefault(content, len(found)) for content in contents)


def run_prefix(
    hf: Any, batch: Batch, lengths: tuple[int, ...], n_layers: int, meter: Meter
) -> list[tuple[Tensor, Tensor]]:
    """The keys and values of each layer, (sample, key_value_head, key, dim), of left-padded prefixes."""
    starts = batch.pad.tolist()
    stops = [start + n for start, n in zip(starts, lengths, strict=True)]
    inputs = {
        name: sliced(value, starts, stops, batch.pad_id if name == "input_ids" else 0)
        if name in PER_TOKEN
        else value
        for name, value in batch.inputs.items()
    }
    inputs["position_ids"] = sliced(batch.positions, starts, stops)
    layers = [*(DynamicLayer() for _ in range(n_layers - 1)), _Last()]
    meter.forwards += 1
    meter.tokens += inputs["input_ids"].numel()
    with suppress(_CompleteError):
        hf(**inputs, past_key_values=Cache(layers=[*layers]), use_cache=True, logits_to_keep=1)
    return [(layer.keys, layer.values) for layer in layers]  # pyright: ignore[reportReturnType]


class _CompleteError(Exception):
    """Every layer has its keys and values: nothing more of the pass is needed."""


class _Last(DynamicLayer):
    """The last layer's cache. Its own attention and everything after it would be computed for nothing."""

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Keeps the keys and values and ends the pass."""
        super().update(*args, **kwargs)
        raise _CompleteError


class After(DynamicLayer):
    """A cache layer whose first `length` columns are held elsewhere: it has only what comes after them."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def get_seq_length(self) -> int:
        """Columns held elsewhere and here."""
        return self.length + super().get_seq_length()


def suffix_cache(prefix: Prefix) -> Cache:
    """A fresh cache for what follows the prefix, whose keys and values are neither copied nor changed."""
    length = prefix.keys[0].shape[2]
    return Cache(layers=[*(After(length) for _ in prefix.keys)])


def suffix_inputs(prefix: Prefix, batch: Batch) -> dict[str, Tensor]:
    """The arguments of a pass over what follows the prefix in each prompt."""
    stop = batch.inputs["input_ids"].shape[1]
    stops = [stop] * len(batch)
    starts = [int(pad) + n for pad, n in zip(batch.pad, prefix.lengths, strict=True)]
    before = left_padded([torch.ones(n, dtype=torch.long) for n in prefix.lengths], 0)
    own = sliced(batch.inputs["attention_mask"], starts, stops)
    return {
        "input_ids": sliced(batch.inputs["input_ids"], starts, stops, batch.pad_id),
        "attention_mask": torch.cat([before.to(own.device), own], dim=1),
        "position_ids": sliced(batch.positions, starts, stops),
    }
