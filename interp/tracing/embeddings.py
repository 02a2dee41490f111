"""What enters the first decoder layer: the prompt's tokens, images in their places, before any of them mixes."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.tracing.encode import Batch

__all__ = ["embeddings"]


def embeddings(nn: Any, first: Any, batch: Batch) -> Float[Tensor, "sample position hidden"]:
    """The embeddings of a batch; the decoder itself is not run.

    Args:
        nn: the nnsight model.
        first: nnsight's view of the first decoder layer.
        batch: the encoded samples; positions are padded as it is.
    """
    with torch.no_grad(), nn.trace(**batch.inputs, use_cache=False) as tracer:
        entering = first.input.save()
        tracer.stop()
    return entering
