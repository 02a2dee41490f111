"""Samples of one image in a batch: its prefix runs once, equal prompts run once, and no number changes."""

from __future__ import annotations

import numpy as np
import pytest

from interp.conformance.tiny import tiny
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.tracing import Decoding, Knockout, Rows, Site, image_mask, wrap

READ = Rows(Site(queries="last", keys="image"))
QUESTIONS = ("is it red?", "where is the blue circle?", "how many squares are there in it?")
ORDERS = {
    "in turn": (("a", 0), ("a", 1), ("b", 0), ("b", 2)),
    "mixed": (("a", 0), ("b", 1), ("a", 2)),
    "unequal": (("a", 0), ("a", 1), ("a", 2), ("b", 1)),
}


def image(name: str) -> np.ndarray:
    """A small image that depends on the name."""
    return np.random.default_rng(ord(name)).integers(0, 255, (56, 56, 3), dtype=np.uint8)


def samples(order: str) -> list[Sample]:
    """The samples of an order."""
    return [Sample(image(name), QUESTIONS[number]) for name, number in ORDERS[order]]


@pytest.fixture(scope="module")
def llava():
    """A tiny LLaVA."""
    return wrap(*tiny("llava"))


def assert_as_alone(mllm, given, **options):
    """A batch's trace, which must equal that of each sample alone."""
    found = mllm.trace(given, **options)
    for i, sample in enumerate(given):
        alone = mllm.trace([sample], **options)
        np.testing.assert_allclose(found.logits[i], alone.logits[0], atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(found[i].rows, alone[0].rows, atol=1e-6)
        assert found.answers[i : i + 1] == alone.answers
    return found


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "idefics3"])
def test_each_image_runs_once_and_no_sample_changes(family, order):
    mllm = wrap(*tiny(family))
    given = samples(order)
    found = assert_as_alone(mllm, given, reads=[READ])
    heads = [int(tokens.image[-1]) + 1 for tokens in found.tokens]
    rests = [tokens.length - head for tokens, head in zip(found.tokens, heads, strict=True)]
    assert len(set(heads)) == 1
    assert found.cost.tokens == 2 * heads[0] + len(given) * max(rests)


@pytest.mark.parametrize("family", ["paligemma", "gemma3"])
def test_where_a_prefix_is_not_exact_prompts_run_whole(family):
    mllm = wrap(*tiny(family))
    given = samples("mixed")
    found = assert_as_alone(mllm, given, reads=[READ])
    assert found.cost.tokens == len(given) * max(tokens.length for tokens in found.tokens)


def test_images_after_the_question_run_whole(llava):
    last = Prompt("{question}", image_first=False)
    found = assert_as_alone(llava, samples("mixed"), prompt=last, reads=[READ])
    assert found.cost.tokens == 3 * max(tokens.length for tokens in found.tokens)


@pytest.mark.parametrize("order", ORDERS)
def test_edits_and_generation_after_a_shared_prefix(llava, order):
    edits = [Knockout(Site(layers=[1], queries="after_image", keys="image"), mode="zero")]
    assert_as_alone(llava, samples(order), reads=[READ], edits=edits, generate=3)


def test_an_edit_inside_the_prefix_runs_whole(llava):
    edits = [Knockout(Site(layers=[0], queries="image", keys="image"), mode="zero")]
    found = assert_as_alone(llava, samples("mixed"), reads=[READ], edits=edits)
    assert found.cost.tokens == 3 * max(tokens.length for tokens in found.tokens)


def test_the_source_executor_shares_too(llava):
    ours = llava.trace(samples("unequal"), reads=[READ])
    other = llava.using("source").trace(samples("unequal"), reads=[READ])
    np.testing.assert_allclose(ours.logits, other.logits, atol=1e-5)
    assert ours.cost.tokens == other.cost.tokens


def test_equal_prompts_run_once(llava):
    given = samples("unequal")
    prefix = llava.prefix(given, prompt=PAPER_PROMPT)
    found = llava.trace(prefix, prompt=GENERIC_PROMPT, reads=[READ], generate=2)
    rest = found.tokens[0].length - prefix.lengths[0]
    assert found.cost.tokens == 2 * rest + 2
    for i, sample in enumerate(given):
        alone = llava.trace([sample], prompt=GENERIC_PROMPT, reads=[READ], generate=2)
        np.testing.assert_allclose(found[i].rows, alone[0].rows, atol=1e-6)
        np.testing.assert_allclose(found.logits[i], alone.logits[0], atol=1e-5)
        assert found.answers[i] == alone.answers[0]


def test_a_given_prefix_serves_some_of_its_samples(llava):
    given = samples("mixed")
    prefix = llava.prefix(given)
    batch = llava.encoder.part(prefix.batch, [1])
    found = llava.trace(prefix.part([1], batch), reads=[READ])
    alone = llava.trace([given[1]], reads=[READ])
    np.testing.assert_allclose(found[0].rows, alone[0].rows, atol=1e-6)
    assert found.cost.tokens < alone.cost.tokens


def test_equal_prompts_are_told_apart_by_what_is_asked(llava):
    """Two samples of one image and question: draws, masks and edits of their own, and costs of both."""
    given = [Sample(image("a"), QUESTIONS[0], id=name) for name in ("one", "two")]
    drawn = {"generate": 6, "seed": 1, "decoding": Decoding(3.0)}
    answers = llava.trace(given, **drawn).answers
    assert answers == [llava.trace([one], **drawn).answers[0] for one in given]
    assert answers[0] != answers[1]
    masks = [np.arange(16) < 4, np.arange(16) > 9]
    found = llava.trace(given, reads=[Rows(Site(keys=image_mask(masks)))])
    whole = llava.trace(given[:1], reads=[READ])[0].rows
    for one, mask in zip(found, masks, strict=True):
        assert one.rows.token.values.tolist() == np.flatnonzero(mask).tolist()
        np.testing.assert_allclose(one.rows, whole[..., mask], atol=1e-6)
    edited = llava.trace(given, edits=[Knockout(Site(keys=image_mask(masks)))]).logits
    for i, mask in enumerate(masks):
        alone = llava.trace(given[:1], edits=[Knockout(Site(keys=image_mask(mask)))]).logits[0]
        np.testing.assert_allclose(edited[i], alone, atol=1e-5)
    assert llava.trace(given).cost.tokens < llava.trace(given, **drawn).cost.tokens
