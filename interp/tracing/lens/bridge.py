"""A model and its TransformerLens bridge: how it is made, what it runs, and what it cached, labelled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError, SiteError
from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing.copies import second_instance
from interp.tracing.encoding.batch import Batch
from interp.tracing.layers.rope import settle
from interp.tracing.prefix import Prefix
from interp.tracing.site import Selector, Site, select
from interp.tracing.wrapped_model import WrappedModel

__all__ = [
    "HOOKS",
    "HYBRID",
    "SUPPORTED",
    "UNEVEN",
    "UNSUPPORTED",
    "BridgedModel",
    "LensCache",
    "Readout",
    "SampleCache",
    "SampleReadings",
    "Samples",
    "build_bridge",
    "check_hooks",
    "encoded",
    "frozen",
    "frozen_by",
    "no_rms_norm",
    "places",
]


SUPPORTED: Mapping[str, str] = {
    "gemma3": "Gemma3ForConditionalGeneration",
    "glm4v": "Glm4vForConditionalGeneration",
    "idefics3": "Idefics3ForConditionalGeneration",
    "llama4": "Llama4ForConditionalGeneration",
    "llava": "LlavaForConditionalGeneration",
    "llava_next": "LlavaNextForConditionalGeneration",
    "llava_onevision": "LlavaOnevisionForConditionalGeneration",
    "mistral3": "Mistral3ForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
    "vila": "LlavaForConditionalGeneration",
}
"""Family → the class whose adapter TransformerLens 4.3 uses for it. Tests hold patterns and logits equal to those of a
trace. Our VILA is built from LLaVA's class."""

UNSUPPORTED: Mapping[str, str] = {
    "aria": "AriaForConditionalGeneration",
    "aya_vision": "AyaVisionForConditionalGeneration",
    "blip-2": "Blip2ForConditionalGeneration",
    "cohere2_vision": "Cohere2VisionForConditionalGeneration",
    "deepseek_vl": "DeepseekVLForConditionalGeneration",
    "deepseek_vl_hybrid": "DeepseekVLHybridForConditionalGeneration",
    "fast_vlm": "FastVlmForConditionalGeneration",
    "glm46v": "Glm46VForConditionalGeneration",
    "glm4v_moe": "Glm4vMoeForConditionalGeneration",
    "got_ocr2": "GotOcr2ForConditionalGeneration",
    "idefics2": "Idefics2ForConditionalGeneration",
    "instructblip": "InstructBlipForConditionalGeneration",
    "internvl": "InternVLForConditionalGeneration",
    "kimi_k25": "Kimi_K25ForConditionalGeneration",
    "lighton_ocr": "LightOnOcrForConditionalGeneration",
    "llava_next_video": "LlavaNextVideoForConditionalGeneration",
    "mllama": "MllamaForConditionalGeneration",
    "molmo2": "Molmo2ForConditionalGeneration",
    "ovis2": "Ovis2ForConditionalGeneration",
    "paligemma": "PaliGemmaForConditionalGeneration",
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "smolvlm": "SmolVLMForConditionalGeneration",
    "vipllava": "VipLlavaForConditionalGeneration",
}
"""Families of `interp` that TransformerLens 4.3 has no adapter for: `to_lens` refuses them."""


HYBRID = ("lfm2_vl", "minicpmv4_6", "qwen3_5", "qwen3_5_moe")
"""Families in which some layers have no attention pattern: `to_lens` refuses them, also where TransformerLens has an
adapter."""

UNEVEN = {
    "gemma3n": "which have four residual streams, not one",
    "gemma4": "whose heads differ in size",
    "gemma4_unified": "whose heads differ in size",
}
"""Family whose layers' values a lens cannot stack in one cache → the reason: `to_lens` refuses them."""

VISION = ("vision_encoder", "vision_projector")
"""TransformerLens' names of the parts that the bridge leaves out where the model's own differ."""


def build_bridge(hf: Any, family: str, change: Callable[[Any], None] | None = None) -> Any:
    """The bridge on a second instance of a model that shares its weights; the model itself is not touched.

    The bridge is built from TransformerLens's parts and not booted, because booting asks the hub for a processor and
    installs torchvision where that fails. The bridge has no tokenizer. Adapters that require torchvision are built
    without it: they need it to load images themselves, and here batches come encoded.

    Args:
        hf: The transformers model.
        family: The model's family.
        change: A function that changes the second instance in place before the bridge is made.

    Raises:
        ModelError: Transformer-lens is not installed, has no adapter for the model, or cannot wrap it.
    """
    try:
        from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
        from transformer_lens.model_bridge import TransformerBridge
        from transformer_lens.model_bridge.sources import build_bridge_config_from_hf
    except ImportError as error:
        raise ModelError(
            f'to_lens needs TransformerLens ({error}). Install it: pip install "interp[lens]".'
        ) from error
    kind = _kind(hf, family, SUPPORTED_ARCHITECTURES)
    second = second_instance(hf, "eager")
    if change is not None:
        change(second)
    known = SUPPORTED_ARCHITECTURES[kind]
    bare: Any = type(known.__name__, (known,), {"required_libraries": []})
    adapter = bare(build_bridge_config_from_hf(second.config, kind, family, hf.dtype))
    adapter.cfg.device = str(hf.device)
    parts, own = adapter.component_mapping.items(), kind == type(hf).__name__
    adapter.component_mapping = {k: v for k, v in parts if k not in VISION or (own and _fits(v, second))}
    adapter.prepare_model(second)
    return TransformerBridge(second, adapter, None).eval()


def _fits(part: Any, around: Any) -> bool:
    """Whether a module has every submodule that a part of the bridge expects.

    TransformerLens' adapters know one or two towers of a class; a LLaVA may have any (DINOv2, ViT, Pixtral).

    Args:
        part: The part of the bridge, whose `name` is a path.
        around: The module that the path starts from.
    """
    found = around
    for name in (part.name or "").split("."):
        if name == "vision_model" and not hasattr(found, name):
            continue  # CLIP's tower lost this level in transformers 5.6; TransformerLens steps over it too
        if name and getattr(part, "optional", False) and not hasattr(found, name):
            return True
        found = getattr(found, name, None) if name else found
    if found is None:
        return False
    inner = found[0] if getattr(part, "is_list_item", False) and len(found) else found
    return all(_fits(one, inner) for one in part.submodules.values())


def _kind(hf: Any, family: str, known: Mapping[str, Any]) -> str:
    """The model's class, or its nearest base class, for which TransformerLens has an adapter."""
    if family in UNEVEN:
        raise ModelError(
            f"to_lens cannot stack the values of {family}'s layers, {UNEVEN[family]}. Use mllm.trace or mllm.tap, "
            "which read and edit every family."
        )
    found = next((kind.__name__ for kind in type(hf).__mro__ if kind.__name__ in known), None)
    if found is None:
        raise ModelError(
            f"TransformerLens has no adapter for {type(hf).__name__} (family {family}). It has one for these families "
            f"of interp: {', '.join(SUPPORTED)}. Use mllm.trace or mllm.tap, which read and edit every family."
        )
    devices = set((getattr(hf, "hf_device_map", None) or {}).values())
    if len(devices) > 1:
        raise ModelError(
            f"to_lens takes a model on one device; this one is on {len(devices)}. Load it with device= one of them."
        )
    return found


HOOKS: Mapping[str, tuple[str, ...]] = {
    "attn.hook_pattern": ("head", "query", "key"),
    "attn.hook_z": ("position", "head", "dim"),
    "hook_resid_pre": ("position", "hidden"),
    "hook_resid_mid": ("position", "hidden"),
    "hook_resid_post": ("position", "hidden"),
    "hook_attn_out": ("position", "hidden"),
    "hook_mlp_out": ("position", "hidden"),
}
"""Hook of a block → the dimensions of its activation for one sample. `hook_attn_out` and `hook_mlp_out` are what is
added to the stream, after the norms that Gemma has there."""

PLACES = ("query", "key", "position")


@dataclass(frozen=True, eq=False)
class SampleCache(Mapping):
    """One sample's activations: `sample["attn.hook_pattern"]` is (layer, head, query, key), float32.

    Attributes:
        activations: TransformerLens's `ActivationCache` of the whole batch.
        hooks: The hooks that were kept in each layer.
        layers: The decoder layers that were kept, 0-based.
        tokens: Where the sample's tokens are.
        place: The index of the sample in the batch.
        pad: The number of padding tokens before the sample's prompt.
    """

    activations: Any
    hooks: tuple[str, ...]
    layers: tuple[int, ...]
    tokens: TokenMap
    place: int
    pad: int

    def __getitem__(self, hook: str) -> xr.DataArray:
        """Every kept layer's activations at a hook of `HOOKS`; "query", "key" and "position" are unpadded.

        Raises:
            SiteError: A hook that the cache does not hold.
        """
        if hook not in self.hooks:
            raise SiteError(
                f"the cache keeps {', '.join(self.hooks)}; got {hook!r}. Ask for it: run_with_cache(…, hooks=[…])."
            )
        dims = HOOKS[hook]
        own = tuple(slice(self.pad, None) if dim in PLACES else slice(None) for dim in dims)
        found = [self.activations[f"blocks.{layer}.{hook}"][self.place][own] for layer in self.layers]
        values = torch.stack(found).float().cpu().numpy()
        coords: dict[str, Any] = {"layer": list(self.layers)}
        coords |= {dim: np.arange(self.tokens.length) for dim in dims if dim in PLACES}
        coords |= {dim: np.arange(values.shape[1 + dims.index(dim)]) for dim in dims if dim == "head"}
        return xr.DataArray(values, dims=("layer", *dims), coords=coords, name=hook)

    def __iter__(self) -> Iterator[str]:
        return iter(self.hooks)

    def __len__(self) -> int:
        return len(self.hooks)


@dataclass(frozen=True, eq=False)
class LensCache(Sequence):
    """The activations that a run kept. `cache[i]` holds those of sample i, labelled.

    Attributes:
        activations: TransformerLens's own `ActivationCache`: "blocks.0.attn.hook_pattern" → the padded tensor.
        batch: The encoded samples.
        hooks: The hooks that were kept in each layer.
        layers: The decoder layers that were kept, 0-based.
    """

    activations: Any
    batch: Batch
    hooks: tuple[str, ...]
    layers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.batch)

    def __getitem__(self, index: Any) -> Any:
        place = range(len(self))[index]
        tokens, pad = self.batch.tokens[place], int(self.batch.pad[place])
        return SampleCache(self.activations, self.hooks, self.layers, tokens, place, pad)


def check_hooks(hooks: Sequence[str]) -> tuple[str, ...]:
    """The hooks, without repeats.

    Raises:
        SiteError: No hook, or one whose dimensions have no labels.
    """
    found = (hooks,) if isinstance(hooks, str) else tuple(dict.fromkeys(hooks))
    unknown = [hook for hook in found if hook not in HOOKS]
    if unknown or not found:
        raise SiteError(
            f"hooks= is a list of hooks of a block, of {', '.join(HOOKS)}; got {unknown or 'none'}. For other hooks "
            "call lens.bridge.run_with_cache(ids, **others), with ids=batch.inputs['input_ids'] and the other inputs "
            "of the batch."
        )
    return found


LARGE = 1e3  # an RMS norm of a large constant gives its gain: its epsilon no longer counts


def frozen(norm: Any, x: Float[Tensor, "*place hidden"]) -> Float[Tensor, "*place hidden"]:
    """The factor of an RMS norm at `x`, value by value: gain / RMS(x). With this factor frozen, the norm is linear.

    Args:
        norm: The bridge's norm.
        x: The input of the norm.

    Raises:
        ModelError: A norm that also subtracts the mean.
    """
    if not norm.uses_rms_norm:
        raise no_rms_norm(norm.original_component)
    return frozen_by(norm.original_component, x)


def no_rms_norm(module: Any) -> ModelError:
    """The error for a norm that cannot be frozen."""
    return ModelError(
        f"{type(module).__name__} is not an RMS norm, and only RMS norms can be frozen. Use a logit lens, which takes "
        "any norm."
    )


def frozen_by(module: Any, x: Float[Tensor, "*place hidden"]) -> Float[Tensor, "*place hidden"]:
    """The factor of a module that is known to be an RMS norm, or a view of one, at `x`; see `frozen`."""
    gain = module(torch.full_like(x, LARGE)).float()
    plain, given = gain * x.float(), module(x).float()
    scale = (given * plain).sum(-1, keepdim=True) / (plain * plain).sum(-1, keepdim=True)
    return gain * scale


@dataclass(frozen=True, eq=False)
class Readout:
    """The final norm and the output layer of a model. None of the supported families caps its logits.

    Attributes:
        norm: The bridge's final norm.
        head: The transformers module that gives logits.
    """

    norm: Any
    head: Any

    def logits(self, residual: Float[Tensor, "place hidden"]) -> Float[Tensor, "place token_id"]:
        """The logits, float32, that a residual stream would give if no layer followed."""
        return self.head(self.norm.original_component(residual)).float()


@dataclass(frozen=True, eq=False)
class SampleReadings(Sequence):
    """What was read from some samples; `found[i]` is the Dataset of sample i.

    Attributes:
        samples: One Dataset per sample.
        tokens: Where each sample's tokens are.
        logits: (sample, token_id), the logits after the last prompt token.
    """

    samples: tuple[xr.Dataset, ...]
    tokens: tuple[TokenMap, ...]
    logits: xr.DataArray

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:
        return self.samples[index]


Samples = Sample | Iterable[Sample] | Batch


@dataclass(frozen=True, eq=False)
class BridgedModel:
    """A TransformerLens bridge and the model it was made from.

    Attributes:
        bridge: TransformerLens's `TransformerBridge`, with all of its own methods; it has no tokenizer.
        mllm: The model, which encodes samples.
    """

    bridge: Any
    mllm: WrappedModel

    def __repr__(self) -> str:
        kind, model = type(self).__name__, self.mllm
        return f"{kind}({type(model.hf).__name__}, {model.n_layers} layers, {model.n_heads} heads)"

    @property
    def readout(self) -> Readout:
        """The model's final norm and unembedding."""
        return Readout(self.bridge.ln_final, self.bridge.unembed.original_component)

    def run_with_cache(
        self,
        samples: Samples,
        prompt: Prompt | None = None,
        *,
        hooks: Sequence[str] = ("attn.hook_pattern", "hook_resid_post"),
        layers: Literal["all"] | Sequence[int] = "all",
    ) -> tuple[xr.DataArray, LensCache]:
        """Logits after the last prompt token, (sample, token_id) float32, and the activations at the layers' hooks.

        A sample's results do not depend on the rest of its batch.

        Args:
            samples: Samples or an encoded batch.
            prompt: The prompt; by default that of the batch, or `PAPER_PROMPT`.
            hooks: The activations to keep in each layer: names of `HOOKS`, such as "attn.hook_pattern".
            layers: The layers to keep activations of, 0-based, or "all".

        Raises:
            SiteError: Hooks or layers that do not exist.
            ModelError: A prefix, since the lens runs whole prompts.
            SampleError, PromptError, ImageTokenMismatch: As in `Mllm.encode`.
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
        """The samples as a batch. A batch that gets another prompt keeps its processed images.

        Raises:
            ModelError: A prefix, or a model that was unwrapped.
            SampleError, PromptError, ImageTokenMismatch: As in `Mllm.encode`.
        """
        return encoded(self.mllm, samples, prompt)


def encoded(mllm: WrappedModel, samples: Samples, prompt: Prompt | None) -> Batch:
    """The samples as a batch; see `BridgedModel.encode`."""
    mllm.installation.check()
    if isinstance(samples, Prefix):
        raise ModelError("a lens runs whole prompts; got a prefix. Give samples or a batch.")
    if not isinstance(samples, Batch):
        return mllm.encode(samples, PAPER_PROMPT if prompt is None else prompt)
    if prompt is None or prompt == samples.prompt:
        return samples
    return mllm.encoder.again(samples, prompt)


def places(batch: Batch, positions: Selector | Sequence[Selector]) -> list[np.ndarray]:
    """Each sample's unpadded positions.

    Raises:
        SiteError: Positions that a sample does not have.
    """
    selectors, _ = Site(queries=positions).groups
    tokens = batch.tokens
    found = [select(selectors, own, i, len(tokens)) for i, own in enumerate(tokens)]
    empty = [i for i, own in enumerate(found) if not len(own)]
    if empty:
        raise SiteError(
            f"samples {empty} of the batch have no tokens at positions={positions!r}. Name other positions."
        )
    return found
