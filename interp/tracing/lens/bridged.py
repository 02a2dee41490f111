"""A model and its TransformerLens bridge: what the logit lens, components and attribution work on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError
from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.tracing.encoding.batch import Batch
from interp.tracing.layers.visibility import settle
from interp.tracing.lens.activation_cache import LensCache, check_hooks
from interp.tracing.prefix import Prefix
from interp.tracing.site import Site
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["BridgedModel", "Readout", "Samples", "encoded", "frozen", "frozen_by", "no_rms_norm"]

LARGE = 1e3  # an RMS norm of a large constant gives its gain: its epsilon no longer counts


def frozen(norm: Any, x: Float[Tensor, "*place hidden"]) -> Float[Tensor, "*place hidden"]:
    """What an RMS norm multiplies `x` by, value by value: gain / RMS(x). With it frozen, the norm is linear.

    Args:
        norm: the bridge's norm.
        x: what enters it.

    Raises:
        ModelError: A norm that also subtracts the mean.
    """
    if not norm.uses_rms_norm:
        raise no_rms_norm(norm.original_component)
    return frozen_by(norm.original_component, x)


def no_rms_norm(module: Any) -> ModelError:
    """What is said of a norm that cannot be frozen."""
    return ModelError(
        f"{type(module).__name__} is no RMS norm, and only those can be frozen here. Use a logit lens, which takes any "
        "norm."
    )


def frozen_by(module: Any, x: Float[Tensor, "*place hidden"]) -> Float[Tensor, "*place hidden"]:
    """The same for a module that is known to be an RMS norm, or a view of one."""
    gain = module(torch.full_like(x, LARGE)).float()
    plain, given = gain * x.float(), module(x).float()
    scale = (given * plain).sum(-1, keepdim=True) / (plain * plain).sum(-1, keepdim=True)
    return gain * scale


@dataclass(frozen=True, eq=False)
class Readout:
    """The last steps of a model. None of the supported families caps its logits.

    Attributes:
        norm: the bridge's final norm.
        head: the transformers module that gives logits.
    """

    norm: Any
    head: Any

    @classmethod
    def of(cls, bridge: Any) -> Readout:
        """The bridge's."""
        return cls(bridge.ln_final, bridge.unembed.original_component)

    def logits(self, residual: Float[Tensor, "place hidden"]) -> Float[Tensor, "place token_id"]:
        """The logits that a residual stream would give if no layer followed."""
        return self.head(self.norm.original_component(residual)).float()


Samples = Sample | Iterable[Sample] | Batch


@dataclass(frozen=True, eq=False)
class BridgedModel:
    """A TransformerLens bridge and the model it was made from.

    Attributes:
        bridge: TransformerLens's `TransformerBridge`, for anything it can do; it has no tokenizer.
        mllm: the model, which encodes.
    """

    bridge: Any
    mllm: WrappedModel

    def __repr__(self) -> str:
        kind, model = type(self).__name__, self.mllm
        return f"{kind}({type(model.hf).__name__}, {model.n_layers} layers, {model.n_heads} heads)"

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
        batch = self.encode(samples, prompt)
        names = {f"blocks.{layer}.{hook}" for layer in chosen for hook in kept}
        inputs = {name: value for name, value in batch.inputs.items() if name != "input_ids"}
        settle(self.mllm.hf, {**batch.inputs, "position_ids": batch.positions})
        inputs |= {"position_ids": batch.positions, "use_cache": False, "logits_to_keep": 1}
        with torch.no_grad():
            logits, found = self.bridge.run_with_cache(
                batch.inputs["input_ids"], names_filter=names.__contains__, **inputs
            )
        last = logits[:, -1].float().cpu().numpy()
        cache = LensCache(found, batch, kept, chosen)
        return xr.DataArray(last, dims=["sample", "token_id"], name="logits"), cache

    def encode(self, samples: Samples, prompt: Prompt | None = None) -> Batch:
        """The samples as a batch; a batch under another prompt keeps its images.

        Raises:
            ModelError: A prefix, or the model was unwrapped.
            SampleError, PromptError, ImageTokenMismatch: As in `Mllm.encode`.
        """
        return encoded(self.mllm, samples, prompt)


def encoded(mllm: WrappedModel, samples: Samples, prompt: Prompt | None) -> Batch:
    """The samples as a batch, as `BridgedModel.encode` gives it."""
    mllm.installation.check()
    if isinstance(samples, Prefix):
        raise ModelError("a lens runs whole prompts; got a prefix. Give samples or a batch.")
    if not isinstance(samples, Batch):
        return mllm.encode(samples, PAPER_PROMPT if prompt is None else prompt)
    if prompt is None or prompt == samples.prompt:
        return samples
    return mllm.encoder.again(samples, prompt)
