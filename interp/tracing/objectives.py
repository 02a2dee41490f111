"""A target's value as a differentiable function of a pass's logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp.prompt import Target
from interp.tracing.encode import Batch
from interp.tracing.targets import Aim, forced

if TYPE_CHECKING:
    from interp.tracing.mllm import Mllm

__all__ = ["Objective", "likeliest", "objectives"]


@dataclass(frozen=True, eq=False)
class Objective:
    """One teacher-forced pass and what it contributes to each sample's target.

    Attributes:
        batch: the prompts, with the answers behind them but for their last tokens.
        aims: the answers this pass predicts and their weights; None for the likeliest next token.
    """

    batch: Batch
    aims: tuple[Aim, ...] | None

    @property
    def keep(self) -> int:
        """How many last positions' logits it takes."""
        return 1 if self.aims is None else max(len(ids) for aim in self.aims for ids in aim.answers)

    def values(self, logits: Float[Tensor, "sample position token_id"]) -> Float[Tensor, " sample"]:
        """Σ_a weight · Σ_t log p of each sample, nats, from the logits after its last `keep` positions."""
        logits = logits if logits.dtype == torch.float64 else logits.float()
        table = logits[:, -self.keep :].log_softmax(dim=-1)
        if self.aims is None:
            return table[:, -1].max(dim=-1).values
        return torch.stack([_value(own, aim) for own, aim in zip(table, self.aims, strict=True)])


def likeliest(target: Target) -> bool:
    """Whether a target is the likeliest next token, which the pass to be differentiated finds itself."""
    return isinstance(target, Target) and target.spec == "greedy" and target.tokens == 1


def objectives(mllm: Mllm, batch: Batch, aims: Sequence[Aim] | None) -> list[Objective]:
    """The passes whose values add up to the target: one, or one for each answer of a difference.

    Answers that are the same but for their last token, such as two of one token, share a pass.

    Raises:
        ModelError: An answer of several tokens for a model whose prompt rows would see it.
    """
    if aims is None:
        return [Objective(batch, None)]
    if all(len({ids[:-1] for ids in aim.answers}) == 1 for aim in aims):
        return [Objective(forced(mllm, batch, [aim.answers[0] for aim in aims]), tuple(aims))]
    slots = range(max(len(aim.answers) for aim in aims))
    parts = [tuple(Aim((aim.answers[at],), (aim.weights[at],)) for aim in aims) for at in slots]
    return [Objective(forced(mllm, batch, [aim.answers[0] for aim in part]), part) for part in parts]


def _value(table: Float[Tensor, "position token_id"], aim: Aim) -> Float[Tensor, ""]:
    """One sample's value from log p at its last positions."""
    parts = [
        weight * table[torch.arange(len(table) - len(ids), len(table)), list(ids)].sum()
        for ids, weight in zip(aim.answers, aim.weights, strict=True)
    ]
    return torch.stack(parts).sum()
