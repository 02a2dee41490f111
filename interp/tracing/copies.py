"""Copies of a model: a second instance on the same weights, and one with shuffled weights."""

from __future__ import annotations

import copy
import hashlib
import math
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from interp.errors import ModelError
from interp.models.repairs import repair_results
from interp.tracing.executors.hooks import Installation
from interp.tracing.parameters.weights import refuse_offloaded
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["randomised", "second_instance"]

Model = TypeVar("Model", bound=WrappedModel)


def second_instance(hf: Any, attention: str) -> Any:
    """A model of the same class, in evaluation mode, whose language model attends through `attention`.

    Its vision tower uses the original's attention. No weight is copied: parameters and buffers, persistent or not, lie
    in the original's storage and are tied where the original's are. They are still tensors of their own: a gradient, a
    `requires_grad` or a replaced tensor of one model does not affect the other. Writing into a weight in place changes
    both.

    Args:
        hf: The transformers model, wrapped or not; its config is copied.
        attention: The name of an attention implementation, such as "eager".

    Raises:
        ModelError: Tensors that the model's config does not describe, as of adapters that were not merged.
    """
    refuse_offloaded(hf, "a second instance of the model")
    config = copy.deepcopy(hf.config)
    with torch.device("meta"):
        made = type(hf)._from_config(
            config, dtype=hf.dtype, attn_implementation={_text_key(config): attention}
        )
    if odd := {name for name, _ in made.named_parameters()} - {name for name, _ in hf.named_parameters()}:
        raise ModelError(_unlike(hf, odd))
    originals, twins = dict(hf.named_modules()), {}
    for name, module in made.named_modules():
        original = originals[name]
        for kind in ("_parameters", "_buffers"):
            own = getattr(original, kind)
            getattr(module, kind).update({key: _same(own[key], twins) for key in getattr(module, kind)})
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and value.is_meta:
                setattr(module, key, _same(vars(original)[key], twins))
    if odd := set(hf.state_dict()) - set(made.state_dict()):
        raise ModelError(_unlike(hf, odd))
    made.generation_config = copy.deepcopy(hf.generation_config)
    repair_results(made)
    return made.eval()


def _same(tensor: Tensor | None, twins: dict[int, Tensor]) -> Tensor | None:
    """A new tensor in the same storage; the same new tensor for each use of a tensor."""
    if tensor is None:
        return None
    if id(tensor) not in twins:
        alias = tensor.detach()
        if isinstance(tensor, nn.Parameter):
            alias = nn.Parameter(alias, requires_grad=tensor.requires_grad)
        twins[id(tensor)] = alias
    return twins[id(tensor)]


def _unlike(hf: Any, names: set[str]) -> str:
    return (
        f"this {type(hf).__name__} is not built as its config says: {', '.join(sorted(names)[:4])}. Was it changed, or "
        "given adapters? Merge them, and wrap the model that transformers would load."
    )


def _text_key(config: Any) -> str:
    """The name under which a config holds its language model's config; "" when it is that config itself."""
    text = config.get_text_config(decoder=True)
    return next((key for key in config.sub_configs if getattr(config, key) is text), "")


def randomised(mllm: Model, share: float = 1.0, *, everything: bool = False, seed: int = 0) -> Model:
    """A copy whose weights are shuffled within each tensor, from the top of the language model downwards.

    Each weight tensor keeps its values, and so its scale, in an order that the seed and the tensor's name determine.
    What was learned is gone, while activations stay about as large as they were. The ⌈share · L⌉ uppermost decoder
    layers are shuffled, and the output head unless it is tied to the input embeddings; the final norm stays. With
    `everything`, every weight of the model is shuffled, vision tower and embeddings included.

    The model itself is not touched. The copy takes the memory of a second model.

    Args:
        mllm: The model.
        share: The share of the decoder layers to shuffle, in [0, 1]; 0 shuffles nothing and gives an equal copy.
        everything: Whether to shuffle every weight; `share` is then ignored.
        seed: The seed of the order.

    Raises:
        ModelError: A share outside [0, 1].

    Source: Adebayo et al. 2018, cascading randomisation (arXiv 1810.03292), which draws new weights instead.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ModelError(f"share is a number in [0, 1], of the decoder layers from the top; got {share!r}.")
    made = _copied(mllm)
    for name, weight in _chosen(made, share, everything):
        digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
        with torch.no_grad():
            weight.copy_(weight.reshape(-1)[order].reshape(weight.shape))
    return made


def _copied(mllm: Model) -> Model:
    """A second model with the same weights in tensors of its own."""
    mllm.installation.need_weights()
    hf = mllm.hf
    refuse_offloaded(hf, "shuffling")
    config = copy.deepcopy(hf.config)
    with torch.random.fork_rng():
        own = {_text_key(config): mllm.installation.implementation}
        fresh: Any = type(hf)._from_config(config, attn_implementation=own, dtype=hf.dtype)
    fresh.load_state_dict(hf.state_dict())
    processor = copy.deepcopy(mllm.processor)
    made = Installation(fresh.to(hf.device), processor, mllm.adapter.layers(fresh))
    made.processed = mllm.installation.processed
    return replace(mllm, hf=fresh, processor=processor, installation=made, prefixes=None)


def _chosen(mllm: WrappedModel, share: float, everything: bool) -> list[tuple[str, torch.nn.Parameter]]:
    named = list(mllm.hf.named_parameters())
    if everything:
        return named
    layers = mllm.adapter.layers(mllm.hf)
    n_kept = len(layers) - math.ceil(share * len(layers))
    wanted = {id(weight) for layer in layers[n_kept:] for weight in layer.parameters()}
    head, inputs = mllm.hf.get_output_embeddings(), mllm.hf.get_input_embeddings()
    if share > 0 and head is not None and head.weight is not inputs.weight:
        wanted |= {id(weight) for weight in head.parameters()}
    return [(name, weight) for name, weight in named if id(weight) in wanted]
