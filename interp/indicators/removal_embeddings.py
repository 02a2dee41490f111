"""Image tokens whose embeddings are replaced before the decoder: by their mean, by zeros, by another image's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import MapError
from interp.indicators.removal import Removed, checked_masks
from interp.prompt import PAPER_PROMPT, Prompt, Target
from interp.sample import Sample
from interp.tracing import Mllm
from interp.tracing.asked import Asked
from interp.tracing.cost import Cost, Meter
from interp.tracing.trunk import Trunk

__all__ = ["ReplaceEmbeddings", "in_order", "replaced"]

Stream = Mapping[int, Float[Tensor, "one _ hidden"]]
"""What reaches the decoder at image tokens: at −1 what enters the first layer, at ℓ what is added after layer ℓ."""


@dataclass(frozen=True)
class ReplaceEmbeddings:
    """Replaces what enters the decoder at image tokens; nothing else of the prompt changes.

    Everything in the decoder sees the change, image tokens after it included. The vision tower runs once. Where a
    family adds features of the image between layers as well (Qwen3-VL's deepstack), these are replaced in the same way.

    Args:
        by: "mean", the mean over the sample's own image tokens (of all its images, separators included); "zero"; or
            "other", the same token of another image.
        other: that image's sample. Its question plays no part: it is asked the sample's own.

    Raises:
        MapError: Another `by`, or `other` without "other" and the reverse; when called, another number of image tokens.
    """

    by: Literal["mean", "zero", "other"] = "mean"
    other: Sample | None = None

    def __post_init__(self) -> None:
        if self.by not in ("mean", "zero", "other"):
            raise MapError(f'embeddings are replaced by "mean", "zero" or "other"; got {self.by!r}.')
        if (self.by == "other") != isinstance(self.other, Sample):
            raise MapError(
                f'by="other" takes other=, an interp.Sample, and nothing else does; got by={self.by!r}, '
                f"other={self.other!r}."
            )

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.by} embedding"

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
        """The target's value under each variant; see `Removal`. Each runs from its first replaced token on."""
        asked = Asked.of(mllm, sample, prompt, target)
        masks = checked_masks(masks, asked.tokens.n, batch)
        own = stream_of(asked.parts[0].trunk)
        fill, filling = self._fill(mllm, sample, own, prompt)
        values = np.full(len(masks), asked.plain)
        with Meter(mllm.device) as meter:
            for part in in_order(masks, batch):
                values[part] = asked.values(
                    lambda trunk, part=part: self._run(trunk, masks[part], fill, meter)
                )
        return Removed(values, asked.plain, asked.cost + filling + meter.cost)

    def to_dict(self) -> dict[str, Any]:
        """The removal as JSON values, the other sample by its fingerprint."""
        other = {} if self.other is None else {"other": self.other.fingerprint}
        return {"removal": "replace_embeddings", "by": self.by, **other}

    def _fill(self, mllm: Mllm, sample: Sample, own: Stream, prompt: Prompt) -> tuple[Stream, Cost]:
        """What is put in the place of image tokens, for every token or one for all."""
        if self.other is None:
            filled = {
                i: one.mean(dim=1, keepdim=True) if self.by == "mean" else torch.zeros_like(one[:, :1])
                for i, one in own.items()
            }
            return filled, Cost()
        with Meter(mllm.device) as meter:
            batch = mllm.encode([sample.replace(images=self.other.images, image=None, boxes=())], prompt)
            found = stream_of(Trunk.of(mllm, batch, meter))
        n, wanted = found[-1].shape[1], own[-1].shape[1]
        if n != wanted:
            raise MapError(
                f"the other sample's image has {n} image tokens, sample {sample.id} has {wanted}; a token is replaced "
                "by the same token of the other. Take an image of the same size."
            )
        return found, meter.cost

    def _run(
        self, trunk: Trunk, masks: Bool[np.ndarray, "variant token"], fill: Stream, meter: Meter
    ) -> Iterator[Float[Tensor, "variant kept token_id"]]:
        stop = trunk.stop(int(trunk.tokens.image[masks.any(axis=0)][0]))
        chosen = torch.from_numpy(masks).to(trunk.logits.device)
        entering = replaced(trunk, trunk.entering[0], fill[-1], chosen)[:, stop:]
        added = {i: replaced(trunk, one, fill[i], chosen)[:, stop:] for i, one in trunk.added.items()}
        yield trunk.run(len(masks), stop, meter, entering=entering, added=added)


def stream_of(trunk: Trunk) -> Stream:
    """What reaches the decoder at the image tokens."""
    at = torch.from_numpy(trunk.tokens.image.copy())
    return {-1: trunk.entering[0][:, at], **{i: one[:, at] for i, one in trunk.added.items()}}


def replaced(
    trunk: Trunk,
    plain: Float[Tensor, "one row hidden"],
    fill: Float[Tensor, "one _ hidden"],
    chosen: Bool[Tensor, "variant token"],
) -> Float[Tensor, "variant row hidden"]:
    """The rows of each variant, those of its chosen image tokens filled."""
    rows = plain.repeat(len(chosen), 1, 1)
    at = torch.from_numpy(trunk.tokens.image.copy()).to(rows.device)
    rows[:, at] = torch.where(chosen[..., None], fill, rows[:, at])
    return rows


def in_order(masks: Bool[np.ndarray, "variant token"], size: int) -> Iterator[np.ndarray]:
    """Numbers of the variants that take something away, in the order of their first such token, `size` together.

    Variants of a batch begin within an eighth of the image of each other: what comes before runs for none of them.
    """
    chosen = np.flatnonzero(masks.any(axis=1))
    first = masks[chosen].argmax(axis=1)
    chosen, first = chosen[order := np.argsort(first, kind="stable")], first[order]
    while len(chosen):
        n = min(size, int(np.searchsorted(first, first[0] + masks.shape[1] // 8, side="right")))
        yield chosen[:n]
        chosen, first = chosen[n:], first[n:]
