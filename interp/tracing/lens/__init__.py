"""The model in TransformerLens, by `mllm.to_lens()`: caches, the logit lens and direct logit attribution.

`transformer_lens`, from the extra `lens`, is imported only when `to_lens` is called.
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
