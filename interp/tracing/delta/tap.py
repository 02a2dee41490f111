"""The tap of gated DeltaNet layers: where transformers' forward calls the delta rule, armed layers do their work."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

from interp.errors import ModelError

__all__ = ["Rule", "rule_name", "rules", "tapped"]

Rule = Callable[..., tuple[Tensor, Tensor | None]]
"""transformers' gated delta rule: (query, key, value, g=, beta=, …) → (output, final state)."""

_PREFILL, _DECODE = "torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule"
"""Which rule transformers runs over a prompt, and which over the token that follows a state."""


def rule_name(step: int) -> str:
    """The name of the rule that transformers runs over a prompt (step 0), or over a generated token."""
    return _DECODE if step else _PREFILL


@contextmanager
def tapped(module: nn.Module, work: Callable[..., tuple[Tensor, Tensor | None]]) -> Iterator[None]:
    """For the block, the module's own forward calls `work` where it would call the gated delta rule.

    The forward is transformers' own code; only the names of the two rules mean something else in it.

    Raises:
        ModelError: A forward that does not call them, or weights that accelerate fetches for the forward.
    """
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = MethodType(_calling(module, work), module)
    try:
        yield
    finally:
        module.__dict__.pop("forward")
        if before is not None:
            module.__dict__["forward"] = before


def rules(module: nn.Module) -> dict[str, Rule]:
    """The gated delta rules that a module's forward calls, by name.

    Raises:
        ModelError: A forward that does not call them.
    """
    own: Any = inspect.unwrap(type(module).forward)
    names = [
        name for name in (_PREFILL, _DECODE) if name in own.__code__.co_names and name in own.__globals__
    ]
    if len(names) < 2:
        raise ModelError(
            f"{type(module).__name__}.forward does not call transformers' {_PREFILL} and {_DECODE}, so rows of its "
            'layer cannot be read or edited. Name attention layers, such as layers="attention".'
        )
    return {name: own.__globals__[name] for name in names}


def _calling(module: nn.Module, work: Callable[..., tuple[Tensor, Tensor | None]]) -> FunctionType:
    """The module's forward with the rules in its names replaced."""
    known = rules(module)
    if any(hasattr(one, "_hf_hook") for one in (module, *module.children())):
        raise ModelError(
            f"the weights of this {type(module).__name__} are moved by accelerate as it runs, and rows of its layer "
            "are read inside. Load the model on one device, without device_map, to read or edit linear layers."
        )
    own: Any = inspect.unwrap(type(module).forward)
    names = {**own.__globals__, **{name: partial(work, rule) for name, rule in known.items()}}
    made = FunctionType(own.__code__, names, own.__name__, own.__defaults__, own.__closure__)
    made.__kwdefaults__ = own.__kwdefaults__
    return made
