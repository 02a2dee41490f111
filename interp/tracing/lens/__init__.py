"""TransformerLens as a second library: caches, the logit lens and direct attribution, by `mllm.to_lens()`.

Nothing here imports transformer_lens until `to_lens` is called; it is in the extra `lens`.
"""

from interp.tracing.lens.attribution import Attribution
from interp.tracing.lens.bridge import HOOKS, HYBRID, SUPPORTED, UNEVEN, UNSUPPORTED, LensCache, SampleCache
from interp.tracing.lens.lens import Lens
from interp.tracing.lens.logit_lens import LogitLens

__all__ = [
    "HOOKS",
    "HYBRID",
    "SUPPORTED",
    "UNEVEN",
    "UNSUPPORTED",
    "Attribution",
    "Lens",
    "LensCache",
    "LogitLens",
    "SampleCache",
]
