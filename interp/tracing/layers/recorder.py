"""The buffer that all layers of one run write their reads into."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from interp.tracing.layers.layer_plan import ReadBlock

__all__ = ["Recorder"]


@dataclass(eq=False)
class Recorder:
    """The buffer all layers of one run write into.

    Attributes:
        step: the pass that is being run; 0 is the prompt's.
        paused: whether layers do nothing now but their own attention.
        rows: (read, step) → what each layer gave, in layer order.
        hides: whether some cells of a pass take anything from what its rows see, so far as that was looked at.
    """

    step: int = 0
    paused: bool = False
    rows: dict[tuple[int, int], list[Tensor]] = field(default_factory=dict)
    hides: dict[tuple[int, ...], bool] = field(default_factory=dict)

    def add(self, read: ReadBlock, probabilities: Float[Tensor, "sample head row key"]) -> None:
        """Keep the read's columns of rows of attention, averaged over heads where it says so."""
        kept = probabilities.mean(dim=1, keepdim=True) if read.reduce else probabilities
        index = read.keys[:, None, None, :].expand(-1, kept.shape[1], kept.shape[2], -1)
        self.keep(read.read, kept.gather(3, index))

    def keep(self, read: int, values: Tensor) -> None:
        """Keep what a layer gives for a read."""
        self.rows.setdefault((read, self.step), []).append(values)
