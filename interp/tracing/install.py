"""Taps put into a transformers model, and taken out again without a trace."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from nnsight import TransformersModel
from torch import nn
from transformers import PreTrainedConfig

from interp.errors import ModelError
from interp.tracing.tap import Identity, Work, registered, set_work

__all__ = ["COLLECTOR", "PATTERN", "Installation"]

PATTERN = "pattern"
"""Name of the identity child of each attention module, where nnsight reads and edits rows."""

COLLECTOR = "interp_collector"
"""Name of the identity child of the model through which a whole run's results reach nnsight, once."""


class Installation:
    """What `wrap` changed in a model: its configs (copies), identity children, nnsight's forwards, its mode.

    Attributes:
        hf: the transformers model.
        nn: the nnsight model around it.
        layers: the decoder layers.
        attentions: the attention module of every decoder layer.
        implementation: the model's own attention implementation.
    """

    def __init__(self, hf: nn.Module, processor: Any, layers: Sequence[nn.Module]) -> None:
        self.hf: Any = hf
        self.layers: list[Any] = list(layers)
        self.attentions: list[Any] = [layer.self_attn for layer in layers]
        if any(PATTERN in a._modules for a in self.attentions):
            raise ModelError("this model is wrapped already; use that Mllm, or call its unwrap() first.")
        self._lock = threading.Lock()
        self._training = {module: module.training for module in hf.modules()}
        self._attributes = {module: frozenset(module.__dict__) for module in hf.modules()}
        self._forwards = {m: m.__dict__["forward"] for m in hf.modules() if "forward" in m.__dict__}
        self._added: dict[nn.Module, frozenset[str]] = {}
        self._configs = _own_configs(hf)
        self.active = True
        try:
            self.implementation = self._rename()
            self.nn = self._install(processor)
        except BaseException:
            self.remove()
            raise

    def _rename(self) -> str:
        """Puts the tapped attention function in the place of the model's own; returns the own one's name."""
        config = self.attentions[0].config
        own = config._attn_implementation
        name = registered(own)
        self.hf.set_attn_implementation({_key_of(self.hf.config, config): name})
        if any(attention.config._attn_implementation != name for attention in self.attentions):
            raise ModelError(
                f"{type(self.hf).__name__} does not go through transformers' attention interface, so its "
                "attention cannot be tapped. Use a model class that does."
            )
        return own

    def _install(self, processor: Any) -> Any:
        for module in self.attentions:
            module.add_module(PATTERN, Identity())
        self.hf.add_module(COLLECTOR, Identity())
        self.hf.eval()
        # without a device, the pipeline inside nnsight would move the model to the first GPU
        device = {} if getattr(self.hf, "hf_device_map", None) else {"device": self.hf.device}
        made = TransformersModel(self.hf, task="image-text-to-text", processor=processor, **device)
        self._added = {module: frozenset(module.__dict__) - old for module, old in self._attributes.items()}
        return made

    @property
    def collector(self) -> nn.Module:
        """The identity that hands a run's results to nnsight."""
        return self.hf.get_submodule(COLLECTOR)

    def check(self) -> None:
        """Raise ModelError once the model was unwrapped."""
        if not self.active:
            raise ModelError("this Mllm was unwrapped; wrap the model again with interp.wrap.")

    @contextmanager
    def armed(
        self, work: Mapping[int, Work], streams: Mapping[int, Callable[[Any], Any]] | None = None
    ) -> Iterator[None]:
        """Arms the layers named for the block: `work` is for their attention, `streams` for their output.

        Other layers do nothing but their own attention.

        Raises:
            ModelError: Another trace or tap of the model is open, or it was unwrapped.
        """
        self.check()
        with self._alone(), ExitStack() as stack:
            for layer, one in work.items():
                set_work(self.attentions[layer], one)
                stack.callback(set_work, self.attentions[layer], None)
            for layer, one in (streams or {}).items():
                hook = self.layers[layer].register_forward_hook(_on_output(one))
                stack.callback(hook.remove)
            yield

    def remove(self) -> Any:
        """The model as it was: configs, children, forwards and mode.

        Raises:
            ModelError: A trace or tap is open, or it was removed before.
        """
        self.check()
        with self._alone():
            for module in self.attentions:
                module._modules.pop(PATTERN, None)
            self.hf._modules.pop(COLLECTOR, None)
            for module, config in self._configs:
                module.config = config
            for module, names in self._added.items():
                for name in names:
                    module.__dict__.pop(name, None)
            for module, forward in self._forwards.items():
                module.__dict__["forward"] = forward
            for module, training in self._training.items():
                module.training = training
            self.active = False
        return self.hf

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise ModelError(
                "another trace or tap of this model is open. Leave the `with mllm.tap(…)` block, or wait for "
                "the other thread: one at a time."
            )
        try:
            yield
        finally:
            self._lock.release()


def _on_output(function: Callable[[Any], Any]) -> Callable[[nn.Module, Any, Any], Any]:
    """A forward hook that puts what the function returns in the place of a module's output."""
    return lambda module, arguments, output: function(output)


def _own_configs(hf: nn.Module) -> list[tuple[Any, PreTrainedConfig]]:
    """Gives every module a copy of its config, shared as before, and returns the originals.

    A config may serve several models, and setting an attention implementation would change them all.
    """
    memo: dict[int, Any] = {}
    before: list[tuple[Any, PreTrainedConfig]] = []
    for module in hf.modules():
        config = module.__dict__.get("config")
        if isinstance(config, PreTrainedConfig):
            before.append((module, config))
            before[-1][0].config = copy.deepcopy(config, memo)
    return before


def _key_of(config: Any, part: Any) -> str:
    """The name under which `config` holds the decoder's config; "" when it is the same."""
    for name in getattr(config, "sub_configs", {}):
        if getattr(config, name, None) is part:
            return name
    return ""
