"""The reference: the same weights in transformers' own attention, independent of the tracing code.

`RowGroup`s are the layers of a model by what their keys are, with their rows as eager attention gives them.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.inputs.tokens import TokenMap
from interp.models.adapter import Adapter
from interp.tracing import Mllm, Rows, Site
from interp.tracing.copies import second_instance
from interp.tracing.layers.decoder_layers import layer_kinds, mixer

__all__ = [
    "Reference",
    "RowGroup",
    "at_least_float32",
    "finer_reference",
    "image_layers",
    "reference",
    "row_groups",
]


@dataclass(frozen=True, eq=False)
class Reference:
    """A second model that shares the storage of its parameters and buffers with the model under test.

    Attributes:
        hf: The model; its language model uses the requested attention implementation.
        adapter: The adapter of its family.
    """

    hf: Any
    adapter: Adapter

    @cached_property
    def attentions(self) -> list[nn.Module]:
        """The attention module of each decoder layer with a softmax: all layers, unless the model is hybrid."""
        layers = self.adapter.layers(self.hf)
        return [mixer(layers[i]) for i in self.numbers]

    @cached_property
    def numbers(self) -> list[int]:
        """The number of the decoder layer of each of the `attentions`."""
        return [
            i
            for i, kind in enumerate(layer_kinds(self.adapter.layers(self.hf)))
            if kind in ("attention", "cross")
        ]

    def delta_values(self, inputs: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Returns each gated DeltaNet layer's values and outputs, (token, head, dim), of one unpadded sample.

        The values are the layer's own projection and short convolution of its input; the outputs are the input of its
        norm.
        """
        found: list[tuple[Tensor, Tensor]] = []
        nets: list[Any] = [
            one.linear_attn for one in self.adapter.layers(self.hf) if hasattr(one, "linear_attn")
        ]
        seen: dict[nn.Module, Tensor] = {}

        def enter(net: nn.Module, _: Any, output: Tensor) -> None:
            seen[net] = output

        def leave(net: Any, given: tuple[Any, ...]) -> None:
            """Keeps the values that a gated DeltaNet computes from its input, and the output of its rule."""
            mixed = seen[net.in_proj_qkv].transpose(1, 2)
            kernel = net.conv1d.weight.shape[-1]
            padded = torch.nn.functional.pad(mixed, (kernel - 1, 0))
            folded = torch.nn.functional.conv1d(
                padded, net.conv1d.weight, net.conv1d.bias, groups=mixed.shape[1]
            )
            values = torch.nn.functional.silu(folded)[0, -net.value_dim :].T
            made, left = (
                at_least_float32(one).reshape(mixed.shape[2], -1, net.head_v_dim)
                for one in (values, given[0])
            )
            found.append((made, left))

        handles = [net.in_proj_qkv.register_forward_hook(enter) for net in nets]
        handles += [
            net.norm.register_forward_pre_hook(lambda _, given, net=net: leave(net, given)) for net in nets
        ]
        try:
            self.logits(inputs)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def logits(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "sample token_id"]:
        """Returns the logits after the last token, without gradients and without a cache.

        The token is given by its position. Given the number of tokens to keep instead, layers without keys of their own
        (Gemma 4) would leave out the other rows.
        """
        last = torch.tensor([inputs["input_ids"].shape[1] - 1], device=inputs["input_ids"].device)
        with torch.no_grad():
            found = self.hf(**self._cast(inputs), logits_to_keep=last, use_cache=False, return_dict=True)
        return found.logits[:, -1]

    def reading(
        self,
        inputs: Mapping[str, Tensor],
        keep: Callable[[Float[Tensor, "sample head query key"]], Tensor],
    ) -> tuple[Float[Tensor, "sample token_id"], list[Tensor]]:
        """Returns the logits and, for each layer, `keep` of its attention weights. Needs eager attention."""
        kept: list[Tensor] = []
        with self.hooked(lambda _, weights: kept.append(keep(at_least_float32(weights)))):
            return self.logits(inputs), kept

    def following(
        self, inputs: Mapping[str, Tensor], ids: Sequence[int]
    ) -> tuple[list[list[Float[Tensor, "head key"]]], Float[Tensor, "step token_id"]]:
        """Runs transformers' own `generate` on one unpadded sample, with the given tokens as its answer.

        Returns:
            For each step and layer the last row of attention, over that layer's keys; the logits of each step.
        """
        rows: list[list[Tensor]] = []
        length = inputs["input_ids"].shape[1]

        def keep(layer: int, weights: Tensor) -> None:
            if layer == 0:
                rows.append([])
            rows[-1].append(weights[0, :, -1].float())

        with self.hooked(keep), torch.no_grad():
            found = self.hf.generate(
                **self._cast(inputs),
                max_new_tokens=len(ids),
                do_sample=False,
                num_beams=1,
                prefix_allowed_tokens_fn=lambda _, so_far: [ids[len(so_far) - length]],
                output_logits=True,
                return_dict_in_generate=True,
            )
        return rows, torch.stack(found.logits)[:, 0]

    def gradients(self, inputs: Mapping[str, Tensor]) -> list[Float[Tensor, "head key"]]:
        """Returns the gradient of the top log-probability with respect to each layer's last row."""
        weights: list[Tensor] = []
        with self.hooked(lambda _, one: weights.append(one)):
            logits = self.hf(**self._cast(inputs), use_cache=False).logits
        top = at_least_float32(logits[0, -1]).log_softmax(-1).max()
        return [at_least_float32(one[0, :, -1]) for one in torch.autograd.grad(top, weights)]

    def _cast(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the inputs with pixels in the model's dtype."""
        kind = self.hf.dtype
        return {name: one.to(kind) if one.is_floating_point() else one for name, one in inputs.items()}

    @contextmanager
    def hooked(self, see: Callable[[int, Tensor], None]) -> Iterator[None]:
        """Calls `see` with every layer's attention weights (sample, head, query, key) in every pass."""

        def hook(layer: int) -> Callable[..., None]:
            return lambda module, arguments, output: see(layer, output[1])

        handles = [m.register_forward_hook(hook(i)) for i, m in enumerate(self.attentions)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def hiding(
        self, hidden: Callable[[int, int, int, int], Bool[Tensor, "head query key"] | None], mode: str
    ) -> Iterator[None]:
        """Leaves out hidden keys in each layer's own eager attention.

        Args:
            hidden: Function of (layer, pass, number of queries, number of keys) that returns which keys are hidden
                from which queries, or None. Passes count from 0.
            mode: "renormalise": hidden keys are masked. "zero": their weights become 0 after the softmax.
        """
        home: Any = sys.modules[type(self.attentions[0]).__module__]
        own = home.eager_attention_forward
        layers = dict(zip(self.attentions, self.numbers, strict=True))
        passes = Counter[int]()

        def attend(
            module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
        ) -> tuple[Tensor, Tensor]:
            """The module's own eager attention without the hidden keys."""
            flags = None
            if module in layers:
                layer = layers[module]
                flags = hidden(layer, passes[layer], query.shape[2], key.shape[2])
                passes[layer] += 1
            if flags is None:
                return own(module, query, key, value, mask, **options)
            flags = flags.to(query.device)
            if mode == "renormalise":
                mask = query.new_zeros(1, 1, *flags.shape[1:]) if mask is None else mask
                closed = mask.masked_fill(flags, torch.finfo(mask.dtype).min)
                return own(module, query, key, value, closed, **options)
            weights = own(module, query, key, value, mask, **options)[1].masked_fill(flags, 0)
            repeated = value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)
            return (weights @ repeated).transpose(1, 2).contiguous(), weights

        home.eager_attention_forward = attend
        try:
            yield
        finally:
            home.eager_attention_forward = own


def at_least_float32(values: Tensor) -> Tensor:
    """Returns half precision as float32, and float32 and float64 as they are."""
    return values.float() if values.itemsize < 4 else values


def finer_reference(hf: Any, adapter: Adapter) -> Reference:
    """Returns eager attention on a copy of the weights in the next wider type: float32 of half precision, else float64.

    The copy takes twice the memory of the weights. Its experts are computed one by one: PyTorch has no grouped product
    of float64 matrices.
    """
    wider = torch.float32 if hf.dtype.itemsize < 4 else torch.float64
    copy = second_instance(hf, "eager").to(wider)
    if wider is torch.float64:
        copy.set_experts_implementation("eager")
    return Reference(copy, adapter)


def reference(hf: Any, adapter: Adapter, attention: str) -> Reference:
    """Returns a model of the same class and weights whose language model uses the implementation `attention`.

    Its vision tower keeps the original's implementation. Nothing is copied; see `second_instance`.
    """
    return Reference(second_instance(hf, attention), adapter)


class RowGroup(NamedTuple):
    """Layers whose rows have the same keys.

    Attributes:
        layers: The layers, increasing.
        places: The places of these layers among all layers with a softmax.
        keys: The `keys` of a site for all of their keys: "all" for the sequence, "image" for cross-attention layers.
    """

    layers: tuple[int, ...]
    places: tuple[int, ...]
    keys: str

    def read(self, queries: Any) -> Rows:
        """Returns the read of these rows."""
        return Rows(Site(layers=self.layers, queries=queries, keys=self.keys))

    def of(
        self, layers: Sequence[Tensor], tokens: TokenMap, step: int = 0
    ) -> Float[np.ndarray, "layer *_ key"]:
        """Returns the group's rows over the prompt's positions, or the image's columns, from those of all layers.

        Args:
            layers: Eager attention of one sample in every layer with a softmax, (…, key).
            tokens: Where its tokens are.
            step: The number of tokens generated before. Columns that a sliding layer lacks become 0.
        """
        length = tokens.length
        found = []
        for place in self.places:
            row = layers[place].cpu()
            if self.keys == "image":
                found.append(row[..., torch.from_numpy(tokens.image.copy())])
            else:
                missing = length + step - row.shape[-1]
                found.append(torch.nn.functional.pad(row, (missing, 0))[..., :length])
        return torch.stack(found).numpy()


def row_groups(mllm: Mllm) -> list[RowGroup]:
    """Returns the groups of layers with a softmax: those that attend to the sequence and, if any, to the image."""
    softmax = [i for i, kind in enumerate(mllm.layer_kinds) if kind in ("attention", "cross")]
    found = []
    for kind, keys in (("attention", "all"), ("cross", "image")):
        layers = tuple(i for i, one in enumerate(mllm.layer_kinds) if one == kind)
        found += [RowGroup(layers, tuple(softmax.index(i) for i in layers), keys)] if layers else []
    return found


def image_layers(mllm: Mllm) -> tuple[int, ...]:
    """Returns the layers whose keys the image tokens are among."""
    return mllm.cross_layers or mllm.attention_layers
