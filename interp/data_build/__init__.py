"""Makes a grounding set from labelled data: masks → boxes → pairs of questions. The command `interp data build`."""

from interp.data_build.endpoint import Endpoint
from interp.data_build.pairs import Settings
from interp.data_build.pipeline import Built, build
from interp.data_build.scans import scans

__all__ = ["Built", "Endpoint", "Settings", "build", "scans"]
