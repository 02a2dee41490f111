"""A tiny model that says any text: each token that it says decides the next one, and the prompt the first."""

from __future__ import annotations

from typing import Any

import torch

import interp
from interp.conformance.tiny import tiny

__all__ = ["saying"]

END = "</s>"


def saying(family: str, *pieces: str, attention: str = "sdpa") -> interp.Mllm:
    """The tiny model of a family, which answers every prompt with these pieces, each a token of its own, and ends.

    The pieces are added to its vocabulary; its output layer is rigged, and everything before it is as it was.
    """
    model, processor = tiny(family, attention)
    tokenizer = processor.tokenizer
    added = [f"{place}#{piece}" for place, piece in enumerate(pieces)]  # a token of its own for each place
    tokenizer.add_tokens(added)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the new rows are drawn
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    ids = [int(tokenizer.convert_tokens_to_ids(one)) for one in added]
    chain = dict(zip(ids, [*ids[1:], int(tokenizer.convert_tokens_to_ids(END))], strict=True))
    last: dict[str, Any] = {}

    def remember(module: Any, args: Any, kwargs: Any) -> None:
        last["ids"] = (args[0] if args else kwargs["input"])[:, -1].tolist()

    def force(module: Any, args: Any, output: Any) -> Any:
        forced = output.clone()
        for line, token in enumerate(last["ids"]):
            forced[line, -1, chain.get(token, ids[0])] += 1e4
        return forced

    model.get_input_embeddings().register_forward_pre_hook(remember, with_kwargs=True)
    model.lm_head.register_forward_hook(force)
    decode = tokenizer.decode

    def plain(tokens: Any, **options: Any) -> str:
        """The pieces without the marks of their places."""
        text = str(decode(tokens, **options))
        for place, piece in enumerate(pieces):
            text = text.replace(f"{place}#{piece}", piece, 1)
        return text

    tokenizer.decode = plain
    return interp.wrap(model, processor)
