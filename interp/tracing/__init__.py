"""The tracing room: load a model, read and edit its attention. The only room that knows nnsight."""

from interp.tracing.cost import Cost
from interp.tracing.edits import Knockout
from interp.tracing.encode import Batch
from interp.tracing.loading import load, wrap
from interp.tracing.mllm import Mllm
from interp.tracing.prefix import Prefix
from interp.tracing.reads import Rows
from interp.tracing.site import Site, image_mask, positions
from interp.tracing.trace import SampleTrace, Trace

__all__ = [
    "Batch",
    "Cost",
    "Knockout",
    "Mllm",
    "Prefix",
    "Rows",
    "SampleTrace",
    "Site",
    "Trace",
    "image_mask",
    "load",
    "positions",
    "wrap",
]
