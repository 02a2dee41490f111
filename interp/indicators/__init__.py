"""Where a model looks: indicators turn samples into maps over image tokens."""

from __future__ import annotations

from interp.indicators.attention import Attention
from interp.indicators.maps import Maps

__all__ = ["Attention", "Maps"]
