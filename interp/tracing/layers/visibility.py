"""What the rows of a prompt can see, and how far the model's rotary positions reach.

A row's keys may be limited to those before it (causal), to a sliding window or to a chunk; the rows of an image block
or of a whole prompt may see each other.

With longrope and dynamic NTK scaling, transformers takes the rotary frequencies from the longest sequence of a pass.
Samples on two sides of such a limit then need separate passes, and keys from one side cannot be used on the other.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from interp.errors import ModelError
from interp.inputs.tokens import TokenMap
from interp.models.base import Attends

__all__ = ["Rope", "Visibility", "chunks", "position_ids", "settle", "windows"]


@dataclass(frozen=True)
class Rope:
    """A text config's positions.

    Attributes:
        limit: how many positions the model takes; None where its config does not say.
        scalings: for each scaling that depends on the length: up to which length it is not at work, and whether every
            length beyond has frequencies of its own (dynamic NTK) or all share them (longrope).
        several_axes: whether an image's positions turn along several axes, so that they are fewer than its tokens.
        temperature: from which length queries are scaled by how far they are from the start (Llama 4's layers without
            rope); None where they never are.
    """

    limit: int | None = None
    scalings: tuple[tuple[int, bool], ...] = ()
    several_axes: bool = False
    temperature: int | None = None

    @classmethod
    def of(cls, config: Any) -> Rope:
        """The positions of a text config."""
        largest: Any = getattr(config, "max_position_embeddings", None)
        parts = list(_parameters(getattr(config, "rope_parameters", None)))
        scalings = []
        for part in parts:
            kind = str(part.get("rope_type", ""))
            if "dynamic" in kind:
                scalings.append((int(largest), True))
            elif kind == "longrope":
                scalings.append((int(part["original_max_position_embeddings"]), False))
        limit = None if largest is None else max([int(largest), *(_scaled(one, largest) for one in parts)])
        axes = any("mrope_section" in part for part in parts)
        tuned = getattr(config, "attn_temperature_tuning", False) and not all(config.no_rope_layers)
        return cls(limit, tuple(dict.fromkeys(scalings)), axes, int(config.floor_scale) if tuned else None)

    def kind(self, length: int) -> tuple[int, ...]:
        """What the frequencies of a pass of this length depend on: the same for lengths that share them."""
        return tuple(0 if length <= start else (length if each else 1) for start, each in self.scalings)

    def shared(self, lengths: Sequence[int]) -> bool:
        """Whether passes of these numbers of tokens are known to have the same frequencies."""
        kinds = {self.kind(length) for length in lengths}
        return len(kinds) < 2 and not (self.several_axes and any(map(any, kinds)))

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """The places of lengths that share frequencies, group by group."""
        found: dict[tuple[int, ...], list[int]] = {}
        for place, length in enumerate(lengths):
            found.setdefault(self.kind(length), []).append(place)
        return list(found.values())


def _parameters(value: Any) -> Iterator[Mapping[str, Any]]:
    """The rope's parameters: one mapping, or one for each kind of layer."""
    if not isinstance(value, Mapping):
        return
    if "rope_type" in value:
        yield value
    for part in value.values():
        yield from _parameters(part)


def _scaled(part: Mapping[str, Any], largest: int) -> int:
    """How many positions a scaling extends the model to."""
    factor, kind = part.get("factor"), str(part.get("rope_type", ""))
    original = part.get("original_max_position_embeddings")
    if original is None and (kind == "linear" or "dynamic" in kind):
        original = largest
    return 0 if factor is None or original is None else int(original * factor)


def settle(hf: Any, inputs: Mapping[str, Tensor]) -> None:
    """Makes the frequencies of the next pass depend on that pass alone, and refuses one that cannot be right.

    Args:
        hf: the transformers model.
        inputs: the arguments of the pass; `attention_mask` covers the cache too.

    Raises:
        ModelError: samples that need different frequencies, keys in the cache that were made with others, or padding
            where queries are scaled by column.
    """
    rope = Rope.of(hf.config.get_text_config(decoder=True))
    mask = inputs["attention_mask"]
    if rope.temperature is not None and mask.shape[1] >= rope.temperature and not bool(mask.all()):
        raise ModelError(
            f"from position {rope.temperature - 1} on, this model scales its queries by how far they are from the "
            f"start, padding included; this batch has {mask.shape[1]} columns and is padded, so its samples would "
            "differ from themselves alone. Run them one by one: batch_size=1."
        )
    if not rope.scalings:
        return
    if any(each for _, each in rope.scalings):
        _forget(hf)
    starts, stops = _reach(inputs)
    limits = ", ".join(str(start) for start, _ in rope.scalings)
    if len(rope.groups(stops)) > 1:
        raise ModelError(
            f"the frequencies of this model's rotary positions depend on the longest sample of a batch (beyond "
            f"{limits} positions); these have {stops}. Run them one by one, or those of one length together."
        )
    cached = inputs["attention_mask"].shape[1] > inputs["input_ids"].shape[1]
    if cached and len(rope.groups([*starts, *stops])) > 1:
        raise ModelError(
            f"the frequencies of this model's rotary positions change beyond {limits} positions, so what comes after "
            f"position {min(starts)} cannot go on from the keys before it. Ask for fewer tokens, or a shorter prompt."
        )


def _reach(inputs: Mapping[str, Tensor]) -> tuple[list[int], list[int]]:
    """The first position of each sample in a pass, and the one after its last."""
    positions = inputs["position_ids"]
    own = inputs["attention_mask"][:, -inputs["input_ids"].shape[1] :].bool()
    low, high = (positions, positions) if positions.ndim == 2 else (positions.amin(0), positions.amax(0))
    starts = low.masked_fill(~own, torch.iinfo(low.dtype).max).amin(-1)
    return starts.tolist(), (high.masked_fill(~own, -1).amax(-1) + 1).tolist()


def _forget(hf: nn.Module) -> None:
    """Undoes what dynamic scaling keeps of earlier, longer passes."""
    end = "original_inv_freq"
    for module in hf.modules():
        for name, original in list(module.named_buffers(recurse=False)):
            if name.endswith(end) and hasattr(module, "original_max_seq_len"):
                kind = name.removesuffix(end)
                module.register_buffer(f"{kind}inv_freq", original, persistent=False)
                setattr(module, f"{kind}max_seq_len_cached", module.original_max_seq_len)


def position_ids(hf: Any, inputs: Mapping[str, Tensor], first: int = 0) -> Tensor:
    """(sample, position); or (axis, sample, position) for models that turn image tokens along several axes.

    Padding does not count. They are passed explicitly with every forward pass: what transformers would work
    out alone depends on what the model ran before.

    Args:
        hf: the transformers model.
        inputs: a whole batch, with `attention_mask`.
        first: the position of a prompt's first token.
    """
    index = getattr(getattr(hf, "model", hf), "get_rope_index", None)
    if index is not None and not inputs.keys().isdisjoint(("image_grid_thw", "video_grid_thw")):
        known = inspect.signature(index).parameters
        return index(**{name: value for name, value in inputs.items() if name in known})[0]
    return (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0) + first


@dataclass(frozen=True)
class Visibility:
    """How far rows see, in unpadded positions.

    Attributes:
        attends: the family's rule (`interp.models.base.Attends`).
        windows: for each layer, how many positions a row sees of itself and what comes before it; None for
            all. An image block is seen whole whatever the window, but for "sliding_image_blocks".
        rope: its rotary positions, whose frequencies may depend on the length of a pass.
        chunks: for each layer, how many positions a chunk holds; a row sees nothing before its own chunk. None for all.
        recurrent: whether some layers carry a state from token to token, which padding inside a prompt would wear off.
    """

    attends: Attends = "causal"
    windows: tuple[int | None, ...] = ()
    rope: Rope = field(default_factory=Rope)
    chunks: tuple[int | None, ...] = ()
    recurrent: bool = False

    @property
    def narrowest(self) -> int | None:
        """The smallest window or chunk of any layer."""
        return min((n for n in (*self.windows, *self.chunks) if n is not None), default=None)

    @property
    def limits(self) -> tuple[int | None, ...]:
        """The window or chunk of each layer; empty where all rows see all that comes before them."""
        pairs = zip(self.windows, self.chunks or (None,) * len(self.windows), strict=True)
        return tuple(chunk if window is None else window for window, chunk in pairs)

    def windows_fit(self, heads: Sequence[int], lengths: Sequence[int], generate: int = 0) -> bool:
        """Whether rows see what they should where prompts' first `heads` positions were run before the rest.

        Sliding windows and chunks count columns, so padding between prefix and rest must not lie inside one; and states
        go on through padding.
        """
        rests = [length - n for length, n in zip(lengths, heads, strict=True)]
        if self.recurrent and len(set(rests)) > 1:
            return False
        widest = max(heads) + max(rests) + generate
        return self.narrowest is None or self.narrowest >= widest or len(set(rests)) == 1

    def closed(self, tokens: Sequence[TokenMap], lengths: Sequence[int]) -> bool:
        """Whether of each prompt no row before position n sees position n or a later one; `lengths` are these n."""
        if self.attends == "causal":
            return True
        return all(bool((self.horizon(own)[:n] < n).all()) for own, n in zip(tokens, lengths, strict=True))

    def horizon(self, tokens: TokenMap) -> Int[np.ndarray, " row"]:
        """The last position each row of the prompt may see."""
        own = np.arange(tokens.length)
        if self.attends == "prefix":
            return np.full(tokens.length, tokens.length - 1)
        if self.attends in ("image_blocks", "sliding_image_blocks"):
            for start, stop in _runs(tokens.image):
                own[start:stop] = stop - 1
        if self.attends == "images" and tokens.n:
            own[tokens.image] = tokens.image[-1]
        return own

    def seen(self, tokens: TokenMap, row: int, layer: int) -> Int[np.ndarray, " key"]:
        """The positions a row of the prompt sees in a layer."""
        window = self.windows[layer] if self.windows else None
        chunk = self.chunks[layer] if self.chunks else None
        first = 0 if window is None else max(0, row - window + 1)
        first = first if chunk is None else max(first, row // chunk * chunk)
        if self.attends == "prefix":
            return np.arange(tokens.length)
        seen = np.arange(first, row + 1)
        if self.attends == "causal" or (self.attends == "sliding_image_blocks" and window is None):
            return seen
        if self.attends == "images":
            return np.union1d(seen, tokens.image) if row in tokens.image else seen
        blocks = [np.arange(*run) for run in _runs(tokens.image) if run[0] <= row < run[1]]
        both = np.union1d(seen, blocks[0]) if blocks else seen
        return both[both >= first] if self.attends == "sliding_image_blocks" else both


def windows(config: Any, n_layers: int) -> tuple[int | None, ...]:
    """The sliding window of each decoder layer of a text config; None where a layer sees everything."""
    window = getattr(config, "sliding_window", None)
    if window is None or getattr(config, "use_sliding_window", True) is False:
        return (None,) * n_layers
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return (int(window),) * n_layers
    return tuple(int(window) if kind == "sliding_attention" else None for kind in kinds)


def chunks(config: Any, n_layers: int) -> tuple[int | None, ...]:
    """The chunk of each decoder layer of a text config (Llama 4); None where a layer sees everything."""
    kinds = getattr(config, "layer_types", None) or (None,) * n_layers
    return tuple(int(config.attention_chunk_size) if kind == "chunked_attention" else None for kind in kinds)


def _runs(positions: Int[np.ndarray, " token"]) -> list[tuple[int, int]]:
    """(start, stop) of each run of consecutive positions."""
    if not len(positions):
        return []
    cuts = np.flatnonzero(np.diff(positions) > 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(positions, cuts)]
