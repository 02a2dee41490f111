"""Original layouts: checkpoints from before their model was in transformers, as transformers models."""

from interp.models.layouts.checkpoint import Checkpoint
from interp.models.layouts.fill import check, empty_model, fill
from interp.models.layouts.layout import Layout, layouts, recognise
from interp.models.layouts.opening import open_original
from interp.models.layouts.rules import IGNORED, Part, Rule

__all__ = [
    "IGNORED",
    "Checkpoint",
    "Layout",
    "Part",
    "Rule",
    "check",
    "empty_model",
    "fill",
    "layouts",
    "open_original",
    "recognise",
]
