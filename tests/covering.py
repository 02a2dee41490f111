"""A few combinations of parameters that together hold every value of every parameter, and a few families of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import combinations as pairs_of
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from interp.models.base import Maps

REPRESENTATIVES = frozenset(
    {
        "gemma3",  # image blocks, sliding windows
        "gemma4",  # shared keys
        "idefics2",  # latents
        "internvl",  # tiles
        "kimi_k25",  # latent attention
        "llama4",  # chunks, experts
        "llava",
        "llava_onevision",  # newlines, unpadded tiles
        "mllama",  # cross-attention
        "molmo2",  # all image tokens see each other
        "paligemma",  # the whole prompt sees itself
        "qwen2_5_vl",  # positions in three axes, windows in the tower
        "qwen3_5",  # DeltaNet layers
        "vila",  # down the columns
    }
)
"""A family for each way of attending and of laying tokens; the others differ from one of these in details."""

ATTENDING = (
    "gemma3", "gemma4", "kimi_k25", "llama4", "llava", "molmo2", "paligemma", "qwen2_5_vl", "qwen3_5",
)  # fmt: skip
"""Of these a family for each way of attending in the decoder; the others differ in how tokens are laid."""


def every_family(but: Iterable[str] = (), maps: Maps | None = None) -> list[Any]:
    """The families as parameters; those besides `REPRESENTATIVES` are slow: CI checks every one (`conformance`).

    `maps`: those with such maps alone.
    """
    from interp.conformance.tiny import families  # takes seconds, and what starts the workers does without

    return [
        pytest.param(family, marks=[] if family in REPRESENTATIVES else pytest.mark.slow)
        for family in sorted({*families(maps)} - {*but})
    ]


def covering_set(combinations: Sequence[Mapping[str, Hashable]]) -> set[int]:
    """The places of combinations that together hold each value of each parameter.

    Greedy: each time the combination with the most values that are not held yet, then with the most new pairs of
    values, then with the values that were taken least; the first of several. Of a full matrix it takes as many as its
    longest axis has values, and the other axes' values come about equally often.
    """
    items = [sorted(combination.items(), key=lambda pair: pair[0]) for combination in combinations]
    held: Counter[tuple[str, Hashable]] = Counter()
    pairs: set[tuple[tuple[str, Hashable], ...]] = set()
    kept: set[int] = set()
    while True:
        scores = [
            (
                sum(held[value] == 0 for value in own),
                sum(pair not in pairs for pair in pairs_of(own, 2)),
                -sum(held[value] for value in own),
            )
            for own in items
        ]
        best = max(range(len(items)), key=scores.__getitem__, default=-1)
        if best < 0 or scores[best][0] == 0:
            return kept
        held.update(items[best])
        pairs.update(pairs_of(items[best], 2))
        kept.add(best)


def parameters_of(item: pytest.Function) -> dict[str, Hashable]:
    """A test's parameters: name → value; names that one `parametrize` lists together are one parameter."""
    values = dict(item.callspec.params)
    found: dict[str, Hashable] = {}
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs["argnames"]
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
        found[",".join(names)] = tuple(_identity(values.pop(name)) for name in names)
    return found | {name: _identity(value) for name, value in values.items()}


def _identity(value: Any) -> Hashable:
    """The value where it can be hashed, else which object it is."""
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value
