"""Studies: values that say what is measured on what, and what they found."""

from __future__ import annotations

from interp.study.choice import LayerChoice, choose_layer
from interp.study.grid import Grid
from interp.study.layer_sweep import LayerSweep
from interp.study.model import ModelSpec
from interp.study.result import Cell, Result

__all__ = ["Cell", "Grid", "LayerChoice", "LayerSweep", "ModelSpec", "Result", "choose_layer"]
