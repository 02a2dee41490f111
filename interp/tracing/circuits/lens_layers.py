"""Circuits through TransformerLens: its bridge's layers, with inputs split by head, run what an `EdgeStream` gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ModelError
from interp.inputs.text import brief
from interp.tracing.circuits.edge_pass import PlainPass, RunLayers, check_layers
from interp.tracing.circuits.edge_stream import EdgeStream
from interp.tracing.layers.visibility import settle
from interp.tracing.lens.bridge import build_bridge
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["lens_layers", "repeat_keys"]


def lens_layers(mllm: WrappedModel) -> RunLayers:
    """Runs a decoder by TransformerLens: at the hooks of its bridge each receiver's input is put in place.

    Heads read at `hook_q_input`, `hook_k_input` and `hook_v_input`, MLPs at `hook_mlp_in`, the answer at the last
    `hook_resid_post`; heads write at `hook_result` and MLPs at `hook_mlp_out`. The bridge is of a second instance on
    the same weights, in which a key head that several query heads share stands once for each of them
    (`repeat_keys`), since TransformerLens splits keys and values by key head.

    Raises:
        ModelError: A model that circuits are not for, that TransformerLens has no adapter for, or whose heads its
            bridge does not split (such as Qwen2.5-VL's).
    """
    check_layers(mllm)

    def change(second: Any) -> None:
        repeat_keys(second, mllm.adapter.layers(second), mllm.n_heads)

    bridge = build_bridge(mllm.hf, mllm.family, change)
    try:
        bridge.set_use_attn_result(True)
        bridge.set_use_split_qkv_input(True)
        bridge.set_use_hook_mlp_in(True)
    except NotImplementedError as error:
        raise ModelError(
            f"TransformerLens splits no inputs by head in {mllm.family} ({brief(str(error))}). Take "
            'executor="transformers", which runs the model\'s own layers.'
        ) from error
    layers: list[Any] = list(mllm.adapter.layers(mllm.hf))
    biases: list[Tensor | None] = [layer.self_attn.o_proj.bias for layer in layers]

    def run(model: WrappedModel, seen: PlainPass, stream: EdgeStream) -> Float[Tensor, " token_id"]:
        inputs = {**seen.batch.inputs, "position_ids": seen.batch.positions}
        settle(bridge.original_model, inputs)
        ids = inputs.pop("input_ids")
        with bridge.hooks(fwd_hooks=_hooks(stream, biases)):
            logits = bridge(ids, **inputs, use_cache=False, logits_to_keep=1)
        return logits[0, -1]

    return run


def repeat_keys(hf: Any, layers: Any, n_heads: int) -> None:
    """Gives every query head a key head and a value head of its own, equal to the one it shared: the same attention.

    Takes the memory of the key and value projections, once for each query head that shared one.

    Args:
        hf: The model, changed in place; its tensors are replaced, not written into.
        layers: Its decoder layers.
        n_heads: The query heads of each.
    """
    for layer in layers:
        attention = layer.self_attn
        for name in ("k_proj", "v_proj"):
            _repeat(getattr(attention, name), attention.head_dim, n_heads)
        attention.num_key_value_groups = 1
    hf.config.get_text_config(decoder=True).num_key_value_heads = n_heads


def _repeat(projection: Any, dim: int, n_heads: int) -> None:
    times = n_heads * dim // projection.weight.shape[0]
    for name, value in tuple(projection.named_parameters(recurse=False)):
        repeated = value.detach().unflatten(0, (-1, dim)).repeat_interleave(times, dim=0).flatten(0, 1)
        setattr(projection, name, nn.Parameter(repeated, requires_grad=False))
    projection.out_features = n_heads * dim


def _hooks(stream: EdgeStream, biases: list[Tensor | None]) -> list[tuple[str, Callable[..., Any]]]:
    found: list[tuple[str, Callable[..., Any]]] = []
    for i, bias in enumerate(biases):
        block = f"blocks.{i}"
        given: list[Tensor] = []

        def heads_read(value: Tensor, hook: Any, i: int = i, given: list[Tensor] = given) -> Tensor:
            if not given:
                given.append(stream.heads_read(i).transpose(0, 1)[None].to(value))
            return given[0]

        def heads_write(value: Tensor, hook: Any, bias: Tensor | None = bias) -> None:
            stream.write_heads(value[0].transpose(0, 1), 0.0 if bias is None else bias.float())

        def mlp_reads(value: Tensor, hook: Any, i: int = i) -> Tensor:
            return stream.mlp_reads(i)[None].to(value)

        def mlp_writes(value: Tensor, hook: Any) -> None:
            stream.write_mlp(value[0])

        found += [(f"{block}.attn.hook_{one}_input", heads_read) for one in "qkv"]
        found += [
            (f"{block}.attn.hook_result", heads_write),
            (f"{block}.hook_mlp_in", mlp_reads),
            (f"{block}.hook_mlp_out", mlp_writes),
        ]

    def answer_reads(value: Tensor, hook: Any) -> Tensor:
        return stream.answer_reads()[None].to(value)

    return [*found, (f"blocks.{len(biases) - 1}.hook_resid_post", answer_reads)]
