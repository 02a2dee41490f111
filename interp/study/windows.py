"""Windows of decoder layers in which attention is blocked together."""

from __future__ import annotations

from dataclasses import dataclass

from interp.errors import StudyError

__all__ = ["Window", "usual_width", "windows"]


@dataclass(frozen=True)
class Window:
    """Layers `first` to `last`, both included, around `layer`."""

    layer: int
    first: int
    last: int

    @property
    def layers(self) -> tuple[int, ...]:
        """All its layers."""
        return tuple(range(self.first, self.last + 1))


def windows(n_layers: int, width: int, stride: int = 1) -> tuple[Window, ...]:
    """The window around every `stride`-th layer, from layer 0 on.

    A window of width w around layer ℓ holds the layers ℓ − ⌊w/2⌋ … ℓ + ⌈w/2⌉ − 1: as many on both sides when w is
    odd, one more below than above when it is even. What lies outside the model is cut off, so that windows at both
    ends are narrower.

    Raises:
        StudyError: A width beyond the model's layers.

    Source: Geva et al., Dissecting Recall of Factual Associations, arXiv 2304.14767.

    Example:
        >>> [(window.first, window.last) for window in windows(6, 3)]
        [(0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 5)]
    """
    if width > n_layers:
        raise StudyError(f"window is at most the model's {n_layers} layers; got {width}.")
    below, above = width // 2, (width - 1) // 2
    return tuple(
        Window(layer, max(0, layer - below), min(n_layers - 1, layer + above))
        for layer in range(0, n_layers, stride)
    )


def usual_width(n_layers: int) -> int:
    """9 layers of 32, and the nearest odd number to that share in other depths, at least 3 where there are as many.

    Example:
        >>> [usual_width(n) for n in (2, 6, 28, 32, 40)]
        [2, 3, 7, 9, 11]
    """
    share = 9 * n_layers / 32
    return min(max(3, 2 * int(share // 2) + 1), n_layers)
