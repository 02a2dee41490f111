"""Norms of the vectors that image tokens send to the last row: ‖A_j V_j W_O‖ of every head, without S×S."""

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
from interp.tracing.attention.call import AttentionFunction, Call
from interp.tracing.attention.rows import attend
from interp.tracing.cost import Meter
from interp.tracing.encoding.batch import Batch
from interp.tracing.executors.source import attention_call, call_at
from interp.tracing.layers.layer_plan import Block
from interp.tracing.parameters.weights import together
from interp.tracing.passes.non_finite import check_logits
from interp.tracing.passes.run import run_pass
from interp.tracing.prefix import Prefix, pass_inputs, pass_layout, serving
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["matrix_of", "projected_norms"]


def projected_norms(
    mllm: WrappedModel, given: Batch | Prefix, layers: Sequence[int], meter: Meter
) -> tuple[list[Float[np.ndarray, "layer head _"]], Float[Tensor, "sample token_id"]]:
    """‖A_j V_j W_O^h‖₂ of each sample's image tokens j, from its last row; and the logits after the prompt.

    V is what enters the attention, after the model's own projections; W_O^h the head's columns of `o_proj`, without
    its bias.

    Args:
        mllm: the model.
        given: the batch, or its prefix.
        layers: the layers wanted, in order.
        meter: counts the pass.

    Raises:
        ModelError: attention without an `o_proj`, or one that is given something else than the heads' outputs.
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
        return _asked(mllm, batch, columns, layers, meter)
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
    """Each sample's own norms, and the logits, once they are known to be numbers."""
    check_logits(mllm, batch, logits)
    stacked = torch.stack(together(list(norms)), dim=1).cpu().numpy()
    counts = [len(own) for own in columns]
    return [one[..., :n] for one, n in zip(stacked, counts, strict=True)], logits[:, -1].float()


def _asked(
    mllm: WrappedModel,
    batch: Batch,
    columns: Sequence[Int[np.ndarray, " _"]],
    layers: Sequence[int],
    meter: Meter,
) -> tuple[list[Float[np.ndarray, "layer head _"]], Float[Tensor, "sample token_id"]]:
    """The same from the server that the model runs on."""
    attentions = mllm.installation.attentions
    for layer in layers:
        _o_proj(attentions[layer])
    job = {"columns": _padded(columns, mllm.device), "layers": sorted(set(layers))}
    found = mllm.server.compute(batch, _elsewhere, job, meter)
    if found["changed"]:
        raise _changed(attentions[found["changed"][0]])
    return _labelled(mllm, batch, columns, [found["norms"][layer] for layer in layers], found["logits"])


def _elsewhere(there: Any, job: dict[str, Any]) -> dict[str, Any]:
    """The norms of each layer, and where `o_proj` is given something else than the heads' outputs.

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
    """One line per sample; short ones repeat their last column, or have 0."""
    width = max(map(len, columns))
    lines = [
        np.pad(one, (0, width - len(one)), mode="edge") if len(one) else np.zeros(width, int)
        for one in columns
    ]
    return torch.from_numpy(np.stack(lines)).to(device)


@dataclass(eq=False)
class _Projected:
    """A layer's work: the norms at the image's columns, from the last row. No columns: nothing but attention."""

    columns: Int[Tensor, "sample token"] | None
    prefix: tuple[Tensor, Tensor] | None = field(default=None, repr=False)
    norms: Tensor | None = None
    sent: Tensor | None = None
    """What the heads gave the last row; it must be what `o_proj` is given."""
    checked: bool = False

    def __call__(
        self, original: AttentionFunction, call: Call, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """The attention as it is; the norms are kept."""
        if self.prefix is None:
            output, _ = original(call.module, call.queries, call.keys[0], call.values[0], call.mask, **kwargs)
        else:
            output = attend(
                call.queries,
                call.keys,
                call.values,
                call.mask,
                heads=call.all_heads,
                scaling=call.scaling,
                softcap=call.softcap,
                causal=call.causal,
            )
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
    """‖V_j W_O^h‖₂, from V_j (W_Oᵀ W_O) V_jᵀ: nothing as long as the hidden size is made for each token."""
    kinds = values.shape[1]
    per_head = weight.float().unflatten(1, (n_heads, -1)).transpose(0, 1)  # head, hidden, dim
    gram = (per_head.transpose(1, 2) @ per_head).unflatten(0, (kinds, n_heads // kinds))
    seen = torch.einsum("nkjd,ksde->nksje", values, gram)
    squares = (seen * values[:, :, None]).sum(dim=-1)
    return squares.clamp(min=0).sqrt().flatten(1, 2)


def _output(attention: nn.Module, like: Float[Tensor, "sample inner"]) -> Float[Tensor, "hidden inner"]:
    """W_O, (hidden, head · dim); of a module that is more (quantised, offloaded, with an adapter), what it does."""
    module = _o_proj(attention)
    if type(module) is nn.Linear and type(module.weight) is nn.Parameter and not module.weight.is_meta:
        return module.weight
    return matrix_of(module, like)


def matrix_of(module: Any, like: Float[Tensor, "_ inner"]) -> Float[Tensor, "hidden inner"]:
    """The matrix of a linear module, from what it does, without its bias; `like` has an input's width and dtype."""
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
    """Checks for the block that `o_proj` is given what the heads gave, and nothing done to it between."""

    def check(layer: int, module: nn.Module, given: Tensor) -> None:
        one = wanted[layer]
        same = one.sent is not None and torch.allclose(given[:, -1], one.sent, rtol=0, atol=0, equal_nan=True)
        if not same:
            raise _changed(module)
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
        raise _changed(mllm.installation.attentions[unchecked[0]])


def _changed(attention: nn.Module) -> ModelError:
    return ModelError(
        f"value-weighted attention needs o_proj to be given the heads' outputs as they are; {type(attention).__name__} "
        "does something to them before (a gate or a norm), so V·W_O is not what a token sends. Use Attention() for "
        "this model."
    )
