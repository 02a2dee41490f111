"""The long way round in numpy: eager attention written out, one unpadded sample, no cache, every step anew."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

import tests.tiny as tiny

Change = Callable[[int, np.ndarray], np.ndarray]
"""(layer, values (head, row, key)) → the values to go on with."""


@dataclass
class Steps:
    """Each step's token, logits and attention (layer, head, row, key)."""

    ids: list[int] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)
    attention: list[np.ndarray] = field(default_factory=list)

    @property
    def text(self) -> str:
        return tiny.tokenizer().decode(self.ids, skip_special_tokens=True).strip()


def unchanged(layer: int, values: np.ndarray) -> np.ndarray:
    return values


def generated(
    model: Any,
    inputs: Mapping[str, Tensor],
    n: int,
    *,
    scores: Change = unchanged,
    probabilities: Change = unchanged,
    guided: Callable[[np.ndarray, list[int]], np.ndarray] | None = None,
) -> Steps:
    """`n` greedy tokens. `scores` changes scaled products before the mask, `probabilities` what the softmax
    gives, `guided` (logits, tokens so far) the logits."""
    steps, now = (
        Steps(),
        {k: inputs[k] for k in ("input_ids", "attention_mask", "pixel_values") if k in inputs},
    )
    with torch.no_grad(), _written_out(model, scores, probabilities) as rows:
        for _ in range(n):
            rows.clear()
            logits = model(**now, use_cache=False).logits[0, -1].numpy()
            steps.attention.append(np.stack([rows[i] for i in sorted(rows)]))
            steps.logits.append(logits if guided is None else guided(logits, steps.ids))
            steps.ids.append(int(steps.logits[-1].argmax()))
            if steps.ids[-1] == 2:
                break
            for name, value in (("input_ids", steps.ids[-1]), ("attention_mask", 1)):
                now[name] = torch.cat([now[name], now[name].new_full((1, 1), value)], dim=1)
    return steps


def image_columns(inputs: Mapping[str, Tensor]) -> np.ndarray:
    return np.flatnonzero(inputs["input_ids"][0].numpy() == tiny.IMAGE_TOKEN)


def on_last_rows(
    inputs: Mapping[str, Tensor],
    layers: Any,
    formula: Callable[[np.ndarray], np.ndarray],
    *,
    decode: bool,
) -> Change:
    """The formula on the image scores, (head, row, token), of the prompt's last row in `layers`.

    Every row is computed anew at each step, so with `decode` those of all tokens generated so far change too.
    """
    image, last = image_columns(inputs), inputs["input_ids"].shape[1] - 1

    def change(layer: int, scores: np.ndarray) -> np.ndarray:
        if layer not in layers:
            return scores
        rows = np.arange(last, scores.shape[1] if decode else last + 1)
        block = np.ix_(np.arange(scores.shape[0]), rows, image)
        changed = scores.copy()
        changed[block] = formula(scores[block])
        return changed

    return change


@contextmanager
def _written_out(model: Any, scores: Change, probabilities: Change) -> Iterator[dict[int, np.ndarray]]:
    layers = {layer.self_attn: i for i, layer in enumerate(model.get_decoder().layers)}
    home = sys.modules[type(model.get_decoder().layers[0].self_attn).__module__]
    original, found = home.eager_attention_forward, {}

    def attention(module, query, key, value, attention_mask=None, scaling=1.0, **rest):
        if module not in layers:  # a vision tower in the same file
            return original(module, query, key, value, attention_mask, scaling=scaling, **rest)
        q, k, v = (x[0].double().numpy() for x in (query, key, value))
        k, v = (np.repeat(x, q.shape[0] // x.shape[0], axis=0) for x in (k, v))
        changed = scores(layers[module], q @ k.transpose(0, 2, 1) * scaling)
        seen = np.tril(np.ones(changed.shape[1:], dtype=bool))
        weights = np.exp(np.where(seen, changed, -np.inf) - changed.max(axis=-1, keepdims=True))
        weights = probabilities(layers[module], weights / weights.sum(axis=-1, keepdims=True))
        found[layers[module]] = weights
        out = torch.from_numpy((weights @ v).transpose(1, 0, 2)[None]).to(query.dtype)
        return out, None

    home.eager_attention_forward = attention
    try:
        yield found
    finally:
        home.eager_attention_forward = original
