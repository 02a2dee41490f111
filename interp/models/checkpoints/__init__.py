"""Checkpoints in original layouts, from before their model was in transformers, loaded as transformers models."""

from interp.models.checkpoints.checkpoint import Checkpoint, check, empty_model, fill, lora_files, reachable
from interp.models.checkpoints.layout import Layout, layouts, open_original, recognise
from interp.models.checkpoints.tensors import IGNORED, Part, Rule

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
    "lora_files",
    "open_original",
    "reachable",
    "recognise",
]
