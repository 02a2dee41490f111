"""A fresh eager model of a family, read and patched by hooks written here: nothing of the code under test."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from interp.conformance.tiny import tiny


class Hooked:
    """One family's tiny model in transformers' own eager attention."""

    def __init__(self, family: str, hf: Any = None) -> None:
        self.hf: Any = tiny(family, "eager")[0] if hf is None else hf
        decoder = self.hf.get_decoder()
        self.layers = getattr(decoder, "model", decoder).layers
        self.types = family == "paligemma"  # it must be told that all of a text is prompt

    def streams(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        """(layer, position, hidden) of one unpadded prompt, what enters the first layer in front, and its logits."""
        found: list[Tensor] = []
        with ExitStack() as stack, torch.no_grad():
            first = self.layers[0].register_forward_pre_hook(lambda _, given: found.append(given[0][0]))
            stack.callback(first.remove)
            for layer in self.layers:
                hook = layer.register_forward_hook(
                    lambda _, given, out: found.append((out[0] if isinstance(out, tuple) else out)[0])
                )
                stack.callback(hook.remove)
            logits = self.hf(**inputs, use_cache=False).logits[0]
        return torch.stack(found), logits

    def patched(self, ids: list[int], position: int, layer: int, vector: Tensor) -> Tensor:
        """The logits after a text whose stream holds the vector at a position after a layer (−1: before the first)."""

        def put(hidden: Tensor) -> Tensor:
            changed = hidden.clone()
            changed[0, position] = vector
            return changed

        def after(_: Any, given: Any, out: Any) -> Any:
            return (put(out[0]), *out[1:]) if isinstance(out, tuple) else put(out)

        if layer < 0:
            hook = self.layers[0].register_forward_pre_hook(lambda _, given: (put(given[0]), *given[1:]))
        else:
            hook = self.layers[layer].register_forward_hook(after)
        with torch.no_grad():
            try:
                text = torch.tensor([ids])
                types = {"token_type_ids": torch.zeros_like(text)} if self.types else {}
                return self.hf(input_ids=text, **types, use_cache=False).logits[0, -1]
            finally:
                hook.remove()
