"""Model families: the layers of each, its image tokens and their footprints."""

from interp import broken_torchvision

broken_torchvision.hide()  # before transformers is imported

from interp.models.adapter import Adapter, adapters, find  # noqa: E402
from interp.models.base import Family  # noqa: E402

__all__ = ["Adapter", "Family", "adapters", "find"]
