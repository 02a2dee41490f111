"""Runs the passes of a model: `run_pass` makes and counts each of them, `run` makes those of a trace.

A trace has a pass over the prompt or over what follows a prefix, one for each generated token, and those of the
contrast stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from interp.tracing.cost import Meter
from interp.tracing.encoding.batch import PER_ROW, PER_TOKEN, Batch, left_padded
from interp.tracing.layers.layer_plan import Recorder
from interp.tracing.layers.residual import side_by_side
from interp.tracing.layers.rope import position_ids, settle
from interp.tracing.reasoning import Stages
from interp.tracing.wrapped_model import WrappedModel

__all__ = [
    "ContrastStream",
    "Generation",
    "Outcome",
    "PassCompleteError",
    "Within",
    "embeddings",
    "image_features",
    "imageless_inputs",
    "next_tokens",
    "run",
    "run_pass",
    "whole_cache",
    "with_imageless",
    "without_choice",
]


Within = Callable[[Callable[[], Tensor]], Tensor]
"""Carries out a pass somewhere, such as inside an nnsight trace, and gives what the pass gave."""


Combine = Callable[[Tensor, Tensor], Tensor]
"""(logits, those of the second stream) → guided logits, all (sample, token_id)."""


class PassCompleteError(Exception):
    """Raised inside a pass to end it: nothing more of it is needed."""


def run_pass(
    hf: Any,
    inputs: Mapping[str, Tensor],
    meter: Meter,
    *,
    cache: Cache | None = None,
    keep: int = 1,
    n_tokens: int | None = None,
) -> Float[Tensor, "sample position token_id"]:
    """One pass through the model: the logits after its last positions, in the model's dtype.

    Args:
        hf: the transformers model.
        inputs: its arguments; `attention_mask` covers the cache too.
        meter: counts the pass.
        cache: keys and values that come before; those of the pass are added. None to keep none.
        keep: how many last positions' logits are wanted.
        n_tokens: token positions that go through the language model; by default those of the inputs.

    Raises:
        ModelError: samples whose rotary positions need passes of their own (`interp.tracing.layers.visibility`).
    """
    if n_tokens != 0:
        settle(hf, inputs)
    meter.forwards += 1
    meter.tokens += inputs["input_ids"].numel() if n_tokens is None else n_tokens
    use = {"past_key_values": cache, "use_cache": cache is not None}
    return hf(**inputs, **use, logits_to_keep=keep, return_dict=True).logits[:, -keep:]


@dataclass(frozen=True)
class Generation:
    """How to generate: at most `n` tokens as `draw` chooses them from the logits of each step.

    `ends` end an answer, `pad_id` fills what follows. `stages` tells edits of the thought or of the answer alone which
    of them a token belongs to, where there are such edits.
    """

    n: int
    ends: frozenset[int]
    pad_id: int
    draw: Callable[[Tensor], Tensor]
    stages: Stages | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run gives.

    Attributes:
        logits: after the last prompt token; guided, where a stream without images ran beside it.
        tail: after the last positions of the prompt, `keep` of them, the last one last; never guided.
        ids: generated tokens, None without generation.
        rows: (read, step) → the rows of each layer, in layer order.
        lost: the samples with logits, at any step of their answer, from which no token can be chosen.
    """

    logits: Float[Tensor, "sample token_id"]
    tail: Float[Tensor, "sample position token_id"]
    ids: Int[Tensor, "sample step"] | None
    rows: Mapping[tuple[int, int], list[Tensor]]
    lost: Bool[Tensor, " sample"]

    def of_lines(self, lines: Sequence[int]) -> Outcome:
        """The outcome of samples that equal those of this one: sample i gets what sample lines[i] has here."""
        at = torch.tensor(lines, device=self.logits.device)
        rows = {key: [one[at.to(one.device)] for one in layers] for key, layers in self.rows.items()}
        ids = None if self.ids is None else self.ids[at]
        return Outcome(self.logits[at], self.tail[at], ids, rows, self.lost[at])


def without_choice(logits: Float[Tensor, "sample *position token_id"]) -> Bool[Tensor, " sample"]:
    """Which samples have logits from which no token can be chosen: with NaN, with +∞, or of nothing but −∞."""
    return ~logits.amax(dim=-1).isfinite().reshape(len(logits), -1).all(dim=1)


def run(
    hf: Any,
    inputs: Mapping[str, Tensor],
    recorder: Recorder,
    meter: Meter,
    *,
    cache: Cache | None = None,
    generation: Generation | None = None,
    contrast: ContrastStream | None = None,
    within: Within | None = None,
    keep: int = 1,
) -> Outcome:
    """The outcome of a prompt, or of the suffix that follows `cache`, and of what is generated after it.

    Args:
        hf: the transformers model.
        inputs: its arguments; `attention_mask` covers the cache too.
        recorder: is given the step that is being run.
        meter: counts every pass.
        cache: keys and values that come before.
        generation: how to generate, if at all.
        contrast: the second stream that guides the logits, if any.
        within: carries out each pass; by default it is simply called.
        keep: how many positions' logits the outcome's `tail` has.
    """
    if generation is not None and cache is None:
        cache = whole_cache(hf)

    def passed(inputs: Mapping[str, Tensor], n: int = 1) -> Float[Tensor, "sample position token_id"]:
        def one() -> Tensor:
            return run_pass(hf, inputs, meter, cache=cache, keep=n).float()

        return one() if within is None else within(one)

    def forward(inputs: Mapping[str, Tensor], token: Tensor) -> Float[Tensor, "sample token_id"]:
        logits = passed(inputs)[:, -1]
        return logits if contrast is None else contrast.guide(logits, token)

    tail = passed(inputs, keep)
    logits = tail[:, -1] if contrast is None else contrast.guide(tail[:, -1])
    lost = without_choice(tail) | without_choice(logits)
    ids = None
    if generation is not None:
        ids, later = _generated(forward, logits, inputs, recorder, generation)
        lost = lost | later
    return Outcome(logits, tail, ids, recorder.rows, lost)


def whole_cache(hf: Any) -> DynamicCache:
    """An empty cache of the model's own kind, but with layers that keep every key.

    Where rows see a sliding window only, transformers would drop the keys behind it, and columns would no
    longer be positions; the masks hide them all the same.
    """
    cache = DynamicCache(config=hf.config.get_text_config(decoder=True))
    cache.layers = [DynamicLayer() if isinstance(x, DynamicSlidingWindowLayer) else x for x in cache.layers]
    return cache


def _generated(
    forward: Callable[[Mapping[str, Tensor], Tensor], Tensor],
    logits: Float[Tensor, "sample token_id"],
    inputs: Mapping[str, Tensor],
    recorder: Recorder,
    generation: Generation,
) -> tuple[Int[Tensor, "sample step"], Bool[Tensor, " sample"]]:
    """The token after the prompt, and so on, until every answer has ended or one is lost; and which are lost."""
    mask, position = inputs["attention_mask"], inputs["position_ids"][..., -1:]
    ends = torch.tensor(sorted(generation.ends), dtype=torch.long, device=logits.device)
    ended = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    seen = {name: inputs[name][:, -1:] for name in PER_ROW if name in inputs}
    ids: list[Tensor] = []
    while True:
        lost = without_choice(logits) & ~ended
        token, ended = next_tokens(logits, ended | lost, ended, generation, ends)
        is_lost, is_over = torch.stack(
            [lost.any(), ended.all()]
        ).tolist()  # the one wait for the device of a step
        if is_lost:
            return torch.stack(ids, dim=1) if ids else ends.new_zeros(len(logits), 0), lost
        ids.append(token)
        if len(ids) == generation.n or is_over:
            return torch.stack(ids, dim=1), lost
        if generation.stages is not None:
            generation.stages(token.tolist())
        recorder.step += 1
        position = position + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        following = {"input_ids": token[:, None], "attention_mask": mask, "position_ids": position, **seen}
        logits = forward(following, token)


def next_tokens(
    logits: Float[Tensor, "sample token_id"],
    unused: Bool[Tensor, " sample"],
    ended: Bool[Tensor, " sample"],
    generation: Generation,
    ends: Int[Tensor, " end"],
) -> tuple[Int[Tensor, " sample"], Bool[Tensor, " sample"]]:
    """The tokens that follow, padding for answers that have ended; and which have ended with these.

    Args:
        logits: of each sample's next token.
        unused: whose logits may hold anything: answers that have ended, and those that are lost.
        ended: which answers had ended before.
        generation: how to generate.
        ends: the tokens that end an answer.
    """
    drawn = generation.draw(logits.masked_fill(unused[:, None], 0.0))
    token = drawn.masked_fill(ended, generation.pad_id)
    return token, ended | torch.isin(token, ends)


def imageless_inputs(hf: Any, batch: Batch, first: int) -> dict[str, Tensor]:
    """The arguments of a pass over a batch's prompts, their image tokens taken out.

    Args:
        hf: the transformers model.
        batch: the encoded samples.
        first: the position of a prompt's first token.
    """
    texts = [torch.from_numpy(tokens.positions("text").copy()) for tokens in batch.tokens]
    inputs = {
        name: left_padded(
            [single.inputs[name][0][at] for single, at in zip(batch.singles, texts, strict=True)],
            batch.pad_id if name == "input_ids" else 0,
        ).to(value.device)
        for name, value in batch.inputs.items()
        if name in PER_TOKEN
    }
    positions = position_ids(hf, inputs, first)
    if batch.positions.ndim == 3:  # text turns along every axis alike
        positions = positions.expand(len(batch.positions), -1, -1)
    return {**inputs, "position_ids": positions}


def with_imageless(batch: Batch, imageless: Mapping[str, Tensor]) -> Batch:
    """The batch with its prompts without their images as as many further lines: both streams in one pass.

    Args:
        batch: the encoded samples.
        imageless: `imageless_inputs` of it; its prompts are no longer than the batch's.
    """
    inputs = dict(batch.inputs)
    for name in imageless.keys() & inputs.keys():
        own = inputs[name]
        lines = imageless[name].to(own)
        before = own.new_full((len(lines), own.shape[1] - lines.shape[1]), 0)
        if name == "input_ids":
            before.fill_(batch.pad_id)
        inputs[name] = torch.cat([own, torch.cat([before, lines], dim=1)])
    return replace(batch, inputs=inputs)


class ContrastStream:
    """Runs the second stream, a pass for each of the trace's, and guides the trace's logits by it.

    Its passes are not edited and not read.
    """

    def __init__(
        self, hf: Any, inputs: Mapping[str, Tensor], combine: Combine, recorder: Recorder, meter: Meter
    ) -> None:
        self.combine, self.recorder, self.inputs = combine, recorder, dict(inputs)
        self._seen = {name: inputs[name][:, -1:] for name in PER_ROW if name in inputs}
        self._pass = partial(run_pass, hf, meter=meter, cache=whole_cache(hf))

    def guide(
        self, with_image: Float[Tensor, "sample token_id"], token: Int[Tensor, " sample"] | None = None
    ) -> Float[Tensor, "sample token_id"]:
        """The guided logits of a pass; `token` is what it was fed, None for the prompt."""
        if token is not None:
            mask, position = self.inputs["attention_mask"], self.inputs["position_ids"][..., -1:] + 1
            longer = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            following = {"input_ids": token[:, None], "attention_mask": longer, "position_ids": position}
            self.inputs = {**following, **self._seen}
        self.recorder.paused = True
        try:
            logits = self._pass(self.inputs)
        finally:
            self.recorder.paused = False
        return self.combine(with_image, logits[:, -1].float())


def embeddings(
    mllm: WrappedModel, batch: Batch, meter: Meter | None = None
) -> Float[Tensor, "sample position hidden"]:
    """What enters the first decoder layer, at the batch's padded positions; the decoder is not run.

    Args:
        mllm: the model.
        batch: the encoded samples.
        meter: counts the pass, which takes no token through the language model.
    """
    counted = Meter(mllm.device) if meter is None else meter
    if mllm.server is not None:
        return mllm.server.embeddings(batch, counted)
    return side_by_side(_entering(mllm, batch, mllm.installation.layers[0], "hidden_states", counted))


def image_features(mllm: WrappedModel, batch: Batch) -> list[Float[Tensor, "token hidden"]]:
    """The features of image tokens that are no positions of the sequence, or latents; see `Mllm.image_features`."""
    if not any(tokens.n for tokens in batch.tokens):
        return [torch.empty(0, 0) for _ in batch.tokens]
    meter = Meter(mllm.device)
    if mllm.maps == "composed":
        return [_patch_features(mllm, mllm.encoder.part(batch, [i]), meter) for i in range(len(batch))]
    first = mllm.installation.attentions[mllm.layer_kinds.index("cross")]
    found = _entering(mllm, batch, first, "cross_attention_states", meter)
    each = found.reshape(len(batch), -1, found.shape[-1])
    columns = [torch.from_numpy(one.image.copy()).to(each.device) for one in batch.tokens]
    return [own[at] for own, at in zip(each, columns, strict=True)]


def _patch_features(mllm: WrappedModel, batch: Batch, meter: Meter) -> Float[Tensor, "patch hidden"]:
    """What a resampler is given for each patch of one sample; 0 for those without a footprint, which it masks."""
    adapter: Any = mllm.adapter
    resampler, (single,), (sample,) = adapter.resampler(mllm.hf), batch.singles, batch.samples
    found = _entering(mllm, batch, resampler.module, resampler.features, meter).flatten(0, 1)
    boxes = adapter.latent_patches(sample.sizes, single.inputs, mllm.processor, mllm.hf.config).boxes
    seen = torch.from_numpy(boxes[:, 0] == boxes[:, 0]).to(found.device)
    return torch.where(seen[:, None], found, 0.0)


def _entering(mllm: WrappedModel, batch: Batch, module: nn.Module, name: str, meter: Meter) -> Tensor:
    """The first argument of a module, or the one of that name, in a pass that ends there."""
    found: list[Tensor] = []

    def hook(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        found.append(named[name] if name in named else given[0])
        raise PassCompleteError

    inputs = batch.inputs | {"position_ids": batch.positions}
    with mllm.installation.armed({}), torch.no_grad(), suppress(PassCompleteError):
        handle = module.register_forward_pre_hook(hook, with_kwargs=True)
        try:
            run_pass(mllm.hf, inputs, meter, n_tokens=0)
        finally:
            handle.remove()
    return found[0]
