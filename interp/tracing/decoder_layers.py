"""The layers of a decoder by what mixes their tokens, and what each kind can be asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interp.errors import EditError, SiteError
from interp.tracing.edits import AttentionEdit, Knockout
from interp.tracing.site import LayerKind, Site

__all__ = ["Decoder", "layer_kinds", "mixer"]

LINEAR = "linear_attn"
"""Under which name transformers keeps a layer's gated DeltaNet; attention is at `self_attn`."""


def layer_kinds(layers: Sequence[Any]) -> tuple[LayerKind, ...]:
    """The kind of each decoder layer: "linear" where its tokens are mixed by a gated DeltaNet."""
    return tuple("linear" if hasattr(layer, LINEAR) else "attention" for layer in layers)


def mixer(layer: Any) -> Any:
    """The module of a layer that mixes tokens: its attention, or its gated DeltaNet; nnsight's views have them too."""
    return getattr(layer, LINEAR) if hasattr(layer, LINEAR) else layer.self_attn


@dataclass(frozen=True)
class Decoder:
    """How many layers there are, the heads of each attention layer, and those of each gated DeltaNet."""

    n_layers: int
    n_heads: int
    linear: Mapping[int, int]

    def heads(self, site: Site) -> dict[int, tuple[int, ...]]:
        """The heads of each layer that a site names.

        Raises:
            SiteError: As `Site.resolve`.
        """
        return site.resolve(self.n_layers, self.n_heads, self.linear)

    def stream(self, site: Site) -> tuple[int, ...]:
        """The layers that a site names, for the residual stream.

        Raises:
            SiteError: As `Site.stream_layers`.
        """
        return site.stream_layers(self.n_layers, self.linear)

    def is_linear(self, layers: Mapping[int, Any]) -> bool:
        """Whether the layers, which are of one kind, are gated DeltaNets."""
        return any(layer in self.linear for layer in layers)

    def softmax(self, site: Site, what: str) -> dict[int, tuple[int, ...]]:
        """The heads of each layer that a site names, for what needs a softmax; `what` names it in the error.

        Raises:
            SiteError: As `Site.resolve`, or the layers are gated DeltaNets.
        """
        found = self.heads(site)
        if self.is_linear(found):
            able = [layer for layer in range(self.n_layers) if layer not in self.linear]
            raise SiteError(
                f"{what} needs layers with a softmax; the layers {list(found)} it names are linear (gated DeltaNet), "
                f"whose weights are signed. This model has a softmax in layers {able}: name some of them, or "
                'layers="attention".'
            )
        return found

    def edited(self, edit: AttentionEdit) -> dict[int, tuple[int, ...]]:
        """The heads of each layer that an edit names.

        Raises:
            SiteError: As `Site.resolve`.
            EditError: The edit needs a softmax, and the layers are gated DeltaNets.
        """
        found = self.heads(edit.site)
        erases = isinstance(edit, Knockout) and edit.mode == "renormalise"
        if erases or not self.is_linear(found):
            return found
        name = type(edit).__name__ + (f" with mode={edit.mode!r}" if isinstance(edit, Knockout) else "")
        raise EditError(
            f"{name} works on the scores or weights of a softmax; the layers {list(found)} it names are linear (gated "
            'DeltaNet) and have none. Name attention layers, such as layers="attention", or erase tokens from linear '
            'layers with Knockout(site, "renormalise").'
        )
