"""The long way round: eager attention written out, no padding, no cache, every token of every step computed again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

Hide = Callable[[int, int], Tensor | None]
"""(layer, tokens) → which keys each row must not see, bool (row, key); None for a layer that is left alone."""

Change = Callable[[int, Tensor], Tensor]
"""(layer, values (head, row, key) or (row, hidden)) → what they become."""


@dataclass
class Changes:
    """What to change of scores (before the mask), of probabilities, and of what a layer returns."""

    scores: Change = lambda layer, values: values
    probabilities: Change = lambda layer, values: values
    stream: Change = lambda layer, values: values


@dataclass
class Steps:
    """Greedy tokens; logits and the attention (layer, head, row, key) of every layer that has it, of each step."""

    ids: list[int] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)
    attention: list[np.ndarray] = field(default_factory=list)


def greedy(
    model: Any,
    inputs: Mapping[str, Tensor],
    n: int,
    hide: Hide | None = None,
    mode: str = "renormalise",
    type_of_generated: int = 0,
    changes: Changes | None = None,
    forced: Sequence[int] = (),
) -> Steps:
    """`n` greedy tokens of one unpadded sample, until the end token; the first are `forced`."""
    steps, now = Steps(), {k: v for k, v in inputs.items() if k != "position_ids"}
    with torch.no_grad(), _written_out(model, hide, mode, changes or Changes()) as rows:
        for _ in range(n):
            rows.clear()
            logits = model(**now, use_cache=False).logits[0, -1]
            steps.logits.append(logits.numpy())
            steps.attention.append(torch.stack([rows[i] for i in sorted(rows)]).numpy())
            steps.ids.append([*forced, int(logits.argmax())][min(len(steps.ids), len(forced))])
            if steps.ids[-1] == 2:
                break
            fills = {"input_ids": steps.ids[-1], "attention_mask": 1, "mm_token_type_ids": 0}
            fills["token_type_ids"] = type_of_generated
            for name in (f for f in fills if f in now):
                now[name] = torch.cat([now[name], now[name].new_full((1, 1), fills[name])], dim=1)
    return steps


def layers_of(model: Any) -> Any:
    """The decoder layers; Llama 4's decoder is a language model with its head, which holds them in `model`."""
    decoder = model.get_decoder()
    return getattr(decoder, "model", decoder).layers


@contextmanager
def _written_out(model: Any, hide: Hide | None, mode: str, changes: Changes) -> Iterator[dict[int, Tensor]]:
    """Puts attention by the book into the decoder's modelling file for the block; gathers its probabilities."""
    decoder = enumerate(layers_of(model))
    layers = {layer.self_attn: i for i, layer in decoder if hasattr(layer, "self_attn")}
    home = sys.modules[type(next(iter(layers))).__module__]
    original, found = home.eager_attention_forward, {}

    def attention(module, query, key, value, attention_mask=None, scaling=1.0, softcap=None, **rest):
        if module not in layers:  # a vision tower in the same file
            return original(module, query, key, value, attention_mask, scaling=scaling, **rest)
        mask = attention_mask
        i, share = layers[module], query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(share, dim=1) for x in (key, value))
        scores = torch.einsum("bhqd,bhkd->bhqk", query, key) * scaling
        scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
        scores = changes.scores(i, scores[0])[None]
        scores = scores if mask is None else scores + mask[..., : key.shape[2]]
        hidden = None if hide is None else hide(i, query.shape[2])
        if hidden is not None and mode == "renormalise":
            scores = scores.masked_fill(hidden, -torch.inf)
        weights = scores.softmax(dim=-1)
        if hidden is not None and mode == "zero":
            weights = weights.masked_fill(hidden, 0.0)
        weights = changes.probabilities(i, weights[0])[None]
        found[i] = weights[0]
        return torch.einsum("bhqk,bhkd->bqhd", weights, value), weights

    hooks = [layer.register_forward_hook(_after(changes, i)) for i, layer in enumerate(layers_of(model))]
    home.eager_attention_forward = attention
    try:
        yield found
    finally:
        home.eager_attention_forward = original
        for hook in hooks:
            hook.remove()


def _after(changes: Changes, i: int) -> Callable[..., Any]:
    def hook(module: Any, arguments: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (changes.stream(i, output[0][0])[None], *output[1:])
        if output.ndim == 4:  # Gemma 3n's streams: (stream, sample, row, hidden), side by side in `Residual`
            changed = changes.stream(i, output[:, 0].permute(1, 0, 2).flatten(1))
            return changed.unflatten(1, (len(output), -1)).permute(1, 0, 2)[:, None]
        return changes.stream(i, output[0])[None]

    return hook


def attention_of(model: Any, inputs: Mapping[str, Tensor]) -> np.ndarray:
    """transformers' own eager attention of one sample, (layer, head, row, key)."""
    with torch.no_grad():
        found = model(**inputs, output_attentions=True).attentions
    return torch.stack(found)[:, 0].numpy()
