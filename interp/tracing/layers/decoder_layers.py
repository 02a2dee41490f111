"""The kinds of a decoder's layers, by what mixes their tokens, and the reads and edits that each kind takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from interp.errors import EditError, SiteError
from interp.tracing.edits import AttentionEdit, Knockout
from interp.tracing.layers.cross_layers import check_rows, is_cross
from interp.tracing.site import LayerKind, Site, kinds_of

__all__ = ["Decoder", "Shape", "layer_kinds", "mixer", "mixer_name"]

_MIXERS: dict[str, LayerKind] = {
    "linear_attn": "linear",
    "self_attn": "attention",
    "cross_attn": "cross",
    "conv": "convolution",
}
"""Under which name transformers keeps what mixes the tokens of a layer of which kind."""


def mixer_name(layer: Any) -> str | None:
    """The attribute of a layer that mixes its tokens; None where it has none. nnsight's views have them too."""
    return next((name for name in _MIXERS if hasattr(layer, name)), None)


def layer_kinds(layers: Sequence[Any]) -> tuple[LayerKind, ...]:
    """The kind of each decoder layer; "attention" of one that has no known part to mix its tokens."""
    return tuple(_MIXERS[mixer_name(layer) or "self_attn"] for layer in layers)


def mixer(layer: Any) -> Any:
    """The module of a layer that mixes tokens: its attention, gated DeltaNet or short convolution; nnsight's views have
    them too."""
    return getattr(layer, mixer_name(layer) or "self_attn")


@dataclass(frozen=True)
class Decoder:
    """The layers of a decoder by kind, with their heads.

    Attributes:
        n_layers: decoder layers, of every kind.
        n_heads: query heads of each layer with a softmax.
        linear: the layers without a softmax, and how many heads each has: none for a short convolution.
        cross: the cross-attention layers, whose keys are the image's.
    """

    n_layers: int
    n_heads: int
    linear: Mapping[int, int] = field(default_factory=dict)
    cross: Collection[int] = ()

    @property
    def kinds(self) -> tuple[LayerKind, ...]:
        """The kind of each layer."""
        return kinds_of(self.n_layers, self.linear, self.cross)

    def heads(self, site: Site) -> dict[int, tuple[int, ...]]:
        """The heads of each layer that a site names.

        Raises:
            SiteError: As `Site.resolve`.
        """
        return site.resolve(self.n_layers, self.n_heads, self.linear, cross=self.cross)

    def rows(self, site: Site) -> tuple[dict[int, tuple[int, ...]], LayerKind]:
        """The heads of each layer whose rows a site names, and the kind of these layers.

        Raises:
            SiteError: As `Site.resolve`, layers of several kinds, or keys that its layers do not have.
        """
        found = self.heads(site)
        return found, self._kind(site, found)

    def stream(self, site: Site) -> tuple[int, ...]:
        """The layers that a site names, for the residual stream.

        Raises:
            SiteError: As `Site.stream_layers`, or image tokens where they are no positions of the sequence.
        """
        if self.cross:
            check_rows(site)
        return site.stream_layers(self.n_layers, self.linear, self.cross)

    def softmax(self, site: Site, what: str) -> dict[int, tuple[int, ...]]:
        """The heads of each layer that a site names, for what needs a softmax; `what` names it in the error.

        Raises:
            SiteError: As `Site.resolve`, or the layers are gated DeltaNets.
        """
        found = self.heads(site)
        if self._is_linear(found):
            able = [layer for layer in range(self.n_layers) if layer not in self.linear]
            raise SiteError(
                f"{what} needs layers with a softmax; the layers {list(found)} it names are linear (gated DeltaNet), "
                f"whose weights are signed. This model has a softmax in layers {able}: name some of them, or "
                'layers="attention".'
            )
        return found

    def edited(self, edit: AttentionEdit) -> tuple[dict[int, tuple[int, ...]], LayerKind]:
        """The heads of each layer that an edit names, and the kind of these layers.

        Raises:
            SiteError: As `rows`.
            EditError: The edit needs a softmax, and the layers are gated DeltaNets.
        """
        found, kind = self.rows(edit.site)
        erases = isinstance(edit, Knockout) and edit.mode == "renormalise"
        if erases or kind != "linear":
            return found, kind
        name = type(edit).__name__ + (f" with mode={edit.mode!r}" if isinstance(edit, Knockout) else "")
        raise EditError(
            f"{name} works on the scores or weights of a softmax; the layers {list(found)} it names are linear (gated "
            'DeltaNet) and have none. Name attention layers, such as layers="attention", or erase tokens from linear '
            'layers with Knockout(site, "renormalise").'
        )

    def _is_linear(self, layers: Collection[int]) -> bool:
        """Whether the layers, which are linear all or none, are gated DeltaNets."""
        return any(layer in self.linear for layer in layers)

    def _kind(self, site: Site, layers: Collection[int]) -> LayerKind:
        if self._is_linear(layers):
            return "linear"
        return "cross" if self.cross and is_cross(site, layers, self.cross) else "attention"


@dataclass(frozen=True)
class Shape:
    """What a plan must know of a model.

    `takes_masks`: (sample, head, query, key) masks, by its attention. `windows`: each layer's sliding window or chunk,
    None where rows see all that comes before them; empty where all do. `devices`: where each layer runs; empty where
    all run on `device`. `linear`: the gated DeltaNet layers, and how many heads each has. `has_cross`: whether some
    layers are cross-attention layers.
    """

    n_layers: int
    n_heads: int
    n_key_value_heads: int
    device: torch.device
    takes_masks: bool = True
    windows: tuple[int | None, ...] = ()
    devices: tuple[torch.device, ...] = ()
    linear: Mapping[int, int] = field(default_factory=dict)
    has_cross: bool = False

    def of_linear(self) -> Shape:
        """The same for the gated DeltaNet layers: their heads, each with a key of its own, and no masks."""
        n = max(self.linear.values(), default=0)
        return replace(self, n_heads=n, n_key_value_heads=n, takes_masks=False)
