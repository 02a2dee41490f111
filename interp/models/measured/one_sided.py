"""Whether tokens see further on one side of their cells than on the other: then their places are not sure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from interp.models.measured.measured_views import View
from interp.models.measured.patterns import Code

__all__ = ["lean"]

_BESIDE = (0.6, 1.75)
"""In cells from a cell's centre: what counts as beside the cell."""
_ERRORS = 3.0
"""A lean counts if it is at least so many standard errors."""
_FEW = 4
"""Fewer profiles than this show none."""


def lean(views: Sequence[View], codes: tuple[Code, Code], energies: Sequence[Sequence[np.ndarray]]) -> float:
    """Returns how far tokens lean to one side, from 0 for none to 1: the largest of any view and axis.

    Of all that changes a token within 1.75 cells of its cell's centre along an axis, it is the share beside the cell
    (from 0.6 cells on) on one side less that on the other, in the mean over tokens and textures, and 0 where that is
    below three standard errors. A token of one tower sees as much on both sides; one that joins two towers with
    different offsets (strided convolutions beside patches) does not, and a single cell then lies between both.

    Args:
        views: The lattices. Tokens whose reach the image's border cuts are left out.
        codes: The pictures of the x axis and of the y axis.
        energies: For each texture and axis (token, picture), the squared change of a token's embedding.
    """
    found = [_lean(view, codes, [one[a] for one in energies], a) for view in views for a in (0, 1)]
    return max(found, default=0.0)


def _lean(view: View, codes: tuple[Code, Code], energies: Sequence[np.ndarray], axis: int) -> float:
    shares = [_shares(view, codes, energy[view.tokens], axis) for energy in energies]
    both = np.concatenate(shares)
    if len(both) < _FEW:
        return 0.0
    mean = float(both.mean())
    error = float(both.std(ddof=1)) / np.sqrt(len(both) / len(shares))  # the textures show the same tokens
    return abs(mean) if abs(mean) >= _ERRORS * error else 0.0


def _shares(
    view: View, codes: tuple[Code, Code], energy: Float[np.ndarray, "token picture"], axis: int
) -> Float[np.ndarray, " kept"]:
    """Returns each token's share beyond its cell less that before it, for the tokens in the image's inside."""
    near, far = _BESIDE
    code, lengths = codes[axis], np.array([one.length for one in codes])
    centres = view.origin + view.pitch * (view.places + 0.5)
    reach = far * view.pitch[axis]
    middle = (code.edges[1:] + code.edges[:-1]) / 2
    painted = np.arange(len(middle)) % int(
        code.sparse.sum()
    )  # the picture that paints a bin, in the bin's own tooth
    inside = ((centres > 0) & (centres < lengths)).all(axis=1)
    inside &= (centres[:, axis] >= reach) & (centres[:, axis] <= code.length - reach)
    away = (middle - centres[inside, axis, None]) / view.pitch[axis]
    seen = np.where(np.abs(away) <= far, energy[inside][:, painted], 0.0)
    total = np.maximum(seen.sum(axis=1), 1e-20)
    return ((seen * (away > near)).sum(axis=1) - (seen * (away < -near)).sum(axis=1)) / total
