"""The order of work, fixed before it starts, so that neither kills nor workers can change a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interp.errors import RunError

__all__ = ["Plan", "make_plan"]


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


def make_plan(lengths: Sequence[int], *, batch: int = 8, shard: int = 32, bucket: int = 16) -> Plan:
    """The plan that batches samples of like length together.

    Samples are sorted by (length // bucket, index) and cut into micro-batches of `batch`, which never
    straddle a shard of `shard` samples. The plan depends on its arguments alone.

    Args:
        lengths: One number per sample that grows with its cost, such as a token count.
        batch: Samples per forward pass.
        shard: Samples per file; the most work a kill can lose.
        bucket: Lengths closer than this may be padded together.

    Raises:
        RunError: There are no samples, `batch`, `shard` or `bucket` is below 1, or `shard` is not a
            multiple of `batch`.
    """
    if not lengths:
        raise RunError("expected at least one sample to plan for, got none. Is the data's filter too strict?")
    if min(batch, shard, bucket) < 1 or shard % batch:
        raise RunError(
            f"expected batch ≥ 1, bucket ≥ 1 and a shard that is a multiple of batch, got batch={batch}, "
            f"bucket={bucket}, shard={shard}. Pass for instance batch=8, shard=32."
        )
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index] // bucket, index))
    files = [order[start : start + shard] for start in range(0, len(order), shard)]
    return Plan(
        tuple(
            tuple(tuple(file[start : start + batch]) for start in range(0, len(file), batch))
            for file in files
        )
    )
