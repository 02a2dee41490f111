"""The kinds of a decoder's layers, where their keys come from, and the reads and edits that each kind allows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import nn

from interp.errors import EditError, SiteError
from interp.tracing.edits import AttentionEdit, Knockout
from interp.tracing.encoding.batch import Layout
from interp.tracing.site import ImageMask, LayerKind, Selector, Site, kinds_of

__all__ = [
    "CrossLayout",
    "Decoder",
    "RowsOfSharing",
    "Shape",
    "check_rows",
    "every_row",
    "is_cross",
    "key_layers",
    "layer_kinds",
    "mixer",
    "mixer_name",
    "rows_of_sharing",
]


_MIXERS: dict[str, LayerKind] = {
    "linear_attn": "linear",
    "self_attn": "attention",
    "cross_attn": "cross",
    "conv": "convolution",
}
"""The name that transformers gives to the module that mixes a layer's tokens → the kind of the layer."""


_SLICES = "_maybe_slice_kv_shared_inputs"
_ROWS = "the image is not part of this model's sequence, so image tokens have no rows"


def mixer_name(layer: Any) -> str | None:
    """The name of the attribute that mixes a layer's tokens, or None. It also works on nnsight's views of layers."""
    return next((name for name in _MIXERS if hasattr(layer, name)), None)


def layer_kinds(layers: Sequence[Any]) -> tuple[LayerKind, ...]:
    """The kind of each decoder layer; "attention" for a layer without a known module that mixes tokens."""
    return tuple(_MIXERS[mixer_name(layer) or "self_attn"] for layer in layers)


def mixer(layer: Any) -> Any:
    """The module that mixes a layer's tokens: attention, gated DeltaNet or short convolution.

    It also works on nnsight's views of layers.
    """
    return getattr(layer, mixer_name(layer) or "self_attn")


@dataclass(frozen=True)
class Decoder:
    """The layers of a decoder by kind, with their heads.

    Attributes:
        n_layers: decoder layers, of every kind.
        n_heads: query heads of each layer with a softmax.
        linear: the layers without a softmax → the number of heads of each; 0 for a short convolution.
        cross: the cross-attention layers, whose keys come from the image.
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
            SiteError: As in `Site.resolve`.
        """
        return site.resolve(self.n_layers, self.n_heads, self.linear, cross=self.cross)

    def rows(self, site: Site) -> tuple[dict[int, tuple[int, ...]], LayerKind]:
        """The heads of each layer whose rows a site names, and the kind of these layers.

        Raises:
            SiteError: As in `Site.resolve`, layers of several kinds, or keys that the site's layers do not have.
        """
        found = self.heads(site)
        return found, self._kind(site, found)

    def stream(self, site: Site) -> tuple[int, ...]:
        """The layers that a site names, for the residual stream.

        Raises:
            SiteError: As in `Site.stream_layers`, or image tokens where these are not part of the sequence.
        """
        if self.cross:
            check_rows(site)
        return site.stream_layers(self.n_layers, self.linear, self.cross)

    def softmax(self, site: Site, what: str) -> dict[int, tuple[int, ...]]:
        """The heads of each layer that a site names; the layers must have a softmax.

        Args:
            site: The site.
            what: The name, in the error, of the function that needs a softmax.

        Raises:
            SiteError: As in `Site.resolve`, or the layers are gated DeltaNets.
        """
        found = self.heads(site)
        if self._is_linear(found):
            able = [layer for layer in range(self.n_layers) if layer not in self.linear]
            raise SiteError(
                f"{what} needs layers with a softmax; it was given layers {list(found)}, which are linear (gated "
                f"DeltaNet) and have signed weights. This model has a softmax in layers {able}: name some of these, or "
                'write layers="attention".'
            )
        return found

    def edited(self, edit: AttentionEdit) -> tuple[dict[int, tuple[int, ...]], LayerKind]:
        """The heads of each layer that an edit names, and the kind of these layers.

        Raises:
            SiteError: As in `rows`.
            EditError: The edit needs a softmax, and the layers are gated DeltaNets.
        """
        found, kind = self.rows(edit.site)
        erases = isinstance(edit, Knockout) and edit.mode == "renormalise"
        if erases or kind != "linear":
            return found, kind
        name = type(edit).__name__ + (f" with mode={edit.mode!r}" if isinstance(edit, Knockout) else "")
        raise EditError(
            f"{name} changes the scores or weights of a softmax; its site names layers {list(found)}, which are linear "
            '(gated DeltaNet) and have no softmax. Name attention layers, such as layers="attention", or erase tokens '
            'from linear layers with Knockout(site, "renormalise").'
        )

    def _is_linear(self, layers: Collection[int]) -> bool:
        """Whether the layers are linear (gated DeltaNets); either all of them are, or none is."""
        return any(layer in self.linear for layer in layers)

    def _kind(self, site: Site, layers: Collection[int]) -> LayerKind:
        if self._is_linear(layers):
            return "linear"
        return "cross" if self.cross and is_cross(site, layers, self.cross) else "attention"


@dataclass(frozen=True)
class Shape:
    """What a plan must know about a model.

    Attributes:
        n_layers: decoder layers, of every kind.
        n_heads: query heads of each layer with a softmax.
        n_key_value_heads: key-value heads of each layer with a softmax.
        device: where the inputs are.
        takes_masks: whether the model's attention accepts masks (sample, head, query, key).
        windows: the sliding window or chunk of each layer, None for a layer whose rows see all earlier tokens; empty if
            this is true of all layers.
        devices: where each layer runs; empty if all layers run on `device`.
        linear: the layers without a softmax → the number of heads of each; 0 for a short convolution.
        has_cross: whether some layers are cross-attention layers.
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
        """The same for the gated DeltaNet layers: with their heads, one key-value head for each, and no masks."""
        n = max(self.linear.values(), default=0)
        return replace(self, n_heads=n, n_key_value_heads=n, takes_masks=False)


def key_layers(config: Any, n_layers: int) -> tuple[int, ...]:
    """For each layer, the layer whose keys and values it attends to.

    This is the layer itself, or, for a layer without keys and values of its own, the last layer of its kind that has
    them.

    Args:
        config: a text config. Its last `num_kv_shared_layers` layers have no keys and values of their own;
            `layer_types` gives the kind of each layer.
        n_layers: the number of layers.
    """
    n_own = n_layers - (getattr(config, "num_kv_shared_layers", 0) or 0)
    if n_own == n_layers:
        return tuple(range(n_layers))
    kinds = list(config.layer_types)
    last = {kind: layer for layer, kind in enumerate(kinds[:n_own])}
    return (*range(n_own), *(last[kind] for kind in kinds[n_own:]))


class RowsOfSharing:
    """Replaces the method by which a text model skips rows in the layers that have no keys of their own.

    In a pass that returns only the last rows' logits, transformers skips the other rows in these layers. Skipped rows
    cannot be read or edited, so a pass with reads or edits skips none. In other passes the method runs while the config
    has the name of the model's own attention function: if there is no mask, the method uses this name to decide whether
    skipping is exact.

    Attributes:
        every: whether every row runs.
    """

    def __init__(self, model: Any, implementation: str) -> None:
        self.every = False
        self._model, self._implementation = model, implementation

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Returns the arguments without the last one, the number of rows; cut to these rows if rows are skipped."""
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
    """Makes every row run, for the block."""
    for one in sharing:
        one.every = True
    try:
        yield
    finally:
        for one in sharing:
            one.every = False


@dataclass(frozen=True, eq=False)
class CrossLayout(Layout):
    """A layout whose rows are those of a pass over prompts and whose columns are the image's keys, without padding
    before them.

    Attributes:
        n_cross: The number of keys of a cross-attention layer.
    """

    n_cross: int = 0

    @classmethod
    def of(cls, layout: Layout, n_cross: int) -> CrossLayout:
        """The layout of the cross-attention layers of the same pass."""
        return cls(layout.columns, layout.n_columns, layout.offset, n_cross)

    @property
    def n_keys(self) -> int:
        """The number of keys of a cross-attention layer."""
        return self.n_cross

    def keys(self, positions: Sequence[Int[np.ndarray, " _"]]) -> list[Int[np.ndarray, " _"]]:
        """The columns of each sample's keys: the same numbers, since no padding comes before them."""
        return list(positions)


def is_cross(site: Site, layers: Collection[int], cross: Collection[int]) -> bool:
    """Whether a site names cross-attention layers, in a model that has some. It also checks the site.

    Args:
        site: The site, whose queries and keys are checked.
        layers: The site's layers.
        cross: The cross-attention layers of the model.

    Raises:
        SiteError: Keys that the site's layers do not have, layers of both kinds, or image tokens as rows.
    """
    check_rows(site)
    named = {layer in cross for layer in layers}
    if len(named) > 1:
        raise SiteError(
            f"layers={_layers(site)} names layers of two kinds, which have different keys; a site names layers of one "
            "kind. Write layers='cross' for the layers with keys of the image, layers='attention' for the layers with "
            "keys of the text, or numbers of layers of one kind."
        )
    image = [_is_image(one) for one in site.groups[1]]
    if True in named and not all(image):
        raise SiteError(
            f"keys={site.groups[1]!r}: all keys of cross-attention layers come from the image. Write keys='image' or "
            "interp.image_mask(…), or layers='attention' for keys of the text."
        )
    if True not in named and any(image):
        raise SiteError(
            f"keys={site.groups[1]!r}: the image is not part of this model's sequence, so its self-attention layers "
            "have no image keys. Write layers='cross' for layers that have them, or keys='text'."
        )
    return True in named


def check_rows(site: Site) -> None:
    """Raise `SiteError` for image tokens as rows, in a model with cross-attention layers."""
    if any(_is_image(one) for one in site.groups[0]):
        raise SiteError(f"queries={site.groups[0]!r}: {_ROWS}. Write queries='text', or 'after_image'.")


def _is_image(selector: Selector) -> bool:
    return isinstance(selector, ImageMask) or (isinstance(selector, str) and selector == "image")


def _layers(site: Site) -> str:
    return repr(site.layers) if isinstance(site.layers, str) else str(list(site.layers))
