"""Tells edits, while a batch generates, and its reads which tokens are a thought's and which the answer's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interp.errors import EditError, ServerError, SiteError
from interp.tracing.edits import AttentionEdit, Edit
from interp.tracing.encoding.batch import Batch
from interp.tracing.layers.edit_cells import Live
from interp.tracing.reads import Read
from interp.tracing.reasoning.thoughts import Follower, Said, leaves_open, marks, said
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["Stages", "check_stages", "make_stages", "said_by"]


class Stages:
    """Tells edits of the thought alone, or of the answer alone, which of them each sample's latest token belongs to.

    Attributes:
        followers: One per sample.
        lives: What is told; the plan of a run puts in its own.
    """

    def __init__(self, processor: Any, opened: Sequence[bool]) -> None:
        self.followers = [Follower(processor, one) for one in opened]
        self.lives: list[Live] = []

    def __call__(self, tokens: Sequence[int]) -> None:
        """Takes in the samples' next tokens."""
        labels = [follow(token) for follow, token in zip(self.followers, tokens, strict=True)]
        for live in self.lives:
            live.follow(labels)


def make_stages(
    mllm: WrappedModel, batch: Batch, reads: Sequence[Read], edits: Sequence[Edit]
) -> Stages | None:
    """What tells edits of the thought or the answer alone which of them a token belongs to; None without such edits.

    Raises:
        SiteError: Rows of the thought of a model that has no marks of one.
        ServerError: Such edits on a server.
    """
    stages = [edit.stage_of_tokens for edit in edits if isinstance(edit, AttentionEdit)]
    asked = [*stages, *("reasoning" for read in reads if read.site.groups[0] == ("reasoning",))]
    put = all("reasoning" in tokens.spans for tokens in batch.tokens)
    if marks(mllm.processor) is None:
        if "reasoning" in asked and not put:
            raise SiteError(
                'queries="reasoning" are the rows of a thought before the answer, but neither the chat template nor '
                "the tokenizer of this model has the marks of one (interp.tracing.reasoning.thoughts.MARKS). Write "
                'queries="answer" for all that it generates.'
            )
        return None
    if not any(stages):
        return None
    if mllm.server is not None:
        raise ServerError(
            'edits of queries="reasoning" or "answer" follow a model that thinks token by token, which a job on an '
            'NDIF server does not. Write queries="last" with steps="decode" for all generated tokens.'
        )
    return Stages(mllm.processor, _opened(mllm, batch))


def _opened(mllm: WrappedModel, batch: Batch) -> list[bool]:
    return [leaves_open(one.text, batch.prompt, mllm.processor) for one in batch.singles]


def check_stages(stages: Stages, found: Sequence[Said], n_steps: Sequence[int]) -> None:
    """Refuses an edit that took part of a thought for the answer: of a thought that was closed but never opened."""
    for i, (one, n, follower) in enumerate(zip(found, n_steps, stages.followers, strict=True)):
        n = min(n, len(follower.labels))  # the last token is not run
        if one.reasoning is not None and sum(follower.labels[:n]) != min(one.n_reasoning, n):
            raise EditError(
                f"sample {i} of the batch ended a thought that neither its prompt nor its first token had begun, so "
                "the edit could not tell it from the answer. Write interp.Prompt(thinking=True), which takes all "
                "before the end mark for the thought."
            )


def said_by(
    mllm: WrappedModel, batch: Batch, lines: Sequence[Sequence[int]], ends: frozenset[int]
) -> tuple[list[tuple[int, ...]], list[Said]]:
    """The tokens that each sample generated, its end included, and the thought and the answer among them.

    Args:
        mllm: The model.
        batch: The samples.
        lines: All tokens of each, what follows its end too.
        ends: The tokens that end an answer.
    """
    lengths = [next((i + 1 for i, t in enumerate(line) if t in ends), len(line)) for line in lines]
    own = [tuple(line[:n]) for line, n in zip(lines, lengths, strict=True)]
    opened = _opened(mllm, batch)
    return own, [said(ids, mllm.processor, one) for ids, one in zip(own, opened, strict=True)]
