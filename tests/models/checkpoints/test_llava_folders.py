"""What folders of LLaVA's layouts may lack or say, and what is then said or done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import interp
from interp.errors import ModelError
from interp.models.checkpoints import checkpoint as hub_room
from interp.models.checkpoints import layout, open_original, recognise
from interp.tracing import load
from tests.models.checkpoints import plain_llava, written_llava
from tests.models.checkpoints.llava_cases import huatuo_7b, llava_med, llava_rad, llava_v15

LOCAL = {"local_files_only": True}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """llava and clip, med and med-clip, huatuo7, rad."""
    root = tmp_path_factory.mktemp("folders")
    for write in (llava_v15, llava_med, huatuo_7b, llava_rad):
        write(root)
    return root


@pytest.fixture
def copied(made, tmp_path):
    return lambda name: Path(shutil.copytree(made / name, tmp_path / name))


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """Any request to the hub fails the test."""

    def refuse(*args, **kwargs):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.file_download._get_metadata_or_catch_error", refuse)
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", refuse)
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", refuse)


def change(folder: Path, **entries) -> None:
    config = json.loads((folder / "config.json").read_text()) | entries
    (folder / "config.json").write_text(json.dumps(config))


def refused(where: Path, words: str, **options) -> None:
    with pytest.raises(ModelError, match=words):
        load(where, **options)


def test_layouts_are_recognised_from_small_files(made, tmp_path):
    names = {"llava": "llava_v1.5", "med": "llava_med", "huatuo7": "huatuogpt_vision_7b", "rad": "llava_lora"}
    for folder, name in names.items():
        small = tmp_path / folder
        small.mkdir()
        for file in (made / folder).glob("*.json"):
            shutil.copy(file, small)
        found = recognise(small)
        assert found is not None
        assert found.name == name
    assert recognise(made / "clip") is None
    assert open_original(str(made / "clip"), LOCAL) is None


def test_a_tower_that_is_not_on_hand(made):
    words = r"without its vision tower: its config names 'openai/clip-vit-large-patch14-336', which is not available"
    refused(made / "llava", words + r".*nothing is downloaded for a local folder. Pass vision_tower=")
    refused(
        made / "llava", "'no/such/folder' is neither a folder nor a hub id", vision_tower="no/such/folder"
    )
    refused(made / "llava", "the tower inside the files of .*, which hold none", vision_tower="embedded")
    refused(made / "llava", r"has no config that transformers reads", vision_tower=made / "llava")


def test_a_tower_beside_the_checkpoint_is_found_by_its_name(made, copied):
    folder = copied("llava")
    shutil.copytree(made / "clip", folder / "clip-vit-large-patch14-336")
    assert load(folder).n_layers == 2


def test_a_tower_of_another_width(made, copied, tmp_path):
    folder = copied("llava")
    torch.save(written_llava.projector(2, 48), folder / "mm_projector.bin")
    words = r"takes 48 numbers per token, but the tower gives 32 \(or 3× that with S²\)"
    refused(folder, words, vision_tower=made / "clip")
    wrong = tmp_path / "siglip"
    wrong.mkdir()
    (wrong / "config.json").write_text(json.dumps({"model_type": "siglip_vision_model"}))
    torch.save({}, wrong / "pytorch_model.bin")
    refused(folder, "is of the model type 'siglip_vision_model'; known are CLIP's", vision_tower=wrong)


def test_llava_med_offers_the_tower_inside(made):
    default = open_original(str(made / "med"), LOCAL)
    assert default is not None
    assert any('not used; vision_tower="embedded" takes it' in note for note in default.notes)
    pixels = torch.randn(
        1, 3, written_llava.SIDE, written_llava.SIDE, generator=torch.Generator().manual_seed(0)
    )
    weights = load_file(made / "med" / "model.safetensors")
    features = plain_llava.clip(weights, "model.vision_tower.vision_tower.vision_model.", pixels, heads=2)
    with torch.no_grad():
        found = load(made / "med", vision_tower="embedded").hf.get_image_features(pixel_values=pixels)
    expected = plain_llava.projector(weights, features)[0]
    torch.testing.assert_close(found.pooler_output[0], expected, atol=1e-4, rtol=1e-4)


def test_the_projector_in_the_shards_goes_before_the_one_apart(made, copied):
    folder = copied("med")
    torch.save(written_llava.projector(99), folder / "mm_projector.bin")
    found, kept = load(folder).hf, load_file(folder / "model.safetensors")
    projector = found.model.multi_modal_projector
    assert torch.equal(projector.linear_2.weight, kept["model.mm_projector.2.weight"])


def test_tensors_that_do_not_fit(made, copied):
    folder = copied("med")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 3)
    weights["model.layers.0.extra"] = torch.zeros(3)
    del weights["model.mm_projector.2.bias"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelError) as caught:
        load(folder)
    message = str(caught.value)
    assert "(llava_med layout)" in message
    assert "1 missing: model.multi_modal_projector.linear_2.bias" in message
    assert "1 unexpected: model.layers.0.extra (as model.language_model.layers.0.extra)" in message
    assert "(expected (48, 32), got (3, 3), from model.layers.0.mlp.up_proj.weight)" in message


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (
            {"image_aspect_ratio": "anyres"},
            r"LLaVA-1.6 checkpoint in its original layout .*llava-hf/llava-v1.6",
        ),
        (
            {"mm_projector_type": "linear"},
            "a projector of the type 'linear'; transformers' LLaVA has two linear",
        ),
        ({"mm_use_im_start_end": True}, r"marks images with start and end tokens"),
        ({"hidden_act": 3}, "transformers' LlamaConfig does not take what config.json says"),
    ],
)
def test_settings_that_transformers_llava_cannot_express(made, copied, entries, words):
    folder = copied("llava")
    change(folder, **entries)
    refused(folder, words, vision_tower=made / "clip")


def test_a_tokenizer_that_cannot_be_read(made, copied):
    folder = copied("llava")
    (folder / "tokenizer.model").unlink()
    refused(folder, r"holds none of tokenizer.json, tokenizer.model, vocab.json", vision_tower=made / "clip")


def test_lora_parts_that_are_missing_or_do_not_fit(copied):
    folder = copied("rad")
    low = torch.load(folder / "adapter_model.bin")
    name = next(n for n in low if "q_proj.lora_A" in n)
    torch.save({**low, name: torch.zeros(3, 5)}, folder / "adapter_model.bin")
    refused(folder, r"for model.layers.0.self_attn.q_proj.weight does not fit the base's \(32, 32\)")
    moved = {n.replace("layers.0", "layers.7"): v for n, v in low.items()}
    torch.save(moved, folder / "adapter_model.bin")
    refused(folder, r"unexpected: base_model.model.model.layers.7.*lora_A.weight, ")
    torch.save({n: v for n, v in low.items() if n != name}, folder / "adapter_model.bin")
    refused(folder, r"without a partner: 1 tensor, .*q_proj.lora_B.weight")
    torch.save(low, folder / "adapter_model.bin")
    (folder / "cxr.pt").rename(folder / "away.pt")
    refused(folder, r"should hold the files of its vision tower, but cxr.pt are not there")
    (folder / "vicuna-7b-v1.5").rename(folder / "elsewhere")
    refused(
        folder,
        r"comes without its base model: .*'lmsys/vicuna-7b-v1.5'.*Put a copy at .*rad/vicuna-7b-v1.5",
    )
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "elsewhere").rename(folder / "vicuna-7b-v1.5")
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"use_dora": True}))
    refused(folder, r"asks for use_dora, which this reader does not merge")
    (folder / "non_lora_trainables.bin").unlink()
    refused(
        folder, r"should hold adapter_model.safetensors or adapter_model.bin, and non_lora_trainables.bin"
    )


def test_a_hub_id_is_fetched_config_first(made, monkeypatch):
    asked: list[str] = []
    config = json.loads((made / "llava" / "config.json").read_text())
    monkeypatch.setattr(layout, "raw_config", lambda where, options: asked.append("config") or config)
    monkeypatch.setattr(
        layout, "small_files", lambda name, rev: asked.append(f"small {rev}") or made / "llava"
    )
    monkeypatch.setattr(layout, "fetched", lambda name, rev: asked.append(f"all {rev}") or made / "llava")
    monkeypatch.setattr(hub_room, "fetched", lambda name: asked.append(name) or made / "clip")
    mllm = load("liuhaotian/llava-v1.5-7b", revision="abc")
    assert asked == ["config", "small abc", "all abc", "openai/clip-vit-large-patch14-336"]
    assert mllm.n_layers == 2
    with pytest.raises(
        ModelError, match=r"x/y cannot be downloaded from the hub \(.*Offline, pass the folder of a copy"
    ):
        hub_room.small_files("x/y")


def test_a_processor_and_a_dtype_of_ones_own(made):
    mllm = load(made / "huatuo7", dtype="auto")
    assert mllm.dtype == torch.float32
    own = mllm.processor
    again = load(made / "huatuo7", dtype="bfloat16", processor=own)
    assert again.dtype == torch.bfloat16
    sample = interp.Sample(torch.zeros(40, 60, dtype=torch.uint8).numpy(), "Is it?")
    assert again.trace(sample, generate=2).answers[0] is not None
    tokens = mllm.encode(sample).tokens[0]
    assert tokens.n == 16
    assert mllm.hf.config.text_config.vocab_size > len(
        own.tokenizer
    )  # the image token has a row no token had
