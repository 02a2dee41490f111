"""The same prompts without their image tokens, run beside a trace for contrastive decoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.tracing.cost import Meter
from interp.tracing.decoding import Contrast
from interp.tracing.encode import PER_TOKEN, Batch, left_padded
from interp.tracing.positions import position_ids
from interp.tracing.work import Recorder

__all__ = ["Blind", "blind_inputs"]


def blind_inputs(hf: Any, batch: Batch, first: int) -> dict[str, Tensor]:
    """The arguments of a pass over a batch's prompts, their image tokens taken out.

    Args:
        hf: the transformers model.
        batch: the encoded samples.
        first: the position of a prompt's first token.
    """
    texts = [torch.from_numpy(tokens.positions("text").copy()) for tokens in batch.tokens]
    inputs = {
        name: left_padded(
            [single.inputs[name][0][at] for single, at in zip(batch.singles, texts, strict=True)],
            batch.pad_id if name == "input_ids" else 0,
        ).to(value.device)
        for name, value in batch.inputs.items()
        if name in PER_TOKEN
    }
    positions = position_ids(hf, inputs, first)
    if batch.positions.ndim == 3:  # text turns along every axis alike
        positions = positions.expand(len(batch.positions), -1, -1)
    return {**inputs, "position_ids": positions}


class Blind:
    """Runs the stream without images, a pass for each of the seeing stream's, and guides its logits."""

    def __init__(
        self,
        hf: Any,
        inputs: Mapping[str, Tensor],
        contrast: Contrast,
        recorder: Recorder,
        meter: Meter,
        cache: Any,
    ) -> None:
        self.hf, self.contrast, self.recorder, self.meter, self.cache = hf, contrast, recorder, meter, cache
        self.inputs = dict(inputs)

    def guide(
        self, seeing: Float[Tensor, "sample token_id"], token: Int[Tensor, " sample"] | None = None
    ) -> Float[Tensor, "sample token_id"]:
        """The guided logits of a pass; `token` is what it was fed, None for the prompt."""
        if token is not None:
            mask, position = self.inputs["attention_mask"], self.inputs["position_ids"][..., -1:] + 1
            longer = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            self.inputs = {"input_ids": token[:, None], "attention_mask": longer, "position_ids": position}
        self.meter.forwards += 1
        self.meter.tokens += self.inputs["input_ids"].numel()
        self.recorder.paused = True
        try:
            found = self.hf(
                **self.inputs,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
                return_dict=True,
            )
        finally:
            self.recorder.paused = False
        return self.contrast(seeing, found.logits[:, -1].float())
