"""Runs the model: one pass over a prompt or a suffix, and the passes of generated tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache, DynamicCache

from interp.tracing.cost import Meter
from interp.tracing.work import Recorder

__all__ = ["Greedy", "Outcome", "run"]


@dataclass(frozen=True)
class Greedy:
    """How to generate: at most `n` most likely tokens; `ends` end an answer, `pad_id` fills what follows."""

    n: int
    ends: frozenset[int]
    pad_id: int


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run hands over, all at once.

    Attributes:
        logits: after the last prompt token.
        ids: generated tokens, None without generation.
        rows: (read, step) → the rows of each layer, in layer order.
    """

    logits: Float[Tensor, "sample token_id"]
    ids: Int[Tensor, "sample step"] | None
    rows: Mapping[tuple[int, int], list[Tensor]]


def run(
    hf: Any,
    inputs: Mapping[str, Tensor],
    recorder: Recorder,
    meter: Meter,
    *,
    cache: Cache | None = None,
    greedy: Greedy | None = None,
) -> Outcome:
    """The outcome of a prompt, or of the suffix that follows `cache`, and of what is generated after it.

    Args:
        hf: the transformers model.
        inputs: its arguments; `attention_mask` covers the cache too.
        recorder: told which step is being run.
        meter: told of every pass.
        cache: keys and values that come before.
        greedy: how to generate, if at all.
    """
    if greedy is not None and cache is None:
        cache = DynamicCache(config=hf.config.get_text_config(decoder=True))

    def forward(arguments: Mapping[str, Tensor]) -> Float[Tensor, "sample token_id"]:
        meter.forwards += 1
        meter.tokens += arguments["input_ids"].numel()
        use = {"past_key_values": cache, "use_cache": cache is not None}
        return hf(**arguments, **use, logits_to_keep=1, return_dict=True).logits[:, -1].float()

    logits = forward(inputs)
    ids = None if greedy is None else _generated(forward, logits, inputs, recorder, greedy)
    return Outcome(logits, ids, recorder.rows)


def _generated(
    forward: Callable[[Mapping[str, Tensor]], Tensor],
    logits: Float[Tensor, "sample token_id"],
    inputs: Mapping[str, Tensor],
    recorder: Recorder,
    greedy: Greedy,
) -> Int[Tensor, "sample step"]:
    """The most likely token after the prompt, and so on, until every answer has ended."""
    mask, position = inputs["attention_mask"], inputs["position_ids"][:, -1:]
    ends = torch.tensor(sorted(greedy.ends), device=logits.device)
    ended = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    ids: list[Tensor] = []
    while True:
        token = logits.argmax(dim=-1).masked_fill(ended, greedy.pad_id)
        ids.append(token)
        ended = ended | torch.isin(token, ends)
        if len(ids) == greedy.n or bool(ended.all()):
            return torch.stack(ids, dim=1)
        recorder.step += 1
        position = position + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = forward({"input_ids": token[:, None], "attention_mask": mask, "position_ids": position})
