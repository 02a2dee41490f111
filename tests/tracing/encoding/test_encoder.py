"""Samples → tensors and token maps, against the processor alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models

import tests.tiny as tiny
from interp.conformance.tiny import tiny as conformance_tiny
from interp.errors import BoxError, ImageTokenMismatch, ModelError, PromptError, SampleError
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.inputs.tokens import word
from interp.tracing import Rows, Site, wrap

PROMPTS = [
    PAPER_PROMPT,
    GENERIC_PROMPT,
    Prompt("{question} be", image_first=False),
    Prompt("is {question} a", system="be"),
]


def processed(sample: Sample, prompt: Prompt) -> transformers.BatchFeature:
    """What transformers' processor makes of one sample."""
    processor = tiny.processor()
    text = processor.apply_chat_template(prompt.messages(sample), add_generation_prompt=True, tokenize=False)
    return processor(
        images=[Image.fromarray(image) for image in sample.images], text=text, return_tensors="pt"
    )


@pytest.mark.parametrize("prompt", PROMPTS, ids=["paper", "generic", "image last", "system"])
def test_inputs_are_the_processors_padded_on_the_left(mllm, prompt):
    samples = tiny.samples()
    batch = mllm.encode(samples, prompt)
    for i, sample in enumerate(samples):
        expected = processed(sample, prompt)
        n = expected["input_ids"].shape[1]
        pad = batch.pad[i]
        assert batch.tokens[i].length == n == 40 - pad or prompt is not PAPER_PROMPT
        assert torch.equal(batch.inputs["input_ids"][i, pad:], expected["input_ids"][0])
        assert (batch.inputs["input_ids"][i, :pad] == 0).all()
        assert batch.inputs["attention_mask"][i].tolist() == [0] * pad + [1] * n
        assert batch.inputs["position_ids"][i, pad:].tolist() == list(range(n))
        assert torch.equal(batch.inputs["pixel_values"][i], expected["pixel_values"][0])
        image = (expected["input_ids"][0] == tiny.IMAGE_TOKEN).nonzero()[:, 0]
        np.testing.assert_array_equal(batch.tokens[i].image, image)
        assert batch.tokens[i].grid == (4, 4)
        assert batch.tokens[i].sizes == ((80, 64),)


def test_unusable_samples_are_refused_before_processing(mllm, tmp_path):
    Image.fromarray(tiny.picture()).save(tmp_path / "a.png")
    fractions = Sample(tmp_path / "a.png", "where is it?", boxes=[(0.2, 0.3, 0.5, 0.6)])
    unreadable = Sample.unusable("rows.jsonl, line 3: not JSON", id="rows:3")
    for run in (mllm.encode, mllm.trace):
        with pytest.raises(BoxError, match="at most 1, but its image is 80×64"):
            run([*tiny.samples(), fractions])
        with pytest.raises(SampleError, match="line 3: not JSON"):
            run([*tiny.samples(), unreadable])


@pytest.mark.parametrize("first", PROMPTS)
@pytest.mark.parametrize("second", PROMPTS)
def test_another_wording_equals_encoding_anew(mllm, first, second):
    samples = [
        *tiny.samples(),
        Sample(images=[tiny.picture(seed=7), tiny.picture(40, 96, 8)], question="is it red"),
    ]
    again, anew = mllm.encoder.again(mllm.encode(samples, first), second), mllm.encode(samples, second)
    assert again.prompts == anew.prompts
    assert again.prompt == second
    assert set(again.inputs) == set(anew.inputs)
    for name, value in anew.inputs.items():
        assert torch.equal(again.inputs[name], value), name
    for one, other in zip(again.tokens, anew.tokens, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        assert one.words == other.words
        assert one.length == other.length
        assert one.spans.keys() == other.spans.keys()
        for name, span in other.spans.items():
            np.testing.assert_array_equal(one.spans[name], span)


@pytest.mark.parametrize("prompt", [PAPER_PROMPT, *PROMPTS[2:]], ids=["paper", "image last", "system"])
def test_the_question_and_its_words_are_found(mllm, prompt):
    sample = Sample(images=[tiny.picture(), tiny.picture()], question="is the nodule in a left lung? is it?")
    batch = mllm.encode(sample, prompt)
    tokens, ids = batch.tokens[0], batch.singles[0].inputs["input_ids"][0]
    tokenizer = mllm.processor.tokenizer
    expected = tokenizer(sample.question, add_special_tokens=False)["input_ids"]
    assert ids.numpy()[tokens.positions("question")].tolist() == expected
    assert [text for text, _ in tokens.words] == [
        "is",
        "the",
        "nodule",
        "in",
        "a",
        "left",
        "lung",
        "is",
        "it",
    ]
    assert [tokenizer.decode(ids[list(at)]) for _, at in tokens.words[:8]] == [
        "is",
        "the",
        "nodule",
        "in",
        "a",
        "left",
        "lung",
        "is",
    ]
    assert len(tokens.positions(word("is"))) == 2
    assert "question" not in mllm.encode(sample, GENERIC_PROMPT).tokens[0].spans


def test_a_template_that_trims_the_question_still_shows_it(mllm):
    processor = tiny.processor()
    processor.chat_template = (
        "{% for m in messages %}<image> {{ m['content'][1]['text'] | trim }}{% endfor %} ok"
    )
    other = wrap(tiny.llava(), processor)
    tokens = other.encode(tiny.sample("  where is the lung  "), Prompt("{question}")).tokens[0]
    assert [text for text, _ in tokens.words] == ["where", "is", "the", "lung"]
    assert tokens.positions("question").tolist() == [17, 18, 19, 20]


def test_a_rewritten_question_has_no_question_group(mllm):
    processor = tiny.processor()
    processor.chat_template = (
        "{% for m in messages %}<image> {{ m['content'][1]['text'] | upper }}{% endfor %}"
    )
    other = wrap(tiny.llava(), processor)
    assert "question" not in other.encode(tiny.sample("where is it"), PAPER_PROMPT).tokens[0].spans


def subword_processor(kind: str) -> transformers.LlavaProcessor:
    """A processor whose tokenizer cuts words into pieces, and writes spaces as Llama or as GPT does."""
    letters = [*"abcdefghijklmnopqrstuvwxyz?.:", "▁", "Ġ", "no", "du", "le", "▁no", "Ġno", "nod"]
    words = ["<pad>", "<s>", "</s>", "<unk>", "<spare>", "<image>", *letters]
    vocabulary = {text: i for i, text in enumerate(words)}
    merges = [("n", "o"), ("d", "u"), ("l", "e"), ("▁", "no"), ("Ġ", "no")]
    backend = Tokenizer(tokenizer_models.BPE(vocabulary, merges, unk_token="<unk>"))
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.pre_tokenizer = (
        metaspace if kind == "metaspace" else pre_tokenizers.ByteLevel(add_prefix_space=False)
    )
    backend.decoder = decoders.Metaspace() if kind == "metaspace" else decoders.ByteLevel()
    processor = tiny.processor()
    processor.tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )
    return processor


@pytest.mark.parametrize("kind", ["metaspace", "byte level"])
def test_words_of_several_pieces_are_whole(kind):
    mllm = wrap(tiny.llava(), subword_processor(kind))
    sample = tiny.sample("is a nodule left?")
    tokens = mllm.encode(sample).tokens[0]
    ids = mllm.encode(sample).singles[0].inputs["input_ids"][0]
    at = tokens.positions(word("nodule"))
    pieces = mllm.processor.tokenizer.convert_ids_to_tokens(ids.numpy()[at])
    assert "".join(pieces).strip("▁Ġ") == "nodule"
    assert len(pieces) > 2
    after = mllm.processor.tokenizer.convert_ids_to_tokens(ids.numpy()[tokens.positions(word("left"))])
    assert after == ["le", "f", "t"]  # neither the space before it nor the sign after it
    whole = mllm.processor.tokenizer.decode(ids.numpy()[tokens.positions("question")]).strip()
    assert whole == "is a nodule left?"


def test_the_beginning_of_sequence_is_not_doubled():
    processor = tiny.processor()
    processor.chat_template = "<s>" + tiny.TEMPLATE
    mllm = wrap(tiny.llava(), processor)
    batch = mllm.encode(tiny.sample())
    assert batch.inputs["input_ids"][0].tolist().count(1) == 1
    assert mllm.encoder.again(batch, GENERIC_PROMPT).inputs["input_ids"][0].tolist().count(1) == 1


def test_without_a_chat_template_the_family_has_a_prompt():
    processor = tiny.processor()
    processor.chat_template = None
    mllm = wrap(tiny.llava(), processor)
    batch = mllm.encode(tiny.sample("is it red?"), Prompt("{question}", system="be brief"))
    assert batch.prompts == ("be brief USER: <image>\nis it red? ASSISTANT:",)
    assert [text for text, _ in batch.tokens[0].words] == ["is", "it", "red"]
    processor.tokenizer.chat_template = tiny.TEMPLATE
    assert (
        wrap(tiny.llava(), processor)
        .encode(tiny.sample("is it red?"))
        .prompts[0]
        .startswith("user : <image>")
    )


def test_a_slow_tokenizer_has_no_question_group_and_still_works(mllm, batch, monkeypatch):
    monkeypatch.setattr(type(mllm.processor.tokenizer), "is_fast", False)
    process = mllm.processor._process_images
    calls = []
    monkeypatch.setattr(
        mllm.processor, "_process_images", lambda *a, **k: calls.append(1) or process(*a, **k)
    )
    slow = mllm.encode(tiny.samples())
    assert torch.equal(slow.inputs["input_ids"], batch.inputs["input_ids"])
    assert slow.tokens[0].spans == {}
    mllm.encoder.again(slow, GENERIC_PROMPT)
    assert len(calls) == 6


def test_an_image_placeholder_in_the_question_is_refused(mllm):
    with pytest.raises(PromptError, match=r"holds the image placeholder '<image>' 2× for 1 image"):
        mllm.encode(tiny.sample("what is <image>?"))
    with pytest.raises(PromptError, match="take it out of the question"):
        mllm.trace(mllm.prefix(tiny.sample()), prompt=Prompt("<image> {question}"))


@pytest.mark.parametrize(("extra", "n"), [(0, 15), (2, 17)])
def test_a_wrong_number_of_image_tokens_is_refused(extra, n):
    processor = tiny.processor()
    processor.num_additional_image_tokens = extra
    mllm = wrap(tiny.llava(), processor)
    with pytest.raises(
        ImageTokenMismatch, match=rf"holds {n} image tokens but llava's grid for a 80×64 image is 4×4"
    ):
        mllm.encode(tiny.sample())


def test_a_tokenizer_that_truncates_and_pads_cuts_nothing(mllm, batch):
    processor = tiny.processor()
    processor.tokenizer.model_max_length = 12
    processor.tokenizer.init_kwargs |= {"truncation": True, "padding": "max_length"}
    other = wrap(tiny.llava(), processor).encode(tiny.samples())
    assert torch.equal(other.inputs["input_ids"], batch.inputs["input_ids"])


def test_a_prompt_beyond_the_models_positions_is_refused(mllm):
    long = tiny.sample("what is there ? " * 520)
    message = (
        rf"sample {long.id} \(2111 tokens, 16 of them image tokens\) takes 2111 positions, but .* has 2048"
    )
    with pytest.raises(PromptError, match=message):
        mllm.encode([tiny.sample(), long])
    with pytest.raises(PromptError, match="it was not trained on later positions"):
        mllm.trace(long)


def test_generated_tokens_take_positions_too(monkeypatch):
    mllm = wrap(tiny.llava(), tiny.processor())
    length = mllm.encode(tiny.sample()).tokens[0].length
    monkeypatch.setattr(mllm.hf.config.text_config, "max_position_embeddings", length + 2)
    mllm.trace(tiny.sample(), generate=3)  # the last one is not run
    with pytest.raises(PromptError, match=rf"and the 4 tokens to generate take {length + 3} positions"):
        mllm.trace(tiny.sample(), generate=4)


def test_a_processor_that_cannot_count_is_explained():
    processor = tiny.processor()
    processor.patch_size = None
    mllm = wrap(tiny.llava(), processor)
    with pytest.raises(ModelError, match=r"LlavaProcessor.patch_size is None.*the vision tower's is 14"):
        mllm.encode(tiny.sample())


def test_one_bad_sample_is_named(mllm, tmp_path):
    broken = Sample(tmp_path / "none.png", "is it red?")
    with pytest.raises(SampleError, match=r"none\.png"):
        mllm.encode([tiny.sample(), broken])


def test_a_batch_has_a_length_and_its_samples(batch):
    assert len(batch) == 3
    assert [s.question for s in batch.samples] == [s.question for s in tiny.samples()]
    assert batch.prompt == PAPER_PROMPT


def test_grayscale_and_odd_sizes_go_through(mllm):
    odd = [
        Sample(np.random.default_rng(0).integers(0, 255, (33, 91), dtype=np.uint8), "is it?"),
        Sample(Image.new("RGBA", (200, 20)), "is it?"),
    ]
    rows = mllm.trace(odd, reads=[Rows(Site())]).rows
    assert rows.shape == (2, 3, 4, 1, 16)


def test_an_image_the_processor_refuses_is_a_failed_sample():
    line = Sample(np.zeros((4, 900, 3), np.uint8), "is it red?", id="thin")
    qwen = wrap(*conformance_tiny("qwen2_vl"))
    with pytest.raises(SampleError, match=r"refuses sample thin \(.*aspect ratio.*Its images are 900×4"):
        qwen.encode([line])


def test_words_that_the_model_does_not_embed_are_refused():
    """On a GPU such an id ends the process's use of it; on a CPU it is an IndexError of torch's."""
    model, processor = conformance_tiny("llava")
    processor.tokenizer.add_tokens(["zzz"])
    mllm, asked = wrap(model, processor), tiny.sample("is zzz there?")
    largest = processor.tokenizer.convert_tokens_to_ids("zzz")
    n = model.get_input_embeddings().num_embeddings
    if largest < n:
        model.resize_token_embeddings(largest)
    with pytest.raises(
        ModelError, match=r"id \d+, but the model embeds ids up to \d+.*resize_token_embeddings"
    ):
        mllm.encode([asked])
    model.resize_token_embeddings(largest + 1)
    assert np.isfinite(mllm.trace([asked]).logits.values).all()


def test_samples_of_one_question_are_told_apart_in_a_call(mllm):
    """By their options and their number of images; a generic prompt is the same for all of one image."""
    question = "which is it?"
    given = [
        tiny.sample(question, options=("left", "right")),
        tiny.sample(question, options=("yes", "no")),
        Sample(images=[tiny.picture(), tiny.picture(seed=1)], question=question, options=("yes", "no")),
    ]
    for prompt in (PAPER_PROMPT, GENERIC_PROMPT):
        together, again = (
            mllm.encode(given, prompt),
            mllm.encoder.again(mllm.encode(given, PROMPTS[2]), prompt),
        )
        for batch in (together, again):
            for i, sample in enumerate(given):
                alone = mllm.encode(sample, prompt)
                assert batch.prompts[i] == alone.prompts[0]
                ids = [one.singles[at].inputs["input_ids"] for one, at in ((batch, i), (alone, 0))]
                assert torch.equal(*ids)
    assert len(set(mllm.encode(given).prompts)) == 3
