"""Whether heads copy: the eigenvalues of each head's OV circuit, from the weights alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ModelError
from interp.tracing.derived.value_norms import matrix_of
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["copying_scores"]


def copying_scores(mllm: WrappedModel) -> Float[np.ndarray, "layer head"]:
    """Σλ / Σ|λ| over the eigenvalues λ of each head's full OV circuit, in [−1, 1]; float64.

    The circuit W_U W_O W_V W_E maps a token that the head attends to onto the logits that this adds. A score near 1:
    attending to a token raises the logit of that same token (and of like ones), so the head copies. Near −1: it lowers
    it. Near 0: neither, as for random weights. The weights of the layer's input norm and of the final norm are
    multiplied in; what norms divide by, biases and the MLPs between are left out, so it speaks of the direct path. It
    is of the vocabulary's tokens: image tokens are no words, and a head that copies words need not do so with patches.

    NaN for layers without a softmax, and for heads without a value and an output projection of their own (`v_proj`,
    `o_proj`), as with latents (MLA), fused projections or keys shared with another layer.

    Cost: no forward pass. One product of the embedding and the unembedding (hidden² × vocabulary multiplications), and
    for each head the eigenvalues of a (dim, dim) matrix, which has the same ones as the circuit but for zeros.

    Raises:
        ModelError: A model on a server.

    Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits, "Copying heads".
    """
    if mllm.server is not None:
        raise ModelError(
            "copying scores are of the weights, which are not on this machine; load without remote=True."
        )
    scores = np.full((mllm.n_layers, mllm.n_heads), np.nan)
    decoder: Any = mllm.hf.get_decoder()
    decoder = getattr(decoder, "model", decoder)
    head = mllm.hf.get_output_embeddings()
    if head is None:
        return scores
    with torch.no_grad():
        words, answers = mllm.hf.get_input_embeddings().weight, head.weight
        n = min(len(words), len(answers))
        both = words[:n].float().T @ answers[:n].to(words.device).float()
        both = both * _scale(getattr(decoder, "norm", None), both)
        for layer in mllm.attention_layers:
            found = _projections(mllm.installation.attentions[layer], mllm.n_heads, both)
            if found is None:
                continue
            value, output = found
            value = value * _scale(getattr(mllm.installation.layers[layer], "input_layernorm", None), both)
            small = torch.einsum("hdx,xy,hye->hde", value, both, output)
            scores[layer] = _positive_share(torch.linalg.eigvals(small.double().cpu()).numpy())
    return scores


def _positive_share(values: np.ndarray) -> Float[np.ndarray, " head"]:
    total = np.abs(values).sum(axis=-1)
    return np.divide(values.sum(axis=-1).real, total, out=np.full(total.shape, np.nan), where=total > 0)


def _projections(
    attention: nn.Module, n_heads: int, like: Tensor
) -> tuple[Float[Tensor, "head dim hidden"], Float[Tensor, "head hidden dim"]] | None:
    """W_V and W_O of each head; None where the layer has none of its own."""
    value: Any = getattr(attention, "v_proj", None)
    output: Any = getattr(attention, "o_proj", None)
    hidden = len(like)
    if value is None or output is None or output.in_features % n_heads or value.in_features != hidden:
        return None
    dim = output.in_features // n_heads
    if value.out_features % dim or n_heads % (value.out_features // dim) or output.out_features != hidden:
        return None
    share = n_heads // (value.out_features // dim)
    of_values, of_output = (_matrix(one, like) for one in (value, output))
    values = of_values.unflatten(0, (-1, dim)).repeat_interleave(share, dim=0)
    return values, of_output.unflatten(1, (n_heads, dim)).transpose(0, 1)


def _matrix(module: Any, like: Tensor) -> Float[Tensor, "out in"]:
    """The matrix of a projection as float32; of one that is quantised or adapted, what it does."""
    if type(module) is nn.Linear and not module.weight.is_meta:
        return module.weight.to(like.device).float()
    weight = next(module.parameters())
    dtype = weight.dtype if weight.dtype.is_floating_point else torch.float32
    return matrix_of(module, torch.zeros(1, module.in_features, device=weight.device, dtype=dtype)).to(like)


def _scale(norm: Any, like: Tensor) -> Float[Tensor, " hidden"]:
    """What a norm multiplies each value by, after it divided by the vector's size; ones where there is none."""
    ones = torch.ones(len(like), device=like.device)
    if norm is None:
        return ones
    weight = getattr(norm, "weight", None)
    if weight is None:
        return ones
    if isinstance(norm, nn.LayerNorm):
        return weight.to(like)
    found = norm(ones.to(weight)).to(like)  # an RMS norm of ones is its weight, or 1 + its weight
    return (
        found if bool(found.any()) else weight.to(like)
    )  # one that takes the mean off leaves nothing of ones
