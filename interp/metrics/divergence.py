"""Divergences between a map, read as a distribution over image tokens, and a uniform one inside the boxes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import xlogy

from interp.metrics.map_and_mask import Pair, check

__all__ = ["js_divergence", "kl_divergence", "kl_gain"]

FLOOR = 1e-12  # the smallest share of a token: keeps KL finite where the map is zero inside a box


def kl_divergence(map: ArrayLike, mask: ArrayLike) -> Float[np.ndarray, "*lead"]:
    """KL(G ‖ Â) = Σ_B (1/|B|) ln((1/|B|) / Â), in nats: Â is the map over its sum, G is uniform inside the mask.

    Range [0, ln(1e12 / |B|)], lower is better. Â is clipped to [1e-12, 1]; outside the mask G is 0 and adds
    nothing. Negative values of the map count as 0. A uniform map scores ln(N / |B|), so the value depends on the
    size of the boxes: compare domains with `kl_gain`, or with matched areas.

    Of a mask of fractions c (`tokens.coverage`), G = c / Σ c, which is even over the pixels inside.

    Args:
        map: (..., token), one value per image token, larger = more important.
        mask: bool or fractions in [0, 1], (token,), or (..., token) broadcasting against the map.

    Returns:
        float64 (...). NaN where the map holds NaN or infinity, has no positive value, or the mask is empty
        or full.

    Raises:
        MapError: Shapes or dtypes that do not fit.

    Source: arXiv 2603.14323, without its 1e-8 and with G's zeros exact.

    Example:
        >>> round(float(kl_divergence([1.0, 1.0, 1.0, 1.0], [True, False, False, False])), 4)  # ln 4
        1.3863
    """
    pair = check(map, mask)
    return pair.nan_unless(_kl(pair), also=pair.has_positive)


def kl_gain(map: ArrayLike, mask: ArrayLike) -> Float[np.ndarray, "*lead"]:
    """Nats by which the map is nearer to the boxes than a uniform map: KL(G ‖ uniform) − KL(G ‖ Â).

    Equals Σ G ln(N·Â), the mean over the boxes' tokens of ln(N·Â). Range [ln(N / 1e12), ln(N / |B|)], higher is better,
    0 for a uniform map whatever the size of the boxes. Arguments, NaN cases and errors as `kl_divergence`.

    Example:
        >>> round(float(kl_gain([4.0, 1.0, 1.0, 2.0], [True, False, False, False])), 4)  # ln 2
        0.6931
    """
    pair = check(map, mask)
    gain = pair.uniform_kl - _kl(pair)
    return pair.nan_unless(gain, also=pair.has_positive)


def js_divergence(map: ArrayLike, mask: ArrayLike) -> Float[np.ndarray, "*lead"]:
    """JS = ½ KL(Â ‖ M) + ½ KL(G ‖ M), M = ½ (Â + G), natural logarithm; Â and G as in `kl_divergence`.

    Range [0, ln 2], lower is better: 0 for a map that is uniform inside the boxes and zero outside, ln 2
    for one that is zero inside. No epsilon is needed: 0 · ln 0 is 0. Arguments, NaN cases and errors as
    `kl_divergence`.

    Example:
        >>> round(float(js_divergence([0.0, 1.0, 0.0, 0.0], [True, False, False, False])), 4)  # ln 2
        0.6931
    """
    pair = check(map, mask)
    shares, even = np.broadcast_arrays(pair.shares, pair.wanted)
    inside = even > 0
    map_in, even_in = shares[inside], even[inside]
    middle = 0.5 * (map_in + even_in)
    terms = np.log(2.0) * shares  # outside the boxes M is half of Â
    terms[inside] = xlogy(map_in, map_in / middle) + xlogy(even_in, even_in / middle)
    js = np.clip(0.5 * terms.sum(axis=-1), 0.0, np.log(2.0))
    return pair.nan_unless(js, also=pair.has_positive)


def _kl(pair: Pair) -> Float[np.ndarray, "*lead"]:
    logs = np.log(np.clip(pair.shares, FLOOR, 1.0))
    inside = np.einsum("...t,...t->...", logs, pair.mask) / pair.n_inside
    own = -np.log(pair.n_inside) if pair.whole else xlogy(pair.wanted, pair.wanted).sum(axis=-1)
    return np.asarray(np.maximum(own - inside, 0.0))
