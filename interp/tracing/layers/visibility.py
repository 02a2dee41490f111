"""What the rows of a prompt can see.

A row's keys may be limited to those before it (causal), to a sliding window or to a chunk; the rows of an image block
or of a whole prompt may see each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int

from interp.inputs.tokens import TokenMap
from interp.models.base import Attends
from interp.tracing.layers.rope import Rope

__all__ = ["Visibility", "chunks", "windows"]


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
