"""What VILA's config.json files say and leave out, and which conversation a vocabulary speaks, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from interp.errors import ModelError
from interp.models.checkpoints.vila_layout import Dialogue, Vila, _check, _config, _notes, dialogue

SIGLIP = {"model_type": "siglip_vision_model", "image_size": 42, "patch_size": 14, "hidden_size": 8}
RAW = {
    "mm_vision_select_feature": "cls_patch",
    **{f"{part}_cfg": {} for part in ("llm", "vision_tower", "mm_projector")},
}


def folder(path: Path, projector: str = "mlp_downsample", **raw: Any) -> Path:
    """A folder of VILA's, configs alone."""
    whole = {"": {**RAW, **raw}, "llm": {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2},
             "vision_tower": SIGLIP, "mm_projector": {"mm_projector_type": projector}}  # fmt: skip
    for name, config in whole.items():
        (path / name).mkdir(exist_ok=True)
        (path / name / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"image_aspect_ratio": "resize", "s2": False, "mm_use_im_start_end": False},
        {"image_aspect_ratio": "square", "vision_resolution": 42},
        {"vision_resolution": None},
    ],
)
def test_settings_that_are_computed_are_taken(raw: dict[str, Any], tmp_path: Path) -> None:
    _check(folder(tmp_path), {**RAW, **raw})


@pytest.mark.parametrize(
    ("raw", "projector", "said"),
    [
        ({"mm_vision_select_feature": "patch"}, "mlp_downsample", "mm_vision_select_feature='patch'"),
        ({"image_aspect_ratio": "pad"}, "mlp_downsample", "image_aspect_ratio='pad'"),
        ({"mm_use_im_start_end": True}, "mlp_downsample", "mm_use_im_start_end=True"),
        ({"s2": True}, "mlp_downsample", "s2=True"),
        ({"vision_resolution": 56}, "mlp_downsample", "vision_resolution=56"),
        ({}, "linear", "mm_projector_type='linear'"),
    ],
)
def test_each_other_setting_alone_is_refused(
    raw: dict[str, Any], projector: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=said):
        _check(folder(tmp_path, projector), {**RAW, **raw})


def test_every_part_of_a_folder_is_needed(tmp_path: Path) -> None:
    assert Vila().matches(folder(tmp_path))
    (tmp_path / "config.json").write_text(
        json.dumps({name: one for name, one in RAW.items() if name != "llm_cfg"})
    )
    assert not Vila().matches(tmp_path)
    (folder(tmp_path) / "mm_projector" / "config.json").unlink()
    assert not Vila().matches(tmp_path)


@pytest.mark.parametrize(
    ("text", "raw", "tied", "layer"),
    [({}, {}, False, -2), ({"tie_word_embeddings": True}, {"mm_vision_select_layer": -1}, True, -1)],
)
def test_a_config_of_both_parts(text: Any, raw: Any, tied: bool, layer: int, tmp_path: Path) -> None:
    """42 pixels are 3×3 patches of 14 and 2×2 tokens."""
    own = {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, **text}
    found: Any = _config(folder(tmp_path), raw, own, 9)
    assert (found.image_token_index, found.image_seq_length, found.vision_feature_layer) == (9, 4, layer)
    assert (found.tie_word_embeddings, found.text_config.tie_word_embeddings) == (tied, tied)
    assert (found.vision_config.vision_use_head, found.vision_config.image_size) == (False, 42)
    assert found.vision_feature_select_strategy == "full"
    with pytest.raises(ModelError, match="is of the model type 'bert'"):
        _config(tmp_path, raw, {**own, "model_type": "bert"}, 9)


@pytest.mark.parametrize(
    ("words", "name"), [(["<|start_header_id|>", "a"], "llama_3"), (["a"], "v1"), (["<|im_start|>"], None)]
)
def test_a_vocabulary_speaks_one_format(words: list[str], name: str | None, tmp_path: Path) -> None:
    tokenizer = SimpleNamespace(get_vocab=lambda: dict.fromkeys(words, 0))
    if name is None:
        with pytest.raises(ModelError, match="a vocabulary of ChatML"):
            dialogue(tokenizer, tmp_path)
    else:
        spoken = dialogue(tokenizer, tmp_path)
        assert spoken.name == name
        assert repr(name) in _notes(spoken, "<i>")[0]
        assert "'<i>'" in _notes(spoken, "<i>")[1]


@pytest.mark.parametrize(
    ("stored", "stops"), [(None, [5]), (2, [5, 2]), (5, [5]), ([2, 5, 3], [5, 2, 3]), (0, [5, 0])]
)
def test_an_answer_ends_with_the_formats_token_first(stored: Any, stops: list[int]) -> None:
    one = Dialogue("x", "", "{system} <image> {question}", "", "<end>")
    assert one.stops(SimpleNamespace(convert_tokens_to_ids={"<end>": 5}.get), stored) == stops
