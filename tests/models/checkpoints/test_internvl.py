"""MedRegA's layout (InternVL 1.2), both versions of the pixel shuffle, against the same weights in plain torch."""

from __future__ import annotations

import builtins
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import interp
from interp.conformance import check
from interp.errors import ModelError
from tests.models.checkpoints import sentencepieces
from tests.models.checkpoints.layout_checks import (
    BREAKABLE,
    QUESTION,
    assert_order,
    assert_same,
    encoded,
    features,
    picture,
)
from tests.models.checkpoints.plain_models import squashed
from tests.models.checkpoints.written_vila_internvl import MEAN, STD, internvl_features, write_internvl

ASKED = f"{QUESTION} Answer the question using a single word or phrase."
KINDS = {
    "MedRegA": {"version": "v1"},  # the 6B tower, its last layer
    "v2": {"version": "v2", "tower": "300M", "layer": -2},
}


@pytest.fixture(scope="module", params=KINDS)
def both(request, tmp_path_factory):
    original = write_internvl(tmp_path_factory.mktemp(request.param) / "checkpoint", **KINDS[request.param])
    with pytest.MonkeyPatch.context() as patch:  # transformers would ask whether to run the folder's code
        patch.setattr(builtins, "input", lambda *_: pytest.fail("asked on the terminal"))
        return original, interp.load(original.folder)


@pytest.fixture
def broken(tmp_path):
    return write_internvl(tmp_path / "checkpoint", "v2")


def test_features_logits_and_rows_are_those_of_the_plain_model(both):
    original, mllm = both
    wanted = internvl_features(original, picture())
    torch.testing.assert_close(features(mllm), wanted, atol=1e-5, rtol=1e-5)
    ids = encoded(mllm).inputs["input_ids"][0]
    assert_same(mllm, original.language(ids, wanted, mllm.image_token_id, "language_model."))


def test_a_config_without_a_version_means_the_first(tmp_path):
    original = write_internvl(tmp_path / "checkpoint", None)
    wanted = internvl_features(original, picture())
    torch.testing.assert_close(features(interp.load(original.folder)), wanted, atol=1e-5, rtol=1e-5)
    transposed = wanted.reshape(3, 3, -1).transpose(0, 1).flatten(0, 1)
    assert (transposed - wanted).abs().max() > 0.1  # so the order shows


def test_the_image_is_squashed_to_one_tile(both):
    pixels = encoded(both[1]).inputs["pixel_values"]
    torch.testing.assert_close(pixels, squashed(picture(), 48, MEAN, STD), atol=1e-5, rtol=0)


def test_the_order_of_the_tokens(both):
    original, mllm = both
    boxes, cell = assert_order(mllm), np.array([30, 50 / 3])
    second = [0, 1] if original.settings["ps_version"] == "v1" else [1, 0]
    np.testing.assert_allclose(boxes[0], [0, 0, *cell])
    np.testing.assert_allclose(boxes[1], [*(second * cell), *((np.array(second) + 1) * cell)])


def test_the_prompt(both):
    mllm = both[1]
    batch = encoded(mllm)
    assert batch.prompts[0] == (
        "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<IMG_CONTEXT>\n"
        f"{ASKED}<|im_end|><|im_start|>assistant\n"
    )
    sp, n = sentencepieces.pieces(), sentencepieces.pieces().get_piece_size()
    start, end, opens, closes, context = range(n, n + 5)

    def said(text: str) -> list[int]:
        return sp.encode(f"<unk>{text}")[
            len(sp.encode("<unk>")) :
        ]  # no blank in front behind a special token

    assert batch.inputs["input_ids"][0].tolist() == [
        *(start, *said("system\nAnswer the questions."), end, start, *said("user\n")),
        *(opens, *[context] * 9, closes, *said(f"\n{ASKED}"), end, start, *said("assistant\n")),
    ]
    assert mllm.hf.generation_config.eos_token_id == [end, 2]


def test_a_system_message_takes_the_place_of_the_own_one(both):
    batch = both[1].encode(interp.Sample(picture(), QUESTION), prompt=interp.Prompt(system="Be brief."))
    assert batch.prompts[0].startswith("<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\n")


def test_the_answer_head_is_not_tied(both):
    hf = both[1].hf
    assert not hf.config.tie_word_embeddings
    assert not torch.equal(hf.lm_head.weight, hf.get_input_embeddings().weight)


def test_conformance_holds(both):
    found = check(both[1], probes=8, checks=BREAKABLE)
    assert found.passed, found.failures


def test_tensors_that_do_not_fit_are_listed(broken):
    path = broken.folder / "model-00001-of-00003.safetensors"
    weights = load_file(path)
    qkv = next(name for name in sorted(weights) if name.endswith("qkv.weight"))
    weights[qkv] = weights[qkv][:-1]
    weights["vision_model.encoder.layers.0.attn.rel_pos"] = torch.zeros(2)
    save_file(weights, path)
    where = broken.folder / "model.safetensors.index.json"
    index = json.loads(where.read_text())
    index["weight_map"]["vision_model.encoder.layers.0.attn.rel_pos"] = path.name
    where.write_text(json.dumps(index))
    with pytest.raises(
        ModelError, match=rf"{qkv} of shape \(107, 36\) cannot be made into .*q_proj.* and .*v_proj"
    ):
        interp.load(broken.folder)
    weights[qkv] = torch.zeros(105, 36)
    save_file(weights, path)
    with pytest.raises(
        ModelError, match=r"1 unexpected: \S+attn.rel_pos; 3 of another shape: .*got \(35, 36\)"
    ):
        interp.load(broken.folder)


def test_what_is_not_computed_is_refused(tmp_path):
    changed = {"template": "phi3-chat", "use_llm_lora": 16, "force_image_size": 96, "pad2square": True}
    original = write_internvl(tmp_path / "checkpoint", "v3", **changed)
    with pytest.raises(ModelError) as refused:
        interp.load(original.folder)
    said = str(refused.value)
    assert all(
        f"{name}={value!r} (known: " in said for name, value in [*changed.items(), ("ps_version", "v3")]
    )
    assert "interp.wrap(hf_model, processor, adapter=…)" in said


def test_a_tokenizer_without_the_tokens_around_an_image(broken):
    sentencepieces.llama_pieces(broken.folder, ["<|im_start|>", "<img>", "</img>"])
    with pytest.raises(ModelError, match=r"has no <IMG_CONTEXT> and no <\|im_end\|>, which its prompts need"):
        interp.load(broken.folder)


def test_a_missing_vocabulary_is_no_empty_one(broken):
    (broken.folder / "tokenizer.model").unlink()
    with pytest.raises(ModelError, match=r"holds none of tokenizer.json, .*Is the download complete"):
        interp.load(broken.folder)
