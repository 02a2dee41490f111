"""Flows of information: from which tokens (keys) to which (queries) attention is blocked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from interp.errors import InterpError, SampleError, SiteError, StudyError
from interp.inputs.sample import Sample
from interp.inputs.text import count
from interp.inputs.tokens import TokenMap
from interp.study.truth import tokens_inside
from interp.tracing.site import Selector, Site, select

__all__ = [
    "BOX",
    "ELSEWHERE",
    "Flow",
    "Window",
    "as_flows",
    "control_of",
    "default_flows",
    "usual_width",
    "windows",
]

BOX, ELSEWHERE = "box", "elsewhere"
ARROW = "→"


@dataclass(frozen=True)
class Flow:
    """Information from `keys` to `queries`. Each is one or several selectors of `Site`, or one of two more:

    - "box": the image tokens that the sample's boxes cover.
    - "elsewhere": the same number of image tokens outside the boxes, drawn at random once per sample. It is the control
      of "box".

    `interp.image_mask` with one mask per sample expects the masks in the order of the study's data.

    Raises:
        SiteError: `keys` or `queries` is neither a selector nor several of them.
    """

    keys: Selector | Sequence[Selector]
    queries: Selector | Sequence[Selector]

    def __post_init__(self) -> None:
        queries, keys = self.groups
        object.__setattr__(self, "queries", queries)
        object.__setattr__(self, "keys", keys)

    @property
    def groups(self) -> tuple[tuple[Selector, ...], tuple[Selector, ...]]:
        """The selectors of the queries and of the keys."""
        return Site(queries=self.queries, keys=self.keys).groups

    def to_dict(self) -> dict[str, Any]:
        """The flow as JSON values."""
        site = Site(queries=self.queries, keys=self.keys).to_dict()
        return {"keys": site["keys"], "queries": site["queries"]}

    @property
    def is_control(self) -> bool:
        """Whether the flow uses tokens outside the boxes instead of those inside."""
        return any(ELSEWHERE in group for group in self.groups)

    def places(
        self, tokens: TokenMap, sample: Sample, *, index: int, n_samples: int, rule: str, seed: int
    ) -> tuple[Int[np.ndarray, " query"], Int[np.ndarray, " key"]]:
        """The unpadded positions of queries and keys in one sample.

        Raises:
            SampleError: The sample has no boxes, or too few image tokens outside them.
            SiteError: The prompt lacks a group or a word, or the selectors name no token.
        """
        found = []
        for what, selectors in zip(("queries", "keys"), self.groups, strict=True):
            parts = []
            for one in selectors:
                if one in (BOX, ELSEWHERE):
                    parts.append(tokens.image[_boxed(tokens, sample, one == ELSEWHERE, rule, seed)])
                else:
                    parts.append(select([one], tokens, index, n_samples))
            at = np.unique(np.concatenate(parts)).astype(np.int64)
            if not len(at):
                raise SiteError(f"the {what} {selectors!r} name no token of this sample.")
            found.append(at)
        return found[0], found[1]


def _boxed(tokens: TokenMap, sample: Sample, elsewhere: bool, rule: str, seed: int) -> np.ndarray:
    """A mask of the image tokens in the boxes, or of the same number of others that have a footprint."""
    if not sample.boxes and not sample.masks:
        raise SampleError("the sample has no box.")
    inside = tokens_inside(tokens, sample, rule)
    if not inside.any():
        raise SampleError("the sample's boxes cover no image token: the model does not see that part.")
    if not elsewhere:
        return inside
    free = np.flatnonzero(~inside & ~np.isnan(tokens.footprints).any(axis=1))
    if len(free) < inside.sum():
        raise SampleError(
            f"the control needs as many image tokens outside the boxes as inside; the boxes cover "
            f"{count(int(inside.sum()), 'image token')}, and {len(free)} are left elsewhere."
        )
    drawn = _random(seed, sample.id).choice(free, int(inside.sum()), replace=False)
    return np.isin(np.arange(tokens.n), drawn)


def _random(seed: int, name: str) -> np.random.Generator:
    """A random generator that depends on the sample and not on its place in the data."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def default_flows(boxes: bool) -> dict[str, Flow]:
    """The default flows: image to question, image to last token, question to last token.

    With `boxes` there are also flows from the boxes, and from the same number of image tokens elsewhere, to the last
    token and to all tokens after the image.
    """
    pairs = [("image", "question"), ("image", "last"), ("question", "last")]
    if boxes:
        pairs += [(keys, queries) for queries in ("last", "after_image") for keys in (BOX, ELSEWHERE)]
    return {f"{keys}{ARROW}{queries}": Flow(keys, queries) for keys, queries in pairs}


def control_of(name: str, flows: Mapping[str, Flow]) -> str | None:
    """The name of the flow with "elsewhere" in place of "box"; None where there is none."""
    queries, keys = flows[name].groups
    if BOX not in keys:
        return None
    wanted = Flow(tuple(ELSEWHERE if one == BOX else one for one in keys), queries)
    return next((other for other, flow in flows.items() if flow == wanted), None)


def as_flows(value: Any) -> tuple[tuple[str, Flow], ...]:
    """Named flows, from a mapping name → Flow or (keys, queries), or from texts such as "image→last".

    Raises:
        StudyError: The value is something else, there is no flow, or two flows have one name.
    """
    if isinstance(value, Mapping):
        pairs = [(str(name), _flow(name, flow)) for name, flow in value.items()]
    elif isinstance(value, Iterable) and not isinstance(value, str):
        pairs = [_named(one) for one in value]
    else:
        raise StudyError(_wanted(value))
    if not pairs or len({name for name, _ in pairs}) < len(pairs):
        raise StudyError(f"flows= needs at least one flow, each with its own name; got {value!r}.")
    return tuple(pairs)


def _flow(name: Any, value: Any) -> Flow:
    if isinstance(value, Flow):
        return value
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise StudyError(_wanted({name: value}))
    try:
        return Flow(*value)
    except InterpError as error:
        raise StudyError(f"the flow {name!r}: {error}") from error


def _named(value: Any) -> tuple[str, Flow]:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Flow):
        return str(value[0]), value[1]
    ends = [end.strip() for end in str(value).replace("->", ARROW).split(ARROW)]
    if not isinstance(value, str) or len(ends) != 2 or not all(ends):
        raise StudyError(_wanted(value))
    return ARROW.join(ends), Flow(*ends)


def _wanted(value: Any) -> str:
    return (
        'flows= is a mapping such as {"image→last": ("image", "last")}, from a name to (keys, queries), or texts '
        f'such as ["image→last"]; got {value!r}.'
    )


@dataclass(frozen=True)
class Window:
    """Layers `first` to `last`, both included, around `layer`."""

    layer: int
    first: int
    last: int

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers of the window."""
        return tuple(range(self.first, self.last + 1))


def windows(n_layers: int, width: int, stride: int = 1) -> tuple[Window, ...]:
    """The window around every `stride`-th layer, from layer 0 on.

    A window of width w around layer ℓ holds the layers ℓ − ⌊w/2⌋ … ℓ + ⌈w/2⌉ − 1: the same number on both sides when w
    is odd, one more below than above when w is even. Layers outside the model are cut off, so windows at both ends are
    narrower.

    Raises:
        StudyError: The width is larger than the number of layers.

    Source: Geva et al., Dissecting Recall of Factual Associations, arXiv 2304.14767.

    Example:
        >>> [(window.first, window.last) for window in windows(6, 3)]
        [(0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 5)]
    """
    if width > n_layers:
        raise StudyError(f"window is at most the model's {n_layers} layers; got {width}.")
    below, above = width // 2, (width - 1) // 2
    return tuple(
        Window(layer, max(0, layer - below), min(n_layers - 1, layer + above))
        for layer in range(0, n_layers, stride)
    )


def usual_width(n_layers: int) -> int:
    """The default width: 9 of 32 layers, in other depths the nearest odd number to that share, at least 3 if possible.

    Example:
        >>> [usual_width(n) for n in (2, 6, 28, 32, 40)]
        [2, 3, 7, 9, 11]
    """
    share = 9 * n_layers / 32
    return min(max(3, 2 * int(share // 2) + 1), n_layers)
