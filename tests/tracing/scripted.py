"""A tiny model that may think and that says what it is told to, so that thoughts end where a test wants them to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import interp
from interp.conformance.tiny.one_grid import tiny_thinking

__all__ = ["Script", "ids", "picture", "scripted"]


class Script:
    """A hook of the output layer: pass by pass, the only likely token of each line of the batch."""

    def __init__(self) -> None:
        self.lines: Sequence[Sequence[int]] = ()
        self.at = 0

    def say(self, *lines: Sequence[int]) -> None:
        """What the lines of the next batch generate."""
        self.lines, self.at = lines, 0

    def __call__(self, module: Any, args: Any, output: Tensor) -> Tensor | None:
        """The logits, with the next token of each line far above the others."""
        if not self.lines:
            return None
        forced = output.clone()
        for i, line in enumerate(self.lines):
            if self.at < len(line):
                forced[i, -1, line[self.at]] += 1e4
        self.at += 1
        return forced


def scripted(attention: str = "sdpa") -> tuple[interp.Mllm, Script]:
    """The model, wrapped, and what makes it speak."""
    hf, processor = tiny_thinking(attention)
    script = Script()
    hf.lm_head.register_forward_hook(script)
    return interp.wrap(hf, processor), script


def ids(mllm: interp.Mllm, text: str) -> list[int]:
    """The tokens of a text of the tiny vocabulary, one a word."""
    return [int(mllm.processor.tokenizer.convert_tokens_to_ids(word)) for word in text.split()]


def picture(question: str = "what is it ?", seed: int = 0) -> interp.Sample:
    """A sample with an image of noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (56, 56, 3), dtype=np.uint8)
    return interp.Sample(pixels, question, answer="yes")


def by_hand(mllm: interp.Mllm, ids: Tensor, embedded: Tensor, hidden: Mapping[int, Sequence[int]]) -> Tensor:
    """Logits (position, token_id) of one sequence in eager attention under an explicit mask.

    Args:
        mllm: The model.
        ids: (position,), generated tokens included.
        embedded: (prompt position, hidden): the prompt's, images put in.
        hidden: Row → the columns it may not see.
    """
    hf = mllm.hf
    n, n_prompt = len(ids), len(embedded)
    mask = torch.full((n, n), -torch.inf).triu(1)
    for row, columns in hidden.items():
        mask[row, list(columns)] = -torch.inf
    after = hf.get_input_embeddings()(ids[n_prompt:])
    inputs = torch.cat([embedded, after])[None]
    with torch.no_grad():
        out = hf.model.language_model(
            inputs_embeds=inputs,
            attention_mask=mask[None, None],
            position_ids=torch.arange(n)[None],
            use_cache=False,
        )
        return out.last_hidden_state[0] @ hf.lm_head.weight.T
