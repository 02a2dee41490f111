"""Taps a model: registers transformers' attention functions under new names, arms layers for a pass, and undoes it.

transformers derives much from the name of an attention implementation: which masks are made, whether "flash" takes
part, which kernels are loaded. The new names keep what is derived. A registered function calls the original one under
its own name; an attention module without work does nothing else, so an idle model is bit-equal to one that was never
wrapped.

`OfferedRows` is what `Mllm.tap` offers to code inside an nnsight trace.
"""

from __future__ import annotations

import copy
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from nnsight import TransformersModel
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    AttentionMaskInterface,
    eager_mask,
    flash_attention_mask,
    flex_attention_mask,
    sdpa_mask,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from interp.errors import ModelError, SiteError
from interp.models.repairs import repair
from interp.tracing.attention.rows import AttentionFunction, Block, Call, Work
from interp.tracing.encoding.batch import Batch, Layout, ProcessedImages
from interp.tracing.layers.decoder_layers import RowsOfSharing, every_row, layer_kinds, mixer, rows_of_sharing
from interp.tracing.layers.layer_work import tapped
from interp.tracing.parameters.weights import modules_of
from interp.tracing.site import Selector, Site, select_each

__all__ = [
    "COLLECTOR",
    "PATTERN",
    "Identity",
    "Installation",
    "OfferedRows",
    "as_written",
    "offered_rows",
    "registered",
    "set_work",
    "takes_masks",
]


_COMPILED = "_orig_mod"
"""Under which name what `torch.compile` returns has the module it was given."""
PATTERN = "pattern"
"""Name of the identity child of each attention module, where nnsight reads and edits rows."""
COLLECTOR = "interp_collector"
"""Name of the identity child of the model through which a whole run's results reach nnsight, once."""


class Identity(nn.Module):
    """Returns what it is given. nnsight hands over, and takes back, what passes through it."""

    def forward(self, value: Any) -> Any:
        """The value."""
        return value


class Installation:
    """What `wrap` changed in a model: its configs (copies), identity children, nnsight's forwards, its mode.

    Attributes:
        hf: the transformers model.
        given: what was wrapped: the model, or torch's wrapper of it, such as what `torch.compile` returns.
        nn: the nnsight model around it.
        layers: the decoder layers.
        kinds: what mixes the tokens of each decoder layer, "attention", "linear" or "convolution".
        attentions: the attention module of every decoder layer; the gated DeltaNet or short convolution of those that
            have one instead.
        implementation: the model's own attention implementation.
        forwards: the forwards that modules had of their own, which override those of their classes.
    """

    def __init__(
        self, hf: nn.Module, processor: Any, layers: Sequence[nn.Module], given: Any | None = None
    ) -> None:
        self.hf: Any = hf
        self.given = hf if given is None else given
        self.layers: list[Any] = list(layers)
        self.kinds = layer_kinds(layers)
        self.attentions: list[Any] = [mixer(layer) for layer in layers]
        if any(PATTERN in a._modules for a in self._tappable):
            raise ModelError("this model is wrapped already; use that Mllm, or call its unwrap() first.")
        self._lock = threading.Lock()
        self._training = {module: module.training for module in hf.modules()}
        self._attributes = {module: frozenset(module.__dict__) for module in hf.modules()}
        self.forwards = {m: m.__dict__["forward"] for m in hf.modules() if "forward" in m.__dict__}
        self._added: dict[nn.Module, frozenset[str]] = {}
        self._configs = _own_configs(hf)
        self._repairs: list[Any] = []
        self._sharing: list[RowsOfSharing] = []
        self.processed = ProcessedImages()
        self.known: tuple[Any, Any, dict[str, str]] | None = (
            None  # weights' versions, hooks and identity when read
        )
        self.active = True
        try:
            self.implementation = self._rename()
            self.nn = self._install(processor)
        except BaseException:
            self.remove()
            raise

    @property
    def _tappable(self) -> list[Any]:
        """The modules whose attention goes through transformers' attention interface."""
        return [one for one, kind in zip(self.attentions, self.kinds, strict=True) if kind != "linear"]

    def _rename(self) -> str:
        """Replaces the model's attention function by the tapped one; returns the name of the model's."""
        configs = {id(attention.config): attention.config for attention in self._tappable}
        owners = [m for m in self.hf.modules() if isinstance(m, PreTrainedModel) and id(m.config) in configs]
        if not owners or not all(owner._can_set_attn_implementation() for owner in owners):
            raise ModelError(
                f"{type(self.hf).__name__} does not go through transformers' attention interface, so its "
                "attention cannot be tapped. Use a model class that does."
            )
        own = self._tappable[0].config._attn_implementation
        for config in configs.values():  # set_attn_implementation would look for kernels of the name
            config._attn_implementation_internal = registered(own)
        return own

    def _install(self, processor: Any) -> Any:
        for module in self._tappable:
            module.add_module(PATTERN, Identity())
        self.hf.add_module(COLLECTOR, Identity())
        self.hf.eval()
        self._repairs = repair(self.hf)
        self._sharing = rows_of_sharing(self.hf, self.implementation)
        # without a device, the pipeline inside nnsight would move the model to the first GPU
        device = (
            {} if getattr(self.hf, "hf_device_map", None) else {"device": self.hf.device}
        )  # moves nothing
        with (
            warnings.catch_warnings()
        ):  # of a Q-Former's parts; nothing here asks for them by nnsight's names
            warnings.filterwarnings("ignore", message="Module .* has a submodule named 'output'")
            made = TransformersModel(self.hf, task="image-text-to-text", processor=processor, **device)
        self._added = {module: frozenset(module.__dict__) - old for module, old in self._attributes.items()}
        return made

    @property
    def collector(self) -> nn.Module:
        """The identity that hands a run's results to nnsight."""
        return self.hf.get_submodule(COLLECTOR)

    def need_weights(self) -> None:
        """Raise ModelError where the weights are not on this machine; here they are."""

    def check(self) -> None:
        """Raise ModelError once the model was unwrapped."""
        if not self.active:
            raise ModelError("this Mllm was unwrapped; wrap the model again with interp.wrap.")

    @contextmanager
    def armed(
        self,
        work: Mapping[int, Any],
        streams: Mapping[int, Callable[[Any], Any]] | None = None,
        routing: Mapping[int, Any] | None = None,
        mlps: Mapping[int, Any] | None = None,
    ) -> Iterator[None]:
        """Arms the layers named for the block: `work` is for their attention, `streams` for their output.

        Work of an attention layer is a `Work`, that of a gated DeltaNet layer takes its rule
        (`interp.tracing.layers.layer_work`). `routing` is for what their routers return
        (`interp.tracing.layers.mlp_and_experts.RouterWork`), `mlps` for their MLPs
        (`interp.tracing.layers.mlp_and_experts.MLPWork`). Other layers do nothing but their own attention. Meanwhile
        the model is in evaluation mode, and its compiled parts run uncompiled.

        Raises:
            ModelError: Another trace or tap of the model is open, or it was unwrapped.
        """
        self.check()
        with self._alone(), ExitStack() as stack:
            stack.enter_context(as_written(self.hf))
            stack.enter_context(every_row(self._sharing))
            for layer, one in work.items():
                if self.kinds[layer] == "linear":
                    stack.enter_context(tapped(self.attentions[layer], one))
                    continue
                set_work(self.attentions[layer], one)
                stack.callback(set_work, self.attentions[layer], None)
            for layer, one in (streams or {}).items():
                hook = self.layers[layer].register_forward_hook(_on_output(one))
                stack.callback(hook.remove)
            for layer, one in (routing or {}).items():
                router = self.layers[layer].get_submodule(one.path)
                stack.callback(router.register_forward_hook(_on_output(one)).remove)
            for layer, one in (mlps or {}).items():
                for hook in _at_mlp(self.layers[layer], one):
                    stack.callback(hook.remove)
            yield

    def remove(self) -> Any:
        """What was wrapped, as it was: configs, children, forwards and mode.

        Raises:
            ModelError: A trace or tap is open, or it was removed before.
        """
        self.check()
        with self._alone():
            for module in self._tappable:
                module._modules.pop(PATTERN, None)
            self.hf._modules.pop(COLLECTOR, None)
            for handle in self._repairs:
                handle.remove()
            for module, config in self._configs:
                module.config = config
            for module, names in self._added.items():
                for name in names:
                    module.__dict__.pop(name, None)
            for module, forward in self.forwards.items():
                module.__dict__["forward"] = forward
            for module, training in self._training.items():
                module.training = training
            self.active = False
        return self.given

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


@contextmanager
def as_written(hf: nn.Module) -> Iterator[None]:
    """Nothing is dropped out and nothing compiled runs in the block, whatever was done to the model since wrapping.

    Compiled code would run past what is done in a pass from outside: work of layers, hooks.
    """
    training, compiled = list[nn.Module](), False
    for module in modules_of(hf):
        if module.training:
            training.append(module)
        compiled = compiled or module._compiled_call_impl is not None or _COMPILED in module._modules
    for module in training:
        module.training = False
    try:
        with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
            yield
    finally:
        for module in training:
            module.training = True


def _on_output(function: Callable[[Any], Any]) -> Callable[[nn.Module, Any, Any], Any]:
    """A forward hook that replaces a module's output by what the function returns."""
    return lambda module, arguments, output: function(output)


def _at_mlp(layer: Any, work: Any) -> list[Any]:
    """Hooks that replace an MLP's output by what an `MLPWork` returns."""
    given: list[Any] = []

    def entering(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        given[:] = arguments or list(named.values())

    def leaving(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        return work(given[0], output)

    into = layer.mlp.register_forward_pre_hook(entering, with_kwargs=True)
    return [into, layer.get_submodule(work.path).register_forward_hook(leaving)]


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


def offered_rows(queries: Selector | Sequence[Selector], batch: Batch | None) -> Callable[[int, int], Tensor]:
    """A function (samples, queries of a call) → rows to offer, (sample, row), padded.

    "last" and "all" need no batch. Others take the batch whose inputs are traced, with as many rows in each
    sample; in the pass of a generated token, they offer its only row.

    Raises:
        SiteError: Groups that need a batch without one, or that hold different numbers of rows.
    """
    selectors, _ = Site(queries=queries).groups
    if selectors == ("last",):
        return lambda n, n_queries: torch.full((n, 1), n_queries - 1)
    if selectors == ("all",):
        return lambda n, n_queries: torch.arange(n_queries).expand(n, -1)
    if batch is None:
        raise SiteError(
            f"tap(queries={queries!r}) needs the batch to find its rows. Write mllm.tap(queries=…, batch=batch) with "
            'the batch whose inputs you trace. Only "last" and "all" need no batch.'
        )
    layout = Layout.whole([tokens.length for tokens in batch.tokens])
    rows = layout.rows(select_each(selectors, batch.tokens))
    if len({len(r) for r in rows}) > 1 or not len(rows[0]):
        raise SiteError(
            f"tap(queries={queries!r}) gives one tensor, (sample, head, row, key), so every sample needs the same "
            f"number of rows, at least one; here they have {[len(r) for r in rows]}. Tap one sample at a time, or use "
            "mllm.trace(reads=[…]), where samples may have different numbers of rows."
        )
    chosen = torch.from_numpy(np.stack(rows))
    width = layout.n_queries
    return lambda n, n_queries: chosen if n_queries == width else torch.full((n, 1), n_queries - 1)


@dataclass(frozen=True, eq=False)
class OfferedRows:
    """Offers rows at the module's `pattern`, for code inside an nnsight trace to read or overwrite.

    `rows` maps (samples, queries of the call) to the rows to offer, (sample, row).
    """

    pattern: nn.Module
    rows: Callable[[int, int], Tensor]

    def __call__(
        self, original: AttentionFunction, call: Call, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """The attention's output; offered rows that were written to are recomputed."""
        output, weights = original(
            call.module, call.queries, call.keys[0], call.values[0], call.mask, **kwargs
        )
        block = self._block(call)
        offered = call.probabilities(block)
        version = offered._version
        returned = self.pattern(offered)
        if returned is not offered or returned._version != version:
            output = call.splice(output, block, returned)
        return output, weights

    def _block(self, call: Call) -> Block:
        n, _, n_queries, _ = call.queries.shape
        device = call.queries.device
        rows = self.rows(n, n_queries).to(device)
        sample = torch.arange(n, device=device).repeat_interleave(rows.shape[1])
        place = torch.arange(rows.shape[1], device=device).repeat(n)
        return Block(rows, (sample, place), call.all_heads)


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
            f"interp reads attention in the implementations {', '.join(_FUNCTIONS)}; the model has "
            f"{implementation!r}. Load the model with one of these, such as attn_implementation='sdpa'."
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
        with torch.autocast(device, enabled=False):  # own arithmetic stays float32
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
