from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import RunError
from interp.run import make_plan


def test_like_lengths_share_a_micro_batch_and_order_is_by_bucket_then_index() -> None:
    plan = make_plan([40, 3, 41, 5, 300], batch=2, shard=4, bucket=16)
    assert plan.shards == (((1, 3), (0, 2)), ((4,),))
    assert plan.indices(0) == (0, 1, 2, 3)
    assert plan.n_samples == 5


@given(st.lists(st.integers(0, 400), min_size=1, max_size=60), st.integers(1, 5), st.integers(1, 4))
def test_every_sample_is_planned_once(lengths: list[int], batch: int, batches: int) -> None:
    plan = make_plan(lengths, batch=batch, shard=batch * batches)
    planned = [index for shard in range(len(plan.shards)) for index in plan.indices(shard)]
    assert sorted(planned) == list(range(len(lengths)))
    assert all(len(group) <= batch for shard in plan.shards for group in shard)
    assert all(len(plan.indices(shard)) == batch * batches for shard in range(len(plan.shards) - 1))


@pytest.mark.parametrize("sizes", [{"batch": 0}, {"batch": 5, "shard": 32}, {"bucket": 0}])
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(RunError, match="multiple of batch"):
        make_plan([1, 2], **sizes)


def test_no_samples_is_an_error() -> None:
    with pytest.raises(RunError, match="at least one sample"):
        make_plan([])
