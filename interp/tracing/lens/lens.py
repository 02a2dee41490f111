"""A model seen through TransformerLens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import xarray as xr

from interp.errors import ModelError
from interp.inputs.prompt import Prompt, Target
from interp.tracing.lens.attribution import PARTS, Attribution, attribution, components
from interp.tracing.lens.bridge import BridgedModel, Samples, build_bridge
from interp.tracing.lens.logit_lens import LogitLens, logit_lens
from interp.tracing.site import Selector
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["Lens", "make_lens"]


class Lens(BridgedModel):
    """A TransformerLens bridge on a second instance of a model, on the same weights. Made by `mllm.to_lens()`.

    The language model attends eagerly, so memory grows with the square of the prompt; the vision tower attends
    as in the model. Gradients are off. Its attributes are those of `BridgedModel`: `bridge` and `mllm`.
    """

    def logit_lens(
        self,
        samples: Samples,
        words: Sequence[str] = (),
        *,
        prompt: Prompt | None = None,
        positions: Selector | Sequence[Selector] = "image",
        top: int = 5,
    ) -> LogitLens:
        """What the final norm and the unembedding make of the stream after each layer.

        Args:
            samples: samples or an encoded batch.
            words: words to follow; each must be one token in one of its spellings, whose probabilities add up.
            prompt: how the question is put; by default `PAPER_PROMPT`, or that of the batch.
            positions: which tokens: a group such as "image" or "last", or `interp.positions([…])`.
            top: how many of the likeliest tokens to keep at each place.

        Raises:
            PromptError: A word that no single token spells, or `top` out of range.
            SiteError: Positions that are not there.
        """
        hooks = ("hook_resid_pre", "hook_resid_post")
        logits, cache = self.run_with_cache(samples, prompt, hooks=hooks)
        return logit_lens(self, logits, cache, words, positions, top)

    def components(
        self,
        samples: Samples,
        *,
        prompt: Prompt | None = None,
        positions: Selector | Sequence[Selector] = "last",
    ) -> list[xr.DataArray]:
        """The residual stream before the final norm as a sum, per sample: (component, position, hidden), float32.

        "kind" of a component: "embedding" (what enters the first layer; an image token's features), "head", "attention
        bias", "mlp", or "added" (what a family adds between two layers: Qwen3-VL, image tokens). Coordinates "layer"
        and "head" are −1 where a component has none. Gemma's norms after attention and MLP count with frozen scales.

        Raises:
            SiteError: Positions that are not there.
        """
        return components(self, self.run_with_cache(samples, prompt, hooks=PARTS)[1], positions)

    def attribution(
        self,
        samples: Samples,
        target: Target = Target("greedy"),  # noqa: B008 - frozen
        *,
        prompt: Prompt | None = None,
        relative_to: Literal["zero", "mean"] = "zero",
    ) -> Attribution:
        """Each component's direct effect on the logit of the answer's first token, the final norm's scale frozen.

        Direct: through the stream to the unembedding, by no later layer. The parts add up to the logit (or the
        difference of two logits).

        Args:
            samples: samples or an encoded batch.
            target: whose first token is meant: "greedy", an answer, or a difference of two.
            prompt: how the question is put; by default `PAPER_PROMPT`, or that of the batch.
            relative_to: "mean" takes the mean logit of the vocabulary off, which every token's logit shares and the
                answer does not depend on; "zero" does not.

        Raises:
            PromptError: A target without tokens, two answers with the same first token, or an unknown `relative_to`.
            ModelError: A final norm that is no RMS norm, or parts that do not add up to the model's logits.
        """
        return attribution(self, self.encode(samples, prompt), target, relative_to)


def make_lens(mllm: WrappedModel) -> Lens:
    """The model through TransformerLens; see `Mllm.to_lens`."""
    mllm.installation.check()
    if mllm.linear_heads:
        raise ModelError(
            f"the lens has a pattern of attention for a layer; {list(mllm.linear_heads)} of this "
            f"{mllm.family} are gated DeltaNets or convolutions and have none. Use mllm.trace, which reads the others."
        )
    return Lens(build_bridge(mllm.hf, mllm.family), mllm)
