"""InternVL-Chat 1.5 to 3 in the original layout, on InternLM2 and Qwen2, against the same weights in plain torch."""

from __future__ import annotations

import builtins
import re

import numpy as np
import pytest
import torch

import interp
from interp.conformance import check
from interp.errors import ModelError
from interp.models.tiling import canvas_of
from tests.models.checkpoints import sentencepieces
from tests.models.checkpoints.layout_checks import (
    BREAKABLE,
    QUESTION,
    assert_order,
    assert_same,
    encoded,
    picture,
)
from tests.models.checkpoints.written_internvl_chat import (
    ADDED,
    MOST,
    alphabet,
    canvas,
    chat_features,
    spoken,
    tiles,
    write_chat,
)

ASKED = f"{QUESTION} Answer the question using a single word or phrase."
SYSTEM = {
    "internlm2": (
        "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, "
        "是一个有用无害的人工智能助手。"
    ),
    "qwen2": (
        "你是书生·万象，英文名是InternVL，"
        "是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
    ),
}


@pytest.fixture(scope="module", params=SYSTEM)
def both(request, tmp_path_factory):
    original = write_chat(tmp_path_factory.mktemp(request.param) / "checkpoint", request.param)
    with pytest.MonkeyPatch.context() as patch:  # transformers would ask whether to run the folder's code
        patch.setattr(builtins, "input", lambda *_: pytest.fail("asked on the terminal"))
        return original, interp.load(original.folder)


def test_features_logits_and_rows_are_those_of_the_plain_model(both):
    original, mllm = both
    wanted, batch = chat_features(original, picture()), encoded(mllm)
    assert len(wanted) == 27  # two tiles and the thumbnail
    with torch.no_grad():
        found = mllm.hf.get_image_features(pixel_values=batch.inputs["pixel_values"]).pooler_output
    torch.testing.assert_close(torch.cat(list(found)), wanted, atol=1e-5, rtol=1e-5)
    outcome = spoken(original, batch.inputs["input_ids"][0], wanted, mllm.image_token_id)
    assert_same(
        mllm, outcome, within=1e-4
    )  # prompts of hundreds of tokens: more rounding than in a short one


def test_the_pixels_are_those_of_the_original_tiles(both):
    pixels = encoded(both[1]).inputs["pixel_values"]
    torch.testing.assert_close(pixels, tiles(picture()), atol=1e-5, rtol=0)


def test_tiles_follow_the_originals_choice(both):
    """All aspects that small numbers make, and sizes at which an equal aspect is decided by the area."""
    processor = both[1].processor
    sizes = [(w * 17, h * 17) for w in range(1, 14) for h in range(1, 14)]
    sizes += [(n, n) for n in (40, 48, 67, 68, 69, 100)] + [(2 * n, n) for n in (40, 47, 48, 60)]
    wrong = [size for size in sizes if canvas_of(size, processor) != canvas(size)]
    assert not wrong
    assert {c * r for c, r in map(canvas, sizes)} == set(range(1, MOST + 1))


def test_tokens_run_row_by_row_tile_after_tile(both):
    if both[0].text["model_type"] == "qwen2":
        boxes = assert_order(both[1])
        np.testing.assert_allclose(boxes[:2], [[0, 0, 15, 50 / 3], [15, 0, 30, 50 / 3]])
        np.testing.assert_allclose(boxes[9], [45, 0, 60, 50 / 3])  # the second tile, to the right
        np.testing.assert_allclose(boxes[18], [0, 0, 30, 50 / 3])  # the whole


def test_the_prompt(both):
    original, mllm = both
    kind, batch = original.text["model_type"], encoded(mllm)
    line = "\n" if kind == "qwen2" else ""
    assert batch.prompts[0] == (
        f"<|im_start|>system\n{SYSTEM[kind]}<|im_end|>{line}<|im_start|>user\n<IMG_CONTEXT>\n{ASKED}<|im_end|>{line}"
        "<|im_start|>assistant\n"
    )
    ids = batch.inputs["input_ids"][0].tolist()
    first = 257 if kind == "qwen2" else sentencepieces.pieces().get_piece_size()
    start, end, opens, closes, context = range(first, first + len(ADDED))
    assert (ids.count(start), ids.count(end), ids.count(context)) == (3, 2, 27)
    assert ids[ids.index(opens) : ids.index(closes) + 1] == [opens, *[context] * 27, closes]
    assert (ids[0] == start) == (kind == "qwen2")  # InternLM2's tokenizer puts <s> in front
    assert mllm.hf.generation_config.eos_token_id == [end, 2]


def test_a_qwen_prompt_is_its_bytes(both):
    original, mllm = both
    if original.text["model_type"] == "qwen2":
        places = {c: i for i, c in enumerate(alphabet())}
        spaced = {" ": "Ġ", "\n": "Ċ"}
        ids = encoded(mllm).inputs["input_ids"][0].tolist()
        tail = [places[spaced.get(c, c)] for c in f"\n{ASKED}"]
        after = ids.index(257 + 3) + 1
        assert ids[after : after + len(tail)] == tail


def test_an_internlm2_prompt_is_pieced_between_special_tokens(both):
    """As the original's tokenizer does it: SentencePiece for each piece by itself, with its space in front."""
    original, mllm = both
    if original.text["model_type"] == "internlm2":
        sp = sentencepieces.pieces()
        first = sp.get_piece_size()
        asked = encoded(mllm)
        expected = [1]
        for part in re.split("(" + "|".join(map(re.escape, ADDED)) + ")", asked.prompts[0]):
            special = [first + ADDED.index(part)] if part in ADDED else sp.encode(part)
            expected += special if part != ADDED[4] else [first + 2, *special * 27, first + 3]
        assert asked.inputs["input_ids"][0].tolist() == expected


def test_what_is_known_of_the_checkpoint(both):
    original, mllm = both
    assert mllm.family == "internvl"
    assert type(mllm.hf.config.text_config).__name__ == (
        "LlamaConfig" if original.text["model_type"] == "internlm2" else "Qwen2Config"
    )
    assert not mllm.hf.config.tie_word_embeddings


def test_tiles_without_a_thumbnail_are_refused(tmp_path):
    folder = write_chat(tmp_path / "checkpoint", "qwen2", use_thumbnail=False).folder
    with pytest.raises(ModelError, match=r"use_thumbnail=False \(known: True\)"):
        interp.load(folder)


def test_an_unknown_language_model_is_refused(tmp_path):
    original = write_chat(tmp_path / "checkpoint", "qwen2", template="phi3-chat")
    with pytest.raises(ModelError, match=r"template='phi3-chat' \(known: 'Hermes-2'\)"):
        interp.load(original.folder)


@pytest.mark.slow
def test_conformance_holds(both):
    found = check(both[1], probes=8, checks=BREAKABLE)
    assert found.passed, found.failures
