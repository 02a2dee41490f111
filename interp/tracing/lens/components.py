"""The residual stream taken apart into what each head, MLP and the embedding put there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.errors import SiteError
from interp.tracing.encoding.batch import Batch
from interp.tracing.lens.bridge import BridgedModel, LensCache, frozen
from interp.tracing.site import Selector, Site, select

__all__ = ["PARTS", "Part", "components", "each_component", "places"]

PARTS = ("hook_resid_pre", "hook_resid_post", "attn.hook_z", "hook_mlp_out")
"""The hooks that components are made of."""

Part = tuple[str, int, int, Float[Tensor, "position hidden"]]
"""(kind, layer, head, vectors); −1 where a component has no layer or head."""


def components(
    lens: BridgedModel, cache: LensCache, positions: Selector | Sequence[Selector]
) -> list[xr.DataArray]:
    """Each sample's components at some positions; see `Lens.components`."""
    return [_labelled(lens, cache, i, own) for i, own in enumerate(places(cache.batch, positions))]


def places(batch: Batch, positions: Selector | Sequence[Selector]) -> list[np.ndarray]:
    """Each sample's unpadded positions.

    Raises:
        SiteError: Positions that are not there.
    """
    selectors, _ = Site(queries=positions).groups
    tokens = batch.tokens
    found = [select(selectors, own, i, len(tokens)) for i, own in enumerate(tokens)]
    empty = [i for i, own in enumerate(found) if not len(own)]
    if empty:
        raise SiteError(f"samples {empty} of the batch have no tokens of {positions!r}; name others.")
    return found


def each_component(lens: BridgedModel, cache: LensCache, sample: int, rows: Tensor) -> Iterator[Part]:
    """The components of a sample at padded rows, in the order in which they enter the stream."""

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
    """What each head writes, and the bias of the projection, through the norm behind it where there is one."""
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


def _labelled(lens: BridgedModel, cache: LensCache, sample: int, positions: np.ndarray) -> xr.DataArray:
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
