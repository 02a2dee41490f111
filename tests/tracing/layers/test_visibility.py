from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.models.families.llava import Llava
from interp.tracing import wrap
from interp.tracing.layers.visibility import Visibility, chunks, windows
from interp.tracing.prefix import exact


def prompt() -> TokenMap:
    """T I I T I I I T: two runs of image tokens."""
    image = np.array([1, 2, 4, 5, 6])
    return TokenMap(image, np.full((5, 4), np.nan), None, np.full(5, ""), np.zeros(5, int), ((8, 8),), 8)


@pytest.mark.parametrize(
    ("attends", "last"),
    [
        ("causal", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("image_blocks", [0, 2, 2, 3, 6, 6, 6, 7]),
        ("sliding_image_blocks", [0, 2, 2, 3, 6, 6, 6, 7]),
        ("images", [0, 6, 6, 3, 6, 6, 6, 7]),
        ("prefix", [7] * 8),
    ],
)
def test_the_horizon_is_the_last_position_a_row_sees(attends, last):
    assert Visibility(attends).horizon(prompt()).tolist() == last


@pytest.mark.parametrize(
    ("attends", "layer", "row", "seen"),
    [
        ("causal", 0, 5, [0, 1, 2, 3, 4, 5]),
        ("causal", 1, 5, [4, 5]),
        ("image_blocks", 1, 6, [4, 5, 6]),
        ("image_blocks", 1, 4, [3, 4, 5, 6]),
        ("image_blocks", 1, 3, [2, 3]),
        ("sliding_image_blocks", 1, 6, [5, 6]),
        ("sliding_image_blocks", 1, 4, [3, 4, 5, 6]),
        ("sliding_image_blocks", 0, 4, [0, 1, 2, 3, 4]),
        ("images", 0, 4, [0, 1, 2, 3, 4, 5, 6]),
        ("images", 0, 1, [0, 1, 2, 4, 5, 6]),
        ("images", 0, 3, [0, 1, 2, 3]),
        ("prefix", 1, 0, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_windows_cut_what_comes_before_but_no_image_block(attends, layer, row, seen):
    assert Visibility(attends, (None, 2)).seen(prompt(), row, layer).tolist() == seen


def test_chunks_begin_anew():
    sees = Visibility(windows=(None, None), chunks=(4, None))
    seen = [sees.seen(prompt(), row, 0).tolist() for row in (3, 4, 7)]
    assert seen == [[0, 1, 2, 3], [4], [4, 5, 6, 7]]
    assert sees.seen(prompt(), 7, 1).tolist() == list(range(8))
    assert (sees.limits, sees.narrowest) == ((4, None), 4)
    assert sees.windows_fit([2, 3], [4, 5])
    assert not sees.windows_fit([2, 3], [4, 6])
    kinds = SimpleNamespace(layer_types=["chunked_attention", "full_attention"], attention_chunk_size=4)
    assert chunks(kinds, 2) == (4, None)
    assert chunks(SimpleNamespace(), 2) == (None, None)


@pytest.mark.parametrize(
    ("attends", "lengths"),
    [
        ("causal", [1, 2, 3, 4, 5, 6, 7]),
        ("image_blocks", [1, 3, 4, 7]),
        ("sliding_image_blocks", [1, 3, 4, 7]),
        ("images", [1, 7]),
        ("prefix", []),
    ],
)
def test_a_prefix_is_exact_where_no_row_of_it_sees_what_follows(attends, lengths):
    found = [n for n in range(9) if exact([n], [prompt()], Visibility(attends))]
    assert found == lengths


def test_a_prefix_is_not_exact_where_read_or_beyond_windows():
    tokens = [prompt(), prompt()]
    assert exact([3, 3], tokens, Visibility(), [3, None])
    assert not exact([3, 3], tokens, Visibility(), [2, None])
    assert not exact([3, 4], tokens, Visibility("causal", (None, 6)))  # padding would lie inside the window
    assert exact([3, 4], tokens, Visibility("causal", (None, 9)))
    assert not exact([3, 4], tokens, Visibility("causal", (None, 9)), generate=1)
    assert exact([3, 3], tokens, Visibility("causal", (None, 6)))


def test_a_prompt_without_images_has_no_blocks():
    text = TokenMap(np.empty(0, int), np.empty((0, 4)), None, np.empty(0, str), np.empty(0, int), (), 3)
    assert Visibility("image_blocks").horizon(text).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"sliding_window": None}, (None, None)),
        ({}, (None, None)),
        ({"sliding_window": 7}, (7, 7)),
        ({"sliding_window": 7, "use_sliding_window": False}, (None, None)),
        ({"sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"]}, (7, None)),
    ],
)
def test_windows_of_a_config(config, expected):
    assert windows(SimpleNamespace(**config), 2) == expected


def test_an_adapter_that_attends_otherwise_is_refused():
    class Odd(Llava):
        attends = "everywhere"

    mllm = wrap(*tiny("llava"), adapter=Odd())
    with pytest.raises(
        ModelError,
        match="one of causal, image_blocks, sliding_image_blocks, images, prefix; llava has 'everywhere'",
    ):
        mllm.trace([Sample(np.zeros((8, 8, 3), np.uint8), "is it?")])
