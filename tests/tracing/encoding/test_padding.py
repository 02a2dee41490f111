from __future__ import annotations

import numpy as np

from interp.tracing.encoding.batch import Layout


def test_whole_prompts_are_pushed_right():
    layout = Layout.whole([3, 5])
    assert [c.tolist() for c in layout.columns] == [[2, 3, 4], [0, 1, 2, 3, 4]]
    assert (layout.n_samples, layout.n_columns, layout.n_queries, layout.offset) == (2, 5, 5, 0)
    assert [rows.tolist() for rows in layout.rows([np.array([0, 2]), np.array([4])])] == [[2, 4], [4]]


def test_heads_and_rests_are_each_pushed_right():
    layout = Layout.suffix([2, 4], [5, 6])
    # columns: 4 of the prefix, 3 of the rest
    assert [c.tolist() for c in layout.columns] == [[2, 3, 4, 5, 6], [0, 1, 2, 3, 5, 6]]
    assert (layout.n_columns, layout.n_queries, layout.offset) == (7, 3, 4)
    found = layout.rows([np.array([2, 4]), np.array([3, 4, 5])])
    assert [rows.tolist() for rows in found] == [[0, 2], [-1, 1, 2]]
