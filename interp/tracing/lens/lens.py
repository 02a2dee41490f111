"""A model seen through TransformerLens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import xarray as xr

from interp.errors import ModelError
from interp.inputs.prompt import PAPER_PROMPT, Prompt, Target
from interp.inputs.sample import Sample
from interp.tracing.encode import Batch
from interp.tracing.lens.attribution import Attribution, attribution
from interp.tracing.lens.bridge import build_bridge
from interp.tracing.lens.cache import LensCache, check_hooks
from interp.tracing.lens.components import PARTS, components
from interp.tracing.lens.logit_lens import LogitLens, logit_lens
from interp.tracing.lens.readout import Readout
from interp.tracing.prefix import Prefix
from interp.tracing.site import Selector, Site

if TYPE_CHECKING:
    from interp.tracing.model import Mllm

__all__ = ["Lens", "make_lens"]

Samples = Sample | Iterable[Sample] | Batch


@dataclass(frozen=True, eq=False)
class Lens:
    """A TransformerLens bridge on a second instance of a model, on the same weights. Made by `mllm.to_lens()`.

    The language model attends eagerly, so memory grows with the square of the prompt; the vision tower attends
    as in the model. Gradients are off.

    Attributes:
        bridge: TransformerLens's `TransformerBridge`, for anything it can do; it has no tokenizer.
        mllm: the model it was made from, which encodes.
    """

    bridge: Any
    mllm: Mllm

    def __repr__(self) -> str:
        return f"Lens({type(self.mllm.hf).__name__}, {self.mllm.n_layers} layers, {self.mllm.n_heads} heads)"

    @property
    def readout(self) -> Readout:
        """The model's last steps: final norm and unembedding."""
        return Readout.of(self.bridge)

    def run_with_cache(
        self,
        samples: Samples,
        prompt: Prompt | None = None,
        *,
        hooks: Sequence[str] = ("attn.hook_pattern", "hook_resid_post"),
        layers: Literal["all"] | Sequence[int] = "all",
    ) -> tuple[xr.DataArray, LensCache]:
        """Logits after the last prompt token, (sample, token_id), and what the layers' hooks saw.

        A sample's results do not depend on the rest of its batch.

        Args:
            samples: samples or an encoded batch.
            prompt: how the question is put; by default `PAPER_PROMPT`, or that of the batch.
            hooks: which of each layer's activations to keep: names of `HOOKS`, such as "attn.hook_pattern".
            layers: of which layers.

        Raises:
            SiteError: Hooks or layers that are not there.
            ModelError: A prefix: the lens runs whole prompts.
            SampleError, PromptError, ImageTokenMismatch: as in `Mllm.encode`.
        """
        kept = check_hooks(hooks)
        chosen = tuple(Site(layers=layers).resolve(self.mllm.n_layers, self.mllm.n_heads))
        batch = self._encoded(samples, prompt)
        names = {f"blocks.{layer}.{hook}" for layer in chosen for hook in kept}
        inputs = {name: value for name, value in batch.inputs.items() if name != "input_ids"}
        inputs |= {"position_ids": batch.positions, "use_cache": False, "logits_to_keep": 1}
        with torch.no_grad():
            logits, found = self.bridge.run_with_cache(
                batch.inputs["input_ids"], names_filter=names.__contains__, **inputs
            )
        last = logits[:, -1].float().cpu().numpy()
        cache = LensCache(found, batch, kept, chosen)
        return xr.DataArray(last, dims=["sample", "token_id"], name="logits"), cache

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
        return attribution(self, self._encoded(samples, prompt), target, relative_to)

    def _encoded(self, samples: Samples, prompt: Prompt | None) -> Batch:
        self.mllm.installation.check()
        if isinstance(samples, Prefix):
            raise ModelError("a lens runs whole prompts; got a prefix. Give samples or a batch.")
        if not isinstance(samples, Batch):
            return self.mllm.encode(samples, PAPER_PROMPT if prompt is None else prompt)
        if prompt is None or prompt == samples.prompt:
            return samples
        return self.mllm.encoder.again(samples, prompt)


def make_lens(mllm: Mllm) -> Lens:
    """The model through TransformerLens; see `Mllm.to_lens`."""
    mllm.installation.check()
    return Lens(build_bridge(mllm.hf, mllm.family), mllm)
