"""VCD and CCD against naive loops: two eager forwards a step, each sample alone, nothing cached."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor

import tests.tiny as tiny
from interp.errors import MethodError, ModelError, PromptError
from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.methods import CCD, VCD, Plain
from interp.tracing import Boost, ClinicalContrast, Contrast, Decoding, Mllm, NoisedImage, Site, wrap

N = 3
EAGER = tiny.llava("eager")
SAMPLES = [one.replace(id=f"s{i}") for i, one in enumerate(tiny.samples())]
FINDINGS = {
    "s0": {"Nodule": 0.9, "Left lung": 0.2, "Frontal": 0.8},
    "s1": {"circle": 0.5},
    "s2": {"red": 0.001},
}


def loop(
    first: dict[str, Tensor],
    second: dict[str, Tensor],
    combine: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> tuple[np.ndarray, list[int]]:
    """The guided logits after the prompt, and the tokens; nothing is cached."""
    ids: list[int] = []
    found = None
    for _ in range(N):
        streams = []
        for given in (first, second):
            told = torch.cat([given["input_ids"], torch.tensor([ids], dtype=torch.long)], dim=1)
            with torch.no_grad():
                streams.append(
                    EAGER(input_ids=told, pixel_values=given["pixel_values"], use_cache=False).logits[0, -1]
                )
        guided = combine(*(one.double().numpy() for one in streams))
        found = guided if found is None else found
        ids.append(int(guided.argmax()))
        if ids[-1] == 2:
            break
    assert found is not None
    return found, ids


def check(mllm: Mllm, decoding: Decoding, expected: list[tuple[np.ndarray, list[int]]]) -> None:
    """In a batch, one by one, through both executors, and after a prefix."""
    for trace in (
        mllm.trace(SAMPLES, generate=N, decoding=decoding),
        mllm.trace(SAMPLES, generate=N, decoding=decoding, batch_size=1),
        mllm.using("source").trace(SAMPLES, generate=N, decoding=decoding),
        mllm.trace(mllm.prefix(SAMPLES), generate=N, decoding=decoding),
    ):
        for i, (logits, ids) in enumerate(expected):
            finite = np.isfinite(logits)
            assert_array_equal(np.isfinite(trace.logits.values[i]), finite)
            assert_allclose(trace.logits.values[i][finite], logits[finite], atol=3e-5)
            assert list(trace[i].ids) == ids


@pytest.mark.parametrize(("alpha", "cutoff", "step"), [(1.0, 0.1, 500), (0.5, 0.9, 999)])
def test_vcd_is_two_eager_forwards_a_step(mllm, alpha, cutoff, step):
    method = VCD(alpha, cutoff, step, seed=4)
    expected = []
    for sample in SAMPLES:
        inputs = dict(mllm.encode(sample).inputs)
        noised = {
            **inputs,
            "pixel_values": NoisedImage(step, 4)(inputs["pixel_values"], f"{sample.id} pixel_values"),
        }

        def guided(s: np.ndarray, u: np.ndarray) -> np.ndarray:
            return np.where(s < s.max() + math.log(cutoff), -np.inf, (1 + alpha) * s - alpha * u)

        expected.append(loop(inputs, noised, guided))
    check(mllm, method.decoding, expected)
    assert [one.text for one in method.answer(mllm, SAMPLES, max_new_tokens=N)] == [
        mllm.processor.tokenizer.decode(ids, skip_special_tokens=True).strip() for _, ids in expected
    ]
    plain = mllm.trace(SAMPLES).logits.values
    assert np.abs(np.where(np.isfinite(expected[0][0]), expected[0][0] - plain[0], 0)).max() > 1e-3


def test_the_noise_is_that_of_the_schedule():
    """ᾱ by a plain product, and the moments of many values; the seed and the id alone decide the noise."""
    product = 1.0
    for i in range(501):
        product *= 1 - (1 / (1 + math.exp(6 - 12 * i / 999)) * (0.5e-2 - 1e-5) + 1e-5)
    noised = NoisedImage(500)(torch.full((40_000,), 3.0), "a")
    assert float(noised.mean()) == pytest.approx(3 * math.sqrt(product), abs=0.02)
    assert float(noised.std()) == pytest.approx(math.sqrt(1 - product), rel=0.02)
    assert torch.equal(noised, NoisedImage(500)(torch.full((40_000,), 3.0), "a"))
    assert not torch.equal(noised, NoisedImage(500)(torch.full((40_000,), 3.0), "b"))
    assert not torch.equal(noised, NoisedImage(500, seed=1)(torch.full((40_000,), 3.0), "a"))
    almost = NoisedImage(0)(torch.full((1000,), 3.0), "a")
    assert_allclose(almost, 3.0, atol=0.03)


def log_p(logits: np.ndarray) -> np.ndarray:
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


GUIDES = {
    "s0": "Attention to the following clinical instructions: Nodule. View type: Frontal.",
    "s1": "Attention to the following clinical instructions: circle. ",
    "s2": "No clinical guidance based on current findings.",
}


@pytest.mark.parametrize("gamma", [10.0, 1.0])
def test_ccd_is_two_eager_forwards_a_step(mllm, gamma):
    method = CCD(FINDINGS, alpha=0.3, beta=0.7, gamma=gamma)
    vocabulary = mllm.processor.tokenizer.get_vocab()
    unknown = vocabulary["<unk>"]  # "Nodule" with a capital is no word of this tokenizer
    logit = {name: math.log(p / (1 - p)) for name, p in (("0.9", 0.9), ("0.19", 0.2 * 0.95), ("0.2", 0.2))}
    biases = {
        "s0": {vocabulary["nodule"]: logit["0.9"], vocabulary["left"]: logit["0.2"], unknown: logit["0.9"]},
        "s1": {vocabulary["circle"]: 0.0},
        "s2": {vocabulary["red"]: math.log(0.001 / 0.999)},
    }
    expected = []
    for sample in SAMPLES:
        template = f"{PAPER_PROMPT.template} {GUIDES[sample.id]}"
        told = mllm.encode(sample, Prompt(template=template)).inputs

        def guided(s: np.ndarray, c: np.ndarray, own: dict[int, float] = biases[sample.id]) -> np.ndarray:
            most = math.log(gamma) if gamma > 1 else math.inf
            mixed = 0.7 * log_p(s) + 0.3 * log_p(c)
            for token, value in own.items():
                mixed[token] += 0.7 * max(-most, min(most, value))
            return mixed

        expected.append(loop(dict(mllm.encode(sample).inputs), dict(told), guided))
    check(mllm, method.decoding, expected)


def test_the_words_of_a_finding_count_less_the_later_they_come():
    """A tokenizer of pieces: only those that begin a word, with p·0.95^place; the larger of two."""

    class Pieces:
        def tokenize(self, text: str) -> list[str]:
            return {"Pleural Other": ["Ple", "ural", "ĠOther"], "pleural other": ["ple", "ural", "Ġother"]}[
                text
            ]

        def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
            return [["Ple", "ple", "ural", "ĠOther", "Ġother"].index(token) for token in tokens]

    found = ClinicalContrast({"a": {"Pleural_Other": 0.8}}, gamma=1e9).biases("a", Pieces())
    logits = {n: math.log(0.8 * 0.95**n / (1 - 0.8 * 0.95**n)) for n in (0, 2)}
    assert found == pytest.approx({0: logits[0], 1: logits[0], 3: logits[2], 4: logits[2]})


def test_neutral_settings_are_the_plain_models(mllm):
    plain = Plain().answer(mllm, SAMPLES, max_new_tokens=N)
    nothing = VCD(alpha=0.0, cutoff=1e-30).answer(mllm, SAMPLES, max_new_tokens=N)
    assert [one.text for one in nothing] == [one.text for one in plain]
    assert_allclose(nothing[0].logits, plain[0].logits, atol=1e-5)
    same = CCD(FINDINGS, alpha=0.0, beta=0.0).answer(mllm, SAMPLES, max_new_tokens=N)
    assert_allclose(same[1].logits, log_p(plain[1].logits), atol=1e-5)
    assert VCD().repeat(mllm, nothing) == CCD(FINDINGS).repeat(mllm, same) == []
    assert nothing[0].cost.forwards == 2 * plain[0].cost.forwards


def test_the_second_stream_is_not_edited(mllm):
    edits = [Boost(Site(queries="last"), 0.7, "all")]
    contrast = Contrast(gamma=0.0, cutoff=None, against=NoisedImage(300))  # u alone
    trace, bare = (
        mllm.trace(SAMPLES, generate=1, edits=e, decoding=Decoding(contrast=contrast)) for e in (edits, [])
    )
    assert_array_equal(trace.logits, bare.logits)


def test_values_are_json_and_wrong_ones_are_explained(mllm, unchecked):
    for method in (VCD(), CCD(FINDINGS)):
        assert json.loads(json.dumps(method.to_dict()))["method"] == method.name
        assert json.loads(json.dumps(method.decoding.to_dict()))["contrast"]
    assert Decoding(contrast=Contrast()).to_dict()["contrast"] == {"gamma": 1.1, "cutoff": 0.1}
    assert CCD(FINDINGS) == CCD(dict(reversed(FINDINGS.items())))
    for make, error, said in (
        (lambda: VCD(alpha=-1), MethodError, "alpha is a finite number of at least 0"),
        (lambda: VCD(step=1000), MethodError, r"step is a whole number from 0 to 999; got 1000"),
        (lambda: VCD(cutoff=0), MethodError, r"cutoff is a share in \(0, 1\], or None; got 0"),
        (lambda: Contrast(against="text"), PromptError, r'against is "no image" or an interp.NoisedImage'),
        (lambda: CCD({}), MethodError, r"findings are a mapping from a sample's id"),
        (
            lambda: CCD({"a": {"x": 2}}),
            MethodError,
            r"label → probability in \[0, 1\]; got \{'x': 2\} of 'a'",
        ),
        (lambda: CCD(FINDINGS, alpha=2), MethodError, r"alpha is in \[0, 1\]; got 2"),
        (lambda: CCD(FINDINGS, gamma=0), MethodError, r"gamma is a finite number above 0; got 0"),
    ):
        with pytest.raises(error, match=said):
            make()
    with pytest.raises(
        PromptError, match=r"no findings of sample 'other'. Give each sample's: findings=\{sample.id"
    ):
        CCD(FINDINGS).answer(mllm, tiny.sample(id="other"))


def test_everything_that_answers_depend_on_is_in_the_dict():
    assert VCD(0.5, 0.2, 300, 7).to_dict() == {
        "method": "VCD", "alpha": 0.5, "cutoff": 0.2, "step": 300, "seed": 7
    }  # fmt: skip
    found = CCD({"b": {"y": 0.5, "x": 1}, "a": {"z": 0.25}}, alpha=0.1, beta=0.2, gamma=3.0)
    assert found.to_dict() == {
        "method": "CCD", "findings": {"a": {"z": 0.25}, "b": {"x": 1, "y": 0.5}},
        "alpha": 0.1, "beta": 0.2, "gamma": 3.0,
    }  # fmt: skip
    published = [
        VCD().alpha,
        VCD().cutoff,
        VCD().step,
        CCD(FINDINGS).alpha,
        CCD(FINDINGS).beta,
        CCD(FINDINGS).gamma,
    ]
    assert published == [1, 0.1, 500, 0.5, 0.5, 10]


def test_an_image_without_pixels_is_told_what_else_there_is(mllm, monkeypatch):
    batch = mllm.encode(SAMPLES[0])
    single = batch.singles[0]
    monkeypatch.setitem(single.inputs, "image_features", single.inputs.pop("pixel_values"))  # pyright: ignore
    with pytest.raises(ModelError, match=r"no pixel values to put noise on. Use Contrast\(\) against"):
        mllm.trace(batch, generate=1, decoding=VCD().decoding)
    single.inputs["pixel_values"] = single.inputs["image_features"]  # pyright: ignore


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3"])
def test_other_families_take_both(family):
    """Positions of several axes, and image tokens that see both ways, in the second stream too."""
    from interp.conformance.tiny import tiny as tiny_family

    mllm = wrap(*tiny_family(family))
    eager = tiny_family(family, "eager")[0]
    for contrast in (Contrast(2.0, None, NoisedImage(400)), ClinicalContrast(FINDINGS, alpha=1.0, beta=0.0)):
        trace = mllm.trace(SAMPLES, generate=1, decoding=Decoding(contrast=contrast))
        for i, sample in enumerate(SAMPLES):
            first = {n: v for n, v in mllm.encode(sample).inputs.items() if n != "position_ids"}
            if isinstance(contrast, Contrast):
                pixels = contrast.against(first["pixel_values"], f"{sample.id} pixel_values")  # pyright: ignore
                with torch.no_grad():
                    s, u = (eager(**one).logits[0, -1] for one in (first, {**first, "pixel_values": pixels}))
                wanted = 2 * s - u
            else:
                told = mllm.encode(
                    sample, Prompt(template=f"{PAPER_PROMPT.template} {GUIDES[sample.id]}")
                ).inputs
                told = {n: v for n, v in told.items() if n != "position_ids"}
                with torch.no_grad():
                    wanted = eager(**told).logits[0, -1].log_softmax(-1)
            assert_allclose(trace.logits.values[i], wanted, atol=3e-5)
