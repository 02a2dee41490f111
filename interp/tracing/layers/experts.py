"""Reads of the routing of mixture-of-experts layers: where routers are, what they return, and what to keep of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ModelError
from interp.tracing.layers.recorder import Recorder
from interp.tracing.layers.residual import LayerStream, StreamPlan

__all__ = ["ROUTERS", "RouterWork", "router_paths", "routing_work"]

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
"""transformers' class of a router → how its output becomes weights. `tests/tracing/layers/test_experts.py` recomputes
each one's layer from them, expert by expert."""

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
                f"{', '.join(ROUTERS)}. Add its class to interp.tracing.layers.experts.ROUTERS."
            )
    return found


@dataclass(frozen=True, eq=False)
class RouterWork:
    """Keeps what is read of a layer's routing, whichever executor calls it with what the router returned.

    Attributes:
        path: the router's place inside its layer.
        weights: how its output becomes weights.
        prefill: what to read in the prompt's pass.
        decode: what to read in that of each generated token.
        recorder: where to.
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
        weights = self.weights(output) if reads else None
        for read in reads:
            assert weights is not None
            own = weights.reshape(len(read.rows), -1, weights.shape[-1])
            index = read.rows.to(own.device)[..., None].expand(-1, -1, own.shape[-1])
            self.recorder.keep(read.read, own.gather(1, index))
        return output


def routing_work(
    plan: StreamPlan, layers: Sequence[nn.Module], paths: Mapping[int, str], recorder: Recorder
) -> dict[int, RouterWork]:
    """What to do with what the router of each layer returns.

    Args:
        plan: which rows to keep after which layer.
        layers: the decoder layers.
        paths: each router's path inside its layer.
        recorder: where what is read goes to.
    """
    none = LayerStream()
    found = {}
    for i in sorted({*plan.prefill, *plan.decode}):
        kind = ROUTERS[type(layers[i].get_submodule(paths[i])).__name__]
        reads = plan.prefill.get(i, none), plan.decode.get(i, none)
        found[i] = RouterWork(paths[i], kind, *reads, recorder)
    return found
