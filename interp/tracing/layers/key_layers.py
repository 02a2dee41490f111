"""Layers without keys and values of their own, which attend to an earlier layer's (Gemma 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["RowsOfSharing", "every_row", "key_layers", "rows_of_sharing"]

_SLICES = "_maybe_slice_kv_shared_inputs"


def key_layers(config: Any, n_layers: int) -> tuple[int, ...]:
    """For each layer, the layer whose keys and values it attends to: itself, or the last of its kind that has some.

    Args:
        config: a text config; `num_kv_shared_layers` of its last layers have none, and `layer_types` are the kinds.
        n_layers: how many layers there are.
    """
    n_own = n_layers - (getattr(config, "num_kv_shared_layers", 0) or 0)
    if n_own == n_layers:
        return tuple(range(n_layers))
    kinds = list(config.layer_types)
    last = {kind: layer for layer, kind in enumerate(kinds[:n_own])}
    return (*range(n_own), *(last[kind] for kind in kinds[n_own:]))


class RowsOfSharing:
    """Stands for the method by which a text model leaves rows out of its layers without keys.

    In a pass of which only the last rows' logits are wanted, transformers leaves out the other rows of these layers.
    They could then not be read or edited, so in a pass with work no row is left out. In any other the method runs
    under the model's own attention name: where no mask is made, it decides by that name whether leaving out is exact.

    Attributes:
        every: whether no row is left out.
    """

    def __init__(self, model: Any, implementation: str) -> None:
        self.every = False
        self._model, self._implementation = model, implementation

    def __call__(self, *given: Any, **named: Any) -> Any:
        """What the method returns: what it is given but the number of rows, cut to these rows or not."""
        if self.every:
            return given[:-1]
        config = self._model.config
        ours = config._attn_implementation_internal
        config._attn_implementation_internal = self._implementation
        try:
            return getattr(type(self._model), _SLICES)(self._model, *given, **named)
        finally:
            config._attn_implementation_internal = ours


def rows_of_sharing(hf: nn.Module, implementation: str) -> list[RowsOfSharing]:
    """Puts a `RowsOfSharing` into each text model that has the method, and returns them."""
    found = []
    for module in hf.modules():
        if hasattr(type(module), _SLICES):
            found.append(RowsOfSharing(module, implementation))
            module.__dict__[_SLICES] = found[-1]
    return found


@contextmanager
def every_row(sharing: Sequence[RowsOfSharing]) -> Iterator[None]:
    """For the block, no row is left out."""
    for one in sharing:
        one.every = True
    try:
        yield
    finally:
        for one in sharing:
            one.every = False
