from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from interp.conformance.tiny import tiny as tiny_family
from interp.errors import ModelError, PromptError
from interp.tracing import Boost, Contrast, Decoding, Knockout, Rows, Site, wrap
from interp.tracing.execution import ends
from interp.tracing.layers.layer_plan import Recorder
from interp.tracing.passes.decoding import ClinicalContrast, Draw, NoisedImage
from interp.tracing.passes.run import Generation, _generated, imageless_inputs
from tests import tiny
from tests.identifiers import without_address
from tests.tiny import uneven_samples as samples
from tests.tracing.reference_attention import Changes, greedy
from tests.tracing.site_cells import Where

LOGITS = torch.tensor([[0.0, math.log(2), math.log(4), math.log(1)], [5.0, 1.0, 0.0, -1.0]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Decoding(beams=4), r"beam search is refused \(beams=4\).*temperature=0"),
        (lambda: Decoding(-1.0), r"temperature is 0 .* or a number ≥ 0.001; got -1"),
        (lambda: Decoding(1e-320), r"a number ≥ 0.001; got 1e-320"),
        (lambda: Decoding(beams=True), r"beam search is refused \(beams=True\)"),
        (lambda: Decoding(10**400), r"a number ≥ 0.001; got 1000"),
        (lambda: Contrast(gamma=10**400), r"gamma is a finite number; got 1000"),
        (lambda: Decoding(1.0, top_k=True), r"top_k is a whole number ≥ 1, or None; got True"),
        (lambda: Decoding(1.0, top_k=0), r"top_k is a whole number ≥ 1, or None; got 0"),
        (lambda: Decoding(1.0, top_p=0.0), r"top_p is a share in \(0, 1\], or None; got 0.0"),
        (lambda: Decoding(top_p=0.9), r"give a temperature > 0 as well"),
        (lambda: Decoding(contrast=1.1), r"contrast is an interp.Contrast or None; got 1.1"),
        (lambda: Contrast(gamma=math.nan), r"gamma is a finite number; got nan"),
        (lambda: Contrast(cutoff=0), r"cutoff is a share in \(0, 1\], or None; got 0"),
        (lambda: Contrast(cutoff=1.01), r"cutoff is a share in \(0, 1\], or None; got 1.01"),
        (lambda: Contrast(against="image"), r'against is "no image" or an interp.NoisedImage; got'),
        (lambda: Decoding(1.0, top_p=1.01), r"top_p is a share in \(0, 1\], or None; got 1.01"),
        (lambda: Decoding(top_k=3), r"give a temperature > 0 as well"),
        (lambda: NoisedImage(1000), r"step is a whole number from 0 to 999; got 1000"),
        (lambda: NoisedImage(-1), r"step is a whole number from 0 to 999; got -1"),
        (lambda: NoisedImage(seed=-1), r"seed is a whole number from 0 to \d+; got -1"),
        (lambda: NoisedImage(True), r"step is a whole number from 0 to 999; got True"),
        (lambda: ClinicalContrast({"a": {"Edema": 0.5}}, alpha=1.1), r"alpha is in \[0, 1\]; got 1.1"),
        (lambda: ClinicalContrast({"a": {"Edema": 0.5}}, beta=-0.1), r"beta is in \[0, 1\]; got -0.1"),
        (
            lambda: ClinicalContrast({"a": {"Edema": 0.5}}, gamma=0),
            r"gamma is a finite number above 0; got 0",
        ),
        (lambda: ClinicalContrast({}), r"findings are a mapping from a sample's id"),
        (lambda: ClinicalContrast({"a": {"Edema": 1.1}}), r"probability in \[0, 1\]; got"),
        (lambda: ClinicalContrast({"a": {"b": 0.5}, "c": {"": 0.5}}), r"of 'c'"),
    ],
)
def test_wrong_decodings_are_explained(make, message, unchecked):
    with pytest.raises(PromptError, match=message):
        make()


def test_the_ends_of_each_range_are_taken():
    Decoding(0.001, top_k=1, top_p=1.0)
    Contrast(cutoff=1.0)
    assert [NoisedImage(step).step for step in (0, 999)] == [0, 999]
    ClinicalContrast({"a": {"Edema": 0, "Nodule": 1}}, alpha=0, beta=1, gamma=0.1)
    ClinicalContrast({"a": {}}, alpha=1, beta=0)


def test_drawing_needs_a_seed(mllm, unchecked):
    with pytest.raises(PromptError, match=r"needs seed="):
        mllm.trace(tiny.sample(), generate=2, decoding=Decoding(1.0))
    with pytest.raises(PromptError, match=r"seed= is a whole number, or None; got 'a'"):
        mllm.trace(tiny.sample(), generate=2, seed="a", decoding=Decoding(1.0))
    with pytest.raises(PromptError, match=r"decoding= is an interp.Decoding; got 'greedy'"):
        mllm.trace(tiny.sample(), generate=2, decoding="greedy")


def test_probabilities_by_hand():
    """Of 1 : 2 : 4 : 1."""
    p = Decoding(1.0).probabilities(LOGITS)[0]
    assert_allclose(p, [1 / 8, 2 / 8, 4 / 8, 1 / 8], atol=1e-7)
    assert_allclose(Decoding(0.5).probabilities(LOGITS)[0], [1 / 22, 4 / 22, 16 / 22, 1 / 22], atol=1e-7)
    assert_allclose(Decoding(1.0, top_k=2).probabilities(LOGITS)[0], [0, 2 / 6, 4 / 6, 0], atol=1e-7)
    # the most likely has 0.5 and is not enough for 0.6; with the second it is
    assert_allclose(Decoding(1.0, top_p=0.6).probabilities(LOGITS)[0], [0, 2 / 6, 4 / 6, 0], atol=1e-7)
    assert_allclose(Decoding(1.0, top_p=0.5).probabilities(LOGITS)[0], [0, 0, 1, 0], atol=1e-7)
    assert_allclose(Decoding(1.0, top_p=1.0).probabilities(LOGITS)[0], p, atol=1e-12)


def test_draws_follow_the_probabilities():
    draw = Draw(Decoding(1.0), 3, ["a", "b"])
    tokens = np.array([draw(LOGITS).tolist() for _ in range(2000)])
    shares = np.bincount(tokens[:, 0], minlength=4) / 2000
    assert_allclose(shares, [1 / 8, 2 / 8, 4 / 8, 1 / 8], atol=0.04)  # about 3.6 standard errors
    only = Draw(Decoding(1.0, top_k=1), 3, ["a", "b"])
    assert {tuple(only(LOGITS).tolist()) for _ in range(20)} == {(2, 0)}


def test_samples_and_seeds_have_random_numbers_of_their_own():
    """The same logits for all: streams are told apart by the seed and the sample's id."""
    logits = torch.zeros(1, 1000)

    def tokens(seed: int, names: list[str]) -> list[list[int]]:
        draw = Draw(Decoding(1.0), seed, names)
        steps = [draw(logits.expand(len(names), -1)).tolist() for _ in range(4)]
        return [list(line) for line in zip(*steps, strict=True)]

    first, second = tokens(1, ["a", "b"])
    assert first != second
    assert tokens(1, ["b", "a"]) == [second, first]
    assert tokens(2, ["a"]) != [first]


def test_a_sample_draws_the_same_alone_and_in_a_batch(mllm):
    decoding, chosen = Decoding(3.0, top_k=40), tiny.samples()
    together = mllm.trace(chosen, generate=6, seed=5, decoding=decoding).answers
    assert [mllm.trace(s, generate=6, seed=5, decoding=decoding).answers[0] for s in chosen] == together
    assert mllm.trace(chosen, generate=6, seed=5, decoding=decoding).answers == together
    assert mllm.trace(chosen, generate=6, seed=6, decoding=decoding).answers != together
    source = mllm.using("source").trace(mllm.prefix(chosen), generate=6, seed=5, decoding=decoding)
    assert source.answers == together


def test_edits_reach_what_is_drawn(mllm):
    decoding = Decoding(3.0)
    plain = mllm.trace(tiny.samples(), generate=4, seed=5, decoding=decoding)
    edit = Knockout(Site(queries=("last", "answer"), keys="image"), steps="all")
    blind = mllm.trace(tiny.samples(), reads=[Rows()], edits=[edit], generate=4, seed=5, decoding=decoding)
    assert blind.answers != plain.answers
    assert all((one.rows == 0).all() for one in blind)


def test_contrast_by_hand():
    seeing = torch.tensor([[1.0, 3.0, -2.0]])
    blind = torch.tensor([[2.0, 1.0, 0.0]])
    guided = Contrast(gamma=1.5, cutoff=0.1)(seeing, blind)
    assert_allclose(guided, [[1.5 * -1 + 2, 1.5 * 2 + 1, -math.inf]])  # −2 < 3 + ln 0.1
    assert_allclose(Contrast(1.5, None)(seeing, blind)[0, 2], 1.5 * -2 + 0)
    assert_allclose(Contrast(1.0, None)(seeing, blind), seeing)


def test_a_cutoff_is_of_each_samples_own_best():
    """Of 4 : 2 : 1 and of the same raised by 9; a token of just the cutoff's share stays."""
    line = [2.0, 1.0, 0.0]
    both = torch.tensor([line, [one + 9 for one in line]])
    found = Contrast(1.0, math.exp(-1.0))(both, torch.zeros(2, 3))
    assert (found > -math.inf).tolist() == [[True, True, False]] * 2
    assert_allclose(Contrast(1.0, 1.0)(both, both)[:, 0], both[:, 0])


def test_what_is_masked_in_one_stream_stays_masked():
    seeing, blind = torch.tensor([[1.0, -math.inf]]), torch.tensor([[2.0, -math.inf]])
    assert Contrast(2.0, None)(seeing, blind).tolist() == [[0.0, -math.inf]]


def test_each_line_is_limited_by_its_own_tokens():
    """The k most likely, and the share, of each sample apart from the other's."""
    lines = torch.log(torch.tensor([[1.0, 2.0, 4.0, 1.0], [800.0, 100.0, 50.0, 50.0]]))
    assert_allclose(Decoding(1.0, top_k=2).probabilities(lines)[1], [8 / 9, 1 / 9, 0, 0], atol=1e-7)
    assert_allclose(Decoding(1.0, top_p=0.85).probabilities(lines)[1], [8 / 9, 1 / 9, 0, 0], atol=1e-7)
    assert_allclose(Decoding(1.0, top_k=4).probabilities(lines)[0], [1 / 8, 2 / 8, 4 / 8, 1 / 8], atol=1e-7)


def test_noise_by_hand():
    """At step 0 β is 1e-5 + sigmoid(−6)·(5e-3 − 1e-5); the noise is the sample's and the seed's own."""
    pixels = torch.ones(2, 500)
    kept = 1 - (1e-5 + (5e-3 - 1e-5) / (1 + math.exp(6)))
    noise = (NoisedImage(0)(pixels, "a") - math.sqrt(kept)) / math.sqrt(1 - kept)
    assert abs(float(noise.mean())) < 0.15
    assert abs(float(noise.std()) - 1) < 0.1
    found = [NoisedImage(500, seed)(pixels, name) for seed, name in ((0, "a"), (0, "b"), (1, "a"), (0, "a"))]
    assert torch.equal(found[0], found[3])
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert NoisedImage(999)(pixels, "a").mean().abs() < 0.5 < NoisedImage(0)(pixels, "a").mean()


def test_findings_are_told_and_biased_by_hand():
    found = ClinicalContrast({"a": {"Edema": 0.5, "Nodule": 0.49, "Frontal": 0.9}, "b": {"Edema": 0.1}})
    said = "Attention to the following clinical instructions: Edema. View type: Frontal."
    assert found.guide("a") == said
    assert found.guide("b") == "No clinical guidance based on current findings."
    with pytest.raises(PromptError, match="no findings of sample 'c'"):
        found.guide("c")
    assert found._bias(0.75) == pytest.approx(math.log(3))
    assert found._bias(0.25) == pytest.approx(-math.log(3))
    assert (found._bias(0.999), found._bias(0.0)) == (math.log(10), -math.log(10))
    wide = ClinicalContrast({"a": {"Edema": 0.5}}, gamma=1.0)
    assert wide._bias(0.999) == pytest.approx(math.log(999))


def test_a_word_of_two_labels_is_biased_by_the_likelier():
    """Only first tokens of words; the second word counts 0.95 of the first."""
    tokens = {"left": 3, "Ġlung": 4, "ung": 5, "ĠL": 6}
    split = {"left": ["left"], "left lung": ["left", "Ġlung"], "left Lung": ["left", "ĠL", "ung"]}
    tokenizer = SimpleNamespace(
        tokenize=split.__getitem__, convert_tokens_to_ids=lambda names: [tokens[name] for name in names]
    )
    one = ClinicalContrast({"a": {"left": 0.6, "left_Lung": 0.8}}, gamma=1.0)
    found = one.biases("a", tokenizer)
    q = 0.8 * 0.95
    later = math.log(q / (1 - q))
    assert found == pytest.approx({3: math.log(4), 4: later, 6: later})


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3"])
def test_guided_answers_are_those_of_two_models_by_hand(family):
    """The seeing stream edited, the blind one not; both recomputed from scratch at each step, alone."""
    mllm, contrast, chosen = wrap(*tiny_family(family)), Contrast(1.8, 0.05), samples()
    eager = tiny_family(family, "eager")[0]
    site = Site(layers=[1], queries="last")
    edits = [Boost(site, 0.7, "all")]
    for executor in ("tap", "source"):
        trace = mllm.using(executor).trace(
            chosen, edits=edits, generate=3, decoding=Decoding(contrast=contrast)
        )
        after = mllm.using(executor).trace(
            mllm.prefix(chosen), edits=edits, generate=3, decoding=Decoding(contrast=contrast)
        )
        for i, sample in enumerate(chosen):
            logits, text = by_hand(mllm, eager, sample, contrast, 3)
            for found in (trace, after):
                finite = np.isfinite(logits)
                np.testing.assert_array_equal(np.isfinite(found.logits.values[i]), finite)
                assert_allclose(found.logits.values[i][finite], logits[finite], atol=3e-5)
                assert found.answers[i] == text


def by_hand(mllm, eager, sample, contrast, n):
    """Logits after the prompt, and the text: both streams in eager models, from scratch at each step."""
    hf, batch = tiny_family(mllm.family)[0], mllm.encode(sample)
    tokens = batch.tokens[0]
    text = batch.inputs["input_ids"][:, np.setdiff1d(np.arange(tokens.length), tokens.image)]
    boost = Where(tokens, tokens.image, "last", "all", layers=(1,)).change(lambda e: e + 0.7 * e.abs())
    ids: list[int] = []
    first = None
    while len(ids) < n:
        steps = greedy(eager, batch.inputs, len(ids) + 1, changes=Changes(boost), forced=ids)
        told = torch.cat([text, torch.tensor([ids], dtype=torch.long)], dim=1)
        with torch.no_grad():
            blind = hf(input_ids=told, attention_mask=torch.ones_like(told), use_cache=False).logits[:, -1]
        guided = contrast(torch.from_numpy(steps.logits[-1])[None], blind)[0]
        first = guided.numpy() if first is None else first
        ids.append(int(guided.argmax()))
        if ids[-1] == 2:
            break
    return first, mllm.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_blind_prompts_hold_the_text_only(mllm, batch):
    told = imageless_inputs(mllm.hf, batch, 0)
    for i, tokens in enumerate(batch.tokens):
        n = tokens.length - tokens.n
        own = told["input_ids"][i, -n:]
        assert torch.equal(own, batch.singles[i].inputs["input_ids"][0, tokens.positions("text").tolist()])
        assert told["attention_mask"][i].sum() == n
        assert told["position_ids"][i, -n:].tolist() == list(range(n))


def test_guidance_costs_a_second_pass_without_the_image(mllm):
    plain = mllm.trace(tiny.sample(), generate=2).cost
    guided = mllm.trace(tiny.sample(), generate=2, decoding=Decoding(contrast=Contrast(1.0, None)))
    assert guided.cost.forwards == 2 * plain.forwards
    tokens = guided.tokens[0]
    assert guided.cost.tokens == plain.tokens + tokens.length - tokens.n + 1


@pytest.mark.parametrize(
    "given",
    [
        None,
        2,
        np.int64(2),
        [2],
        (2, 3),
        [np.int32(2), 3],
        torch.tensor(2),
        torch.tensor([2, 3]),
        np.array([2]),
    ],
)
def test_end_tokens_are_read_whatever_holds_them(mllm, given, monkeypatch):
    settings = SimpleNamespace(eos_token_id=given)
    monkeypatch.setattr(mllm.hf, "generation_config", settings)
    assert ends(mllm) >= {2}
    assert all(type(one) is int for one in ends(mllm))


@pytest.mark.parametrize(
    "given",
    ["</s>", "2", -1, 2.0, True, 10**6, [2, None], [[2]], torch.tensor([2.5]), {"a": 2}, object()],
    ids=without_address,
)
def test_end_tokens_that_are_none_are_refused_with_what_works(mllm, given, monkeypatch):
    monkeypatch.setattr(mllm.hf, "generation_config", SimpleNamespace(eos_token_id=given))
    with pytest.raises(
        ModelError, match="eos_token_id is a token id from 0 to 159, a list of them, or None"
    ) as raised:
        mllm.trace(tiny.sample(), generate=2)
    exec(str(raised.value).split("Set ")[1].split(", the tokenizer's")[0])
    assert ends(mllm) == {2}


def test_numpys_numbers_decode_and_are_written_as_json(unchecked):
    decoding = Decoding(
        np.float32(0.5), top_k=np.int64(3), contrast=Contrast(np.float32(1.5), np.float64(0.5))
    )
    assert json.loads(json.dumps(decoding.to_dict()))["top_k"] == 3


def test_nan_behind_an_ended_answer_stops_no_draw():
    """Sample 0 ends at once; what the model makes of its padding afterwards is nobody's answer."""
    first, later = torch.full((2, 5), -50.0), torch.full((2, 5), -50.0)
    first[0, 2] = first[1, 3] = later[1, 4] = 50.0
    later[0] = float("nan")
    inputs = {"attention_mask": torch.ones(2, 1), "position_ids": torch.zeros(2, 1, dtype=torch.long)}
    generation = Generation(2, frozenset({2}), 0, Draw(Decoding(1.0), 0, ["a", "b"]))
    ids, lost = _generated(lambda *_: later, first, inputs, Recorder(), generation)
    assert ids.tolist() == [[2, 0], [3, 4]]
    assert not lost.any()


def test_a_meta_default_device_is_refused(mllm):
    with (
        torch.device("meta"),
        pytest.raises(ModelError, match=r"default device is meta.*Encode samples outside"),
    ):
        mllm.trace(samples())
    assert mllm.trace(samples()).logits.size


@pytest.mark.parametrize("step", [0, 500, 999])
def test_the_images_share_is_that_of_the_schedule(step):
    """What one unit of a pixel leaves: √ of the product of 1 − β up to the step."""
    betas = 1e-5 + (5e-3 - 1e-5) / (1 + np.exp(-np.linspace(-6, 6, 1000)))
    both = [NoisedImage(step)(torch.full((3,), value), "a") for value in (0.0, 1.0)]
    assert_allclose(both[1] - both[0], np.sqrt(np.prod(1 - betas[: step + 1])), atol=1e-5)


def test_views_and_other_findings_are_told_apart():
    found = ClinicalContrast({"a": {"Lateral": 0.9, "Frontal": 0.5}, "b": {"Edema": 1, "Mass": 0.7}})
    assert found.guide("a").strip() == "View type: Lateral, Frontal."
    assert found.guide("b").strip() == "Attention to the following clinical instructions: Edema; Mass."
    again = ClinicalContrast({"b": {"Edema": 1, "Mass": 0.7}, "a": {"Lateral": 0.9, "Frontal": 0.5}})
    assert again == found
    unbounded = ClinicalContrast({"a": {}}, gamma=1.0)
    bound = math.log(1e-6 / (1 - 1e-6))
    assert (unbounded._bias(0.0), unbounded._bias(1.0)) == pytest.approx((bound, -bound))


def test_a_word_begins_after_any_mark_of_a_space():
    """As a mark of its own before the word, or at the front of its first piece."""
    pieces = ["▁le", "ft", "▁", "lung", "s", "Ġ", "left", "▁le"]
    numbers = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = SimpleNamespace(
        tokenize=lambda text: pieces, convert_tokens_to_ids=lambda names: [numbers[name] for name in names]
    )
    found = ClinicalContrast({"a": {"left": 0.5}}, gamma=1.0).biases("a", tokenizer)
    shares = {numbers[name]: 0.5 * 0.95**i for name, i in (("▁le", 0), ("▁", 2), ("lung", 3), ("left", 6))}
    shares[numbers["Ġ"]] = 0.5 * 0.95**5
    assert found == pytest.approx({one: math.log(q / (1 - q)) for one, q in shares.items()})
