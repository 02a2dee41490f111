"""Image prefixes that traces share, found by what they are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from interp.tracing.encode import Batch
from interp.tracing.prefix import Prefix

__all__ = ["Holder", "Prefixes"]


Holder = Callable[[str, Callable[[], Any], Callable[[Any], int]], tuple[Any, bool]]
"""Holds values by key. From a key, a function that makes its value and one that says how many bytes that takes:
the value, and whether it was there."""


@dataclass(frozen=True, eq=False)
class Prefixes:
    """Where a model's traces find image prefixes, and leave those they had to make. See `Mllm.sharing`.

    A prefix is known by the model, the tokens of the batch's prompts up to the last image token, and the pixels:
    never by which object or which file a sample is. So a prefix that is found holds the keys and values that it
    would hold if it were made, bit for bit.

    Attributes:
        holder: What keeps them.
        model: Says which model it is: its fingerprint, dtype and device.
    """

    holder: Holder
    model: str

    def of(self, batch: Batch, lengths: Sequence[int], make: Callable[[], Prefix]) -> Prefix:
        """The prefix of this batch, whose prompts' prefixes have these lengths."""
        found, known = self.holder(f"prefix {self._content(batch, lengths)}", make, _n_bytes)
        return replace(found, batch=batch) if known else found

    def _content(self, batch: Batch, lengths: Sequence[int]) -> str:
        content = hashlib.sha256(self.model.encode())
        for single, n in zip(batch.singles, lengths, strict=True):
            content.update(single.content(n))
        return content.hexdigest()


def _n_bytes(prefix: Prefix) -> int:
    """What its keys and values take, and the pixels of its batch."""
    tensors = (*prefix.keys, *prefix.values, *prefix.batch.inputs.values())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
