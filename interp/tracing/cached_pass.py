"""One prompt run once, and many variants of it that begin where they first differ.

What the unedited pass leaves behind (each layer's keys and values, what entered chosen layers) is kept. A variant then
runs only the rows and layers that can differ, and any number of them run side by side as one batch on the kept
tensors, which are never copied. The model's own code runs, so masks, positions and soft caps are the family's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import Cache

from interp.errors import ModelError
from interp.inputs.tokens import TokenMap
from interp.tracing.cost import Meter
from interp.tracing.encode import PER_TOKEN, Batch
from interp.tracing.prefix import After
from interp.tracing.run import run_pass, whole_cache
from interp.tracing.shared_keys import Fan
from interp.tracing.wrapped import WrappedModel

__all__ = ["Trunk"]

Rows = Float[Tensor, "one row hidden"]


@dataclass(frozen=True, eq=False)
class Trunk:
    """One sample's unedited pass, kept. Made by `Trunk.of`; never changed. Tensors have no padding.

    Attributes:
        mllm: the model. Variants run by the tap, whichever executor is chosen.
        batch: the sample, encoded alone.
        keys: for each layer, (1, key_value_head, key, dim); none where every row sees the whole prompt.
        values: the same for values.
        entering: what entered the layers asked for, (1, row, hidden).
        added: what the family adds to the stream after a layer, beside that layer's output (deepstack).
        logits: after the last rows, (1, row, token_id), float32.
    """

    mllm: WrappedModel
    batch: Batch
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    entering: Mapping[int, Rows]
    added: Mapping[int, Rows]
    logits: Float[Tensor, "one kept token_id"]
    kinds: tuple[Any, ...]

    @classmethod
    def of(
        cls, mllm: WrappedModel, batch: Batch, meter: Meter, *, keep: int = 1, layers: Collection[int] = (0,)
    ) -> Trunk:
        """The trunk of a batch of one sample.

        Args:
            mllm: the model.
            batch: one sample, encoded.
            meter: counts the pass.
            keep: how many last rows' logits are wanted, here and of every variant.
            layers: the layers that variants may start at.

        Raises:
            ModelError: More samples than one.
        """
        if len(batch) != 1:
            raise ModelError(f"a trunk is of one sample; got a batch of {len(batch)}.")
        shares = mllm.visibility.attends != "prefix"
        cache = whole_cache(mllm.hf) if shares else None
        inputs = batch.inputs | {"position_ids": batch.positions}
        watch = _Watch(frozenset(layers))
        with mllm.installation.armed({}), torch.no_grad(), watch.on(mllm.adapter.layers(mllm.hf)):
            found = _passed(mllm, inputs, cache, keep, meter)
        kept: list[Any] = cache.layers if cache is not None else []
        keys, values = tuple(one.keys for one in kept), tuple(one.values for one in kept)
        return cls(mllm, batch, keys, values, watch.entering, watch.added, found, tuple(watch.kinds))

    @property
    def tokens(self) -> TokenMap:
        """Where the sample's tokens are."""
        return self.batch.tokens[0]

    @property
    def keep(self) -> int:
        """How many last rows' logits each variant gives."""
        return self.logits.shape[1]

    def stop(self, first: int) -> int:
        """How many rows need not run again when rows before `first` compute what they did."""
        attends = self.mllm.visibility.attends
        if attends == "prefix" or (attends == "image_blocks" and first <= self.tokens.image.max(initial=-1)):
            return 0
        return min(first, self.tokens.length - self.keep)

    def run(
        self,
        n: int,
        stop: int,
        meter: Meter,
        *,
        start: int = 0,
        entering: Float[Tensor, "_ row hidden"] | None = None,
        added: Mapping[int, Float[Tensor, "_ row hidden"]] | None = None,
        hidden: Bool[Tensor, "variant key"] | None = None,
        rows: int = 0,
        layers: Collection[int] = (),
    ) -> Float[Tensor, "variant kept token_id"]:
        """The last rows' logits of `n` variants, float32.

        Args:
            n: how many.
            stop: rows that do not run, as `stop()` says.
            meter: counts the pass.
            start: the first layer that runs.
            entering: what enters it at the rows from `stop` on, of each variant or of all; by default what did.
            added: what is added after layers, as `added` of the trunk, at the same rows; by default that.
            hidden: keys each variant's rows must not see.
            rows: the first row (unpadded) that must not.
            layers: where.
        """
        if n < 1:
            raise ModelError("a pass takes a variant or more; got none.")
        mine = {i: one[:, stop:] for i, one in self.added.items()} if added is None else added
        given = self.entering[start][:, stop:] if entering is None else entering
        work = {
            i: Fan(
                None if not stop else (self.keys[i][:, :, :stop], self.values[i][:, :, :stop]),
                hidden if i in layers else None,
                max(rows - stop, 0),
            )
            for i in range(start, self.mllm.n_layers)
        }
        cache = Cache(layers=[After(stop) for _ in self.keys]) if stop else None
        decoder = self.mllm.adapter.layers(self.mllm.hf)
        with (
            self.mllm.installation.armed(work),
            torch.no_grad(),
            _entered(decoder, self.kinds, start, given, {i: one for i, one in mine.items() if i >= start}),
        ):
            return _passed(self.mllm, self._inputs(n, stop), cache, self.keep, meter)

    def _inputs(self, n: int, stop: int) -> dict[str, Tensor]:
        """The model's arguments for the rows from `stop` on, without images: what they gave is put in their place."""
        batch = self.batch
        names = PER_TOKEN if not stop else ("input_ids",)
        inputs = {name: batch.inputs[name][:, stop:] for name in names if name in batch.inputs}
        inputs["attention_mask"] = batch.inputs["attention_mask"]
        inputs = {name: one.expand(n, -1) for name, one in inputs.items()}
        positions = batch.positions[..., stop:]
        return {**inputs, "position_ids": positions.expand(*positions.shape[:-2], n, -1)}


def _passed(
    mllm: WrappedModel, inputs: Mapping[str, Tensor], cache: Cache | None, keep: int, meter: Meter
) -> Float[Tensor, "sample kept token_id"]:
    """One pass; its last rows' logits."""
    return run_pass(mllm.hf, inputs, meter, cache=cache, keep=keep).float()


class _Watch:
    """Notes what enters chosen layers, and what the family adds to the stream between layers."""

    def __init__(self, layers: Collection[int]) -> None:
        self.layers = layers
        self.entering: dict[int, Tensor] = {}
        self.added: dict[int, Tensor] = {}
        self.kinds: list[Any] = []
        self._left: Tensor | None = None

    @contextmanager
    def on(self, layers: Sequence[nn.Module]) -> Iterator[None]:
        """Watches the layers during the block."""
        with ExitStack() as stack:
            for i, layer in enumerate(layers):
                stack.callback(layer.register_forward_pre_hook(self._before(i)).remove)
                stack.callback(layer.register_forward_hook(self._after).remove)
            yield

    def _before(self, i: int) -> Callable[[nn.Module, Any], None]:
        def before(_: nn.Module, arguments: Any) -> None:
            hidden = arguments[0]
            if i in self.layers:
                self.entering[i] = hidden.clone()
            if self._left is not None and self._left is not hidden and not torch.equal(self._left, hidden):
                self.added[i - 1] = hidden - self._left

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
    """For the block, layers below `start` pass on what they get, `start` gets `entering`, and `added` is added."""
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


def _put(values: Tensor) -> Callable[[nn.Module, Any], Any]:
    def put(_: nn.Module, arguments: Any) -> Any:
        hidden = arguments[0]
        return (values.expand(len(hidden), -1, -1).clone(), *arguments[1:])  # models may write into it

    return put


def _plus(values: Tensor) -> Callable[[nn.Module, Any, Any], Any]:
    def plus(_: nn.Module, arguments: Any, output: Any) -> Any:
        return output + values if isinstance(output, Tensor) else (output[0] + values, *output[1:])

    return plus


@dataclass(frozen=True, eq=False)
class _Through:
    """Stands for a layer's forward that gives what it gets; `tail` is what else such a layer returns."""

    tail: tuple[Any, ...] | None

    def __call__(self, hidden: Tensor, *_: Any, **__: Any) -> Any:
        return hidden if self.tail is None else (hidden, *self.tail)
