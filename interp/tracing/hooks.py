"""Taps put into a transformers model, and taken out again without a trace."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from nnsight import TransformersModel
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from interp.errors import ModelError
from interp.tracing.attention import (
    Heads,
    attend,
    row_outputs,
    row_probabilities,
    row_scores,
    select_rows,
    visible,
)
from interp.tracing.edit_cells import At, Change
from interp.tracing.plan import Block, LayerPlan, ReadBlock

__all__ = [
    "COLLECTOR",
    "PATTERN",
    "AttentionFunction",
    "Call",
    "Door",
    "Identity",
    "Installation",
    "LayerWork",
    "Recorder",
    "Work",
    "any_of",
    "registered",
    "set_work",
]

_WORK = "_interp_work"
_FUNCTIONS = ("sdpa", "eager", "flash_attention_2", "flash_attention_3", "flash_attention_4")

AttentionFunction = Callable[..., tuple[Tensor, Tensor | None]]


class Identity(nn.Module):
    """Returns what it is given. nnsight hands over, and takes back, what passes through it."""

    def forward(self, value: Any) -> Any:
        """The value."""
        return value


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer's attention. Keys and values are segments: a shared prefix first, if there is."""

    module: nn.Module
    queries: Float[Tensor, "sample head query dim"]
    keys: tuple[Float[Tensor, "_ key_value_head _ _"], ...]
    values: tuple[Float[Tensor, "_ key_value_head _ _"], ...]
    mask: Tensor | None
    scaling: float
    softcap: float | None
    causal: bool

    @classmethod
    def of(
        cls,
        module: nn.Module,
        tensors: Sequence[Tensor],
        mask: Tensor | None,
        kwargs: Mapping[str, Any],
        prefix: tuple[Tensor, Tensor] | None = None,
    ) -> Call:
        """The call of an attention function with queries, keys and values, as transformers makes it.

        `prefix`: keys and values that come before.
        """
        query, key, value = tensors
        scaling, causal = kwargs.get("scaling"), kwargs.get("is_causal")
        return cls(
            module=module,
            queries=query,
            keys=(key,) if prefix is None else (prefix[0], key),
            values=(value,) if prefix is None else (prefix[1], value),
            mask=mask,
            scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
            softcap=kwargs.get("softcap"),
            causal=getattr(module, "is_causal", True) if causal is None else causal,
        )

    def on_lines(self, lines: Int[Tensor, " sample"]) -> Call:
        """The call with the first segment's lines as the samples have them."""
        keys, values = ((one[0][lines], *one[1:]) for one in (self.keys, self.values))
        return replace(self, keys=keys, values=values)

    @property
    def all_heads(self) -> Heads:
        """Every head of the layer."""
        n = self.queries.shape[1]
        return Heads.of(range(n), n, self.keys[0].shape[1], self.queries.device)

    @property
    def n_keys(self) -> int:
        """Keys of all segments."""
        return sum(k.shape[2] for k in self.keys)

    def probabilities(
        self, block: Block, changes: Sequence[Change] = (), step: int = 0
    ) -> Float[Tensor, "sample chosen_head row key"]:
        """The block's rows of attention under the changes."""
        wide = any(change.edit.all_heads for change in changes)
        rows, heads = block.rows, self.all_heads if wide else block.heads
        at = At(rows, heads.index, self.n_keys, step)
        queries = select_rows(self.queries, rows)
        scores = row_scores(queries, self.keys, heads=heads, scaling=self.scaling, softcap=self.softcap)
        seen = visible(
            self.mask, rows, n_queries=self.queries.shape[2], n_keys=self.n_keys, causal=self.causal
        )
        if seen is not None and seen.shape[1] > 1:
            seen = seen[:, heads.index]
        for change in changes:
            if change.edit.stage == "scores" and not change.hides:
                scores = change(scores, at)
        hidden = any_of([change.cells.at(at) for change in changes if change.hides])
        probabilities = row_probabilities(scores, seen, hidden)
        for change in changes:
            if change.edit.stage == "probabilities":
                probabilities = within_sight(change(probabilities, at), seen)
        return probabilities[:, block.heads.index] if wide else probabilities

    def splice(
        self,
        output: Float[Tensor, "sample query head dim"],
        block: Block,
        probabilities: Float[Tensor, "sample chosen_head row key"],
        before: Float[Tensor, "sample chosen_head row key"] | None = None,
    ) -> Float[Tensor, "sample query head dim"]:
        """The attention's output with the block's rows recomputed from probabilities; the rest as it is.

        Rows whose probabilities are those of `before` are left as they are too.
        """
        new = row_outputs(probabilities, self.values, heads=block.heads).to(output.dtype)
        sample, place = block.cells
        at = (sample[:, None], block.rows[sample, place][:, None], block.heads.index[None, :])
        values = new[sample, :, place]
        if before is not None:
            changed = (probabilities != before).any(dim=-1)[sample, :, place]
            values = torch.where(changed[..., None], values, output[at])
        output = output.clone() if output.requires_grad else output
        output[at] = values
        return output


def within_sight(
    probabilities: Float[Tensor, "sample head row key"], seen: Tensor | None
) -> Float[Tensor, "sample head row key"]:
    """Probabilities with 0 at keys that rows cannot see; `seen` as `visible` gives it."""
    if seen is None:
        return probabilities
    closed = ~seen if seen.dtype == torch.bool else seen < torch.finfo(seen.dtype).min / 2
    return probabilities.masked_fill(closed, 0.0)


def any_of(masks: Sequence[Bool[Tensor, "_ _ row key"]]) -> Bool[Tensor, "_ _ row key"] | None:
    """The union of masks; None for none."""
    found = None
    for mask in masks:
        found = mask if found is None else found | mask
    return found


@runtime_checkable
class Work(Protocol):
    """What an attention module does while it is armed."""

    def __call__(
        self, original: AttentionFunction, call: Call, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """The attention's output and weights."""
        ...


def set_work(module: nn.Module, work: Work | None) -> None:
    """Arms an attention module with work, or disarms it. Work is kept off the module tree."""
    if work is None:
        module.__dict__.pop(_WORK, None)
    else:
        module.__dict__[_WORK] = work


def registered(implementation: str) -> str:
    """The registered name that does as `implementation` does and taps where armed; registers it when new.

    Raises:
        ModelError: An attention implementation whose masks cannot be read.
    """
    if implementation not in _FUNCTIONS:
        raise ModelError(
            f"the model's attention implementation is {implementation!r}; interp taps "
            f"{', '.join(_FUNCTIONS)}. Load the model with one of these, such as attn_implementation='sdpa'."
        )
    name = f"interp_{implementation}"
    if name not in ALL_ATTENTION_FUNCTIONS.valid_keys():
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
        AttentionInterface.register(name, _tapped(implementation))
    return name


def _tapped(implementation: str) -> AttentionFunction:
    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """The original attention; an armed module does its work around it."""
        original = _original(implementation, module)
        work: Work | None = module.__dict__.get(_WORK)
        if work is None:
            return original(module, query, key, value, attention_mask, **kwargs)
        prefix = getattr(work, "prefix", None)
        call = Call.of(module, (query, key, value), attention_mask, kwargs, prefix)
        return work(original, call, kwargs)

    return attention


def _original(implementation: str, module: nn.Module) -> AttentionFunction:
    """The function transformers would call; each modelling file has an eager one of its own."""
    if implementation == "eager":
        return sys.modules[type(module).__module__].eager_attention_forward  # type: ignore[attr-defined]
    return ALL_ATTENTION_FUNCTIONS[implementation]


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


@dataclass(eq=False)
class Recorder:
    """The buffer all layers of one run write into.

    Attributes:
        step: the pass that is being run; 0 is the prompt's.
        paused: whether layers do nothing now but their own attention.
        rows: (read, step) → what each layer gave, in layer order.
    """

    step: int = 0
    paused: bool = False
    rows: dict[tuple[int, int], list[Tensor]] = field(default_factory=dict)

    def add(self, read: ReadBlock, probabilities: Float[Tensor, "sample head row key"]) -> None:
        """Keep the read's columns of rows of attention, averaged over heads where it says so."""
        kept = probabilities.mean(dim=1, keepdim=True) if read.reduce else probabilities
        index = read.keys[:, None, None, :].expand(-1, kept.shape[1], kept.shape[2], -1)
        self.keep(read.read, kept.gather(3, index))

    def keep(self, read: int, values: Tensor) -> None:
        """Keep what a layer gives for a read."""
        self.rows.setdefault((read, self.step), []).append(values)


@dataclass(frozen=True, eq=False)
class LayerWork:
    """Carries out a layer's plans, whichever executor calls it.

    `prefix` holds keys and values that come before those of the call. `lines` says which of them each sample has;
    without, there are equally many samples for each line, in order.
    """

    prefill: LayerPlan
    decode: LayerPlan
    recorder: Recorder
    prefix: tuple[Tensor, Tensor] | None = None
    lines: Tensor | None = None

    @property
    def plan(self) -> LayerPlan:
        """The plan of the pass that is being run."""
        return self.decode if self.recorder.step else self.prefill

    def mask(self, call: Call) -> Tensor | None:
        """The mask for the model's own attention: the call's, less what is hidden by mask."""
        plan = self.plan
        return _without_hidden(call, plan.changes) if plan.mask_first and plan.changes else call.mask

    def finish(
        self, call: Call, output: Float[Tensor, "sample query head dim"]
    ) -> Float[Tensor, "sample query head dim"]:
        """The attention's output with edited rows recomputed; the plan's reads go to the recorder."""
        plan, step = self.plan, self.recorder.step
        for block in plan.edits:
            before = call.probabilities(block) if plan.unsure else None
            output = call.splice(output, block, call.probabilities(block, plan.changes, step), before)
        self._read(call)
        return output

    def replaced(self, call: Call, block: Block) -> Float[Tensor, "sample query head dim"]:
        """The attention's output from a block of every row and head; the plan's reads go to the recorder."""
        probabilities = call.probabilities(block, self.plan.changes, self.recorder.step)
        self._read(call)
        output = row_outputs(probabilities, call.values, heads=block.heads)
        return output.transpose(1, 2).contiguous()

    def _read(self, call: Call) -> None:
        for read in self.plan.reads:
            rows = call.probabilities(read.block, self.plan.changes, self.recorder.step)
            self.recorder.add(read, rows)

    def __call__(
        self, original: AttentionFunction, call: Call, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """The attention's output under the plan's edits; the plan's reads go to the recorder."""
        if self.recorder.paused:
            return original(call.module, call.queries, call.keys[-1], call.values[-1], call.mask, **kwargs)
        if self.lines is not None:
            call = call.on_lines(self.lines)
        if self.plan.whole is not None:
            return self.replaced(call, self.plan.whole), None
        mask = self.mask(call)
        if self.prefix is None:
            output, weights = original(
                call.module, call.queries, call.keys[0], call.values[0], mask, **kwargs
            )
            return self.finish(call, output), weights
        output = attend(
            call.queries,
            call.keys,
            call.values,
            mask,
            heads=call.all_heads,
            scaling=call.scaling,
            softcap=call.softcap,
            causal=call.causal,
        )
        return self.finish(call, output), None


def _without_hidden(call: Call, changes: Sequence[Change]) -> Tensor | None:
    """The call's mask with everything hidden taken out, for every row; as it is where rows see none of that."""
    n, _, n_queries, _ = call.queries.shape
    rows = torch.arange(n_queries, device=call.queries.device).expand(n, -1)
    seen = visible(call.mask, rows, n_queries=n_queries, n_keys=call.n_keys, causal=call.causal)
    hidden = any_of([change.cells.everywhere(call.n_keys) for change in changes])
    assert hidden is not None
    if seen is None:
        return ~hidden
    left = seen & ~hidden if seen.dtype == torch.bool else seen.masked_fill(hidden, -torch.inf)
    closed = ~seen if seen.dtype == torch.bool else seen < torch.finfo(seen.dtype).min / 2
    return left if bool((hidden & ~closed).any()) else call.mask


@dataclass(frozen=True, eq=False)
class Door:
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
