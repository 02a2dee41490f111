"""The vision tower of an eager model: its attention weights, and edits written into its softmax."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.conformance.tiny import tiny
from interp.inputs.patch_map import PatchMap
from interp.inputs.sample import Sample
from interp.tracing import Mllm, wrap

UNREAD = {"fast_vlm", "gemma3n", "gemma4_unified", "got_ocr2", "minicpmv4_6", "mllama", "molmo2"}
"""Families whose tower is refused, with the reason: none, of convolutions, of other code, or with other sequences."""

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


def shown(mllm: Mllm, samples: Sequence[Sample]) -> list[Sample]:
    """The samples with as many images as the family takes."""
    several = getattr(mllm.adapter, "several_images", True)
    return [one for one in samples if several or len(one.images) == 1]


def line_lengths(patches: Sequence[PatchMap]) -> list[int] | None:
    """The `lengths` of an `EagerTower` for these samples."""
    if not any(one.padded for one in patches):
        return None
    return np.concatenate([np.bincount(one.sequence) for one in patches]).tolist()


@dataclass
class EagerTower:
    """An eager tower, never wrapped. `attentions` are its modules, layer by layer.

    `lengths`: how much of each line is no padding, of towers that pad lines at their ends.
    """

    model: Any
    attentions: list[Any]
    weights: dict[int, list[Tensor]] = field(default_factory=dict)
    lengths: list[int] | None = None
    scores: Change | None = None
    probabilities: Change | None = None

    @classmethod
    def of(cls, family: str) -> EagerTower:
        model, _ = sharpened(family, "eager")
        wanted = ("q_proj", "qkv")
        others = ("language_model", "projector", "connector", "qformer", "high_res")
        named = [one for name, one in model.named_modules() if not any(part in name for part in others)]
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
        lines = [line for one in self.weights[layer] for line in one]
        sizes = self.lengths or [line.shape[1] for line in lines]
        n, at = sum(sizes), 0
        found = np.zeros((lines[0].shape[0], n, n), np.float32)
        for line, size in zip(lines, sizes, strict=True):
            found[:, at : at + size, at : at + size] = line[:, :size, :size].numpy()
            at += size
        return found

    def _padded(self, first: int, lines: int, n: int) -> np.ndarray:
        """(line, position) in the tower's order of a call's lines, the `first`-th and on; −1 for padding."""
        assert self.lengths is not None
        starts = np.cumsum([0, *self.lengths])[first : first + lines, None]
        own = np.array(self.lengths)[first : first + lines, None]
        return np.where(np.arange(n) < own, starts + np.arange(n), -1)

    @contextmanager
    def _attending(self) -> Iterator[None]:
        homes: set[Any] = {sys.modules[type(one).__module__] for one in self.attentions}
        names = ("eager_attention_forward", "vision_eager_attention_forward")  # the second in Llama 4 alone
        theirs = [
            (home, name, getattr(home, name)) for home in homes for name in names if hasattr(home, name)
        ]
        own = {home: home.eager_attention_forward for home in homes}
        layers = {module: i for i, module in enumerate(self.attentions)}
        done = dict.fromkeys(layers, 0)

        def attend(
            module: Any,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            attention_mask: Any,
            scaling: float | None,
            **options: Any,
        ) -> tuple[Tensor, Tensor]:
            if module not in layers:
                home = sys.modules[type(module).__module__]
                return own[home](module, query, key, value, attention_mask, scaling=scaling, **options)
            lines, _, n, _ = query.shape
            if self.lengths is None:
                places = done[module] + np.arange(lines * n).reshape(lines, n)
                done[module] += lines * n
            else:
                places = self._padded(done[module], lines, n)
                done[module] += lines
            scale = query.shape[-1] ** -0.5 if scaling is None else scaling
            scores = query @ key.transpose(-1, -2) * scale
            if self.scores is not None:
                scores = self.scores(layers[module], scores, places)
            scores = scores if attention_mask is None else scores + attention_mask
            weights = scores.softmax(-1)
            if self.probabilities is not None:
                weights = self.probabilities(layers[module], weights, places)
            self.weights.setdefault(layers[module], []).append(weights)
            return (weights @ value).transpose(1, 2).contiguous(), weights

        for home, name, _ in theirs:
            setattr(home, name, attend)
        try:
            yield
        finally:
            for home, name, before in theirs:
                setattr(home, name, before)
