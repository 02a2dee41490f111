"""Published methods that change where a model looks: frozen values whose `answer` runs one batch."""

from __future__ import annotations

from interp.methods.contrastive_decoding import CCD, VCD
from interp.methods.method import Answer, Method, Plain, Samples
from interp.methods.names import method_named
from interp.methods.pai_and_hgai import HGAI, PAI
from interp.methods.published_layers import scaled_layers
from interp.methods.scalingvis import AdaptVis, ScalingVis
from interp.methods.vgrefine import HeadMaps, Triage, VGRefine, above_magnitude, kept_tokens
from interp.methods.vicrop import Crop, ViCrop

__all__ = [
    "CCD",
    "HGAI",
    "PAI",
    "VCD",
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
    "above_magnitude",
    "kept_tokens",
    "method_named",
    "scaled_layers",
]
