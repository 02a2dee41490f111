"""Composed maps: rows over a resampler's latents, times the latents' own attention over the patches of the image.

Each factor is the model's own attention. Their product is a heuristic, not an attribution: it takes a latent for the
patches it attended to, whatever its values carried, and leaves out residual streams and MLPs between the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.inputs.tokens import TokenMap
from interp.tracing.encoding.batch import Batch
from interp.tracing.passes.run import embeddings
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["patch_attention", "patch_tokens"]


def patch_tokens(mllm: WrappedModel, batch: Batch) -> list[TokenMap]:
    """The patches of each sample's images as the tokens of a map: numbered from 0, with their footprints.

    They are no positions of the prompt, which holds the latents: of these maps only what is about places has a meaning.
    """
    adapter: Any = mllm.adapter
    found = []
    for single, sample in zip(batch.singles, batch.samples, strict=True):
        own = adapter.latent_patches(sample.sizes, single.inputs, mllm.processor, mllm.hf.config)
        at = np.arange(len(own))
        found.append(TokenMap(at, own.boxes, own.grid, own.views, own.image, sample.sizes, max(len(own), 1)))
    return found


def patch_attention(mllm: WrappedModel, batch: Batch) -> list[Float[np.ndarray, "latent patch"]]:
    """What each sample's latents attend to: the mean over the resampler's layers and heads of softmax(q kᵀ), float64.

    Rows are in the order of the latents in the prompt, columns in that of `patch_tokens`; latents of one view attend to
    its own patches. A row sums to 1, less what latents attend to each other. One pass of the vision tower a sample.
    """
    adapter: Any = mllm.adapter
    resampler = adapter.resampler(mllm.hf)
    found = []
    for i in range(len(batch)):
        one = mllm.encoder.part(batch, [i])
        with _eager(resampler.attentions) as weights:
            embeddings(mllm, one)
        each = [w.double() if w.ndim == 3 else w.double().mean(dim=1) for w in weights]
        mean = torch.stack(each).mean(dim=0).cpu().numpy()
        n_views, n_latents, n_keys = mean.shape
        n = n_keys - (n_latents if resampler.attends_to_latents else 0)
        factor = np.zeros((n_views, n_latents, n_views, n))
        factor[np.arange(n_views), :, np.arange(n_views)] = mean[:, :, :n]
        found.append(factor.reshape(n_views * n_latents, n_views * n))
    return found


@contextmanager
def _eager(attentions: list[Any]) -> Iterator[list[Tensor]]:
    """The weights of these modules, (view, head, latent, key), from passes within the block, in eager attention.

    torch's own `MultiheadAttention` gives their mean over heads, (view, latent, key), whatever the implementation.
    """
    weights: list[Tensor] = []
    configs = {id(one.config): one.config for one in attentions if hasattr(one, "config")}
    before = {key: config._attn_implementation for key, config in configs.items()}
    handles = [
        one.register_forward_hook(lambda _, __, output: weights.append(output[1])) for one in attentions
    ]
    try:
        for config in configs.values():
            config._attn_implementation_internal = "eager"
        yield weights
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = before[key]
        for handle in handles:
            handle.remove()
