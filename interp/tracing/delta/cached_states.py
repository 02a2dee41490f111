"""The states of gated DeltaNets and short convolutions in caches: passes that go on from them."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers.cache_utils import LinearAttentionLayer

__all__ = ["Resumed", "states_of"]


class Resumed(LinearAttentionLayer):
    """A cache layer that starts from a state; the tensors it is given are never written to.

    Args:
        conv: what the short convolution sees of the tokens before.
        recurrent: the delta rule's state after them; without elements for a layer that is a short convolution alone.
    """

    def __init__(
        self,
        conv: Float[Tensor, "sample channel kernel"],
        recurrent: Float[Tensor, "sample head dim value_dim"],
    ) -> None:
        super().__init__()
        self.dtype, self.device = conv.dtype, conv.device
        self.conv_states[0] = conv.clone()
        self.conv_kernel_size[0] = conv.shape[-1]
        self.is_conv_states_initialized[0] = True
        if recurrent.numel():
            self.recurrent_states[0], self.is_recurrent_states_initialized[0] = recurrent, True
        self.has_previous_state[0] = True

    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **_: Any) -> Tensor:
        """Keeps the new state in the place of the old one, through which gradients may have to go back."""
        self.recurrent_states[state_idx] = recurrent_states
        return recurrent_states


def states_of(layer: LinearAttentionLayer) -> tuple[Tensor, Tensor]:
    """The states that a cache layer was left with: of the convolution, and of the recurrence.

    A short convolution has no recurrence; then the second has no elements.
    """
    conv, recurrent = layer.conv_states[0], layer.recurrent_states[0]
    assert conv is not None
    return conv, conv.new_zeros(len(conv), 0, 0, 0) if recurrent is None else recurrent
