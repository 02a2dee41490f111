"""What a job does on the server, and nnsight's views of the model there that it works on.

These functions are sent as source, together with the plans of `interp.tracing.layers.layer_plan`, so the arithmetic is
the same as in the source executor. On some servers they run in a process of their own, which holds no weights and gets
copies of the values it asks for. They therefore use modules through nnsight's views only.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.tracing.executors.source import (
    attention_call,
    call_at,
    carry_out_attention,
    carry_out_tower,
    router_output,
)
from interp.tracing.passes.run import next_tokens, without_choice
from interp.tracing.target import target_values

__all__ = [
    "Views",
    "carry_out",
    "differentiate_input",
    "differentiate_rows",
    "job_on_device",
    "prompt_pass",
    "soft_capped",
    "steps",
    "to_device",
    "without_graph",
]


def to_device(value: Any, device: Any, known: dict[int, Any] | None = None) -> Any:
    """The value with every tensor in it moved to the device, also inside mappings, sequences and dataclasses.

    An object that occurs twice is moved once, so it is still shared afterwards.

    Args:
        value: The value.
        device: The device.
        known: The objects that were moved already, by id.
    """
    known = {} if known is None else known
    if id(value) in known:
        return known[id(value)][1]
    if isinstance(value, torch.Tensor):
        made = value.to(device)
    elif isinstance(value, dict):
        made = {}
        known[id(value)] = (value, made)
        made.update((key, to_device(one, device, known)) for key, one in value.items())
    elif isinstance(value, list | tuple):
        made = type(value)([to_device(one, device, known) for one in value])
    elif hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        made = copy.copy(value)
        known[id(value)] = (value, made)
        for name, one in vars(value).items():
            object.__setattr__(made, name, to_device(one, device, known))
    else:
        return value
    known[id(value)] = (value, made)
    return made


def carry_out(layers: Sequence[Any], job: dict[str, Any]) -> dict[str, Any]:
    """Does the work of one pass at the layers, and returns the job on the device of the last of them.

    Args:
        layers: nnsight's views of the decoder layers.
        job: A mapping with "work", "streams" and "routing" (layer → the work on its attention, its output and its
            router), the "recorder" that they share, "n", the number of samples, and "contrast", the guidance by their
            prompts without images, which are further lines of the pass (None without guidance).
    """
    for i in sorted({*job["work"], *job["routing"], *job["streams"]}):
        if i in job["work"]:
            call = attention_call(layers[i].self_attn)
            positional, kwargs = call.inputs
            job = job_on_device(job, positional[1].device)
            of = None if job["contrast"] is None else job["n"]
            carry_out_attention(call, positional, kwargs, job["work"][i], of)
        if i in job["routing"]:
            job["routing"][i](router_output(layers[i], job["routing"][i]))
        if i in job["streams"]:
            entering = layers[i].output
            job = job_on_device(job, (entering[0] if isinstance(entering, tuple) else entering).device)
            leaving = job["streams"][i](entering)
            if leaving is not entering:
                layers[i].output = leaving
    return job


def job_on_device(job: dict[str, Any], device: Any) -> dict[str, Any]:
    """The job on a layer's device; the same object where the previous layer runs on that device too.

    Args:
        job: The job, as `carry_out` takes it.
        device: The layer's device.
    """
    if job.get("device") == device:
        return job
    job = {**to_device(job, device), "device": device}
    job["recorder"].hides.clear()  # its keys are addresses of tensors
    return job


def prompt_pass(
    layers: Sequence[Any],
    attentions: Sequence[Any],
    head: Any,
    job: dict[str, Any],
    cap: float | None,
    keep: int,
) -> dict[str, Any]:
    """The logits after the last `keep` positions, and the rows that were read.

    Args:
        layers: nnsight's views of the decoder layers.
        attentions: nnsight's views of the tower's attention modules.
        head: nnsight's view of the output layer.
        job: The job, as `tower_pass` and `carry_out` take it.
        cap: The soft cap of the logits; None without one.
        keep: The number of last positions.
    """
    tower_pass(attentions, job)
    job = carry_out(layers, job)
    logits = soft_capped(head.output, cap)[:, -keep:].detach()
    chosen_from = guided(job, logits[:, -1])
    return {
        "tail": logits[: job["n"]],
        "logits": chosen_from,
        "rows": job["recorder"].rows,
        "asked": job["asked"],
    }


def tower_pass(attentions: Sequence[Any], job: dict[str, Any]) -> None:
    """Does the work of the vision tower, which runs before the decoder, and adds its rows to those of the job.

    Args:
        attentions: nnsight's views of the tower's attention modules.
        job: A mapping with "tower", the tower's work (None for no work), and the "recorder".

    Raises:
        ModelError, EditError: As in `VisionWork.check`.
    """
    if job["tower"] is None:
        return
    views = [attention_call(attentions[layer]) for layer in sorted(job["tower"].layers)]
    tower = to_device(job["tower"], views[0].inputs[0][1].device)
    carry_out_tower([(view, work) for view, (_, work) in zip(views, tower.seen_by(attentions), strict=True)])
    tower.check()
    job["recorder"].rows.update(to_device(tower.rows, "cpu"))


def guided(job: dict[str, Any], logits: Any) -> Any:
    """The samples' logits, (sample, token_id), guided by those of the lines after them where the job has a contrast."""
    n, contrast = job["n"], job["contrast"]
    return logits if contrast is None else contrast(logits[:n], logits[n:])


def steps(
    tracer: Any,
    layers: Sequence[Any],
    attentions: Sequence[Any],
    head: Any,
    job: dict[str, Any],
    cap: float | None,
    found: dict[str, Any],
) -> None:
    """Generates token by token, as the job's "generation" draws them, and puts the results into `found`.

    The model's own greedy generation runs at the same time. At each step its logits are replaced by ones that allow
    only the drawn token.

    Args:
        tracer: nnsight's tracer of the generation.
        layers: nnsight's views of the decoder layers.
        attentions: nnsight's views of the tower's attention modules.
        head: nnsight's view of the output layer.
        job: The job, as `tower_pass` and `carry_out` take it, with "generation".
        cap: The soft cap of the logits; None without one.
        found: The mapping that gets "tail", "logits", "rows", "ids" (by step), "lost" (which samples have logits that
            are not numbers), and "seen" (the logits that were drawn from, where the draw keeps them).
    """
    generation = job["generation"]
    ends = torch.tensor(sorted(generation.ends), dtype=torch.long)
    ended = torch.zeros(job["n"], dtype=torch.bool)
    for step in tracer.iter[: generation.n]:
        job["recorder"].step = step
        if step == 0:
            tower_pass(attentions, job)
        job = carry_out(layers, job)
        given = head.output
        plain = soft_capped(given, cap)[:, -1].detach()
        logits = guided(job, plain)
        ended, ends = ended.to(logits.device), ends.to(logits.device)
        if step == 0:
            found.update(tail=plain[: job["n"], None], logits=logits, ids=[], lost=ended)
        found["rows"] = job["recorder"].rows
        lost = without_choice(logits) & ~ended
        if bool(lost.any()):
            found["lost"] = lost
            tracer.stop()
        token, ended = next_tokens(logits, ended, ended, generation, ends)
        found["ids"].append(token)
        if hasattr(generation.draw, "steps"):
            found["seen"] = list(generation.draw.steps)
        forced = torch.full_like(given, -1e4)
        both = token.repeat(len(given) // len(token))
        forced[torch.arange(len(given), device=token.device), -1, both] = 0.0
        head.output = forced
        if bool(ended.all()):
            break


def differentiate_rows(
    layers: Sequence[Any], head: Any, job: dict[str, Any], cap: float | None, keep: int
) -> dict[str, Any]:
    """Rows of attention, and the gradients of the target's value with respect to them.

    Args:
        layers: nnsight's views of the decoder layers.
        head: nnsight's view of the output layer.
        job: A mapping with the "block" of rows, the "layers" to read them in, and the target's "aims".
        cap: The soft cap of the logits; None without one.
        keep: The number of last positions whose logits are returned.
    """
    rows = {}
    for i in job["layers"]:
        call = attention_call(layers[i].self_attn)
        made = call_at(call)
        block = to_device(job["block"], made.queries.device)
        own = made.probabilities(block)
        rows[i] = own if own.requires_grad else own.requires_grad_(True)
        output = call.output
        # the leaf is part of what is spliced in, so the output is copied here
        call.output = (made.splice(output[0].clone(), block, rows[i]), *output[1:])
    logits = soft_capped(head.output, cap)[:, -keep:]
    value = target_values(job["aims"], logits).sum()
    gradients = torch.autograd.grad(value, list(rows.values()))
    kept = {"rows": [one.detach() for one in rows.values()], "gradients": list(gradients)}
    return {**kept, "logits": logits.detach()}


def differentiate_input(
    layers: Sequence[Any], head: Any, job: dict[str, Any], cap: float | None, keep: int
) -> dict[str, Any]:
    """The target's values, and their gradient with respect to the pixels or to what enters the first layer.

    Args:
        layers: nnsight's views of the decoder layers.
        head: nnsight's view of the output layer.
        job: A mapping with "leaf" (the inputs), "places" (the sample and column of each embedding; None for pixels,
            which the model was given), the target's "aims", and "gradient" (whether to return it).
        cap: The soft cap of the logits; None without one.
        keep: The number of last positions whose logits the aims need.
    """
    leaf = job["leaf"]
    if job["places"] is not None:
        views = Views(layers, None, head, cap)
        hidden = views.entering(0)
        at = tuple(one.to(hidden.device) for one in job["places"])
        views.enter(0, hidden.index_put(at, leaf.to(hidden.device, hidden.dtype)))
    values = target_values(job["aims"], soft_capped(head.output, cap)[:, -keep:])
    found = {"values": values.detach()}
    if job["gradient"]:
        found["gradient"] = torch.autograd.grad(values.sum(), leaf)[0].detach()
    return found


def without_graph(work: Callable[..., dict[str, Any]], views: Views, job: dict[str, Any]) -> dict[str, Any]:
    """The result of a function that runs without gradients, on the CPU."""
    with torch.no_grad():
        return to_device(work(views, job), "cpu")


def soft_capped(logits: Any, cap: float | None) -> Any:
    """The logits of the output layer, float32, soft-capped where the model caps them after that layer."""
    wide = logits.float()
    return wide if cap is None else cap * torch.tanh(wide / cap)


def repeated(value: Any, n: int, name: str = "") -> Any:
    """A decoder's argument for one sample, repeated for `n` samples; so are tensors in mappings and lists.

    Args:
        value: The argument.
        n: The number of samples.
        name: The argument's name. Positions of several axes have samples in their second dimension. "deepstack" has no
            dimension of samples: the image tokens of all samples follow one another.
    """
    if isinstance(value, dict):
        return {key: repeated(one, n, name) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([repeated(one, n, name) for one in value])
    if not isinstance(value, torch.Tensor) or value.ndim < 2:
        return value
    if name.startswith("deepstack"):
        return value.repeat(n, *[1] * (value.ndim - 1))
    at = 1 if name == "position_ids" and value.ndim == 3 else 0
    if value.shape[at] != 1:
        return value
    return value.expand(*value.shape[:at], n, *value.shape[at + 1 :])


@dataclass(frozen=True, eq=False)
class Views:
    """nnsight's views of a model's modules, inside a job.

    A view that is called with a tensor runs its module on that tensor, outside the current pass.

    Attributes:
        layers: The views of the decoder layers.
        norm: The view of the norm after the last decoder layer; None where it is not found.
        head: The view of the output layer.
        cap: The soft cap of the logits; None without one.
        decoder: The view of the module that holds the decoder layers.
    """

    layers: Sequence[Any]
    norm: Any
    head: Any
    cap: float | None
    decoder: Any = None

    def entering(self, layer: int) -> Tensor:
        """The input of a decoder layer, (sample, position, hidden)."""
        positional, named = self.layers[layer].inputs
        return positional[0] if positional else named["hidden_states"]

    def repeat(self, n: int) -> None:
        """Repeats the decoder's arguments of one sample for `n` variants; the vision tower has run once by then."""
        positional, named = self.decoder.inputs
        self.decoder.inputs = (
            tuple(repeated(one, n) for one in positional),
            {name: repeated(one, n, name) for name, one in named.items()},
        )

    def enter(self, layer: int, stream: Tensor) -> None:
        """Replaces the input of a decoder layer by a residual stream."""
        positional, named = self.layers[layer].inputs
        if positional:
            self.layers[layer].inputs = ((stream, *positional[1:]), named)
        else:
            self.layers[layer].inputs = (positional, {**named, "hidden_states": stream})

    def leaving(self, layer: int) -> Tensor:
        """The output of a decoder layer, (sample, position, hidden)."""
        output = self.layers[layer].output
        return output[0] if isinstance(output, tuple) else output

    def logits(self, keep: int = 1) -> Tensor:
        """The logits after the last `keep` positions of the pass, (sample, position, token_id) float32."""
        return soft_capped(self.head.output, self.cap)[:, -keep:]

    def read(self, residual: Tensor) -> Tensor:
        """The logits, float32, that a residual stream would give if no layer followed."""
        return soft_capped(self.head(self.norm(residual)), self.cap)
