"""`ground`: a model's answer with a mask on the image for each word, by attend-and-segment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool

from interp.errors import MapError, SampleError
from interp.indicators.answer_maps import AnswerMaps, answer_maps
from interp.indicators.map_masks import Threshold, Upsampling, check_mask_rule, map_mask, upsampled
from interp.inputs.masks import Mask
from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.inputs.text import spelling, word_spans
from interp.inputs.tokens import TokenMap
from interp.models.segmenter import Segmenter
from interp.study.model_spec import is_organism, short_label
from interp.study.task import suitable_threads
from interp.tracing import Mllm

__all__ = ["GroundedAnswer", "GroundedPhrase", "Phrases", "Refine", "ground"]

Phrases: TypeAlias = str | Sequence[str] | Callable[[str], Iterable[str]] | None
Refine: TypeAlias = Segmenter | str | None
_SMALL = """a an and are as at be been but by can for from had has have he her his i in into is it its no not of on or
our she some than that the their them then there these they this those to was we were what where which who will with you
your"""
SMALL_WORDS = frozenset(_SMALL.split())
"""English function words. Unless phrases are given, all other words of an answer get masks."""


@dataclass(frozen=True, eq=False, repr=False)
class GroundedPhrase:
    """A word or phrase of the answer, with its mask.

    Attributes:
        number: The number of the phrase in the answer, from 1.
        text: The phrase as the answer has it.
        start: The index of its first character in the answer.
        end: The index after its last character in the answer.
        generated: The indices of the answer's tokens that form it, from 0.
        map: (token,) the attention of those tokens, averaged, minus the answer's mean map; below 0: less attention than
            average.
        image: The index of the image with the map's largest value.
        point: (x, y) of the largest value, the centre of a pixel of that image; None where the map has one value.
        masks: One mask for each image that has a pixel inside.
        refined: Whether a segmenter made the mask from the point; otherwise the mask is the map cut at the threshold.
    """

    number: int
    text: str
    start: int
    end: int
    generated: tuple[int, ...]
    map: xr.DataArray
    image: int
    point: tuple[float, float] | None
    masks: tuple[Mask, ...]
    refined: bool

    def inside(self, image: int, size: tuple[int, int]) -> Bool[np.ndarray, "row col"]:
        """The pixels inside the mask on one image of (width, height); all False where the phrase has no mask there."""
        mine = [mask for mask in self.masks if mask.image == image]
        return mine[0].inside if mine else np.zeros((size[1], size[0]), bool)

    def __repr__(self) -> str:
        n = len(self.masks)
        return f"GroundedPhrase({self.number}: {self.text!r}, {n} mask{'' if n == 1 else 's'})"


@dataclass(frozen=True, eq=False, repr=False)
class GroundedAnswer:
    """An answer whose words have masks. A notebook displays it; `save` writes a page.

    Attributes:
        sample: The images, the question and the boxes.
        model: The model's name.
        organism: Whether the model is a bundled organism, whose numbers say nothing about real models.
        prompt: How the question was put to the model.
        answer: The model's answer.
        phrases: The words or phrases with their maps and masks, in the order of the answer.
        missing: The requested phrases that the answer does not contain, or contains only inside a longer phrase.
        maps: The maps of every token of the answer.
        upsample: How maps were upsampled to the image.
        threshold: How maps were cut into masks.
    """

    sample: Sample
    model: str
    organism: bool
    prompt: Prompt
    answer: str
    phrases: tuple[GroundedPhrase, ...]
    missing: tuple[str, ...]
    maps: AnswerMaps
    upsample: Upsampling
    threshold: Threshold

    _page: ClassVar[str] = "interp.study.grounding.page"
    """The module of its page, like `Study.page`: it has `write_page(grounded, path)` and `notebook_view(grounded)`."""

    @property
    def text(self) -> str:
        """The answer with the number of its mask after each phrase: "the nodule [1] in the left lung [2]"."""
        return "".join(
            part if phrase is None else f"{part} [{phrase.number}]" for part, phrase in self.parts()
        )

    @property
    def masks(self) -> dict[int, tuple[Mask, ...]]:
        """Number of each phrase → its masks."""
        return {one.number: one.masks for one in self.phrases}

    @property
    def tokens(self) -> TokenMap:
        """The positions and footprints of the image tokens."""
        return self.maps.tokens

    def parts(self) -> Iterator[tuple[str, GroundedPhrase | None]]:
        """The answer in pieces, each with its phrase or None; together they are the whole answer."""
        at = 0
        for one in self.phrases:
            if one.start > at:
                yield self.answer[at : one.start], None
            yield self.answer[one.start : one.end], one
            at = one.end
        if at < len(self.answer):
            yield self.answer[at:], None

    def to_dataframe(self) -> pd.DataFrame:
        """One row per phrase and mask: number, phrase, start, end, image, x, y, refined, pixels, share.

        `share` is the mask's share of its image's pixels. A phrase without a mask has one row, with 0 pixels. x and y
        are given for the image with the map's largest value, and are NaN for other images.
        """
        rows = []
        for one in self.phrases:
            known = {"number": one.number, "phrase": one.text, "start": one.start, "end": one.end}
            for mask in one.masks or (None,):
                pixels = 0 if mask is None else int(mask.inside.sum())
                image = one.image if mask is None else mask.image
                width, height = self.sample.sizes[image]
                nowhere = (float("nan"), float("nan"))
                x, y = one.point if one.point is not None and image == one.image else nowhere
                place = {"image": image, "x": x, "y": y, "refined": one.refined}
                rows.append({**known, **place, "pixels": pixels, "share": pixels / (width * height)})
        return pd.DataFrame(rows, columns=pd.Index(_COLUMNS))

    def save(self, path: str | os.PathLike[str] = "grounded.html") -> Path:
        """Write the page, one HTML file that loads nothing from elsewhere, and return its path.

        Raises:
            RunError: The file cannot be written.
        """
        return import_module(self._page).write_page(self, path)

    def _repr_html_(self) -> str:
        return str(import_module(self._page).notebook_view(self))

    def __repr__(self) -> str:
        missing = f"; missing: {', '.join(self.missing)}" if self.missing else ""
        return f"GroundedAnswer({self.text!r}{missing})"


_COLUMNS = ("number", "phrase", "start", "end", "image", "x", "y", "refined", "pixels", "share")


def ground(
    mllm: Mllm,
    sample: Sample,
    phrases: Phrases = None,
    *,
    prompt: Prompt | None = None,
    generate: int = 64,
    layers: Any = "all",
    upsample: Upsampling = "bicubic",
    threshold: Threshold = "otsu",
    refine: Refine = None,
) -> GroundedAnswer:
    """The model's answer with a mask for each of its words: attend-and-segment.

    For each generated token: the mean over layers and heads of the attention from the row that predicts it to the image
    tokens, minus the mean of these maps over all tokens of the answer. A phrase's map is the mean of its tokens' maps.
    The map is upsampled to the image. Its mask is the part above the threshold, or, with `refine`, the segment of a SAM
    at the point of the map's largest value. The SAM is the published method; the threshold is a cheap substitute.

    It costs one generation, like the answer alone. In an answer of one token the map equals the mean, so it is 0
    everywhere and there is no mask. In longer answers every phrase gets a mask, even one that names nothing in the
    image.

    Args:
        mllm: The model.
        sample: One sample with images.
        phrases: What gets a mask: words or phrases, found as whole words in any case and at every place; a function
            from the answer to phrases, such as a parser's noun phrases (the published code uses spaCy's, and the tokens
            of each head word); or None for every word except function words such as "the".
        prompt: How the question is put; by default `PAPER_PROMPT`, which asks for a single word.
        generate: The maximum number of tokens to generate.
        layers: "all", or a list of decoder layers, 0-based.
        upsample: "bicubic" as published, "bilinear" or "nearest".
        threshold: "otsu", "positive" or a share, as `interp.indicators.map_mask` takes it; unused with `refine`. With
            several images, one threshold for all of them together.
        refine: A SAM: an `interp.Segmenter`, or its id or folder, which is downloaded unless it is there.

    Raises:
        SampleError: `sample` is no sample, or is a video.
        MapError: Phrases, upsampling or threshold are of an unknown kind.
        ModelError: The model's image tokens have no place in the image, or the segmenter cannot be opened.

    Source: Cao et al. 2024, arXiv 2410.08209; `interp.indicators.map_mask` for thresholds, which are not from there.

    Example:
        >>> import interp
        >>> mllm = interp.load("organism")
        >>> interp.ground(mllm, interp.data.bundled("natural", n=1)[0]).text
        'green [1]'
    """
    check_mask_rule(upsample, threshold)
    if not isinstance(sample, Sample):
        raise SampleError(f"ground takes one interp.Sample; got {type(sample).__name__}.")
    if sample.video is not None:
        raise SampleError(
            "ground makes masks of images, and this sample is a video. Choose frames of it: "
            "Sample(images=[…], question=…)."
        )
    finder = _finder(phrases)
    segmenter = _segmenter(refine)
    with suitable_threads(mllm):
        maps = answer_maps(mllm, sample, prompt=prompt, generate=generate, layers=layers)
    spans, missing = finder(maps.text)
    made = _Making(sample, maps, upsample, threshold, segmenter)
    return GroundedAnswer(
        sample=sample,
        model=short_label(mllm),
        organism=is_organism(mllm),
        prompt=PAPER_PROMPT if prompt is None else prompt,
        answer=maps.text,
        phrases=tuple(made.phrase(number, *span) for number, span in enumerate(spans, start=1)),
        missing=missing,
        maps=maps,
        upsample=upsample,
        threshold=threshold,
    )


def _segmenter(refine: Any) -> Segmenter | None:
    """The segmenter, which is opened if a name is given.

    Raises:
        MapError: The value is no segmenter, name or None.
    """
    found = Segmenter.load(refine) if isinstance(refine, str) else refine
    if found is not None and not isinstance(found, Segmenter):
        raise MapError(
            "refine is an interp.Segmenter, the id or folder of a SAM, or None; got "
            f"{type(refine).__name__}. Wrap a loaded one: interp.Segmenter(model, processor)."
        )
    return found


@dataclass(frozen=True, eq=False)
class _Making:
    """Makes the phrases of an answer; the fields are arguments of `ground`."""

    sample: Sample
    maps: AnswerMaps
    upsample: Upsampling
    threshold: Threshold
    segmenter: Segmenter | None

    def phrase(self, number: int, start: int, end: int) -> GroundedPhrase:
        """The phrase at these characters of the answer."""
        generated, values = self.maps.of_span(start, end)
        layers = [upsampled(values, self.maps.tokens, i, self.upsample) for i in self._images]
        image, point = _peak(layers) if np.ptp(values) > 0 else (0, None)
        return GroundedPhrase(
            number=number,
            text=self.maps.text[start:end],
            start=start,
            end=end,
            generated=generated,
            map=xr.DataArray(values, dims=["token"], name="attention minus the answer's mean"),
            image=image,
            point=point,
            masks=() if point is None else tuple(self._masks(layers, image, point)),
            refined=self.segmenter is not None and point is not None,
        )

    @property
    def _images(self) -> range:
        return range(len(self.sample.images))

    def _masks(self, layers: Sequence[np.ndarray], image: int, point: tuple[float, float]) -> Iterator[Mask]:
        """The phrase's masks that have a pixel inside."""
        if self.segmenter is not None:
            inside = self.segmenter.mask(self.sample.load(image), point)
            if inside.any():
                yield Mask(inside, image)
            return
        together = map_mask(np.concatenate([layer.ravel() for layer in layers]), self.threshold)
        cuts = np.cumsum([layer.size for layer in layers])[:-1]
        for i, (flat, layer) in enumerate(zip(np.split(together, cuts), layers, strict=True)):
            if flat.any():
                yield Mask(flat.reshape(layer.shape), i)


def _peak(layers: Sequence[np.ndarray]) -> tuple[int, tuple[float, float]]:
    """The image and the pixel's centre (x, y) of the largest value; of equal values the first."""
    tops = [float(np.nanmax(layer)) if np.isfinite(layer).any() else -np.inf for layer in layers]
    image = int(np.argmax(tops))
    row, column = np.unravel_index(int(np.nanargmax(layers[image])), layers[image].shape)
    return image, (float(column) + 0.5, float(row) + 0.5)


Finder: TypeAlias = Callable[[str], tuple[list[tuple[int, int]], tuple[str, ...]]]
"""A function from an answer to the spans of its phrases, ordered and disjoint, and the phrases not found."""


def _finder(phrases: Phrases) -> Finder:
    """The function that finds the phrases in an answer.

    Raises:
        MapError: `phrases` is neither words nor a function that gives them.
    """
    if phrases is None:
        return lambda answer: (
            [s for s in word_spans(answer) if spelling(answer[s[0] : s[1]]) not in SMALL_WORDS],
            (),
        )
    if callable(phrases) and not isinstance(phrases, str):
        given: Callable[[str], Iterable[str]] = phrases
        return lambda answer: _found(answer, _checked(given(answer)))
    listed = _checked([phrases] if isinstance(phrases, str) else phrases)
    return lambda answer: _found(answer, listed)


def _checked(phrases: Any) -> list[str]:
    wrong = isinstance(phrases, str | bytes) or not isinstance(phrases, Iterable)
    found: list[Any] = [] if wrong else list(phrases)
    if wrong or not all(isinstance(one, str) and word_spans(one) for one in found):
        raise MapError(
            'phrases are words of the answer, such as ["nodule", "left lung"], or a function that finds them in '
            f"it; got {phrases!r:.200}."
        )
    return list(dict.fromkeys(found))


def _found(answer: str, phrases: Sequence[str]) -> tuple[list[tuple[int, int]], tuple[str, ...]]:
    """The spans of the phrases, longer ones first where they overlap, and the phrases without a span."""
    words = word_spans(answer)
    spelled = [spelling(answer[start:end]) for start, end in words]
    taken: list[tuple[int, int]] = []
    missing = []
    for phrase in sorted(phrases, key=lambda one: -len(word_spans(one))):
        wanted = [spelling(phrase[start:end]) for start, end in word_spans(phrase)]
        n = len(wanted)
        places = [i for i in range(len(words) - n + 1) if spelled[i : i + n] == wanted]
        before = len(taken)
        for i in places:
            span = (words[i][0], words[i + n - 1][1])
            if all(span[1] <= start or span[0] >= end for start, end in taken):
                taken.append(span)
        if len(taken) == before:
            missing.append(phrase)
    return sorted(taken), tuple(phrase for phrase in phrases if phrase in missing)
