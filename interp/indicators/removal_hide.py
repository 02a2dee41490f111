"""Image tokens hidden from attention: exact, and at the cost of the rows after them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import SiteError
from interp.indicators.arguments import layers_of, site_layers
from interp.indicators.removal import Removed, checked_masks
from interp.prompt import PAPER_PROMPT, Prompt, Target
from interp.sample import Sample
from interp.tracing import Mllm
from interp.tracing.asked import Asked
from interp.tracing.cost import Meter
from interp.tracing.trunk import Trunk

__all__ = ["HideTokens"]

SHORT = 16
"""Rows a variant may run before it counts as one of a batch's; shorter ones go more together."""
LOGITS = 2**25
"""Most logits that are held at once where variants are short."""


@dataclass(frozen=True)
class HideTokens:
    """Hides image tokens from rows of the decoder's attention: their scores are −∞ before the softmax.

    The tokens still pass through the model; nobody after the image looks at them. The value is exact: what
    `mllm.score` gives under `Knockout` edits at the same place. Rows and layers that cannot differ from the unedited
    pass run once for all variants, wherever no row before them sees them (every family but PaliGemma, which runs
    whole prompts).

    Args:
        layers: "all", or the layers where the tokens are hidden, 0-based; passes start at the lowest.
        queries: the rows they are hidden from. "after_image": every row after the last image token, those of an
            answer of several tokens included. "last": the rows that predict the answer, which is the last row of the
            prompt for an answer of one token; what the question's rows gathered from the image still reaches them.

    Raises:
        SiteError: Other queries, or layers that are no indices; when called, layers the model does not have.
    """

    layers: Literal["all"] | Sequence[int] = "all"
    queries: Literal["after_image", "last"] = "after_image"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", site_layers(self.layers))
        if self.queries not in ("after_image", "last"):
            raise SiteError(f'tokens are hidden from queries "after_image" or "last"; got {self.queries!r}.')

    @property
    def name(self) -> str:
        """What tables call it."""
        return "knockout"

    def scores(
        self,
        mllm: Mllm,
        sample: Sample,
        masks: Bool[np.ndarray, "variant token"],
        *,
        prompt: Prompt = PAPER_PROMPT,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
        batch: int = 32,
    ) -> Removed:
        """The target's value under each variant; see `Removal`. Short variants go more than `batch` together."""
        layers = layers_of(mllm, self.layers)
        asked = Asked.of(mllm, sample, prompt, target, layers=(min(layers),))
        masks = checked_masks(masks, asked.tokens.n, batch)
        chosen = np.flatnonzero(masks.any(axis=1))
        values = np.full(len(masks), asked.plain)
        with Meter(mllm.device) as meter:
            if len(chosen):
                values[chosen] = asked.values(
                    lambda trunk: self._run(trunk, masks[chosen], layers, batch, meter)
                )
        return Removed(values, asked.plain, asked.cost + meter.cost)

    def to_dict(self) -> dict[str, Any]:
        """The removal as JSON values."""
        layers = self.layers if self.layers == "all" else list(self.layers)
        return {"removal": "hide_tokens", "layers": layers, "queries": self.queries}

    def _run(
        self,
        trunk: Trunk,
        masks: Bool[np.ndarray, "variant token"],
        layers: Sequence[int],
        batch: int,
        meter: Meter,
    ) -> Iterator[Float[Tensor, "variant kept token_id"]]:
        """The variants' logits, batch by batch."""
        tokens = trunk.tokens
        rows = tokens.length - trunk.keep if self.queries == "last" else int(tokens.image[-1]) + 1
        stop = trunk.stop(rows)
        few = SHORT * batch // (tokens.length - stop), LOGITS // (trunk.keep * trunk.logits.shape[2])
        size = max(batch, min(few))
        for start in range(0, len(masks), size):
            part = masks[start : start + size]
            hidden = np.zeros((len(part), tokens.length), bool)
            hidden[:, tokens.image] = part
            on = torch.from_numpy(hidden).to(trunk.logits.device)
            yield trunk.run(
                len(part), stop, meter, start=min(layers), hidden=on, rows=rows, layers=frozenset(layers)
            )
