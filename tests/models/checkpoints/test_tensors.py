"""Shards by their sizes, rules by their order, and layouts by their names: by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from interp.errors import ModelError
from interp.models.checkpoints import IGNORED, Part, Rule
from interp.models.checkpoints.layout import check_settings, config_of, licence, recognise, refuse_tower
from interp.models.checkpoints.tensors import Entry, cut, read_file, read_folder, write_shards
from interp.models.configs import original_layout

LLAMA3 = {"tokenizer_config.json": '"<|start_header_id|>"'}


@pytest.mark.parametrize(
    ("limit", "sizes"),
    [
        (8, [[4, 4], [8], [12], [4]]),  # as much as fits exactly, and a larger one alone
        (7, [[4], [4], [8], [12], [4]]),
        (11, [[4, 4], [8], [12], [4]]),
        (16, [[4, 4, 8], [12, 4]]),
        (100, [[4, 4, 8, 12, 4]]),
    ],
)
def test_a_shard_holds_as_much_as_fits(limit: int, sizes: list[list[int]]) -> None:
    entries = [Entry(f"t{i}", torch.float16, (n // 2,)) for i, n in enumerate((4, 4, 8, 12, 4))]
    assert [[one.nbytes for one in shard] for shard in cut(entries, limit)] == sizes
    assert [one.name for shard in cut(entries, limit) for one in shard] == [f"t{i}" for i in range(5)]


def test_the_first_rule_that_matches_the_whole_name_counts(tmp_path: Path) -> None:
    names = (
        "model.norm.weight",
        "model.norm",
        "x.position_ids",
        "y.rotary_emb.inv_freq",
        "model.norm.weights",
    )
    save_file({name: torch.zeros(1) for name in names}, tmp_path / "a.safetensors")
    rules = (*IGNORED, Rule(r"model\.norm\.weight", "first"), Rule(r"model\.(norm.*)", r"second.\1"))
    part = Part(read_file(tmp_path / "a.safetensors"), rules)
    assert {step.source: step.names for step in part.steps()} == {
        "model.norm.weight": ("first",),
        "model.norm": ("second.norm",),
        "x.position_ids": (),
        "y.rotary_emb.inv_freq": (),
        "model.norm.weights": ("second.norm.weights",),
    }
    (step, *_) = [one for one in Part(part.tensors, rules[:2]).steps() if one.source == "model.norm"]
    assert (step.names, step.rule) == (None, None)


def test_safetensors_come_before_pickles(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert read_folder(tmp_path).read("x").item() == 0
    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    assert read_folder(tmp_path).read("x").item() == 1
    save_file({"x": torch.full((1,), 2.0)}, tmp_path / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"x": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_folder(tmp_path).read("x").item() == 2


def test_names_in_a_training_checkpoint_lose_their_prefix(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": {"module.a.module.b": torch.ones(1)}, "epoch": 3}, tmp_path / "pytorch_model.bin"
    )
    assert list(read_folder(tmp_path).names()) == ["a.module.b"]
    torch.save({"a": torch.ones(1), "step": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="should hold named tensors"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"llm_cfg": {}, "vision_tower_cfg": {}}, "VILA"),
        ({"llm_cfg": {}}, None),
        ({"vision_tower_cfg": {}}, None),
        ({"mm_vision_tower": "x"}, "LLaVA"),
        ({"mm_projector_type": "linear"}, "LLaVA"),
        ({"model_type": "internvl_chat"}, "InternVL"),
        ({"model_type": "internvl"}, None),
    ],
)
def test_an_original_layout_is_known_by_its_keys(raw: dict[str, Any], said: str | None) -> None:
    found = original_layout(raw)
    assert found is None if said is None else f"in {said}'s original" in str(found)


@pytest.mark.parametrize(
    ("raw", "files", "name"),
    [
        ({"model_type": "llava", "mm_vision_tower": "openai/clip"}, {}, "llava_v1.5"),
        ({"model_type": "llava_llama", "mm_vision_tower": "openai/clip"}, {}, "llava_v1.5"),
        ({"model_type": "llava_mistral", "mm_vision_tower": "openai/clip"}, {}, "llava_med"),
        ({"model_type": "llava_llama", "mm_vision_tower": "a"}, {"adapter_config.json": "{}"}, "llava_lora"),
        ({"model_type": "llava_llama", "mm_vision_tower": "a"}, LLAMA3, "llava_tri"),
        ({"model_type": "llava_llama", "mm_vision_tower": "a"}, {"tokenizer_config.json": "{}"}, "llava_v1.5"),
        ({"model_type": "llava_qwen2", "mm_vision_tower": "./vit/clip"}, {}, "huatuogpt_vision_7b"),
        ({"model_type": "llava_qwen2", "mm_vision_tower": "vit/BiomedCLIP"}, {}, "huatuogpt_v_bio"),
        ({"model_type": "llava_llama", "mm_vision_tower": "vit/clip"}, {}, "huatuogpt_vision_34b"),
        ({"model_type": "llava_llama", "mm_vision_tower": "my/vit/clip"}, {}, "llava_v1.5"),
        ({"model_type": "llava_qwen2", "mm_vision_tower": "openai/clip"}, {}, None),
        ({"model_type": "llava"}, {}, None),
    ],
)  # fmt: skip
def test_each_kind_of_llava_is_told_from_the_others(
    tmp_path: Path, raw: dict[str, Any], files: dict[str, str], name: str | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(raw))
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    assert getattr(recognise(tmp_path), "name", None) == name


def test_settings_are_refused_one_and_all(tmp_path: Path) -> None:
    good = [("a", 1, (1, 2)), ("b", 2, (1, 2)), ("c", None, ("x", None))]
    check_settings(tmp_path, good, known="ours")
    with pytest.raises(
        ModelError, match=r"not supported: a=3 \(known: 1\), d='y' \(known: 'x'\)\. Supported"
    ):
        check_settings(tmp_path, [("a", 3, (1, 2)), *good[1:], ("d", "y", ("x",))], known="ours")
    refuse_tower(tmp_path, None)
    with pytest.raises(ModelError, match="vision_tower='t' has no place"):
        refuse_tower(tmp_path, "t")


def test_a_licence_is_of_the_cards_header(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("# A model\nlicense: mit\n")
    assert licence(tmp_path) is None  # a card without a header
    (tmp_path / "LICENCE.txt").write_text("British\n")
    assert licence(tmp_path) == "British"
    card.write_text("---\nbase: x\n---\nlicense: mit\n")
    assert licence(tmp_path) == "British"
    card.write_text("---\nlicense_name: 'Own One'\n---\n")
    assert licence(tmp_path) == "Own One"


def test_a_config_that_is_no_object_is_empty(tmp_path: Path) -> None:
    assert config_of(tmp_path) == {}
    for text, found in (("[1]", {}), ("{", {}), ('{"a": 1}', {"a": 1})):
        (tmp_path / "config.json").write_text(text)
        assert config_of(tmp_path) == found


def test_shards_begin_on_a_multiple_of_eight_bytes(tmp_path: Path) -> None:
    """As the format's readers expect, whatever the names' lengths; two shards and an index of both."""
    given = {"a": torch.arange(3.0), "long.name": torch.tensor([7], dtype=torch.int64), "b": torch.ones(2)}
    entries = [Entry("a", torch.float16, (3,)), Entry("long.name", torch.int64, (1,)),
               Entry("b", torch.float32, (2,))]  # fmt: skip
    write_shards(tmp_path, entries, given.items(), 14)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in names:
        assert int.from_bytes((tmp_path / name).read_bytes()[:8], "little") % 8 == 0
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {"a": names[0], "long.name": names[0], "b": names[1]}
    assert index["metadata"]["total_size"] == 6 + 8 + 8
    found = read_folder(tmp_path)
    assert {name: found.read(name).tolist() for name in found.names()} == {
        "a": [0, 1, 2], "long.name": [7], "b": [1, 1]
    }  # fmt: skip
    assert found.read("a").dtype == torch.float16
    with pytest.raises(ModelError, match=r"expected the tensor b of shape \(2,\); nothing of shape"):
        write_shards(tmp_path, entries, list(given.items())[:2], 99)
    with pytest.raises(ModelError, match=r"a is of the type torch\.complex64; known are .*Pass dtype="):
        write_shards(tmp_path, [Entry("a", torch.complex64, (3,))], given.items(), 99)
