from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import RunError
from interp.run import ProcessCache, as_part, make_plan, run_task
from interp.run.plan import shards_of
from interp.run.task import Columns, failure, joined_rows, table_of
from tests.run.fake_task import Roots

SCHEMA = pa.schema(
    [("index", pa.int64()), ("name", pa.dictionary(pa.int32(), pa.string())), ("value", pa.float64())]
)


def columns(*index: int) -> Columns:
    """Rows of these samples, their value a tenth of the sample's number."""
    return Columns(
        {"index": np.array(index), "name": [f"n{i}" for i in index], "value": np.array(index) / 10}
    )


def test_columns_and_dictionaries_make_the_same_table() -> None:
    given = columns(4, 2, 2)
    rows = [{"index": i, "name": f"n{i}", "value": i / 10} for i in (4, 2, 2)]
    assert list(given) == rows
    assert table_of(given, SCHEMA).to_pylist() == table_of(rows, SCHEMA).to_pylist()
    assert table_of(given, SCHEMA).column("index").to_pylist() == [2, 2, 4]


def test_rows_of_one_sample_keep_their_order() -> None:
    given = Columns({"index": np.array([1, 0, 1, 0]), "value": np.array([1.0, 2.0, 3.0, 4.0])})
    assert table_of(given, SCHEMA).column("value").to_pylist() == [2.0, 4.0, 1.0, 3.0]
    assert table_of(given, SCHEMA).column("name").null_count == 4


def test_joining_keeps_columns_only_where_all_have_the_same() -> None:
    joined = joined_rows([columns(1, 2), (), columns(3)])
    assert isinstance(joined, Columns)
    assert list(joined.values["index"]) == [1, 2, 3]
    assert joined_rows([]) == joined_rows([(), []]) == []
    mixed = joined_rows([columns(1), [{"index": 2, "name": "x", "value": 0.5}]])
    parts = [columns(1), Columns({"index": np.array([2])})]
    assert joined_rows(parts)[1] == {"index": 2}
    assert mixed == [{"index": 1, "name": "n1", "value": 0.1}, {"index": 2, "name": "x", "value": 0.5}]


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"columns have one length; got .'index': 2, 'value': 1."):
        Columns({"index": [1, 2], "value": [0.5]})


def size(value: str) -> int:
    return len(value)


def test_a_value_is_made_once_and_found_after() -> None:
    shelf, made = ProcessCache(10), []

    def make() -> str:
        made.append(1)
        return "four"

    assert [shelf.once("a", make, size) for _ in range(3)] == [
        ("four", False),
        ("four", True),
        ("four", True),
    ]
    assert len(made) == 1
    assert shelf.n_bytes == 4


def test_the_least_recently_used_goes_first() -> None:
    shelf = ProcessCache(10)
    for key in "ab":
        shelf.once(key, lambda: "four", size)
    assert shelf.once("a", lambda: "never", size) == ("four", True)  # now "b" was used longest ago
    shelf.once("c", lambda: "four", size)
    assert shelf.n_bytes == 8
    assert [shelf.once(key, lambda: "again", size)[1] for key in "ac"] == [True, True]
    assert shelf.once("b", lambda: "again", size) == ("again", False)
    assert shelf.n_bytes <= 10


def test_a_value_larger_than_the_budget_is_given_and_not_kept() -> None:
    shelf = ProcessCache(3)
    shelf.once("small", lambda: "two", size)
    assert shelf.once("large", lambda: "four", size) == ("four", False)
    assert shelf.once("large", lambda: "four", size) == ("four", False)
    assert shelf.once("small", lambda: "?", size) == ("two", True)
    full = ProcessCache(4)
    full.once("four", lambda: "four", size)
    assert full.once("four", lambda: "?", size) == ("four", True)  # as large as the budget is small enough


def test_what_fails_leaves_nothing() -> None:
    shelf = ProcessCache()
    with pytest.raises(ZeroDivisionError):
        shelf.once("a", lambda: 1 // 0, lambda _: 1)
    assert shelf.once("a", lambda: 2, lambda _: 1) == (2, False)


def test_clearing_keeps_the_model_and_another_model_clears() -> None:
    shelf, opened = ProcessCache(), []

    def load() -> int:
        opened.append(shelf.n_bytes)
        assert shelf._model is None  # two models at a time may not fit
        return len(opened)

    assert (shelf.model("one", load), shelf.model("one", load)) == (1, 1)
    assert shelf.clear() is False
    shelf.once("a", lambda: "four", size)
    assert shelf.clear() is True
    assert shelf.model("one", load) == 1
    shelf.once("a", lambda: "four", size)
    assert shelf.model("two", load) == 2
    assert opened == [0, 0]  # what belonged to the last model was gone before the next was loaded
    assert shelf.model("one", load) == 3


def test_like_lengths_share_a_micro_batch() -> None:
    plan = make_plan([40, 3, 41, 5, 300], batch=2, shard=4, bucket=16)
    assert plan.shards == (((1, 3), (0, 2)), ((4,),))
    assert plan.indices(0) == (0, 1, 2, 3)
    assert plan.n_samples == 5


def test_lengths_closer_than_the_bucket_are_alike() -> None:
    lengths = [30, 3, 31, 4]
    assert make_plan(lengths, batch=2, shard=4, bucket=100).shards == (((0, 1), (2, 3)),)
    assert make_plan(lengths, batch=2, shard=4, bucket=16).shards == (((1, 3), (0, 2)),)


def test_a_failure_holds_text_that_can_be_stored() -> None:
    row = failure(Roots(), 5, "ImageError", "a.png\udcff", layer=2, metric="ar", control="boxes")
    assert {name: row[name] for name in ("index", "sample", "group", "layer", "metric", "control")} == {
        "index": 5, "sample": "sample-5", "group": "group-2", "layer": 2, "metric": "ar", "control": "boxes"
    }  # fmt: skip
    row["reason"].encode()


def test_samples_of_one_kind_share_a_micro_batch() -> None:
    plan = make_plan([5, 40, 6, 7, 41, 5], batch=4, shard=8, kinds=["a", "b", "a", "c", "b", "a"])
    assert plan.shards == (((0, 2, 5, 3), (1, 4)),)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=60), st.integers(1, 5))
def test_only_kinds_larger_than_a_micro_batch_are_cut(kinds: list[int], batch: int) -> None:
    plan = make_plan([0] * len(kinds), batch=batch, shard=batch, kinds=kinds)
    groups = [group for shard in plan.shards for group in shard]
    assert sorted(index for group in groups for index in group) == list(range(len(kinds)))
    for kind in set(kinds):
        parts = sum(any(kinds[i] == kind for i in group) for group in groups)
        assert parts == -(-kinds.count(kind) // batch)


def test_another_number_of_kinds_than_samples_is_refused() -> None:
    with pytest.raises(RunError, match="one kind per sample"):
        make_plan([1, 2], kinds=["a"])


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


@given(st.integers(0, 40), st.integers(1, 9))
def test_parts_are_disjoint_alike_in_size_and_make_up_the_whole(n_shards: int, of: int) -> None:
    parts = [shards_of((number, of), n_shards) for number in range(1, of + 1)]
    assert sorted(shard for part in parts for shard in part) == list(range(n_shards))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert shards_of(None, n_shards) == tuple(range(n_shards))


def test_a_part_is_written_i_of_n() -> None:
    assert [as_part(text) for text in ("1/3", " 2/3 ", "3/3", "1/1")] == [(1, 3), (2, 3), (3, 3), (1, 1)]
    assert as_part("") is None
    for wrong in ("0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/3/5"):
        with pytest.raises(RunError, match=rf"1 ≤ i ≤ n, such as 1/3, got '{wrong}'"):
            as_part(wrong)


@pytest.mark.parametrize("part", ["1/2", (1,), (1, 2, 3), (True, 2), (1.0, 2), (0, 2), (3, 2), 5, {1: 2}])
def test_a_part_is_a_pair_of_whole_numbers(tmp_path: Path, unchecked: None, part: Any) -> None:
    with pytest.raises(RunError, match=r"expected a part \(i, n\) with 1 ≤ i ≤ n, such as \(1, 3\), got"):
        run_task(Roots(n=4), tmp_path, part=part)


@pytest.mark.parametrize("workers", ["2", 0, -1, 1.5, True, None])
def test_workers_are_a_whole_number(tmp_path: Path, unchecked: None, workers: Any) -> None:
    with pytest.raises(RunError, match="expected a whole number of workers ≥ 1, got"):
        run_task(Roots(n=4), tmp_path, workers=workers)


def test_a_part_is_read_from_text(unchecked: None) -> None:
    assert as_part("2/3") == (2, 3)
    for text in ("3/2", "1", "a/b", "١/٢", 5, None):
        with pytest.raises(RunError, match="expected a part i/n with 1 ≤ i ≤ n"):
            as_part(text)  # pyright: ignore[reportArgumentType]
