"""transformers' attention functions under names of our own, which call them and tap armed modules.

transformers derives much from an implementation's name: which masks are made, whether "flash" takes part, which
kernels are loaded. Our names keep what is derived, and the original functions are called under their own names.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    AttentionMaskInterface,
    eager_mask,
    flash_attention_mask,
    flex_attention_mask,
    sdpa_mask,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from interp.errors import ModelError
from interp.tracing.attention.call import AttentionFunction, Call, Work

__all__ = ["registered", "set_work", "takes_masks"]

_WORK = "_interp_work"
_FUNCTIONS = (
    "sdpa",
    "eager",
    "flash_attention_2",
    "flash_attention_3",
    "flash_attention_4",
    "flex_attention",
)
_MASKS = (sdpa_mask, eager_mask, flash_attention_mask, flex_attention_mask)
"""The mask functions whose masks can be read."""


def set_work(module: nn.Module, work: Work | None) -> None:
    """Arms an attention module with work, or disarms it. Work is kept off the module tree."""
    if work is None:
        module.__dict__.pop(_WORK, None)
    else:
        module.__dict__[_WORK] = work


def registered(implementation: str) -> str:
    """The registered name that does as `implementation` does and taps where armed; registers it when new.

    Kernels from the hub that are loaded already, such as "kernels-community/flash-attn2", are implementations too.

    Raises:
        ModelError: An attention implementation whose masks cannot be read.
    """
    masks = ALL_MASK_ATTENTION_FUNCTIONS.get(implementation)
    known = implementation == "eager" or implementation in ALL_ATTENTION_FUNCTIONS
    if not known or masks is None or masks not in _MASKS or implementation.startswith("interp_"):
        raise ModelError(
            f"the model's attention implementation is {implementation!r}; interp taps "
            f"{', '.join(_FUNCTIONS)}. Load the model with one of these, such as attn_implementation='sdpa'."
        )
    name = f"interp_{implementation.replace('/', '_')}"  # a name with "/" would be looked for on the hub
    if name not in ALL_ATTENTION_FUNCTIONS.valid_keys():
        AttentionMaskInterface.register(name, masks)
        AttentionInterface.register(name, _tapped(implementation))
    return name


def takes_masks(implementation: str) -> bool:
    """Whether the implementation takes (sample, head, query, key) masks, bool or additive."""
    return ALL_MASK_ATTENTION_FUNCTIONS[implementation] in (sdpa_mask, eager_mask)


def _tapped(implementation: str) -> AttentionFunction:
    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """The original attention; an armed module does its work around it."""
        original = _original(implementation, module)
        work: Work | None = module.__dict__.get(_WORK)
        if work is None:
            return original(module, query, key, value, attention_mask, **kwargs)
        prefix = getattr(work, "prefix", None)
        call = Call.of(module, (query, key, value), attention_mask, kwargs, prefix)
        given = partial(_as_given, original, call.mask, attention_mask)
        device = query.device.type
        if not torch.is_autocast_enabled(device):
            return work(given, call, kwargs)
        with torch.autocast(device, enabled=False):  # what is ours stays float32
            return work(partial(_cast, given, torch.get_autocast_dtype(device)), call, kwargs)

    return attention


def _as_given(
    original: AttentionFunction,
    read: Any,
    given: Any,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The original attention under the mask that the model gave, where it is given that mask as we read it."""
    return original(module, query, key, value, given if mask is read else mask, **kwargs)


def _cast(
    original: AttentionFunction,
    dtype: torch.dtype,
    module: nn.Module,
    query: Tensor,
    *args: Any,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The original attention under the autocast that the caller asked for."""
    with torch.autocast(query.device.type, dtype=dtype):
        return original(module, query, *args, **kwargs)


def _original(implementation: str, module: nn.Module) -> AttentionFunction:
    """The function transformers would call; each modelling file has an eager one of its own."""
    if implementation == "eager":
        return sys.modules[type(module).__module__].eager_attention_forward  # type: ignore[attr-defined]
    function = ALL_ATTENTION_FUNCTIONS[implementation]
    return partial(_under_own_name, function, implementation) if "flash" in implementation else function


def _under_own_name(
    function: AttentionFunction, implementation: str, module: nn.Module, *args: Any, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Calls a function that looks its kernels up by the name in the module's config."""
    config = _With(module.config, _attn_implementation=implementation)
    return function(_With(module, config=config), *args, **kwargs)  # pyright: ignore[reportArgumentType]


class _With:
    """Another object with some attributes of its own."""

    def __init__(self, inner: Any, **own: Any) -> None:
        vars(self).update(own, _inner=inner)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_inner"], name)
