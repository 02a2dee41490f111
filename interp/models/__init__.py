"""Model families: the layers of each, its image tokens and their footprints."""

from interp.models.adapter import Adapter, adapters, find
from interp.models.base import Family

__all__ = ["Adapter", "Family", "adapters", "find"]
