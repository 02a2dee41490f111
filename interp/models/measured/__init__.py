"""Footprints found by measuring, for a model without an adapter."""

from interp.models.measured.consistency import overlap
from interp.models.measured.measured_family import Measured
from interp.models.measured.measurement import Measurement
from interp.models.measured.regular_layout import Layout, layout_of

__all__ = ["Layout", "Measured", "Measurement", "layout_of", "overlap"]
