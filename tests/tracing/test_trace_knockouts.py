"""Knockouts in a run, against an eager model whose softmax was replaced."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.models.llama.modeling_llama import repeat_kv

import tests.tiny as tiny
from interp.errors import EditError
from interp.tracing import Batch, Knockout, Mllm, Rows, Site, image_mask, positions, wrap

Softmax = Callable[[int, Tensor], Tensor]
"""(layer, scores (head, query, key) with the causal mask in) → probabilities."""


@cache
def replaceable() -> tuple[Any, dict[str, Softmax]]:
    """A model that takes its softmax from the table beside it."""
    table: dict[str, Softmax] = {}

    def attention(module, query, key, value, mask, scaling, **_):
        keys, values = (repeat_kv(x, module.num_key_value_groups) for x in (key, value))
        scores = (query @ keys.transpose(2, 3) * scaling + mask)[0]
        probabilities = table["softmax"](module.layer_idx, scores)[None]
        return (probabilities @ values).transpose(1, 2).contiguous(), None

    transformers.AttentionInterface.register("replaced_softmax", attention)
    AttentionMaskInterface.register("replaced_softmax", eager_mask)
    model = tiny.llava("sdpa")
    model.set_attn_implementation({"text_config": "replaced_softmax"})
    return model, table


def reference(inputs: Any, softmax: Softmax) -> np.ndarray:
    """Logits after the last token of one unpadded sample, with another softmax in every layer."""
    model, table = replaceable()
    table["softmax"] = softmax
    with torch.no_grad():
        return model(**inputs).logits[0, -1].numpy()


def softmax_without(mode: str, hidden: dict[int, Tensor]) -> Softmax:
    """A softmax that hides `hidden[layer]`, (head, query, key) bool, before or after."""

    def softmax(layer: int, scores: Tensor) -> Tensor:
        mask = hidden.get(layer, torch.zeros_like(scores, dtype=torch.bool))
        if mode == "renormalise":
            return scores.masked_fill(mask, -torch.inf).softmax(-1)
        return scores.softmax(-1).masked_fill(mask, 0)

    return softmax


def hidden(length: int, layers: list[int], heads: list[int], rows: Any, keys: Any) -> dict[int, Tensor]:
    mask = torch.zeros(4, length, length, dtype=torch.bool)
    mask[np.ix_(heads, np.asarray(rows), np.asarray(keys))] = True
    return dict.fromkeys(layers, mask)


def check(mllm: Mllm, batch: Batch, edits: list[Knockout], softmaxes: list[Softmax], **options: Any) -> None:
    """Every sample's logits equal the reference's, alone and in the left-padded batch."""
    together = mllm.trace(batch, edits=edits, **options).logits
    plain = mllm.trace(batch).logits
    for i, (single, softmax) in enumerate(zip(batch.singles, softmaxes, strict=True)):
        expected = reference(single.inputs, softmax)
        assert np.abs(plain[i] - expected).max() > 1e-3  # the knockout does something
        np.testing.assert_allclose(together[i], expected, atol=1e-5, rtol=1e-5)


ALL = [0, 1, 2, 3]


@pytest.mark.parametrize("mode", ["renormalise", "zero"])
@pytest.mark.parametrize("queries", ["last", "after_image", "all"])
def test_knockouts_equal_a_replaced_softmax(mllm, batch, mode, queries):
    edit = Knockout(Site(layers=[1, 2], queries=queries, keys=positions([4, 6, 7, 11])), mode)
    softmaxes = []
    for tokens in batch.tokens:
        rows = np.arange(tokens.length) if queries == "all" else tokens.positions(queries)
        softmaxes.append(softmax_without(mode, hidden(tokens.length, [1, 2], ALL, rows, [4, 6, 7, 11])))
    check(mllm, batch, [edit], softmaxes)
    for i, sample in enumerate(batch.samples):
        alone = mllm.trace(sample, edits=[edit]).logits[0]
        np.testing.assert_allclose(
            alone, reference(batch.singles[i].inputs, softmaxes[i]), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("mode", ["renormalise", "zero"])
def test_pairs_and_a_mask_for_each_sample(mllm, batch, mode):
    masks = [np.arange(16) % 2 == 0, np.arange(16) > 9, np.arange(16) < 4]
    pairs = [(0, 3), (2, 1), (2, 2)]
    edit = Knockout(Site(heads=pairs, queries="after_image", keys=image_mask(masks)), mode)
    softmaxes = []
    for tokens, mask in zip(batch.tokens, masks, strict=True):
        rows, keys = tokens.positions("after_image"), tokens.image[mask]
        cells = hidden(tokens.length, [0], [3], rows, keys) | hidden(tokens.length, [2], [1, 2], rows, keys)
        softmaxes.append(softmax_without(mode, cells))
    check(mllm, batch, [edit], softmaxes)


def test_knockouts_add_up_and_both_stages_go_together(mllm, batch):
    first = Knockout(Site(layers=[1], queries="last", keys=positions([5])))
    second = Knockout(Site(layers=[1], heads=[2], queries="after_image", keys=positions([8, 9])))
    third = Knockout(Site(layers=[1], heads=[2, 0], queries="last", keys=positions([1, 9])), "zero")
    softmaxes = []
    for tokens in batch.tokens:
        n, after = tokens.length, tokens.positions("after_image")
        before = hidden(n, [1], ALL, [n - 1], [5])[1] | hidden(n, [1], [2], after, [8, 9])[1]
        later = hidden(n, [1], [2, 0], [n - 1], [1, 9])[1]

        def softmax(layer, scores, before=before, later=later):
            if layer != 1:
                return scores.softmax(-1)
            return scores.masked_fill(before, -torch.inf).softmax(-1).masked_fill(later, 0)

        softmaxes.append(softmax)
    check(mllm, batch, [first, second, third], softmaxes)


def test_an_eager_model_is_edited_the_same(batch):
    mllm = wrap(tiny.llava("eager"), tiny.processor())
    for queries in ("last", "all"):
        edit = Knockout(Site(layers=[1], queries=queries, keys=positions([4, 9])))
        softmaxes = []
        for tokens in batch.tokens:
            rows = [tokens.length - 1] if queries == "last" else np.arange(tokens.length)
            softmaxes.append(softmax_without("renormalise", hidden(tokens.length, [1], ALL, rows, [4, 9])))
        check(mllm, batch, [edit], softmaxes)


@pytest.mark.parametrize("mode", ["renormalise", "zero"])
@pytest.mark.parametrize("queries", ["last", "all"])
def test_rows_are_read_after_the_knockout_with_exactly_no_mass(mllm, batch, mode, queries):
    mask = np.arange(16) % 3 == 1
    edit = Knockout(Site(layers=[1], queries=queries, keys=image_mask(mask)), mode)
    read = Rows(Site(layers=[1], queries="all", keys="all"))
    edited, plain = mllm.trace(batch, reads=[read], edits=[edit]), mllm.trace(batch, reads=[read])
    for one, before, tokens in zip(edited, plain, batch.tokens, strict=True):
        rows = np.arange(tokens.length) if queries == "all" else [tokens.length - 1]
        cells = one.rows.values[0][:, rows][..., tokens.image[mask]]
        assert (cells == 0).all()
        mass = before.rows.values[0][:, rows][..., tokens.image[mask]].sum(-1)
        left = one.rows.values[0][:, rows].sum(-1)
        np.testing.assert_allclose(left, np.ones_like(left) if mode == "renormalise" else 1 - mass, atol=1e-5)
        untouched = [r for r in range(tokens.length) if r not in rows]
        np.testing.assert_array_equal(one.rows.values[0][:, untouched], before.rows.values[0][:, untouched])


@pytest.mark.parametrize("mode", ["renormalise", "zero"])
def test_a_knockout_of_nothing_leaves_the_output_bit_equal(mllm, batch, mode):
    plain = mllm.trace(batch).logits
    nothing = [
        Site(keys=image_mask(np.zeros(16, bool))),
        Site(queries="image", keys=positions([30])),  # keys after the rows
        Site(queries="all", keys=image_mask(np.zeros((3, 16), bool))),
    ]
    for site in nothing:
        assert np.array_equal(mllm.trace(batch, edits=[Knockout(site, mode)]).logits, plain), site


def test_only_edited_rows_heads_and_samples_change(mllm, batch):
    masks = [np.zeros(16, bool), np.arange(16) < 3, np.zeros(16, bool)]
    edit = Knockout(Site(layers=[2], heads=[1], keys=image_mask(masks)), "zero")
    outputs = []
    hook = mllm.installation.attentions[2].o_proj.register_forward_pre_hook(
        lambda module, args: outputs.append(args[0].clone())
    )
    mllm.trace(batch)
    mllm.trace(batch, edits=[edit])
    hook.remove()
    plain, edited = (x.unflatten(-1, (4, 16)) for x in outputs)
    changed = (plain != edited).any(-1)
    assert changed.nonzero().tolist() == [[1, 39, 1]]


def test_all_keys_of_a_row(mllm, batch):
    everything = Site(layers=[2], heads=[0], queries="last", keys="all")
    trace = mllm.trace(batch, reads=[Rows(everything)], edits=[Knockout(everything, "zero")])
    assert all((sample.rows == 0).all() for sample in trace)
    softmaxes = [
        softmax_without("zero", hidden(t.length, [2], [0], [-1], np.arange(t.length))) for t in batch.tokens
    ]
    check(mllm, batch, [Knockout(everything, "zero")], softmaxes)
    with pytest.raises(EditError, match=r'sample 0 .*layer 2, head 0, the row at position 34 .*mode="zero"'):
        mllm.trace(batch, edits=[Knockout(everything)])


def test_the_first_row_has_only_itself(mllm, batch):
    site = Site(layers=[0], queries="all", keys=positions([0]))
    with pytest.raises(
        EditError, match=r"layer 0, head 0, the row at position 0 would have every key hidden"
    ):
        mllm.trace(batch, edits=[Knockout(site)])
    mllm.trace(batch, edits=[Knockout(Site(layers=[0], queries=positions([1]), keys=positions([0])))])


def test_two_knockouts_may_not_empty_a_row_together(mllm, batch):
    early = Knockout(Site(layers=[1], heads=[2], queries=positions([5]), keys=positions([0, 1, 2])))
    late = Knockout(Site(layers=[1], heads=[2, 3], queries=positions([5, 6]), keys=positions([3, 4, 5])))
    with pytest.raises(EditError, match=r"layer 1, head 2, the row at position 5 would have every key"):
        mllm.trace(batch, edits=[early, late])
    elsewhere = Knockout(Site(layers=[1], heads=[3], queries=positions([5]), keys=positions([0, 1])))
    mllm.trace(batch, edits=[early, elsewhere])  # no head loses every key


def test_a_scores_edit_after_a_probabilities_edit_is_refused(mllm, batch):
    zero, renormalise = (Knockout(Site(keys=positions([3])), m) for m in ("zero", "renormalise"))
    mllm.trace(batch, edits=[renormalise, zero])
    with pytest.raises(EditError, match=r"which changes scores, after .*List the edit of scores first"):
        mllm.trace(batch, edits=[zero, renormalise])


def test_what_is_not_an_edit_is_refused(mllm, batch, unchecked):
    with pytest.raises(EditError, match=r"edits= takes edits such as interp.Knockout\(site\); got Site"):
        mllm.trace(batch, edits=[Site()])
    with pytest.raises(EditError, match=r"edits= is a list of edits.*Write edits="):
        mllm.trace(batch, edits=Knockout(Site()))


def test_generated_rows_need_generation(mllm):
    edit = Knockout(Site(queries="answer"), steps="decode")
    with pytest.raises(EditError, match=r"generate=1 gives none of them a row .* generate=2 or more"):
        mllm.trace(tiny.samples(), edits=[edit], generate=1)


def test_last_rows_are_knocked_out_in_prefill_decode_or_both(mllm):
    def mass(steps: str) -> list[bool]:
        edit = Knockout(Site(queries="last"), steps=steps)
        rows = mllm.trace([tiny.sample()], reads=[Rows()], edits=[edit], generate=3)[0].rows
        return (rows.sum("token") == 0).all(["layer", "head", "query"]).values.tolist()

    assert mass("prefill") == [True, False, False]
    assert mass("decode") == [False, True, True]
    assert mass("all") == [True, True, True]


def test_a_decode_knockout_leaves_other_samples_alone(mllm):
    """One sample hides keys while it answers; the other hides none."""
    samples = tiny.samples()[:2]
    masks = [np.ones(16, bool), np.zeros(16, bool)]
    edit = Knockout(Site(queries="answer", keys=image_mask(masks)), steps="decode")
    reads = [Rows(Site(keys="all"))]
    edited = mllm.trace(samples, reads=reads, edits=[edit], generate=3)
    plain = mllm.trace(samples, reads=reads, generate=3)
    np.testing.assert_allclose(edited[1].rows, plain[1].rows, atol=2e-6)
    image = edited.tokens[0].image
    assert (edited[0].rows[1:, ..., image] == 0).all()
    assert (edited[0].rows[0, ..., image] > 0).all()
