"""Image tokens of outlying norm, and how much attention they draw: registers of the tower, sinks of the decoder.

`vision_states` gives the hidden states after a layer of the vision tower.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.errors import ModelError, ServerError
from interp.inputs.patch_map import PatchMap
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.models.vision_patches import tower_layers
from interp.tracing.cost import Meter
from interp.tracing.encoding.batch import Batch
from interp.tracing.passes.micro_batches import BATCH_SIZE, MicroBatch, in_batches, in_order
from interp.tracing.passes.prefix_pass import given_as
from interp.tracing.passes.run import PassCompleteError, run_pass
from interp.tracing.prefix import Prefix
from interp.tracing.reads import Residual, Rows
from interp.tracing.site import Site, image_mask
from interp.tracing.trace import trace
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["Sinks", "feature_layer", "norm_outliers", "sinks", "spaced", "vision_states"]


Where = Literal["vision", "decoder"]
N_QUERIES = 64
"""The most rows of the tower over which the share of attention is a mean: patches evenly spaced over the sample."""

_MAD_TO_SD = 1.4826  # of a normal distribution


@dataclass(frozen=True, eq=False)
class Sinks:
    """Which image tokens, or patches, of one sample are norm outliers, and their share of attention.

    Attributes:
        norm: (token or patch,), the L2 norm of the hidden state after `layer`, in the model's units.
        outlier: (token or patch,), whether the norm is above the threshold.
        threshold: The norm above which a token is an outlier; ∞ where the norms do not spread.
        share: (layer,), attention on the outliers divided by attention on all image tokens (patches), in [0, 1]; 0
            without outliers, NaN where a layer gives the image no attention.
        layer: The layer whose norms are compared.
        where: "vision" or "decoder".
    """

    norm: xr.DataArray
    outlier: xr.DataArray
    threshold: float
    share: xr.DataArray
    layer: int
    where: Where

    @property
    def n(self) -> int:
        """The number of outliers."""
        return int(self.outlier.sum())


def norm_outliers(
    norms: Float[np.ndarray, " token"], k: float = 5.0
) -> tuple[Bool[np.ndarray, " token"], float]:
    """Which norms are above median + k·1.4826·MAD, and that threshold.

    MAD is the median distance from the median. 1.4826·MAD equals the standard deviation of normally distributed values,
    and outliers do not widen it until they are half of all values. With fewer than 3 norms, or where MAD is 0 because
    half of the norms are equal, nothing is an outlier and the threshold is ∞.

    Args:
        norms: The norm of each token.
        k: How many robust standard deviations above the median the threshold lies, above 0.

    Raises:
        ModelError: A `k` that is no finite number above 0.
    """
    if isinstance(k, bool) or not isinstance(k, int | float | np.number) or not 0 < k < np.inf:
        raise ModelError(f"k is a finite number above 0, of robust standard deviations; got {k!r:.100}.")
    values = np.asarray(norms, float)
    if len(values) < 3:
        return np.zeros(len(values), bool), np.inf
    middle = np.median(values)
    spread = _MAD_TO_SD * np.median(np.abs(values - middle))
    threshold = float(middle + k * spread) if spread > 0 else np.inf
    return values > threshold, threshold


def sinks(
    mllm: WrappedModel,
    samples: Sample | Iterable[Sample] | Batch | Prefix,
    where: Where = "vision",
    *,
    layer: int | None = None,
    k: float = 5.0,
    prompt: Prompt | None = None,
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> list[Sinks]:
    """Flags image tokens whose hidden state has an outlying norm, for each sample, with the attention they draw.

    In vision transformers a few patches, mostly of plain background, come to hold global information: their output
    norms are several times those of the others, and they say little about their own place ("Vision Transformers Need
    Registers"). In language models a few tokens, some of them image tokens, have massive activations and draw attention
    whatever the question ("Massive Activations in Large Language Models"; "See What You Are Told"). A map of attention
    looks different without them. The rule here uses norms alone (`norm_outliers`), because the papers' own cut-offs are
    absolute numbers or dimensions of single checkpoints.

    Args:
        mllm: The model.
        samples: The samples, each with an image.
        where: "vision": norms of patches after a layer of the vision tower; the share is that of the rows of up to 64
            evenly spaced patches, as a mean over rows and heads. "decoder": norms of image tokens in the residual
            stream of the language model; the share is that of the last prompt token's row, as a mean over heads.
        layer: The layer whose norms are compared, 0-based. By default the tower's layer whose output the language model
            gets, or the decoder's middle layer (number of layers // 2).
        k: How many robust standard deviations above the median the threshold lies, as in `norm_outliers`.
        prompt, batch_size, progress: As in `Mllm.trace`.

    Raises:
        ModelError: Not a model, another `where`, a `k` that is no finite number above 0, or a tower that cannot be
            read.
        SiteError: A layer that the model does not have.

    Source: arXiv 2309.16588, 2402.17762, 2503.03321.
    """
    if not isinstance(mllm, WrappedModel):
        raise ModelError(f"sinks takes a model of interp.load or interp.wrap; got {mllm!r:.100}.")
    if not isinstance(where, str) or where not in ("vision", "decoder"):
        raise ModelError(f'where is "vision" or "decoder"; got {where!r:.100}.')
    norm_outliers(np.zeros(3), k)
    n_layers = mllm.n_vision_layers if where == "vision" else mllm.n_layers
    default = feature_layer(mllm) if where == "vision" else n_layers // 2
    chosen = next(iter(Site(layers=[default if layer is None else layer]).resolve(n_layers, 1)))
    of = _in_tower if where == "vision" else _in_decoder

    def found(own: WrappedModel, some: MicroBatch) -> list[Sinks]:
        batch = given_as(own, some.samples, prompt)
        batch = batch.batch if isinstance(batch, Prefix) else batch
        return of(own, batch, chosen, float(k))

    return in_order(in_batches(mllm, samples, found, batch_size=batch_size, progress=progress))


def _in_tower(mllm: WrappedModel, batch: Batch, layer: int, k: float) -> list[Sinks]:
    """The outliers among the patches of the tower."""
    states = vision_states(mllm, batch, layer)
    some = [spaced(one.n) for one in batch.patches]
    site = Site(tower="vision", queries=image_mask(some), keys="patches")
    rows = trace(mllm, batch, reads=[Rows(site, reduce="head")])
    return [
        _sinks(np.linalg.norm(own[patches.image], axis=1), one.rows, layer, k, "vision")
        for own, patches, one in zip(states, batch.patches, rows, strict=True)
    ]


def _in_decoder(mllm: WrappedModel, batch: Batch, layer: int, k: float) -> list[Sinks]:
    """The outliers among the image tokens in the decoder."""
    reads = [Residual(layers=[layer], positions="image"), Rows(Site(), reduce="head")]
    traced = trace(mllm, batch, reads=reads)
    return [
        _sinks(np.linalg.norm(one.reads[0].values[0], axis=-1), one.reads[1], layer, k, "decoder")
        for one in traced
    ]


def _sinks(
    norms: Float[np.ndarray, " token"], rows: xr.DataArray, layer: int, k: float, where: Where
) -> Sinks:
    flags, threshold = norm_outliers(norms, k)
    last = rows.dims[-1]
    coords = {last: rows[last].values}
    on = rows.values[..., flags].sum(axis=(-2, -1), dtype=float)
    total = rows.values.sum(axis=(-2, -1), dtype=float)
    share = np.divide(on, total, out=np.full(total.shape, np.nan), where=total > 0)
    return Sinks(
        norm=xr.DataArray(norms, coords, dims=[last], name="norm"),
        outlier=xr.DataArray(flags, coords, dims=[last], name="outlier"),
        threshold=threshold,
        share=xr.DataArray(share, {"layer": rows["layer"].values}, dims=["layer"], name="share"),
        layer=layer,
        where=where,
    )


def spaced(n: int) -> Bool[np.ndarray, " patch"]:
    """Flags at most `N_QUERIES` of n patches, evenly spaced."""
    found = np.zeros(n, bool)
    found[np.linspace(0, n - 1, min(n, N_QUERIES)).round().astype(int)] = True
    return found


def feature_layer(mllm: WrappedModel) -> int:
    """The layer of the tower whose output the language model gets, 0-based.

    It is the last layer unless the config names another; where a config names several, it is the last of those.
    """
    found = getattr(mllm.hf.config, "vision_feature_layer", None)
    found = (
        max(found, key=lambda one: one % (mllm.n_vision_layers + 1))
        if isinstance(found, list | tuple)
        else found
    )
    if found is None:
        return mllm.n_vision_layers - 1
    return max(found - 1 if found >= 0 else mllm.n_vision_layers + found, 0)


def vision_states(mllm: WrappedModel, batch: Batch, layer: int) -> list[Float[np.ndarray, "position hidden"]]:
    """Each sample's hidden states after a layer of the tower, by the positions of its `PatchMap`.

    The language model is not run.

    Args:
        mllm: The model.
        batch: The encoded samples, each with an image.
        layer: The layer, 0-based.

    Raises:
        ModelError: The tower has another number of positions than the adapter's patches.
        ServerError: A model on an NDIF server.
    """
    if mllm.server is not None:
        raise ServerError(
            "the vision tower is not read on an NDIF server. Load the model without remote=True."
        )
    found: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        states = output if isinstance(output, Tensor) else output[0]
        found.append(states.detach().float())

    def stop(_: nn.Module, __: Any) -> None:
        raise PassCompleteError

    layers = getattr(mllm.adapter, "vision_layers", tower_layers)(mllm.hf)
    inputs = batch.inputs | {"position_ids": batch.positions}
    with mllm.installation.armed({}), torch.no_grad():
        hooks = [
            layers[layer].register_forward_hook(keep),
            mllm.installation.layers[0].register_forward_pre_hook(stop),
        ]
        try:
            with suppress(PassCompleteError):
                run_pass(mllm.hf, inputs, Meter(mllm.device), n_tokens=0)
        finally:
            for hook in hooks:
                hook.remove()
    flat = _in_order(found, batch.patches)
    starts = np.cumsum([0, *(one.length for one in batch.patches)])
    if len(flat) != starts[-1]:
        raise ModelError(
            f"the vision tower has {len(flat)} positions, but the adapter {mllm.family!r} describes {starts[-1]}. "
            "Correct the adapter's patches."
        )
    return [flat[start + one.slots] for start, one in zip(starts[:-1], batch.patches, strict=True)]


def _in_order(states: Sequence[Tensor], patches: Sequence[PatchMap]) -> Float[np.ndarray, "flat hidden"]:
    """The states of a layer's calls in the tower's own order, without padding."""
    lines = [line for one in states for line in one.reshape(-1, *one.shape[-2:])]
    if any(one.padded for one in patches):
        lengths = np.concatenate([np.bincount(one.sequence) for one in patches])
        if len(lengths) == len(lines):
            lines = [line[:n] for line, n in zip(lines, lengths.tolist(), strict=True)]
    return torch.cat(lines).cpu().numpy() if lines else np.zeros((0, 0), np.float32)
