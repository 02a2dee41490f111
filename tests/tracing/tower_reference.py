"""The vision tower of an eager model: its attention weights, and edits written into its softmax."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.conformance.tiny import tiny
from interp.tracing import Mllm, wrap

UNREAD = {
    "fast_vlm",
    "gemma4",
    "gemma4_unified",
    "got_ocr2",
    "idefics2",
    "kimi_k25",
    "lfm2_vl",
    "lighton_ocr",
    "minicpmv4_6",
    "mllama",
    "molmo2",
}
"""Families whose tower is refused so far: of another form, or without patches of its own."""

Change = Callable[[int, Tensor, np.ndarray], Tensor]
"""(layer, values (line, head, query, key), (line, position) places in the tower's order) → new values."""


def sharpened(family: str, tower: str = "sdpa") -> tuple[Any, Any]:
    """The tiny model with a tower whose attention is far from uniform, in this implementation."""
    model, processor = tiny(family)
    for name, weight in model.named_parameters():
        if (
            weight.ndim == 2
            and "language_model" not in name
            and any(part in name for part in ("q_proj", "k_proj", "qkv"))
        ):
            with torch.no_grad():
                weight.mul_(0.25 / weight.std())
    if tower != "sdpa":
        model.set_attn_implementation({"vision_config": tower})
    return model, processor


def sharp(family: str) -> Mllm:
    """That model, wrapped."""
    return wrap(*sharpened(family))


@dataclass
class EagerTower:
    """An eager tower, never wrapped. `attentions` are its modules, layer by layer."""

    model: Any
    attentions: list[Any]
    weights: dict[int, list[Tensor]] = field(default_factory=dict)
    scores: Change | None = None
    probabilities: Change | None = None

    @classmethod
    def of(cls, family: str) -> EagerTower:
        model, _ = sharpened(family, "eager")
        wanted = ("q_proj", "qkv")
        named = [one for name, one in model.named_modules() if "language_model" not in name]
        found = [one for one in named if any(hasattr(one, part) for part in wanted)]
        return cls(model, found)

    def logits(self, inputs: Mapping[str, Tensor], **changes: Change) -> Tensor:
        """(sample, token_id) after the last token; the weights of the pass are kept."""
        self.weights = {}
        self.scores, self.probabilities = changes.get("scores"), changes.get("probabilities")
        with self._attending(), torch.no_grad():
            return self.model(**inputs).logits[:, -1]

    def dense(self, layer: int) -> np.ndarray:
        """(head, query, key) over the whole order of the tower, 0 between what is not in one call and row."""
        calls = self.weights[layer]
        n = sum(one.shape[0] * one.shape[2] for one in calls)
        found, at = np.zeros((calls[0].shape[1], n, n), np.float32), 0
        for one in calls:
            for line in one:
                size = line.shape[1]
                found[:, at : at + size, at : at + size] = line.numpy()
                at += size
        return found

    @contextmanager
    def _attending(self) -> Iterator[None]:
        homes: set[Any] = {sys.modules[type(one).__module__] for one in self.attentions}
        own = {home: home.eager_attention_forward for home in homes}
        layers = {module: i for i, module in enumerate(self.attentions)}
        done = dict.fromkeys(layers, 0)

        def attend(
            module: Any,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            attention_mask: Any,
            scaling: float,
            **options: Any,
        ) -> tuple[Tensor, Tensor]:
            if module not in layers:
                home = sys.modules[type(module).__module__]
                return own[home](module, query, key, value, attention_mask, scaling=scaling, **options)
            lines, _, n, _ = query.shape
            places = done[module] + np.arange(lines * n).reshape(lines, n)
            done[module] += lines * n
            scores = query @ key.transpose(-1, -2) * scaling
            if self.scores is not None:
                scores = self.scores(layers[module], scores, places)
            scores = scores if attention_mask is None else scores + attention_mask
            weights = scores.softmax(-1)
            if self.probabilities is not None:
                weights = self.probabilities(layers[module], weights, places)
            self.weights.setdefault(layers[module], []).append(weights)
            return (weights @ value).transpose(1, 2).contiguous(), weights

        for home in homes:
            home.eager_attention_forward = attend
        try:
            yield
        finally:
            for home in homes:
                home.eager_attention_forward = own[home]
