"""Data that comes with the package: real medical slices, and natural scenes rendered on the spot."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from interp.data.jsonl import jsonl
from interp.data.samples import Samples
from interp.data.scenes import natural_samples
from interp.data.shortcut_scenes import marked_samples
from interp.errors import DataError
from interp.inputs.sample import Sample

__all__ = ["MEDICAL", "bundled"]

MEDICAL = Path(__file__).parent / "bundled_medical"
FILES = {"medical": "samples.jsonl", "balanced": "balanced.jsonl"}
SPLITS = ("train", "validation", "test")


def bundled(name: str, split: str = "test", n: int | None = None, seed: int = 0) -> Samples:
    """Returns a bundled data set, offline.

    `"medical"`: closed questions on CT, MR and microscopy slices (see `bundled_medical/SOURCES.md` for
    sources, licences, mask origins and counts). Left and right are sides of the picture; CT and MR are shown
    radiologically, the patient's right on the left. Test volumes are never in train or validation; the group
    is the volume. `n` draws that many rows with `seed`, kept in file order; None takes all of the split.

    `"balanced"`: medical questions made to test answers, not maps (same volumes, same splits): of each nucleus a
    tile with it on the left and one on the right, one in which it is large and one in which it is small; of each
    held-out slice as many structures that are there as certainly are not. Rows of what is not there have no box, so
    an indicator has nothing to be scored against. In train, only absence, where `"medical"` has none.

    `"natural"`: `n` rendered scenes (200 when None) with exact boxes; `seed` chooses the scenes.

    `"marked"`: the same with a coloured marker in a corner, colour questions only: what the shortcut organism
    answers from. The box is the object's; `meta["marker"]` and `meta["marker_answer"]` are the marker's.

    `meta` has `kind` ("localization" or "attribute"), `modality`, `label`, `source`, `licence`,
    `mask_origin` and `split`.

    Raises:
        DataError: an unknown name or split, or more rows than the split has.

    >>> import interp.data
    >>> sample = interp.data.bundled("medical", n=1)[0]
    >>> sorted(sample.meta)
    ['kind', 'label', 'licence', 'mask_origin', 'modality', 'size', 'source', 'split']
    """
    if split not in SPLITS:
        raise DataError(f"no split {split!r}; choose one of {', '.join(SPLITS)}")
    if n is not None and n < 1:
        raise DataError(f"n is a number of samples, at least 1, or None for all; got {n}")
    rendered = {"natural": natural_samples, "marked": marked_samples}
    if name in rendered:
        scenes = rendered[name](split, 200 if n is None else n, seed)
        return Samples((scene.replace(meta={**scene.meta, "split": split}) for scene in scenes), name)
    if name not in FILES:
        raise DataError(
            f"no bundled data {name!r}; choose 'medical', 'balanced', 'natural' or 'marked', or read yours with "
            "jsonl(path)"
        )
    rows = [row for row in _medical(name) if row.meta["split"] == split]
    if n is None:
        return Samples(rows, name)
    if n > len(rows):
        raise DataError(f"{name} has {len(rows)} {split} samples, {n} were asked for")
    kept = np.sort(np.random.default_rng(seed).choice(len(rows), n, replace=False))
    return Samples((rows[int(i)] for i in kept), name)


@cache
def _medical(name: str) -> tuple[Sample, ...]:
    """Every row of the bundled slices; reading 3,000 rows once is enough."""
    return tuple(jsonl(MEDICAL / FILES[name]))
