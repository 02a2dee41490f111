"""Indicators made of attention weights: attention (absolute or relative), value-weighted attention, and rollout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

import numpy as np
import xarray as xr
from jaxtyping import Float

from interp.errors import MapError, PromptError, SiteError
from interp.indicators.indicator_checks import check_bool, layers_of, layers_to_json, site_layers
from interp.indicators.maps import ONE_MAP, BatchIndicator, Maps, Samples, label_map
from interp.inputs.prompt import Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.sample_list import as_samples
from interp.inputs.tokens import Word, word
from interp.tracing import Batch, Mllm, Prefix, Rows, SampleTrace, Site, Trace
from interp.tracing.cost import Cost, Meter
from interp.tracing.derived.ov_circuits import projected_norms
from interp.tracing.derived.rollout_rows import rollout
from interp.tracing.layers.labels import relabelled
from interp.tracing.passes.prefix_pass import given_as, meant_prompt
from interp.tracing.site import Layers
from interp.tracing.vision_tower import patch_attention, patch_tokens

__all__ = [
    "QUERY_NAMES",
    "Attention",
    "Queries",
    "Rollout",
    "ValueWeightedAttention",
    "check_queries",
    "divisor_queries",
    "mean_over_queries",
    "n_generated_tokens",
    "queries_to_json",
    "relative",
    "site_queries",
]


Chosen: TypeAlias = tuple[Sample, ...] | Batch | Prefix
FLOOR = float(np.finfo(np.float32).tiny)  # the least normal float32: quotients by it stay finite in float32


@dataclass(frozen=True)
class Attention(BatchIndicator):
    """Attention of the last prompt token to the image tokens, one map per layer (or head).

    Without `relative_to` the map is mean_h A(q), the head-mean attention weights of the prompt q (per head:
    A), in [0, 1]. With it, R = mean_h A(q) / mean_h A(generic), token by token (per head: the quotient of
    each head's own weights), in [0, ∞). The quotient removes attention that every question on the image draws.

    `queries` selects other rows of the prompt q. A(q) is then their mean over the selected positions:

    - "last": the last prompt token, which predicts the first answer token.
    - "question": the user's words, punctuation included.
    - `interp.word("nodule")`: every occurrence of that word, or run of words, in the question.
    - "label": the words of `sample.meta["label"]`, each sample's own, in its question.
    - "answer": the first generated token (greedy), in the step that takes it as input.
    - "after_image": every prompt row after the last image token, the template's included: the official code's
      `Q=True`.

    **The divisor is the generic prompt's last row** for every choice of queries but "after_image". A generic prompt has
    neither the question's words nor the object's, and with one divisor per image, maps of different queries differ only
    in their own rows. The quotient removes what an image token draws under any prompt (sinks). It does not remove what
    depends on a token's role in the sentence, except for "last", where both rows have the same role. So compare plain
    maps too before you say that one kind of text token looks at a box more than another. With "after_image" the divisor
    is, as in the official code, the mean over the rows after the image of the generic prompt.

    Where both weights are exactly 0, as for tokens outside a sliding window, R is 0 and the token adds no mass. Where
    only the generic weight is 0, or below 1.2e-38, it is replaced by 1.2e-38, so R is finite and very large. Each
    relative map counts the two cases in `attrs["n_zero_over_zero"]` and `attrs["n_floored"]`.

    **Composed maps.** Where image tokens are latents of a resampler (idefics2; `mllm.maps` is "composed"), a map is of
    patches: Σ_latent A(row, latent) · C(latent, patch), with C the mean over the resampler's layers and heads of what
    latents attend to. It is a heuristic product of two attention matrices, not an exact attribution. Its arrays are
    named so, and `attrs["map"]` is "composed". A relative map is the quotient of two composed ones.

    Cost: one forward pass. A relative map takes one pass over the image and two over the text after it where both
    prompts begin with the image, otherwise two whole passes.

    Args:
        relative_to: The generic prompt of the quotient, such as `GENERIC_PROMPT`; None for plain attention.
        per_head: A map for every head, (layer, head, token), instead of one per layer, (layer, token).
        layers: "all" or decoder layers, 0-based, in the order of the result. In a hybrid model only
            layers with a softmax; gated DeltaNet layers are refused.
        queries: "last", "question", "label", "answer", "after_image" or `interp.word(…)`.

    Raises:
        PromptError: `relative_to` is not a prompt.
        MapError: `per_head` is not a bool.
        SiteError: Layers that are not indices, or queries of another kind. When called: layers the model does not
            have; a prompt without a question, or a question without the word; a sample without a label; an empty
            answer; rows without any attention to the image, as when the question comes before it.

    Source: arXiv 2603.14323. Its code has no guard against zeros. `queries="after_image"` is what it computes with
    `Q=True`.
    """

    relative_to: Prompt | None = None
    per_head: bool = False
    layers: Layers = "all"
    queries: Queries = "last"

    def __post_init__(self) -> None:
        if self.relative_to is not None and not isinstance(self.relative_to, Prompt):
            raise PromptError(
                f"relative_to is an interp.Prompt or None; got {self.relative_to!r}. Use "
                "interp.GENERIC_PROMPT, or Prompt(template=…)."
            )
        check_bool("per_head", self.per_head)
        object.__setattr__(self, "layers", site_layers(self.layers))
        check_queries(self.queries)

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values, part of a study's hash; `queries` only where they are not "last"."""
        chosen = {} if self.queries == "last" else {"queries": queries_to_json(self.queries)}
        return {
            "indicator": "attention",
            "relative_to": None if self.relative_to is None else self.relative_to.to_dict(),
            "per_head": self.per_head,
            "layers": layers_to_json(self.layers),
            **chosen,
        }

    def _together(self, mllm: Mllm, samples: Samples, prompt: Prompt | None, target: Target) -> Maps:
        """The maps of samples that run together."""
        chosen = samples if isinstance(samples, Batch | Prefix) else as_samples(samples)
        prompt = meant_prompt(chosen, prompt)
        if self.relative_to is None:
            trace = self._trace(mllm, chosen, prompt, self.queries)
            maps = Maps(self._maps(trace, chosen), trace.tokens, trace.cost, trace.logits)
            return maps if mllm.maps != "composed" else _composed(mllm, chosen, prompt, maps)
        return self._against(mllm, chosen, prompt, self.relative_to)

    def _trace(self, mllm: Mllm, samples: Chosen, prompt: Prompt, queries: Queries) -> Trace:
        layers_of(mllm, self.layers, "Attention")
        site = Site(layers=self.layers, queries=site_queries(queries), keys="image")
        rows = Rows(site, reduce=None if self.per_head else "head")
        return mllm.trace(samples, prompt=prompt, reads=[rows], generate=n_generated_tokens(queries))

    def _maps(self, trace: Trace, samples: Chosen) -> tuple[xr.DataArray, ...]:
        """Each sample's mean over the rows of its queries."""
        listed = samples.samples if isinstance(samples, Batch | Prefix) else samples
        return tuple(
            mean_over_queries(one, sample, self.queries) for one, sample in zip(trace, listed, strict=True)
        )

    def _against(self, mllm: Mllm, samples: Chosen, prompt: Prompt, generic: Prompt) -> Maps:
        """The maps of `prompt` divided by those of the last row of `generic`, or of its rows after the image."""
        shared = None
        if _share_image(prompt, generic) and not isinstance(samples, Prefix):
            shared = mllm.prefix(samples, prompt=prompt)
        run = samples if shared is None else shared
        question = self._trace(mllm, run, prompt, self.queries)
        reference = self._trace(mllm, run, generic, divisor_queries(self.queries))
        cost = question.cost + reference.cost
        cost = cost if shared is None else shared.cost + cost
        maps = Maps(self._maps(question, samples), question.tokens, cost, question.logits)
        below = [_row_values(one.rows) for one in reference]
        if mllm.maps == "composed":
            pairs = zip(reference, below, strict=True)
            rows = tuple(relabelled(one.rows, row, without="query") for one, row in pairs)
            maps = _composed(mllm, samples, prompt, maps)
            composed = _composed(mllm, samples, generic, Maps(rows, reference.tokens, Cost()))
            below = [one.values for one in composed]
        quotients = tuple(_relative(q, g) for q, g in zip(maps, below, strict=True))
        return replace(maps, arrays=quotients)


def _composed(mllm: Mllm, samples: Chosen, prompt: Prompt, maps: Maps) -> Maps:
    """Maps over patches, from maps over the latents of a resampler; see `interp.tracing.vision_tower`."""
    with Meter(mllm.device) as meter:
        given = given_as(mllm, samples, prompt)
        batch = given.batch if isinstance(given, Prefix) else given
        factors, tokens = patch_attention(mllm, batch), patch_tokens(mllm, batch)
    arrays = []
    for own, factor, places in zip(maps, factors, tokens, strict=True):
        layers = own["layer"].values.tolist()
        attrs = {**own.attrs, "map": "composed", "factors": "rows over latents × latents over patches"}
        arrays.append(label_map(own.values @ factor, places, "composed attention", layers, attrs))
    return Maps(tuple(arrays), tuple(tokens), maps.cost + meter.cost, maps.logits)


def relative(
    question: Float[np.ndarray, "*shape"], generic: Float[np.ndarray, "*shape"]
) -> tuple[Float[np.ndarray, "*shape"], int, int]:
    """The quotient question / generic of non-negative weights, how often it was 0/0, and how many divisors were raised.

    0/0 is 0; a divisor below the least normal float32, 1.2e-38, is raised to it. Finite in float32.
    """
    nothing = (question == 0) & (generic == 0)
    floored = (generic < FLOOR) & ~nothing
    quotient = question.astype(np.float64) / np.maximum(generic.astype(np.float64), FLOOR)
    return quotient.astype(np.float32), int(nothing.sum()), int(floored.sum())


def _relative(question: xr.DataArray, generic: np.ndarray) -> xr.DataArray:
    if question.shape != generic.shape:
        raise MapError(
            f"both prompts must hold the same image tokens; got {question.sizes['token']} and "
            f"{generic.shape[-1]}. Does a prompt's text hold an image placeholder?"
        )
    values, n_nothing, n_floored = relative(question.values, generic)
    quotient = relabelled(question, values)
    quotient.name = f"relative {question.name}"
    quotient.attrs = {**question.attrs, "n_zero_over_zero": n_nothing, "n_floored": n_floored}
    return quotient


def _share_image(first: Prompt, second: Prompt) -> bool:
    """Whether both prompts begin with the same text and the image, so that one pass over the image serves both."""
    return first.image_first and second.image_first and first.system == second.system


QUERY_NAMES = ("last", "question", "label", "answer", "after_image")
Queries: TypeAlias = str | Word


def check_queries(queries: Any) -> None:
    """Raises `SiteError` for anything but one of `QUERY_NAMES` or a word."""
    if not isinstance(queries, Word) and not (isinstance(queries, str) and queries in QUERY_NAMES):
        names = ", ".join(map(repr, QUERY_NAMES))
        raise SiteError(f"queries is one of {names}, or interp.word(…); got {queries!r}.")


def queries_to_json(queries: Queries) -> Any:
    """The queries as JSON."""
    return {"word": queries.text} if isinstance(queries, Word) else queries


def site_queries(queries: Queries) -> Queries:
    """The queries to read: for a label all rows of the question, for an answer the last row of each step."""
    return (
        {"label": "question", "answer": "last"}.get(queries, queries) if isinstance(queries, str) else queries
    )


def divisor_queries(queries: Queries) -> Queries:
    """The rows of the generic prompt that a quotient divides by: the last, or for "after_image" all after the image."""
    return queries if queries == "after_image" else "last"


def n_generated_tokens(queries: Queries) -> int:
    """How many tokens to generate: the first one's row exists only when the second is predicted."""
    return 2 if queries == "answer" else 0


def mean_over_queries(trace: SampleTrace, sample: Sample, queries: Queries) -> xr.DataArray:
    """The mean of the sample's rows over its queries: ([layer, [head,]] token).

    Raises:
        SiteError: No label, a label that is not in the question, an empty answer, or rows without attention to the
            image.
    """
    rows = trace.rows
    if queries == "answer":
        if rows.sizes["step"] < 2:
            raise SiteError(
                f"the model's answer to sample {sample.id} is empty: its first token ends it and attends to "
                "nothing. queries='answer' needs an answer; use queries='last'."
            )
        if trace.reasoning is not None:
            raise SiteError(
                f"the model begins a thought before its answer to sample {sample.id}, so its first token is not "
                "part of the answer. Use interp.Prompt(thinking=False)."
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
    return _row(rows)


def _row(rows: xr.DataArray) -> xr.DataArray:
    """The only row, or the mean over several."""
    return relabelled(rows, _row_values(rows), without="query")


def _row_values(rows: xr.DataArray) -> np.ndarray:
    """The values of the only row, or of the mean over several, tokens last."""
    axis = rows.dims.index("query")
    if rows.sizes["query"] == 1:
        return rows.values.take(0, axis=axis)
    return rows.values.mean(axis=axis, dtype=np.float64).astype(np.float32)


def _label(sample: Sample) -> str:
    found = sample.meta.get("label")
    if not isinstance(found, str) or not found.strip():
        raise SiteError(
            f"queries='label' averages over the words of sample.meta['label'] in the question; sample {sample.id} "
            f"has the label {found!r}. Give the sample a label, or use queries='question'."
        )
    return found


@dataclass(frozen=True)
class ValueWeightedAttention(BatchIndicator):
    """mean_h ‖A_j V_j W_O^h‖₂ of the last prompt row: how much each image token sends it, in [0, ∞).

    A_j is the head's attention weight to token j, V_j the value there (shared between the heads of a key-value head),
    and W_O^h the head's part of the output matrix, without bias. Attention sinks drop out: they have large weights
    and values of small norm. Units are those of the residual stream, so compare layers only within one model. Where a
    family normalises the output of o_proj (Gemma 3), the norm is taken before that.

    Norms are computed head by head and then averaged, so opposite contributions of heads do not cancel. The
    alternative, ‖Σ_h A_j^h V_j^h W_O^h‖₂, is the norm of the sum that arrives; it is not offered. A map shows only
    the direct path from the image to the last row. A norm has no direction, so it does not say whether a token
    supports the answer.

    Cost: one forward pass; no S×S matrix.

    Args:
        per_head: The norm of every head, (layer, head, token), instead of their mean, (layer, token).
        layers: "all" or decoder layers, 0-based, in the order of the result. In a hybrid model only
            layers with a softmax; gated DeltaNet layers are refused.

    Raises:
        MapError: `per_head` is not a bool.
        SiteError: Layers that are not indices; when called, layers the model does not have.
        ModelError: When called, attention without an `o_proj`, or one that changes the heads' outputs before `o_proj`.

    Source: Kobayashi et al. (arXiv 2004.10102).
    """

    per_head: bool = False
    layers: Layers = "all"

    def __post_init__(self) -> None:
        check_bool("per_head", self.per_head)
        object.__setattr__(self, "layers", site_layers(self.layers))

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values, part of a study's hash."""
        return {
            "indicator": "value-weighted attention",
            "per_head": self.per_head,
            "layers": layers_to_json(self.layers),
        }

    def _together(self, mllm: Mllm, samples: Samples, prompt: Prompt | None, target: Target) -> Maps:
        """The maps of samples that run together."""
        layers = layers_of(mllm, self.layers, "ValueWeightedAttention")
        with Meter(mllm.device) as meter:
            given = given_as(mllm, samples, prompt)
            norms, after = projected_norms(mllm, given, layers, meter)
            tokens = (given.batch if isinstance(given, Prefix) else given).tokens
            logits = xr.DataArray(after.cpu().numpy(), dims=["sample", "token_id"], name="logits")
        shown = norms if self.per_head else [one.mean(axis=1) for one in norms]
        name = "value-weighted attention"
        maps = [label_map(one, own, name, layers) for one, own in zip(shown, tokens, strict=True)]
        return Maps(tuple(maps), tokens, meter.cost, logits)


@dataclass(frozen=True)
class Rollout(BatchIndicator):
    """The last row of ∏_ℓ ½(I + mean_h A_ℓ) at the image tokens, in [0, 1]: over all positions it sums to 1.

    Unlike maps of one row it includes paths through the question's rows and through other image tokens. But it treats
    heads as equal, values as alike, and the residual stream as half of each layer, and it does not depend on the
    target. Early tokens and sinks get most of it, and after many layers the map says little about places in the image.

    Cost: one forward pass, and every layer's attention a second time, in chunks of rows. No S×S matrix is kept; the
    queries and keys of all layers are, until the product has used them.

    Raises:
        MapError: When called, a hybrid model, some of whose layers have no softmax.

    Source: Abnar and Zuidema (arXiv 2005.00928).
    """

    dims: ClassVar[tuple[str, ...]] = ONE_MAP

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values, part of a study's hash."""
        return {"indicator": "rollout"}

    def _together(self, mllm: Mllm, samples: Samples, prompt: Prompt | None, target: Target) -> Maps:
        """The maps of samples that run together."""
        linear = list(mllm.linear_heads)
        if linear:
            raise MapError(
                f"rollout multiplies the attention of all layers and needs rows that sum to 1; layers {linear} of this "
                "model are linear (gated DeltaNet, signed rows) or convolutions (no rows). Use Attention() or "
                "TokenKnockout() for this model."
            )
        with Meter(mllm.device) as meter:
            given = given_as(mllm, samples, prompt)
            batch = given.batch if isinstance(given, Prefix) else given
            shares, after = rollout(mllm, batch, meter)
            table = shares.cpu().numpy()
            maps = tuple(
                label_map(table[i, tokens.image + int(batch.pad[i])], tokens, "attention rollout")
                for i, tokens in enumerate(batch.tokens)
            )
            logits = xr.DataArray(after.cpu().numpy(), dims=["sample", "token_id"], name="logits")
        return Maps(maps, batch.tokens, meter.cost, logits)
