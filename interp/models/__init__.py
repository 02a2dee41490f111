"""Model families: where each keeps its layers, its image tokens and their footprints."""

from interp.models.adapter import Adapter, adapters, find

__all__ = ["Adapter", "adapters", "find"]
