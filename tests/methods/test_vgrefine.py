"""VGRefine, both variants, against eager attention and numpy."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import tests.tiny as tiny
from interp.errors import MethodError, SampleError, SiteError
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Prompt
from interp.inputs.tokens import word
from interp.methods import Method, Plain, VGRefine
from interp.study import published_heads
from interp.tracing import Knockout, Mllm, Rows, Site, wrap
from tests.methods.reference_generation import generated, image_columns

HEADS = [(1, 3), (0, 2), (2, 0)]
CODE = VGRefine(HEADS, layers=[1])
PAPER = VGRefine(HEADS, layers=[1], variant="paper")
N = 3


def last_rows(eager, mllm: Mllm, sample, prompt: Prompt) -> np.ndarray:
    """(layer, head, image token) of transformers' own eager attention, float64."""
    inputs = mllm.encode([sample], prompt).inputs
    with torch.no_grad():
        attentions = eager(**inputs, output_attentions=True).attentions
    return torch.stack(attentions)[:, 0, :, -1].double().numpy()[..., image_columns(inputs)]


def map_by_hand(eager, mllm, sample, method: VGRefine, prompt: Prompt = PAPER_PROMPT) -> np.ndarray:
    asked, generic = (last_rows(eager, mllm, sample, p) for p in (prompt, method.generic))
    total = np.zeros(16)
    for layer, head in HEADS:
        divisor = generic[layer].mean(axis=0) if method.variant == "code" else generic[layer, head]
        total += asked[layer, head] / (divisor + 1e-10)
    return total / len(HEADS)


def kept_by_hand(values: np.ndarray, variant: str) -> np.ndarray:
    ordered = np.sort(values)  # 16 tokens: the 80th percentile is number 12, the 50th lies between 7 and 8
    return values >= (ordered[12] if variant == "code" else (ordered[7] + ordered[8]) / 2)


def answered_by_hand(eager, mllm, sample, kept: np.ndarray, mode: str, layers=(1,), decode=False):
    """The sample alone, through an eager model in which the variant's rows lack the dropped tokens."""
    batch = mllm.encode([sample])
    inputs = batch.inputs
    image, length = image_columns(inputs), inputs["input_ids"].shape[1]
    question = batch.tokens[0].positions("question")

    def hide(value: float):
        def change(layer: int, values: np.ndarray) -> np.ndarray:
            if layer not in layers:
                return values
            changed = values.copy()
            stop = values.shape[1] if decode else length
            rows = question if mode == "zero" else np.arange(image[-1] + 1, stop)
            changed[:, rows[:, None], image[~kept]] = value
            return changed

        return change

    if mode == "zero":
        return generated(eager, inputs, N, probabilities=hide(0.0))
    return generated(eager, inputs, N, scores=hide(-np.inf))


@pytest.mark.parametrize("method", [CODE, PAPER], ids=["code", "paper"])
def test_the_map_and_what_it_keeps_come_from_the_raw_attention(mllm, eager, method):
    samples = tiny.samples()
    for sample, (found, kept) in zip(samples, method.triage(mllm, samples), strict=True):
        expected = map_by_hand(eager, mllm, sample, method)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        np.testing.assert_array_equal(kept, kept_by_hand(expected, method.variant))
        assert kept.sum() == (4 if method is CODE else 8)


def test_the_variants_disagree_about_the_map(mllm):
    code, paper = (method.triage(mllm, tiny.samples())[0].map for method in (CODE, PAPER))
    assert np.abs(code - paper).max() > 0.05


def test_without_a_reference_the_map_is_the_mean_attention(mllm, eager):
    sample = tiny.samples()[1]
    plain = replace(CODE, reference="none")
    found = plain.head_maps(mllm, [sample])
    rows = last_rows(eager, mllm, sample, PAPER_PROMPT)
    np.testing.assert_allclose(found.maps[0], [rows[layer, head] for layer, head in HEADS], rtol=1e-5)
    np.testing.assert_array_equal(plain.triage(mllm, [sample])[0].map, found.maps[0].mean(axis=0))
    assert found.cost.forwards == 2  # image, question


def test_the_triage_may_read_every_row_after_the_image(mllm, eager):
    """The official code's Q=True with its magnitude threshold, from eager's raw attention."""
    samples = tiny.samples()
    method = replace(CODE, triage_queries="after_image", magnitude_threshold=0.4)
    per_head = replace(method, reference="per-head")
    for i, (found, kept) in enumerate(method.triage(mllm, samples)):
        asked, generic = (
            after_image_rows(eager, mllm, samples[i], p) for p in (PAPER_PROMPT, GENERIC_PROMPT)
        )
        quotients = [asked[layer, head] / (generic[layer].mean(axis=0) + 1e-10) for layer, head in HEADS]
        expected = np.mean(quotients, axis=0)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        scaled = (expected - expected.min()) / (expected.max() - expected.min())
        np.testing.assert_array_equal(kept, ~(scaled < 0.4))
        own = [asked[layer, head] / (generic[layer, head] + 1e-10) for layer, head in HEADS]
        np.testing.assert_allclose(per_head.head_maps(mllm, [samples[i]]).maps[0], own, rtol=1e-5)
    answered = method.answer(mllm, samples[:1], max_new_tokens=1)[0]
    np.testing.assert_array_equal(answered.details["kept"], method.triage(mllm, samples[:1])[0].kept)


def after_image_rows(eager, mllm: Mllm, sample, prompt: Prompt) -> np.ndarray:
    """(layer, head, image token): eager's mean over the rows after the last image token, float64."""
    inputs = mllm.encode([sample], prompt).inputs
    with torch.no_grad():
        attentions = torch.stack(eager(**inputs, output_attentions=True).attentions)[:, 0].double().numpy()
    image = image_columns(inputs)
    return attentions[:, :, image[-1] + 1 :][..., image].mean(axis=2)


@pytest.mark.parametrize("method", [CODE, PAPER], ids=["code", "paper"])
def test_the_answers_are_those_of_an_eager_model_under_the_mask(mllm, eager, method):
    samples = tiny.samples()
    answers = method.answer(mllm, samples, max_new_tokens=N)
    mode = {"code": "renormalise", "paper": "zero"}[method.variant]
    plain = mllm.trace(samples).logits.values
    for i, (sample, found) in enumerate(zip(samples, answers, strict=True)):
        kept = kept_by_hand(map_by_hand(eager, mllm, sample, method), method.variant)
        expected = answered_by_hand(eager, mllm, sample, kept, mode)
        np.testing.assert_allclose(found.logits, expected.logits[0], atol=1e-5)
        assert found.text == expected.text
        assert np.abs(found.logits - plain[i]).max() > 1e-3
        np.testing.assert_array_equal(found.details["kept"], kept)
        np.testing.assert_allclose(found.details["map"], map_by_hand(eager, mllm, sample, method), rtol=1e-5)


def test_the_paper_hides_tokens_from_the_questions_rows_alone(mllm):
    """The paper masks rows of question tokens, its code every row after the image."""
    sample = tiny.samples()[1]
    kept = np.arange(16) % 2 == 0
    trace = mllm.trace(
        [sample], edits=PAPER.edits(mllm, [kept]), reads=[Rows(Site(layers=[1], queries="after_image"))]
    )
    rows, question = trace[0].rows, trace.tokens[0].positions("question")
    hidden = (rows.values[0][:, :, ~kept] == 0).all(axis=(0, 2))
    assert set(rows["query"].values[hidden]) == set(question.tolist())
    assert 0 < len(question) < len(hidden)
    elsewhere = replace(PAPER, queries="after_image")
    assert PAPER.edits(mllm, [kept]) != elsewhere.edits(mllm, [kept])
    assert elsewhere.edits(mllm, [kept])[0].site.queries == ("after_image",)


def test_several_layers_and_generated_rows(mllm, eager):
    sample = tiny.samples()[1]
    method = replace(CODE, layers=[0, 2], steps="all")
    found = method.answer(mllm, [sample], max_new_tokens=N)[0]
    expected = answered_by_hand(
        eager, mllm, sample, found.details["kept"], "renormalise", layers=(0, 2), decode=True
    )
    np.testing.assert_allclose(found.logits, expected.logits[0], atol=1e-5)
    assert found.text == expected.text
    trace = mllm.trace(
        [sample], generate=N, edits=method.edits(mllm, [found.details["kept"]]), reads=[Rows(Site())]
    )
    for step, attention in enumerate(expected.attention):
        rows = attention[:, :, -1, trace.tokens[0].image]
        np.testing.assert_allclose(trace[0].rows[step, :, :, 0], rows, atol=1e-6)


@pytest.mark.parametrize("method", [CODE, PAPER], ids=["code", "paper"])
def test_a_batch_answers_as_each_sample_alone(mllm, method):
    together = method.answer(mllm, tiny.samples(), max_new_tokens=N)
    for sample, found in zip(tiny.samples(), together, strict=True):
        alone = method.answer(mllm, [sample], max_new_tokens=N)[0]
        np.testing.assert_allclose(found.logits, alone.logits, atol=1e-5)
        np.testing.assert_array_equal(found.details["kept"], alone.details["kept"])
        assert found.text == alone.text


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_percentile_zero_is_the_plain_model_to_the_bit(mllm, variant):
    prefix = mllm.prefix(tiny.samples())
    found = VGRefine(HEADS, variant=variant, percentile=0).answer(mllm, prefix, max_new_tokens=N)
    plain = Plain().answer(mllm, prefix, max_new_tokens=N)
    assert all(one.details["kept"].all() for one in found)
    np.testing.assert_array_equal([one.logits for one in found], [one.logits for one in plain])


def test_the_prompt_is_that_of_both_steps(mllm, eager):
    prompt = Prompt(template="what is there ? {question}")
    found = CODE.answer(mllm, tiny.samples(), prompt=prompt, max_new_tokens=1)
    expected = [map_by_hand(eager, mllm, sample, CODE, prompt) for sample in tiny.samples()]
    np.testing.assert_allclose([one.details["map"] for one in found], expected, rtol=1e-5)
    edits = CODE.edits(mllm, [kept_by_hand(one, "code") for one in expected])
    logits = mllm.trace(tiny.samples(), prompt=prompt, edits=edits).logits
    np.testing.assert_allclose([one.logits for one in found], logits, atol=1e-5)


@pytest.mark.parametrize("system", [None, "be brief"])
def test_the_triage_is_of_the_prompt_asked_for(mllm, eager, system):
    """Also where the generic prompt has another system message, so that both run whole."""
    sample, prompt = tiny.samples()[1], Prompt(template="what is there ? {question}", system=system)
    expected = map_by_hand(eager, mllm, sample, CODE, prompt)
    np.testing.assert_allclose(CODE.triage(mllm, sample, prompt)[0].map, expected, rtol=1e-5)
    answered = CODE.answer(mllm, sample, prompt=prompt, max_new_tokens=1)[0]
    np.testing.assert_allclose(answered.details["map"], expected, rtol=1e-5)


def test_epsilon_is_added_to_the_divisor(mllm, eager):
    sample = tiny.samples()[1]
    asked, generic = (last_rows(eager, mllm, sample, p) for p in (PAPER_PROMPT, GENERIC_PROMPT))
    expected = [asked[layer, head] / (generic[layer].mean(axis=0) + 0.25) for layer, head in HEADS]
    found = replace(CODE, epsilon=0.25).head_maps(mllm, sample).maps[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_prompts_that_share_no_image_run_whole(mllm, eager):
    generic = Prompt(template="what is there ?", system="be brief")
    method = replace(CODE, generic=generic)
    found = method.triage(mllm, tiny.samples())
    expected = [map_by_hand(eager, mllm, sample, method) for sample in tiny.samples()]
    np.testing.assert_allclose([one.map for one in found], expected, rtol=1e-5)
    assert method.head_maps(mllm, tiny.samples()).cost.forwards == 2  # no prefix


def test_it_costs_one_prefix_and_three_suffixes(mllm):
    samples = tiny.samples()
    assert {one.cost.forwards for one in CODE.answer(mllm, samples, max_new_tokens=1)} == {4}
    prefix = mllm.prefix(samples)
    found = CODE.answer(mllm, prefix, max_new_tokens=1)[0].cost
    assert found.forwards == 3
    whole = mllm.trace(samples).cost.tokens
    assert found.tokens == 2 * (whole - prefix.cost.tokens) + suffix_tokens(mllm, samples, GENERIC_PROMPT)


def suffix_tokens(mllm, samples, prompt: Prompt) -> int:
    """Positions after the image, padded to the longest sample's."""
    tokens = mllm.encode(samples, prompt).tokens
    return len(tokens) * max(one.length - 1 - one.image[-1] for one in tokens)


def test_measured_maps_serve_all_heads_and_percentiles(mllm):
    samples = tiny.samples()
    prefix = mllm.prefix(samples)
    measured = CODE.head_maps(mllm, prefix)
    for k in (1, 2, 3):
        for percentile in (30, 80):
            method = replace(CODE, heads=HEADS[:k], percentile=percentile)
            maps = [one[:k].mean(axis=0) for one in measured.maps]
            again = method.answer(mllm, prefix, maps=maps, max_new_tokens=1)
            whole = method.answer(mllm, samples, max_new_tokens=1)
            assert again[0].cost.forwards == 1
            for one, other in zip(again, whole, strict=True):
                np.testing.assert_allclose(one.details["map"], other.details["map"], rtol=1e-5)
                np.testing.assert_array_equal(one.details["kept"], other.details["kept"])
                np.testing.assert_allclose(one.logits, other.logits, atol=1e-5)


def test_as_many_maps_as_samples(mllm):
    with pytest.raises(MethodError, match="one map per sample; got 1 map for 3 samples"):
        CODE.answer(mllm, tiny.samples(), maps=[np.ones(16)])


def test_maps_are_a_list(mllm, unchecked):
    with pytest.raises(MethodError, match="one map per sample, as a list; got 5"):
        CODE.answer(mllm, tiny.samples(), maps=5)  # pyright: ignore[reportArgumentType]


def test_flat_maps_hide_nothing(mllm):
    prefix = mllm.prefix(tiny.samples())
    found = CODE.answer(mllm, prefix, maps=[np.ones(16)] * 3, max_new_tokens=1)
    plain = Plain().answer(mllm, prefix, max_new_tokens=1)
    np.testing.assert_array_equal([one.logits for one in found], [one.logits for one in plain])


def test_each_variant_sets_what_is_not_given():
    code, paper = VGRefine(HEADS).settings, VGRefine(HEADS, variant="paper").settings
    assert (code.percentile, code.mode, code.reference) == (80.0, "renormalise", "layer-mean")
    assert (paper.percentile, paper.mode, paper.reference) == (50.0, "zero", "per-head")
    assert (code.queries, paper.queries) == ("after_image", "question")
    assert code.steps == paper.steps == "prefill"
    mixed = VGRefine(
        HEADS, variant="paper", percentile=70, mode="renormalise", reference="none", queries="last"
    )
    assert mixed.settings == replace(
        paper, percentile=70, mode="renormalise", reference="none", queries="last"
    )
    assert replace(mixed, variant="code", percentile=None).settings.percentile == 80.0
    assert VGRefine(HEADS, steps="all").settings.queries == ("after_image", "answer")
    assert VGRefine(HEADS, variant="paper", steps="all").settings.queries == ("question", "answer")
    assert VGRefine(HEADS).generic == GENERIC_PROMPT


@pytest.mark.parametrize(("n_layers", "layer"), [(28, 16), (6, 3), (32, 18), (60, 34), (1, 0)])
def test_the_masked_layer_keeps_its_depth_unless_given(n_layers, layer):
    assert VGRefine(HEADS).masked_layers(n_layers) == (layer,)
    assert VGRefine(HEADS, layers=[30, 35]).masked_layers(n_layers) == (30, 35)


def test_it_is_a_method_and_a_value():
    method = VGRefine(
        list(published_heads("huatuogpt-vision-7b").pairs), queries=["after_image", word("lung")]
    )
    assert isinstance(method, Method)
    assert hash(method) == hash(replace(method))
    assert json.loads(json.dumps(method.to_dict())) == method.to_dict()
    assert VGRefine(HEADS, layers=[1]).to_dict() == {
        "method": "VGRefine",
        "variant": "code",
        "heads": [[1, 3], [0, 2], [2, 0]],
        "layers": [1],
        "percentile": 80.0,
        "mode": "renormalise",
        "reference": "layer-mean",
        "queries": ["after_image"],
        "steps": "prefill",
        "generic": GENERIC_PROMPT.to_dict(),
        "epsilon": 1e-10,
    }
    magnitude = VGRefine(HEADS, magnitude_threshold=0.3, triage_queries="after_image").to_dict()
    assert (magnitude["percentile"], magnitude["magnitude_threshold"]) == (None, 0.3)
    assert magnitude["triage_queries"] == "after_image"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": []}, r"heads are \(layer, head\) pairs.*published_heads.*got \[\]"),
        ({"heads": [3, 4]}, r"pairs, 0-based.*got \[3, 4\]"),
        ({"heads": None}, "pairs, 0-based.*got None"),
        ({"variant": "ours"}, "variant is 'code' or 'paper'; got 'ours'"),
        ({"percentile": 120}, "percentile is a finite number of at least 0 and at most 100; got 120"),
        ({"percentile": float("nan")}, "percentile is a finite number"),
        (
            {"magnitude_threshold": 80},
            "magnitude_threshold is a finite number of at least 0 and at most 1; got 80",
        ),
        (
            {"magnitude_threshold": 0.5, "percentile": 50},
            "by a percentile or by a magnitude; got percentile=50 and magnitude_threshold=0.5. Leave one",
        ),
        ({"triage_queries": "all"}, "triage_queries is 'last' or 'after_image'; got 'all'"),
        ({"mode": "drop"}, "mode is 'renormalise' or 'zero'; got 'drop'"),
        ({"reference": "mean"}, "reference is 'layer-mean' or 'per-head' or 'none'; got 'mean'"),
        ({"steps": "never"}, "steps is 'prefill' or 'decode' or 'all'; got 'never'"),
        (
            {"steps": "decode", "queries": "question"},
            'queries that name rows of generated tokens, "last", "reasoning" or "answer"',
        ),
        ({"queries": 3}, "queries= is a group of tokens"),
        ({"layers": 16}, r"write layers=\[16\].*Leave layers= out for layer 16 of 28"),
        ({"layers": "all"}, r"list of layers.*or None for layer 16 of 28, scaled.*got 'all'"),
        ({"epsilon": 0}, "epsilon is a finite number above 0; got 0"),
        (
            {"generic": "describe"},
            "generic is an interp.Prompt such as interp.GENERIC_PROMPT; got 'describe'",
        ),
    ],
)
def test_wrong_parameters_say_what_is_right(unchecked, wrong, message):
    with pytest.raises(MethodError, match=message):
        VGRefine(**({"heads": HEADS} | wrong))


def test_heads_and_layers_the_model_lacks(mllm):
    with pytest.raises(SiteError, match=r"the model has 4 heads, 0 … 3; got head 9"):
        VGRefine([(1, 9)]).answer(mllm, tiny.samples())
    with pytest.raises(SiteError, match=r"the model has 3 layers, 0 … 2; got layer 16"):
        VGRefine(HEADS, layers=[16]).answer(mllm, tiny.samples())


def test_edits_are_the_knockout_of_what_is_dropped(mllm):
    kept = [np.arange(16) > 3, np.arange(16) >= 0, np.arange(16) % 2 == 0]
    (edit,) = CODE.edits(mllm, kept)
    assert isinstance(edit, Knockout)
    assert edit.site.groups[1][0].masks == tuple(tuple((~one).tolist()) for one in kept)
    assert CODE.edits(mllm, [np.ones(16, dtype=bool)] * 3) == []


def test_an_empty_batch_is_refused(mllm):
    with pytest.raises(SampleError, match="at least one sample"):
        CODE.answer(mllm, [])


def test_the_source_executor_agrees():
    mllm = wrap(tiny.llava(), tiny.processor())
    tap, source = (
        CODE.answer(mllm.using(one), tiny.samples(), max_new_tokens=2) for one in ("tap", "source")
    )
    np.testing.assert_allclose([a.logits for a in tap], [a.logits for a in source], atol=1e-5)
    assert [a.text for a in tap] == [a.text for a in source]
