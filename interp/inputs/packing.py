"""Which samples run together: those of the same images, then those of like length."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from interp.errors import InterpError
from interp.inputs.sample import Sample

__all__ = ["BUCKET", "image_key", "pack", "question_length"]

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
