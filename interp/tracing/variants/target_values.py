"""A sample's prompt with the target's answers behind it, run once, and the target's value in its variants."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError
from interp.inputs.prompt import Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing.cost import Cost, Meter
from interp.tracing.encoding.batch import Batch
from interp.tracing.passes.prefix_pass import given_as
from interp.tracing.passes.run import without_choice
from interp.tracing.target import Aim, aims, forced, likeliest
from interp.tracing.variants.cached_pass import KeptPass
from interp.tracing.variants.served_pass import ServedPass
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["AnyPass", "KeptTarget", "TargetPass", "prompt_pass"]

AnyPass = KeptPass | ServedPass
"""A prompt's pass that variants differ from: kept here, or run again on a server."""


@dataclass(frozen=True, eq=False)
class TargetPass:
    """One forced prompt, and what it scores: one answer of several tokens, or any number of single tokens.

    The prompt's pass is kept, or its variants run on a server.
    """

    kept: AnyPass
    aim: Aim

    def plain(self, meter: Meter) -> float:
        """The pass's share of the target, nothing changed."""
        kept = self.kept
        return float(self.value(kept.plain(meter) if isinstance(kept, ServedPass) else kept.logits)[0])

    def value(self, found: Float[Tensor, "variant ..."]) -> Float[np.ndarray, " variant"]:
        """The pass's share of the target.

        Args:
            found: what the pass gives of its variants: logits of the last rows, or a server's values.

        Raises:
            ModelError: Logits of a variant that are not numbers.
        """
        served = found.ndim == 1
        lost = int((found.isnan() if served else without_choice(found)).sum())
        if lost:
            raise ModelError(
                f"{lost} of {len(found)} passes with tokens removed or put in place give logits that are not numbers "
                f"in {self.kept.mllm.dtype}. Load the model with dtype='float32'."
            )
        return (found if served else self.aim.value(found)).cpu().numpy()


@dataclass(frozen=True, eq=False)
class KeptTarget:
    """One sample, a prompt and a target, run once. Made by `KeptTarget.of`.

    Attributes:
        batch: the sample encoded, without an answer behind it.
        aim: the answers that are meant: a greedy one is the unedited model's, whatever is done to it later.
        parts: what has to be run for them, run once; on a server, what runs there.
        plain: the target's value, nothing changed.
        cost: of all this.
    """

    batch: Batch
    aim: Aim
    parts: tuple[TargetPass, ...]
    plain: float
    cost: Cost

    @classmethod
    def of(
        cls,
        mllm: WrappedModel,
        sample: Sample | Batch,
        prompt: Prompt | None,
        target: Target,
        *,
        layers: Collection[int] = (0,),
        aim: Aim | None = None,
    ) -> KeptTarget:
        """The passes of a sample's target, kept.

        Args:
            mllm: the model.
            sample: the sample, or a batch of it alone.
            prompt: how the question is put; None is the batch's own prompt, or `PAPER_PROMPT`.
            target: the answer.
            layers: the layers that variants may start at.
            aim: the answers' tokens, where they are known.

        Raises:
            SampleError, PromptError, ImageTokenMismatch: As in `Mllm.encode`, or a target that is none.
            ModelError: An answer of several tokens for a model whose prompt rows would see it.
        """
        with Meter(mllm.device) as encoding:
            batch = given_as(mllm, sample, prompt)
        assert isinstance(batch, Batch)
        finding = Cost()
        if aim is None and (mllm.server is not None or not likeliest(target)):
            found = aims(mllm, batch, target)
            aim, finding = found[0], found.cost
        with Meter(mllm.device) as meter:
            parts = _parts(mllm, batch, aim, layers, meter)
            plain = sum(part.plain(meter) for part in parts)
        known = parts[0].aim if aim is None else aim
        return cls(batch, known, parts, plain, encoding.cost + finding + meter.cost)

    @property
    def tokens(self) -> TokenMap:
        """Where the tokens of the prompt are, without an answer behind it."""
        return self.batch.tokens[0]

    def values(self, run: Callable[[AnyPass], Iterable[Tensor]]) -> Float[np.ndarray, " variant"]:
        """The target's value of each variant.

        Args:
            run: from a part's pass to what its `run` gives of the variants, batch by batch.
        """
        return np.sum([np.concatenate([part.value(one) for one in run(part.kept)]) for part in self.parts], 0)


def _parts(
    mllm: WrappedModel, batch: Batch, aim: Aim | None, layers: Collection[int], meter: Meter
) -> tuple[TargetPass, ...]:
    """One pass where single tokens are all there is, else one per answer. Without an aim, the likeliest token."""
    if mllm.server is not None:
        assert aim is not None
        each = [aim] if aim.single else aim.each
        behind = [forced(mllm, batch, [() if aim.single else one.answers[0]]) for one in each]
        served = [ServedPass(mllm, own, one, tuple(layers)) for own, one in zip(behind, each, strict=True)]
        return tuple(TargetPass(own, one) for own, one in zip(served, each, strict=True))
    if aim is None or aim.single:
        kept = KeptPass.of(mllm, forced(mllm, batch, [()]), meter, layers=layers)
        likely = int(kept.logits[0, -1].to(mllm.dtype).argmax())  # as the model, which rounds them, chooses
        return (TargetPass(kept, Aim(((likely,),), (1.0,)) if aim is None else aim),)
    return tuple(
        TargetPass(
            KeptPass.of(
                mllm, forced(mllm, batch, one.answers), meter, keep=len(one.answers[0]), layers=layers
            ),
            one,
        )
        for one in aim.each
    )


def prompt_pass(mllm: WrappedModel, batch: Batch, meter: Meter) -> AnyPass:
    """The pass of a sample's prompt alone, for its stream."""
    return KeptPass.of(mllm, batch, meter) if mllm.server is None else ServedPass(mllm, batch, None)
