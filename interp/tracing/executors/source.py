"""The source executor: the same plans, carried out by nnsight at the attention call in each layer's source code.

It adds nothing to the model but the collector, so it also serves models that cannot be tapped. Every layer hands its
queries, keys and values to nnsight, which costs Python time; the tap executor is the faster one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError
from interp.tracing.attention.rows import Call
from interp.tracing.executors.hooks import COLLECTOR
from interp.tracing.layers.decoder_layers import mixer
from interp.tracing.layers.layer_work import DeltaWork, LayerWork, Rule, rule_name, rules
from interp.tracing.layers.mlp_and_experts import MLPWork, RouterWork
from interp.tracing.layers.residual import StreamWork

__all__ = ["as_unified", "attention_call", "call_at", "carry_out_attention", "source_pass"]

Finishing = Callable[[Call, Tensor, Mapping[str, Any]], Tensor]
"""(call, its output, its keyword arguments) → the output that replaces it."""

_CALL = "attention_interface_"


def source_pass(
    nn: Any,
    layers: Sequence[Any],
    work: Mapping[int, LayerWork | DeltaWork],
    streams: Mapping[int, StreamWork],
    routing: Mapping[int, RouterWork],
    mlps: Mapping[int, MLPWork],
    one_pass: Callable[[], Tensor],
    tower: Sequence[tuple[Any, Finishing]] = (),
) -> Float[Tensor, "sample position token_id"]:
    """One forward pass under the work of its layers; what `one_pass` returned.

    Args:
        nn: the nnsight model, with the collector.
        layers: nnsight's views of the decoder layers.
        work: the work in the attention of each layer that has some.
        streams: the work on the output of each layer that has some.
        routing: the work on what the router returns, of each layer that has some.
        mlps: the work at the MLP of each layer that has some.
        one_pass: runs the model and hands its result through the collector.
        tower: nnsight's view of attention modules of the vision tower, in the order in which they run, each with what
            to do with its output; empty where nothing is.

    Raises:
        ModelError: Attention whose source does not call transformers' attention interface.
    """
    calls = {i: _call_of(layers[i], work[i]) for i in sorted(work)}
    known = {i: _rule_of(layers[i], one) for i, one in work.items() if isinstance(one, DeltaWork)}
    seen = [(attention_call(attention), finish) for attention, finish in tower]
    # nnsight wants an input; `one_pass` has its own, which need not be rows of tokens
    with nn.trace(torch.zeros(1), fn=lambda _: one_pass()):
        carry_out_tower(seen)
        for i in sorted({*calls, *routing, *mlps, *streams}):
            own = work.get(i)
            if isinstance(own, DeltaWork):
                carry_out_delta(calls[i], known[i], own)
            elif own is not None:
                positional, kwargs = calls[i].inputs
                carry_out_attention(calls[i], positional, kwargs, own)
            if i in routing:
                routing[i](router_output(layers[i], routing[i]))
            if i in mlps:
                carry_out_mlp(layers[i], mlps[i])
            if i in streams:
                entering = layers[i].output
                leaving = streams[i](entering)
                if leaving is not entering:
                    layers[i].output = leaving
        result = getattr(nn, COLLECTOR).output.save()
    return result  # noqa: RET504 - nnsight assigns it when the block ends


def carry_out_tower(calls: Sequence[tuple[Any, Finishing]]) -> None:
    """Carries out the work of a vision tower at nnsight's views of its attention calls, inside a trace.

    Args:
        calls: the views, in the order in which they run, each with what to do with its output.
    """
    for view, finish in calls:
        positional, kwargs = as_unified(*view.inputs)
        output = view.output
        finished = finish(Call.of(positional[0], positional[1:4], positional[4], kwargs), output[0], kwargs)
        view.output = (finished, *output[1:])


def router_output(layer: Any, work: RouterWork) -> Any:
    """What the router of a layer returned, by nnsight's view of the layer, inside a trace."""
    return reduce(getattr, work.path.split("."), layer).output


def carry_out_mlp(layer: Any, work: MLPWork) -> None:
    """Carries out work at a layer's MLP by nnsight's view of the layer, inside a trace."""
    given, view = layer.mlp.input, getattr(layer, work.path)
    output = view.output
    changed = work(given, output)
    if changed is not output:
        view.output = changed


def carry_out_attention(
    call: Any,
    positional: Sequence[Any],
    kwargs: Mapping[str, Any],
    work: LayerWork,
    n: int | None = None,
) -> None:
    """Carries out a layer's work at nnsight's view of its attention call, inside a trace.

    Args:
        call: the view.
        positional: the call's positional arguments, the first of its `inputs`.
        kwargs: the others.
        work: what to do.
        n: how many of the first samples it is for, where it is not for all; then without a prefix.
    """
    positional, kwargs = as_unified(positional, kwargs)
    made = Call.of(positional[0], positional[1:4], positional[4], kwargs, work.prefix)
    if n is not None:
        _carry_out_for(call, positional, kwargs, work, made, n)
        return
    mask = work.mask(made)
    if mask is not made.mask or work.prefix is not None:
        call.inputs = (_given(positional, made, positional[4] if mask is made.mask else mask), kwargs)
    output = call.output
    with torch.autocast(made.queries.device.type, enabled=False):  # own arithmetic stays float32
        finished = work.finish(made, output[0])
    if finished is not output[0]:
        call.output = (finished, *output[1:])


def _carry_out_for(
    view: Any, positional: Sequence[Any], kwargs: Mapping[str, Any], work: LayerWork, call: Call, n: int
) -> None:
    """Carries out a layer's work for the first `n` samples of a call; the others' attention is as it is."""
    mine, others = call.of_samples(slice(None, n)), call.of_samples(slice(n, None))
    mask = work.mask(mine)
    if mask is not mine.mask:
        assert mask is not None
        beside = others.dense_mask().expand(-1, mask.shape[1], -1, -1)
        view.inputs = (_given(positional, call, torch.cat([mask, beside.to(mask.device)])), kwargs)
    output = view.output
    with torch.autocast(call.queries.device.type, enabled=False):  # own arithmetic stays float32
        finished = work.finish(mine, output[0][:n])
    if work.plan.edits or work.plan.outputs:
        view.output = (torch.cat([finished, output[0][n:]]), *output[1:])


def carry_out_delta(call: Any, rule: Rule, work: DeltaWork) -> None:
    """Carries out a gated DeltaNet layer's work at nnsight's view of its rule's call, inside a trace.

    Args:
        call: the view.
        rule: the rule that is called there.
        work: what to do.
    """
    tensors, options = call.inputs
    output, state = call.output
    finished, left = work.finish(rule, tensors, options, output, state)
    if finished is not output or left is not state:
        call.output = (finished, left)


def _call_of(layer: Any, work: LayerWork | DeltaWork) -> Any:
    """nnsight's view of the call that a layer's work is done at."""
    if not isinstance(work, DeltaWork):
        return attention_call(mixer(layer))
    return getattr(layer.linear_attn.source, f"{rule_name(work.recorder.step)}_0")


def _rule_of(layer: Any, work: DeltaWork) -> Rule:
    """The rule of a gated DeltaNet layer that runs in this pass."""
    return rules(layer.linear_attn._module)[rule_name(work.recorder.step)]


def attention_call(attention: Any) -> Any:
    """nnsight's view of the call of the attention function in an attention module's source.

    Raises:
        ModelError: There is none.
    """
    names = [name for name in attention.source.names if name.startswith(_CALL)]
    if not names:
        raise ModelError(
            f"the source of {type(attention._module).__name__}.forward does not call transformers' attention "
            "interface, so the source executor cannot read its attention. Use a model class that does."
        )
    return getattr(attention.source, max(names, key=lambda name: int(name.removeprefix(_CALL))))


def call_at(view: Any) -> Call:
    """The call that nnsight's view of an attention call stands for, inside a trace."""
    positional, kwargs = as_unified(*view.inputs)
    return Call.of(positional[0], positional[1:4], positional[4], kwargs)


def as_unified(positional: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
    """The call's arguments with the mask fifth, however the model's source passes it."""
    rest = dict(kwargs)
    if len(positional) == 4:
        positional = (*positional, rest.pop("attention_mask", None))
    return positional, rest


def _given(positional: Sequence[Any], call: Call, mask: Any) -> tuple[Any, ...]:
    """The call's positional arguments with a prefix's keys and values joined in, and its mask."""
    keys, values = (
        segments[0] if len(segments) == 1 else torch.cat(_alike(segments), dim=2)
        for segments in (call.keys, call.values)
    )
    return (positional[0], call.queries, keys, values, mask, *positional[5:])


def _alike(segments: Sequence[Tensor]) -> list[Tensor]:
    """Segments with as many samples as the widest."""
    n = max(len(segment) for segment in segments)
    return [segment.expand(n, -1, -1, -1) for segment in segments]
