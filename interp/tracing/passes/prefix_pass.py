"""Runs prefixes, and finds the one that a pass goes on from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer, LinearAttentionLayer

from interp.errors import ModelError
from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.models.base import image_reads_prompt
from interp.tracing.cost import Cost, Meter
from interp.tracing.encoding.batch import PER_TOKEN, Batch, sliced
from interp.tracing.passes.non_finite import check_prefix
from interp.tracing.passes.run import PassCompleteError, run_pass
from interp.tracing.prefix import (
    Prefix,
    Stop,
    exact,
    expanded,
    prefix_lengths,
    prefix_lines,
    serving,
    states_of,
)
from interp.tracing.site import LayerKind
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["Samples", "given_as", "make_prefix", "meant_prompt", "prefix_before", "run_prefix"]

Samples: TypeAlias = Sample | Iterable[Sample] | Batch | Prefix
"""One batch: samples, encoded or not, or a prefix that has been run, whose cost is not counted again."""


def given_as(mllm: WrappedModel, samples: Samples, prompt: Prompt | None) -> Batch | Prefix:
    """The samples under a prompt, encoded once for all passes; a prefix stays one where the prompt begins with it.

    Raises:
        ModelError: A prefix of another model.
        SampleError, PromptError, ImageTokenMismatch: As in `Mllm.encode`.
    """
    if not isinstance(samples, Batch | Prefix):
        return mllm.encode(samples, meant_prompt(samples, prompt))
    if isinstance(samples, Prefix) and samples.owner is not mllm.installation:
        raise ModelError("this prefix was made by another model; make one with this model's prefix().")
    own = samples.batch if isinstance(samples, Prefix) else samples
    if prompt is None or prompt == own.prompt:
        return samples
    again = mllm.encoder.again(own, prompt)
    return samples.of(again) if isinstance(samples, Prefix) and samples.begins(again) else again


def meant_prompt(samples: Samples, prompt: Prompt | None) -> Prompt:
    """The prompt given, else the one the batch or prefix was encoded with, else `PAPER_PROMPT`."""
    if prompt is not None:
        return prompt
    own = samples.batch if isinstance(samples, Prefix) else samples
    return own.prompt if isinstance(own, Batch) else PAPER_PROMPT


def make_prefix(
    mllm: WrappedModel,
    samples: Sample | Iterable[Sample] | Batch,
    prompt: Prompt | None = None,
    stop: Stop = "image",
) -> Prefix:
    """The prefix of a batch; see `Mllm.prefix`."""
    if isinstance(samples, Prefix):
        raise ModelError("prefix takes samples or a batch; got a prefix. Use it as it is.")
    with Meter(mllm.device) as meter:
        batch = given_as(mllm, samples, prompt)
        assert isinstance(batch, Batch)
        found = _found_or_run(mllm, batch, prefix_lengths(batch, stop), meter)
    return replace(found, cost=meter.cost)


def prefix_before(
    mllm: WrappedModel,
    given: Batch | Prefix,
    first_rows: Sequence[int | None],
    meter: Meter,
    *,
    generate: int = 0,
) -> Prefix | None:
    """The prefix that a pass goes on from; None where whole prompts have to run.

    It is the one given, or one found or made, where samples share it or the model shares prefixes among traces.
    Whether there is one depends on this pass alone, not on what ran before it nor on what else may use the prefix.

    Args:
        mllm: the model.
        given: the batch, or a prefix with the batch that it is to serve.
        first_rows: the earliest row of each prompt that is read or edited, None for none.
        meter: counts the pass over a prefix that had to be made.
        generate: how many tokens follow the prompts at most.
    """
    if isinstance(given, Prefix):
        return serving(given, given.batch, mllm.visibility, first_rows, generate)
    if mllm.server is not None or mllm.maps == "cross" or not given.prompt.image_first:
        return None
    lengths = tuple(tokens.image_end for tokens in given.tokens)
    if not all(lengths):  # a sample without image tokens
        return None
    if not exact(lengths, given.tokens, mllm.visibility, first_rows, generate):
        return None
    if mllm.prefixes is None and len(set(prefix_lines(given, lengths))) == len(given):
        return None
    return _found_or_run(mllm, given, lengths, meter)


def _found_or_run(mllm: WrappedModel, batch: Batch, lengths: tuple[int, ...], meter: Meter) -> Prefix:
    """The prefix of a batch, without its cost; it is empty where rows in it see what follows or need passes apart.

    So it is of a model on a server, and of one whose images are no part of the sequence: passes then run whole prompts.

    Samples whose prompts begin with the same images and tokens have it run once.
    """
    lines = prefix_lines(batch, lengths)
    firsts = [lines.index(line) for line in range(max(lines) + 1)]
    own, heads = mllm.encoder.part(batch, firsts), tuple(lengths[i] for i in firsts)

    def make() -> Prefix:
        """Runs the different prefixes, and checks what they hold."""
        # nothing is kept there, no rows hold the image, or it is another for each prompt
        if mllm.server is not None or mllm.maps == "cross" or image_reads_prompt(mllm.adapter):
            return Prefix(own, heads, (), (), Cost(), mllm.installation)
        closed = mllm.visibility.closed(own.tokens, heads)
        closed = closed and mllm.visibility.rope.shared(heads)
        with mllm.installation.armed({}), torch.no_grad():
            layers = (
                run_prefix(mllm.hf, own, heads, mllm.layer_kinds, mllm.key_layers, meter) if closed else []
            )
            layers = expanded(mllm.adapter.layers(mllm.hf), layers)
        check_prefix(mllm, own, heads, layers)
        keys, values = zip(*layers, strict=True) if layers else ((), ())
        linear = frozenset(mllm.linear_heads)
        return Prefix(own, heads, keys, values, Cost(), mllm.installation, linear=linear)

    found = make() if mllm.prefixes is None else mllm.prefixes.of(own, heads, make)
    return found if len(firsts) == len(batch) else replace(found, batch=batch, lengths=lengths, lines=lines)


def run_prefix(
    hf: Any,
    batch: Batch,
    lengths: tuple[int, ...],
    kinds: Sequence[LayerKind],
    key_layers: Sequence[int],
    meter: Meter,
) -> list[tuple[Tensor, Tensor]]:
    """The keys and values of each layer, (sample, key_value_head, key, dim), of left-padded prefixes.

    Layers that share keys have the same tensors; `key_layers` says whose they are. Of a gated DeltaNet ("linear" in
    `kinds`) they are the states of its convolution and its recurrence; a short convolution has the former alone.
    """
    starts = batch.pad.tolist()
    stops = [start + n for start, n in zip(starts, lengths, strict=True)]
    inputs = {
        name: sliced(value, starts, stops, batch.pad_id if name == "input_ids" else 0)
        if name in PER_TOKEN
        else value
        for name, value in batch.inputs.items()
    }
    inputs["position_ids"] = sliced(batch.positions, starts, stops)
    last = max(key_layers)
    layers: list[Any] = [
        DynamicLayer() if kind == "attention" else LinearAttentionLayer() for kind in kinds[:last]
    ]
    layers.append(_LAST[kinds[last]]())
    with suppress(PassCompleteError):
        run_pass(hf, inputs, meter, cache=Cache(layers=[*layers]))
    return [
        (layers[i].keys, layers[i].values) if kinds[i] == "attention" else states_of(layers[i])
        for i in key_layers
    ]


class _Last(DynamicLayer):
    """The cache of the last layer with keys, which ends the pass: nothing that comes after it is needed."""

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Keeps the keys and values and ends the pass."""
        super().update(*args, **kwargs)
        raise PassCompleteError


class _LastState(LinearAttentionLayer):
    """The cache of the last layer where that is a gated DeltaNet; it ends the pass."""

    def update_recurrent_state(self, *args: Any, **kwargs: Any) -> Any:
        """Keeps the state and ends the pass."""
        super().update_recurrent_state(*args, **kwargs)
        raise PassCompleteError


class _LastConvolution(LinearAttentionLayer):
    """The cache of the last layer where that is a short convolution; it ends the pass."""

    def update_conv_state(self, *args: Any, **kwargs: Any) -> Any:
        """Keeps the state and ends the pass."""
        super().update_conv_state(*args, **kwargs)
        raise PassCompleteError


_LAST: dict[LayerKind, type[Any]] = {
    "attention": _Last,
    "linear": _LastState,
    "convolution": _LastConvolution,
}
