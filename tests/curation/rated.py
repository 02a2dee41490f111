"""Samples to rate, and files as raters would save them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interp.curation.ratings import form_id
from interp.data import Samples
from interp.inputs.sample import Sample

NAMES = ("relevance", "grounding", "semantics")


def to_rate(n: int = 4, **changes: Any) -> Samples:
    """Samples of one small image each; the first half are localization questions, the others attribute questions."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(n):
        image = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
        kind = "localization" if i < n // 2 else "attribute"
        fields: dict[str, Any] = {
            "question": f"Is organ {i} visible?",
            "answer": "yes",
            "meta": {"kind": kind},
        }
        found.append(Sample(image, boxes=[(4, 4, 20, 20)], **fields | {"id": f"s{i}"} | changes))
    return Samples(found, "to rate")


def rating_file(
    path: Path,
    samples: Samples,
    by: str,
    scores: Mapping[int, Sequence[int | None]],
    texts: Mapping[int, str] | None = None,
    **changes: Any,
) -> Path:
    """The file of one rater: place of a sample → its three scores, None where there is none."""
    answers = []
    for place in sorted({*scores, *(texts or {})}):
        given = zip(NAMES, scores.get(place, ()), strict=False)
        one: dict[str, Any] = {"item": str(place), "values": {name: s for name, s in given if s is not None}}
        if texts and place in texts:
            one["text"] = texts[place]
        answers.append(one)
    record = {
        "format": "interp ratings",
        "version": 1,
        "form": form_id(samples),
        "by": by,
        "answers": answers,
    }
    path.write_text(json.dumps(record | changes))
    return path
