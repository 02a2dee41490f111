"""A second model of the same class on the same weights, so that whatever is done to it leaves the first alone."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import ModelError

__all__ = ["second_instance"]


def second_instance(hf: Any, attention: str) -> Any:
    """A model of the same class, in evaluation mode, whose language model attends through `attention`.

    Its vision tower attends as the original's. No weight is copied: parameters and buffers, persistent or not,
    lie in the original's storage, tied where the original's are. They are tensors of their own all the same: a
    gradient, a `requires_grad` or a replaced tensor of one model is not the other's. Writing into a weight in
    place changes both.

    Args:
        hf: the transformers model, wrapped or not; its config is copied.
        attention: the name of an attention implementation.

    Raises:
        ModelError: Tensors that the model's config does not describe, as of adapters that were not merged.
    """
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
    return made.eval()


def _same(tensor: Tensor | None, twins: dict[int, Tensor]) -> Tensor | None:
    """Another tensor in the same storage; the same one for the same tensor."""
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
    """Under which name the config holds its language model's config; "" when it is that config."""
    text = config.get_text_config(decoder=True)
    return next((key for key in config.sub_configs if getattr(config, key) is text), "")
