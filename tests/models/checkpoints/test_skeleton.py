"""Lazy tensors, rules, and a model filled tensor by tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.models.checkpoints import IGNORED, Checkpoint, Part, Rule, empty_model, fill
from interp.models.checkpoints.layout import licence
from interp.models.checkpoints.tensors import Files, read_file, read_folder
from tests.models.checkpoints.written_llava import shards

RULES = (
    *IGNORED,
    Rule(r"old\.heads\.weight", tuple(f"model.{w}.weight" for w in "qkv"), lambda t: t.chunk(3)),
    Rule(r"(model\.vision_tower|model\.multi_modal_projector|lm_head)(\..+)", r"\1\2"),
    Rule(r"model\.(layers|embed_tokens|norm)\.(.+)", r"model.language_model.\1.\2"),
)


@pytest.fixture(scope="module")
def original() -> tuple[Any, dict[str, Tensor]]:
    """A tiny LLaVA, and its tensors under other names, with a buffer that old checkpoints carry."""
    model, _ = tiny("llava")
    named = {n.replace("model.language_model.", "model."): t.clone() for n, t in model.state_dict().items()}
    return model, named | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}


def opened(folder: Path, model: Any) -> Checkpoint:
    """The folder as a checkpoint of that model."""
    part = Part(read_folder(folder), RULES)
    return Checkpoint("test", str(folder), model.config, type(model), (part,), lambda: None, "")


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
@pytest.mark.parametrize("n", [1, 3])
def test_every_form_of_file_gives_the_same_model(original, tmp_path, kind, n):
    model, named = original
    shards(tmp_path, named, kind, n)
    found = fill(opened(tmp_path, model))
    expected = model.state_dict()
    assert found.state_dict().keys() == expected.keys()
    assert all(torch.equal(found.state_dict()[name], expected[name]) for name in expected)
    assert not found.training
    elsewhere = fill(opened(tmp_path, model), torch.float16, "meta")
    assert {one.device.type for one in (*elsewhere.parameters(), *elsewhere.buffers())} == {"meta"}
    assert {one.dtype for one in elsewhere.parameters()} == {torch.float16}
    ids = torch.tensor([[1, 9, 8]])
    with torch.no_grad():  # buffers that no file holds are right too
        assert torch.equal(found(input_ids=ids).logits, model(input_ids=ids).logits)


def test_dtypes(original, tmp_path):
    model, named = original
    halves = {name: t.half() if "vision" not in name else t for name, t in named.items()}
    shards(tmp_path, halves, "safetensors", 2)
    checkpoint = opened(tmp_path, model)
    assert fill(checkpoint).dtype == torch.float16  # what most of the files' numbers are
    whole = fill(checkpoint, torch.bfloat16)
    assert {p.dtype for p in whole.parameters()} == {torch.bfloat16}
    assert whole.model.language_model.rotary_emb.inv_freq.dtype == torch.float32
    assert all(p.is_meta for p in empty_model(checkpoint).parameters())


def test_tied_tables_need_only_one(original, tmp_path):
    model, named = original
    config = type(model.config).from_dict(model.config.to_dict())
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = True
    shards(tmp_path, {n: t for n, t in named.items() if n != "lm_head.weight"}, "bin", 1)
    part = Part(read_folder(tmp_path), RULES)
    found = fill(Checkpoint("test", str(tmp_path), config, type(model), (part,), lambda: None, ""))
    assert found.lm_head.weight is found.model.language_model.embed_tokens.weight
    assert torch.equal(found.lm_head.weight, model.model.language_model.embed_tokens.weight)


def test_what_does_not_fit_is_listed_before_anything_is_read(original, tmp_path, monkeypatch):
    model, named = original
    spoilt = {**named, "model.norm.weight": torch.zeros(7), "lm_haed.weight": torch.zeros(2)}
    spoilt |= {"model.layers.9.mlp.up_proj.weight": torch.zeros(2)}
    del spoilt["lm_head.weight"]
    shards(tmp_path, spoilt, "safetensors")
    monkeypatch.setattr(Files, "read", lambda *_: pytest.fail("a tensor was read"))
    with pytest.raises(ModelError) as caught:
        fill(opened(tmp_path, model))
    message = str(caught.value)
    assert "(test layout) do not fit the LlavaForConditionalGeneration" in message
    assert "1 missing: lm_head.weight;" in message
    assert (
        "2 unexpected: lm_haed.weight, model.layers.9.mlp.up_proj.weight (as model.language_model." in message
    )
    assert "model.language_model.norm.weight (expected (64,), got (7,), from model.norm.weight)" in message


def test_two_sources_of_one_tensor(original, tmp_path):
    model, named = original
    shards(tmp_path, named, "safetensors", 1)
    part = Part(read_folder(tmp_path), RULES)
    twice = Checkpoint("test", str(tmp_path), model.config, type(model), (part, part), lambda: None, "")
    with pytest.raises(ModelError, match=r"twice: .* \(from .* and .*\)"):
        fill(twice)


def test_one_tensor_into_several(tmp_path):
    stacked = torch.arange(12.0).reshape(6, 2)
    save_file({"old.heads.weight": stacked}, tmp_path / "a.safetensors")
    part = Part(read_file(tmp_path / "a.safetensors"), RULES)
    (step,) = part.steps()
    made = dict(part.values(step))
    assert list(made) == ["model.q.weight", "model.k.weight", "model.v.weight"]
    assert torch.equal(made["model.k.weight"], stacked[2:4])
    assert [tuple(meta.shape) for _, meta in part.metas(step)] == [(2, 2)] * 3
    save_file({"old.heads.weight": torch.zeros(4, 2)}, tmp_path / "b.safetensors")
    odd = Part(read_file(tmp_path / "b.safetensors"), RULES)
    with pytest.raises(
        ModelError, match=r"old.heads.weight of shape \(4, 2\) cannot be made into model.q.weight and"
    ):
        odd.metas(step)


def test_tensors_come_one_by_one_and_each_file_is_opened_once(original, tmp_path, monkeypatch):
    model, named = original
    shards(tmp_path, named, "bin", 3)
    checkpoint = opened(tmp_path, model)
    events: list[str] = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda path, **how: (events.append(path.name), load(path, **how))[1])
    events.extend("tensor" for _ in checkpoint.tensors())
    files = [event for event in events if event != "tensor"]
    assert files == sorted(files)
    assert len(files) == 3
    assert events.index(files[1]) > 5  # the second file is not touched before the first is done


class _Payload:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def test_a_pickle_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"x": _Payload()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(
        ModelError, match=r"cannot be read as tensors alone .*Code inside a pickle is not run"
    ):
        read_folder(tmp_path)
    torch.save({"x": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="should hold named tensors; it holds a dict of other things"):
        read_folder(tmp_path)
    torch.save({"x": torch.ones(2)}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(read_folder(tmp_path).read("x"), torch.ones(2))  # files of before torch 1.6
    assert not (tmp_path / "executed").exists()


def test_incomplete_downloads(tmp_path):
    with pytest.raises(ModelError, match=r"holds no weights: expected one of model.safetensors.index.json"):
        read_folder(tmp_path)
    shards(tmp_path, {"a": torch.ones(1), "b": torch.ones(1)}, "safetensors")
    second = tmp_path / "model-00002-of-00002.safetensors"
    save_file({"c": torch.ones(1)}, second)
    tensors = read_folder(tmp_path)
    assert torch.equal(tensors.read("a"), torch.ones(1))
    with pytest.raises(
        ModelError, match=r"says that b is in model-00002-of-00002.safetensors, which does not hold"
    ):
        tensors.meta("b")
    second.write_bytes(second.read_bytes()[:20])
    with pytest.raises(ModelError, match="is not a complete safetensors file"):
        read_folder(tmp_path).meta("b")
    second.unlink()
    with pytest.raises(
        ModelError, match=r"1 of the 2 weight files .* are not in .*: model-00002-of-00002.safetensors"
    ):
        read_folder(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weights": {}}))
    with pytest.raises(ModelError, match='should be JSON with a "weight_map"'):
        read_folder(tmp_path)


def test_licences(tmp_path):
    assert licence(tmp_path) is None
    (tmp_path / "LICENSE").write_text("\n  Some Licence 2.0\nmore\n")
    assert licence(tmp_path) == "Some Licence 2.0"
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\nlicense: mit\n")
    assert licence(tmp_path) == "apache-2.0"
