from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import tests.tiny as own_tiny
from interp.conformance.tiny import tiny
from interp.errors import ModelError, PromptError
from interp.inputs.sample import Sample
from interp.tracing.encoding.batch import (
    Batch,
    Identity,
    Images,
    ImagesKey,
    Layout,
    ProcessedImages,
    alike,
    check_joinable,
    joined_inputs,
    longer,
    sliced,
)
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


def images(value: float = 0.0, **inputs: Any) -> Images:
    return Images({"pixel_values": torch.full((2, 2), value), **inputs})


def test_images_are_known_by_all_that_was_made_of_them():
    """Where the source is known, pixels are not read again; what is no pixel always is."""
    plain = images()
    others = [
        images(1.0),
        images(sizes=torch.tensor([2, 2])),
        images(sizes=torch.tensor([2, 3])),
        Images({"pixels": plain.inputs["pixel_values"]}),
        Images({"pixel_values": torch.zeros(1, 4)}),
        Images({"pixel_values": torch.zeros(2, 2, dtype=torch.float64)}),
        Images(plain.inputs, ("settings", ("a",))),
        Images(plain.inputs, ("settings", ("b",))),
        Images(plain.inputs, ("others", ("a",))),
        Images({**plain.inputs, "sizes": torch.tensor([2, 3])}, ("settings", ("a",))),
    ]
    assert len({one.digest for one in (plain, *others)}) == 11
    assert images().digest == plain.digest
    assert plain.n_bytes == 16
    assert Images({"b": torch.ones(1), "a": torch.zeros(1)}).digest == (
        Images({"a": torch.zeros(1), "b": torch.ones(1)}).digest
    )


def test_content_is_of_the_first_tokens_alone(batch: Batch):
    one, other = batch.singles[0], batch.singles[1]
    ids = one.inputs["input_ids"]
    changed = ids.clone()
    changed[0, 5] += 1
    again = replace(one, inputs={**one.inputs, "input_ids": changed})
    assert one.content(5) == again.content(5)
    assert one.content(6) != again.content(6)
    assert one.content(5) != one.content(6)
    assert one.content(5) != replace(one, images=other.images).content(5)
    masked = {**one.inputs, "attention_mask": torch.zeros_like(one.inputs["attention_mask"])}
    assert one.content(5) != replace(one, inputs=masked).content(5)


def test_more_tokens_are_seen_and_named(batch: Batch):
    one = batch.singles[0]
    n = one.tokens.length
    found = longer(one, [7, 8], {"thought": [0], "end": [1]})
    assert found.inputs["input_ids"][0, n - 1 :].tolist() == [int(one.inputs["input_ids"][0, -1]), 7, 8]
    assert found.inputs["attention_mask"][0, n:].tolist() == [1, 1]
    assert found.tokens.length == n + 2
    assert {name: found.tokens.spans[name].tolist() for name in ("thought", "end")} == {
        "thought": [n],
        "end": [n + 1],
    }
    assert set(one.tokens.spans) < set(found.tokens.spans)


def kept(n: int, budget: int, batch: Batch) -> tuple[ProcessedImages, list[ImagesKey]]:
    """As many encodings of 16 bytes each."""
    store = ProcessedImages(budget)
    keys = [ImagesKey("settings", (str(i),), Identity(None)) for i in range(n)]
    single = replace(batch.singles[0], images=images(), expansions=("x",))
    for key in keys:
        store.keep(key, single)
    return store, keys


def test_images_are_kept_up_to_the_budget(batch: Batch):
    store, keys = kept(3, 48, batch)
    assert all(store.get(key) for key in keys)
    store.keep(keys[0], replace(batch.singles[0], images=images(), expansions=("x",)))  # counted once
    assert all(store.get(key) for key in keys)
    store, keys = kept(3, 47, batch)
    assert [store.get(key) is not None for key in keys] == [False, True, True]


def test_what_was_not_wanted_for_longest_goes_first(batch: Batch):
    store, keys = kept(2, 32, batch)
    store.get(keys[0])
    more = ImagesKey("settings", ("more",), Identity(None))
    store.keep(more, replace(batch.singles[0], images=images(), expansions=("x",)))
    assert [store.get(key) is not None for key in (*keys, more)] == [True, False, True]
    store.forget_but(1)
    assert [store.get(key) is not None for key in (keys[0], more)] == [False, True]


def test_unknown_images_are_not_kept(batch: Batch):
    store = ProcessedImages()
    known, unknown = (ImagesKey("settings", one, Identity(None)) for one in (("a",), None))
    store.keep(unknown, replace(batch.singles[0], expansions=("x",)))
    store.keep(known, replace(batch.singles[0], expansions=None))
    assert store.get(known) is store.get(unknown) is None
    one, other = object(), object()
    adapters = [ImagesKey("settings", ("a",), Identity(of)) for of in (one, other, one)]
    assert adapters[0] == adapters[2] != adapters[1]
    assert len(set(adapters)) == 2


def test_an_encoding_made_ahead_is_for_its_sample_and_prompt(batch: Batch):
    (first, second, _), prompt, single = batch.samples, batch.prompt, batch.singles[0]
    key, other = (ImagesKey(one, ("a",), Identity(None)) for one in ("settings", "others"))

    def ready() -> ProcessedImages:
        store = ProcessedImages()
        store.ready[id(first), prompt] = key, single
        return store

    assert ready().take(second, prompt, key) is None
    assert ready().take(first, replace(prompt, system="be brief"), key) is None
    assert ready().take(first, prompt, other) is None
    store = ready()
    assert store.take(first, prompt, key) is single
    assert store.take(first, prompt, key) is None
    store = ready()
    store.forget_ready([second])
    assert store.ready
    store.forget_ready([first])
    assert not store.ready


def test_values_of_other_sizes_are_filled_at_their_ends():
    wide, high = torch.ones(1, 1, 3), torch.ones(2, 2, 1)
    found = alike([wide, high])
    assert [one.shape for one in found] == [(1, 2, 3), (2, 2, 3)]
    assert found[0][0].tolist() == [[1, 1, 1], [0, 0, 0]]
    assert found[1][0].tolist() == [[1, 0, 0], [1, 0, 0]]


def test_only_floats_are_cast_and_times_are_not(batch: Batch):
    single = batch.singles[0]
    more = {"second_per_grid_ts": torch.tensor([0.1]), "sizes": torch.tensor([[3, 4]])}
    singles = [replace(single, inputs={**single.inputs, **more}), batch.singles[1]]
    device, half = torch.device("cpu"), torch.bfloat16
    adapter: Any = type("Adapter", (), {"name": "mine"})()
    found = joined_inputs(batch.samples[:2], singles, adapter, 9, device, half, {"sizes": torch.ones(1)})
    assert found["pixel_values"].dtype == half
    assert found["second_per_grid_ts"].dtype == torch.float32
    assert found["input_ids"].dtype == torch.long
    assert found["sizes"].tolist() == [1.0]  # known already
    pad = batch.singles[1].tokens.length - single.tokens.length
    assert pad > 0
    assert found["input_ids"][0, : pad + 1].tolist() == [9] * pad + [1]
    assert found["attention_mask"][0, : pad + 1].tolist() == [0] * pad + [1]


def test_videos_of_one_batch_have_one_size():
    video, image = Sample(video=[own_tiny.picture()] * 2, fps=1.0, question="?"), own_tiny.sample()
    frames = [torch.zeros(1, n, 3, 4, 4) for n in (2, 3)]
    sides = [torch.zeros(1, 2, 3, 4, side) for side in (4, 5)]
    check_joinable("pixel_values_videos", sides, [image, image], "mine")
    check_joinable("pixel_values", frames, [video, image], "mine")
    for values, message in (
        (frames, r"same number of frames; these have \[2, 3\]"),
        (sides, "4×4 and 4×5 pixels"),
    ):
        with pytest.raises(ModelError, match=message):
            check_joinable("pixel_values_videos", values, [image, video], "mine")


def test_the_last_position_of_a_model_is_used(batch: Batch):
    """The longest prompt has 40 tokens; the last generated token is not run."""
    batch.check_reach(40)
    batch.check_reach(40, 1)
    batch.check_reach(None, 99)
    for limit, following in ((39, 0), (40, 2)):
        with pytest.raises(PromptError, match=rf"of sample {batch.samples[1].id} \(40 tokens, 16 of them"):
            batch.check_reach(limit, following)


def test_the_largest_word_that_is_embedded(batch: Batch):
    """Image tokens have no embedding of their own."""
    largest = max(int(one.inputs["input_ids"].max()) for one in batch.singles)
    batch.check_words(largest + 1)
    batch.check_words(None)
    with pytest.raises(ModelError, match=f"a token of the id {largest}, but the model embeds ids up to"):
        batch.check_words(largest)


def test_a_prompt_takes_as_many_positions_as_its_furthest_axis(batch: Batch):
    """Of three axes and two samples of four columns, the second with two of padding."""
    axes = torch.tensor(
        [[[0, 1, 2, 3], [0, 0, 0, 1]], [[0, 1, 5, 2], [0, 0, 0, 2]], [[0, 1, 1, 1], [0, 0, 0, 0]]]
    )
    assert replace(batch, positions=axes).extents == (6, 3)
    assert batch.extents == (35, 40, 39)


def test_more_tokens_are_text_by_type(batch: Batch):
    one = batch.singles[0]
    types = torch.ones(1, one.tokens.length, dtype=torch.long)
    found = longer(replace(one, inputs={**one.inputs, "mm_token_type_ids": types}), [7, 8], {})
    assert found.inputs["mm_token_type_ids"][0, -3:].tolist() == [1, 0, 0]
    assert found.inputs["mm_token_type_ids"].dtype == torch.long
    assert found.inputs["pixel_values"] is one.inputs["pixel_values"]
    assert one.inputs["input_ids"].shape[1] == one.tokens.length  # the given encoding stays
