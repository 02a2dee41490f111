"""Which rows of a prompt an indicator averages: the last token, the question, its object's word, the answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from jaxtyping import Float

from interp.errors import MapError, PromptError, SiteError
from interp.indicators.maps import Maps
from interp.inputs.prompt import PAPER_PROMPT, Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.tokens import Word, word
from interp.tracing import Batch, Mllm, Prefix, Rows, SampleTrace, Site, Trace

__all__ = [
    "NAMES",
    "Attention",
    "Queries",
    "averaged",
    "checked",
    "generated",
    "relative",
    "site_queries",
    "written",
]

NAMES = ("last", "question", "label", "answer")
Queries: TypeAlias = str | Word


def checked(queries: Any) -> None:
    """Raise `SiteError` for anything but one of `NAMES` or a word."""
    if not isinstance(queries, Word) and queries not in NAMES:
        names = ", ".join(map(repr, NAMES))
        raise SiteError(f"queries is one of {names}, or interp.word(…); got {queries!r}.")


def written(queries: Queries) -> Any:
    """The queries as JSON."""
    return {"word": queries.text} if isinstance(queries, Word) else queries


def site_queries(queries: Queries) -> Queries:
    """The rows to read: a label's words are found among the question's, those of an answer while generating."""
    return (
        {"label": "question", "answer": "last"}.get(queries, queries) if isinstance(queries, str) else queries
    )


def generated(queries: Queries) -> int:
    """How many tokens to generate: the first has its row once the second is asked for."""
    return 2 if queries == "answer" else 0


def averaged(trace: SampleTrace, sample: Sample, queries: Queries) -> xr.DataArray:
    """The mean of the sample's rows over its queries: ([layer, [head,]] token).

    Raises:
        SiteError: No label or none in the question, an empty answer, or rows without attention to the image.
    """
    rows = trace.rows
    if queries == "answer":
        if rows.sizes["step"] < 2:
            raise SiteError(
                f"the model's answer to sample {sample.id} is empty: its first token ends it and attends to "
                "nothing. queries='answer' needs an answer."
            )
        rows = rows.isel(step=1, drop=True)
    if queries == "label":
        found = trace.tokens.positions(word(_label(sample)))
        rows = rows.isel(query=np.flatnonzero(np.isin(rows["query"].values, found)))
    if queries != "last" and not rows.any():
        raise SiteError(
            f"the rows of queries={queries!r} give the image of sample {sample.id} no attention at any layer. "
            "Text before the image does not see it: use a Prompt with image_first=True, or queries='last'."
        )
    return rows.isel(query=0, drop=True) if rows.sizes["query"] == 1 else _mean(rows)


def _mean(rows: xr.DataArray) -> xr.DataArray:
    return rows.mean("query", dtype=np.float64, keep_attrs=True).astype(np.float32)


def _label(sample: Sample) -> str:
    found = sample.meta.get("label")
    if not isinstance(found, str) or not found.strip():
        raise SiteError(
            f"queries='label' averages over the words of sample.meta['label'] in the question; sample {sample.id} "
            f"has the label {found!r}. Give it one, or use queries='question'."
        )
    return found


FLOOR = float(np.finfo(np.float32).tiny)  # the least normal float32: quotients by it stay finite in float32


@dataclass(frozen=True)
class Attention:
    """Rows of attention from the last prompt token to the image tokens, as one map per layer (or head).

    Without `relative_to` the map is mean_h A(q), the head-mean attention weights of the prompt q (per head:
    A), in [0, 1]. With it, R = mean_h A(q) / mean_h A(generic), token by token (per head: the quotient of
    each head's own weights), in [0, ∞): the attention that every question on the image draws divides out.

    `queries` chooses other rows of the prompt q, and A(q) is then their plain mean over the chosen positions:

    - "last": the last prompt token, whose row the first answer token is read from.
    - "question": the user's words, punctuation included.
    - `interp.word("nodule")`: every occurrence of that word, or run of words, in the question.
    - "label": the words of `sample.meta["label"]`, each sample's own, in its question.
    - "answer": the first generated token (greedy), as it attends when it is the model's newest input.

    **The divisor is always the generic prompt's last row**, for all of them. A generic prompt has neither the
    question's words nor the object's, and one divisor per image means that maps of different queries differ by
    their own rows alone. What it divides out is what an image token draws whoever asks (sinks). What a role in
    the sentence draws stays in the quotient, except for "last", where both rows have the same role: so compare
    plain maps too before saying that one kind of text token looks at a box more than another.

    Where both weights are exactly 0, as for tokens outside a sliding window, nothing is known and R is 0:
    such a token adds no mass. Where the generic weight alone is 0, or below 1.2e-38, it is taken as 1.2e-38,
    which keeps R finite, and huge. Each relative map counts both cases in `attrs["n_zero_over_zero"]` and
    `attrs["n_floored"]`.

    Args:
        relative_to: the generic prompt of the quotient, such as `GENERIC_PROMPT`; None for plain attention.
        per_head: a map for every head, (layer, head, token), instead of one per layer, (layer, token).
        layers: "all" or decoder layers, 0-based, in the order wanted.
        queries: "last", "question", "label", "answer" or `interp.word(…)`.

    Raises:
        PromptError: `relative_to` is not a prompt.
        MapError: `per_head` is not a bool.
        SiteError: layers that are no indices or queries of another kind. When called: layers the model does not
            have; a prompt without question or a question without the word; a sample without a label; an empty
            answer; rows that give the image no attention at all, as where the question comes before it.

    Source: arXiv 2603.14323; its code has no guard against zeros, and its exact divisor for text tokens other
    than the last was not at hand.
    """

    relative_to: Prompt | None = None
    per_head: bool = False
    layers: Literal["all"] | Sequence[int] = "all"
    queries: Queries = "last"

    def __post_init__(self) -> None:
        if self.relative_to is not None and not isinstance(self.relative_to, Prompt):
            raise PromptError(
                f"relative_to is an interp.Prompt or None; got {self.relative_to!r}. Use "
                "interp.GENERIC_PROMPT, or Prompt(template=…)."
            )
        if not isinstance(self.per_head, bool):
            raise MapError(f"per_head is True or False; got {self.per_head!r}. Name heads in a Site instead.")
        object.__setattr__(self, "layers", Site(layers=self.layers).layers)
        checked(self.queries)

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
        if self.relative_to is None:
            trace = self._trace(mllm, chosen, prompt, self.queries)
            return Maps(self._maps(trace, chosen), trace.tokens, trace.cost, trace.logits)
        return self._against(mllm, chosen, prompt, self.relative_to)

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values, part of a study's hash; `queries` only where they are not "last"."""
        chosen = {} if self.queries == "last" else {"queries": written(self.queries)}
        return {
            "indicator": "attention",
            "relative_to": None if self.relative_to is None else self.relative_to.to_dict(),
            "per_head": self.per_head,
            "layers": self.layers if self.layers == "all" else list(self.layers),
            **chosen,
        }

    def _trace(self, mllm: Mllm, samples: list[Sample] | Prefix, prompt: Prompt, queries: Queries) -> Trace:
        site = Site(layers=self.layers, queries=site_queries(queries), keys="image")
        rows = Rows(site, reduce=None if self.per_head else "head")
        return mllm.trace(samples, prompt=prompt, reads=[rows], generate=generated(queries))

    def _maps(self, trace: Trace, samples: list[Sample] | Prefix) -> tuple[xr.DataArray, ...]:
        """Each sample's mean over the rows of its queries."""
        listed = samples.samples if isinstance(samples, Prefix) else samples
        return tuple(averaged(one, sample, self.queries) for one, sample in zip(trace, listed, strict=True))

    def _against(self, mllm: Mllm, samples: list[Sample] | Prefix, prompt: Prompt, generic: Prompt) -> Maps:
        """The maps of `prompt` divided by those of the last row of `generic`."""
        shared = None
        if _share_image(prompt, generic) and not isinstance(samples, Prefix):
            shared = mllm.prefix(samples, prompt=prompt)
        run = samples if shared is None else shared
        asked = self._trace(mllm, run, prompt, self.queries)
        reference = self._trace(mllm, run, generic, "last")
        divisors = (one.rows.isel(query=0, drop=True) for one in reference)
        quotients = tuple(_relative(q, g) for q, g in zip(self._maps(asked, samples), divisors, strict=True))
        cost = asked.cost + reference.cost
        return Maps(quotients, asked.tokens, cost if shared is None else shared.cost + cost, asked.logits)


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


def _relative(asked: xr.DataArray, generic: xr.DataArray) -> xr.DataArray:
    if asked.shape != generic.shape:
        raise MapError(
            f"both prompts must hold the same image tokens; got {asked.sizes['token']} and "
            f"{generic.sizes['token']}. Does a prompt's text hold an image placeholder?"
        )
    values, n_nothing, n_floored = relative(asked.values, generic.values)
    counts = {"n_zero_over_zero": n_nothing, "n_floored": n_floored}
    return asked.copy(data=values).rename("relative attention").assign_attrs(counts)


def _share_image(first: Prompt, second: Prompt) -> bool:
    """Whether both prompts begin with the same text and the image, so that one pass over it serves both."""
    return first.image_first and second.image_first and first.system == second.system
