"""The same prompts without their image tokens, run beside a trace for contrastive decoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from interp.tracing.cost import Meter
from interp.tracing.decoding import Contrast
from interp.tracing.encode import PER_TOKEN, Batch, left_padded
from interp.tracing.hooks import Recorder
from interp.tracing.positions import position_ids

__all__ = [
    "Blind",
    "Generation",
    "Outcome",
    "blind_inputs",
    "embeddings",
    "run",
    "tail_logits",
    "whole_cache",
]


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


def embeddings(nn: Any, first: Any, batch: Batch) -> Float[Tensor, "sample position hidden"]:
    """The embeddings of a batch; the decoder itself is not run.

    Args:
        nn: the nnsight model.
        first: nnsight's view of the first decoder layer.
        batch: the encoded samples; positions are padded as it is.
    """
    with torch.no_grad(), nn.trace(**batch.inputs, use_cache=False) as tracer:
        entering = first.input.save()
        tracer.stop()
    return entering


@dataclass(frozen=True)
class Generation:
    """How to generate: at most `n` tokens as `draw` chooses them from the logits of each step.

    `ends` end an answer, `pad_id` fills what follows.
    """

    n: int
    ends: frozenset[int]
    pad_id: int
    draw: Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run hands over, all at once.

    Attributes:
        logits: after the last prompt token; guided, where a blind stream ran beside it.
        tail: after the last positions of the prompt, as many as were asked for, the last one last; never guided.
        ids: generated tokens, None without generation.
        rows: (read, step) → the rows of each layer, in layer order.
    """

    logits: Float[Tensor, "sample token_id"]
    tail: Float[Tensor, "sample position token_id"]
    ids: Int[Tensor, "sample step"] | None
    rows: Mapping[tuple[int, int], list[Tensor]]

    def of_lines(self, lines: Sequence[int]) -> Outcome:
        """What samples get that are equal to these: sample i to number lines[i]."""
        at = torch.tensor(lines, device=self.logits.device)
        rows = {key: [one[at.to(one.device)] for one in layers] for key, layers in self.rows.items()}
        ids = None if self.ids is None else self.ids[at]
        return Outcome(self.logits[at], self.tail[at], ids, rows)


def run(
    hf: Any,
    inputs: Mapping[str, Tensor],
    recorder: Recorder,
    meter: Meter,
    *,
    cache: Cache | None = None,
    generation: Generation | None = None,
    blind: Blind | None = None,
    one_pass: Callable[[Mapping[str, Any]], Tensor] | None = None,
    keep: int = 1,
) -> Outcome:
    """The outcome of a prompt, or of the suffix that follows `cache`, and of what is generated after it.

    Args:
        hf: the transformers model.
        inputs: its arguments; `attention_mask` covers the cache too.
        recorder: told which step is being run.
        meter: told of every pass.
        cache: keys and values that come before.
        generation: how to generate, if at all.
        blind: the stream without images that guides the logits, if any.
        one_pass: runs the model on its arguments and returns the last positions' logits; by default
            `tail_logits`.
        keep: how many positions' logits the outcome's `tail` has.
    """
    if generation is not None and cache is None:
        cache = whole_cache(hf.config.get_text_config(decoder=True))
    called = partial(tail_logits, hf) if one_pass is None else one_pass

    def passed(arguments: Mapping[str, Tensor], n: int = 1) -> Float[Tensor, "sample position token_id"]:
        meter.forwards += 1
        meter.tokens += arguments["input_ids"].numel()
        use = {"past_key_values": cache, "use_cache": cache is not None}
        return called({**arguments, **use, "logits_to_keep": n, "return_dict": True})

    def forward(arguments: Mapping[str, Tensor], token: Tensor) -> Float[Tensor, "sample token_id"]:
        logits = passed(arguments)[:, -1]
        return logits if blind is None else blind.guide(logits, token)

    tail = passed(inputs, keep)
    logits = tail[:, -1] if blind is None else blind.guide(tail[:, -1])
    ids = None if generation is None else _generated(forward, logits, inputs, recorder, generation)
    return Outcome(logits, tail, ids, recorder.rows)


def whole_cache(config: Any) -> DynamicCache:
    """An empty cache of the model's own kind, but with layers that keep every key.

    Where rows see a sliding window only, transformers would drop the keys behind it, and columns would no
    longer be positions; the masks hide them all the same.
    """
    cache = DynamicCache(config=config)
    cache.layers = [DynamicLayer() if isinstance(x, DynamicSlidingWindowLayer) else x for x in cache.layers]
    return cache


def tail_logits(hf: Any, arguments: Mapping[str, Any]) -> Float[Tensor, "sample position token_id"]:
    """The model's logits after the last positions, as many as `logits_to_keep` says, float32."""
    return hf(**arguments).logits[:, -arguments["logits_to_keep"] :].float()


def _generated(
    forward: Callable[[Mapping[str, Tensor], Tensor], Tensor],
    logits: Float[Tensor, "sample token_id"],
    inputs: Mapping[str, Tensor],
    recorder: Recorder,
    generation: Generation,
) -> Int[Tensor, "sample step"]:
    """The token after the prompt, and so on, until every answer has ended."""
    mask, position = inputs["attention_mask"], inputs["position_ids"][..., -1:]
    ends = torch.tensor(sorted(generation.ends), dtype=torch.long, device=logits.device)
    ended = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    ids: list[Tensor] = []
    while True:
        token = generation.draw(logits).masked_fill(ended, generation.pad_id)
        ids.append(token)
        ended = ended | torch.isin(token, ends)
        if len(ids) == generation.n or bool(ended.all()):
            return torch.stack(ids, dim=1)
        recorder.step += 1
        position = position + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        following = {"input_ids": token[:, None], "attention_mask": mask, "position_ids": position}
        logits = forward(following, token)
