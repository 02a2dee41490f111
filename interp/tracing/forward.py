"""Runs the model: one pass over a prompt or a suffix, and the passes of generated tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from interp.tracing.cost import Meter
from interp.tracing.work import Recorder

__all__ = ["Greedy", "Outcome", "last_logits", "run", "whole_cache"]


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
    one_pass: Callable[[Mapping[str, Any]], Tensor] | None = None,
) -> Outcome:
    """The outcome of a prompt, or of the suffix that follows `cache`, and of what is generated after it.

    Args:
        hf: the transformers model.
        inputs: its arguments; `attention_mask` covers the cache too.
        recorder: told which step is being run.
        meter: told of every pass.
        cache: keys and values that come before.
        greedy: how to generate, if at all.
        one_pass: runs the model on its arguments and returns the last position's logits, (sample,
            token_id); by default `last_logits`.
    """
    if greedy is not None and cache is None:
        cache = whole_cache(hf.config.get_text_config(decoder=True))
    called = partial(last_logits, hf) if one_pass is None else one_pass

    def forward(arguments: Mapping[str, Tensor]) -> Float[Tensor, "sample token_id"]:
        meter.forwards += 1
        meter.tokens += arguments["input_ids"].numel()
        use = {"past_key_values": cache, "use_cache": cache is not None}
        return called({**arguments, **use, "logits_to_keep": 1, "return_dict": True})

    logits = forward(inputs)
    ids = None if greedy is None else _generated(forward, logits, inputs, recorder, greedy)
    return Outcome(logits, ids, recorder.rows)


def whole_cache(config: Any) -> DynamicCache:
    """An empty cache of the model's own kind, but with layers that keep every key.

    Where rows see a sliding window only, transformers would drop the keys behind it, and columns would no
    longer be positions; the masks hide them all the same.
    """
    cache = DynamicCache(config=config)
    cache.layers = [DynamicLayer() if isinstance(x, DynamicSlidingWindowLayer) else x for x in cache.layers]
    return cache


def last_logits(hf: Any, arguments: Mapping[str, Any]) -> Float[Tensor, "sample token_id"]:
    """The model's logits after the last position, float32."""
    return hf(**arguments).logits[:, -1].float()


def _generated(
    forward: Callable[[Mapping[str, Tensor]], Tensor],
    logits: Float[Tensor, "sample token_id"],
    inputs: Mapping[str, Tensor],
    recorder: Recorder,
    greedy: Greedy,
) -> Int[Tensor, "sample step"]:
    """The most likely token after the prompt, and so on, until every answer has ended."""
    mask, position = inputs["attention_mask"], inputs["position_ids"][..., -1:]
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
