from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from interp.run.task import Columns, joined_rows, table_of

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
    mixed = joined_rows([columns(1), [{"index": 2, "name": "x", "value": 0.5}]])
    assert mixed == [{"index": 1, "name": "n1", "value": 0.1}, {"index": 2, "name": "x", "value": 0.5}]


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"columns have one length; got .'index': 2, 'value': 1."):
        Columns({"index": [1, 2], "value": [0.5]})
