"""Knockouts that go on from a kept pass: equal to eager attention written out and to traces, and never wasted."""

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
from interp.tracing.attention.shared_keys import SharedKeys
from interp.tracing.cost import Meter
from interp.tracing.variants.knockouts import Knockouts, KnockoutVariant, near_batches
from tests.tracing.reference_attention import greedy

FAMILIES = ("llava", "qwen2_5_vl", "gemma3")
SAMPLE = Sample(small.picture(96, 80, seed=4), "where is the nodule in it?")


@cache
def family(name: str) -> tuple[Mllm, Any]:
    """A wrapped model and the same weights in eager attention, never wrapped."""
    return wrap(*tiny(name)), tiny(name, "eager")[0]


def some_variants(knockouts: Knockouts) -> list[KnockoutVariant]:
    """One layer and several, one head and all, the last row, all after the image and a row inside the prefix."""
    tokens, n = knockouts.tokens, knockouts.mllm.n_layers
    image, after = tuple(tokens.image.tolist()), tuple(tokens.positions("after_image").tolist())
    return [
        KnockoutVariant((n - 1,), (tokens.length - 1,), image),
        KnockoutVariant(tuple(range(n)), after, image[::2]),
        KnockoutVariant((1, 2), after, image, (1,)),
        KnockoutVariant((0,), (tokens.length - 1,), after[:3]),
        KnockoutVariant((1,), image[-2:], (0,)),
    ]


def by_hand(eager: Any, knockouts: Knockouts, variant: KnockoutVariant, mode: str) -> np.ndarray:
    def hide(layer: int, n: int) -> torch.Tensor | None:
        if layer not in variant.layers:
            return None
        heads = knockouts.mllm.n_heads
        hidden = torch.zeros(heads, n, n, dtype=torch.bool)
        for head in range(heads) if variant.heads is None else variant.heads:
            hidden[head][np.ix_(variant.queries, variant.keys)] = True
        return hidden

    return greedy(eager, knockouts.batch.singles[0].inputs, 1, hide, mode).logits[0]


@pytest.mark.parametrize("mode", ["renormalise", "zero"])
@pytest.mark.parametrize("name", FAMILIES)
def test_each_knockout_equals_attention_written_out(name: str, mode: Any) -> None:
    mllm, eager = family(name)
    knockouts = Knockouts.of(mllm, SAMPLE)
    variants = some_variants(knockouts)
    found = knockouts.run(variants, mode=mode, batch=3).logits
    for variant, line in zip(variants, found, strict=True):
        np.testing.assert_allclose(line, by_hand(eager, knockouts, variant, mode), atol=2e-5)
    assert (
        np.abs(found[1:3] - knockouts.plain.logits).max(axis=1) > 0.1
    ).all()  # windows hide others from gemma3


@pytest.mark.parametrize("name", [*FAMILIES, "paligemma", "qwen3_vl"])
def test_it_equals_traces_of_its_own_without_sharing(name: str) -> None:
    mllm, _ = family(name)
    knockouts = Knockouts.of(mllm, SAMPLE)
    variants = some_variants(knockouts)
    found = knockouts.run(variants).logits
    scale = np.abs(knockouts.plain.logits).max()
    for variant, line in zip(variants, found, strict=True):
        heads = "all" if variant.heads is None else variant.heads
        site = Site(
            layers=variant.layers,
            heads=heads,
            queries=positions(variant.queries),
            keys=positions(variant.keys),
        )
        alone = mllm.trace(SAMPLE, edits=[Knockout(site)]).logits.values[0]
        np.testing.assert_allclose(line / scale, alone / scale, atol=1e-6)
    assert (knockouts.n_prefix > 0) == (name != "paligemma")
    np.testing.assert_allclose(
        knockouts.plain.logits[0], mllm.trace(SAMPLE).logits.values[0], atol=1e-6 * scale
    )


def test_layers_below_the_lowest_knockout_do_not_run(mllm: Mllm) -> None:
    knockouts = Knockouts.of(mllm, small.samples()[1])
    n, last = knockouts.tokens.length - knockouts.n_prefix, knockouts.tokens.length - 1
    assert knockouts.plain.layer_tokens == 3 * knockouts.tokens.length
    ran = _ran(
        mllm,
        knockouts,
        [KnockoutVariant((2,), (last,), (20,)), KnockoutVariant((1, 2), (last,), (20,))],
        batch=1,
    )
    assert ran == ([1, 2, 2], 3 * n)
    assert _ran(mllm, knockouts, [KnockoutVariant((2,), (last,), (20,))] * 4, batch=4) == ([2], 4 * n)
    assert _ran(mllm, knockouts, [KnockoutVariant((1,), (5,), (3,))], batch=4) == (
        [1, 2],
        2 * knockouts.tokens.length,
    )


def _ran(
    mllm: Mllm, knockouts: Knockouts, variants: Sequence[KnockoutVariant], batch: int
) -> tuple[list[int], int]:
    """Layers whose feed-forward part ran, sorted, and what the passes say of themselves."""
    _ = knockouts.plain, knockouts._kept(whole=True)
    calls: list[int] = []
    layers = mllm.adapter.layers(mllm.hf)
    hooks: list[Any] = [
        layer.mlp.register_forward_hook(lambda *_, i=i: calls.append(i)) for i, layer in enumerate(layers)
    ]
    found = knockouts.run(variants, batch=batch)
    for hook in hooks:
        hook.remove()
    return sorted(calls), found.layer_tokens


def test_rows_share_the_prefix_and_the_order_is_the_callers(
    mllm: Mllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    knockouts = Knockouts.of(mllm, small.samples()[1])
    variants = [one for one in some_variants(knockouts) if min(one.queries) >= knockouts.n_prefix]
    one_by_one = np.stack([knockouts.run([one]).logits[0] for one in variants])
    assert knockouts.prefix is not None
    held, shapes, shared = {one.data_ptr() for one in knockouts.prefix.keys}, [], SharedKeys._shared

    def watch(self: Any, call: Any) -> Any:
        shapes.append((call.keys[0].shape[0], call.keys[1].shape[0]))
        assert call.keys[0].data_ptr() in held
        return shared(self, call)

    monkeypatch.setattr(SharedKeys, "_shared", watch)
    np.testing.assert_allclose(knockouts.run(variants, batch=4).logits, one_by_one, atol=1e-5)
    assert set(shapes) == {(1, 1), (1, 2)}  # the prefix as one, what follows it twice where two start alike
    np.testing.assert_allclose(knockouts.run(variants[::-1], batch=3).logits, one_by_one[::-1], atol=1e-5)


def test_a_deep_models_batch_starts_at_its_lowest_layer() -> None:
    deep = wrap(small.llava(layers=16), small.processor())
    knockouts = Knockouts.of(deep, small.samples()[0])
    last, keys = knockouts.tokens.length - 1, tuple(knockouts.tokens.image.tolist())
    variants = [KnockoutVariant((layer, layer + 1), (last,), keys) for layer in (7, 5, 6)]
    found = knockouts.run(variants, batch=3)
    assert found.cost.forwards == 1
    assert found.layer_tokens == 3 * (16 - 5) * (knockouts.tokens.length - knockouts.n_prefix)
    for variant, line in zip(variants, found.logits, strict=True):
        edit = Knockout(Site(layers=variant.layers, queries="last", keys="image"))
        np.testing.assert_allclose(
            line, deep.trace(knockouts.batch, edits=[edit]).logits.values[0], atol=2e-5
        )
    assert np.abs(found.logits[0] - found.logits[1]).max() > 1e-2


def test_a_batch_holds_passes_that_start_near_each_other() -> None:
    lowest = dict(enumerate((5, 0, 4, 0, 9, 1, 0)))
    assert list(near_batches(lowest, 3, 1)) == [[1, 3, 6], [5], [2, 0], [4]]
    assert list(near_batches(lowest, 9, 0)) == [[1, 3, 6], [5], [2], [0], [4]]
    assert list(near_batches(lowest, 4, 9)) == [[1, 3, 6, 5], [2, 0, 4]]
    assert list(near_batches({}, 4, 9)) == []


def test_the_model_is_as_it_was_afterwards(mllm: Mllm) -> None:
    layers = mllm.adapter.layers(mllm.hf)
    before, plain = [layer.__dict__["forward"] for layer in layers], mllm.trace(small.samples()).logits
    knockouts = Knockouts.of(mllm, small.samples()[0])
    last = knockouts.tokens.length - 1
    knockouts.run([KnockoutVariant((2,), (last,), (20,))])
    with pytest.raises(EditError, match="every key hidden"):
        knockouts.run([KnockoutVariant((2,), (last,), tuple(range(last + 1)))])
    assert [layer.__dict__["forward"] for layer in layers] == before
    assert not any(layer._forward_hooks for layer in layers)
    np.testing.assert_array_equal(mllm.trace(small.samples()).logits, plain)


def test_the_source_executor_and_prompts_without_a_prefix_agree(mllm: Mllm) -> None:
    sample = small.samples()[2]
    knockouts = Knockouts.of(mllm, sample)
    variants = some_variants(knockouts)[:3]
    expected = knockouts.run(variants).logits
    np.testing.assert_allclose(
        Knockouts.of(mllm.using("source"), sample).run(variants).logits, expected, atol=1e-5
    )
    late = Knockouts.of(mllm, sample, Prompt(image_first=False))
    keys = tuple(late.tokens.positions("question").tolist())
    variant = KnockoutVariant((1, 2), (late.tokens.length - 1,), keys)
    site = Site(layers=[1, 2], keys="question")
    whole = mllm.trace(sample, Prompt(image_first=False), edits=[Knockout(site)]).logits.values[0]
    np.testing.assert_allclose(late.run([variant]).logits[0], whole, atol=1e-5)


def test_what_hides_nothing_and_what_would_leave_nothing(mllm: Mllm) -> None:
    knockouts = Knockouts.of(mllm, small.samples()[0], PAPER_PROMPT)
    last = knockouts.tokens.length - 1
    assert not knockouts.hides(KnockoutVariant((0,), (20, 21), (22, last)))
    assert knockouts.hides(KnockoutVariant((0,), (20, 22), (22, last)))
    everything = KnockoutVariant((1,), (last,), tuple(range(last + 1)))
    assert knockouts.refusal(KnockoutVariant((1,), (last,), tuple(range(last)))) is None
    assert knockouts.refusal(everything, "zero") is None
    refused = knockouts.refusal(everything)
    assert refused is not None
    assert f"layer 1, head 0, the row at position {last} would have every key hidden" in refused


def test_wrong_variants_name_what_is_there(mllm: Mllm) -> None:
    knockouts = Knockouts.of(mllm, small.samples()[0])
    for parts in (((), (30,), (3,)), ((1,), (), (3,)), ((1,), (30,), ()), ((1,), (30,), (3,), ())):
        with pytest.raises(
            EditError, match="a knockout variant needs layers, queries and keys, and heads or None for all"
        ):
            KnockoutVariant(*parts)
    with pytest.raises(SiteError, match=r"the model has 3 layers, 0 … 2; got layer 7"):
        knockouts.run([KnockoutVariant((7,), (30,), (3,))])
    with pytest.raises(SiteError, match=r"the model has 4 heads, 0 … 3; got head 4"):
        knockouts.run([KnockoutVariant((1,), (30,), (3,), (4,))])


def test_rows_of_the_prefix_do_not_run_after_it(mllm: Mllm) -> None:
    knockouts = Knockouts.of(mllm, small.samples()[0])
    kept, _ = knockouts._kept(whole=False)
    assert kept.stop(99) == kept.first == knockouts.n_prefix
    with pytest.raises(
        ModelError, match=rf"kept from row {kept.first} on, after a prefix; got .* from row 3 on"
    ):
        kept.run(1, 3, Meter(mllm.device))


def test_a_batch_of_the_sample_is_not_encoded_again(mllm: Mllm, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = mllm.encode(small.samples()[0])
    monkeypatch.setattr(Sample, "load", lambda self, i=0: pytest.fail("an image was loaded again"))
    assert Knockouts.of(mllm, batch).batch is batch
