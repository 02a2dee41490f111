"""Gradients of the target with respect to pixels or image embeddings, plain and times the input."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from interp.indicators.arguments import check_bool, check_one_of
from interp.indicators.inputs import INPUTS, per_token
from interp.indicators.labels import labelled
from interp.indicators.maps import Maps
from interp.prompt import PAPER_PROMPT, Prompt, Target
from interp.sample import Sample
from interp.tracing import Batch, Mllm, Prefix
from interp.tracing.cost import Meter
from interp.tracing.inputs import Inputs, input_function

__all__ = ["InputGradient"]


@dataclass(frozen=True)
class InputGradient:
    """How much the target moves with each image token's own input, at first order.

    Plain: the size of the gradient of the target's value v (nats), in [0, ∞).
        "embeddings": ‖∂ v/∂e_j‖₂, e_j what enters the first decoder layer at the token.
        "pixels": the mean over the token's own pixels of ‖∂ v/∂x‖₂ over channels, x the processor's pixel values.
    `times_input`: the signed first-order effect of the input against zero, so that larger raises the target more.
        "embeddings": Σ_d e_jd ∂ v/∂e_jd.
        "pixels": Σ over the token's own pixels and channels of x ∂ v/∂x; zero is the processor's mean colour.

    A token's own pixels are its block in the view it comes from (`interp.models.pixels`). Pixel gradients pass
    through the vision tower, which mixes places: they say where the picture matters, not which token carries it.
    Where views overlap (tiles and a view of the whole), each view's pixels count as inputs of their own: a place
    seen twice has its effect divided among two tokens. Images repeated in frames (Qwen) count once, all frames
    together. Newline and class tokens have no pixels: 0.

    A tower that normalises patches by their size (Pixtral, in Mistral 3) does not see how large pixel values are, only
    their pattern: there gradient × input of pixels is 0 but for rounding.

    One forward and one backward pass of everything. Gradients are noisy from token to token; see `SmoothGrad`.

    Args:
        of: "pixels" or "embeddings". In Qwen3-VL, features that are added after the first layers are not among the
            embeddings.
        times_input: the gradient times the input.

    Raises:
        MapError: arguments of another kind.

    Source: Simonyan et al. (arXiv 1312.6034); gradient × input: Shrikumar et al. (arXiv 1605.01713).
    """

    of: Inputs = "pixels"
    times_input: bool = False

    def __post_init__(self) -> None:
        check_one_of("of", self.of, INPUTS)
        check_bool("times_input", self.times_input)

    def __call__(
        self,
        mllm: Mllm,
        samples: Sample | Iterable[Sample] | Batch | Prefix,
        *,
        prompt: Prompt = PAPER_PROMPT,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
    ) -> Maps:
        """The maps (token) of these samples, run as one batch.

        Raises:
            InterpError: samples or prompts that cannot be encoded, pixel values of an unknown kind, or an answer of
                several tokens for a model whose prompt rows would see it.
        """
        with Meter(mllm.device) as meter:
            function = input_function(mllm, samples, target, prompt, meter, of=self.of, fixed=False)
            gradient = function.gradient(function.start)
            values = per_token(function, gradient, self.times_input)
        name = "gradient × input" if self.times_input else "gradient"
        tokens = function.batch.tokens
        maps = tuple(labelled(one, own, name) for one, own in zip(values, tokens, strict=True))
        return Maps(maps, tokens, meter.cost)

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values, part of a study's hash."""
        return {"indicator": "input gradient", "of": self.of, "times_input": self.times_input}
