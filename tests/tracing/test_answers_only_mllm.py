"""Models that only answer: against `Mllm`'s own loop, against transformers' plain forward pass, and what is refused."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import transformers

import interp
from interp.conformance.tiny import kit, tiny
from interp.errors import EditError, ModelError, PromptError, SampleError, StudyError
from interp.inputs.prompt import Target
from interp.study.model_spec import model_label
from interp.tracing import Contrast, Decoding, Knockout, Site, wrap
from tests.identifiers import without_address

ANSWER = "red circle"


def samples() -> list[interp.Sample]:
    """Two samples of different lengths."""
    noise = np.random.default_rng(0)
    first, second = (noise.integers(0, 255, (60, width, 3), dtype=np.uint8) for width in (80, 56))
    return [interp.Sample(first, "where is the nodule?"), interp.Sample(second, "is it red or left?")]


@cache
def pair() -> tuple[interp.Mllm, interp.Mllm]:
    """The same weights, opened for answers only and with the family's adapter."""
    return wrap(*tiny("llava"), adapter="answers_only"), wrap(*tiny("llava"))


@cache
def florence() -> tuple[transformers.Florence2ForConditionalGeneration, transformers.Florence2Processor]:
    """An encoder-decoder whose generation settings are what a pass must not use: beams, forced and banned tokens."""
    vision = {"embed_dim": [8, 16, 16, 32], "num_heads": [2, 2, 2, 4], "num_groups": [2, 2, 2, 4]}
    sides = {
        f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in (("layers", 2), ("ffn_dim", 96))
    }
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    config = transformers.Florence2Config(
        vision_config={**vision, "depths": [1] * 4, "projection_dim": 64, "window_size": 4},
        text_config={
            "d_model": 64,
            **sides,
            **heads,
            "vocab_size": kit.VOCABULARY,
            "decoder_start_token_id": 2,
        },
        image_token_id=kit.FIRST_SPECIAL,
        is_encoder_decoder=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        hf = transformers.Florence2ForConditionalGeneration(config).eval()
    hf.lm_head.weight.data.mul_(20)
    hf.lm_head.weight.data[:4] = (
        0  # it is the embeddings' too, so the start token would be said again, which ends
    )
    for name, value in {"num_beams": 3, "no_repeat_ngram_size": 1, "forced_bos_token_id": 7}.items():
        setattr(hf.generation_config, name, value)
    images = transformers.CLIPImageProcessorPil(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 5
    return hf, transformers.Florence2Processor(images, kit.tokenizer(image_token="<image>"))


def decoded(
    hf: transformers.Florence2ForConditionalGeneration, inputs: dict[str, torch.Tensor], ids: list[int]
) -> torch.Tensor:
    """Logits after the start token and each of `ids`, by the model's plain forward pass over all of them at once."""
    with torch.no_grad():
        return hf(**inputs, decoder_input_ids=torch.tensor([[2, *ids]]), use_cache=False).logits[0]


def test_a_family_answers_as_its_adapter_has_it():
    bare, whole = pair()
    drawn = {"decoding": Decoding(temperature=1.0, top_k=50), "seed": 3}
    for options in ({}, drawn):
        assert bare.answers(samples(), generate=5, **options) == whole.answers(
            samples(), generate=5, **options
        )


@pytest.mark.parametrize(
    "target",
    [
        Target("greedy"),
        Target("greedy", tokens=3),
        Target(ANSWER, reduce="mean"),
        Target(interp.diff("yes", "no")),
    ],
)
def test_scores_are_those_of_the_adapter(target):
    bare, whole = pair()
    found, expected = bare.score(samples(), target), whole.score(samples(), target)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-5)
    assert [aim.answers for aim in found.aims] == [aim.answers for aim in expected.aims]


def test_a_sample_of_two_images_is_asked_under_the_prompt():
    (bare, whole), (first, second) = pair(), samples()
    two = first.replace(images=[first.image, second.image])
    prompt = interp.Prompt("{question} ?", system="be brief")
    said = bare.answers([two, second], prompt, generate=4, progress=False)
    assert said == whole.answers([two, second], prompt, generate=4)
    assert said != bare.answers([two, second], generate=4)
    found, expected = (
        one.score([two, second], Target(ANSWER), prompt=prompt).values for one in (bare, whole)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(found - bare.score([two, second], Target(ANSWER)).values).max() > 1e-3


def test_an_encoder_decoder_answers_greedily():
    hf, processor = florence()
    mllm = wrap(hf, processor, adapter="answers_only")
    before = hf.generation_config
    one = samples()[0]
    said = mllm.answers([one], interp.Prompt("{question}"), generate=4)[0]
    inputs = dict(processor(text=[one.question], images=[[one.load()]], return_tensors="pt"))
    ids: list[int] = []
    while len(ids) < 4 and (not ids or ids[-1] != 2):
        ids.append(int(decoded(hf, inputs, ids)[-1].argmax()))
    assert said == processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert said
    assert hf.generation_config is before
    assert before.num_beams == 3


def test_an_encoder_decoder_scores_the_answer_alone():
    hf, processor = florence()
    one = samples()[1]
    found = wrap(hf, processor, adapter="answers_only").score(
        one, Target(ANSWER), prompt=interp.Prompt("{question}")
    )
    inputs = dict(processor(text=[one.question], images=[[one.load()]], return_tensors="pt"))
    ids = processor.tokenizer(ANSWER, add_special_tokens=False)["input_ids"]
    log_p = decoded(hf, inputs, ids).double().log_softmax(-1)
    assert found.values[0] == pytest.approx(
        sum(float(log_p[i, token]) for i, token in enumerate(ids)), rel=1e-5
    )


def test_the_reason_says_how_to_let_it_answer():
    with pytest.raises(ModelError, match=r"'florence2' models have no spatial map.*adapter='answers_only'"):
        wrap(*florence())


@pytest.mark.parametrize(
    "ask",
    [
        lambda m: m.trace(samples()),
        lambda m: m.encode(samples()),
        lambda m: m.prefix(samples()),
        lambda m: m.embeddings(None),
        lambda m: m.layers,
        lambda m: m.shape,
        lambda m: m.visibility,
        lambda m: m.using("source"),
        lambda m: m.tap().__enter__(),
        lambda m: m.to_lens(),
        lambda m: m.submit(samples()),
        lambda m: m.collect("job", samples()),
        lambda m: m.answers(samples(), decoding=Decoding(contrast=Contrast())),
        lambda m: interp.indicators.Attention()(m, samples()),
        lambda m: interp.methods.PAI().answer(m, samples()),
    ],
)
def test_all_else_is_refused_with_the_reason(ask, unchecked):
    mllm = wrap(*florence(), adapter="answers_only")
    with pytest.raises((ModelError, EditError), match=r"answers_only.*it is an encoder-decoder"):
        ask(mllm)


def test_wrong_arguments_are_explained(unchecked):
    mllm, whole = pair()
    with pytest.raises(EditError, match=r"takes no edits: leave edits= out"):
        mllm.score(samples(), edits=[Knockout(Site())])
    with pytest.raises(PromptError, match=r"got generate=0"):
        mllm.answers(samples(), generate=0)
    with pytest.raises(PromptError, match=r"target is an interp.Target"):
        mllm.score(samples(), "yes")
    with pytest.raises(SampleError, match=r"takes samples, not an encoded batch or a prefix; got Batch"):
        mllm.answers(whole.encode(samples()))


def test_it_is_a_model_with_an_identity():
    hf, processor = florence()
    hf.train()
    mllm = wrap(hf, processor, adapter="answers_only")
    assert mllm.n_layers == 2
    assert mllm.fingerprint == wrap(hf, processor, adapter="answers_only").fingerprint
    assert without_address(repr(mllm)).startswith(
        "AnsweringMllm(Florence2ForConditionalGeneration, answers only"
    )
    assert mllm.sharing(None) is mllm
    assert not hf.training
    assert mllm.unwrap() is hf
    with pytest.raises(ModelError, match="unwrapped"):
        mllm.answers(samples())


def test_it_is_loaded_by_name(tmp_path):
    hf, processor = tiny("llava")
    hf.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    mllm = interp.load(tmp_path, adapter="answers_only")
    assert mllm.answers(samples()[0], generate=2) == pair()[1].answers(samples()[0], generate=2)


def test_a_study_opens_it_by_its_spec(tmp_path, unchecked):
    hf, processor = tiny("llava")
    hf.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    spec = interp.ModelSpec(str(tmp_path), adapter="answers_only")
    assert spec.load().family == "answers_only"
    assert model_label(spec) == f"{tmp_path}, adapter answers_only"
    with pytest.raises(StudyError, match=r"adapter of a ModelSpec is a name"):
        interp.ModelSpec("x", adapter=5)  # pyright: ignore[reportArgumentType]


def test_nan_logits_are_named_and_no_processor_blamed():
    hf, processor = tiny("llava")
    hf.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match=r"^the logits of sample \w+ are not numbers .*Try dtype='float32'"):
        wrap(hf, processor, adapter="answers_only").answers(samples()[0], generate=1)


def test_an_error_gives_the_generation_settings_back(monkeypatch):
    hf, processor = florence()
    mllm, before = wrap(hf, processor, adapter="answers_only"), hf.generation_config

    def fail(**given):
        assert (hf.generation_config.num_beams, hf.generation_config.max_new_tokens) == (1, 3)
        raise ValueError("boom")

    monkeypatch.setattr(hf, "generate", fail)
    with pytest.raises(ModelError, match=r"generate fails on sample \w+ \(ValueError: boom\)"):
        mllm.answers(samples()[:1], interp.Prompt("{question}"), generate=3)
    assert hf.generation_config is before
