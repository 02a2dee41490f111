"""Data that comes with the package: real medical slices, and natural scenes that are rendered when they are used."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from interp.data.readers.jsonl import jsonl
from interp.data.samples import Samples
from interp.data.scenes import marked_samples, natural_samples
from interp.errors import DataError
from interp.inputs.sample import Sample
from interp.inputs.text import brief, meant

__all__ = ["MEDICAL", "bundled", "check_draw"]

MEDICAL = Path(__file__).parents[1] / "bundled_medical"
FILES = {"medical": "samples.jsonl", "balanced": "balanced.jsonl"}
SPLITS = ("train", "validation", "test")
MOST = 1_000_000
"""The most samples of one draw."""


def bundled(name: str, split: str = "test", n: int | None = None, seed: int = 0) -> Samples:
    """Returns a bundled data set; works offline.

    `"medical"`: closed questions on CT, MR and microscopy slices (see `bundled_medical/SOURCES.md` for
    sources, licences, mask origins and counts). Left and right are sides of the picture; CT and MR are shown
    as radiologists see them, with the patient's right on the left. Test volumes are never in train or validation. The
    group is the volume. `n` draws that many rows with `seed` and keeps them in file order; None takes the whole split.

    `"balanced"`: medical questions that test answers, not maps (same volumes, same splits). Each nucleus is shown
    in a tile on its left and in one on its right, and in a tile where it is large and one where it is small. For
    each held-out slice, as many questions name structures that are present as structures that are certainly absent.
    Rows about absent structures have no box, so indicators cannot be scored on them. The train split holds only
    questions about absent structures, which `"medical"` lacks there.

    `"natural"`: `n` rendered scenes (200 for None) with exact boxes; `seed` chooses the scenes.

    `"marked"`: rendered scenes with a coloured marker in a corner, and colour questions only. The shortcut organism
    answers from the marker. The box is the object's; `meta["marker"]` and `meta["marker_answer"]` belong to the
    marker.

    `meta` has `kind` ("localization" or "attribute"), `modality`, `label`, `source`, `licence`,
    `mask_origin` and `split`.

    Raises:
        DataError: The name or the split is unknown, or `n` is larger than the split.

    >>> import interp.data
    >>> sample = interp.data.bundled("medical", n=1)[0]
    >>> sorted(sample.meta)
    ['kind', 'label', 'licence', 'mask_origin', 'modality', 'size', 'source', 'split']
    """
    if not isinstance(split, str) or split not in SPLITS:
        raise DataError(f"no split {split!r}; choose one of {', '.join(SPLITS)}.{meant(split, SPLITS)}")
    check_draw(n, seed)
    rendered = {"natural": natural_samples, "marked": marked_samples}
    if isinstance(name, str) and name in rendered:
        scenes = rendered[name](split, 200 if n is None else n, seed)
        return Samples((scene.replace(meta={**scene.meta, "split": split}) for scene in scenes), name)
    if not isinstance(name, str) or name not in FILES:
        raise DataError(
            f"no bundled data {brief(name)}; choose 'medical', 'balanced', 'natural' or 'marked', or read yours with "
            f"jsonl(path).{meant(name, [*rendered, *FILES])}"
        )
    rows = [row for row in _medical(name) if row.meta["split"] == split]
    if n is None:
        return Samples(rows, name)
    if n > len(rows):
        raise DataError(
            f"{name} has {len(rows)} {split} samples; got n={n}. Pass a smaller n, or None for all"
        )
    kept = np.sort(np.random.default_rng(seed).choice(len(rows), n, replace=False))
    return Samples((rows[int(i)] for i in kept), name)


def check_draw(n: Any, seed: Any) -> None:
    """Raises `DataError` unless `n` is None or a number of samples, and `seed` a whole number."""
    counts = isinstance(n, int | np.integer) and not isinstance(n, bool) and 1 <= n <= MOST
    if n is not None and not counts:
        raise DataError(
            f"n is a number of samples, at least 1, or None for all; got {brief(n)}. At most {MOST:,} are drawn at "
            "once."
        )
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise DataError(f"seed is a whole number ≥ 0; got {brief(seed)}")


@cache
def _medical(name: str) -> tuple[Sample, ...]:
    """Every row of the bundled slices; cached, because there are 3,000."""
    return tuple(jsonl(MEDICAL / FILES[name]))
