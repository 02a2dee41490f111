"""Passes that take up a kept one: equal to eager attention written out, to unshared traces, and never wasted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import tests.tiny as small
from interp.conformance.tiny import tiny
from interp.errors import EditError, ModelError, SiteError
from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.tracing import Knockout, Mllm, Site, positions, wrap
from interp.tracing.knockout_variants import Cut, Stem, _batches, _taken_up
from tests.tracing.eager import greedy

FAMILIES = ("llava", "qwen2_5_vl", "gemma3")
SAMPLE = Sample(small.picture(96, 80, seed=4), "where is the nodule in it?")


@cache
def family(name: str) -> tuple[Mllm, Any]:
    """A wrapped model and the same weights in eager attention, never wrapped."""
    return wrap(*tiny(name)), tiny(name, "eager")[0]


def some_cuts(stem: Stem) -> list[Cut]:
    """One layer and several, one head and all, the last row, all after the image and a row inside the prefix."""
    tokens, n = stem.tokens, stem.mllm.n_layers
    image, after = tuple(tokens.image.tolist()), tuple(tokens.positions("after_image").tolist())
    return [
        Cut((n - 1,), (tokens.length - 1,), image),
        Cut(tuple(range(n)), after, image[::2]),
        Cut((1, 2), after, image, (1,)),
        Cut((0,), (tokens.length - 1,), after[:3]),
        Cut((1,), image[-2:], (0,)),
    ]


def by_hand(eager: Any, stem: Stem, cut: Cut, mode: str) -> np.ndarray:
    def hide(layer: int, n: int) -> torch.Tensor | None:
        if layer not in cut.layers:
            return None
        heads = stem.mllm.n_heads
        hidden = torch.zeros(heads, n, n, dtype=torch.bool)
        for head in range(heads) if cut.heads is None else cut.heads:
            hidden[head][np.ix_(cut.queries, cut.keys)] = True
        return hidden

    return greedy(eager, stem.batch.singles[0].inputs, 1, hide, mode).logits[0]


@pytest.mark.parametrize("mode", ["renormalise", "zero"])
@pytest.mark.parametrize("name", FAMILIES)
def test_each_cut_equals_attention_written_out(name: str, mode: Any) -> None:
    mllm, eager = family(name)
    stem = Stem.of(mllm, SAMPLE)
    cuts = some_cuts(stem)
    found = stem.run(cuts, mode=mode, batch=3).logits
    for cut, line in zip(cuts, found, strict=True):
        np.testing.assert_allclose(line, by_hand(eager, stem, cut, mode), atol=2e-5)
    assert (np.abs(found[1:3] - stem.plain.logits).max(axis=1) > 0.1).all()  # windows hide others from gemma3


@pytest.mark.parametrize("name", [*FAMILIES, "paligemma", "qwen3_vl"])
def test_it_equals_traces_of_its_own_without_sharing(name: str) -> None:
    mllm, _ = family(name)
    stem = Stem.of(mllm, SAMPLE)
    cuts = some_cuts(stem)
    found = stem.run(cuts).logits
    scale = np.abs(stem.plain.logits).max()
    for cut, line in zip(cuts, found, strict=True):
        heads = "all" if cut.heads is None else cut.heads
        site = Site(layers=cut.layers, heads=heads, queries=positions(cut.queries), keys=positions(cut.keys))
        alone = mllm.trace(SAMPLE, edits=[Knockout(site)]).logits.values[0]
        np.testing.assert_allclose(line / scale, alone / scale, atol=1e-6)
    assert (stem.n_prefix > 0) == (name != "paligemma")
    np.testing.assert_allclose(stem.plain.logits[0], mllm.trace(SAMPLE).logits.values[0], atol=1e-6 * scale)


def test_layers_below_the_lowest_cut_do_not_run(mllm: Mllm) -> None:
    stem = Stem.of(mllm, small.samples()[1])
    n, last = stem.tokens.length - stem.n_prefix, stem.tokens.length - 1
    assert stem.plain.layer_tokens == 3 * stem.tokens.length
    ran = _ran(mllm, stem, [Cut((2,), (last,), (20,)), Cut((1, 2), (last,), (20,))], batch=1)
    assert ran == ([1, 2, 2], 3 * n)
    assert _ran(mllm, stem, [Cut((2,), (last,), (20,))] * 4, batch=4) == ([2], 4 * n)
    assert _ran(mllm, stem, [Cut((1,), (5,), (3,))], batch=4) == ([1, 2], 2 * stem.tokens.length)


def _ran(mllm: Mllm, stem: Stem, cuts: Sequence[Cut], batch: int) -> tuple[list[int], int]:
    """Layers whose feed-forward part ran, sorted, and what the passes say of themselves."""
    _ = stem.plain, stem._kept(whole=True)
    calls: list[int] = []
    layers = mllm.adapter.layers(mllm.hf)
    hooks: list[Any] = [
        layer.mlp.register_forward_hook(lambda *_, i=i: calls.append(i)) for i, layer in enumerate(layers)
    ]
    found = stem.run(cuts, batch=batch)
    for hook in hooks:
        hook.remove()
    return sorted(calls), found.layer_tokens


def test_rows_share_the_prefix_and_the_order_is_the_callers(
    mllm: Mllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    import interp.tracing.attention as rows

    stem = Stem.of(mllm, small.samples()[1])
    cuts = [cut for cut in some_cuts(stem) if min(cut.queries) >= stem.n_prefix]
    one_by_one = np.stack([stem.run([cut]).logits[0] for cut in cuts])
    shapes, product = [], rows._product

    def watch(left: Any, right: Any) -> Any:
        shapes.append((right.shape[0], right.shape[1]))
        return product(left, right)

    monkeypatch.setattr(rows, "_product", watch)
    np.testing.assert_allclose(stem.run(cuts, batch=4).logits, one_by_one, atol=1e-5)
    assert {n for n, _ in shapes} == {1, 2}  # the prefix as one, what follows it twice where two start alike
    np.testing.assert_allclose(stem.run(cuts[::-1], batch=3).logits, one_by_one[::-1], atol=1e-5)


def test_a_deep_models_batch_starts_at_its_lowest_layer() -> None:
    deep = wrap(small.llava(layers=16), small.processor())
    stem = Stem.of(deep, small.samples()[0])
    last, keys = stem.tokens.length - 1, tuple(stem.tokens.image.tolist())
    cuts = [Cut((layer, layer + 1), (last,), keys) for layer in (7, 5, 6)]
    found = stem.run(cuts, batch=3)
    assert found.cost.forwards == 1
    assert found.layer_tokens == 3 * (16 - 5) * (stem.tokens.length - stem.n_prefix)
    for cut, line in zip(cuts, found.logits, strict=True):
        edit = Knockout(Site(layers=cut.layers, queries="last", keys="image"))
        np.testing.assert_allclose(line, deep.trace(stem.batch, edits=[edit]).logits.values[0], atol=2e-5)
    assert np.abs(found.logits[0] - found.logits[1]).max() > 1e-2


def test_a_batch_holds_passes_that_start_near_each_other() -> None:
    lowest = dict(enumerate((5, 0, 4, 0, 9, 1, 0)))
    assert list(_batches(lowest, 3, 1)) == [[1, 3, 6], [5], [2, 0], [4]]
    assert list(_batches(lowest, 9, 0)) == [[1, 3, 6], [5], [2], [0], [4]]
    assert list(_batches(lowest, 4, 9)) == [[1, 3, 6, 5], [2, 0, 4]]
    assert list(_batches({}, 4, 9)) == []


def test_the_model_is_as_it_was_afterwards(mllm: Mllm) -> None:
    layers = mllm.adapter.layers(mllm.hf)
    before, plain = [layer.__dict__["forward"] for layer in layers], mllm.trace(small.samples()).logits
    stem = Stem.of(mllm, small.samples()[0])
    last = stem.tokens.length - 1
    stem.run([Cut((2,), (last,), (20,))])
    with pytest.raises(EditError, match="every key hidden"):
        stem.run([Cut((2,), (last,), tuple(range(last + 1)))])
    assert [layer.__dict__["forward"] for layer in layers] == before
    assert not any(layer._forward_hooks for layer in layers)
    np.testing.assert_array_equal(mllm.trace(small.samples()).logits, plain)


def test_the_source_executor_and_prompts_without_a_prefix_agree(mllm: Mllm) -> None:
    sample = small.samples()[2]
    stem = Stem.of(mllm, sample)
    cuts = some_cuts(stem)[:3]
    expected = stem.run(cuts).logits
    np.testing.assert_allclose(Stem.of(mllm.using("source"), sample).run(cuts).logits, expected, atol=1e-5)
    late = Stem.of(mllm, sample, Prompt(image_first=False))
    keys = tuple(late.tokens.positions("question").tolist())
    cut = Cut((1, 2), (late.tokens.length - 1,), keys)
    site = Site(layers=[1, 2], keys="question")
    whole = mllm.trace(sample, Prompt(image_first=False), edits=[Knockout(site)]).logits.values[0]
    np.testing.assert_allclose(late.run([cut]).logits[0], whole, atol=1e-5)


def test_what_hides_nothing_and_what_would_leave_nothing(mllm: Mllm) -> None:
    stem = Stem.of(mllm, small.samples()[0], PAPER_PROMPT)
    last = stem.tokens.length - 1
    assert not stem.hides(Cut((0,), (20, 21), (22, last)))
    assert stem.hides(Cut((0,), (20, 22), (22, last)))
    everything = Cut((1,), (last,), tuple(range(last + 1)))
    assert stem.refusal(Cut((1,), (last,), tuple(range(last)))) is None
    assert stem.refusal(everything, "zero") is None
    refused = stem.refusal(everything)
    assert refused is not None
    assert f"layer 1, head 0, the row at position {last} would have every key hidden" in refused


def test_wrong_cuts_name_what_is_there(mllm: Mllm) -> None:
    stem = Stem.of(mllm, small.samples()[0])
    with pytest.raises(EditError, match="a cut needs layers, queries and keys, and heads or None for all"):
        Cut((1,), (), (3,))
    with pytest.raises(SiteError, match=r"the model has 3 layers, 0 … 2; got layer 7"):
        stem.run([Cut((7,), (30,), (3,))])
    with pytest.raises(SiteError, match=r"the model has 4 heads, 0 … 3; got head 4"):
        stem.run([Cut((1,), (30,), (3,), (4,))])


def test_a_kept_pass_serves_no_other_prompt(mllm: Mllm) -> None:
    stem = Stem.of(mllm, small.samples()[0])
    kept = stem._kept(whole=False)
    with (
        _taken_up(mllm.adapter.layers(mllm.hf), kept.outputs, 2),
        pytest.raises(ModelError, match="A stem's passes all go over its own prompt"),
    ):
        mllm.trace(small.samples()[1])
