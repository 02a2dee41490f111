"""HGAI: in middle layers, the mean over heads raises each head's attention to the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from interp.errors import MethodError
from interp.indicators.indicator_checks import check_number
from interp.methods.method import EditedGeneration
from interp.methods.published_layers import chosen_layers, editable_layers, layer_indices
from interp.tracing import Guide, Mllm, Site

__all__ = ["HGAI"]

HGAI_LAYERS = range(5, 19)
DEPTH = 32


@dataclass(frozen=True)
class HGAI(EditedGeneration):
    """Heads guided attention intervention: image scores rise where the heads' mean absolute score is large.

    Before the softmax, in the last row of every pass, prefill and decode, the scaled score e_h of each image token
    in head h becomes e_h + α · mean over all heads h′ of the layer of |e_h′|.

    Args:
        alpha: α ≥ 0; 0 changes nothing.
        layers: The guided layers. None: layers 5 … 18, both included, of LLaVA-1.5-7B's 32, and the same fractions of
            another depth (`scaled_layers`).

    Raises:
        MethodError: A parameter out of its range.

    Source: arXiv 2411.16724 and its official code. The formula names no pass; the code edits the last row of every pass
    of generate(), as here. The source does not say which layers to use at another depth. The code also offers an
    aggregation over the heads with most image attention; this class does not.
    """

    alpha: float = 0.5
    layers: Sequence[int] | None = None
    name: ClassVar[str] = "HGAI"

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, low=0.0, error=MethodError)
        object.__setattr__(
            self, "layers", layer_indices(self.layers, "layers 5 … 18 of 32, scaled to the depth")
        )

    def guided_layers(self, n_layers: int) -> tuple[int, ...]:
        """The guided layers in a model of that depth."""
        return chosen_layers(self.layers, HGAI_LAYERS, depth=DEPTH, n_layers=n_layers)

    def edits(self, mllm: Mllm) -> list[Guide]:
        """The guidance, for `mllm.trace`; none when α is 0."""
        layers = editable_layers(mllm, self.guided_layers(mllm.n_layers), self.layers)
        site = Site(layers=layers, queries="last", keys="image")
        return [Guide(site, self.alpha, steps="all")] if self.alpha else []

    def to_dict(self) -> dict[str, Any]:
        """The method as JSON values."""
        layers = None if self.layers is None else list(self.layers)
        return {"method": self.name, "alpha": self.alpha, "layers": layers}
