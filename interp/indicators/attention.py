"""Attention of the last prompt token to the image, absolute or relative to a generic prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Float

from interp.errors import MapError, PromptError
from interp.indicators.maps import Maps
from interp.prompt import PAPER_PROMPT, Prompt, Target
from interp.sample import Sample
from interp.tracing import Batch, Mllm, Prefix, Rows, Site, Trace

__all__ = ["Attention", "relative"]

FLOOR = float(np.finfo(np.float32).tiny)  # the least normal float32: quotients by it stay finite in float32


@dataclass(frozen=True)
class Attention:
    """Rows of attention from the last prompt token to the image tokens, as one map per layer (or head).

    Without `relative_to` the map is mean_h A(q), the head-mean attention weights of the prompt q (per head:
    A), in [0, 1]. With it, R = mean_h A(q) / mean_h A(generic), token by token (per head: the quotient of
    each head's own weights), in [0, ∞): the attention that every question on the image draws divides out.

    Where both weights are exactly 0, as for tokens outside a sliding window, nothing is known and R is 0:
    such a token adds no mass. Where the generic weight alone is 0, or below 1.2e-38, it is taken as 1.2e-38,
    which keeps R finite, and huge. Each relative map counts both cases in `attrs["n_zero_over_zero"]` and
    `attrs["n_floored"]`.

    Args:
        relative_to: the generic prompt of the quotient, such as `GENERIC_PROMPT`; None for plain attention.
        per_head: a map for every head, (layer, head, token), instead of one per layer, (layer, token).
        layers: "all" or decoder layers, 0-based, in the order wanted.

    Raises:
        PromptError: `relative_to` is not a prompt.
        MapError: `per_head` is not a bool.
        SiteError: layers that are no indices, or, when called, that the model does not have.

    Source: arXiv 2603.14323; its code has no guard against zeros.
    """

    relative_to: Prompt | None = None
    per_head: bool = False
    layers: Literal["all"] | Sequence[int] = "all"

    def __post_init__(self) -> None:
        if self.relative_to is not None and not isinstance(self.relative_to, Prompt):
            raise PromptError(
                f"relative_to is an interp.Prompt or None; got {self.relative_to!r}. Use "
                "interp.GENERIC_PROMPT, or Prompt(template=…)."
            )
        if not isinstance(self.per_head, bool):
            raise MapError(f"per_head is True or False; got {self.per_head!r}. Name heads in a Site instead.")
        object.__setattr__(self, "layers", Site(layers=self.layers).layers)

    def __call__(
        self,
        mllm: Mllm,
        samples: Sample | Iterable[Sample] | Batch | Prefix,
        *,
        prompt: Prompt = PAPER_PROMPT,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
    ) -> Maps:
        """The maps of these samples, run as one batch.

        A relative map costs one pass over the image and two over the text after it, when both prompts begin
        with the image; otherwise two whole passes.

        Args:
            mllm: the model.
            samples: one batch; what fits in memory is the caller's choice. A prefix already run is used for
                what it serves, and its cost is not counted again.
            prompt: how the question is put.
            target: taken so that indicators are interchangeable; attention does not depend on the answer.

        Returns:
            Maps of float32 arrays with the coordinates "layer", "head" (per head), "token", and "position",
            the unpadded position of each image token; `logits` after the prompt.

        Raises:
            InterpError: samples or prompts that cannot be encoded, or layers the model does not have.
        """
        chosen = _chosen(samples)
        site = Site(layers=self.layers, queries="last", keys="image")
        rows = Rows(site, reduce=None if self.per_head else "head")
        if self.relative_to is None:
            trace = mllm.trace(chosen, prompt=prompt, reads=[rows])
            return Maps(_maps(trace), trace.tokens, trace.cost, trace.logits)
        return _against(mllm, chosen, rows, prompt, self.relative_to)

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values, part of a study's hash."""
        return {
            "indicator": "attention",
            "relative_to": None if self.relative_to is None else self.relative_to.to_dict(),
            "per_head": self.per_head,
            "layers": self.layers if self.layers == "all" else list(self.layers),
        }


def relative(
    asked: Float[np.ndarray, "*shape"], generic: Float[np.ndarray, "*shape"]
) -> tuple[Float[np.ndarray, "*shape"], int, int]:
    """The quotient asked / generic of non-negative weights, how many were 0/0, and how many had the floor.

    0/0 is 0; a divisor below the least normal float32, 1.2e-38, is raised to it. Finite in float32.
    """
    nothing = (asked == 0) & (generic == 0)
    floored = (generic < FLOOR) & ~nothing
    quotient = asked.astype(np.float64) / np.maximum(generic.astype(np.float64), FLOOR)
    return quotient.astype(np.float32), int(nothing.sum()), int(floored.sum())


def _chosen(samples: Sample | Iterable[Sample] | Batch | Prefix) -> list[Sample] | Prefix:
    if isinstance(samples, Prefix):
        return samples
    if isinstance(samples, Batch):
        return list(samples.samples)
    return [samples] if isinstance(samples, Sample) else list(samples)


def _against(mllm: Mllm, samples: list[Sample] | Prefix, rows: Rows, prompt: Prompt, generic: Prompt) -> Maps:
    """The maps of `prompt` divided by those of `generic`."""
    shared = None
    if _share_image(prompt, generic) and not isinstance(samples, Prefix):
        shared = mllm.prefix(samples, prompt=prompt)
    asked, reference = (
        mllm.trace(samples if shared is None else shared, prompt=p, reads=[rows]) for p in (prompt, generic)
    )
    quotients = tuple(_relative(q, g) for q, g in zip(_maps(asked), _maps(reference), strict=True))
    cost = asked.cost + reference.cost
    return Maps(quotients, asked.tokens, cost if shared is None else shared.cost + cost, asked.logits)


def _relative(asked: xr.DataArray, generic: xr.DataArray) -> xr.DataArray:
    if asked.shape != generic.shape:
        raise MapError(
            f"both prompts must hold the same image tokens; got {asked.sizes['token']} and "
            f"{generic.sizes['token']}. Does a prompt's text hold an image placeholder?"
        )
    values, n_nothing, n_floored = relative(asked.values, generic.values)
    counts = {"n_zero_over_zero": n_nothing, "n_floored": n_floored}
    return asked.copy(data=values).rename("relative attention").assign_attrs(counts)


def _maps(trace: Trace) -> tuple[xr.DataArray, ...]:
    """Each sample's rows without the query axis, which has one entry."""
    return tuple(one.rows.isel(query=0, drop=True) for one in trace)


def _share_image(first: Prompt, second: Prompt) -> bool:
    """Whether both prompts begin with the same text and the image, so that one pass over it serves both."""
    return first.image_first and second.image_first and first.system == second.system
