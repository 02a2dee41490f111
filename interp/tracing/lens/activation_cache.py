"""What TransformerLens cached, labelled: layers, heads, and each sample's own unpadded positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from interp.errors import SiteError
from interp.inputs.tokens import TokenMap
from interp.tracing.encoding.batch import Batch

__all__ = ["HOOKS", "LensCache", "SampleCache", "check_hooks"]

HOOKS: Mapping[str, tuple[str, ...]] = {
    "attn.hook_pattern": ("head", "query", "key"),
    "attn.hook_z": ("position", "head", "dim"),
    "hook_resid_pre": ("position", "hidden"),
    "hook_resid_mid": ("position", "hidden"),
    "hook_resid_post": ("position", "hidden"),
    "hook_attn_out": ("position", "hidden"),
    "hook_mlp_out": ("position", "hidden"),
}
"""Hook of a block → the dimensions of what it gives for one sample. `hook_attn_out` and `hook_mlp_out` are what
is added to the stream: after the norms that Gemma has there."""

PLACES = ("query", "key", "position")


@dataclass(frozen=True, eq=False)
class SampleCache(Mapping):
    """One sample's activations: `sample["attn.hook_pattern"]` is (layer, head, query, key), float32.

    Attributes:
        activations: as in `LensCache`.
        tokens: where the sample's tokens are.
        layers: the decoder layers that were kept.
    """

    activations: Any
    hooks: tuple[str, ...]
    layers: tuple[int, ...]
    tokens: TokenMap
    place: int
    pad: int

    def __getitem__(self, hook: str) -> xr.DataArray:
        """Every kept layer's activations at a hook of `HOOKS`; "query", "key" and "position" are unpadded.

        Raises:
            SiteError: A hook that was not kept.
        """
        if hook not in self.hooks:
            raise SiteError(
                f"the cache keeps {', '.join(self.hooks)}; got {hook!r}. Ask for it: run_with_cache(…, hooks=[…])."
            )
        dims = HOOKS[hook]
        own = tuple(slice(self.pad, None) if dim in PLACES else slice(None) for dim in dims)
        found = [self.activations[f"blocks.{layer}.{hook}"][self.place][own] for layer in self.layers]
        values = torch.stack(found).float().cpu().numpy()
        coords: dict[str, Any] = {"layer": list(self.layers)}
        coords |= {dim: np.arange(self.tokens.length) for dim in dims if dim in PLACES}
        coords |= {dim: np.arange(values.shape[1 + dims.index(dim)]) for dim in dims if dim == "head"}
        return xr.DataArray(values, dims=("layer", *dims), coords=coords, name=hook)

    def __iter__(self) -> Iterator[str]:
        return iter(self.hooks)

    def __len__(self) -> int:
        return len(self.hooks)


@dataclass(frozen=True, eq=False)
class LensCache(Sequence):
    """What a run kept. `cache[i]` is sample i, labelled.

    Attributes:
        activations: TransformerLens's own `ActivationCache`: "blocks.0.attn.hook_pattern" → the padded tensor.
        batch: the encoded samples.
        hooks: the hooks kept in each layer.
        layers: the layers kept.
    """

    activations: Any
    batch: Batch
    hooks: tuple[str, ...]
    layers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.batch)

    def __getitem__(self, index: Any) -> Any:
        place = range(len(self))[index]
        tokens, pad = self.batch.tokens[place], int(self.batch.pad[place])
        return SampleCache(self.activations, self.hooks, self.layers, tokens, place, pad)


def check_hooks(hooks: Sequence[str]) -> tuple[str, ...]:
    """The hooks, each once.

    Raises:
        SiteError: None, or one that has no labels.
    """
    found = (hooks,) if isinstance(hooks, str) else tuple(dict.fromkeys(hooks))
    unknown = [hook for hook in found if hook not in HOOKS]
    if unknown or not found:
        raise SiteError(
            f"hooks= names hooks of a block among {', '.join(HOOKS)}; got {unknown or 'none'}. For any other, call "
            "lens.bridge.run_with_cache(ids, **others): batch.inputs holds the ids, as 'input_ids', and the others."
        )
    return found
