"""Published ways to make a model look elsewhere, each a value whose `answer` runs one batch."""

from __future__ import annotations

from interp.methods.answer import Answer
from interp.methods.depth import scaled_layers
from interp.methods.hgai import HGAI
from interp.methods.method import Method, Samples
from interp.methods.pai import PAI
from interp.methods.plain import Plain
from interp.methods.scalingvis import AdaptVis, ScalingVis
from interp.methods.triage import HeadMaps, Triage, kept_tokens
from interp.methods.vgrefine import VGRefine
from interp.methods.vicrop import Crop, ViCrop

__all__ = [
    "HGAI",
    "PAI",
    "AdaptVis",
    "Answer",
    "Crop",
    "HeadMaps",
    "Method",
    "Plain",
    "Samples",
    "ScalingVis",
    "Triage",
    "VGRefine",
    "ViCrop",
    "kept_tokens",
    "scaled_layers",
]
