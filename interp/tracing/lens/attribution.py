"""The residual stream taken apart by head, MLP and embedding, and what each writes towards an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError, PromptError
from interp.inputs.prompt import Target
from interp.inputs.tokens import TokenMap
from interp.tracing.encoding.batch import Batch
from interp.tracing.lens.bridge import BridgedModel, LensCache, Readout, SampleReadings, frozen
from interp.tracing.target import Aim, aims
from interp.tracing.wrapped_model import WrappedModel

__all__ = [
    "PARTS",
    "Attribution",
    "Part",
    "attribution",
    "components",
    "each_component",
    "first_tokens",
    "labelled_shares",
    "make_attribution",
]


GAP = 0.05
"""The largest distance of the sum of the parts from the model's logit, as a share of the largest logit's size."""


@dataclass(frozen=True, eq=False)
class Attribution(SampleReadings):
    """Direct effects on a logit, per sample. `found[i]` is a Dataset in logits:

    heads (layer, head); attention (layer), the sum of its heads and bias; mlp (layer); embedding; added; bias; and
    `logit`, the sum of all of these. Its attributes are `answers` (token ids), `words`, and `completeness_error`, the
    distance of the sum from the model's own logit, in logits.

    Attributes:
        samples: One Dataset per sample.
        tokens: Where each sample's tokens are.
        logits: (sample, token_id), the logits after the last prompt token.
    """

    @property
    def heads(self) -> xr.DataArray:
        """The direct effects of all heads, (sample, layer, head), in logits."""
        joined: Any = xr.concat([one.heads for one in self.samples], dim="sample")
        return joined


def attribution(
    lens: BridgedModel, batch: Batch, target: Target, relative_to: Literal["zero", "mean"]
) -> Attribution:
    """The direct effects for a batch; see `Lens.attribution`."""
    found = first_tokens(lens.mllm, batch, target, relative_to)
    readout = lens.readout
    logits, cache = lens.run_with_cache(batch, hooks=PARTS)
    parts = []
    for i, (ids, weights) in enumerate(found):
        stream, vectors = _last(lens, cache, i)
        parts.append(_attributed(lens, stream, vectors, _direction(readout, ids, weights, relative_to)))
    return make_attribution(lens.mllm, batch.tokens, parts, found, logits, relative_to)


Asked = tuple[tuple[int, ...], tuple[float, ...]]
"""Token ids, and the sign of each one's logit."""


def first_tokens(mllm: WrappedModel, batch: Batch, target: Target, relative_to: str) -> list[Asked]:
    """The first tokens of each sample's answers.

    Raises:
        PromptError: An unknown `relative_to`, an answer without tokens, or answers that begin with the same token.
    """
    if relative_to not in ("zero", "mean"):
        raise PromptError(f'relative_to is "zero" or "mean"; got {relative_to!r}.')
    return [_first_tokens(aim, target) for aim in aims(mllm, batch, target)]


def make_attribution(
    mllm: WrappedModel,
    tokens: tuple[TokenMap, ...],
    shares: Sequence[xr.Dataset],
    asked: Sequence[Asked],
    logits: xr.DataArray,
    relative_to: str,
) -> Attribution:
    """The attribution of samples, after a check that their parts add up to the model's own logits.

    Args:
        mllm: The model.
        tokens: Where each sample's tokens are.
        shares: Each sample's shares, as `labelled_shares` gives them.
        asked: Each sample's token ids, and their signs.
        logits: (sample, token_id), the logits after the last prompt token.
        relative_to: As in `Lens.attribution`.

    Raises:
        ModelError: Parts that do not add up to the logits.
    """
    parts = []
    for i, (part, (ids, weights)) in enumerate(zip(shares, asked, strict=True)):
        part["logit"] = part.attention.sum() + part.mlp.sum() + part.embedding + part.added + part.bias
        expected = _expected(logits.values[i], ids, weights, relative_to)
        error, size = abs(float(part.logit) - expected), max(1.0, float(np.abs(logits.values[i]).max()))
        if not error <= GAP * size:
            raise ModelError(
                f"the parts of sample {i} of the batch add up to {float(part.logit):.4g}, but the model's logit is "
                f"{expected:.4g}: {type(mllm.hf).__name__} has a step between residual stream and logits that interp "
                "does not know. Use a logit lens or knockouts instead."
            )
        words = [mllm.processor.tokenizer.decode([token]).strip() for token in ids]
        parts.append(part.assign_attrs(answers=list(ids), words=words, completeness_error=error))
    return Attribution(tuple(parts), tokens, logits)


def _first_tokens(aim: Aim, target: Target) -> tuple[tuple[int, ...], tuple[float, ...]]:
    ids = tuple(answer[0] for answer in aim.answers)
    if len(set(ids)) < len(ids):
        raise PromptError(
            f"the answers of {target.spec!r} begin with the same token, so its logit cannot tell them apart. Name "
            "answers that differ from their first token on."
        )
    return ids, (1.0, -1.0)[: len(ids)]


def _direction(
    readout: Readout, ids: Sequence[int], weights: Sequence[float], relative_to: str
) -> tuple[Float[Tensor, " hidden"], float]:
    """The direction that the normed stream is projected on, and what the unembedding's bias adds."""
    rows, bias = readout.head.weight.detach(), getattr(readout.head, "bias", None)
    bias = None if bias is None else bias.detach()
    signs = torch.tensor(weights, device=rows.device)
    at = torch.tensor(ids, device=rows.device)
    direction = signs @ rows[at].float()
    constant = 0.0 if bias is None else float(signs @ bias[at].float())
    if relative_to == "mean":
        direction = direction - signs.sum() * rows.float().mean(dim=0)
        constant -= 0.0 if bias is None else float(signs.sum() * bias.float().mean())
    return direction, constant


def _last(lens: BridgedModel, cache: LensCache, sample: int) -> tuple[Float[Tensor, "1 hidden"], list[Part]]:
    """The stream before the final norm at a sample's last prompt token, and its components."""
    rows = torch.tensor([cache.batch.inputs["input_ids"].shape[1] - 1])
    stream = cache.activations[f"blocks.{cache.layers[-1]}.hook_resid_post"][sample, rows]
    with torch.no_grad():
        return stream, list(each_component(lens, cache, sample, rows))


def _attributed(
    lens: BridgedModel,
    stream: Float[Tensor, "1 hidden"],
    vectors: Sequence[Part],
    along: tuple[Tensor, float],
) -> xr.Dataset:
    """The projections of the components, with the final norm's scale frozen."""
    direction, constant = along
    n_layers, n_heads = lens.mllm.n_layers, lens.mllm.n_heads
    with torch.no_grad():
        turned = (frozen(lens.bridge.ln_final, stream)[0] * direction).double()
    shares: dict[str, np.ndarray] = {
        "head": np.zeros((n_layers, n_heads)),
        **{kind: np.zeros(n_layers + 1) for kind in ("attention bias", "mlp", "embedding", "added")},
    }
    for kind, layer, head, vector in vectors:
        place = (layer, head) if kind == "head" else layer
        shares[kind][place] += float(vector[0].double() @ turned)
    return labelled_shares(shares, constant)


def labelled_shares(shares: Mapping[str, np.ndarray], constant: float) -> xr.Dataset:
    """One sample's shares as a Dataset of `Attribution`.

    Args:
        shares: The shares by kind of part: "head" is (layer, head); other kinds are (layer + 1,), with parts that have
            no layer at the end.
        constant: What the unembedding's bias adds.
    """
    n_layers, n_heads = shares["head"].shape
    coords = {"layer": np.arange(n_layers), "head": np.arange(n_heads)}
    return xr.Dataset(
        {
            "heads": (("layer", "head"), shares["head"]),
            "attention": ("layer", shares["head"].sum(axis=1) + shares["attention bias"][:-1]),
            "mlp": ("layer", shares["mlp"][:-1]),
            "embedding": shares["embedding"].sum(),
            "added": shares["added"].sum(),
            "bias": constant,
        },
        coords=coords,
    )


def _expected(
    logits: Float[np.ndarray, " token_id"],
    ids: Sequence[int],
    weights: Sequence[float],
    relative_to: str,
) -> float:
    """The value that the parts should add up to, from the model's own logits."""
    values = logits.astype(np.float64)
    found = float(np.dot(weights, values[list(ids)]))
    return found - float(sum(weights)) * float(values.mean()) if relative_to == "mean" else found


PARTS = ("hook_resid_pre", "hook_resid_post", "attn.hook_z", "hook_mlp_out")
"""The hooks whose activations the components are computed from."""

Part = tuple[str, int, int, Float[Tensor, "position hidden"]]
"""(kind, layer, head, vectors); −1 where a component has no layer or head."""


def each_component(lens: BridgedModel, cache: LensCache, sample: int, rows: Tensor) -> Iterator[Part]:
    """The components of a sample at padded rows, in the order in which they are added to the stream."""

    def at(layer: int, hook: str) -> Tensor:
        return cache.activations[f"blocks.{layer}.{hook}"][sample, rows]

    n_layers = len(cache.layers)
    yield "embedding", -1, -1, at(0, "hook_resid_pre").float()
    for layer in range(n_layers):
        yield from _attention(lens.bridge.blocks[layer], layer, at(layer, "attn.hook_z"))
        yield "mlp", layer, -1, at(layer, "hook_mlp_out").float()
        if layer + 1 < n_layers:
            after, entering = at(layer, "hook_resid_post"), at(layer + 1, "hook_resid_pre")
            if not torch.equal(after, entering):
                yield "added", layer, -1, entering.float() - after.float()


def _attention(block: Any, layer: int, z: Float[Tensor, "position head dim"]) -> Iterator[Part]:
    """What each head writes, and the bias of the projection, both scaled by the norm after it where there is one."""
    project = block.attn.o.original_component
    z = z.unflatten(-1, (-1, block.attn.original_component.head_dim)) if z.ndim == 2 else z
    weight = project.weight.float().unflatten(1, (z.shape[1], z.shape[2]))
    heads = torch.einsum("phd,ohd->hpo", z.float(), weight)
    bias = project.bias
    behind = block.submodules.get("ln1_post")
    if behind is not None:
        entering = project(z.flatten(1))
        factor = frozen(behind, entering)
        heads = heads * factor
        bias = None if bias is None else bias.float() * factor
    for head, written in enumerate(heads):
        yield "head", layer, head, written
    if bias is not None:
        yield "attention bias", layer, -1, bias.detach().float().expand_as(heads[0])


def components(lens: BridgedModel, cache: LensCache, sample: int, positions: np.ndarray) -> xr.DataArray:
    """One sample's components at some unpadded positions; see `Lens.components`."""
    rows = torch.from_numpy(positions + int(cache.batch.pad[sample]))
    with torch.no_grad():
        kinds, layers, heads, vectors = zip(*each_component(lens, cache, sample, rows), strict=True)
    coords: dict[str, Any] = {
        "kind": ("component", list(kinds)),
        "layer": ("component", list(layers)),
        "head": ("component", list(heads)),
        "position": positions,
    }
    values = torch.stack(vectors).cpu().numpy()
    return xr.DataArray(values, dims=("component", "position", "hidden"), coords=coords, name="residual")
