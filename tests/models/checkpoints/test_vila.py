"""VILA-M3's layout against the same weights in plain torch."""

from __future__ import annotations

import json
import shutil

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
from tests.models.checkpoints.written_vila_internvl import SIGLIP, vila_features, write_vila

ASKED = f"{QUESTION} Answer the question using a single word or phrase."


@pytest.fixture(scope="module", params=["llama_3", "v1"])
def both(request, tmp_path_factory):
    original = write_vila(tmp_path_factory.mktemp(request.param) / "checkpoint", request.param)
    return original, interp.load(original.folder)


@pytest.fixture
def broken(tmp_path):
    return write_vila(tmp_path / "checkpoint", "v1")


def test_features_logits_and_rows_are_those_of_the_plain_model(both):
    original, mllm = both
    wanted = vila_features(original, picture())
    torch.testing.assert_close(features(mllm), wanted, atol=1e-5, rtol=1e-5)
    ids = encoded(mllm).inputs["input_ids"][0]
    assert int((ids == mllm.image_token_id).sum()) == 16
    assert_same(mllm, original.language(ids, wanted, mllm.image_token_id, "llm."))


def test_the_image_is_squashed(both):
    pixels = encoded(both[1]).inputs["pixel_values"]
    torch.testing.assert_close(pixels, squashed(picture(), SIGLIP["image_size"], 0.5, 0.5), atol=1e-5, rtol=0)


def test_tokens_run_down_the_columns(both):
    boxes = assert_order(both[1])
    cell, seen = np.array([90, 50]) * 16 / 60, np.array([90, 50]) * 56 / 60
    np.testing.assert_allclose(boxes[0], [0, 0, *cell])
    np.testing.assert_allclose(boxes[1], [0, cell[1], cell[0], 2 * cell[1]])
    np.testing.assert_allclose(boxes[4], [cell[0], 0, 2 * cell[0], cell[1]])
    np.testing.assert_allclose(boxes[15], [*(3 * cell), *seen])


def test_the_prompt_of_the_8b_begins_twice(tmp_path):
    mllm = interp.load(write_vila(tmp_path / "checkpoint").folder)
    batch = encoded(mllm)
    assert batch.prompts[0] == (
        "<|begin_of_text|><|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "You are a helpful language and vision assistant. You are able to understand the visual content that the "
        "user provides, and assist the user with a variety of tasks using natural language.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n<|reserved_special_token_1|>\n"
        f"{ASKED}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    tokenizer, ids = mllm.processor.tokenizer, batch.inputs["input_ids"][0].tolist()
    before, after = batch.prompts[0].removeprefix("<|begin_of_text|>").split("<|reserved_special_token_1|>")
    piecewise = [
        tokenizer(before)["input_ids"],
        tokenizer(after)["input_ids"][1:],
    ]  # each begins with a first token
    assert ids == [*piecewise[0], *[mllm.image_token_id] * 16, *piecewise[1]]
    assert ids[:3] == [tokenizer.bos_token_id, tokenizer.bos_token_id, ids[2]]
    assert ids[2] != tokenizer.bos_token_id
    assert mllm.hf.generation_config.eos_token_id[0] == tokenizer.convert_tokens_to_ids("<|eot_id|>")


def test_the_prompt_of_3b_and_13b_is_tokenised_in_pieces(tmp_path):
    mllm = interp.load(write_vila(tmp_path / "checkpoint", "v1").folder)
    head = (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: "
    )
    batch = encoded(mllm)
    assert batch.prompts[0] == f"{head}<unk> \n{ASKED} ASSISTANT:"
    sp = (
        sentencepieces.pieces()
    )  # cut at the image; a first blank in front of each piece, as the original's tokenizer does
    wanted = [sp.bos_id(), *sp.encode(head), *[sp.unk_id()] * 16, *sp.encode(f"\n{ASKED} ASSISTANT:")]
    assert batch.inputs["input_ids"][0].tolist() == wanted
    assert mllm.processor.tokenizer.pad_token_id != mllm.image_token_id


def test_an_unused_row_stands_for_the_image_where_there_is_one(tmp_path):
    original = write_vila(tmp_path / "checkpoint", "v1", spare=2)
    mllm = interp.load(original.folder)
    assert mllm.image_token_id == original.text["vocab_size"] - 2
    batch = encoded(mllm)
    assert "USER: <image> \n" in batch.prompts[0]
    wanted = vila_features(original, picture())
    assert_same(mllm, original.language(batch.inputs["input_ids"][0], wanted, mllm.image_token_id, "llm."))


def test_conformance_holds(tmp_path):
    found = check(write_vila(tmp_path / "checkpoint", "v1").folder, probes=8, checks=BREAKABLE)
    assert found.passed, found.failures


def test_tensors_that_do_not_fit_are_listed(broken):
    path = broken.folder / "mm_projector" / "model.safetensors"
    weights = load_file(path)
    weights["layers.2.weight"] = weights["layers.2.weight"].T.contiguous()
    weights["layers.5.bias"] = weights.pop("layers.4.bias")
    save_file(weights, path)
    with pytest.raises(ModelError) as refused:
        interp.load(broken.folder)
    said = str(refused.value)
    assert "1 missing: model.multi_modal_projector.linear_2.bias; 1 unexpected: layers.5.bias;" in said
    assert (
        "multi_modal_projector.linear_1.weight (expected (64, 128), got (128, 64), from layers.2.weight)"
        in said
    )


def test_what_is_not_computed_is_refused(broken):
    config = broken.folder / "config.json"
    settings = json.loads(config.read_text())
    config.write_text(
        json.dumps({**settings, "s2": True, "image_aspect_ratio": "pad", "vision_resolution": 96})
    )
    (broken.folder / "mm_projector" / "config.json").write_text(
        '{"mm_projector_type": "mlp_downsample_2x2_fix"}'
    )
    with pytest.raises(
        ModelError,
        match=r"image_aspect_ratio='pad' \(known: 'resize'\), s2=True .*mm_projector_type='mlp_downsample_2x2_fix' "
        r"\(known: 'mlp_downsample'\), vision_resolution=96 .*interp.wrap",
    ):
        interp.load(broken.folder)


def test_parts_that_are_not_there(broken):
    with pytest.raises(ModelError, match=r"vision_tower='x' has no place in .*Leave it out"):
        interp.load(broken.folder, vision_tower="x")
    (broken.folder / "vision_tower" / "model.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"vision_tower holds no weights: expected one of .*download complete"
    ):
        interp.load(broken.folder)
    (broken.folder / "llm" / "tokenizer_config.json").unlink()
    (broken.folder / "llm" / "tokenizer.model").unlink()
    with pytest.raises(ModelError, match=r"llm holds none of tokenizer.json, .*Is the download complete"):
        interp.load(broken.folder)
    shutil.rmtree(broken.folder / "mm_projector")
    with pytest.raises(ModelError, match=r"VILA's original layout, but"):
        interp.load(broken.folder)


def test_a_vocabulary_of_chatml_is_refused(tmp_path):
    original = write_vila(tmp_path / "checkpoint", "v1")
    sentencepieces.llama_pieces(original.folder / "llm", ["<|im_start|>"])
    with pytest.raises(ModelError, match=r"vocabulary of ChatML; known are .* llama_3 or v1"):
        interp.load(original.folder)
