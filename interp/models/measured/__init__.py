"""Footprints found by measuring, for a model that nobody wrote an adapter for."""

from interp.models.measured.measured_family import Measured
from interp.models.measured.measurement import Measurement

__all__ = ["Measured", "Measurement"]
