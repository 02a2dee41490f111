"""`look`: where a model looks for one image and one question, with the answer, layers, heads and checks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from jaxtyping import Float

from interp.data.scenes import TEMPLATES
from interp.errors import InterpError, MapError, PromptError, RunError, SampleError, ServerError
from interp.indicators import Attention, AttentionGradient, Maps, VisionAttention
from interp.indicators.indicator_checks import check_call
from interp.indicators.names import labelled
from interp.inputs.argument_checks import check_one_of, check_whole
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Prompt, Target
from interp.inputs.sample import BoxLike, ImageLike, Sample
from interp.inputs.tokens import TokenMap
from interp.run import ProcessCache
from interp.study.first_look.shown_map import AUTO, Layer, ShownMap, shown_map
from interp.study.first_look.trust import Trust, answer_check, full_checks, quick_checks, words_check
from interp.study.model_spec import is_organism, short_label
from interp.study.study import Indicator
from interp.study.task import suitable_threads
from interp.tracing import Mllm, Prefixes

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Indicators", "Look", "covered", "look"]

Indicators: TypeAlias = str | Indicator | Sequence[str | Indicator] | Mapping[str, Indicator] | None
Images: TypeAlias = ImageLike | Sequence[ImageLike] | Sample
SHAPE = "circle"
"""The object in the example questions of a note."""
N_LIKELY = 5
SAME = "The same layer as that of the first indicator's map."
THOUGHT = (
    "The model reasons before it answers, so the first tokens' probabilities are not those of the answer."
)


@dataclass(frozen=True, eq=False, repr=False)
class Look:
    """Where a model looks for one answer. A notebook displays it; `save` writes a page, `figure` is a Plotly figure.

    Attributes:
        sample: The image, the question and the boxes.
        model: The model's name.
        organism: Whether the model is a bundled organism, whose numbers say nothing about real models.
        prompt: How the question was put to the model.
        answer: The model's answer, up to `generate` tokens; None where its reasoning used all of them.
        probability: The joint probability of the answer's tokens as they were generated, without the end token, in [0,
            1]; NaN for an answer after reasoning.
        likely: The likeliest first tokens with their probabilities in [0, 1], the likeliest first.
        maps: Indicator → its maps of this sample, at every layer that it gives.
        shown: Indicator → its map that is shown, with the rule that chose its layer.
        heads: (head, token), the first indicator's map of each head at the shown layer; None where it gives none.
        trust: The checks of the first indicator's map.
        missing: What could not be computed → the reason.
    """

    sample: Sample
    model: str
    organism: bool
    prompt: Prompt
    answer: str | None
    probability: float
    likely: tuple[tuple[str, float], ...]
    maps: Mapping[str, Maps]
    shown: Mapping[str, ShownMap]
    heads: xr.DataArray | None
    trust: Trust
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def first(self) -> ShownMap:
        """The first indicator's map, which is shown large and checked."""
        return next(iter(self.shown.values()))

    @property
    def said(self) -> str:
        """The answer as it is shown: "(nothing)" for an answer without visible text, or for unfinished reasoning."""
        return (self.answer or "").strip() or "(nothing)"

    @property
    def note(self) -> str:
        """A note on the questions that the bundled organism knows, where its answer has no visible text; else empty."""
        if not self.organism or (self.answer or "").strip():
            return ""
        asked = ", ".join(f"“{one.format(SHAPE)}”" for one in TEMPLATES.values())
        return f"The bundled organism knows a few kinds of questions only, such as {asked}"

    @property
    def map(self) -> xr.DataArray:
        """The first indicator's map (token) as shown; larger = more important."""
        named = {"token": np.arange(len(self.first.values))}
        return xr.DataArray(self.first.values, named, dims=["token"], name=self.first.label)

    @property
    def figure(self) -> go.Figure:
        """The image with its boxes, and each indicator's map over it, as a Plotly figure."""
        from interp.report.gallery import show_maps

        tokens = self.first.tokens
        same = {name: one for name, one in self.shown.items() if one.tokens.n == tokens.n}
        stacked = np.stack([one.values for one in same.values()])
        array = xr.DataArray(
            stacked, {"indicator": [one.name for one in same.values()]}, dims=["indicator", "token"]
        )
        return show_maps(self.sample, array, tokens, columns=len(same) + 1, title=self.sample.question)

    def save(self, path: str | os.PathLike[str] = "look.html") -> Path:
        """Write the page, one HTML file that loads nothing from elsewhere, and return its path.

        Raises:
            RunError: The file cannot be written.
        """
        return _page().write_page(self, path)

    def _repr_html_(self) -> str:
        return str(_page().notebook_view(self))

    def __repr__(self) -> str:
        said = "no answer" if self.answer is None else f"{self.said!r} (probability {self.probability:.2f})"
        return f"Look({self.sample.question!r} → {said}; {self.first.name}; {self.trust.summary})"


def look(
    mllm: Mllm,
    image: Images,
    question: str = "",
    *,
    boxes: Iterable[BoxLike] | None = None,
    box_format: str | None = None,
    indicator: Indicators = None,
    layer: Layer = AUTO,
    prompt: Prompt | None = None,
    target: Target = Target("greedy"),  # noqa: B008 - frozen
    generate: int = 16,
    trust: Literal["quick", "full"] = "quick",
    seed: int = 0,
) -> Look:
    """Where the model looks when it answers one question on one image: maps, heads, the answer, and checks.

    It costs about six forward passes over one image, most of which share the image's prefix.

    Args:
        mllm: The model.
        image: A path, PIL image or array; a list of several; or a whole `Sample` with its question and boxes.
        question: The question.
        boxes: The boxes that the answer should depend on, in pixels of the original image: half-open (x0, y0, x1, y1).
            They are drawn and choose the layer.
        box_format: How the boxes are written, as for `interp.Sample`.
        indicator: One of `interp.indicators`, its name such as "token knockout" (see `interp.indicators.NAMED`), a list
            of those, or a dict from label to indicator. The first is shown large and checked; the others are shown
            beside it. By default relative attention, attention, and attention × gradient.
        layer: A decoder layer, 0-based, or "auto": the sum for an indicator whose layers add up; with boxes the layer
            with the highest attention ratio; else the layer with the lowest entropy. The result names the rule. The
            first indicator's maps choose the layer, and the others show the same layer where they have it.
        prompt: How the question is put; by default `PAPER_PROMPT`.
        target: The answer that the indicators explain.
        generate: The maximum number of tokens of the answer.
        trust: "quick", or "full", which adds deletion against random orders and shuffled weights. These take a few
            hundred short passes and, for a short time, the memory of a second model.
        seed: The seed of the random orders and of the shuffled weights.

    Raises:
        SampleError, BoxError, ImageError: Images, boxes or the question cannot be used.
        MapError: An indicator is unknown or has per_head=True, or it does not give the layer.
        PromptError: `generate` is below 1.
        ModelError, SiteError: The model gives no maps, or lacks the layer.
    """
    check_call(mllm, prompt, target)
    check_whole("generate, the number of tokens,", generate, 1, PromptError)
    check_whole("seed", seed, 0)
    if layer != AUTO if isinstance(layer, str) else isinstance(layer, bool) or not isinstance(layer, int):
        raise MapError(f'layer is "auto" or a decoder layer, 0, 1, …; got {layer!r:.100}.')
    check_one_of("trust", trust, ("quick", "full"))
    sample, chosen = _sample(image, question, boxes, box_format), _indicators(indicator)
    with suitable_threads(mllm):
        own = mllm if mllm.server is not None else mllm.sharing(Prefixes(ProcessCache().once, "look"))
        made = _Making(own, sample, PAPER_PROMPT if prompt is None else prompt, target, layer)
        return made.look(chosen, generate, mllm if trust == "full" else None, seed)


@dataclass(frozen=True, eq=False)
class _Making:
    """Makes a `Look`; the fields are arguments of `look`."""

    mllm: Mllm
    sample: Sample
    prompt: Prompt
    target: Target
    layer: Layer
    missing: dict[str, str] = field(default_factory=dict)

    def look(self, indicators: Mapping[str, Any], generate: int, checked: Mllm | None, seed: int) -> Look:
        """The look; `checked` is the model for the slow checks, None to leave them out."""
        answer, probability, n_tokens, likely = self._answer(generate)
        maps, shown = self._maps(indicators)
        name, first = next(iter(shown.items()))
        inside = covered(self.sample, first.tokens)
        others = [one for label, one in shown.items() if label != name]
        tokenizer = getattr(self.mllm.processor, "tokenizer", self.mllm.processor)
        checks = [*words_check(tokenizer, self.sample.question), answer_check(probability, n_tokens)]
        checks += quick_checks(self.mllm, self.sample, first, others, prompt=self.prompt, inside=inside)
        if checked is not None:

            def again(model: Any, fixed: Target) -> Float[np.ndarray, " token"]:
                other = indicators[name](model, [self.sample], prompt=self.prompt, target=fixed)
                at = AUTO if first.layer is None else first.layer
                return shown_map(name, indicators[name], other[0], other.tokens[0], at, None).values

            options: dict[str, Any] = {"prompt": self.prompt, "target": self.target, "seed": seed}
            checks += full_checks(checked, self.sample, first, again, **options)
        return Look(
            sample=self.sample,
            model=short_label(self.mllm),
            organism=is_organism(self.mllm),
            prompt=self.prompt,
            answer=answer,
            probability=probability,
            likely=likely,
            maps=maps,
            shown=shown,
            heads=self._heads(indicators[name], first),
            trust=Trust(tuple(checks), first.name),
            missing=self.missing,
        )

    def _answer(self, generate: int) -> tuple[str | None, float, int, tuple[tuple[str, float], ...]]:
        """The answer, its probability, its number of tokens, and the likeliest first tokens."""
        trace = self.mllm.trace([self.sample], prompt=self.prompt, generate=generate)
        logits = trace.logits.values[0].astype(np.float64)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        best = np.argsort(-shares, kind="stable")[:N_LIKELY]
        decode = self.mllm.processor.tokenizer.decode
        likely = tuple((str(decode([int(token)])).strip(), float(shares[token])) for token in best)
        if trace[0].reasoning is not None:
            self.missing["probability"] = THOUGHT
            return trace[0].answer, float("nan"), len(trace[0].ids), likely
        if len(trace[0].ids) == 1:
            return trace[0].answer, likely[0][1], 1, likely
        whole = Target("greedy", tokens=len(trace[0].ids))
        score = self.mllm.score([self.sample], whole, prompt=self.prompt).values[0]
        return trace[0].answer, float(np.exp(score)), len(trace[0].ids), likely

    def _maps(self, indicators: Mapping[str, Any]) -> tuple[dict[str, Maps], dict[str, ShownMap]]:
        """Each indicator's maps, and the map that is shown; the first must succeed, others can be missing."""
        maps: dict[str, Maps] = {}
        shown: dict[str, ShownMap] = {}
        for label, indicator in indicators.items():
            try:
                found = indicator(self.mllm, [self.sample], prompt=self.prompt, target=self.target)
                tokens = found.tokens[0]
                inside = covered(self.sample, tokens)
                layer = self._layer(indicator, found[0], next(iter(shown.values()), None))
                one = shown_map(label, indicator, found[0], tokens, layer, inside)
                shown[label] = one if layer == self.layer else replace(one, rule=SAME)
                maps[label] = found
            except (RunError, ServerError):
                raise
            except InterpError as error:
                if not shown:
                    raise
                self.missing[label] = str(error)
        return maps, shown

    def _layer(self, indicator: Any, array: xr.DataArray, first: ShownMap | None) -> Layer:
        """The layer to show: the same as the first indicator's, where this indicator has a map of it."""
        if self.layer != AUTO or first is None or first.layer is None or "layer" not in array.dims:
            return self.layer
        apart = isinstance(indicator, VisionAttention) or getattr(indicator, "layers_add_up", False)
        return first.layer if not apart and first.layer in array["layer"].values else AUTO

    def _heads(self, indicator: Any, first: ShownMap) -> xr.DataArray | None:
        """The indicator's map of each head at the shown layer."""
        if first.layer is None or not is_dataclass(indicator) or not hasattr(indicator, "per_head"):
            return None
        of_heads: Any = replace(indicator, per_head=True, layers=[first.layer])  # pyright: ignore[reportArgumentType, reportCallIssue]
        try:
            found = of_heads(self.mllm, [self.sample], prompt=self.prompt, target=self.target)
        except InterpError as error:
            self.missing["heads"] = str(error)
            return None
        return found[0].isel(layer=0, drop=True)


def _page() -> ModuleType:
    """The module of the page. It imports `Look` for its types, so it is imported by name."""
    return import_module("interp.study.first_look.page")


def covered(sample: Sample, tokens: TokenMap) -> Float[np.ndarray, " token"] | None:
    """The share of each token inside the boxes or masks; a box has all of every token that it touches.

    None for a sample without boxes and masks.
    """
    if sample.masks:
        return tokens.coverage(sample.masks)
    return tokens.mask(sample.boxes).astype(float) if sample.boxes else None


def _sample(image: Images, question: str, boxes: Iterable[BoxLike] | None, box_format: str | None) -> Sample:
    """The sample of these arguments."""
    if isinstance(image, Sample):
        if boxes is not None or box_format is not None or not isinstance(question, str) or question:
            raise SampleError(
                "a look takes a whole Sample, or an image with question= and boxes=; got both. Change the sample "
                "instead: sample.replace(question=…, boxes=…)."
            )
        return image
    several = {"images": image} if isinstance(image, list | tuple) else {"image": image}
    drawn = () if boxes is None else boxes
    found = Sample(question=question, boxes=drawn, box_format=box_format, **several)  # pyright: ignore[reportArgumentType]
    found.check()
    return found


def _indicators(given: Indicators) -> dict[str, Any]:
    """Label → indicator, the main one first."""
    if given is None:
        return {
            "relative attention": Attention(relative_to=GENERIC_PROMPT),
            "attention": Attention(),
            "attention × gradient": AttentionGradient(),
        }
    if isinstance(given, Mapping):
        pairs: list[tuple[str, Any]] = list(given.items())
    else:
        listed = list(given) if isinstance(given, list | tuple) else [given]
        pairs = [labelled(one) for one in listed]
    if not pairs:
        raise MapError('a look needs an indicator; got none. Leave indicator= out, or name one: "attention".')
    for label, one in pairs:
        named = isinstance(label, str) and bool(label.strip())
        if not named or isinstance(one, type) or not isinstance(one, Indicator):
            raise MapError(
                f"indicator is one of interp.indicators, such as Attention(), or its name; got {one!r:.100}."
            )
        if getattr(one, "per_head", False):
            raise MapError(
                f"a look always shows the heads of its layer; {label!r} has per_head=True. Leave it out."
            )
    if len({label for label, _ in pairs}) < len(pairs):
        raise MapError(
            "two indicators have the same name. Give them labels of their own: indicator={'first': …, 'second': …}."
        )
    return dict(pairs)
