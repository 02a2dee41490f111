"""What a study asks of its samples before any model sees them: identity, group, faults, length."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

from interp.data import Samples
from interp.errors import InterpError, SampleError
from interp.sample import Sample

__all__ = ["data_identity", "fault", "group_of", "question_length"]


def data_identity(samples: Samples) -> dict[str, Any]:
    """The data as a study's JSON names them: by content, and by the ids that the tables will show.

    An image that cannot be read counts by its sample's id: it becomes a failure, not the end of the study.
    """
    return {
        "fingerprint": _hashed(samples, _content),
        "ids": _hashed(samples, lambda sample: sample.id),
        "n": len(samples),
    }


def _hashed(samples: Samples, word: Callable[[Sample], str]) -> str:
    return hashlib.sha256("\n".join(word(sample) for sample in samples).encode()).hexdigest()


def _content(sample: Sample) -> str:
    try:
        return sample.fingerprint
    except InterpError:
        return f"unreadable {sample.id}"


def group_of(sample: Sample) -> str:
    """The sample's group; without one, its image, because questions about one image are not independent."""
    if sample.group is not None:
        return str(sample.group)
    image = sample.images[0]
    return os.fspath(image) if isinstance(image, str | os.PathLike) else sample.id


def fault(sample: Sample, *, boxes: bool = True) -> tuple[str, str] | None:
    """What is wrong with a sample, as (error, reason); None when its header and boxes are in order.

    Args:
        sample: The sample.
        boxes: Whether it must have some.
    """
    try:
        if boxes and not sample.boxes:
            raise SampleError("the sample has no box, so there is nothing to score a map against.")
        sample.check()
        _ = sample.sizes
    except InterpError as error:
        return type(error).__name__, str(error)
    return None


def question_length(sample: Sample) -> int:
    """A number that grows with the length of any prompt that asks the question; an image counts for more."""
    options = sum(len(option) + 4 for option in sample.options or ())
    return len(sample.question) + options + 10_000 * len(sample.images)
