"""Norms of the vectors that image tokens send to the last row: ‖A_j V_j W_O‖ of every head, without S×S.

Whether heads copy: the eigenvalues of each head's OV circuit, from the weights alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.errors import ModelError
from interp.tracing.attention.rows import AttentionFunction, Block, Call, attend
from interp.tracing.cost import Meter
from interp.tracing.encoding.batch import Batch
from interp.tracing.executors.source import attention_call, call_at
from interp.tracing.parameters.weights import together
from interp.tracing.passes.non_finite import check_logits
from interp.tracing.passes.run import run_pass
from interp.tracing.prefix import Prefix, pass_inputs, pass_layout, serving
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["copying_scores", "matrix_of", "projected_norms"]


def projected_norms(
    mllm: WrappedModel, given: Batch | Prefix, layers: Sequence[int], meter: Meter
) -> tuple[list[Float[np.ndarray, "layer head _"]], Float[Tensor, "sample token_id"]]:
    """‖A_j V_j W_O^h‖₂ of each sample's image tokens j, from its last row; and the logits after the prompt.

    V are the values that the model's own projection gives; W_O^h are the head's columns of `o_proj`, without its bias.
    The norms are in the units of the residual stream, float32, 0 or more.

    Args:
        mllm: The model.
        given: The batch, or its prefix.
        layers: The layers wanted, in order.
        meter: Counts the pass.

    Raises:
        ModelError: Attention without an `o_proj`, or an `o_proj` whose input is not the heads' outputs.
    """
    mllm.need_image_rows("value norms")
    batch = given.batch if isinstance(given, Prefix) else given
    last = [tokens.length - 1 for tokens in batch.tokens]
    before = serving(given, batch, mllm.visibility, last)
    layout = pass_layout(batch, before)
    columns = [layout.columns[i][tokens.image] for i, tokens in enumerate(batch.tokens)]
    devices = mllm.layer_devices
    padded = {device: _padded(columns, device) for device in {devices[layer] for layer in layers}}
    wanted = {layer: _Projected(padded[devices[layer]]) for layer in layers}
    work: dict[int, Any] = dict(wanted)
    if before is not None:
        for i in mllm.attention_layers:
            work.setdefault(i, _Projected(None)).prefix = before.layer(i)
    if mllm.server is not None:
        return _norms_from_server(mllm, batch, columns, layers, meter)
    with mllm.installation.armed(work), torch.no_grad(), _watched(mllm, wanted):
        inputs, cache = pass_inputs(batch, before)
        logits = run_pass(mllm.hf, inputs, meter, cache=cache)
    return _labelled(mllm, batch, columns, [wanted[layer].found() for layer in layers], logits)


def _labelled(
    mllm: WrappedModel,
    batch: Batch,
    columns: Sequence[Int[np.ndarray, " _"]],
    norms: Sequence[Float[Tensor, "sample head token"]],
    logits: Float[Tensor, "sample position token_id"],
) -> tuple[list[Float[np.ndarray, "layer head _"]], Float[Tensor, "sample token_id"]]:
    """Each sample's own norms, and its logits, after a check for NaN."""
    check_logits(mllm, batch, logits)
    stacked = torch.stack(together(list(norms)), dim=1).cpu().numpy()
    counts = [len(own) for own in columns]
    return [one[..., :n] for one, n in zip(stacked, counts, strict=True)], logits[:, -1].float()


def _norms_from_server(
    mllm: WrappedModel,
    batch: Batch,
    columns: Sequence[Int[np.ndarray, " _"]],
    layers: Sequence[int],
    meter: Meter,
) -> tuple[list[Float[np.ndarray, "layer head _"]], Float[Tensor, "sample token_id"]]:
    """The norms and logits from the server that the model runs on."""
    attentions = mllm.installation.attentions
    for layer in layers:
        _o_proj(attentions[layer])
    job = {"columns": _padded(columns, mllm.device), "layers": sorted(set(layers))}
    found = mllm.server.compute(batch, _norms_in_job, job, meter)
    if found["changed"]:
        raise _altered_input(attentions[found["changed"][0]])
    return _labelled(mllm, batch, columns, [found["norms"][layer] for layer in layers], found["logits"])


def _norms_in_job(there: Any, job: dict[str, Any]) -> dict[str, Any]:
    """The norms of each layer, and the layers whose `o_proj` is given something other than the heads' outputs.

    Runs in a job on a server; `there` is an `interp.tracing.remote.job_passes.Views`.
    """
    norms, changed = {}, []
    for layer in job["layers"]:
        attention = there.layers[layer].self_attn
        view = attention_call(attention)
        call = call_at(view)
        sent = view.output[0][:, -1].flatten(1)
        given = attention.o_proj.input
        same = given.ndim == 3 and torch.allclose(given[:, -1], sent, rtol=0, atol=0, equal_nan=True)
        if not same:
            changed.append(layer)
            continue
        matrix = matrix_of(attention.o_proj, sent)
        norms[layer] = _norms(call, job["columns"].to(sent.device), matrix)
    return {"norms": norms, "changed": changed, "logits": there.logits()}


def _padded(columns: Sequence[Int[np.ndarray, " _"]], device: torch.device) -> Int[Tensor, "sample token"]:
    """One line per sample; a short one repeats its last column, an empty one holds 0."""
    width = max(map(len, columns))
    lines = [
        np.pad(one, (0, width - len(one)), mode="edge") if len(one) else np.zeros(width, int)
        for one in columns
    ]
    return torch.from_numpy(np.stack(lines)).to(device)


@dataclass(eq=False)
class _Projected:
    """The work of one layer: the norms at the image's columns, from the last row; without columns, attention alone."""

    columns: Int[Tensor, "sample token"] | None
    prefix: tuple[Tensor, Tensor] | None = field(default=None, repr=False)
    norms: Tensor | None = None
    sent: Tensor | None = None
    """What the heads gave the last row; `o_proj` must be given the same."""
    checked: bool = False

    def __call__(
        self, original: AttentionFunction, call: Call, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """The unchanged attention; the norms are kept."""
        if self.prefix is None:
            output, _ = original(call.module, call.queries, call.keys[0], call.values[0], call.mask, **kwargs)
        else:
            output = attend(call, call.mask)
        if self.columns is not None:
            self.sent = output[:, -1].flatten(1)
            self.norms = _norms(call, self.columns, _output(call.module, self.sent))
        return output, None

    def found(self) -> Float[Tensor, "sample head token"]:
        """The norms of the pass."""
        assert self.norms is not None
        return self.norms


def _norms(
    call: Call, columns: Int[Tensor, "sample token"], matrix: Float[Tensor, "hidden inner"]
) -> Float[Tensor, "sample head token"]:
    """‖A_j V_j W_O^h‖₂ at some columns, from the last row of a call; `matrix` is W_O."""
    n, _, n_queries, _ = call.queries.shape
    last = torch.full((n, 1), n_queries - 1, device=call.queries.device)
    none = torch.zeros(0, dtype=torch.long, device=call.queries.device)
    rows = call.probabilities(Block(last, (none, none), call.all_heads))[:, :, 0]
    weights = rows.gather(2, columns[:, None, :].expand(-1, rows.shape[1], -1))
    values = call.values[0] if len(call.values) == 1 else torch.cat(call.values, dim=2)
    index = columns[:, None, :, None].expand(-1, values.shape[1], -1, values.shape[3])
    return weights * _lengths(values.gather(2, index).float(), matrix, rows.shape[1])


def _lengths(
    values: Float[Tensor, "sample key_value_head token dim"], weight: Float[Tensor, "hidden _"], n_heads: int
) -> Float[Tensor, "sample head token"]:
    """‖V_j W_O^h‖₂, from V_j (W_Oᵀ W_O) V_jᵀ, which needs no vector of the hidden size for each token."""
    kinds = values.shape[1]
    per_head = weight.float().unflatten(1, (n_heads, -1)).transpose(0, 1)  # head, hidden, dim
    gram = (per_head.transpose(1, 2) @ per_head).unflatten(0, (kinds, n_heads // kinds))
    seen = torch.einsum("nkjd,ksde->nksje", values, gram)
    squares = (seen * values[:, :, None]).sum(dim=-1)
    return squares.clamp(min=0).sqrt().flatten(1, 2)


def _output(attention: nn.Module, like: Float[Tensor, "sample inner"]) -> Float[Tensor, "hidden inner"]:
    """W_O, (hidden, head · dim); for a quantised, offloaded or adapted module, read off its outputs."""
    module = _o_proj(attention)
    if type(module) is nn.Linear and type(module.weight) is nn.Parameter and not module.weight.is_meta:
        return module.weight
    return matrix_of(module, like)


def matrix_of(module: Any, like: Float[Tensor, "_ inner"]) -> Float[Tensor, "hidden inner"]:
    """The matrix of a linear module, read off its outputs, without its bias; `like` has an input's width and dtype."""
    eye = torch.eye(like.shape[1], device=like.device, dtype=like.dtype)
    return (module(eye) - module(torch.zeros_like(eye[:1]))).T


def _o_proj(attention: nn.Module) -> Any:
    found = getattr(attention, "o_proj", None)
    if found is None:
        names = ", ".join(name for name, _ in attention.named_children())
        raise ModelError(
            f"value-weighted attention needs the heads' output matrix as {type(attention).__name__}.o_proj; it has "
            f"{names}. Use Attention() for this model."
        )
    return found


@contextmanager
def _watched(mllm: WrappedModel, wanted: dict[int, _Projected]) -> Iterator[None]:
    """Checks in the block that `o_proj` is given the heads' outputs unchanged."""

    def check(layer: int, module: nn.Module, given: Tensor) -> None:
        one = wanted[layer]
        same = one.sent is not None and torch.allclose(given[:, -1], one.sent, rtol=0, atol=0, equal_nan=True)
        if not same:
            raise _altered_input(module)
        one.checked = True
        one.sent = None

    with ExitStack() as stack:
        for layer in wanted:
            attention = mllm.installation.attentions[layer]

            def hook(
                _: nn.Module, given: tuple[Any, ...], at: int = layer, module: nn.Module = attention
            ) -> None:
                if given[0].ndim == 3:  # else `_output` asks what the module does
                    check(at, module, given[0])

            handle = _o_proj(attention).register_forward_pre_hook(hook)
            stack.callback(handle.remove)
        yield
    unchecked = [layer for layer, one in wanted.items() if not one.checked]
    if unchecked:
        raise _altered_input(mllm.installation.attentions[unchecked[0]])


def _altered_input(attention: nn.Module) -> ModelError:
    return ModelError(
        f"value-weighted attention needs o_proj to be given the heads' outputs as they are; {type(attention).__name__} "
        "does something to them before (a gate or a norm), so V·W_O is not what a token sends. Use Attention() for "
        "this model."
    )


def copying_scores(mllm: WrappedModel) -> Float[np.ndarray, "layer head"]:
    """Σλ / Σ|λ| over the eigenvalues λ of each head's full OV circuit, in [−1, 1]; float64.

    The circuit W_U W_O W_V W_E maps a token that the head attends to onto the logits that this adds. A score near 1:
    attending to a token raises the logit of that same token (and of like ones), so the head copies. Near −1: it lowers
    it. Near 0: neither, as for random weights. The weights of the layer's input norm and of the final norm are
    multiplied in. The norms' divisors, biases and the MLPs between are left out, so the score describes the direct
    path. It is about the vocabulary's tokens: a head that copies words need not copy image tokens.

    NaN for layers without a softmax, and for heads without their own value and output projections (`v_proj`, `o_proj`),
    as in latent attention (MLA), fused projections or keys shared with another layer.

    Cost: no forward pass. One product of the embedding and the unembedding (hidden² × vocabulary multiplications), and
    for each head the eigenvalues of a (dim, dim) matrix, which are the circuit's own apart from zeros.

    Raises:
        ModelError: A model on a server.

    Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits, "Copying heads".
    """
    if mllm.server is not None:
        raise ModelError(
            "copying scores need the weights, which are not on this machine; load the model without remote=True."
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
    """W_V and W_O of each head; None where the layer does not have both."""
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
    """The matrix of a projection, float32; for a quantised or adapted one, read off its outputs."""
    if type(module) is nn.Linear and not module.weight.is_meta:
        return module.weight.to(like.device).float()
    weight = next(module.parameters())
    dtype = weight.dtype if weight.dtype.is_floating_point else torch.float32
    return matrix_of(module, torch.zeros(1, module.in_features, device=weight.device, dtype=dtype)).to(like)


def _scale(norm: Any, like: Tensor) -> Float[Tensor, " hidden"]:
    """The gain of a norm, which multiplies each value after the division by the vector's size; ones without a norm."""
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
    )  # a norm that subtracts the mean makes zeros of ones
