"""Where each patch of a sample's images lies: its place in the vision tower's sequences and in the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from interp.errors import MapError, SiteError
from interp.inputs.footprints import Footprints
from interp.inputs.tokens import TokenMap, Word

__all__ = ["PatchMap", "PatchWeights", "Patches", "TowerSequence"]


@dataclass(frozen=True, eq=False)
class PatchWeights:
    """Which patches each image token is made of: a sparse (token, patch) matrix whose rows sum to 1.

    Where a token is a mean of patches (average pooling, a resized grid) the weights are those of the mean. Where a
    learned layer merges patches, or a projector takes one, they say which patches the token is made of, each alike:
    1 / their number. Tokens without patches, such as newlines, have a row of zeros.

    Attributes:
        token: (entry,) rows of the entries that are not 0.
        patch: (entry,) their columns.
        weight: (entry,) their values, in (0, 1].
        shape: (N image tokens, number of patches).
    """

    token: Int[np.ndarray, " entry"]
    patch: Int[np.ndarray, " entry"]
    weight: Float[np.ndarray, " entry"]
    shape: tuple[int, int]

    @classmethod
    def members(cls, lists: Sequence[Sequence[int] | np.ndarray], n_patches: int) -> PatchWeights:
        """The weights of tokens that are made of these patches, each alike."""
        token = np.repeat(np.arange(len(lists)), [len(one) for one in lists])
        patch = np.concatenate([np.asarray(one, int) for one in (*lists, [])])
        weight = 1.0 / np.array([len(lists[int(i)]) for i in token], float)
        return cls(token, patch, weight, (len(lists), n_patches))

    @classmethod
    def stacked(cls, parts: Sequence[PatchWeights]) -> PatchWeights:
        """The weights of several blocks of tokens, each with patches of its own, one after another."""
        rows = np.cumsum([0, *(part.shape[0] for part in parts)])
        columns = np.cumsum([0, *(part.shape[1] for part in parts)])
        return cls(
            np.concatenate([np.empty(0, int), *(p.token + r for p, r in zip(parts, rows[:-1], strict=True))]),
            np.concatenate(
                [np.empty(0, int), *(p.patch + c for p, c in zip(parts, columns[:-1], strict=True))]
            ),
            np.concatenate([np.empty(0), *(part.weight for part in parts)]),
            (int(rows[-1]), int(columns[-1])),
        )

    def matrix(self) -> Float[np.ndarray, "token patch"]:
        """The whole matrix; it is large where there are many patches."""
        found = np.zeros(self.shape)
        found[self.token, self.patch] = self.weight
        return found

    def to_tokens(self, values: Any) -> Float[np.ndarray, "*other token"]:
        """Each token's mean over its patches; NaN for tokens without patches.

        To sum instead, as attention weights of keys add up, multiply by the number of patches of each token.

        Args:
            values: (…, patch) numbers, an array or a tensor.

        Raises:
            MapError: Another number of values than patches.
        """
        given = self._given(values, 1, "patch")
        sums = self._summed(given[..., self.patch] * self.weight, self.token, self.shape[0])
        empty = np.bincount(self.token, minlength=self.shape[0]) == 0
        return np.where(empty, np.nan, sums)

    def to_patches(self, values: Any) -> Float[np.ndarray, "*other patch"]:
        """Each patch's mean over the tokens that hold it, by their weights; NaN for patches that no token holds.

        Args:
            values: (…, token) numbers, an array or a tensor.

        Raises:
            MapError: Another number of values than image tokens.
        """
        given = self._given(values, 0, "image token")
        sums = self._summed(given[..., self.token] * self.weight, self.patch, self.shape[1])
        total = np.bincount(self.patch, weights=self.weight, minlength=self.shape[1])
        return np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)

    def _given(self, values: Any, axis: int, what: str) -> np.ndarray:
        try:
            found = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, float)
        except (TypeError, ValueError) as error:
            raise MapError(f"expected numbers, one per {what}; got {values!r:.200} ({error}).") from error
        if not found.ndim or found.shape[-1] != self.shape[axis]:
            raise MapError(
                f"expected one value per {what}, (…, {self.shape[axis]}); got {found.shape}. Patches are those of "
                "PatchMap.image, without class or register tokens."
            )
        return found

    @staticmethod
    def _summed(values: np.ndarray, at: np.ndarray, n: int) -> np.ndarray:
        """Sums along the last axis of what goes to the same place."""
        flat = values.reshape(-1, values.shape[-1])
        sums = np.stack([np.bincount(at, weights=line, minlength=n) for line in flat]) if len(flat) else flat
        return sums.reshape(*values.shape[:-1], n)


@dataclass(frozen=True, eq=False)
class TowerSequence:
    """One sequence of the vision tower: the patches of an image or of one view of it, which see each other.

    Attributes:
        cells: The patches' footprints, one row-major grid.
        order: (patch,) the patch at each place of the tower's own order; None where that is row-major.
    """

    cells: Footprints
    order: Int[np.ndarray, " patch"] | None = None


@dataclass(frozen=True, eq=False)
class Patches:
    """What an adapter says of the vision tower for one sample.

    Attributes:
        sequences: The tower's sequences in the order in which it takes them; `cells.image` counts the sample's images.
        leading: Names of the tokens that come before the patches of each sequence: "cls", "register".
        weights: Which patches each image token is made of; patches are counted through all sequences.
        padded: Whether each sequence is a line of its own in the tower, with padding at its end.
        at_end: Whether the tower itself has these other tokens behind the patches (Llama 4's class token). Their
            positions come first all the same.
    """

    sequences: tuple[TowerSequence, ...]
    leading: tuple[str, ...]
    weights: PatchWeights
    padded: bool = False
    at_end: bool = False


class PatchMap(TokenMap):
    """One sample's patches in the vision tower, by position: the sequences one after another, each row by row.

    A `TokenMap` of patches: `image` holds the positions of the patches, `footprints`, `views` and `image_index` are
    theirs, `length` counts all positions, class and register tokens too; `mask`, `coverage` and `to_pixels` work on
    patches. Some towers order patches in another way inside (Qwen: by blocks and windows); positions here are row-major
    all the same.

    Groups for a site's queries and keys: "patches" ("image" means the same), "cls" and "register" where the tower
    has such tokens.

    Attributes:
        sequence: (position,) the number of the sequence a position belongs to. Rows of attention reach no other
            sequence's keys.
        slots: (position,) its place in the tower's own order.
        weights: which patches each image token of the language model is made of.
        padded: whether each sequence is a line of its own in the tower, with padding at its end that is no position.
    """

    sequence: Int[np.ndarray, " position"]
    slots: Int[np.ndarray, " position"]
    weights: PatchWeights
    padded: bool

    counted = "patches"
    whole = "positions in the vision tower"

    @classmethod
    def of(cls, patches: Patches, sizes: Sequence[tuple[int, int]]) -> PatchMap:
        """The map of a sample whose images have these (width, height).

        Raises:
            MapError, ImageTokenMismatch: Arrays that do not fit each other.
        """
        lead = len(patches.leading)
        counts = [lead + len(one.cells) for one in patches.sequences]
        starts = np.cumsum([0, *counts])
        image = [s + lead + np.arange(n - lead) for s, n in zip(starts[:-1], counts, strict=True)]
        slots = [
            s + np.concatenate([len(one.cells) + np.arange(lead), _places(one)])
            if patches.at_end
            else s + np.concatenate([np.arange(lead), lead + _places(one)])
            for s, one in zip(starts[:-1], patches.sequences, strict=True)
        ]
        places: dict[str, list[np.ndarray]] = {}
        for i, name in enumerate(patches.leading):
            places.setdefault(name, []).append(starts[:-1] + i)
        spans = {name: np.sort(np.concatenate(at)) for name, at in places.items()}
        cells = [one.cells for one in patches.sequences]
        grids = {one.grid for one in cells}
        found = cls(
            image=_joined(image, int),
            footprints=np.concatenate([np.empty((0, 4)), *(one.boxes for one in cells)]),
            grid=grids.pop() if len(grids) == 1 else None,
            views=np.concatenate([np.empty(0, str), *(one.views for one in cells)]),
            image_index=_joined([one.image for one in cells], int),
            sizes=tuple(sizes),
            length=int(starts[-1]),
            spans=spans,
        )
        if patches.weights.shape[1] != found.n:
            raise MapError(
                f"the adapter describes {found.n} patches, but the weights from tokens to patches are of "
                f"{patches.weights.shape[1]}. Correct the adapter's patches."
            )
        own = {
            "sequence": np.repeat(np.arange(len(counts)), counts),
            "slots": _joined(slots, int),
            "weights": patches.weights,
            "padded": patches.padded,
        }
        for name, value in own.items():
            object.__setattr__(found, name, value)
        return found

    def __repr__(self) -> str:
        n = int(self.sequence.max(initial=-1)) + 1
        extra = self.length - self.n
        return f"PatchMap({self.n} patches and {extra} other tokens in {n} sequences, grid {self.grid})"

    @cached_property
    def labels(self) -> np.ndarray:
        """(position,) the view of each position; "cls" or "register" for tokens without an area of their own."""
        found = np.empty(self.length, dtype=object)
        found[self.image] = self.views
        for name, at in self.spans.items():
            found[at] = name
        return found.astype(str)

    def positions(self, group: str | Word) -> Int[np.ndarray, " position"]:
        """Returns the positions of a group, increasing: "patches" (or "image"), "cls", "register".

        Raises:
            SiteError: The tower has no such group.
        """
        if group in ("patches", "image"):
            return self.image
        if isinstance(group, str) and group in self.spans:
            return self.spans[group]
        known = ", ".join(repr(name) for name in ("all", "patches", *self.spans))
        raise SiteError(
            f"this vision tower has the groups {known}, interp.positions([…]) and interp.image_mask(…) over patches; "
            f"got {group!r:.200}."
        )


def _places(one: TowerSequence) -> Int[np.ndarray, " patch"]:
    """Each patch's place in the tower's order."""
    return np.arange(len(one.cells)) if one.order is None else np.argsort(one.order)


def _joined(parts: Sequence[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([np.empty(0, kind), *parts])
