"""The order of work, fixed before it starts, so that neither kills nor workers can change a result."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from interp.errors import RunError
from interp.inputs.sample_list import BUCKET, pack

__all__ = ["Plan", "as_part", "make_plan", "shards_of"]


@dataclass(frozen=True)
class Plan:
    """Shards of micro-batches of sample indices: `shards[shard][batch]` is a tuple of indices."""

    shards: tuple[tuple[tuple[int, ...], ...], ...]

    def indices(self, shard: int) -> tuple[int, ...]:
        """The sample indices of one shard, ascending."""
        return tuple(sorted(index for batch in self.shards[shard] for index in batch))

    @property
    def n_samples(self) -> int:
        """The number of samples over all shards."""
        return sum(len(batch) for shard in self.shards for batch in shard)


def make_plan(
    lengths: Sequence[int],
    *,
    batch: int = 8,
    shard: int = 32,
    bucket: int = BUCKET,
    kinds: Sequence[Hashable] | None = None,
) -> Plan:
    """The plan that batches samples of one kind together, and kinds of like length, as `pack` does.

    A shard has shard // batch micro-batches. The plan depends on its arguments alone.

    Args:
        lengths: One number per sample that grows with its cost, such as a token count.
        batch: Samples per forward pass at most.
        shard: Samples per file at most; the most work a kill can lose.
        bucket: Lengths closer than this may be padded together.
        kinds: Equal for samples that share work, such as their image; by default each sample is of its own.

    Raises:
        RunError: There are no samples, `batch`, `shard` or `bucket` is below 1, or `shard` is not a
            multiple of `batch`; another number of kinds than of samples.
    """
    if not lengths:
        raise RunError("expected at least one sample to plan for, got none. Is the data's filter too strict?")
    if min(batch, shard, bucket) < 1 or shard % batch:
        raise RunError(
            f"expected batch ≥ 1, bucket ≥ 1 and a shard that is a multiple of batch, got batch={batch}, "
            f"bucket={bucket}, shard={shard}. Pass for instance batch=8, shard=32."
        )
    if kinds is not None and len(kinds) != len(lengths):
        raise RunError(f"expected one kind per sample, got {len(kinds)} for {len(lengths)} samples.")
    batches, width = pack(lengths, batch, kinds=kinds, bucket=bucket), shard // batch
    return Plan(tuple(tuple(batches[start : start + width]) for start in range(0, len(batches), width)))


def as_part(text: str) -> tuple[int, int] | None:
    """The part "i/n" names, as (i, n) with 1 ≤ i ≤ n; None for an empty text, which means everything.

    >>> as_part("1/3")
    (1, 3)

    Raises:
        RunError: The text is not of that form.
    """
    if text == "":
        return None
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip()) if isinstance(text, str) else None
    part = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= part[0] <= part[1]:
        raise RunError(f"expected a part i/n with 1 ≤ i ≤ n, such as 1/3, got {text!r}.")
    return part


def shards_of(part: tuple[int, int] | None, n_shards: int) -> tuple[int, ...]:
    """The shards of part i of n: every n-th, from the i-th on, so that parts cost alike; all without a part.

    The parts 1/n … n/n are disjoint and make up the whole. With more parts than shards some are empty.

    Raises:
        RunError: The part is not (i, n) with 1 ≤ i ≤ n.
    """
    if part is None:
        return tuple(range(n_shards))
    pair = tuple(part) if isinstance(part, tuple | list) else ()
    if len(pair) != 2 or not all(type(one) is int for one in pair) or not 1 <= pair[0] <= pair[1]:
        raise RunError(
            f"expected a part (i, n) with 1 ≤ i ≤ n, such as (1, 3), got {part!r}. interp.run.as_part reads a text "
            f'such as "1/3".'
        )
    number, of = pair
    return tuple(range(number - 1, n_shards, of))
