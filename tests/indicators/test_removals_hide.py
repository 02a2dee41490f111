"""Tokens hidden by shared prefix equal the naive loop of knockouts, in every family that has a rule of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import interp.tracing.attention.shared_keys as shared_keys
import tests.tiny as small
from interp.conformance.tiny import tiny
from interp.errors import MapError, ModelError, SiteError
from interp.indicators import HideTokens, Removal
from interp.indicators.removals import blocks, places, windows
from interp.inputs.footprints import Footprints, concatenate, lay, pad_to_square
from interp.inputs.prompt import PAPER_PROMPT, Prompt, Target, diff
from interp.inputs.tokens import TokenMap
from interp.tracing import Knockout, Mllm, Site, image_mask, wrap
from tests.indicators.family_models import FAMILIES, OTHER, SAMPLE, family, log_p, masks


def naive(
    mllm: Mllm, removal: HideTokens, variants: np.ndarray, target: Target, prompt: Prompt
) -> list[float]:
    """One trace per variant, through the public edits; answers of several tokens are fed token by token."""
    answer = mllm.score(SAMPLE, target, prompt=prompt).aims[0].answers[0]
    queries = "last" if removal.queries == "last" else ("after_image", "answer")
    found = []
    for mask in variants:
        site = Site(layers=removal.layers, queries=queries, keys=image_mask(mask))
        edits = [Knockout(site, steps="all")] if mask.any() else []
        if target.spec == "greedy":  # what the untouched model says, not what the edited one would
            found.append(log_p(mllm.trace(SAMPLE, prompt, edits=edits).logits.values[0])[answer[0]])
        else:
            found.append(float(mllm.score(SAMPLE, target, prompt=prompt, edits=edits).values[0]))
    return found


@pytest.mark.covering
@pytest.mark.parametrize(("queries", "layers"), [("after_image", "all"), ("last", [1, 2])])
@pytest.mark.parametrize("name", FAMILIES)
def test_it_equals_the_naive_loop(name: str, queries: Any, layers: Any) -> None:
    mllm, removal = family(name), HideTokens(layers, queries)
    variants = masks(mllm.encode([SAMPLE]).tokens[0].n, 3)
    for target in (
        Target(),
        Target(diff("yes", "no") if name == "paligemma" else diff("left lung", "no"), "mean"),
    ):
        found = removal.scores(mllm, SAMPLE, variants, target=target, batch=1)
        expected = naive(mllm, removal, variants, target, PAPER_PROMPT)
        np.testing.assert_allclose(found.values, expected, atol=1e-5)
        assert found.values[0] == found.plain
        assert np.ptp(expected) > 1e-3


def test_hiding_an_image_that_follows_the_question(mllm: Mllm) -> None:
    late = Prompt(image_first=False)
    variants = masks(16, 3)
    for queries in ("after_image", "last"):
        removal = HideTokens(queries=queries)
        found = removal.scores(mllm, SAMPLE, variants, prompt=late).values
        np.testing.assert_allclose(found, naive(mllm, removal, variants, Target(), late), atol=1e-5)


def test_tokens_of_either_image_are_hidden_from_rows_after_both(mllm: Mllm) -> None:
    pair = SAMPLE.replace(images=[SAMPLE.load(), OTHER.load()])
    variants = np.stack([np.arange(32) < 8, np.arange(32) >= 24, np.arange(32) % 3 == 0])
    target = Target(diff("left lung", "no"))
    found = HideTokens().scores(mllm, pair, variants, target=target, batch=2)
    for value, mask in zip(found.values, variants, strict=True):
        edit = Knockout(Site(queries=("after_image", "answer"), keys=image_mask(mask)), steps="all")
        assert value == pytest.approx(mllm.score(pair, target, edits=[edit]).values[0], abs=1e-5)
        assert abs(value - found.plain) > 1e-4


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(small.llava(), small.processor())


def test_batches_and_chunks_change_no_number(mllm: Mllm, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = masks(16, 9)
    expected = HideTokens().scores(mllm, SAMPLE, variants).values
    np.testing.assert_allclose(
        HideTokens().scores(mllm, SAMPLE, variants, batch=1).values, expected, atol=1e-5
    )
    monkeypatch.setattr(shared_keys, "TOGETHER", 60)  # two variants as one sequence, of nine
    np.testing.assert_allclose(HideTokens().scores(mllm, SAMPLE, variants).values, expected, atol=1e-5)
    by_source = HideTokens().scores(mllm.using("source"), SAMPLE, variants).values
    np.testing.assert_allclose(by_source, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_attention_written_out_agrees_with_the_fused_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fused, written = family(name), wrap(*tiny(name, "eager"))
    shapes = masks(fused.encode([SAMPLE]).tokens[0].n, 7)
    removal = HideTokens([1, 2])
    expected = removal.scores(fused, SAMPLE, shapes).values
    calls, product = [], shared_keys.SharedKeys._part
    monkeypatch.setattr(shared_keys.SharedKeys, "_part", lambda *given: calls.append(1) or product(*given))
    np.testing.assert_allclose(removal.scores(written, SAMPLE, shapes).values, expected, atol=1e-5)
    together = len(calls)
    monkeypatch.setattr(shared_keys, "CHUNK_BYTES", 1)
    np.testing.assert_allclose(removal.scores(written, SAMPLE, shapes, batch=6).values, expected, atol=1e-5)
    assert (together, len(calls) - together) == (2, 2 * 6)  # layers, times the variants that hide something


def test_a_variant_costs_the_rows_after_what_is_shared(mllm: Mllm) -> None:
    tokens = mllm.encode([SAMPLE]).tokens[0]
    rows = len(tokens.positions("after_image"))
    every = HideTokens().scores(mllm, SAMPLE, np.eye(16, dtype=bool), batch=4).cost
    assert (every.forwards, every.tokens) == (5, tokens.length + 16 * rows)
    last = HideTokens(queries="last").scores(mllm, SAMPLE, np.eye(16, dtype=bool), batch=1).cost
    assert (last.forwards, last.tokens) == (2, tokens.length + 16)  # short variants go together
    nothing = HideTokens().scores(mllm, SAMPLE, np.zeros((3, 16), bool)).cost
    assert nothing.forwards == 1


def test_it_describes_itself_and_refuses_what_makes_no_sense(mllm: Mllm, unchecked: None) -> None:
    removal = HideTokens([2, 1], "last")
    assert removal.to_dict() == {"removal": "hide_tokens", "layers": [2, 1], "queries": "last"}
    assert isinstance(removal, Removal)
    assert hash(removal) == hash(HideTokens((2, 1), "last"))
    with pytest.raises(SiteError, match="queries of HideTokens is 'after_image' or 'last'; got 'question'"):
        HideTokens(queries="question")  # pyright: ignore[reportArgumentType]
    with pytest.raises(SiteError, match="the model has 3 layers"):
        HideTokens([7]).scores(mllm, SAMPLE, masks(16))
    with pytest.raises(
        MapError, match=r"one column for each of the sample's 16 image tokens.*float64 of shape \(2, 9\)"
    ):
        HideTokens().scores(mllm, SAMPLE, np.ones((2, 9)))
    with pytest.raises(MapError, match="batch is a whole number of at least 1; got 0"):
        HideTokens().scores(mllm, SAMPLE, masks(16), batch=0)
    with pytest.raises(ModelError, match="every row of the prompt sees the whole prompt"):
        HideTokens().scores(family("paligemma"), SAMPLE, masks(16)[:, :4], target=Target("left lung"))


def token_map(footprints: Footprints, *sizes: tuple[int, int]) -> TokenMap:
    n = len(footprints)
    return TokenMap(
        image=np.arange(1, n + 1), footprints=footprints.boxes, grid=footprints.grid, views=footprints.views,
        image_index=footprints.image, sizes=sizes, length=n + 5,
    )  # fmt: skip


def grid(rows: int, cols: int) -> TokenMap:
    return token_map(
        lay((cols * 10, rows * 10), (rows, cols), (0, 0, cols * 10, rows * 10)), (cols * 10, rows * 10)
    )


def tiles() -> TokenMap:
    """A base view of 2×2 tokens of 20 px, a tile view of 4×4 of 10 px on the same image, and a newline."""
    base = lay((40, 40), (2, 2), (0, 0, 40, 40), view="base")
    fine = lay((40, 40), (4, 4), (0, 0, 40, 40), view="tile")
    newline = Footprints(np.full((1, 4), np.nan), None, np.array(["tile"]), np.zeros(1, int))
    return token_map(concatenate([base, fine, newline], one_image=True), (40, 40))


def test_windows_of_a_grid_are_squares_cut_off_at_the_edge() -> None:
    found = windows(grid(4, 5), 3)
    np.testing.assert_array_equal(np.flatnonzero(found[0]), [0, 1, 5, 6])
    np.testing.assert_array_equal(np.flatnonzero(found[7]), [1, 2, 3, 6, 7, 8, 11, 12, 13])
    np.testing.assert_array_equal(windows(grid(4, 5), 1), np.eye(20, dtype=bool))


def test_windows_keep_to_their_view_and_image() -> None:
    found = windows(tiles(), 3)
    np.testing.assert_array_equal(np.flatnonzero(found[0]), [0, 1, 2, 3])
    np.testing.assert_array_equal(np.flatnonzero(found[4]), [4, 5, 8, 9])
    np.testing.assert_array_equal(np.flatnonzero(found[9]), [4, 5, 6, 8, 9, 10, 12, 13, 14])
    assert not found[20].any()
    two = concatenate([lay((20, 20), (2, 2), (0, 0, 20, 20))] * 2)
    np.testing.assert_array_equal(
        windows(token_map(two, (20, 20), (20, 20)), 3), np.kron(np.eye(2), np.ones((4, 4)))
    )


def test_padding_is_in_no_window_and_no_block() -> None:
    wide = token_map(pad_to_square((80, 40), (4, 4)), (80, 40))
    assert not windows(wide, 3)[:4].any()
    np.testing.assert_array_equal(blocks(wide, 2).reshape(4, 4)[[0, 3]], -1)
    np.testing.assert_array_equal(blocks(wide, 2).reshape(4, 4)[1:3], [[0, 0, 1, 1], [2, 2, 3, 3]])


def test_places_count_in_the_smallest_tokens_however_few() -> None:
    """Four tokens of 20 px, and two of 10 px on their upper left corner."""
    base = lay((40, 40), (2, 2), (0, 0, 40, 40), view="base")
    fine = lay((40, 40), (1, 2), (0, 0, 20, 10), view="tile")
    found = places(token_map(concatenate([base, fine], one_image=True), (40, 40)))
    np.testing.assert_allclose(found, [[0.5, 0.5], [0.5, 2.5], [2.5, 0.5], [2.5, 2.5], [0, 0], [0, 1]])


def oblong() -> TokenMap:
    """A base view of 2×2 tokens of 40×10 px, and a tile view of 2×4 of 20×10 px on the image's left half."""
    base = lay((160, 20), (2, 2), (0, 0, 80, 20), view="base")
    fine = lay((160, 20), (2, 4), (0, 0, 80, 20), view="tile")
    return token_map(concatenate([base, fine], one_image=True), (160, 20))


def test_tokens_wider_than_high_have_their_own_neighbours() -> None:
    found = windows(oblong(), 3)
    np.testing.assert_array_equal(np.flatnonzero(found[4]), [4, 5, 8, 9])
    np.testing.assert_array_equal(np.flatnonzero(found[6]), [5, 6, 7, 9, 10, 11])
    np.testing.assert_array_equal(windows(oblong(), 1), np.eye(12, dtype=bool))
    np.testing.assert_allclose(
        places(oblong()),
        [[0, 0.5], [0, 2.5], [1, 0.5], [1, 2.5], *([row, col] for row in range(2) for col in range(4))],
    )


def test_each_image_is_counted_in_its_own_tokens() -> None:
    """A grid of 2×2 tokens of 10 px, and one of 1×3 of 20×5 px."""
    two = concatenate([lay((20, 20), (2, 2), (0, 0, 20, 20)), lay((60, 5), (1, 3), (0, 0, 60, 5))])
    found = token_map(two, (20, 20), (60, 5))
    np.testing.assert_allclose(places(found), [[0, 0], [0, 1], [1, 0], [1, 1], [0, 0], [0, 1], [0, 2]])
    np.testing.assert_array_equal(blocks(found, 2), [0, 0, 0, 0, 1, 1, 2])


def test_blocks_of_two_images_are_two_blocks() -> None:
    two = concatenate([lay((20, 20), (2, 2), (0, 0, 20, 20))] * 2)
    number = blocks(token_map(two, (20, 20), (20, 20)), 2)
    np.testing.assert_array_equal(number, [0] * 4 + [1] * 4)


def test_views_that_show_one_place_share_a_block() -> None:
    number = blocks(tiles(), 2)
    np.testing.assert_array_equal(number[:4], [0, 1, 2, 3])
    np.testing.assert_array_equal(number[4:20].reshape(4, 4), np.kron([[0, 1], [2, 3]], np.ones((2, 2), int)))
    assert number[20] == -1
    np.testing.assert_allclose(places(tiles())[4:6], [[0, 0], [0, 1]])


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.data())
def test_blocks_are_a_shifted_lattice_numbered_without_gaps(
    rows: int, cols: int, side: int, data: st.DataObject
) -> None:
    dy, dx = (data.draw(st.integers(0, side - 1)) for _ in range(2))
    found = blocks(grid(rows, cols), side, [dy, dx]).reshape(rows, cols)
    y, x = np.divmod(np.arange(rows * cols), cols)
    keys = [(int((a + dy) // side), int((b + dx) // side)) for a, b in zip(y, x, strict=True)]
    order = {key: i for i, key in enumerate(sorted(set(keys)))}
    np.testing.assert_array_equal(found.reshape(-1), [order[key] for key in keys])
