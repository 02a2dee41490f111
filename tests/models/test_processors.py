"""Saved processors come back whole, without torchvision, without code of theirs and without questions on stdin."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.models.smolvlm import processing_smolvlm

import interp
from interp.conformance.tiny import families, tiny
from interp.errors import ModelError
from interp.inputs.sample import Sample
from interp.models import processors as room
from interp.models.processors import (
    images_only,
    known_settings,
    load_processor,
    pixtral_processor,
    smolvlm_processor,
    with_settings,
)
from interp.models.resizing import own_image_settings
from tests.covering import every_family

LOCAL = {"local_files_only": True}
WITH_VIDEOS = {
    "gemma4",
    "gemma4_unified",
    "glm46v",
    "glm4v",
    "glm4v_moe",
    "internvl",
    "kimi_k25",
    "llava_next_video",
    "llava_onevision",
    "minicpmv4_6",
    "molmo2",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_vl",
    "qwen3_vl_moe",
    "smolvlm",
}
REBUILT = {"qwen3_5", "qwen3_5_moe"}
"""transformers rebuilds their tokenizers as byte pairs, whatever was saved: the tiny models' words are lost."""


def picture(width: int = 140, height: int = 84) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Any:
    """A family's tiny model in memory, and the folder that save_pretrained wrote."""
    made: dict[str, tuple[Any, Any, Path]] = {}

    def get(family: str) -> tuple[Any, Any, Path]:
        if family not in made:
            hf, processor = tiny(family)
            folder = tmp_path_factory.mktemp(family)
            hf.save_pretrained(folder)
            processor.save_pretrained(folder)
            made[family] = (hf, processor, folder)
        return made[family]

    return get


def as_on_the_hub(folder: Path) -> None:
    """Writes the files of a checkpoint from before processors were saved in one file, videos included."""
    whole = json.loads((folder / "processor_config.json").read_text())
    images = whole.pop("image_processor")
    name = whole["processor_class"]
    (folder / "preprocessor_config.json").write_text(json.dumps({**images, "processor_class": name}))
    videos = {**images, "processor_class": name, "video_processor_type": f"{name[:-9]}VideoProcessor"}
    videos.pop("image_processor_type")
    (folder / "video_preprocessor_config.json").write_text(json.dumps(videos))
    whole["video_processor"] = videos
    (folder / "processor_config.json").write_text(json.dumps(whole))


@pytest.mark.by_default(
    family=("gemma4", "idefics2", "internvl", "llava_onevision", "mllama", "qwen2_5_vl", "vila")
)
@pytest.mark.parametrize("family", every_family(but=["aria", "gemma3n"]))
def test_a_saved_folder_gives_the_model_in_memory(family, saved):
    """But for Aria, whose class makes views of 980 px whatever is saved, and Gemma 3n, whose tower needs timm."""
    hf, processor, folder = saved(family)
    sample = Sample(picture(), "where is the nodule ?")
    here = interp.wrap(hf, processor)
    expected = here.trace(sample)
    inputs, weights = here.encode(sample).inputs, here.hf.state_dict()
    for older in (False, True)[: 1 + (family in WITH_VIDEOS)]:
        if older:
            as_on_the_hub(folder)
        there = interp.load(folder)
        assert there.family == family
        assert _same(there.hf.state_dict(), weights)
        if family in REBUILT:
            assert type(there.processor.tokenizer).__name__ == "Qwen3_5Tokenizer"
            found = there.encode(sample).inputs
            assert all(torch.equal(found[name], inputs[name]) for name in ("pixel_values", "image_grid_thw"))
            there = interp.load(folder, processor=processor)
        assert _same(there.encode(sample).inputs, inputs)
        # the memory's alignment changes the order of sums
        np.testing.assert_allclose(there.trace(sample).logits, expected.logits, rtol=0, atol=2e-5)


def _same(one: Any, two: Any) -> bool:
    return set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)


def test_processors_of_videos_are_those_expected():
    """Where torchvision is missing, these are what AutoProcessor cannot load."""
    takes = {
        family
        for family in families()
        if any("video_processor" in kind.get_attributes() for kind in _processor_classes(tiny(family)[1]))
    }
    assert takes == WITH_VIDEOS


def _processor_classes(processor: Any) -> list[Any]:
    return [kind for kind in type(processor).__mro__ if issubclass(kind, transformers.ProcessorMixin)]


@pytest.mark.parametrize("with_torchvision", [False, True])
def test_video_is_left_out_only_where_it_cannot_be_built(saved, monkeypatch, with_torchvision):
    _, _, folder = saved("qwen2_vl")
    monkeypatch.setattr(room, "is_torchvision_available", lambda: with_torchvision)
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = room._class(str(folder), LOCAL, config)
    assert kind.__name__ == "Qwen2VLProcessor"
    assert ("video_processor" in kind.get_attributes()) is with_torchvision


def test_a_processor_without_videos_reads_images_the_same(saved):
    _, processor, folder = saved("qwen2_vl")
    found = load_processor(str(folder), LOCAL)
    text = "<|vision_start|> <|image_pad|> <|vision_end|> where ?"
    one, two = (p(text=[text], images=[picture()], return_tensors="pt") for p in (processor, found))
    assert set(one) == set(two)
    for name in one:
        assert torch.equal(one[name], two[name])
    images = processor.image_processor(picture(), return_tensors="pt")
    assert torch.equal(two["pixel_values"], images["pixel_values"])
    assert images_only(transformers.Qwen2VLProcessor) is images_only(transformers.Qwen2VLProcessor)
    assert isinstance(found, transformers.Qwen2VLProcessor)


def test_settings_beside_the_parts_survive(saved):
    _, processor, folder = saved("internvl")
    assert load_processor(str(folder), LOCAL).image_seq_length == processor.image_seq_length != 256


def test_the_config_decides_where_no_file_names_a_class(tmp_path):
    hf, processor = tiny("paligemma")
    processor.save_pretrained(tmp_path)
    for file in tmp_path.glob("*config.json"):
        told = json.loads(file.read_text())
        told.pop("processor_class", None)
        file.write_text(json.dumps(told))
    (tmp_path / "preprocessor_config.json").write_text((tmp_path / "processor_config.json").read_text())
    assert type(room._class(str(tmp_path), LOCAL, hf.config)) is type
    assert room._class(str(tmp_path), LOCAL, hf.config) is transformers.PaliGemmaProcessor
    with pytest.raises(ModelError, match=r"none of processor_config.json, .* names a processor class"):
        load_processor(str(tmp_path), LOCAL)


def test_a_class_in_the_checkpoint_is_never_run(tmp_path, monkeypatch):
    """Its own class is passed over for the model type's; a tokenizer's own code is an error, without a question."""
    marker = tmp_path / "executed"
    hf, processor = tiny("llava")
    processor.save_pretrained(tmp_path)
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    for name, part in (
        ("processor_config.json", "AutoProcessor"),
        ("tokenizer_config.json", "AutoTokenizer"),
    ):
        told = json.loads((tmp_path / name).read_text())
        told |= {"processor_class": "EvilProcessor", "auto_map": {part: "evil.Evil"}}
        (tmp_path / name).write_text(json.dumps(told))
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail(f"asked on stdin: {words}"))
    found = load_processor(str(tmp_path), LOCAL, hf.config)
    assert type(found) is transformers.LlavaProcessor
    told = json.loads((tmp_path / "tokenizer_config.json").read_text())
    told |= {"tokenizer_class": "EvilTokenizer", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no processor can be loaded from .*Pass processor="):
        load_processor(str(tmp_path), LOCAL, hf.config)
    assert not marker.exists()


def test_a_processor_is_of_the_revision_that_is_asked_for(monkeypatch):
    asked = []

    class Kind:
        @classmethod
        def from_pretrained(cls, *given: Any, **options: Any) -> Any:
            asked.append((given, options))
            return SimpleNamespace()

        @classmethod
        def get_attributes(cls) -> list[str]:
            return []

    def with_video(made: Any, *given: Any, **options: Any) -> Any:
        asked.append((given, options))
        return made

    monkeypatch.setattr(room, "cached_file", lambda *given, **options: asked.append((given, options)))
    monkeypatch.setattr(room, "PROCESSOR_MAPPING", {SimpleNamespace: Kind})
    monkeypatch.setattr(room, "with_video", with_video)
    options = {"revision": "r", "local_files_only": False}
    load_processor("org/name", options, SimpleNamespace())
    *files, own, video = asked
    assert [given[1] for given, _ in files] == list(room._FILES)
    for given, named in (*files, own, video):
        assert given[0] == "org/name"
        assert options.items() <= named.items()
    assert own[1]["trust_remote_code"] is False


def test_broken_files_are_named(tmp_path):
    tiny("llava")[1].save_pretrained(tmp_path)
    (tmp_path / "processor_config.json").write_text('{"processor_class": ')
    with pytest.raises(ModelError, match=r"no processor can be loaded from .*JSONDecodeError"):
        load_processor(str(tmp_path), LOCAL)


@pytest.mark.parametrize("stored", [{"patch_size": None}, {}])
def test_a_processor_without_patch_size_gets_the_models(stored, saved, tmp_path):
    """HuatuoGPT-Vision-7B-hf has null, 34B-hf none; both leave the class token out of their count."""
    _, processor, folder = saved("llava")
    whole = json.loads((folder / "processor_config.json").read_text())
    for name in ("patch_size", "num_additional_image_tokens", "vision_feature_select_strategy"):
        whole.pop(name)
    shutil.copytree(folder, tmp_path / "hf")
    (tmp_path / "hf" / "processor_config.json").write_text(json.dumps(whole | stored))
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    config["text_config"]["pad_token_id"] = 99  # stale: the tokenizer's is another
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    with pytest.warns(
        UserWarning, match=r"names no patch_size; it is set to the vision tower's, 14, with num_add"
    ):
        mllm = interp.load(tmp_path / "hf")
    made = mllm.processor
    assert (made.patch_size, made.num_additional_image_tokens) == (14, 1)
    assert made.vision_feature_select_strategy == "default"
    samples = [
        Sample(picture(), "what is there?"),
        Sample(picture(), "where is the nodule in the left lung?"),
    ]
    batch = mllm.encode(samples)
    assert batch.pad_id == processor.tokenizer.pad_token_id != 99
    expected = interp.wrap(tiny("llava")[0], processor).trace(samples).logits
    np.testing.assert_array_equal(np.asarray(mllm.trace(batch).logits), np.asarray(expected))


@pytest.mark.parametrize(
    ("kind", "patch", "tower", "made"),
    [
        (
            "got_ocr2",
            None,
            "x",
            (64, None, None),
        ),  # 448 px in patches of 14 are 32, a quarter of that squared
        ("llava", None, "clip_vision_model", (256, 14, 1)),
        ("llava", None, "siglip_vision_model", (256, 14, 0)),
        ("llava", 16, "clip_vision_model", (256, 16, None)),
        ("llava_next", None, "clip_vision_model", (256, None, None)),
    ],
)
@pytest.mark.filterwarnings("ignore:the processor of here names no patch_size")
def test_what_a_processor_counts_with_is_the_models(kind, patch, tower, made):
    vision = SimpleNamespace(image_size=448, patch_size=14, model_type=tower)
    config = SimpleNamespace(model_type=kind, vision_config=vision, vision_feature_select_strategy="full")
    processor = SimpleNamespace(num_image_tokens=256, patch_size=patch, num_additional_image_tokens=None)
    found = room._counting(processor, config, "here")
    assert (found.num_image_tokens, found.patch_size, found.num_additional_image_tokens) == made
    assert getattr(found, "vision_feature_select_strategy", None) == (None if made[2] is None else "full")


def test_pixtral_is_transformers_own_class(tmp_path):
    kind = pixtral_processor()
    assert kind.__module__ == "transformers.models.pixtral.processing_pixtral"
    stand_in = sys.modules.get("transformers.models.pixtral.image_processing_pixtral")
    assert stand_in is None or stand_in.__name__.endswith(".image_processing_pixtral")
    tiny("mistral3")[1].save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path)
    assert (loaded.patch_size, loaded.spatial_merge_size) == (14, 2)
    assert type(loaded.image_processor).__name__.startswith("PixtralImageProcessor")


def test_smolvlm_fills_its_template_without_videos(tmp_path):
    words = processing_smolvlm.num2words
    tiny("smolvlm")[1].save_pretrained(tmp_path)
    loaded = smolvlm_processor().from_pretrained(tmp_path)
    assert processing_smolvlm.num2words is words
    assert isinstance(loaded, transformers.SmolVLMProcessor)
    assert loaded.image_seq_len == 9
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Why?"}]}
    assert loaded.apply_chat_template([turn], add_generation_prompt=True) == "user : <image> Why? assistant :"


@pytest.mark.parametrize("tiles", [False, True])
def test_a_setting_that_the_processor_has_too_counts(tiles):
    """InternVL's processor says crop_to_patches=True in every call, over what its image processor says."""
    model, processor = tiny("internvl")
    assert own_image_settings(processor)["crop_to_patches"]
    mllm = interp.wrap(model, with_settings(processor, {"crop_to_patches": tiles}, "internvl"))
    image = np.random.default_rng(0).integers(0, 255, (48, 144, 3), dtype=np.uint8)
    batch = mllm.encode(interp.Sample(image, "where?"))
    assert (len(batch.inputs["pixel_values"]) > 1) == tiles
    assert (len(set(batch.tokens[0].views)) > 1) == tiles
    assert own_image_settings(tiny("internvl")[1])["crop_to_patches"], "the class stays as it was"


def test_a_default_that_no_setting_changes_is_refused():
    """As transformers before 5.23 has them."""
    processor = tiny("internvl")[1]
    processor.valid_processor_kwargs = SimpleNamespace(_defaults={"images_kwargs": {"crop_to_patches": True}})
    assert with_settings(processor, {"crop_to_patches": True}, "internvl") is processor
    with pytest.raises(ModelError, match=r"crop_to_patches=True in each call, whatever is set.*Upgrade"):
        with_settings(processor, {"crop_to_patches": False}, "internvl")


def test_settings_go_to_the_images_or_the_processor():
    _, processor = tiny("llava")
    before = processor.image_processor.to_dict()
    images, own = known_settings(processor)
    assert {"do_resize", "size", "crop_size"} <= set(images)
    assert {"patch_size", "image_token"} <= set(own)
    assert not {"tokenizer", "image_processor", "chat_template", "self", "kwargs"} & set(own)
    found = with_settings(processor, {"do_resize": False, "patch_size": 7}, "here")
    assert found is processor
    assert (found.patch_size, found.image_processor.do_resize) == (7, False)
    assert found.image_processor.to_dict() == before | {"do_resize": False}
    with pytest.raises(ModelError, match=r"here has a int as patch_size; got a bool: True"):
        with_settings(processor, {"patch_size": True}, "here")
    with pytest.raises(ModelError, match=r"of there has no setting 'colour', 'depth'\. It has "):
        with_settings(processor, {"colour": 1, "do_resize": True, "depth": 2}, "there")
    assert not processor.image_processor.do_resize, "nothing is set where a name is unknown"


def test_a_processors_other_own_settings_stay():
    processor = tiny("internvl")[1]
    processor.images_kwargs = {"crop_to_patches": True, "max_patches": 5}
    with_settings(processor, {"crop_to_patches": False, "min_patches": 2}, "internvl")
    assert processor.images_kwargs == {"crop_to_patches": False, "max_patches": 5}
    assert processor.image_processor.min_patches == 2
