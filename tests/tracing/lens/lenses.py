"""Each family's tiny model as TransformerLens shows it."""

from __future__ import annotations

from functools import cache

from interp.conformance.tiny import tiny
from interp.tracing import wrap
from interp.tracing.lens import Lens


@cache
def lens_of(family: str) -> Lens:
    return wrap(*tiny(family), family).to_lens()
