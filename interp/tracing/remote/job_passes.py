"""What a job does on the server, and nnsight's views of the model there that it works on.

These functions are sent as source, with the plans of `interp.tracing.layers.layer_plan` as they are, so that the
arithmetic is the source executor's. On some servers they run in a process of their own, which holds no weights and gets
only copies of the values it asks for: so they touch modules by nnsight's views alone.
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
    "brought",
    "capped",
    "carry_out",
    "differentiate_input",
    "differentiate_rows",
    "moved",
    "prompt_pass",
    "steps",
    "without_graph",
]


def moved(value: Any, device: Any, known: dict[int, Any] | None = None) -> Any:
    """The value with every tensor in it on the device: in mappings, sequences and dataclasses.

    What it holds twice is moved once, so that what was shared is shared afterwards.
    """
    known = {} if known is None else known
    if id(value) in known:
        return known[id(value)][1]
    if isinstance(value, torch.Tensor):
        made = value.to(device)
    elif isinstance(value, dict):
        made = {}
        known[id(value)] = (value, made)
        made.update((key, moved(one, device, known)) for key, one in value.items())
    elif isinstance(value, list | tuple):
        made = type(value)([moved(one, device, known) for one in value])
    elif hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        made = copy.copy(value)
        known[id(value)] = (value, made)
        for name, one in vars(value).items():
            object.__setattr__(made, name, moved(one, device, known))
    else:
        return value
    known[id(value)] = (value, made)
    return made


def carry_out(layers: Sequence[Any], job: dict[str, Any]) -> dict[str, Any]:
    """Does one pass's work at the layers; returns the job on the device of the last of them.

    Args:
        layers: nnsight's views of the decoder layers.
        job: "work" of attention, "streams" of residual work and "routing" by layer, and the "recorder" they share; "n",
            the number of samples, and "contrast", the guidance by their prompts without images, which are further lines
            of the pass; None for none.
    """
    for i in sorted({*job["work"], *job["routing"], *job["streams"]}):
        if i in job["work"]:
            call = attention_call(layers[i].self_attn)
            positional, kwargs = call.inputs
            job = brought(job, positional[1].device)
            of = None if job["contrast"] is None else job["n"]
            carry_out_attention(call, positional, kwargs, job["work"][i], of)
        if i in job["routing"]:
            job["routing"][i](router_output(layers[i], job["routing"][i]))
        if i in job["streams"]:
            entering = layers[i].output
            job = brought(job, (entering[0] if isinstance(entering, tuple) else entering).device)
            leaving = job["streams"][i](entering)
            if leaving is not entering:
                layers[i].output = leaving
    return job


def brought(job: dict[str, Any], device: Any) -> dict[str, Any]:
    """The job on a layer's device: as it is where the layer before runs on the same.

    Args:
        job: as `carry_out` takes it.
        device: the layer's.
    """
    if job.get("device") == device:
        return job
    job = {**moved(job, device), "device": device}
    job["recorder"].hides.clear()  # which names tensors by their addresses
    return job


def prompt_pass(
    layers: Sequence[Any],
    attentions: Sequence[Any],
    head: Any,
    job: dict[str, Any],
    cap: float | None,
    keep: int,
) -> dict[str, Any]:
    """The logits after the last `keep` positions, and what was read.

    Args:
        layers: nnsight's views of the decoder layers.
        attentions: as `tower_pass` takes them.
        head: nnsight's view of the output layer.
        job: as `tower_pass` and `carry_out` take it.
        cap: the soft cap of the logits.
        keep: how many positions.
    """
    tower_pass(attentions, job)
    job = carry_out(layers, job)
    logits = capped(head.output, cap)[:, -keep:].detach()
    guided = guided_by(job, logits[:, -1])
    return {
        "tail": logits[: job["n"]],
        "logits": guided,
        "rows": job["recorder"].rows,
        "asked": job["asked"],
    }


def tower_pass(attentions: Sequence[Any], job: dict[str, Any]) -> None:
    """Does the work of the vision tower, which runs before the decoder's first layer; its rows join the job's.

    Args:
        attentions: nnsight's views of the tower's attention modules.
        job: with "tower", its work; None for nothing.

    Raises:
        ModelError, EditError: As `VisionWork.check`.
    """
    if job["tower"] is None:
        return
    views = [attention_call(attentions[layer]) for layer in sorted(job["tower"].layers)]
    tower = moved(job["tower"], views[0].inputs[0][1].device)
    carry_out_tower([(view, work) for view, (_, work) in zip(views, tower.seen_by(attentions), strict=True)])
    tower.check()
    job["recorder"].rows.update(moved(tower.rows, "cpu"))


def guided_by(job: dict[str, Any], logits: Any) -> Any:
    """The samples' logits, (line, token_id), guided where the job says so by those of the lines that follow them."""
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
    """Fills `found` with what a generation gives, token by token as the job's "generation" draws them.

    The model's own greedy generation runs meanwhile: at each step its logits are replaced by ones that leave it no
    other choice.

    Args:
        tracer: nnsight's tracer of the generation.
        layers: nnsight's views of the decoder layers.
        attentions: as `tower_pass` takes them.
        head: nnsight's view of the output layer.
        job: as `tower_pass` and `carry_out` take it, with "generation".
        cap: the soft cap of the logits.
        found: is given "tail", "logits" and "rows", "ids" by step, the samples "lost", and "seen", the logits that were
            drawn from, where the draw keeps them.
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
        plain = capped(given, cap)[:, -1].detach()
        logits = guided_by(job, plain)
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
        job: "block" of rows, "layers" to read them in, and the target's "aims".
        cap: the soft cap of the logits.
        keep: of how many last positions logits are kept.
    """
    rows = {}
    for i in job["layers"]:
        call = attention_call(layers[i].self_attn)
        made = call_at(call)
        block = moved(job["block"], made.queries.device)
        own = made.probabilities(block)
        rows[i] = own if own.requires_grad else own.requires_grad_(True)
        output = call.output
        # the leaf is among what is spliced in, so the copy is made here
        call.output = (made.splice(output[0].clone(), block, rows[i]), *output[1:])
    logits = capped(head.output, cap)[:, -keep:]
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
        job: "leaf", the inputs; "places" (sample, column) of embeddings, None for pixels, which the model was given;
            the target's "aims"; and whether a "gradient" is wanted.
        cap: the soft cap of the logits.
        keep: of how many last positions logits are kept.
    """
    leaf = job["leaf"]
    if job["places"] is not None:
        views = Views(layers, None, head, cap)
        hidden = views.entering(0)
        at = tuple(one.to(hidden.device) for one in job["places"])
        views.enter(0, hidden.index_put(at, leaf.to(hidden.device, hidden.dtype)))
    values = target_values(job["aims"], capped(head.output, cap)[:, -keep:])
    found = {"values": values.detach()}
    if job["gradient"]:
        found["gradient"] = torch.autograd.grad(values.sum(), leaf)[0].detach()
    return found


def without_graph(work: Callable[..., dict[str, Any]], views: Views, job: dict[str, Any]) -> dict[str, Any]:
    """What a function gives, without gradients."""
    with torch.no_grad():
        return moved(work(views, job), "cpu")


def capped(logits: Any, cap: float | None) -> Any:
    """Logits of the output layer, soft-capped where the model does that after it; float32."""
    wide = logits.float()
    return wide if cap is None else cap * torch.tanh(wide / cap)


def repeated(value: Any, n: int, name: str = "") -> Any:
    """An argument of a decoder, of one sample, for `n` of them: tensors, also in mappings and lists.

    Args:
        value: the argument.
        n: how many.
        name: its name; positions of several axes have their samples second, and "deepstack" has no samples: image
            tokens of one follow those of the other.
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

    Called with a tensor, a view runs its module on it, apart from the pass that is going on.

    Attributes:
        layers: the decoder layers.
        norm: the norm after the last of them; None where it is not found.
        head: the output layer.
        cap: the soft cap of the logits.
        decoder: the module that has the layers.
    """

    layers: Sequence[Any]
    norm: Any
    head: Any
    cap: float | None
    decoder: Any = None

    def entering(self, layer: int) -> Tensor:
        """What enters a decoder layer, (sample, position, hidden)."""
        positional, named = self.layers[layer].inputs
        return positional[0] if positional else named["hidden_states"]

    def repeat(self, n: int) -> None:
        """Repeats what the decoder is given, of one sample, for `n` variants. The vision tower ran once."""
        positional, named = self.decoder.inputs
        self.decoder.inputs = (
            tuple(repeated(one, n) for one in positional),
            {name: repeated(one, n, name) for name, one in named.items()},
        )

    def enter(self, layer: int, stream: Tensor) -> None:
        """Puts a residual stream in the place of what enters a decoder layer."""
        positional, named = self.layers[layer].inputs
        if positional:
            self.layers[layer].inputs = ((stream, *positional[1:]), named)
        else:
            self.layers[layer].inputs = (positional, {**named, "hidden_states": stream})

    def leaving(self, layer: int) -> Tensor:
        """What a decoder layer returns, (sample, position, hidden)."""
        output = self.layers[layer].output
        return output[0] if isinstance(output, tuple) else output

    def logits(self, keep: int = 1) -> Tensor:
        """The logits after the pass's last `keep` positions, float32."""
        return capped(self.head.output, self.cap)[:, -keep:]

    def read(self, residual: Tensor) -> Tensor:
        """The logits, float32, that a residual stream would give if no layer followed."""
        return capped(self.head(self.norm(residual)), self.cap)
