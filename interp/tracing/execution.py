"""Carries out reads and edits in one run of a model, whichever executor does it; not yet labelled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import EditError, ModelError, PromptError, ServerError, SiteError
from interp.inputs.prompt import Prompt
from interp.inputs.tokens import Word
from interp.tracing.activation_edits import FeatureEdit
from interp.tracing.attention.edit_cells import Live
from interp.tracing.cost import Meter
from interp.tracing.edits import AttentionEdit, Edit, check_edits
from interp.tracing.encoding.batch import Batch, Layout
from interp.tracing.executors.hooks import COLLECTOR
from interp.tracing.executors.source import source_pass
from interp.tracing.layers.layer_plan import LayerPlan, Recorder, make_plan
from interp.tracing.layers.layer_work import DeltaWork, LayerWork
from interp.tracing.layers.mlp_and_experts import MLP_SIDES, MLPWork, RouterWork, mlp_work, routing_work
from interp.tracing.layers.request import Request, resolve
from interp.tracing.layers.residual import StreamWork, make_stream_plan
from interp.tracing.layers.vision_request import Tower, VisionSelection
from interp.tracing.passes.decoding import Decoding
from interp.tracing.passes.micro_batches import Places
from interp.tracing.passes.non_finite import refuse
from interp.tracing.passes.prefix_pass import Samples, given_as, prefix_before
from interp.tracing.passes.run import ContrastStream, Generation, Outcome, run, with_imageless
from interp.tracing.passes.second_stream import combination, second_inputs
from interp.tracing.prefix import Prefix, pass_inputs, pass_layout, prefix_lines
from interp.tracing.reads import MLP, Experts, Read, of_tower
from interp.tracing.values import for_samples
from interp.tracing.vision_tower import VisionWork, make_vision_work
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["apart", "check_arguments", "check_decoding", "ends", "execute"]


def apart(
    mllm: WrappedModel, samples: Samples, prompt: Prompt | None, reads: Sequence[Read], edits: Sequence[Edit]
) -> list[tuple[Places, Batch | Prefix, list[Read], list[Edit]]] | None:
    """The samples that need passes of their own, group by group, each with its places and its part of reads and edits.

    None where one pass will do.

    Raises:
        SampleError, PromptError, ImageTokenMismatch: As in `Mllm.encode`.
        SiteError, EditError: Another number of masks or values than samples.
    """
    if not mllm.rope.scalings and mllm.maps != "cross":
        return None
    given = given_as(mllm, samples, prompt)
    batch = given.batch if isinstance(given, Prefix) else given
    groups = _groups(mllm, batch)
    if len(groups) == 1:
        return None
    found = []
    for at in map(tuple, groups):
        part = mllm.encoder.part(batch, at)
        own = given.part(at, part) if isinstance(given, Prefix) else part
        found.append((at, own, for_samples(reads, at, len(batch)), for_samples(edits, at, len(batch))))
    return found


def _groups(mllm: WrappedModel, batch: Batch) -> list[list[int]]:
    """The samples that may share a pass: of one range of rotary positions, and with as many keys of images.

    A row before the image sees every key of a cross-attention layer, those of padding too, so that a sample beside one
    with more images would not be what it is alone.
    """
    found = []
    n_keys = [0 if tokens.cross is None else tokens.cross.n for tokens in batch.tokens]
    for group in mllm.rope.groups(batch.extents) if mllm.rope.scalings else [range(len(batch))]:
        found += [[i for i in group if n_keys[i] == n] for n in sorted({n_keys[i] for i in group})]
    return found


def execute(
    mllm: WrappedModel,
    samples: Samples,
    prompt: Prompt | None,
    reads: Sequence[Read],
    edits: Sequence[Edit],
    meter: Meter,
    *,
    generation: Callable[[Batch], Generation | None] = lambda _: None,
    decoding: Decoding = Decoding(),  # noqa: B008 - frozen
    keep: int = 1,
) -> tuple[Batch, Request, Outcome]:
    """One run, not yet labelled: its batch, its request, and its outcome.

    Args:
        generation: How to generate after a batch; by default nothing.
        keep: How many last positions of the prompt the outcome's `tail` has logits of.
        mllm, samples, prompt, reads, edits, decoding: As in `Mllm.trace`.
        meter: Counts every pass.
    """
    if mllm.server is not None and any(isinstance(read, MLP) for read in reads):
        raise ServerError(
            "MLPs can be read only on this machine, not on a server. Load the model without remote=True, or read "
            "interp.Residual."
        )
    if mllm.server is not None:
        edits = [edit.sendable() if isinstance(edit, FeatureEdit) else edit for edit in edits]
    given = given_as(mllm, samples, prompt)
    batch = given.batch if isinstance(given, Prefix) else given
    request = _request(mllm, batch, reads, edits)
    merged = _merged(mllm, given, reads, edits, decoding)
    if merged is not None:
        options = {"generation": generation, "decoding": decoding, "keep": keep}
        outcome = execute(mllm, merged[0], None, reads, edits, meter, **options)[2]
        return batch, request, outcome.of_lines(merged[1])
    how = generation(batch)
    if how is not None:
        batch.check_reach(mllm.rope.limit, how.n)
    first = [request.first_row(i) for i in range(len(batch))]
    before = prefix_before(mllm, given, first, meter, generate=0 if how is None else how.n)
    with torch.no_grad():
        outcome = _run(mllm, batch, before, request, meter, how, decoding, keep)
    refuse(mllm, batch, outcome.lost, edits)
    return batch, request, outcome


def _request(mllm: WrappedModel, batch: Batch, reads: Sequence[Read], edits: Sequence[Edit]) -> Request:
    """What reads and edits cover in a batch."""
    tower = None
    if any(map(of_tower, (*reads, *edits))):
        tower = Tower(batch.patches, mllm.n_vision_layers, mllm.n_vision_heads)
    return resolve(
        reads,
        edits,
        batch.tokens,
        n_layers=mllm.n_layers,
        n_heads=mllm.n_heads,
        linear=mllm.linear_heads,
        visibility=mllm.visibility,
        routed=mllm.routers if any(isinstance(read, Experts) for read in reads) else (),
        tower=tower,
        cross=mllm.cross_layers,
    )


def _merged(
    mllm: WrappedModel,
    given: Batch | Prefix,
    reads: Sequence[Read],
    edits: Sequence[Edit],
    decoding: Decoding,
) -> tuple[Batch | Prefix, tuple[int, ...]] | None:
    """One sample for each different prompt, with its prefix, and the number of the one that each sample equals.

    None where all differ, or where equal samples may be treated differently: by edits, draws, or reads by position.
    """
    batch = given.batch if isinstance(given, Prefix) else given
    named = all(isinstance(one, str | Word) for read in reads for group in read.site.groups for one in group)
    if len(batch) == 1 or edits or not named or decoding != Decoding():
        return None
    numbers = prefix_lines(batch, [tokens.length for tokens in batch.tokens])
    firsts = [numbers.index(number) for number in range(max(numbers) + 1)]
    if len(firsts) == len(batch):
        return None
    small = mllm.encoder.part(batch, firsts)
    return (given.part(firsts, small) if isinstance(given, Prefix) else small), numbers


def check_arguments(reads: Sequence[Read], edits: Sequence[Edit], generate: int) -> None:
    """Raise for reads, edits or a number of tokens of the wrong type, and for reads that would never have a row."""
    if not isinstance(reads, Sequence) or isinstance(reads, str | bytes):
        write = f"Write reads=[{reads!r}]." if isinstance(reads, Read) else "Write reads=[interp.Rows()]."
        raise SiteError(f"reads= is a list of reads; got {reads!r:.300}. {write}")
    check_edits(edits)
    if isinstance(generate, bool) or not isinstance(generate, Integral) or generate < 0:
        raise PromptError(f"generate= is a number of tokens, 0 or more; got {generate!r}.")
    rows_of = "gives none of them a row (the prompt's last row predicts the first token)."
    for read in reads:
        if isinstance(read, Read) and read.site.groups[0] == ("answer",) and generate < 2:
            raise SiteError(
                f'queries="answer" are the rows of generated tokens, but generate={generate} {rows_of} Ask for '
                "generate=2 or more."
            )
    for edit in (e for e in edits if isinstance(e, Edit)):
        decode_only = edit.steps == "decode" or (isinstance(edit, AttentionEdit) and not edit.prefill_queries)
        if decode_only and generate < 2:
            raise EditError(
                f"{edit!r} applies to the rows of generated tokens, but generate={generate} {rows_of} Ask for "
                "generate=2 or more."
            )


def check_decoding(decoding: Decoding, seed: int | None) -> None:
    """Raise `PromptError` for a decoding or a seed of the wrong type, or for draws without a seed."""
    if not isinstance(decoding, Decoding):
        raise PromptError(f"decoding= is an interp.Decoding; got {decoding!r}.")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, Integral)):
        raise PromptError(f"seed= is a whole number, or None; got {seed!r:.100}.")
    if seed is not None and not -(2**63) <= seed < 2**63:
        raise PromptError(f"seed= is a whole number of 64 bits; got {seed!r:.100}.")
    if decoding.temperature and seed is None:
        raise PromptError("drawing tokens (temperature > 0) needs seed=, so that the run can be repeated.")


def _run(
    mllm: WrappedModel,
    batch: Batch,
    before: Prefix | None,
    request: Request,
    meter: Meter,
    generation: Generation | None,
    decoding: Decoding,
    keep: int,
) -> Outcome:
    """One run of the model inside an nnsight trace, which is handed the whole outcome, once."""
    work, contrast = _pass_work(mllm, batch, before, request, generation), decoding.contrast
    second = {} if contrast is None else second_inputs(mllm, batch, contrast)
    if mllm.server is not None:
        given = batch if contrast is None else with_imageless(batch, second)
        tower = None if work.vision is None else (work.vision.without_modules(), mllm.vision_views)
        options = {"tower": tower, "generation": generation, "contrast": contrast, "keep": keep}
        own = work.attention, work.streams, work.routing, work.recorder
        return mllm.server.run(given, *own, meter, **options)
    inputs, cache = pass_inputs(batch, before)
    stream = None
    if contrast is not None:
        combine = combination(mllm, batch, contrast)
        stream = ContrastStream(mllm.hf, second, combine, work.recorder, meter)
    options = {"cache": cache, "generation": generation, "contrast": stream, "keep": keep}
    once = partial(run, mllm.hf, inputs, work.recorder, meter, **options)
    by_executor = _by_source if mllm.executor == "source" else _by_tap
    outcome = by_executor(mllm, work, once)
    if work.vision is not None:
        work.vision.check()
    return outcome


@dataclass(frozen=True)
class _PassWork:
    """What is done during a run.

    Attributes:
        attention: The work in the attention, or the gated DeltaNet, of each layer that has some.
        streams: The work in the residual stream after each layer that has some.
        routing: The work in the router of each layer that has some.
        mlps: The work at the MLP of each layer that has some.
        vision: The work in the vision tower; None where there is none.
        recorder: Holds what is read.
    """

    attention: Mapping[int, Any]
    streams: Mapping[int, StreamWork]
    routing: Mapping[int, RouterWork]
    mlps: Mapping[int, MLPWork]
    vision: VisionWork | None
    recorder: Recorder


def _pass_work(
    mllm: WrappedModel, batch: Batch, before: Prefix | None, request: Request, generation: Generation | None
) -> _PassWork:
    """What reads and edits do in each part of the model."""
    layout, recorder, devices = pass_layout(batch, before), Recorder(), mllm.layer_devices
    stages = None if generation is None else generation.stages
    lives = None if stages is None else stages.lives
    routed = make_stream_plan(request, layout, devices, "experts")
    paths = mllm.routers if routed.prefill or routed.decode else {}
    at_mlp = [make_stream_plan(request, layout, devices, f"mlp_{side}") for side in MLP_SIDES]
    busy = any(plan.prefill or plan.decode for plan in at_mlp)
    return _PassWork(
        attention=_work(mllm, request, layout, before, recorder, lives),
        streams=make_stream_plan(request, layout, devices).work(recorder),
        routing=routing_work(routed, mllm.installation.layers, paths, recorder),
        mlps=mlp_work(at_mlp[0], at_mlp[1], mllm.installation.layers, mllm.routers, recorder) if busy else {},
        vision=_vision(mllm, request, recorder),
        recorder=recorder,
    )


def _vision(mllm: WrappedModel, request: Request, recorder: Recorder) -> VisionWork | None:
    """What to do in the vision tower; None where nothing is."""
    if request.tower is None:
        return None
    reads = {n: one for n, one in enumerate(request.selections) if isinstance(one, VisionSelection)}
    attentions = mllm.vision_attentions
    own = (attentions, recorder, mllm.family, None if mllm.server is None else mllm.device)
    return make_vision_work(reads, request.vision_edits, request.tower, *own)


def _work(
    mllm: WrappedModel,
    request: Request,
    layout: Layout,
    before: Prefix | None,
    recorder: Recorder,
    lives: list[Live] | None = None,
) -> dict[int, Any]:
    """What to do in which layer's attention, or DeltaNet; after a prefix all attention needs its keys and values."""
    plan = make_plan(request, layout, mllm.shape, lives)
    none = LayerPlan()
    busy = {*plan.prefill, *plan.decode}
    layers = sorted(busy if before is None else {*busy, *mllm.attention_layers})
    lines: dict[torch.device, Tensor] = {}
    by_source, kinds = mllm.executor == "source", mllm.layer_kinds
    if before is not None and before.lines is not None and not before.in_turn and not by_source:
        numbers = torch.tensor(before.lines)
        lines = {device: numbers.to(device) for device in {one.device for one in before.keys}}

    def held(layer: int) -> tuple[Tensor, Tensor] | None:
        if before is None:
            return None
        return before.layer(layer) if by_source else (before.keys[layer], before.values[layer])

    def numbers_of(layer: int) -> Tensor | None:
        return None if before is None else lines.get(before.keys[layer].device)

    def made(layer: int) -> Any:
        own = plan.prefill.get(layer, none), plan.decode.get(layer, none)
        if kinds[layer] == "linear":
            return DeltaWork(*own, recorder)
        return LayerWork(*own, recorder, held(layer), numbers_of(layer))

    return {i: made(i) for i in layers}


def _by_tap(mllm: WrappedModel, work: _PassWork, run: Callable[..., Outcome]) -> Outcome:
    """The run with its layers armed, inside an nnsight trace that is handed the whole outcome, once."""

    def collect(_: Tensor) -> Outcome:
        return mllm.installation.collector(run())

    collector = getattr(mllm.nn, COLLECTOR)
    tower = nullcontext() if work.vision is None else work.vision.armed()
    # nnsight wants an input; `collect` has its own
    armed = mllm.installation.armed(work.attention, work.streams, work.routing, work.mlps)
    with armed, tower, mllm.nn.trace(torch.zeros(1), fn=collect):
        outcome = collector.output.save()
    return outcome  # noqa: RET504 - nnsight assigns it when the block ends


def _by_source(mllm: WrappedModel, work: _PassWork, run: Callable[..., Outcome]) -> Outcome:
    """The run as one nnsight trace per pass; the vision tower runs in the first."""
    own = work.attention, work.streams, work.routing, work.mlps

    def within(one_pass: Callable[[], Tensor]) -> Tensor:
        collect = mllm.installation.collector
        seen = () if work.vision is None or work.recorder.step else work.vision.seen_by(mllm.vision_views)
        return source_pass(mllm.nn, mllm.layers, *own, lambda: collect(one_pass()), seen)

    with mllm.installation.armed({}):
        return run(within=within)


def ends(mllm: WrappedModel) -> frozenset[int]:
    """Token ids that end an answer.

    Raises:
        ModelError: The settings name something that is no token of the model.
    """
    own = mllm.processor.tokenizer.eos_token_id
    found = getattr(getattr(mllm.hf, "generation_config", None), "eos_token_id", None)
    found = own if found is None else found
    if isinstance(found, Tensor | np.ndarray):
        found = found.tolist()
    given = () if found is None else found if isinstance(found, list | tuple | set | frozenset) else (found,)
    n_ids = mllm.vocabulary_size
    for one in given:
        if isinstance(one, bool) or not isinstance(one, Integral) or not 0 <= int(one) < n_ids:
            raise ModelError(
                f"generation_config.eos_token_id is a token id from 0 to {n_ids - 1}, a list of them, or None; got "
                f"{found!r:.100}. Set mllm.hf.generation_config.eos_token_id = {own!r}, the tokenizer's."
            )
    return frozenset(map(int, given))
