"""What InternVL's config.json says and leaves out, and how packed weights are split, by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import InternVLConfig

from interp.errors import ModelError
from interp.models.checkpoints import internvl_layout as room
from interp.models.checkpoints.internvl_layout import (
    _ABSENT,
    Chat,
    _checked,
    _config,
    _notes,
    _split,
    _unpacked,
    chat_of,
    language_config,
    make_processor,
)

SMALL = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}


@pytest.mark.parametrize(("stored", "ends"), [(None, [5]), (5, [5]), (2, [5, 2])])
def test_an_answer_ends_with_its_turn_and_the_stored_token(stored: int | None, ends: list[int]) -> None:
    raw = {"architectures": ["Qwen2ForCausalLM"], "eos_token_id": stored, "model_type": "x", **SMALL}
    for tied in (True, False):
        found: Any = language_config(raw, tied, 5)
        assert (found.model_type, found.eos_token_id, found.tie_word_embeddings) == ("qwen2", ends, tied)
    assert found.hidden_size == 8


@pytest.mark.parametrize(("bias", "kept"), [({}, True), ({"bias": True}, True), ({"bias": False}, False)])
def test_internlm2_has_biases_unless_it_says_so(bias: dict[str, bool], kept: bool) -> None:
    raw = {"architectures": ["InternLM2ForCausalLM"], **SMALL, **bias}
    found: Any = language_config(raw, False, 5)
    assert (found.model_type, found.attention_bias) == ("llama", kept)


def test_packed_weights_are_split_by_group() -> None:
    """Two groups of two query heads, a key and a value, each of one row."""
    query, key, value = _unpacked(torch.arange(8.0)[:, None], groups=2, each=2)
    assert [one.flatten().tolist() for one in (query, key, value)] == [[0, 1, 4, 5], [2, 6], [3, 7]]
    assert [one.tolist() for one in _split(torch.arange(6.0))] == [[0, 1], [2, 3], [4, 5]]


def raw_config(
    vision: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **own: Any
) -> dict[str, Any]:
    language = {"architectures": ["Qwen2ForCausalLM"], **SMALL, **(text or {})}
    return {**_ABSENT, "vision_config": vision or {}, "llm_config": language, "template": "Hermes-2", **own}


def test_settings_that_are_left_out_are_the_originals() -> None:
    tokenizer = SimpleNamespace(convert_tokens_to_ids={"<|im_end|>": 5, "<IMG_CONTEXT>": 7}.get)
    config: Any = _config(raw_config(), tokenizer, InternVLConfig)
    vision = config.vision_config
    assert (vision.num_hidden_layers, vision.hidden_size, vision.num_attention_heads) == (48, 3200, 25)
    assert (vision.use_qk_norm, vision.attention_bias, vision.norm_type) == (True, False, "rms_norm")
    assert (config.image_token_id, config.image_seq_length, config.vision_feature_layer) == (7, 64, -4)
    assert (config.tie_word_embeddings, config.text_config.eos_token_id) == (False, [5])
    given = {"qk_normalization": False, "qkv_bias": True, "image_size": 448, "patch_size": 28}
    other: Any = _config(
        raw_config(given, {"tie_word_embeddings": True}, select_layer=-1), tokenizer, InternVLConfig
    )
    assert (other.vision_config.use_qk_norm, other.vision_config.attention_bias) == (False, True)
    assert (other.image_seq_length, other.vision_feature_layer, other.tie_word_embeddings) == (64, -1, True)


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"pad2square": False, "use_backbone_lora": 0, "use_llm_lora": 0},
        {"force_image_size": 224},
        {"ps_version": "v2", "dynamic_image_size": True, "use_thumbnail": True},
        {"vision": {"qk_normalization": False, "layer_norm_eps": 1e-5}},
    ],
)
def test_settings_that_are_computed_are_taken(own: dict[str, Any], tmp_path: Path) -> None:
    raw = raw_config(own.get("vision"), **{name: one for name, one in own.items() if name != "vision"})
    assert _checked(tmp_path, raw) == chat_of("Hermes-2", bool(raw["dynamic_image_size"]))


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"pad2square": True}, "pad2square=True"),
        ({"use_backbone_lora": 8}, "use_backbone_lora=8"),
        ({"use_llm_lora": 8}, "use_llm_lora=8"),
        ({"ps_version": "v3"}, "ps_version='v3'"),
        ({"force_image_size": 448}, r"force_image_size=448 \(known: 224\)"),
        ({"dynamic_image_size": True}, "use_thumbnail=False"),
        ({"template": "nobody"}, "template='nobody'"),
        ({"text": {"architectures": ["Nobody"]}}, r"llm_config.architectures=\['Nobody'\]"),
        ({"vision": {"layer_norm_eps": 1e-5}}, "vision_config.layer_norm_eps=1e-05"),
    ],
)
def test_each_other_setting_alone_is_refused(own: dict[str, Any], said: str, tmp_path: Path) -> None:
    rest = {name: one for name, one in own.items() if name not in ("text", "vision")}
    with pytest.raises(ModelError, match=said):
        _checked(tmp_path, raw_config(own.get("vision"), own.get("text"), **rest))


@pytest.mark.parametrize(
    ("tiles", "crops", "most"), [(None, False, (1, 1)), ((1, 6), True, (1, 6)), ((2, 3), True, (2, 3))]
)
def test_the_processor_cuts_as_many_tiles(tiles: Any, crops: bool, most: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(room, "is_torchvision_available", lambda: False)
    monkeypatch.setattr(room, "images_only", lambda _: lambda *parts, **named: (parts, named))
    config = InternVLConfig(vision_config={"image_size": [448, 336]}, image_seq_length=64)
    (images, _), named = make_processor(config, None, Chat("Be kind.", "<e>"), tiles)
    assert (images.crop_to_patches, (images.min_patches, images.max_patches)) == (crops, most)
    assert (images.size["height"], images.size["width"]) == (448, 336)
    assert named == {"image_seq_length": 64, "chat_template": Chat("Be kind.", "<e>").template}


def test_notes_are_of_the_version_and_the_tiles() -> None:
    assert [len(_notes(first, None)) for first in (True, False)] == [3, 2]
    assert "One tile per image" in _notes(False, None)[0]
    assert "at most 6 of them" in _notes(True, (1, 6))[1]
