"""The tracing room: load a model, read and edit its attention. The only room that knows nnsight."""

from interp.tracing.cost import Cost
from interp.tracing.decoding import Contrast, Decoding
from interp.tracing.edits import Apply, Boost, Edit, Guide, Knockout, ScaleScores, ScaleWeights
from interp.tracing.encoding import Batch
from interp.tracing.loading import load, wrap
from interp.tracing.model import Mllm
from interp.tracing.patches import PatchResidual, PatchRows
from interp.tracing.prefix import Prefix, Prefixes
from interp.tracing.reads import Residual, Rows
from interp.tracing.remote_job import RemoteJob
from interp.tracing.site import Site, image_mask, positions
from interp.tracing.target import Scores
from interp.tracing.trace import SampleTrace, Trace

__all__ = [
    "Apply",
    "Batch",
    "Boost",
    "Contrast",
    "Cost",
    "Decoding",
    "Edit",
    "Guide",
    "Knockout",
    "Mllm",
    "PatchResidual",
    "PatchRows",
    "Prefix",
    "Prefixes",
    "RemoteJob",
    "Residual",
    "Rows",
    "SampleTrace",
    "ScaleScores",
    "ScaleWeights",
    "Scores",
    "Site",
    "Trace",
    "image_mask",
    "load",
    "positions",
    "wrap",
]
