"""How likely an answer is after each prompt, under edits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.prompt import Prompt, Target
from interp.sample import Sample
from interp.tracing.cost import Cost, Meter
from interp.tracing.edits import Edit
from interp.tracing.encode import Batch
from interp.tracing.execute import execute
from interp.tracing.forward import Generation
from interp.tracing.prefix import Prefix
from interp.tracing.targets import Aims, aims

if TYPE_CHECKING:
    from interp.tracing.mllm import Mllm

__all__ = ["Scores", "given_as", "score"]


@dataclass(frozen=True, eq=False)
class Scores:
    """The target's value for each sample.

    Attributes:
        values: float64 (sample,), nats: a log-probability (≤ 0), its mean over tokens, or a difference of two.
        aims: the tokens that were meant.
        cost: of finding and of scoring them.
    """

    values: Float[np.ndarray, " sample"]
    aims: Aims
    cost: Cost


def score(
    mllm: Mllm,
    samples: Sample | Iterable[Sample] | Batch | Prefix,
    target: Target,
    prompt: Prompt | None,
    edits: Sequence[Edit],
) -> Scores:
    """The scores of a batch; see `Mllm.score`."""
    given = given_as(mllm, samples, prompt)
    found = aims(mllm, given, target)
    answers = [aim.answers for aim in found]
    with Meter(mllm.device) as meter:
        if all(aim.single for aim in found):
            once = _log_probs(mllm, given, edits, [()] * len(found), meter)[:, 0]
            parts = [[once[i, ids[0]] for ids in own] for i, own in enumerate(answers)]
        else:
            parts = [[] for _ in found]
            for at in range(len(answers[0])):
                own = [one[at] for one in answers]
                table = _log_probs(mllm, given, edits, own, meter)
                for i, ids in enumerate(own):
                    parts[i].append(table[i, range(len(ids)), list(ids)].sum())
    weighed = [float(np.dot(aim.weights, part)) for aim, part in zip(found, parts, strict=True)]
    return Scores(np.array(weighed), found, found.cost + meter.cost)


def given_as(
    mllm: Mllm, samples: Sample | Iterable[Sample] | Batch | Prefix, prompt: Prompt | None
) -> Batch | Prefix:
    """The samples under a prompt, encoded once for all passes; a prefix stays one where it serves the prompt."""
    if not isinstance(samples, Batch | Prefix):
        return mllm.encode(samples) if prompt is None else mllm.encode(samples, prompt)
    own = samples.batch if isinstance(samples, Prefix) else samples
    if prompt is None or prompt == own.prompt:
        return samples
    again = mllm.encoder.again(own, prompt)
    return samples.of(again) if isinstance(samples, Prefix) and samples.begins(again) else again


def _log_probs(
    mllm: Mllm,
    given: Batch | Prefix,
    edits: Sequence[Edit],
    answers: Sequence[tuple[int, ...]],
    meter: Meter,
) -> Float[np.ndarray, "sample step token_id"]:
    """log p of every token at each step of the answers, which are fed token by token."""
    follow = _Follow(answers)
    n = max(len(answer) for answer in answers)

    def generation(batch: Batch) -> Generation | None:
        return Generation(n, frozenset(), batch.pad_id, follow) if n > 1 else None

    _, _, outcome = execute(mllm, given, None, [], edits, meter, generation=generation)
    steps = follow.steps or [outcome.logits]
    return torch.stack([one.double().log_softmax(dim=-1) for one in steps], dim=1).cpu().numpy()


class _Follow:
    """Chooses the tokens of given answers, and keeps the logits they were chosen from."""

    def __init__(self, answers: Sequence[tuple[int, ...]]) -> None:
        self.answers = answers
        self.steps: list[Tensor] = []

    def __call__(self, logits: Float[Tensor, "sample token_id"]) -> Int[Tensor, " sample"]:
        """The next token of each answer; its last one again where it is over."""
        at = len(self.steps)
        self.steps.append(logits)
        ids = [answer[min(at, len(answer) - 1)] for answer in self.answers]
        return torch.tensor(ids, device=logits.device)
