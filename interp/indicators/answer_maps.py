"""Attend-and-segment's maps: where each token of a generated answer looks more than the answer does on average."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.errors import PromptError
from interp.indicators.indicator_checks import check_call, layers_of
from interp.inputs.argument_checks import check_whole
from interp.inputs.prompt import Prompt, Target
from interp.inputs.tokens import TokenMap
from interp.tracing import Mllm, Rows, Site
from interp.tracing.cost import Cost

__all__ = ["AnswerMaps", "answer_maps"]


@dataclass(frozen=True, eq=False)
class AnswerMaps:
    """The maps of one answer's tokens.

    Attributes:
        text: The answer, without special tokens.
        ids: The generated tokens that count: the answer's, with the one that ended it.
        ends: (generated,) where each token's text ends in `text`, in characters.
        attention: (generated, token) mean over layers and heads of the attention weights to the image tokens, in the
            row that predicts the generated token; their sum over image tokens is at most 1.
        tokens: Where the image tokens are.
        cost: Time, memory and passes of the run.
    """

    text: str
    ids: tuple[int, ...]
    ends: tuple[int, ...]
    attention: Float[np.ndarray, "generated token"]
    tokens: TokenMap
    cost: Cost

    @cached_property
    def mean(self) -> Float[np.ndarray, " token"]:
        """The mean map over all tokens of the answer; zeros for an empty answer."""
        return self.attention.mean(axis=0) if len(self.attention) else np.zeros(self.tokens.n)

    @cached_property
    def differences(self) -> Float[np.ndarray, "generated token"]:
        """Each token's map minus the mean map: they sum to 0 over the tokens. All 0 for an answer of one token."""
        return self.attention - self.mean

    def of_span(self, start: int, end: int) -> tuple[tuple[int, ...], Float[np.ndarray, " token"]]:
        """The tokens that share a character with text[start:end], and the mean of their differences.

        Without such tokens the mean is zeros.
        """
        starts = (0, *self.ends[:-1])
        pairs = zip(starts, self.ends, strict=True)
        mine = tuple(i for i, (low, high) in enumerate(pairs) if low < end and high > start)
        map = self.differences[list(mine)].mean(axis=0) if mine else np.zeros(self.tokens.n)
        return mine, map


def answer_maps(
    mllm: Mllm, sample: Any, *, prompt: Prompt | None = None, generate: int = 64, layers: Any = "all"
) -> AnswerMaps:
    """The maps of the tokens of a greedy answer; see `AnswerMaps`.

    A token's map comes from the row that predicts it; for the first token this is the last row of the prompt, as in the
    published code. Tokens of a thought before the answer are left out, of the mean too, and so are gated DeltaNet
    layers, which have no weights.

    Args:
        mllm: The model.
        sample: One sample.
        prompt: The prompt around the question; by default `PAPER_PROMPT`.
        generate: The most tokens to generate, a thought included.
        layers: "all" or decoder layers, 0-based; in a hybrid model only layers with a softmax.

    Raises:
        ModelError: A model whose image tokens stand for no places in the image.
        SiteError: Layers that the model does not have.

    Source: Cao et al. 2024, arXiv 2410.08209, and its code (Shengcao-Cao/groundLMM, aas/infer_attn.py, aas/gcg.py).
    """
    check_call(mllm, prompt, Target())
    mllm.need_image_rows("maps of an answer's tokens")
    check_whole("generate, the number of tokens,", generate, 1, PromptError)
    chosen = layers_of(mllm, layers, "maps of an answer's tokens")
    read = Rows(Site(layers=chosen, queries="last", keys="image"), reduce="head")
    trace = mllm.trace([sample], prompt=prompt, reads=[read], generate=generate, progress=False)
    one, rows = trace[0], trace[0].rows
    weights = rows.values.reshape(rows.sizes["step"], -1, one.tokens.n).mean(axis=1, dtype=np.float64)
    ids = one.ids[one.n_reasoning :]
    tokenizer = mllm.processor.tokenizer
    texts = [str(tokenizer.decode(list(ids[:n]), skip_special_tokens=True)) for n in range(1, len(ids) + 1)]
    text = texts[-1] if texts else ""
    ends = tuple(min(len(one), len(text)) for one in texts)
    return AnswerMaps(text, ids, ends, weights[one.n_reasoning :], one.tokens, trace.cost)
