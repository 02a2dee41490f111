"""From labelled samples to structures that can be asked about, and to a pair of questions for each, by `Settings`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from interp.data.build import (
    AREA,
    ATTRIBUTE,
    LOCALIZATION,
    SHARE,
    Question,
    Structure,
    body_region,
    box_of,
    diverse,
    largest_component,
    lottery,
    modality,
    outline,
)
from interp.data.build.slices import BoxTuple
from interp.data.labelled import plain_label
from interp.errors import DataError, InterpError
from interp.inputs.argument_checks import check_bool, check_number, check_one_of, check_whole
from interp.inputs.images import LazyImage
from interp.inputs.masks import union
from interp.inputs.sample import Sample
from interp.inputs.text import brief

__all__ = ["Pair", "Settings", "Target", "asked", "chosen", "targets"]


PIECES, SMALL, LARGE = "in several pieces", "box too small", "box too large"
UNCLEAR, NO_LABEL, SEVERAL = "no attribute has a clear answer", "without a label", "with several images"
NO_REGION, UNREADABLE, NOT_DRAWN = "without a box", "cannot be read", "not drawn"


@dataclass(frozen=True)
class Target:
    """One structure in one picture that can be asked about.

    Attributes:
        sample: A sample that shows the structure.
        box: The structure's box in pixels of the picture.
        known: The facts from which questions and answers follow.
        picture: The number of the picture.
    """

    sample: Sample
    box: BoxTuple
    known: Structure
    picture: int


@dataclass(frozen=True)
class Pair:
    """A structure with its localization and its attribute question."""

    target: Target
    localization: Question
    attribute: Question


@dataclass
class _Picture:
    """The samples of one picture by label, and every label that is in it."""

    labels: dict[str, list[Sample]] = field(default_factory=dict)
    present: set[str] = field(default_factory=set)


def targets(samples: Iterable[Sample], settings: Settings, dropped: Counter[str]) -> list[Target]:
    """Returns the structures that have one clear region of the right size and a clear attribute, in reading order.

    Args:
        samples: Samples of one image whose `meta["label"]` names what their masks, or else their boxes, show.
        settings: The rules.
        dropped: A counter, by reason, to which structures and samples that are left out are added.
    """
    pictures = _pictures(samples, dropped)
    vocabulary = {label for picture in pictures for label in picture.labels}
    found = []
    for number, picture in enumerate(pictures):
        away = sorted(vocabulary - picture.present) if settings.complete else ()
        for label, listed in picture.labels.items():
            try:
                made = _target(number, label, listed, tuple(away), settings)
            except InterpError:
                made = UNREADABLE
            if isinstance(made, str):
                dropped[made] += 1
            else:
                found.append(made)
    return found


def _pictures(samples: Iterable[Sample], dropped: Counter[str]) -> list[_Picture]:
    found: dict[Hashable, _Picture] = {}
    for sample in samples:
        label = sample.meta.get("label") if sample.is_usable else None
        if not sample.is_usable:
            dropped[UNREADABLE] += 1
        elif len(sample.images) != 1:
            dropped[SEVERAL] += 1
        elif not isinstance(label, str) or not label.strip():
            dropped[NO_LABEL] += 1
        else:
            picture = found.setdefault(_key(sample), _Picture())
            picture.labels.setdefault(plain_label(label), []).append(sample)
            others = sample.meta.get("present")
            picture.present |= {
                plain_label(str(one)) for one in (label, *(others if isinstance(others, list) else ()))
            }
    return list(found.values())


def _key(sample: Sample) -> Hashable:
    """Equal for samples of one picture, without reading files."""
    raw = sample.images[0]
    if isinstance(raw, str | os.PathLike):
        return os.fspath(raw)
    return id(raw) if isinstance(raw, LazyImage) else sample.image_fingerprints


def _target(
    number: int, label: str, samples: list[Sample], away: tuple[str, ...], settings: Settings
) -> Target | str:
    """The structure that the samples of one label and picture show, or the reason why there is none."""
    first, shape = samples[0], None
    width, height = first.sizes[0]
    masks = [mask for sample in samples for mask in sample.masks]
    if masks:
        piece = largest_component(union(masks, (width, height)), settings.share)
        if piece is None:
            return PIECES
        box, shape = box_of(piece), outline(piece)
    else:
        boxes = list(dict.fromkeys(box.as_tuple() for sample in samples for box in sample.boxes))
        if not boxes:
            return NO_REGION
        areas = np.array([(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes])
        if areas.max() < settings.share * areas.sum():
            return PIECES
        box = boxes[int(areas.argmax())]
    fraction = (box[2] - box[0]) * (box[3] - box[1]) / (width * height)
    if not settings.area[0] <= fraction <= settings.area[1]:
        return SMALL if fraction < settings.area[0] else LARGE
    known = Structure(label, fraction, shape, away)
    clear = any(ATTRIBUTE[kind](known) for kind in settings.attribute)
    asks = any(LOCALIZATION[kind](known) for kind in settings.localization)
    return Target(first, box, known, number) if clear and asks else UNCLEAR


def chosen(found: list[Target], settings: Settings, dropped: Counter[str]) -> list[int]:
    """Returns the places of the structures to ask about, in the order in which they are drawn.

    They are even over (modality, body region), then over labels, groups and pictures, as `build.diverse` says.
    """
    levels = [
        (
            (modality(one.sample), body_region(one.sample)),
            one.known.label,
            str(one.sample.group),
            one.picture,
        )
        for one in found
    ]
    drawn = diverse(levels, settings.n, settings.seed)
    dropped[NOT_DRAWN] += len(found) - len(drawn)
    return drawn


def asked(found: list[Target], order: list[int], settings: Settings) -> list[Pair]:
    """Returns the pairs of questions of the structures at these places, in reading order.

    Kinds are chosen in the order of the draw: of those that apply, the one that was used least so far.
    """
    used: Counter[str] = Counter()
    pairs = {place: _pair(found[place], place, settings, used) for place in order}
    return [pairs[place] for place in sorted(pairs)]


def _pair(target: Target, place: int, settings: Settings, used: Counter[str]) -> Pair:
    made: list[Question] = []
    listed: tuple[tuple[tuple[str, ...], Mapping[str, Any]], ...] = (
        (settings.localization, LOCALIZATION),
        (settings.attribute, ATTRIBUTE),
    )
    for kinds, known in listed:
        fitting = [question for kind in kinds if (question := known[kind](target.known))]
        ties = (str(settings.seed), str(place))
        question = min(fitting, key=lambda one: (used[one.about], lottery(*ties, one.about)))
        used[question.about] += 1
        made.append(question)
    return Pair(target, *made)


@dataclass(frozen=True)
class Settings:
    """The rules of a build: which structures are asked about, what is asked, and how many pairs are drawn.

    Attributes:
        n: The largest number of pairs of questions; None takes all.
        seed: The seed of the draw and of the choice of kinds.
        share: The least share of a structure's area in its largest piece. Where it is reached, the largest piece
            stands for the structure; else the structure is dropped.
        area: The least and the largest share of the picture that a structure's box may cover.
        localization: Kinds of the first question, "presence" and "identity"; the kind used least so far is taken.
        attribute: Kinds of the second question, "size", "shape" and "abnormality". Of the kinds with a clear answer the
            one used least so far is taken; a structure without a clear answer is dropped.
        complete: Whether the labels of a picture name every structure in it, among those that are named anywhere in the
            data. Only then is a structure without a label certainly absent, which "identity" needs. Volumes list every
            label of a slice in `meta["present"]`; for other samples, set this only if the reader left no label out
            (small pieces, crowds).
    """

    n: int | None = None
    seed: int = 0
    share: float = SHARE
    area: tuple[float, float] = AREA
    localization: tuple[str, ...] = ("presence", "identity")
    attribute: tuple[str, ...] = ("size", "shape", "abnormality")
    complete: bool = False

    def __post_init__(self) -> None:
        if self.n is not None:
            check_whole("n", self.n, 1, DataError)
        check_whole("seed", self.seed, 0, DataError)
        check_number("share", self.share, low=0.0, high=1.0, open_low=True, error=DataError)
        pair = self.area if isinstance(self.area, tuple | list) else ()
        if len(pair) != 2:
            raise DataError(f"area is (least, largest) as shares of the picture; got {brief(self.area)}.")
        low = check_number("the least area", pair[0], low=0.0, high=1.0, error=DataError)
        check_number("the largest area", pair[1], low=low, high=1.0, error=DataError)
        put = object.__setattr__  # plain numbers, as build.json takes them
        put(self, "n", None if self.n is None else int(self.n))
        put(self, "seed", int(self.seed))
        put(self, "share", float(self.share))
        put(self, "area", (float(pair[0]), float(pair[1])))
        check_bool("complete", self.complete, DataError)
        for name, known in (("localization", LOCALIZATION), ("attribute", ATTRIBUTE)):
            kinds = getattr(self, name)
            if not isinstance(kinds, tuple | list) or not kinds:
                raise DataError(f"{name} is a list of {', '.join(known)}; got {brief(kinds)}.")
            for kind in kinds:
                check_one_of(f"a kind of {name}", kind, known, DataError)
        if not self.complete and "presence" not in self.localization:
            raise DataError(
                'the question "identity" names a structure that is certainly absent. Pass complete=True if the labels '
                'of each picture name every structure in it, or add "presence" to localization.'
            )
