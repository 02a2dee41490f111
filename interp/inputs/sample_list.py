"""Lists of samples: what is accepted as one everywhere, and which of its samples run together.

Samples of the same images run together, then those of like length.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from interp.errors import InterpError, SampleError
from interp.inputs.sample import Sample

__all__ = ["BUCKET", "as_samples", "image_key", "pack", "question_length"]


_ASKED = '"What is in the image?"'


def as_samples(samples: Any) -> tuple[Sample, ...]:
    """Returns the samples as a tuple; one sample is a tuple of one.

    Raises:
        SampleError: Anything else; the message says how to make a `Sample` of what was given.
    """
    if isinstance(samples, Sample):
        return (samples,)
    if not _listed(samples):
        raise SampleError(f"expected samples; got {_shown(samples)}. {_advice(samples)}")
    if isinstance(samples, set | frozenset):
        raise SampleError(
            "samples are a list, because results come in their order; got a set. Write list(samples)."
        )
    found: list[Sample] = []
    for place, one in enumerate(samples):
        if not isinstance(one, Sample):
            raise SampleError(
                f"expected interp.Sample values; got {_shown(one)} at place {place}. "
                f"{_advice(samples if _row(samples) else one)}"
            )
        found.append(one)
    if not found:
        raise SampleError("expected at least one sample; got none.")
    return tuple(found)


def _listed(samples: Any) -> bool:
    """Whether it is a collection that could hold samples."""
    if isinstance(samples, str | bytes | os.PathLike | Mapping | Image.Image) or _table(samples):
        return False
    shape = getattr(samples, "shape", None)
    if shape is not None and not _row(samples):
        return isinstance(samples, np.ndarray) and samples.dtype == object and samples.ndim == 1
    return isinstance(samples, Iterable)


def _table(value: Any) -> bool:
    """Whether it is a table of pandas."""
    return hasattr(value, "iterrows")


def _row(value: Any) -> bool:
    """Whether it is a row or column of pandas."""
    return hasattr(value, "to_dict") and hasattr(value, "iloc") and not _table(value)


def _shown(value: Any) -> str:
    """The value in an error: texts as they are, of others the type, because images are long."""
    if isinstance(value, str | bytes | os.PathLike | bool | int | float | type(None)):
        return f"{value!r:.200}"
    return f"a {type(value).__name__}"


def _advice(value: Any) -> str:
    """How to make a sample of it."""
    if isinstance(value, str | os.PathLike):
        return f"For an image at that path write interp.Sample({os.fspath(value)!r}, {_ASKED})."
    if _table(value):
        return 'Write [interp.Sample.from_dict(row) for row in table.to_dict("records")].'
    if _row(value):
        return "Write interp.Sample.from_dict(row.to_dict())."
    if isinstance(value, Mapping):
        if value and all(isinstance(one, Sample) for one in value.values()):
            return "Write list(samples.values())."
        return "Write interp.Sample.from_dict(record), with the keys image and question."
    if isinstance(value, Image.Image) or hasattr(value, "shape"):
        return f"For an image in memory write interp.Sample(image, {_ASKED})."
    if isinstance(value, Sequence) and len(value) == 2 and all(isinstance(one, str) for one in value):
        image, question = value
        return f"Write interp.Sample({image!r}, {question!r})."
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        if value and all(isinstance(one, Sample) for one in value):
            return "Give one flat list of samples."
        return "Write [interp.Sample(image, question) for image, question in pairs]."
    if hasattr(value, "singles") or hasattr(value, "batch"):
        return "It is encoded already: give it to trace, score, an indicator or a method as it is."
    return f'Write interp.Sample("image.png", {_ASKED}).'


BUCKET = 16
"""Lengths closer than this may be padded together."""


def pack(
    lengths: Sequence[int], size: int, *, kinds: Sequence[Hashable] | None = None, bucket: int = BUCKET
) -> list[tuple[int, ...]]:
    """Micro-batches of at most `size` sample indices, each sample in one of them; they depend on the arguments alone.

    Kinds are sorted by (longest length // bucket, first index) and packed in that order. A kind of more samples than
    `size` begins a micro-batch of its own and is cut into as many as it takes; none other is cut.

    Args:
        lengths: One number per sample that grows with its cost, such as a token count.
        size: Samples in a micro-batch at most, 1 or more.
        kinds: Equal for samples that share work, such as their image; by default each sample is of its own.
        bucket: Lengths closer than this may be padded together.

    >>> pack([40, 3, 41, 5], 2)
    [(1, 3), (0, 2)]
    """
    members: dict[Hashable, list[int]] = {}
    for index in range(len(lengths)):
        members.setdefault(index if kinds is None else kinds[index], []).append(index)
    batches: list[tuple[int, ...]] = []
    for own in sorted(members.values(), key=lambda own: (max(lengths[i] for i in own) // bucket, own[0])):
        if batches and len(batches[-1]) + len(own) <= size:
            batches[-1] += tuple(own)
        else:
            batches += [tuple(own[start : start + size]) for start in range(0, len(own), size)]
    return batches


def image_key(sample: Sample) -> str:
    """Equal for samples of the same images, by content; a sample's own where they cannot be read."""
    try:
        return " ".join(sample.image_fingerprints)
    except InterpError:
        return f"unreadable {sample.id}"


def question_length(sample: Sample) -> int:
    """A number that grows with the length of any prompt that asks the question; an image counts for more."""
    options = sum(len(option) + 4 for option in sample.options or ())
    return len(sample.question) + options + 10_000 * len(sample.images)
