"""The image prefix as a value, and the rule that says when a pass may continue from it.

A prefix holds the keys and values of a prompt up to its last image token. They are computed once and used by every
later pass. For gated DeltaNets and short convolutions it holds their states after that token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import DynamicLayer, LinearAttentionLayer

from interp.errors import ModelError
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing.cost import Cost
from interp.tracing.encoding.batch import Batch, Layout, sliced
from interp.tracing.layers.visibility import Visibility

__all__ = [
    "After",
    "Holder",
    "Prefix",
    "Prefixes",
    "Resumed",
    "Stop",
    "exact",
    "expanded",
    "pass_inputs",
    "pass_layout",
    "prefix_lengths",
    "prefix_lines",
    "serving",
    "states_of",
]


Stop = Literal["image", "last"]
"""Where a prefix ends: with the last image token, or before the last token of the prompt."""


Holder = Callable[[str, Callable[[], Any], Callable[[Any], int]], tuple[Any, bool]]
"""A store of values by key. It is called with a key, a function that makes the value, and a function that returns the
value's size in bytes. It returns the value, and whether the value was already stored."""


@dataclass(frozen=True, eq=False)
class Prefix:
    """Keys and values of a batch's prompts up to their last image token, or up to the token before their last.

    `Mllm.prefix` makes it; it never changes. Functions that accept samples accept a prefix too. It serves every prompt
    that begins with the same tokens, and every read and edit of rows after the image. Other passes run as full forward
    passes, with the same result. Samples whose prompts begin with the same images and tokens share one line of it.

    Attributes:
        batch: the samples as they were encoded for the prefix.
        lengths: the number of tokens in each sample's prefix.
        keys: for each layer, (line, key_value_head, key, dim); lines are left-padded. Layers that share keys have the
            same tensors.
        values: for each layer, (line, key_value_head, key, value_dim); they may be narrower than keys (MLA).
        cost: the cost of computing the prefix. Traces on the prefix do not count it again.
        owner: identifies the wrapped model that the prefix belongs to.
        lines: the line of each sample, numbered in the order of first occurrence; None where each sample has its own.
        linear: the layers without a softmax. For these layers, `keys` holds the state of the convolution after the
            prefix, (line, channel, kernel), and `values` that of the recurrence, (line, head, dim, value_dim). For a
            short convolution the state of the recurrence has no elements.
    """

    batch: Batch
    lengths: tuple[int, ...]
    keys: tuple[Float[Tensor, "line ..."], ...]
    values: tuple[Float[Tensor, "line ..."], ...]
    cost: Cost
    owner: object
    lines: tuple[int, ...] | None = None
    linear: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples."""
        return self.batch.samples

    @property
    def tokens(self) -> tuple[TokenMap, ...]:
        """Where each sample's tokens are in the prompt that the prefix was made with."""
        return self.batch.tokens

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """The keys and values of one layer, (sample, key_value_head, key, dim); its states if it has no softmax."""
        keys, values = self.keys[layer], self.values[layer]
        if self.lines is None:
            return keys, values
        lines = torch.tensor(self.lines, device=keys.device)
        return keys[lines], values[lines]

    @property
    def in_turn(self) -> bool:
        """Whether all lines have the same number of samples, and each line's samples are adjacent and in line order.

        Then the lines need not be copied for their samples.
        """
        if self.lines is None:
            return True
        each, rest = divmod(len(self.lines), max(self.lines) + 1)
        return not rest and all(line == i // each for i, line in enumerate(self.lines))

    def of(self, batch: Batch) -> Prefix:
        """The same keys and values, for a batch of the same samples whose prompts begin with this prefix."""
        return replace(self, batch=batch)

    def part(self, at: Sequence[int], batch: Batch) -> Prefix:
        """The prefix of some of the samples.

        Args:
            at: The places of these samples.
            batch: These samples, encoded.
        """
        lines = [i if self.lines is None else self.lines[i] for i in at]
        used = sorted(set(lines), key=lines.index)
        lengths = tuple(self.lengths[i] for i in at)
        keys, values = (
            tuple(self._lines(i, one, used, max(lengths)) for i, one in enumerate(layers))
            for layers in (self.keys, self.values)
        )
        numbers = tuple(used.index(line) for line in lines)
        own = None if numbers == tuple(range(len(at))) else numbers
        return replace(self, batch=batch, lengths=lengths, keys=keys, values=values, lines=own)

    def _lines(self, layer: int, held: Tensor, used: list[int], longest: int) -> Tensor:
        """Some lines of a layer's keys, values or states, without the padding that these lines do not need."""
        if used == list(range(len(held))):
            return held
        return held[used] if layer in self.linear else held[used, :, held.shape[2] - longest :]

    def serves(
        self,
        batch: Batch,
        visibility: Visibility,
        first_rows: Sequence[int | None] | None = None,
        generate: int = 0,
    ) -> bool:
        """Whether a pass over `batch` may continue from this prefix and give the result of a whole pass.

        It may if the prefix holds keys and values, every prompt begins with it, and `exact` is true. `exact` describes
        the arguments.
        """
        begins = bool(self.keys) and self.begins(batch)
        return begins and exact(self.lengths, batch.tokens, visibility, first_rows, generate)

    def begins(self, batch: Batch) -> bool:
        """Whether every prompt of `batch` begins with this prefix and has more tokens after it."""
        return all(
            single.tokens.length > n and torch.equal(_head(single, n), _head(own, n))
            for n, single, own in zip(self.lengths, batch.singles, self.batch.singles, strict=True)
        )


def _head(single: Any, n: int) -> Tensor:
    return single.inputs["input_ids"][0, :n]


def prefix_lengths(batch: Batch, stop: Stop = "image") -> tuple[int, ...]:
    """The length of each sample's prefix in tokens.

    It ends with the last image token (stop="image"), or with the token before the prompt's last (stop="last").

    Raises:
        ModelError: A sample without image tokens, or an unknown `stop`.
    """
    if not isinstance(stop, str) or stop not in ("image", "last"):
        raise ModelError(f'stop, where a prefix ends, is "image" or "last"; got {stop!r}.')
    if stop == "last":
        return tuple(tokens.length - 1 for tokens in batch.tokens)
    for i, tokens in enumerate(batch.tokens):
        if not tokens.n:
            raise ModelError(f"sample {i} of the batch has no image tokens, so it has no image prefix.")
    return tuple(tokens.image_end for tokens in batch.tokens)


def prefix_lines(batch: Batch, lengths: Sequence[int]) -> tuple[int, ...]:
    """The line of each sample: samples with the same prefix share a line; lines are numbered by first occurrence."""
    if len({single.images.digest for single in batch.singles}) == len(batch):
        return tuple(range(len(batch)))
    found: dict[bytes, int] = {}
    contents = (single.content(n) for single, n in zip(batch.singles, lengths, strict=True))
    return tuple(found.setdefault(content, len(found)) for content in contents)


def exact(
    lengths: Sequence[int],
    tokens: Sequence[TokenMap],
    visibility: Visibility,
    first_rows: Sequence[int | None] | None = None,
    generate: int = 0,
) -> bool:
    """Whether the first tokens of the prompts can run before the rest, with the result of whole passes.

    They can if and only if each prompt has tokens in both parts, no row of the first part sees a token of the second,
    no row of the first part is read or edited, and sliding windows and rotary positions are those of a whole pass.
    Where layers carry a state from token to token, the second parts must also have the same length in every prompt,
    because no padding may come between the parts.

    Args:
        lengths: the number of tokens in the first part of each prompt.
        tokens: where each prompt's tokens are.
        visibility: which tokens the rows see.
        first_rows: the earliest row of each prompt that is read or edited, None for none.
        generate: the largest number of tokens generated after the prompts.
    """
    if not all(0 < n < own.length for n, own in zip(lengths, tokens, strict=True)):
        return False
    if any(row is not None and row < n for row, n in zip(first_rows or [], lengths, strict=False)):
        return False
    if not visibility.closed(tokens, lengths):
        return False
    whole = [own.length for own in tokens]
    return visibility.rope.shared([*lengths, *whole]) and visibility.windows_fit(lengths, whole, generate)


def expanded(
    layers: Sequence[nn.Module], cached: Sequence[tuple[Tensor, Tensor]]
) -> list[tuple[Tensor, Tensor]]:
    """Returns the keys and values of each layer as its attention function gets them, from the tensors of a cache.

    Attention with latents (MLA) caches the latents, and computes keys and values from them in every pass.

    Args:
        layers: The decoder layers.
        cached: The two tensors that the cache holds for each layer; empty for a pass that was not run.
    """
    found = []
    for layer, kept in zip(layers, cached, strict=False):
        expand: Any = getattr(getattr(layer, "self_attn", None), "expand_kv", None)
        found.append(kept if expand is None else tuple(expand(*kept)))
    return found


class After(DynamicLayer):
    """A cache layer whose first `length` columns are stored elsewhere; it stores only the later columns."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def get_seq_length(self) -> int:
        """The number of columns, those stored elsewhere included."""
        return self.length + super().get_seq_length()


def serving(
    given: Batch | Prefix,
    batch: Batch,
    visibility: Visibility,
    first_rows: Sequence[int | None],
    generate: int = 0,
) -> Prefix | None:
    """Returns `given` if it is a prefix that serves a pass over `batch` (see `Prefix.serves`), else None."""
    if isinstance(given, Prefix) and given.serves(batch, visibility, first_rows, generate):
        return given
    return None


def pass_layout(batch: Batch, before: Prefix | None) -> Layout:
    """Where the batch's positions are in a pass over whole prompts, or over the tokens after a prefix."""
    lengths = [tokens.length for tokens in batch.tokens]
    return Layout.whole(lengths) if before is None else Layout.suffix(before.lengths, lengths)


def pass_inputs(batch: Batch, before: Prefix | None) -> tuple[dict[str, Tensor], Cache | None]:
    """The arguments and the cache of a pass over whole prompts, or over the tokens after a prefix.

    After a prefix, attention layers get a cache that knows the prefix's length but holds none of its keys and values:
    these are neither copied nor changed. Layers without a softmax get the prefix's states.
    """
    if before is None:
        return batch.inputs | {"position_ids": batch.positions}, None
    stops = [batch.inputs["input_ids"].shape[1]] * len(batch)
    starts = [int(pad) + n for pad, n in zip(batch.pad, before.lengths, strict=True)]
    own = sliced(batch.inputs["attention_mask"], starts, stops)
    longest, held = max(before.lengths), torch.tensor(before.lengths, device=own.device)
    mask = torch.arange(longest, device=own.device) >= longest - held[:, None]
    inputs = {
        "input_ids": sliced(batch.inputs["input_ids"], starts, stops, batch.pad_id),
        "attention_mask": torch.cat([mask.to(own.dtype), own], dim=1),
        "position_ids": sliced(batch.positions, starts, stops),
    }
    return inputs, Cache(
        layers=[
            Resumed(*before.layer(i)) if i in before.linear else After(longest)
            for i in range(len(before.keys))
        ]
    )


@dataclass(frozen=True, eq=False)
class Prefixes:
    """A store in which a model's traces look up image prefixes and save new ones. See `Mllm.sharing`.

    The lookup key consists of the model, the tokens of the batch's prompts up to the last image token, and the pixels.
    It does not depend on the sample's object or file. So a stored prefix holds the same keys and values, bit for bit,
    as a new one would.

    Attributes:
        holder: The store.
        model: Identifies the model: its fingerprint, dtype and device.
    """

    holder: Holder
    model: str

    def of(self, batch: Batch, lengths: Sequence[int], make: Callable[[], Prefix]) -> Prefix:
        """The prefix of a batch, from the store; where it is not stored, it is made and stored.

        Args:
            batch: The batch.
            lengths: The number of tokens in each prompt's prefix.
            make: Makes the prefix.
        """
        found, known = self.holder(f"prefix {self._content(batch, lengths)}", make, _n_bytes)
        return replace(found, batch=batch) if known else found

    def _content(self, batch: Batch, lengths: Sequence[int]) -> str:
        content = hashlib.sha256(self.model.encode())
        for single, n in zip(batch.singles, lengths, strict=True):
            content.update(single.content(n))
        return content.hexdigest()


def _n_bytes(prefix: Prefix) -> int:
    """The size of the prefix's keys and values and of its batch's inputs (pixels), in bytes."""
    tensors = (*prefix.keys, *prefix.values, *prefix.batch.inputs.values())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class Resumed(LinearAttentionLayer):
    """A cache layer that starts from a given state. It never writes to the tensors it is given.

    Args:
        conv: the short convolution's state after the earlier tokens.
        recurrent: the delta rule's state after the earlier tokens; it has no elements for a layer that is only a short
            convolution.
    """

    def __init__(
        self,
        conv: Float[Tensor, "sample channel kernel"],
        recurrent: Float[Tensor, "sample head dim value_dim"],
    ) -> None:
        super().__init__()
        self.dtype, self.device = conv.dtype, conv.device
        self.conv_states[0] = conv.clone()
        self.conv_kernel_size[0] = conv.shape[-1]
        self.is_conv_states_initialized[0] = True
        if recurrent.numel():
            self.recurrent_states[0], self.is_recurrent_states_initialized[0] = recurrent, True
        self.has_previous_state[0] = True

    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **_: Any) -> Tensor:
        """Stores the new state. It does not overwrite the old one, because gradients may flow back through it."""
        self.recurrent_states[state_idx] = recurrent_states
        return recurrent_states


def states_of(layer: LinearAttentionLayer) -> tuple[Tensor, Tensor]:
    """The states of a cache layer after a pass: of the convolution, and of the recurrence.

    A short convolution has no recurrence; its second state has no elements.
    """
    conv, recurrent = layer.conv_states[0], layer.recurrent_states[0]
    assert conv is not None
    return conv, conv.new_zeros(len(conv), 0, 0, 0) if recurrent is None else recurrent
