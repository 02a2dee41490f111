"""Gradients of a target: with respect to rows of attention, pixels, or the image tokens' embeddings.

Rows after the image, or the last row, depend on earlier rows only through their keys and values. So the earlier rows
run once without gradients (a `Prefix`), and the graph covers only the rows after them; where a prefix is not exact, it
covers the whole pass. No parameter gets a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.errors import ModelError
from interp.inputs.prompt import Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing.attention.rows import AttentionFunction, Block, Call, Heads, Work, attend, row_outputs
from interp.tracing.cost import Meter
from interp.tracing.encoding.batch import Batch, Layout
from interp.tracing.layers.residual import side_by_side, stacked
from interp.tracing.passes.non_finite import check_logits
from interp.tracing.passes.prefix_pass import given_as, make_prefix
from interp.tracing.passes.run import embeddings, run_pass
from interp.tracing.prefix import Prefix, exact, pass_inputs, pass_layout, prefix_lengths, serving
from interp.tracing.target import PROMPT_LAST, Objective, aims, likeliest, objectives
from interp.tracing.wrapped_model import WrappedModel

__all__ = [
    "InputFunction",
    "Inputs",
    "RowGradients",
    "differentiable",
    "for_autograd",
    "input_function",
    "recording",
    "replaced_input",
    "row_gradients",
    "run_objective",
]


@contextmanager
def recording(mllm: WrappedModel, work: Mapping[int, Work] | None = None) -> Iterator[None]:
    """Records gradients in the block, whatever mode the caller is in.

    The model's parameters require no gradients in the block, so nothing is kept for them.

    Args:
        mllm: The model.
        work: Layer → the work of its attention module in the block.
    """
    armed = nullcontext() if mllm.server is not None else mllm.installation.armed(work or {})
    with armed, torch.inference_mode(False), torch.enable_grad():
        asking = {name for name, weight in mllm.hf.named_parameters() if weight.requires_grad}
        try:
            _ask(mllm.hf, asking, False)
            yield
        finally:  # by name: a pass puts other tensors in the place of offloaded weights
            _ask(mllm.hf, asking, True)


def _ask(hf: nn.Module, names: set[str], wanted: bool) -> None:
    for name, weight in hf.named_parameters():
        if name in names:
            weight.requires_grad_(wanted)


def differentiable(mllm: WrappedModel) -> None:
    """Refuses a model through which no gradient can flow.

    Raises:
        ModelError: Weights that were loaded under `torch.inference_mode`, or 4-bit layers on a CPU.
    """
    if any(weight.is_inference() for weight in mllm.hf.parameters()):
        raise ModelError(
            "gradients need weights that autograd may use; these were loaded under torch.inference_mode. Load the "
            "model outside of it; the call itself may be inside."
        )
    if any(
        type(one).__name__ == "Linear4bit" and one.weight.device.type == "cpu" for one in mllm.hf.modules()
    ):
        raise ModelError(
            "bitsandbytes' 4-bit layers compute no gradients on a CPU. Run the model on a GPU, or load it without "
            "quantization."
        )


def run_objective(
    mllm: WrappedModel,
    objective: Objective,
    meter: Meter,
    before: Prefix | None = None,
    changed: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "sample position token_id"]:
    """The logits after the last positions of an objective's pass; inside `recording`.

    Args:
        mllm: The model.
        objective: The pass to run.
        meter: Counts the pass.
        before: The prefix that the pass continues.
        changed: Arguments that replace those of the batch.
    """
    inputs, cache = pass_inputs(objective.batch, before)
    return run_pass(mllm.hf, {**inputs, **(changed or {})}, meter, cache=cache, keep=objective.keep)


def for_autograd(given: Batch | Prefix) -> Batch | Prefix:
    """The same batch or prefix in tensors that autograd can use; tensors of `torch.inference_mode` are copied."""
    if isinstance(given, Prefix):
        batch = for_autograd(given.batch)
        assert isinstance(batch, Batch)
        keys, values = (tuple(map(_copied, one)) for one in (given.keys, given.values))
        return replace(given, batch=batch, keys=keys, values=values)
    inputs = {name: _copied(value) for name, value in given.inputs.items()}
    return replace(given, inputs=inputs, positions=_copied(given.positions))


def _copied(value: Tensor) -> Tensor:
    return value.clone() if value.is_inference() else value


@contextmanager
def replaced_input(layer: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """In the block, replaces a layer's input, (sample, position, hidden), by what `change` makes of it."""

    def changed(given: Tensor) -> Tensor:
        return stacked(change(side_by_side(given)), given)

    def hook(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if arguments:
            return (changed(arguments[0]), *arguments[1:]), named
        return arguments, {**named, "hidden_states": changed(named["hidden_states"])}

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


Queries = Literal["last", "after_image"]


@dataclass(frozen=True, eq=False)
class RowGradients:
    """Rows of attention of one pass, and the gradients of its part of the target with respect to them.

    Attributes:
        rows: For each layer, the rows, float32 (sample, head, row, key), padded.
        gradients: For each layer, ∂ value / ∂ row through everything after the row, in nats per unit of attention, with
            the shape of `rows`.
        tokens: Where each sample's tokens are, including those of an answer of several tokens.
        places: For each sample, the indices of its rows among the padded ones.
        columns: For each sample, the key column of each of its positions.
        logits: (sample, token_id), the logits after the last position of each prompt.
    """

    rows: tuple[Float[Tensor, "sample head row key"], ...]
    gradients: tuple[Float[Tensor, "sample head row key"], ...]
    tokens: tuple[TokenMap, ...]
    places: tuple[Int[np.ndarray, " _"], ...]
    columns: tuple[Int[np.ndarray, " _"], ...]
    logits: Float[Tensor, "sample token_id"]

    def of(self, sample: int, layer: int) -> tuple[Float[Tensor, "head row position"], ...]:
        """A sample's own rows and gradients, over its own positions, in the layer at index `layer` of those read."""
        rows, columns = self._at(sample, self.rows[layer].device)
        both = (self.rows[layer], self.gradients[layer])
        return tuple(one[sample][:, rows[:, None], columns[None, :]] for one in both)

    def _at(self, sample: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """A sample's places and columns on a device, moved there once for all layers."""
        if (sample, device) not in self._known:
            rows, columns = (torch.from_numpy(one[sample].copy()) for one in (self.places, self.columns))
            self._known[sample, device] = rows.to(device), columns.to(device)
        return self._known[sample, device]

    @cached_property
    def _known(self) -> dict[tuple[int, torch.device], tuple[Tensor, Tensor]]:
        return {}


def row_gradients(
    mllm: WrappedModel,
    samples: Sample | Iterable[Sample] | Batch | Prefix,
    target: Target,
    prompt: Prompt | None,
    meter: Meter,
    *,
    layers: Sequence[int],
    queries: Queries = "last",
) -> Iterator[RowGradients]:
    """The passes of a target, one after the other; their gradients add up to those of the target.

    There is one pass, or two for the difference of answers of several tokens. The likeliest next token is found in the
    same pass.

    Args:
        mllm: The model.
        samples: One batch, or its prefix.
        target: The target to differentiate.
        prompt: The prompt; None for the batch's own, or `PAPER_PROMPT`.
        meter: Counts every pass.
        layers: The layers whose rows are returned, increasing; nothing below the first one is differentiated.
        queries: "last" for the last row of the prompt, or "after_image" for every row after the image, with those of
            the answer.

    Raises:
        ModelError: Answers of several tokens after a prompt whose rows see all of it, weights that were loaded under
            `torch.inference_mode`, or another trace or tap that is open.
        SampleError, PromptError, ImageTokenMismatch: As in `Mllm.encode`.
    """
    mllm.need_image_rows("gradients of rows and inputs")
    differentiable(mllm)
    with torch.inference_mode(False):
        given = _started(mllm, for_autograd(given_as(mllm, samples, prompt)), queries, meter)
        batch = given.batch if isinstance(given, Prefix) else given
        found = None
        if not likeliest(target):
            found = aims(mllm, given, target)
            meter.count(found.cost)
        passes = objectives(mllm, batch, found)
    for objective in passes:
        with torch.inference_mode(False):
            one = _one_pass(mllm, objective, given, layers, queries, meter)
        yield one


def _started(mllm: WrappedModel, given: Batch | Prefix, queries: Queries, meter: Meter) -> Batch | Prefix:
    """The prefix to continue: the one that was given, or a new one where that is exact; else the batch."""
    if mllm.server is not None or isinstance(given, Prefix) or not all(tokens.n for tokens in given.tokens):
        return given
    # a prefix that other traces share has to end where theirs do
    stop = "last" if queries == "last" and mllm.prefixes is None else "image"
    if not exact(prefix_lengths(given, stop), given.tokens, mllm.visibility):
        return given
    made = make_prefix(mllm, given, stop=stop)
    meter.count(made.cost)
    found = for_autograd(made)
    assert isinstance(found, Prefix)
    return found


def _one_pass(
    mllm: WrappedModel,
    objective: Objective,
    given: Batch | Prefix,
    layers: Sequence[int],
    queries: Queries,
    meter: Meter,
) -> RowGradients:
    """The rows and gradients of one pass of the target."""
    batch = objective.batch
    positions = [_positions(tokens, queries) for tokens in batch.tokens]
    first_rows = [int(at[0]) for at in positions]
    before = serving(given, batch, mllm.visibility, first_rows)
    layout = pass_layout(batch, before)
    wanted_rows = layout.rows(positions)
    if mllm.server is not None:
        block = _block(mllm, wanted_rows, mllm.device)
        found = mllm.server.row_gradients(batch, block, layers, objective.aims, meter, keep=objective.keep)
        places = [np.arange(len(rows)) for rows in wanted_rows]
        return _labelled(mllm, objective, places, layout, *found)
    kept: dict[int, Tensor] = {}
    wanted = {layer: GraphWork(layer, kept) for layer in layers}
    work: dict[int, Any] = {}
    if before is None:
        devices = mllm.layer_devices
        blocks = {device: _block(mllm, wanted_rows, device) for device in {devices[i] for i in wanted}}
        work = {i: one.at(blocks[devices[i]]) for i, one in wanted.items()}
    else:
        for i in mllm.attention_layers:
            work[i] = wanted.get(i, GraphWork(i, None)).after(before.layer(i))
    with recording(mllm, work):
        logits = run_objective(mllm, objective, meter, before)
        values = objective.values(logits).sum()
        rows = [kept[layer] for layer in layers]
        gradients = torch.autograd.grad(values, rows)
        meter.backwards += 1
    places = wanted_rows if before is not None else [np.arange(len(rows)) for rows in wanted_rows]
    return _labelled(mllm, objective, places, layout, logits, rows, gradients)


def _labelled(
    mllm: WrappedModel,
    objective: Objective,
    places: Sequence[Int[np.ndarray, " _"]],
    layout: Layout,
    logits: Float[Tensor, "sample position token_id"],
    rows: Sequence[Tensor],
    gradients: Sequence[Tensor],
) -> RowGradients:
    """Rows and gradients with their places, after a check of the logits for NaN."""
    check_logits(mllm, objective.batch, logits.detach())
    return RowGradients(
        tuple(one.detach() for one in rows),
        tuple(gradients),
        objective.batch.tokens,
        tuple(places),
        layout.columns,
        _after_prompt(logits.detach(), objective),
    )


def _positions(tokens: TokenMap, queries: Queries) -> Int[np.ndarray, " row"]:
    """The last prompt token, or all positions after the image, in a batch with or without answers."""
    if queries == "last" and PROMPT_LAST in tokens.spans:
        return tokens.positions(PROMPT_LAST)
    return tokens.positions(queries)


def _block(mllm: WrappedModel, wanted: Sequence[Int[np.ndarray, " _"]], device: torch.device) -> Block:
    """The rows of each sample, for every head; short samples repeat their last row, outside the cells."""
    heads = Heads.of(range(mllm.n_heads), mllm.n_heads, mllm.n_key_value_heads, device)
    width = max(map(len, wanted))
    rows = torch.from_numpy(np.stack([np.pad(at, (0, width - len(at)), mode="edge") for at in wanted]))
    cells = torch.tensor([(i, k) for i, at in enumerate(wanted) for k in range(len(at))], device=device)
    return Block(rows.to(device), (cells[:, 0], cells[:, 1]), heads)


def _after_prompt(
    logits: Float[Tensor, "sample position token_id"], objective: Objective
) -> Float[Tensor, "sample token_id"]:
    """The logits of each prompt's last row, which lies as many rows from the end as its answer has tokens."""
    if objective.aims is None:
        return logits[:, -1].float()
    backs = [len(aim.answers[0]) for aim in objective.aims]
    return torch.stack([own[-back] for own, back in zip(logits, backs, strict=True)]).float()


@dataclass(frozen=True, eq=False)
class GraphWork:
    """Computes rows of attention inside the graph and keeps them.

    Attributes:
        layer: The layer, 0-based.
        kept: The mapping that gets the layer's rows; None for a layer whose rows are not read.
        block: The rows to compute; None for every row after a prefix.
        prefix: The keys and values of the prefix; None without one.
    """

    layer: int
    kept: dict[int, Tensor] | None
    block: Block | None = None
    prefix: tuple[Tensor, Tensor] | None = field(default=None, repr=False)

    def at(self, block: Block) -> GraphWork:
        """The same work for some rows of a whole pass."""
        return GraphWork(self.layer, self.kept, block)

    def after(self, prefix: tuple[Tensor, Tensor]) -> GraphWork:
        """The same work for every row after a prefix."""
        return GraphWork(self.layer, self.kept, None, prefix)

    def __call__(
        self, original: AttentionFunction, call: Call, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """The attention's output, as a function of the rows that are kept."""
        if self.kept is None:
            return attend(call, call.mask), None
        if self.block is not None:
            output, _ = original(call.module, call.queries, call.keys[0], call.values[0], call.mask, **kwargs)
            return call.splice(output, self.block, self._keep(call, self.block)), None
        n, _, n_queries, _ = call.queries.shape
        every = torch.arange(n_queries, device=call.queries.device).expand(n, -1)
        none = torch.zeros(0, dtype=torch.long, device=call.queries.device)
        rows = self._keep(call, Block(every, (none, none), call.all_heads))
        return row_outputs(rows, call.values, heads=call.all_heads).transpose(1, 2).contiguous(), None

    def _keep(self, call: Call, block: Block) -> Float[Tensor, "sample head row key"]:
        assert self.kept is not None
        rows = call.probabilities(block)
        self.kept[self.layer] = rows if rows.requires_grad else rows.requires_grad_(True)
        return rows


Inputs = Literal["pixels", "embeddings"]


@dataclass(frozen=True, eq=False)
class InputFunction:
    """Each sample's target value, in nats, and its gradient, as functions of the inputs. Made by `input_function`.

    Attributes:
        mllm: The model.
        of: The inputs. "pixels" are the batch's `pixel_values`, as the processor makes them; "embeddings" are the first
            decoder layer's inputs at image tokens, (token, hidden), one sample after the other.
        batch: The samples.
        passes: The passes whose values add up to the target.
        start: The unchanged inputs, float32 (or float64).
        places: For each sample, the slices of the inputs that are its own.
        meter: Counts every pass.
    """

    mllm: WrappedModel
    of: Inputs
    batch: Batch
    passes: tuple[Objective, ...]
    start: Tensor
    places: tuple[tuple[slice, ...], ...]
    meter: Meter

    def values(self, inputs: Tensor) -> Float[Tensor, " sample"]:
        """The target's values, in nats; inside `recording` they carry their graph."""
        if self.mllm.server is not None:
            if torch.is_grad_enabled() and inputs.requires_grad:
                return _ServerValues.apply(inputs, self)
            return torch.stack([self._from_server(one, inputs)[0] for one in self.passes]).sum(dim=0)
        return torch.stack([self._values(one, inputs) for one in self.passes]).sum(dim=0)

    def gradient(self, inputs: Tensor) -> Tensor:
        """∂ value / ∂ inputs, in nats per unit of the inputs; a sample's part is the gradient of its own value."""
        if self.mllm.server is not None:
            return self.both_from_server(inputs)[1]
        with recording(self.mllm):
            total = torch.zeros_like(self.start)
            for one in self.passes:
                leaf = inputs.detach().clone().requires_grad_(True)
                total += torch.autograd.grad(self._values(one, leaf).sum(), leaf)[0]
                self.meter.backwards += 1
        return total

    def own(self, inputs: Tensor, sample: int) -> Tensor:
        """A sample's part of the inputs, or of a gradient; a view."""
        return inputs[self.places[sample]]

    def both_from_server(self, inputs: Tensor) -> tuple[Float[Tensor, " sample"], Tensor]:
        """The values and their gradient from the server that the model runs on, with one job for each pass."""
        values, gradients = zip(*(self._from_server(one, inputs, True) for one in self.passes), strict=True)
        return torch.stack(values).sum(dim=0), torch.stack(gradients).sum(dim=0)

    def _from_server(self, objective: Objective, inputs: Tensor, gradient: bool = False) -> tuple[Any, Any]:
        """The values of one pass, and the gradient if wanted, from the server that the model runs on."""
        places = None if self.of == "pixels" else _columns(objective.batch)
        return self.mllm.server.at_input(
            objective.batch,
            inputs.to(self.mllm.dtype),
            places,
            objective.aims,
            self.meter,
            keep=objective.keep,
            gradient=gradient,
        )

    def _values(self, objective: Objective, inputs: Tensor) -> Float[Tensor, " sample"]:
        given = inputs.to(self.mllm.dtype)
        changed, hooked = {"pixel_values": given}, nullcontext()
        if self.of == "embeddings":
            sample, column = _columns(objective.batch)

            def change(hidden: Tensor) -> Tensor:
                return hidden.index_put((sample.to(hidden.device), column.to(hidden.device)), given)

            changed, hooked = {}, replaced_input(self.mllm.installation.layers[0], change)
        with hooked:
            return objective.values(run_objective(self.mllm, objective, self.meter, changed=changed))


class _ServerValues(torch.autograd.Function):
    """Values from a server as a node of a graph on this machine; the server returns their gradient with them."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, function: InputFunction) -> Tensor:  # pyright: ignore
        """The values; their gradient is kept for `backward`."""
        values, gradient = function.both_from_server(inputs)
        ctx.save_for_backward(gradient.to(inputs.dtype))
        ctx.places = function.places
        return values

    @staticmethod
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor, None]:  # pyright: ignore
        """The gradient times `along`; each sample's value depends only on its own part of the inputs."""
        (gradient,) = ctx.saved_tensors
        found = gradient.clone()
        for share, place in zip(along, ctx.places, strict=True):
            found[place] *= share
        return found, None


def input_function(
    mllm: WrappedModel,
    samples: Sample | Iterable[Sample] | Batch | Prefix,
    target: Target,
    prompt: Prompt | None,
    meter: Meter,
    *,
    of: Inputs,
    fixed: bool = True,
) -> InputFunction:
    """The target as a function of the inputs, for one batch; every evaluation is a whole pass.

    Args:
        mllm: The model.
        samples: The batch, or a prefix of it.
        target: The target.
        prompt: The prompt; None for the batch's own, or `PAPER_PROMPT`.
        meter: Counts every pass.
        of: The inputs, "pixels" or "embeddings".
        fixed: Whether a "greedy" target is the answer to the unchanged inputs. With False it is the likeliest next
            token at each evaluation, which saves a pass; at the unchanged inputs both are the same.

    Raises:
        ModelError: Answers of several tokens after a prompt whose rows see all of it, weights that were loaded under
            `torch.inference_mode`, or samples without images.
        SampleError, PromptError, ImageTokenMismatch: As in `Mllm.encode`.
    """
    mllm.need_image_rows("gradients of rows and inputs")
    differentiable(mllm)
    with torch.inference_mode(False):
        given = for_autograd(given_as(mllm, samples, prompt))
        batch = given.batch if isinstance(given, Prefix) else given
        if not any(tokens.n for tokens in batch.tokens):
            raise ModelError("gradients of inputs need images; these samples have none.")
        if of == "pixels" and not all("pixel_values" in one.inputs for one in batch.singles):
            raise ModelError(
                "gradients of pixels need images, but a sample shows a video. Use gradients of embeddings, or pass the "
                "frames as images=[…]."
            )
        found = None
        if fixed or not likeliest(target):
            found = aims(mllm, given, target)
            meter.count(found.cost)
        passes = tuple(objectives(mllm, batch, found))
        start = batch.inputs["pixel_values"] if of == "pixels" else _embedded(mllm, batch, meter)
        wide = start if start.dtype == torch.float64 else start.float()
    places = _pixel_places(batch) if of == "pixels" else _token_places(batch)
    return InputFunction(mllm, of, batch, passes, wide, places, meter)


def _embedded(mllm: WrappedModel, batch: Batch, meter: Meter) -> Float[Tensor, "token hidden"]:
    """The first layer's input at image tokens; it takes a pass of the vision tower and none of the decoder."""
    hidden = embeddings(mllm, batch, meter)
    sample, column = (at.to(hidden.device) for at in _columns(batch))
    return hidden[sample, column]


def _columns(batch: Batch) -> tuple[Tensor, Tensor]:
    """The sample and the padded column of every image token, sample by sample."""
    counts = [tokens.n for tokens in batch.tokens]
    columns = [tokens.image + int(pad) for tokens, pad in zip(batch.tokens, batch.pad, strict=True)]
    return torch.from_numpy(np.repeat(np.arange(len(counts)), counts)), torch.from_numpy(
        np.concatenate(columns)
    )


def _token_places(batch: Batch) -> tuple[tuple[slice, ...], ...]:
    stops = np.cumsum([0, *(tokens.n for tokens in batch.tokens)]).tolist()
    return tuple((slice(start, stop),) for start, stop in pairwise(stops))


def _pixel_places(batch: Batch) -> tuple[tuple[slice, ...], ...]:
    """Each sample's slices: samples follow each other along the first axis, and are padded at the end of the others."""
    shapes: list[Any] = [tuple(one.inputs["pixel_values"].shape) for one in batch.singles]
    stops = np.cumsum([0, *(shape[0] for shape in shapes)]).tolist()
    return tuple(
        (slice(start, start + shape[0]), *(slice(0, n) for n in shape[1:]))
        for start, shape in zip(stops, shapes, strict=False)
    )
