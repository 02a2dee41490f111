"""Targets differentiated the long way round: eager attention, one sample alone, the answer written behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.tracing import Mllm

Terms = Sequence[tuple[float, str]]
"""(weight, words of an answer): the target is Σ weight · Σ log p(word)."""


def behind(mllm: Mllm, sample: Any, words: Sequence[int]) -> dict[str, Tensor]:
    """A sample's own inputs with token ids behind the prompt."""
    inputs = {k: v for k, v in mllm.encode(sample).inputs.items() if k != "position_ids"}
    n = len(words)
    tails = {
        "input_ids": torch.tensor([list(words)]).long(),
        "attention_mask": torch.ones(1, n).long(),
        "mm_token_type_ids": torch.zeros(1, n).long(),
        "token_type_ids": torch.zeros(1, n).long(),
    }
    return inputs | {
        name: torch.cat([inputs[name], tail], 1) for name, tail in tails.items() if name in inputs
    }


def value(mllm: Mllm, model: Any, sample: Any, terms: Terms, **changed: Tensor) -> tuple[Tensor, Any]:
    """The target's value and the output of each pass; no terms: the likeliest next token."""
    if not terms:
        output = model(**behind(mllm, sample, []) | changed, output_attentions=True)
        return output.logits[0, -1].log_softmax(-1).max(), [output]
    total, outputs = torch.zeros(()), []
    for weight, words in terms:
        ids = [mllm.processor.tokenizer.convert_tokens_to_ids(word) for word in words.split()]
        output = model(**behind(mllm, sample, ids[:-1]) | changed, output_attentions=True)
        table = output.logits[0, -len(ids) :].log_softmax(-1)
        total = total + weight * table[range(len(ids)), ids].sum()
        outputs.append(output)
    return total, outputs


def rows(
    mllm: Mllm, eager: Any, sample: Any, terms: Terms = (), which: str = "last"
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each pass, attention and its gradient (layer, head, row, position): the prompt's last row, or all after
    the image, the answer's too."""
    total, outputs = value(mllm, eager, sample, terms)
    tokens = mllm.encode(sample).tokens[0]
    gradients = torch.autograd.grad(total, [one for output in outputs for one in output.attentions])
    found, n = [], len(outputs[0].attentions)
    for at, output in enumerate(outputs):
        first = tokens.length - 1 if which == "last" else int(tokens.image[-1]) + 1
        stop = tokens.length if which == "last" else None
        both = output.attentions, gradients[at * n : (at + 1) * n]
        found.append(
            tuple(np.stack([one[0, :, first:stop].detach().numpy() for one in part]) for part in both)
        )
    return found


def in_float64(model: Any) -> Any:
    """The model in float64 throughout: its norms would go through float32, too coarse for finite differences."""
    for module in model.double().modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = _norm(module)
    return model


def _norm(module: Any) -> Any:
    return lambda x: module.weight * x / (x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).sqrt()
