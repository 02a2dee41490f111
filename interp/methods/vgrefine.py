"""VGRefine: hide the image tokens that the best grounded heads attend to least."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, cast, get_args, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from interp.errors import InterpError, MapError, MethodError, SiteError
from interp.indicators.indicator_checks import check_call, check_number, check_one_of
from interp.inputs.prompt import GENERIC_PROMPT, Prompt
from interp.inputs.text import count
from interp.methods.method import (
    BATCH_SIZE,
    Answer,
    Samples,
    answers,
    each_in_batches,
    n_tokens,
    shared_prefix,
)
from interp.methods.published_layers import chosen_layers, editable_layers, layer_indices
from interp.metrics.numbers import real_numbers
from interp.tracing import Cost, Knockout, Mllm, Rows, Site, image_mask
from interp.tracing.edits import Steps
from interp.tracing.passes.micro_batches import MicroBatch, in_batches, in_order
from interp.tracing.passes.prefix_pass import meant_prompt
from interp.tracing.site import Selector

__all__ = [
    "VARIANTS",
    "HeadMaps",
    "HeadReference",
    "Reference",
    "Settings",
    "Triage",
    "TriageQueries",
    "VGRefine",
    "above_magnitude",
    "kept_tokens",
    "measure_heads",
]

Reference = Literal["layer-mean", "per-head", "none"]
TriageQueries = Literal["last", "after_image"]


class Triage(NamedTuple):
    """One sample's map, float64 (token,), and the image tokens that are kept, bool (token,)."""

    map: Float[np.ndarray, " token"]
    kept: Bool[np.ndarray, " token"]


@dataclass(frozen=True, eq=False)
class HeadMaps:
    """The map of each chosen head, for every sample.

    Attributes:
        maps: One float64 array (head, token) per sample, heads in the method's order. The mean of the first k rows is
            the map of the first k heads.
        cost: The cost of measuring the whole batch.
    """

    maps: tuple[Float[np.ndarray, "head _"], ...]
    cost: Cost


def kept_tokens(values: Float[np.ndarray, " token"], percentile: float) -> Bool[np.ndarray, " token"]:
    """True where a map is not strictly below its own percentile.

    The percentile is numpy's default, linear between the two nearest values: for N values in increasing order
    v₀ … v_{N−1} it is v at index percentile/100 · (N − 1). Values equal to it are kept. So percentile 0 keeps all
    tokens, 100 keeps those at the maximum, and a map with equal values everywhere is kept whole. A map with more
    zeros than the percentile would drop is kept whole too, because its percentile is 0.

    Raises:
        MapError: A map that is not (token,) with at least one token, or has a value that is not finite.
        MethodError: A percentile outside [0, 100].

    >>> kept_tokens(np.array([1.0, 2.0, 3.0, 4.0]), 50).tolist()
    [False, False, True, True]
    """
    percentile = check_number("percentile", percentile, low=0.0, high=100.0, error=MethodError)
    values = _finite(values)
    return values >= np.percentile(values, percentile)


def above_magnitude(values: Float[np.ndarray, " token"], threshold: float) -> Bool[np.ndarray, " token"]:
    """True where a map, scaled so that its minimum is 0 and its maximum 1, is not strictly below a threshold.

    The scaled map is (v − min v) / (max v − min v). The maximum is always kept; threshold 0 keeps all tokens, and so
    does every threshold on a map with equal values everywhere, which cannot be scaled.

    Raises:
        MapError: A map that is not (token,) with at least one token, or has a value that is not finite.
        MethodError: A threshold outside [0, 1].

    Source: the official code of arXiv 2603.14323 (`magnitude_threshold`).

    >>> above_magnitude(np.array([1.0, 2.0, 3.0, 5.0]), 0.5).tolist()
    [False, False, True, True]
    """
    threshold = check_number("magnitude_threshold", threshold, low=0.0, high=1.0, error=MethodError)
    values = _finite(values)
    low, high = values.min(), values.max()
    return np.ones(values.shape, bool) if low == high else (values - low) / (high - low) >= threshold


def _finite(values: Any) -> Float[np.ndarray, " token"]:
    """The values of a map, checked."""
    values = real_numbers(values, "a map is finite values over the image tokens, shape (token,)", MapError)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise MapError(
            f"a map is finite values over the image tokens, shape (token,); got shape {values.shape} with "
            f"{count(int((~np.isfinite(values)).sum()), 'value')} NaN or infinite."
        )
    return values


def measure_heads(
    mllm: Mllm,
    run: Samples,
    pairs: Sequence[tuple[int, int]],
    *,
    prompt: Prompt,
    generic: Prompt,
    reference: Reference,
    epsilon: float,
    queries: TriageQueries = "last",
) -> HeadMaps:
    """Each chosen head's attention to the image, divided by that of the generic prompt plus epsilon.

    Both attentions are of the prompt's last row, or means over all rows after the image. The generic prompt's attention
    is the mean over all heads of the layer ("layer-mean") or the head's own ("per-head"). With "none" nothing is
    divided, and the generic prompt does not run.
    """
    mllm.decoder.softmax(Site(heads=list(pairs)), "VGRefine")
    heads = Rows(Site(heads=list(pairs), queries=queries, keys="image"))
    question = mllm.trace(run, prompt=prompt, reads=[heads])
    weights = [one.rows.values.astype(np.float64).mean(axis=1) for one in question]
    if reference == "none":
        return HeadMaps(tuple(weights), question.cost)
    layers = sorted({layer for layer, _ in pairs})
    means = Rows(Site(layers=layers, queries=queries, keys="image"), reduce="head")
    other = mllm.trace(run, prompt=generic, reads=[means if reference == "layer-mean" else heads])
    rows = [one.rows.values.astype(np.float64).mean(axis=1) for one in other]
    if reference == "layer-mean":
        rows = [one[[layers.index(layer) for layer, _ in pairs]] for one in rows]
    quotients = (w / (g + epsilon) for w, g in zip(weights, rows, strict=True))
    return HeadMaps(tuple(quotients), question.cost + other.cost)


PUBLISHED = range(16, 17)
DEPTH = 28


@dataclass(frozen=True)
class Settings:
    """The settings in which the paper and its code differ, or that one of them leaves open.

    Attributes:
        percentile: The percentile of the map, in [0, 100], below which tokens are hidden; None where a magnitude
            decides.
        mode: How tokens are hidden: "renormalise" (−∞ before the softmax) or "zero" (after it).
        reference: The divisor of a head's attention, from the generic prompt: the mean over the heads of its layer
            ("layer-mean"), the head's own attention ("per-head"), or no divisor ("none").
        queries: The rows that tokens are hidden from.
        steps: The passes in which tokens are hidden.
    """

    percentile: float | None
    mode: Literal["renormalise", "zero"]
    reference: Reference
    queries: Selector | tuple[Selector, ...] = "after_image"
    steps: Steps = "prefill"


VARIANTS: Mapping[str, Settings] = {
    "code": Settings(percentile=80.0, mode="renormalise", reference="layer-mean"),
    "paper": Settings(percentile=50.0, mode="zero", reference="per-head", queries="question"),
}


@runtime_checkable
class HeadReference(Protocol):
    """Heads that a run determines, such as a `HeadSet`."""

    def resolve(self, out: str | os.PathLike[str], /) -> Sequence[tuple[int, int]]:
        """The (layer, head) pairs. A run that is needed for them is stored under `out`."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The reference as JSON values."""
        ...


@dataclass(frozen=True)
class VGRefine:
    """Visual grounding refinement: triage by the best grounded heads, then an attention knockout.

    1. Triage. For each chosen head (l, h), m_lh = A_lh(q) / (g_lh + ε): the last prompt row's attention to the image
       tokens under the question, divided by that under a generic prompt, g. The map is the mean over the chosen heads.
       Tokens strictly below its p-th percentile (numpy's, linear) are dropped; `kept_tokens` explains ties, zeros and
       flat maps.
    2. Knockout. At the masked layers, in all heads, the rows of `queries` do not see the dropped tokens.

    The paper and its code differ. `variant` sets the parameters that are None:

    | | "code" | "paper" |
    |---|---|---|
    | percentile | 80 | 50 |
    | mode | "renormalise": −∞ before the softmax | "zero": after it, no renormalisation |
    | reference g | "layer-mean": mean over the layer's heads | not stated; "per-head", as it ranks heads |
    | queries | "after_image": every row after the image | "question": the question's own tokens |
    | steps | "prefill" | not stated; the same |

    The paper names question tokens. It does not say whether the instruction after the question or the last prompt
    token, which predicts the answer, belong to them; here they do not. A question before the image never sees it.

    Two options of the code are in neither variant: `magnitude_threshold` in the place of the percentile, and
    `triage_queries="after_image"` (`Q=True`), with which A(q) and g are means over every row after the image.

    Where g is 0 and A is not, m is A/ε, a huge value that dominates the mean. Where both are 0, as outside a sliding
    window, m is 0.

    Args:
        heads: (layer, head) pairs, 0-based, such as `interp.study.published_heads(…).pairs`; or a reference to heads,
            such as the `HeadSet` of `HeadRanking(…).top(20)`: anything with `resolve(out, …)` and `to_dict`.
            `interp.Refinement` resolves a reference; with an unresolved one, `answer` raises an error. The order of
            heads does not matter. Heads cannot be transferred to another model: rank its own.
        layers: The masked layers. None: layer 16 of the 28 of HuatuoGPT-Vision-7B, and round(16/28 · n_layers) at
            another depth (`scaled_layers`). The source finds the layer by a layer sweep. It masks several layers of
            the 34B model, which the paper's Appendix P names; their numerals are lost in our copy.
        variant: The source of the parameters that are None, "code" or "paper".
        percentile: The percentile p, in [0, 100]; 0 drops nothing.
        mode: How dropped tokens are hidden, "renormalise" or "zero".
        reference: The divisor g, "layer-mean", "per-head" or "none".
        queries: The rows that dropped tokens are hidden from, as in `Site`. When `steps` goes beyond the prefill, None
            adds "answer".
        steps: The passes in which tokens are hidden, "prefill", "decode" or "all".
        generic: The generic prompt; the code's is GENERIC_PROMPT.
        epsilon: ε > 0; 1e-10 in the code.
        magnitude_threshold: A threshold in [0, 1] that replaces the percentile: tokens are dropped where the map,
            scaled to [0, 1] by its minimum and maximum, is strictly below it; see `above_magnitude`. None for the
            percentile.
        triage_queries: The rows that the triage reads, under both prompts: "last", or the mean over all rows
            "after_image".

    Raises:
        MethodError: A parameter out of its range, both a percentile and a magnitude, or heads that are not pairs.

    Source: arXiv 2603.14323 and its official code. The code's answers have exactly one generated token: use
    max_new_tokens=1 to reproduce them.
    """

    heads: Sequence[tuple[int, int]] | HeadReference
    layers: Sequence[int] | None = None
    variant: Literal["code", "paper"] = "code"
    percentile: float | None = None
    mode: Literal["renormalise", "zero"] | None = None
    reference: Reference | None = None
    queries: Selector | Sequence[Selector] | None = None
    steps: Steps | None = None
    generic: Prompt = GENERIC_PROMPT
    epsilon: float = 1e-10
    magnitude_threshold: float | None = None
    triage_queries: TriageQueries = "last"
    name: ClassVar[str] = "VGRefine"

    def __post_init__(self) -> None:
        if not isinstance(self.heads, HeadReference):
            object.__setattr__(self, "heads", _pairs(self.heads))
        object.__setattr__(self, "layers", layer_indices(self.layers, "layer 16 of 28, scaled to the depth"))
        check_one_of("variant", self.variant, VARIANTS, MethodError)
        check_number("epsilon", self.epsilon, low=0.0, open_low=True, error=MethodError)
        if not isinstance(self.generic, Prompt):
            raise MethodError(
                f"generic is an interp.Prompt such as interp.GENERIC_PROMPT; got {self.generic!r}."
            )
        if self.queries is not None:
            object.__setattr__(self, "queries", _rows(self.queries))
        found = self.settings
        self._check_threshold(found)
        check_one_of("triage_queries", self.triage_queries, get_args(TriageQueries), MethodError)
        check_one_of("mode", found.mode, ("renormalise", "zero"), MethodError)
        check_one_of("steps", found.steps, get_args(Steps), MethodError)
        check_one_of("reference", found.reference, get_args(Reference), MethodError)
        self._knockout((0,), "image")

    def _check_threshold(self, found: Settings) -> None:
        """Raises for a percentile or a magnitude out of range, and for both at once."""
        if self.magnitude_threshold is None:
            check_number("percentile", found.percentile, low=0.0, high=100.0, error=MethodError)
            return
        if self.percentile is not None:
            raise MethodError(
                f"tokens are dropped by a percentile or by a magnitude; got percentile={self.percentile!r} and "
                f"magnitude_threshold={self.magnitude_threshold!r}. Leave one of them out."
            )
        check_number("magnitude_threshold", self.magnitude_threshold, low=0.0, high=1.0, error=MethodError)

    @property
    def settings(self) -> Settings:
        """The given parameters, and the variant's settings for those that are None."""
        base = VARIANTS[self.variant]
        share = base.percentile if self.magnitude_threshold is None else None
        steps = base.steps if self.steps is None else self.steps
        prefill = isinstance(steps, str) and steps == "prefill"
        rows = base.queries if prefill else (cast(Selector, base.queries), "answer")
        return Settings(
            share if self.percentile is None else self.percentile,
            base.mode if self.mode is None else self.mode,
            base.reference if self.reference is None else self.reference,
            rows if self.queries is None else cast(Any, self.queries),
            steps,
        )

    def masked_layers(self, n_layers: int) -> tuple[int, ...]:
        """The masked layers in a model of that depth."""
        return chosen_layers(self.layers, PUBLISHED, depth=DEPTH, n_layers=n_layers)

    def head_maps(
        self,
        mllm: Mllm,
        samples: Samples,
        *,
        prompt: Prompt | None = None,
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> HeadMaps:
        """Each head's map for each sample: the triage before the mean over heads.

        Cost: one pass over the image and two over the text after it, when both prompts begin with the image; with
        reference="none" one over the text. Samples run in micro-batches of `batch_size`, with `progress`.

        Raises:
            SiteError: Heads the model does not have.
            MethodError: Heads that are a reference.
            InterpError: Samples or prompts that cannot be encoded.
        """
        check_call(mllm, prompt)
        pairs, prompt = self._named_heads(), meant_prompt(samples, prompt)

        def together(own: Mllm, some: MicroBatch) -> HeadMaps:
            """Measures the heads of a micro-batch."""
            run, paid = shared_prefix(own, some.samples, *self._prompts(prompt))
            found = measure_heads(
                own,
                run,
                pairs,
                prompt=prompt,
                generic=self.generic,
                reference=self.settings.reference,
                epsilon=self.epsilon,
                queries=self.triage_queries,
            )
            return HeadMaps(found.maps, paid + found.cost)

        parts = in_batches(mllm, samples, together, batch_size=batch_size, progress=progress)
        maps = in_order([(at, one.maps) for at, one in parts])
        return HeadMaps(tuple(maps), reduce(add, (one.cost for _, one in parts)))

    def triage(
        self,
        mllm: Mllm,
        samples: Samples,
        prompt: Prompt | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> list[Triage]:
        """Each sample's map and the kept tokens, without an answer, in micro-batches of `batch_size`.

        Raises:
            SiteError: Heads the model does not have.
            MethodError: Heads that are a reference.
            InterpError: Samples or prompts that cannot be encoded.
        """
        check_call(mllm, prompt)
        found = self.head_maps(mllm, samples, prompt=prompt, batch_size=batch_size, progress=progress)
        return [self._judged(one.mean(axis=0)) for one in found.maps]

    def answer(
        self,
        mllm: Mllm,
        samples: Samples,
        *,
        prompt: Prompt | None = None,
        max_new_tokens: int = 16,
        maps: Sequence[Float[np.ndarray, " _"]] | None = None,
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> list[Answer]:
        """The answers to these samples, in micro-batches: `details` hold "map" and "kept".

        Cost: that of `head_maps`, one more pass over the text, and the generation.

        Args:
            mllm: The model.
            samples: The samples, or a batch or prefix of them.
            prompt: The prompt around the question, in both steps; by default `PAPER_PROMPT`, or that of the batch or
                prefix.
            max_new_tokens: The most tokens to generate, one or more.
            maps: Maps to use instead of a new triage, one per sample; their cost is not counted again. For a table
                over percentiles one triage is enough; for one over the first k heads use the means of the first k rows
                of `head_maps`.
            batch_size: Samples in one pass at most.
            progress: Whether to show a bar where there are several micro-batches.

        Raises:
            SiteError: Heads or layers the model does not have.
            MethodError: `max_new_tokens` below 1, not one map per sample, or heads that are a reference.
            InterpError: Samples or prompts that cannot be encoded.
        """
        check_call(mllm, prompt)
        generate = n_tokens(max_new_tokens)
        prompt = meant_prompt(samples, prompt)
        self._named_heads()
        given = None if maps is None else self._given(maps)

        def together(own: Mllm, some: MicroBatch) -> list[Answer]:
            """Answers a micro-batch; the keys that its maps, given or measured, leave out are knocked out."""
            if given is not None and len(given) != some.n_all:
                raise MethodError(
                    f"maps= holds one map per sample; got {count(len(given), 'map')} for {count(some.n_all, 'sample')}."
                )
            prompts = self._prompts(prompt) if given is None else [prompt]
            run, cost = shared_prefix(own, some.samples, *prompts)
            if given is None:
                measured = self.head_maps(own, run, prompt=prompt)
                found = [self._judged(one.mean(axis=0)) for one in measured.maps]
                cost = cost + measured.cost
            else:
                found = [given[place] for place in some.at]
            edits = self.edits(own, [one.kept for one in found])
            trace = own.trace(run, prompt=prompt, edits=edits, generate=generate)
            return answers(trace, cost + trace.cost, [one._asdict() for one in found])

        return each_in_batches(mllm, samples, together, batch_size=batch_size, progress=progress)

    def edits(self, mllm: Mllm, kept: Sequence[Bool[np.ndarray, " _"]]) -> list[Knockout]:
        """The knockout of each sample's dropped tokens, for `mllm.trace`; empty when nothing is dropped."""
        if all(one.all() for one in kept):
            return []
        layers = editable_layers(mllm, self.masked_layers(mllm.n_layers), self.layers)
        mllm.decoder.softmax(Site(layers=layers), "VGRefine")
        return [self._knockout(layers, image_mask([~one for one in kept]))]

    def repeat(self, mllm: Mllm, answers: Sequence[Answer]) -> list[Knockout]:
        """The edits that gave these answers, for another trace of the same batch."""
        return self.edits(mllm, [np.asarray(one.details["kept"], bool) for one in answers])

    def to_dict(self) -> dict[str, Any]:
        """The method as JSON values, with all settings; heads that are a reference as its own `to_dict`.

        `magnitude_threshold` and `triage_queries` only where they are not the default.
        """
        settings = asdict(self.settings)
        settings["queries"] = Site(queries=self.settings.queries).to_dict()["queries"]
        return {
            "method": self.name,
            "variant": self.variant,
            "heads": self.heads.to_dict()
            if isinstance(self.heads, HeadReference)
            else [list(pair) for pair in self.heads],
            "layers": None if self.layers is None else list(self.layers),
            **settings,
            "generic": self.generic.to_dict(),
            "epsilon": self.epsilon,
            **({} if self.magnitude_threshold is None else {"magnitude_threshold": self.magnitude_threshold}),
            **({} if self.triage_queries == "last" else {"triage_queries": self.triage_queries}),
        }

    def _named_heads(self) -> Sequence[tuple[int, int]]:
        """The (layer, head) pairs; raises for a reference."""
        if isinstance(self.heads, HeadReference):
            raise MethodError(
                "VGRefine needs (layer, head) pairs, but its heads are a reference that has not been resolved. "
                'Write VGRefine(heads=heads.resolve("runs")), or run it in an interp.Refinement, which resolves it.'
            )
        return self.heads

    def _prompts(self, prompt: Prompt) -> list[Prompt]:
        """The prompts of the triage."""
        return [prompt] if self.settings.reference == "none" else [prompt, self.generic]

    def _given(self, maps: Any) -> list[Triage]:
        """The triage of each sample by given maps."""
        if not isinstance(maps, Sequence | np.ndarray):
            raise MethodError(f"maps= holds one map per sample, as a list; got {maps!r}.")
        return [self._judged(real_numbers(one, "a map is numbers (token,)", MapError)) for one in maps]

    def _judged(self, values: Float[np.ndarray, " token"]) -> Triage:
        if self.magnitude_threshold is not None:
            return Triage(values, above_magnitude(values, self.magnitude_threshold))
        return Triage(values, kept_tokens(values, cast(float, self.settings.percentile)))

    def _knockout(self, layers: tuple[int, ...], keys: Selector) -> Knockout:
        settings = self.settings
        try:
            site = Site(layers=layers, queries=settings.queries, keys=keys)
            return Knockout(site, mode=settings.mode, steps=settings.steps)
        except InterpError as error:
            raise MethodError(f"VGRefine's knockout: {error}") from error


def _rows(queries: Any) -> Selector | tuple[Selector, ...]:
    """One selector, or a tuple of several."""
    try:
        found, _ = Site(queries=queries).groups
    except SiteError as error:
        raise MethodError(f"VGRefine's rows: {error}") from error
    return found[0] if len(found) == 1 else found


def _pairs(heads: Any) -> tuple[tuple[int, int], ...]:
    """The (layer, head) pairs without repeats."""
    try:
        found = Site(heads=heads).pairs
    except SiteError:
        found = None
    if found is None:
        raise MethodError(
            "heads are (layer, head) pairs, 0-based, such as [(15, 4), (16, 5)]. Take them from a HeadSet "
            'with heads.resolve("runs") or from interp.study.published_heads("huatuogpt-vision-7b").pairs; '
            f"got {heads!r}."
        )
    return found
