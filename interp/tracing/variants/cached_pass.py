"""One prompt run once, and any number of variants of it that run from where they first differ.

The results of the unedited pass are kept: each layer's keys and values, and the input of chosen layers. A variant then
runs only the rows and layers that can differ. Any number of variants run side by side as one batch on the kept tensors,
which are never copied. The model's own code runs, so masks, positions and soft caps are the family's.

`interp.tracing.variants.knockouts` hides attention in such variants; `target_pass` scores them by a target.

What variants of a prompt change: image tokens replaced in the residual stream, and keys hidden from rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache

from interp.errors import EditError, ModelError
from interp.inputs.tokens import TokenMap
from interp.tracing.attention.shared_keys import HiddenCells, SharedKeys
from interp.tracing.cost import Meter
from interp.tracing.encoding.batch import PER_TOKEN, Batch
from interp.tracing.layers.layer_work import ErasedTokens
from interp.tracing.layers.residual import side_by_side, stacked
from interp.tracing.passes.non_finite import check_logits
from interp.tracing.passes.out_of_memory import in_halves
from interp.tracing.passes.run import run_pass, whole_cache
from interp.tracing.prefix import After, Prefix, Resumed, exact, expanded, pass_inputs
from interp.tracing.target import is_half, wide_logits
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["KeptPass", "Replaced", "hidden_keys", "of_image"]


Rows = Float[Tensor, "one row hidden"]
Some = TypeVar("Some")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class KeptPass:
    """One sample's unedited pass, kept. Made by `KeptPass.of`; never changed. Tensors have no padding.

    Attributes:
        mllm: The model. Variants run by the tap, whichever executor is chosen.
        batch: The sample, encoded alone.
        first: The first row whose streams are kept: 0, or the first row after the prefix that the pass continued.
        keys: Each layer's keys, (1, key_value_head, key, dim); after a prefix, those of the prefix. Empty where every
            row sees the whole prompt and, without a prefix, in a hybrid model.
        values: Each layer's values, with the shape of `keys`.
        entering: Layer → the input of that layer, (1, row, hidden), from row `first` on; for the chosen layers.
        added: Layer → what the family adds to the stream after that layer besides its output (deepstack), (1, row,
            hidden), from row `first` on.
        logits: The logits after the last rows, (1, row, token_id), float32.
        kinds: What each layer returns besides the stream; None for nothing.
        beside: Layer → what that layer is given besides the stream, one vector per row (the per-layer inputs of Gemma
            3n and 4), from row `first` on.
        shared: Layer → the keys and values of that layer that later layers share, from row `first` on.
    """

    mllm: WrappedModel
    batch: Batch
    first: int
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    entering: Mapping[int, Rows]
    added: Mapping[int, Rows]
    logits: Float[Tensor, "one kept token_id"]
    kinds: tuple[Any, ...]
    beside: Mapping[int, Float[Tensor, "one row _"]] = field(default_factory=dict)
    shared: Mapping[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        mllm: WrappedModel,
        batch: Batch,
        meter: Meter,
        *,
        keep: int = 1,
        layers: Collection[int] = (0,),
        before: Prefix | None = None,
    ) -> KeptPass:
        """The kept pass of a batch of one sample.

        Args:
            mllm: The model.
            batch: One sample, encoded.
            meter: Counts the pass.
            keep: The number of last rows whose logits are kept, in this pass and in every variant.
            layers: The layers that variants may start at.
            before: A prefix that serves the batch and that the pass continues; variants cannot change its rows.

        Raises:
            ModelError: A batch of several samples, or logits that are not numbers.
        """
        mllm.need_image_rows("kept passes and their variants")
        if len(batch) != 1:
            raise ModelError(f"a kept pass is of one sample; got a batch of {len(batch)}.")
        inputs, cache = pass_inputs(batch, before)
        if before is None and mllm.visibility.attends != "prefix" and not mllm.visibility.recurrent:
            cache = whole_cache(mllm.hf)
        work = {} if before is None else {i: SharedKeys(before.layer(i)) for i in mllm.attention_layers}
        watch = _Watch(frozenset(layers))
        watched = watch.on(mllm.adapter.layers(mllm.hf))
        with mllm.installation.armed(work), torch.no_grad(), watched, wide_logits(mllm.hf):
            found = run_pass(mllm.hf, inputs, meter, cache=cache, keep=keep).float()
        check_logits(mllm, batch, found)
        made: list[Any] = cache.layers if cache is not None else []
        if before is not None:
            first, keys, values = before.lengths[0], before.keys, before.values
        else:
            kept = [made[i] for i in mllm.key_layers] if made else []
            with torch.no_grad():
                pairs = expanded(mllm.adapter.layers(mllm.hf), [(one.keys, one.values) for one in kept])
            first, keys, values = 0, tuple(k for k, _ in pairs), tuple(v for _, v in pairs)
        sources = {source for i, source in enumerate(mllm.key_layers) if source != i}
        shared = {i: (made[i].keys, made[i].values) for i in sources if made}
        seen = (watch.entering, watch.added, found, tuple(watch.kinds), watch.beside, shared)
        return cls(mllm, batch, first, keys, values, *seen)

    @property
    def tokens(self) -> TokenMap:
        """Where the sample's tokens are."""
        return self.batch.tokens[0]

    @property
    def keep(self) -> int:
        """The number of last rows whose logits each variant gives."""
        return self.logits.shape[1]

    @property
    def device(self) -> torch.device:
        """The device of the logits, where masks should be."""
        return self.logits.device

    def stream(self, layer: int, meter: Meter) -> Rows:
        """The input of one of the chosen layers at the image's tokens, (1, token, hidden); it takes no pass."""
        del meter
        return self.entering[layer][:, of_image(self.tokens)]

    def added_at_image(self, meter: Meter) -> dict[int, Rows]:
        """Layer → `added` at the image's tokens, (1, token, hidden); it takes no pass."""
        del meter
        return {i: one[:, of_image(self.tokens)] for i, one in self.added.items()}

    def stop(self, first: int) -> int:
        """The number of first rows that need not run again where a variant changes no row before `first`."""
        visibility = self.mllm.visibility
        if visibility.recurrent:  # states are kept where the pass went on from a prefix, and nowhere else
            able = self.first <= min(first, self.tokens.length - self.keep)
            return self.first if able and exact([self.first], [self.tokens], visibility) else 0
        if visibility.attends != "causal" and first <= self.tokens.image.max(initial=-1):
            return 0  # rows of an image block run together
        held = self.keys[0].shape[2] if self.keys else 0
        stop = min(first, held, self.tokens.length - self.keep)
        return stop if exact([stop], [self.tokens], visibility) else 0

    def run(
        self,
        n: int,
        stop: int,
        meter: Meter,
        *,
        start: int = 0,
        entering: Replaced | None = None,
        added: Mapping[int, Replaced] | None = None,
        hidden: Mapping[int, HiddenCells] | None = None,
    ) -> Float[Tensor, "variant kept token_id"]:
        """The last rows' logits of `n` variants, float32.

        The logits can be compared with those of this pass. Variants round differently from a whole pass, and in half
        precision the difference is as large as the effect of one token. So in half precision a variant without changes
        runs beside the others, and its difference from this pass is subtracted from theirs.

        Args:
            n: The number of variants.
            stop: The number of first rows that do not run, from `stop()`.
            meter: Counts the pass.
            start: The first layer that runs.
            entering: Image tokens replaced in the input of layer `start`.
            added: Layer → image tokens replaced in what is added after that layer; the layers are some of `self.added`.
            hidden: Layer → what each variant hides there; the rows of its cells are those from `stop` on.

        Raises:
            ModelError: No variants, or rows that were not kept.
        """
        if n < 1:
            raise ModelError("a pass takes at least one variant; got none.")
        replacing = entering is not None or bool(added)
        if stop < self.first or (self.first and replacing):
            raise ModelError(
                f"this pass was kept from row {self.first} on, after a prefix; got variants that run from row {stop} "
                f"on{' and replace image tokens' if replacing else ''}."
            )
        own = slice(stop - self.first, None)
        mine = {i: one[:, own] for i, one in self.added.items()}
        given = self.entering[start][:, own]
        columns = of_image(self.tokens)
        other = {i: one.in_stream(self.added[i], columns)[:, own] for i, one in (added or {}).items()}
        first = given if entering is None else entering.in_stream(self.entering[start], columns)[:, own]
        changes = _Changes(first, {**mine, **other}, dict(hidden or {}))
        if not is_half(given.dtype):
            return self._run(n, stop, meter, start, changes)
        found = self._run(n + 1, stop, meter, start, changes.with_none(n, given, mine))
        off = self.logits - found[-1:]
        return found[:-1] + torch.where(off.isfinite(), off, 0.0)  # a token masked by −∞ has no difference

    def _run(
        self, n: int, stop: int, meter: Meter, start: int, changes: _Changes
    ) -> Float[Tensor, "variant kept token_id"]:
        """The last rows' logits of `n` variants, without the correction for rounding."""
        devices = self.mllm.layer_devices
        hidden = {i: cells.on(devices[i]) for i, cells in changes.hidden.items()}
        cache = Cache(layers=[self._held(i, n, stop) for i in range(len(self.keys))]) if stop else None
        work = {i: self._work(i, stop, hidden.get(i)) for i in range(start, self.mllm.n_layers)}
        work = {i: one for i, one in work.items() if one is not None}
        decoder = self.mllm.adapter.layers(self.mllm.hf)
        above = {i: one for i, one in changes.added.items() if i >= start}
        own = slice(stop - self.first, None)
        beside = {i: one[:, own] for i, one in self.beside.items() if i >= start}
        shared = {i: tuple(one[:, :, own] for one in pair) for i, pair in self.shared.items() if i < start}
        with (
            self.mllm.installation.armed(work),
            torch.no_grad(),
            wide_logits(self.mllm.hf),
            _entered(decoder, self.kinds, start, changes.entering, above),
            _as_kept(decoder, n, beside, shared),
        ):
            return run_pass(self.mllm.hf, self._inputs(n, stop), meter, cache=cache, keep=self.keep).float()

    def _held(self, layer: int, n: int, stop: int) -> After | Resumed:
        """The cache layer that `n` variants continue."""
        if self.mllm.layer_kinds[layer] == "attention":
            return After(stop)
        return Resumed(
            *(one[layer].expand(n, *[-1] * (one[layer].ndim - 1)) for one in (self.keys, self.values))
        )

    def _work(self, layer: int, stop: int, hidden: HiddenCells | None) -> SharedKeys | ErasedTokens | None:
        """The work of a layer in a pass of variants; None for no work."""
        if self.mllm.layer_kinds[layer] == "attention":
            shared = (self.keys[layer][:, :, :stop], self.values[layer][:, :, :stop]) if stop else None
            return SharedKeys(shared, hidden)
        if hidden is None:
            return None
        if stop or hidden.zero:
            raise EditError(
                f"layer {layer} is linear (gated DeltaNet): tokens are erased from it in passes over whole prompts, "
                'and by mode "renormalise". Make the variants of a pass without a prefix, or name attention layers.'
            )
        return ErasedTokens(hidden)

    def fitting(self, variants: Some, run: Callable[[Some], T]) -> list[T]:
        """The results of `run` for all variants side by side, or for halves of them where memory runs out.

        A model from `at_once` is not split here.

        Raises:
            ModelError: A single variant that does not fit in memory.
        """
        if not self.mllm.batches:
            return [run(variants)]

        def too_large(_: Some, problem: str) -> ModelError:
            return ModelError(
                f"a variant of sample {self.batch.samples[0].id} does not fit in memory even alone ({problem}). Free "
                "memory, or load the model with dtype='bfloat16' or on a larger device."
            )

        return in_halves(variants, run, too_large=too_large)

    def hiding(
        self, keys: Bool[Tensor, "variant key"], rows: int, stop: int, layers: Collection[int]
    ) -> dict[int, HiddenCells]:
        """Keys hidden from every row from `rows` on, in some layers, for variants that run from row `stop` on."""
        return hidden_keys(self.tokens, keys, rows, stop, layers)

    def _inputs(self, n: int, stop: int) -> dict[str, Tensor]:
        """The model's arguments for the rows from `stop` on, without images: `run` puts their features in."""
        batch = self.batch
        names = PER_TOKEN if not stop else ("input_ids",)
        inputs = {name: batch.inputs[name][:, stop:] for name in names if name in batch.inputs}
        inputs["attention_mask"] = batch.inputs["attention_mask"]
        inputs = {name: one.expand(n, -1) for name, one in inputs.items()}
        positions = batch.positions[..., stop:]
        return {**inputs, "position_ids": positions.expand(*positions.shape[:-2], n, -1)}


@dataclass(frozen=True, eq=False)
class _Changes:
    """What variants change: the input of their first layer, what is added after layers, and what is hidden."""

    entering: Float[Tensor, "_ row hidden"]
    added: Mapping[int, Float[Tensor, "_ row hidden"]]
    hidden: Mapping[int, HiddenCells]

    def with_none(self, n: int, entering: Rows, added: Mapping[int, Rows]) -> _Changes:
        """The changes of `n` variants and of one more, the last, that changes nothing and has the given values."""
        return _Changes(
            torch.cat([self.entering.expand(n, -1, -1), entering]),
            {
                i: torch.cat([one.expand(n, -1, -1), added.get(i, torch.zeros_like(one[:1]))])
                for i, one in self.added.items()
            },
            {i: cells.with_none() for i, cells in self.hidden.items()},
        )


class _Watch:
    """Keeps the input of chosen layers, and what the family adds to the stream between layers."""

    def __init__(self, layers: Collection[int]) -> None:
        self.layers = layers
        self.entering: dict[int, Tensor] = {}
        self.added: dict[int, Tensor] = {}
        self.kinds: list[Any] = []
        self.beside: dict[int, Tensor] = {}
        self._left: Tensor | None = None

    @contextmanager
    def on(self, layers: Sequence[nn.Module]) -> Iterator[None]:
        """Watches the layers in the block."""
        with ExitStack() as stack:
            for i, layer in enumerate(layers):
                stack.callback(layer.register_forward_pre_hook(self._before(i)).remove)
                stack.callback(layer.register_forward_hook(self._after).remove)
            yield

    def _before(self, i: int) -> Callable[[nn.Module, Any], None]:
        def before(_: nn.Module, arguments: Any) -> None:
            """Keeps the input of layer i, what comes with it, and what was added since the previous layer."""
            hidden = arguments[0]
            if i in self.layers:
                self.entering[i] = side_by_side(hidden).clone()
            if (place := _beside(arguments)) is not None:
                self.beside[i] = arguments[place]
            if self._left is not None and self._left is not hidden:
                left = self._left.to(hidden.device)  # the layer before may run elsewhere
                if not torch.equal(left, hidden):
                    self.added[i - 1] = side_by_side(hidden - left)

        return before

    def _after(self, _: nn.Module, arguments: Any, output: Any) -> None:
        self.kinds.append(None if isinstance(output, Tensor) else output[1:])
        self._left = output if isinstance(output, Tensor) else output[0]


@contextmanager
def _entered(
    layers: Sequence[nn.Module],
    kinds: Sequence[Any],
    start: int,
    entering: Float[Tensor, "_ row hidden"],
    added: Mapping[int, Tensor],
) -> Iterator[None]:
    """In the block, layers below `start` return their input, `start` gets `entering`, and `added` is added."""
    passed = layers[:start]
    before = [layer.__dict__.get("forward") for layer in passed]
    with ExitStack() as stack:
        stack.callback(layers[start].register_forward_pre_hook(_put(entering)).remove)
        for i, values in added.items():
            stack.callback(layers[i].register_forward_hook(_plus(values)).remove)
        try:
            for layer, tail in zip(passed, kinds, strict=False):
                layer.__dict__["forward"] = _Through(tail)
            yield
        finally:
            for layer, forward in zip(passed, before, strict=True):
                layer.__dict__.pop("forward", None)
                if forward is not None:
                    layer.__dict__["forward"] = forward


@contextmanager
def _as_kept(
    layers: Sequence[nn.Module],
    n: int,
    beside: Mapping[int, Float[Tensor, "one row _"]],
    shared: Mapping[int, tuple[Tensor, ...]],
) -> Iterator[None]:
    """In the block, layers get the kept inputs besides the stream, and the shared keys of layers that do not run.

    The inputs besides the stream depend on the images, which variants do not have.
    """
    with ExitStack() as stack:
        for i, values in beside.items():
            stack.callback(layers[i].register_forward_pre_hook(_given_beside(values)).remove)
        for i, pair in shared.items():
            handle = layers[i].register_forward_pre_hook(_sharing(n, pair), with_kwargs=True)
            stack.callback(handle.remove)
        yield


def _beside(arguments: Sequence[Any]) -> int | None:
    """The index of a layer's positional argument that holds a tensor besides the stream; None without one."""
    found = (i for i, one in enumerate(arguments) if i and isinstance(one, Tensor) and one.ndim == 3)
    return next(found, None)


def _given_beside(values: Tensor) -> Callable[[nn.Module, Any], Any]:
    def give(_: nn.Module, arguments: Any) -> Any:
        at = _beside(arguments)
        assert at is not None  # it was there when the pass was kept
        given = values.to(arguments[at].device).expand_as(arguments[at])
        return (*arguments[:at], given, *arguments[at + 1 :])

    return give


def _sharing(n: int, pair: tuple[Tensor, ...]) -> Callable[[nn.Module, Any, Any], None]:
    def share(layer: nn.Module, _: Any, named: dict[str, Any]) -> None:
        kind: Any = layer.get_submodule("self_attn")
        named["shared_kv_states"][kind.layer_type] = tuple(one.expand(n, -1, -1, -1) for one in pair)

    return share


def _put(values: Tensor) -> Callable[[nn.Module, Any], Any]:
    def put(_: nn.Module, arguments: Any) -> Any:
        hidden = arguments[0]
        given = values.to(hidden.device).expand(hidden.shape[-3], -1, -1)
        return (stacked(given.clone(), hidden), *arguments[1:])  # models may write into it

    return put


def _plus(values: Tensor) -> Callable[[nn.Module, Any, Any], Any]:
    def plus(_: nn.Module, arguments: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return output + stacked(values.to(output.device), output)
        return (output[0] + values.to(output[0].device), *output[1:])

    return plus


@dataclass(frozen=True, eq=False)
class _Through:
    """A layer's forward that returns its input; `tail` is what such a layer returns besides the stream."""

    tail: tuple[Any, ...] | None

    def __call__(self, hidden: Tensor, *_: Any, **__: Any) -> Any:
        return hidden if self.tail is None else (hidden, *self.tail)


@dataclass(frozen=True, eq=False)
class Replaced:
    """Image tokens whose values in a residual stream are replaced, different ones in each variant.

    Attributes:
        chosen: (variant, token), which of the sample's image tokens are replaced.
        fill: (1 or variant, token or 1, hidden), the new values: the same in each variant, or one for each.
    """

    chosen: Bool[Tensor, "variant token"]
    fill: Float[Tensor, "_ _ hidden"]

    def with_none(self) -> Replaced:
        """The same replacements and one more variant, which replaces nothing."""
        return Replaced(torch.cat([self.chosen, self.chosen.new_zeros(1, self.chosen.shape[1])]), self.fill)

    def in_stream(
        self,
        stream: Float[Tensor, "_ row hidden"],
        columns: Int[Tensor, " token"],
        upon: Float[Tensor, "_ row hidden"] | None = None,
    ) -> Float[Tensor, "variant row hidden"]:
        """The stream of each variant.

        Args:
            stream: The stream of each variant, or one stream for all variants.
            columns: The rows of the stream that are image tokens.
            upon: A stream that the new values are added to; by default they replace the old ones alone.
        """
        device, columns = stream.device, columns.to(stream.device)
        chosen, fill = self.chosen.to(device), self.fill.to(device, stream.dtype)
        rows = stream.expand(len(chosen), -1, -1).clone()
        given = fill if upon is None else upon.to(device)[:, columns] + fill
        rows[:, columns] = torch.where(chosen[..., None], given, rows[:, columns])
        return rows


def of_image(tokens: TokenMap) -> Int[Tensor, " token"]:
    """The positions of a sample's image tokens."""
    return torch.from_numpy(tokens.image.copy())


def hidden_keys(
    tokens: TokenMap, keys: Bool[Tensor, "variant key"], rows: int, stop: int, layers: Collection[int]
) -> dict[int, HiddenCells]:
    """Keys hidden from every row from `rows` on, in some layers, for variants that run from row `stop` on."""
    late = torch.arange(stop, tokens.length, device=keys.device) >= rows
    cells = HiddenCells(late.expand(len(keys), -1), keys)
    return dict.fromkeys(layers, cells)
