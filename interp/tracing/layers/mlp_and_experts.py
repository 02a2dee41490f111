"""Reads of what lies beside attention in a layer: the MLP's input and output, and the routing of experts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ModelError, SiteError
from interp.tracing.layers.layer_plan import Recorder
from interp.tracing.layers.residual import LayerStream, StreamMap, StreamPlan

__all__ = ["MLP_SIDES", "ROUTERS", "MLPWork", "RouterWork", "mlp_work", "router_paths", "routing_work"]


Weights = Callable[[Any], Float[Tensor, "row expert"]]
"""What a router returned → the weight of each expert for each row, padded samples one after another."""


def chosen(output: tuple[Tensor, Tensor, Tensor]) -> Float[Tensor, "row expert"]:
    """From scores of all experts, and the weights and numbers of the chosen ones, which the experts' outputs take."""
    scores, weights, numbers = output
    return weights.new_zeros(scores.shape).scatter(1, numbers, weights)


def scaled(output: tuple[Tensor, Tensor]) -> Float[Tensor, "row expert"]:
    """From what each expert's input is multiplied by: already 0 for those that are not chosen."""
    return output[0]


ROUTERS: Mapping[str, Weights] = {
    "AriaTextTopKRouter": chosen,
    "Gemma4TextRouter": chosen,
    "Glm4vMoeTextTopkRouter": chosen,
    "Llama4Router": scaled,
    "MixtralTopKRouter": chosen,
    "Qwen3MoeTopKRouter": chosen,
    "Qwen3VLMoeTextTopKRouter": chosen,
    "Qwen3_5MoeTopKRouter": chosen,
}
"""transformers' class of a router → how its output becomes weights.

`tests/tracing/layers/test_mlp_and_experts.py` recomputes each one's layer from them, expert by expert."""

_EXPERTS = "experts"
"""The name of the module of a layer's experts in all of transformers' mixtures."""


def router_paths(layers: Sequence[nn.Module]) -> dict[int, str]:
    """Each router's path inside its layer, by layer; layers without experts are left out.

    Raises:
        ModelError: A layer with experts whose router is none of `ROUTERS`.
    """
    found = {}
    for number, layer in enumerate(layers):
        names = {path: type(module).__name__ for path, module in layer.named_modules()}
        path = next((path for path, kind in names.items() if kind in ROUTERS), None)
        if path is not None:
            found[number] = path
        elif any(path.split(".")[-1] == _EXPERTS for path in names):
            raise ModelError(
                f"layer {number} ({type(layer).__name__}) has experts, but no router that Experts can read; those are "
                f"{', '.join(ROUTERS)}. Add its class to interp.tracing.layers.mlp_and_experts.ROUTERS."
            )
    return found


@dataclass(frozen=True, eq=False)
class RouterWork:
    """Keeps what is read of a layer's routing, whichever executor calls it with what the router returned.

    Attributes:
        path: The router's path inside its layer.
        weights: How the router's output becomes weights.
        prefill: The reads in the prompt's pass.
        decode: The reads in the pass of each generated token.
        recorder: Takes what is read.
    """

    path: str
    weights: Weights
    prefill: LayerStream
    decode: LayerStream
    recorder: Recorder

    def __call__(self, output: Any) -> Any:
        """The output, unchanged."""
        if self.recorder.paused:
            return output
        reads = (self.decode if self.recorder.step else self.prefill).reads
        weights = self.weights(output) if reads else torch.empty(0)
        for read in reads:
            read.keep(weights.reshape(len(read.rows), -1, weights.shape[-1]), self.recorder)
        return output


def routing_work(
    plan: StreamPlan, layers: Sequence[nn.Module], paths: Mapping[int, str], recorder: Recorder
) -> dict[int, RouterWork]:
    """What to do with what the router of each layer returns.

    Args:
        plan: The rows to keep, by layer.
        layers: The decoder layers.
        paths: Each router's path inside its layer.
        recorder: Takes what is read.
    """
    none = LayerStream()
    found = {}
    for i in sorted({*plan.prefill, *plan.decode}):
        kind = ROUTERS[type(layers[i].get_submodule(paths[i])).__name__]
        reads = plan.prefill.get(i, none), plan.decode.get(i, none)
        found[i] = RouterWork(paths[i], kind, *reads, recorder)
    return found


MLP_SIDES = ("input", "output")
"""What an MLP is given, and what the layer adds to the stream."""
_INPUT, _OUTPUT = "mlp", "post_feedforward_layernorm"
"""Names of the module that is given the input; and of the norm behind it, where Gemma's layers have one."""


@dataclass(frozen=True, eq=False)
class MLPWork:
    """What is done at one layer's MLP, whichever executor calls it: first the writes, in order, then the reads.

    Attributes:
        path: The name, inside the layer, of the module whose output is what the layer adds to the stream.
        inputs: What to read of the input, in the prompt's pass and in that of each generated token.
        outputs: What to change and read of the output, in the prompt's pass and in that of each generated token.
        recorder: Takes what is read.
    """

    path: str
    inputs: tuple[LayerStream, LayerStream]
    outputs: tuple[LayerStream, LayerStream]
    recorder: Recorder

    def __call__(
        self, given: Float[Tensor, "sample row hidden"], output: Float[Tensor, "sample row hidden"]
    ) -> Float[Tensor, "sample row hidden"]:
        """The output, changed."""
        if self.recorder.paused:
            return output
        when = int(self.recorder.step > 0)
        for write in self.outputs[when].writes:
            assert isinstance(write, StreamMap)
            output = write(output, self.recorder.step, given)
        for side, values in ((self.inputs, given), (self.outputs, output)):
            for read in side[when].reads:
                read.keep(values, self.recorder)
        return output


def mlp_work(
    inputs: StreamPlan,
    outputs: StreamPlan,
    layers: Sequence[nn.Module],
    routed: Collection[int],
    recorder: Recorder,
) -> dict[int, MLPWork]:
    """What to do at the MLP of each layer.

    Args:
        inputs: The rows of the input to keep, by layer.
        outputs: The rows of the output to change and to keep, by layer.
        layers: The decoder layers.
        routed: The layers with experts.
        recorder: Takes what is read.

    Raises:
        SiteError: A layer with experts, or without one MLP.
    """
    none, found = LayerStream(), {}
    plans = (inputs.prefill, inputs.decode, outputs.prefill, outputs.decode)
    for i in sorted({layer for plan in plans for layer in plan}):
        before, later, after, last = (plan.get(i, none) for plan in plans)
        found[i] = MLPWork(_path(layers[i], i, i in routed), (before, later), (after, last), recorder)
    return found


def _path(layer: Any, number: int, has_experts: bool) -> str:
    if has_experts or not hasattr(layer, _INPUT):
        why = "has experts" if has_experts else f"({type(layer).__name__}) has no module of that name"
        raise SiteError(
            f"reads and edits at the MLP are for layers with one MLP; layer {number} {why}. Name other layers, or use "
            "interp.Residual."
        )
    return _OUTPUT if hasattr(layer, _OUTPUT) else _INPUT
