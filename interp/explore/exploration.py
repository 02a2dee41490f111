"""What the explorer computes: rows before and after an edit that the user chooses, and the code for it."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from interp.errors import EditError, ModelError
from interp.indicators import Attention
from interp.indicators.indicator_checks import layers_of
from interp.inputs.argument_checks import check_one_of
from interp.inputs.boxes import Box
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing import Batch, Edit, Knockout, Mllm, Rows, ScaleScores, ScaleWeights, Site, image_mask
from interp.tracing.vision_tower import patch_attention, patch_tokens

__all__ = ["KINDS", "ROWS", "Change", "Exploration", "Reading", "first_tokens", "reproduction"]


KEPT = 16
"""The number of readings that are kept, the latest ones."""
N_LIKELY = 5


@dataclass(frozen=True, eq=False)
class Reading:
    """One prompt, run once.

    Attributes:
        tokens: Where the columns of `rows` lie in the image; patches, for a model with composed maps.
        rows: (step, layer, head, token), the attention to the image of the row that predicts generated token `step`,
            float32, each value in [0, 1]; layers without a softmax are left out.
        answer: The text of the answer, without a thought before it; None where the thought did not end.
        words: The generated tokens as text, one for each step.
        likely: The likeliest first tokens with their probabilities, the likeliest first.
        log_probability: log p of the answer's tokens after this prompt under the same edits, nats; NaN without an
            answer.
    """

    tokens: TokenMap
    rows: xr.DataArray
    answer: str | None
    words: tuple[str, ...]
    likely: tuple[tuple[str, float], ...]
    log_probability: float

    @property
    def layers(self) -> list[int]:
        """The layers whose rows were read."""
        return [int(layer) for layer in self.rows["layer"].values]

    def map(self, step: int, layer: int, head: int | None = None) -> Float[np.ndarray, " token"]:
        """The attention weights of one row; their mean over the layer's heads where `head` is None."""
        rows = self.rows.isel(step=step).sel(layer=layer)
        return np.asarray(rows.mean("head").values if head is None else rows.sel(head=head).values, float)

    def head_shares(self, step: int, tokens: tuple[int, ...] = ()) -> Float[np.ndarray, "layer head"]:
        """The share of each head's row on these image tokens, or on all where none are named; in [0, 1]."""
        rows = np.asarray(self.rows.isel(step=step).values, float)
        return rows.sum(axis=-1) if not tokens else rows[..., list(tokens)].sum(axis=-1)


@dataclass(eq=False)
class Exploration:
    """A model and its latest readings. Calls from several threads wait for one another.

    Args:
        mllm: A model with maps.
        prompt: The prompt.
        generate: The most tokens to generate.

    Raises:
        ModelError: Not a model, or one without a map of its image tokens.
    """

    mllm: Mllm
    prompt: Prompt = PAPER_PROMPT
    generate: int = 8
    _kept: OrderedDict[Hashable, Any] = field(default_factory=OrderedDict, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.mllm, Mllm):
            raise ModelError(
                f"the explorer needs a model with a map of its image tokens, as interp.load(…) gives it; got "
                f"{type(self.mllm).__name__}. `interp models` lists the families that have one."
            )

    @property
    def layers(self) -> list[int]:
        """The layers whose rows are read: those with a softmax over the image."""
        return layers_of(self.mllm, "cross" if self.mllm.maps == "cross" else "all", "the explorer")

    def read(self, sample: Sample, change: Change | None = None) -> Reading:
        """The reading of a sample, under a change of attention if one is given.

        Raises:
            SampleError, PromptError: A sample that cannot be used.
            EditError, SiteError: A change that cannot be made to this model.
        """
        return self._once((sample.fingerprint, change), lambda: self._read(sample, change))

    def log_probability(self, sample: Sample, answer: str | None, change: Change | None = None) -> float:
        """log p of an answer's tokens after the prompt, nats; NaN without an answer."""
        if not answer:
            return math.nan

        def scored() -> float:
            batch = self.mllm.encode([sample], prompt=self.prompt)
            edits = self._edits(batch, change)
            return float(self.mllm.score(batch, Target(answer), edits=edits, progress=False).values[0])

        return self._once((sample.fingerprint, change, answer), scored)

    def relative(self, sample: Sample, *, per_head: bool) -> xr.DataArray:
        """The first token's rows, or their mean over heads, divided by those of the generic prompt.

        (layer, [head,] token), each value 0 or more; see `interp.indicators.Attention`.
        """

        def divided() -> xr.DataArray:
            indicator = Attention(relative_to=GENERIC_PROMPT, per_head=per_head)
            return indicator(self.mllm, [sample], prompt=self.prompt)[0]

        return self._once((sample.fingerprint, "relative", per_head), divided)

    def _edits(self, batch: Batch, change: Change | None) -> list[Edit]:
        if change is None:
            return []
        if change.tokens and self.mllm.maps == "composed":
            raise EditError(
                "this model's image tokens are latents that each look at the whole image, so patches of its maps "
                "cannot be edited one by one. Clear the selection: the edit then takes all image tokens."
            )
        return [change.edit(batch.tokens[0].n)]

    def _read(self, sample: Sample, change: Change | None) -> Reading:
        batch = self.mllm.encode([sample], prompt=self.prompt)
        edits = self._edits(batch, change)
        reads = [Rows(Site(layers=self.layers, queries="last", keys="image"))]
        trace = self.mllm.trace(batch, reads=reads, edits=edits, generate=self.generate)
        tokens, rows = trace.tokens[0], trace[0].rows.isel(query=0, drop=True)
        if self.mllm.maps == "composed":
            tokens = patch_tokens(self.mllm, batch)[0]
            rows = _composed(rows, patch_attention(self.mllm, batch)[0])
        tokenizer = getattr(self.mllm.processor, "tokenizer", self.mllm.processor)
        answer = trace.answers[0]
        value = math.nan
        if answer:
            value = float(self.mllm.score(batch, Target(answer), edits=edits, progress=False).values[0])
        return Reading(
            tokens, rows, answer, tuple(tokenizer.decode([i]) for i in trace[0].ids),
            first_tokens(trace.logits.values[0], tokenizer), value,
        )  # fmt: skip

    def _once(self, key: Hashable, make: Any) -> Any:
        """The value that is kept for this key, or a new one from `make`; one call at a time."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make()
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]


def first_tokens(logits: Float[np.ndarray, " token_id"], tokenizer: Any) -> tuple[tuple[str, float], ...]:
    """The likeliest tokens after the prompt, as text with their probabilities, the likeliest first."""
    wide = np.asarray(logits, np.float64)
    shares = np.exp(wide - wide.max())
    shares /= shares.sum()
    best: Int[np.ndarray, " token"] = np.argsort(-shares, kind="stable")[:N_LIKELY]
    return tuple((tokenizer.decode([int(i)]), float(shares[i])) for i in best)


def _composed(rows: xr.DataArray, factor: Float[np.ndarray, "latent patch"]) -> xr.DataArray:
    """Rows over latents times the latents' attention over patches."""
    values = np.asarray(rows.values, np.float64) @ factor
    kept = {name: rows[name].values for name in ("step", "layer", "head") if name in rows.coords}
    return xr.DataArray(values, {**kept, "token": np.arange(factor.shape[1])}, dims=rows.dims)


KINDS = ("knockout", "zero", "weights", "scores")
ROWS = ("last", "question", "after_image")


@dataclass(frozen=True)
class Change:
    """An edit of the rows' attention to chosen image tokens, in chosen layers or heads.

    Args:
        kind: "knockout" hides the tokens, and the other keys take their share; "zero" sets their weights to 0;
            "weights" multiplies their weights by `factor`, "scores" their scores before the softmax.
        tokens: The image tokens, counted from 0; an empty tuple for all of them.
        layers: The decoder layers, 0-based; an empty tuple for every layer with a softmax.
        heads: (layer, head) pairs; if there are any, `layers` is ignored.
        rows: "last" is the last row of the prompt and the row of each generated token; "question" and "after_image"
            are rows of the prompt.
        factor: The factor of "weights" and "scores", 0 or more.

    Raises:
        EditError: An unknown kind or unknown rows.
    """

    kind: str = "knockout"
    tokens: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    heads: tuple[tuple[int, int], ...] = ()
    rows: str = "last"
    factor: float = 2.0

    def __post_init__(self) -> None:
        check_one_of("kind", self.kind, KINDS, EditError)
        check_one_of("rows", self.rows, ROWS, EditError)

    def edit(self, n_tokens: int) -> Edit:
        """The edit, for a prompt with `n_tokens` image tokens.

        Raises:
            EditError: A token that does not exist, or a factor that is not a number of 0 or more.
            SiteError: Layers or heads that are not numbers of 0 or more.
        """
        if beyond := [token for token in self.tokens if not 0 <= token < n_tokens]:
            raise EditError(f"the image has {n_tokens} tokens, counted from 0; got token {beyond[0]}.")
        keys = "image" if not self.tokens else image_mask(np.isin(np.arange(n_tokens), self.tokens))
        layers = self.layers or "all"
        site = (
            Site(heads=self.heads, queries=self.rows, keys=keys)
            if self.heads
            else Site(layers=layers, queries=self.rows, keys=keys)
        )
        steps = "all" if self.rows == "last" else "prefill"
        if self.kind == "weights":
            return ScaleWeights(site, self.factor, steps=steps)
        if self.kind == "scores":
            return ScaleScores(site, self.factor, steps=steps)
        return Knockout(site, mode="renormalise" if self.kind == "knockout" else "zero", steps=steps)

    def code(self, n_tokens: int) -> list[str]:
        """The lines of Python that assign the edit to `edit`."""
        lines = []
        keys = '"image"'
        if self.tokens:
            lines.append(f"mask = np.isin(np.arange({n_tokens}), {_listed(self.tokens)})")
            keys = "interp.image_mask(mask)"
        where = (
            f"heads={_listed(self.heads)}"
            if self.heads
            else f"layers={_listed(self.layers) if self.layers else repr('all')}"
        )
        lines.append(f"site = interp.Site({where}, queries={self.rows!r}, keys={keys})")
        steps = "all" if self.rows == "last" else "prefill"
        name, option = {
            "knockout": ("Knockout", 'mode="renormalise"'),
            "zero": ("Knockout", 'mode="zero"'),
            "weights": ("ScaleWeights", f"factor={self.factor!r}"),
            "scores": ("ScaleScores", f"factor={self.factor!r}"),
        }[self.kind]
        return [*lines, f'edit = interp.{name}(site, {option}, steps="{steps}")']


def _listed(values: Sequence[object]) -> str:
    return repr(list(values))


def _edges(box: Box) -> tuple[float, ...]:
    """A box as a sample takes it: its edges, and its image where that is not the first."""
    edges = box.as_tuple()
    return (*edges, box.image) if box.image else edges


def reproduction(
    model: Mapping[str, Any],
    sample: Sample,
    images: Sequence[str],
    prompt: Prompt,
    generate: int,
    *,
    step: int,
    layer: int,
    head: int | None,
    change: Change | None = None,
    n_tokens: int = 0,
) -> str:
    """A script that loads the model, assigns the row that is shown to `row`, and makes the edit if there is one.

    The script assigns the answers to `answers`, and those under the edit to `edited`. It needs the image files under
    the given names.

    Args:
        model: The arguments of `interp.load`, "model" among them.
        sample: The sample: its question, images and boxes.
        images: The names of the image files.
        prompt: The prompt.
        generate: The most tokens to generate.
        step: The generated token whose row is shown, 0-based.
        layer: The layer that is shown.
        head: The head that is shown; None for the mean of all heads.
        change: The edit; None without one.
        n_tokens: The number of image tokens, which an edit of some of them needs.
    """
    opened = ", ".join([repr(model["model"]), *(f"{k}={v!r}" for k, v in model.items() if k != "model")])
    shown = f"image={images[0]!r}" if len(images) == 1 else f"images={list(images)!r}"
    boxes = f", boxes={[_edges(box) for box in sample.boxes]!r}" if sample.boxes else ""
    edited = change is not None
    lines = [
        *(["import numpy as np", ""] if edited and change.tokens else []),
        "import interp",
        "",
        f"mllm = interp.load({opened})",
        f"sample = interp.Sample({shown}, question={sample.question!r}{boxes})",
        f"prompt = interp.{prompt!r}",
        'reads = [interp.Rows(interp.Site(queries="last", keys="image"))]',
        f"trace = mllm.trace([sample], prompt=prompt, reads=reads, generate={generate})",
        f"row = trace[0].rows.isel(step={step}, query=0).sel(layer={layer})  # (head, token)",
        'row = row.mean("head")' if head is None else f"row = row.sel(head={head})",
        "answers = trace.answers",
    ]
    if change is not None:
        lines += [
            "",
            *change.code(n_tokens),
            f"edited = mllm.answers([sample], prompt=prompt, edits=[edit], generate={generate})",
        ]
    return "\n".join(lines) + "\n"
