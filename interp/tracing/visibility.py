"""What a prompt's rows can see: causal, image blocks that see both ways, whole prompts, sliding windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int

from interp.inputs.tokens import TokenMap
from interp.models.base import Attends
from interp.tracing.rope import Rope

__all__ = ["Visibility", "windows"]


@dataclass(frozen=True)
class Visibility:
    """How far rows see, in unpadded positions.

    Attributes:
        attends: the family's rule (`interp.models.base.Attends`).
        windows: for each layer, how many positions a row sees of itself and what comes before it; None for
            all. An image block is seen whole whatever the window, but for "sliding_image_blocks".
        rope: its rotary positions, whose frequencies may depend on the length of a pass.
    """

    attends: Attends = "causal"
    windows: tuple[int | None, ...] = ()
    rope: Rope = field(default_factory=Rope)

    @property
    def prefix_exact(self) -> bool:
        """Whether no row up to the last image token sees what comes after that token."""
        return self.attends != "prefix"

    @property
    def narrowest(self) -> int | None:
        """The smallest window of any layer."""
        return min((w for w in self.windows if w is not None), default=None)

    def windows_fit(self, heads: Sequence[int], lengths: Sequence[int], generate: int = 0) -> bool:
        """Whether rows see what they should where prompts' first `heads` positions were run before the rest.

        Sliding windows count columns, so padding between prefix and rest must not lie inside one.
        """
        rests = [length - n for length, n in zip(lengths, heads, strict=True)]
        widest = max(heads) + max(rests) + generate
        return self.narrowest is None or self.narrowest >= widest or len(set(rests)) == 1

    def closed(self, tokens: TokenMap, n: int) -> bool:
        """Whether no row of the prompt's first `n` sees position `n` or a later one."""
        return self.attends == "causal" or bool((self.horizon(tokens)[:n] < n).all())

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
        first = 0 if window is None else max(0, row - window + 1)
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


def _runs(positions: Int[np.ndarray, " token"]) -> list[tuple[int, int]]:
    """(start, stop) of each run of consecutive positions."""
    if not len(positions):
        return []
    cuts = np.flatnonzero(np.diff(positions) > 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(positions, cuts)]
