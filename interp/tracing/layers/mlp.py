"""Work at the MLP of a layer: what it is given, after its norm, and what it adds to the residual stream."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import SiteError
from interp.tracing.layers.recorder import Recorder
from interp.tracing.layers.residual import LayerStream, StreamMap, StreamPlan

__all__ = ["MLP_SIDES", "MLPWork", "mlp_work"]

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
        outputs: What to change and read of the output, likewise.
        recorder: Where to.
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
                index = read.rows.to(values.device)[..., None].expand(-1, -1, values.shape[2])
                self.recorder.keep(read.read, values.gather(1, index))
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
        inputs: Which rows of the input to keep in which layer.
        outputs: Which rows of the output to change and keep.
        layers: The decoder layers.
        routed: Those with experts.
        recorder: Where what is read goes to.

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
