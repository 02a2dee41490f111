from __future__ import annotations

import numpy as np
import torch

from interp.conformance.tiny import tiny
from interp.tracing.encoding.batch import Layout, sliced
from interp.tracing.layers.rope import position_ids


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


def test_padding_does_not_count():
    inputs = {"attention_mask": torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])}
    assert position_ids(object(), inputs).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]
    assert position_ids(object(), inputs, first=1).tolist() == [[1, 1, 1, 2], [1, 2, 3, 4]]


def test_qwens_image_tokens_have_a_row_and_a_column():
    hf, _ = tiny("qwen2_5_vl")
    image = hf.config.image_token_id
    ids = torch.tensor([[0, 9, *[image] * 6, 9, 9]])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.tensor([[0] + [1] * 9]),
        "mm_token_type_ids": (ids == image).long(),
        "image_grid_thw": torch.tensor([[1, 4, 6]]),
    }
    time, row, column = position_ids(hf, inputs)[:, 0, 1:].tolist()
    assert time == [0, 1, 1, 1, 1, 1, 1, 4, 5]
    assert row == [0, 1, 1, 1, 2, 2, 2, 4, 5]
    assert column == [0, 1, 2, 3, 1, 2, 3, 4, 5]


def test_slices_are_padded_on_the_left():
    values = torch.arange(10).reshape(2, 5)
    assert sliced(values, [1, 4], [4, 5], fill=-1).tolist() == [[1, 2, 3], [-1, -1, 9]]
    assert sliced(torch.stack([values, -values]), [0, 3], [1, 5]).tolist() == [
        [[0, 0], [8, 9]],
        [[0, 0], [-8, -9]],
    ]
