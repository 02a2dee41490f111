"""Reads and edits of the vision tower's attention, resolved against where each sample's patches are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from interp.errors import EditError, SiteError
from interp.inputs.patch_map import PatchMap
from interp.tracing.activation_edits import PatchRows
from interp.tracing.edits import AttentionEdit, Edit, check_order
from interp.tracing.reads import Read, Rows
from interp.tracing.site import Selector, select_each

__all__ = ["Tower", "VisionEdit", "VisionSelection", "vision_edits", "vision_selection"]

Places = tuple[Int[np.ndarray, " _"], ...]
"""One array of positions in the tower per sample, see `PatchMap`."""


@dataclass(frozen=True, eq=False)
class Tower:
    """What reads and edits of a vision tower are resolved against.

    Attributes:
        patches: where each sample's patches are.
        n_layers: layers of the tower.
        n_heads: heads of each layer.
    """

    patches: tuple[PatchMap, ...]
    n_layers: int
    n_heads: int

    def places(self, selectors: Sequence[Selector]) -> Places:
        """The positions that selectors name, for each sample."""
        return select_each(selectors, self.patches)


@dataclass(frozen=True, eq=False)
class VisionSelection:
    """What one `Rows` of the tower covers; see `Selection` of `request` for the attributes."""

    linear: ClassVar[bool] = False

    heads: dict[int, tuple[int, ...]]
    pairs: tuple[tuple[int, int], ...] | None
    reduce: bool
    queries: Places
    keys: Places


@dataclass(frozen=True, eq=False)
class VisionEdit:
    """What one edit of the tower changes: each sample's rows and columns, in each layer's heads."""

    edit: AttentionEdit
    heads: dict[int, tuple[int, ...]]
    queries: Places
    keys: Places


def vision_selection(read: Read, tower: Tower) -> VisionSelection:
    """What a read of the tower covers.

    Raises:
        SiteError: A layer, head, group or position that is not there, or a read of nothing.
    """
    assert isinstance(read, Rows)  # a `Residual` has no tower
    site = read.site
    found = [tower.places(group) for group in site.groups]
    for name, group, samples in zip(("queries", "keys"), site.groups, found, strict=True):
        for i, at in enumerate(samples):
            if not len(at):
                raise SiteError(
                    f"{name}={group!r} selects nothing in sample {i} of the batch, which has "
                    f"{tower.patches[i].n} patches. A read needs at least one."
                )
    heads = site.resolve(tower.n_layers, tower.n_heads, whose="vision tower")
    return VisionSelection(heads, site.pairs, read.reduce == "head", *found)


def vision_edits(edits: Sequence[Edit], tower: Tower) -> tuple[VisionEdit, ...]:
    """What edits of the tower change, without those that change nothing.

    Raises:
        SiteError: A layer, head, group or position that is not there.
        EditError: Edits out of order, of generated tokens, or of a kind that has no meaning in the tower.
    """
    check_order(edits)
    found = []
    for edit in edits:
        if isinstance(edit, PatchRows) or not isinstance(edit, AttentionEdit):
            raise EditError(
                f"{type(edit).__name__} works only on the language model. In the vision tower use Knockout, "
                "ScaleWeights, ScaleScores, Boost, Guide or Apply."
            )
        if edit.steps != "prefill":
            raise EditError(
                f"the vision tower runs once, with the prompt, so its edits have steps='prefill'; got {edit!r:.300}."
            )
        queries, keys = (tower.places(group) for group in edit.site.groups)
        heads = edit.site.resolve(tower.n_layers, tower.n_heads, whose="vision tower")
        able = tuple(_seeing(one, q, k) for one, q, k in zip(tower.patches, queries, keys, strict=True))
        if not edit.idle and any(map(len, able)):
            found.append(VisionEdit(edit, heads, able, keys))
    return tuple(found)


def _seeing(patches: PatchMap, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The queries with any of the keys in their sequence."""
    return queries[np.isin(patches.sequence[queries], patches.sequence[keys])]
