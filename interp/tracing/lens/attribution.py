"""Direct logit attribution: what each head and MLP writes towards an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError, PromptError
from interp.prompt import Target
from interp.tokens import TokenMap
from interp.tracing.encode import Batch
from interp.tracing.lens.cache import LensCache
from interp.tracing.lens.components import PARTS, each_component
from interp.tracing.lens.readout import Readout, frozen
from interp.tracing.targets import Aim, aims

if TYPE_CHECKING:
    from interp.tracing.lens.lens import Lens

__all__ = ["Attribution", "attribution"]

GAP = 0.05
"""How far the sum of the parts may be from the model's logit, as a share of the largest logit's size."""


@dataclass(frozen=True, eq=False)
class Attribution(Sequence):
    """Direct effects on a logit, per sample. `found[i]` is a Dataset in logits:

    heads (layer, head), attention (layer): its heads and bias, mlp (layer), embedding, added, bias, and `logit`,
    their sum. Its attributes: `answers` (token ids), `words`, and `completeness_error`: the distance of the sum
    from the model's own logits.

    Attributes:
        samples: the Datasets.
        tokens: where each sample's tokens are.
    """

    samples: tuple[xr.Dataset, ...]
    tokens: tuple[TokenMap, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:
        return self.samples[index]

    @property
    def heads(self) -> xr.DataArray:
        """(sample, layer, head)."""
        return xr.concat([one.heads for one in self.samples], dim="sample")


def attribution(
    lens: Lens, batch: Batch, target: Target, relative_to: Literal["zero", "mean"]
) -> Attribution:
    """The direct effects for a batch; see `Lens.attribution`."""
    if relative_to not in ("zero", "mean"):
        raise PromptError(f'relative_to is "zero" or "mean"; got {relative_to!r}.')
    found = [_first_tokens(aim, target) for aim in aims(lens.mllm, batch, target)]
    logits, cache = lens.run_with_cache(batch, hooks=PARTS)
    readout = lens.readout
    parts = []
    for i, (ids, weights) in enumerate(found):
        part = _attributed(lens, cache, i, _direction(readout, ids, weights, relative_to))
        part["logit"] = part.attention.sum() + part.mlp.sum() + part.embedding + part.added + part.bias
        expected = _expected(logits.values[i], ids, weights, relative_to, readout.cap)
        error, size = abs(float(part.logit) - expected), max(1.0, float(np.abs(logits.values[i]).max()))
        if not error <= GAP * size:
            raise ModelError(
                f"the parts of sample {i} of the batch add up to {float(part.logit):.4g}, and the model's logit is "
                f"{expected:.4g}: {type(lens.mllm.hf).__name__} does something between stream and logits that is "
                "not known here. Use a logit lens or knockouts instead."
            )
        words = [lens.mllm.processor.tokenizer.decode([token]).strip() for token in ids]
        parts.append(part.assign_attrs(answers=list(ids), words=words, completeness_error=error))
    return Attribution(tuple(parts), batch.tokens)


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
    """What the normed stream is projected on, and what the unembedding's bias adds."""
    rows, bias = readout.head.weight, getattr(readout.head, "bias", None)
    signs = torch.tensor(weights, device=rows.device)
    at = torch.tensor(ids, device=rows.device)
    direction = signs @ rows[at].float()
    constant = 0.0 if bias is None else float(signs @ bias[at].float())
    if relative_to == "mean":
        direction = direction - signs.sum() * rows.float().mean(dim=0)
        constant -= 0.0 if bias is None else float(signs.sum() * bias.float().mean())
    return direction, constant


def _attributed(
    lens: Lens, cache: LensCache, sample: int, along: tuple[Float[Tensor, " hidden"], float]
) -> xr.Dataset:
    """The projections of a sample's components at its last prompt token."""
    direction, constant = along
    width = cache.batch.inputs["input_ids"].shape[1]
    rows = torch.tensor([width - 1])
    last = len(cache.layers) - 1
    with torch.no_grad():
        stream = cache.activations[f"blocks.{last}.hook_resid_post"][sample, rows]
        turned = (frozen(lens.bridge.ln_final, stream)[0] * direction).double()
        shares: dict[str, np.ndarray] = {
            "head": np.zeros((last + 1, lens.mllm.n_heads)),
            **{kind: np.zeros(last + 2) for kind in ("attention bias", "mlp", "embedding", "added")},
        }
        for kind, layer, head, vectors in each_component(lens, cache, sample, rows):
            place = (layer, head) if kind == "head" else layer
            shares[kind][place] += float(vectors[0].double() @ turned)
    layers = np.arange(last + 1)
    heads = xr.DataArray(
        shares["head"], dims=("layer", "head"), coords={"layer": layers, "head": np.arange(lens.mllm.n_heads)}
    )
    return xr.Dataset(
        {
            "heads": heads,
            "attention": ("layer", shares["head"].sum(axis=1) + shares["attention bias"][:-1]),
            "mlp": ("layer", shares["mlp"][:-1]),
            "embedding": shares["embedding"].sum(),
            "added": shares["added"].sum(),
            "bias": constant,
        }
    )


def _expected(
    logits: Float[np.ndarray, " token_id"],
    ids: Sequence[int],
    weights: Sequence[float],
    relative_to: str,
    cap: float | None,
) -> float:
    """What the parts should add up to: the model's own logits, with any soft cap taken off."""
    values = logits.astype(np.float64)
    values = values if cap is None else cap * np.arctanh(np.clip(values / cap, -1 + 1e-12, 1 - 1e-12))
    found = float(np.dot(weights, values[list(ids)]))
    return found - float(sum(weights)) * float(values.mean()) if relative_to == "mean" else found
