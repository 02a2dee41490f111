"""A sample's prompt with the target's answers behind it, run once: what any number of its variants are scored by."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from interp.inputs.prompt import Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing.cached_pass import Trunk
from interp.tracing.cost import Cost, Meter
from interp.tracing.encode import Batch
from interp.tracing.target import Aim, aims, forced
from interp.tracing.wrapped import WrappedModel

__all__ = ["Asked", "Part"]


@dataclass(frozen=True, eq=False)
class Part:
    """One forced prompt, and the answers it scores: one of several tokens, or any number of single tokens."""

    trunk: Trunk
    answers: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]

    def value(self, logits: Float[Tensor, "variant kept token_id"]) -> Float[np.ndarray, " variant"]:
        """The part's share of the target, from the logits of its last rows."""
        return Aim(self.answers, self.weights).value(logits).cpu().numpy()


@dataclass(frozen=True, eq=False)
class Asked:
    """One sample, a prompt and a target. Made by `Asked.of`.

    Attributes:
        batch: the sample encoded, without an answer behind it.
        aim: the answers that are meant: a greedy one is the unedited model's, whatever is done to it later.
        parts: what has to be run for them, run once.
        plain: the target's value, nothing changed.
        cost: of all this.
    """

    batch: Batch
    aim: Aim
    parts: tuple[Part, ...]
    plain: float
    cost: Cost

    @classmethod
    def of(
        cls,
        mllm: WrappedModel,
        sample: Sample,
        prompt: Prompt,
        target: Target,
        *,
        layers: Collection[int] = (0,),
        aim: Aim | None = None,
    ) -> Asked:
        """The sample asked.

        Args:
            mllm: the model.
            sample: the sample.
            prompt: how the question is put.
            target: the answer.
            layers: the layers that variants may start at.
            aim: the answers' tokens, where they are known.

        Raises:
            SampleError, PromptError, ImageTokenMismatch: As in `Mllm.encode`, or a target that is none.
            ModelError: An answer of several tokens for a model whose prompt rows would see it.
        """
        with Meter(mllm.device) as encoding:
            batch = mllm.encode([sample], prompt)
        first = isinstance(target, Target) and target.spec == "greedy" and target.tokens == 1
        if aim is None and not first:
            found = aims(mllm, batch, target)
            aim, asking = found[0], found.cost
        else:
            asking = Cost()
        with Meter(mllm.device) as meter:
            parts = _parts(mllm, batch, aim, layers, meter)
        plain = sum(float(part.value(part.trunk.logits)[0]) for part in parts)
        known = Aim(parts[0].answers, parts[0].weights) if aim is None else aim
        return cls(batch, known, parts, plain, encoding.cost + asking + meter.cost)

    @property
    def tokens(self) -> TokenMap:
        """Where the tokens of the prompt are, without an answer behind it."""
        return self.batch.tokens[0]

    def values(self, run: Callable[[Trunk], Iterable[Tensor]]) -> Float[np.ndarray, " variant"]:
        """The target's value of each variant; `run` gives a trunk's variants' logits, batch by batch."""
        return np.sum(
            [np.concatenate([part.value(one) for one in run(part.trunk)]) for part in self.parts], 0
        )


def _parts(
    mllm: WrappedModel, batch: Batch, aim: Aim | None, layers: Collection[int], meter: Meter
) -> tuple[Part, ...]:
    """One part where single tokens are all there is, else one per answer. Without an aim, the likeliest token."""
    if aim is None or aim.single:
        own = forced(mllm, batch, [()])
        trunk = Trunk.of(mllm, own, meter, layers=layers)
        answers = ((int(trunk.logits[0, -1].argmax()),),) if aim is None else aim.answers
        return (Part(trunk, answers, (1.0,) if aim is None else aim.weights),)
    return tuple(
        Part(
            Trunk.of(mllm, forced(mllm, batch, [answer]), meter, keep=len(answer), layers=layers),
            (answer,),
            (weight,),
        )
        for answer, weight in zip(aim.answers, aim.weights, strict=True)
    )
