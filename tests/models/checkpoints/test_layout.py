"""What a folder of an original code says of itself, and which settings are refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import CLIPConfig

from interp.errors import ModelError
from interp.models.checkpoints import layout, towers
from interp.models.checkpoints.layout import check_settings, config_of, licence, open_original, refuse_tower
from interp.models.checkpoints.towers import (
    CLIP_MEAN,
    CLIP_STD,
    clip_tower,
    known_clip,
    open_clip_tower,
    read_tower,
    vit_tower,
)


@pytest.mark.parametrize(
    ("text", "found"), [(None, {}), ("{", {}), ("[1]", {}), ('{"a": 1}', {"a": 1}), ("\xff", {})]
)
def test_a_config_is_a_json_object(tmp_path: Path, text: str | None, found: dict[str, int]) -> None:
    if text is not None:
        (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    assert config_of(tmp_path) == found


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, None),
        ({"README.md": "---\nlicense: apache-2.0\n---\n"}, "apache-2.0"),
        ({"README.md": "---\ntags: [a]\nlicense_name: 'own words'\n---\n", "LICENSE": "MIT"}, "own words"),
        (
            {"README.md": "---\ntags: [a]\n---\nlicense: gpl\n", "LICENSE": "\n  MIT License \nmore"},
            "MIT License",
        ),
        ({"README.md": "license: gpl\n"}, None),  # not in a header
        ({"README.md": "---\nlicense:\n---\n", "LICENCE.txt": "BSD"}, "BSD"),
        ({"LICENSE.b": "B", "LICENSE.a": "A"}, "A"),
        ({"LICENSE.a": " \n", "LICENSE.b": "B"}, "B"),
    ],
)
def test_a_licence_is_in_the_cards_header_or_a_file(
    tmp_path: Path, files: dict[str, str], found: str | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert licence(tmp_path) == found


def test_the_first_licence_file_counts_whatever_bytes_it_holds(tmp_path: Path) -> None:
    (tmp_path / "LICENSE.txt").write_text("second")
    (tmp_path / "LICENCE").write_bytes(b"\n\xa9 Someone\n")
    (tmp_path / "LICENSES").mkdir()
    assert licence(tmp_path) == "\ufffd Someone"


def test_what_is_in_no_original_layout_is_not_fetched(tmp_path: Path, monkeypatch: Any) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(layout, "raw_config", lambda where, options: {"model_type": "llava"})
    monkeypatch.setattr(layout, "small_files", lambda name, rev: asked.append((name, rev)) or tmp_path)
    monkeypatch.setattr(layout, "fetched", lambda name, rev: asked.append("weights"))
    assert open_original("org/name", {}) is None
    assert open_original(str(tmp_path), {}) is None
    assert asked == []
    monkeypatch.setattr(layout, "raw_config", lambda where, options: {"mm_vision_tower": "x"})
    assert open_original("org/name", {"revision": "r"}) is None
    assert asked == [("org/name", "r")]  # its small files show no layout that is known


def test_a_layout_that_does_not_open_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    class Known:
        name = "a known layout"

        def open(self, folder: Path, tower: Any, *, download: bool) -> Any:
            assert (folder, tower, download) == (tmp_path, "tower", False)
            raise KeyError("sizes")

    monkeypatch.setattr(layout, "recognise", lambda folder: Known())
    with pytest.raises(ModelError, match=r"looks like a known layout, but .*\(KeyError: 'sizes'\)"):
        open_original(str(tmp_path), {}, "tower")


def test_every_setting_that_is_not_known_is_named(tmp_path: Path) -> None:
    check_settings(tmp_path, [("a", 1, (2, 1)), ("b", None, (None,))], known="x")
    with pytest.raises(ModelError, match=r"supported: a=3 \(known: 2\), c=None \(known: 'y'\)\. Supported"):
        check_settings(tmp_path, [("a", 3, (2, 1)), ("b", 0, (0,)), ("c", None, ("y",))], known="x")


def test_a_folder_with_a_tower_takes_no_other(tmp_path: Path) -> None:
    refuse_tower(tmp_path, None)
    with pytest.raises(ModelError, match="vision_tower='other' has no place"):
        refuse_tower(tmp_path, "other")


class Shapes:
    """Tensors of these shapes."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        self._shapes = {name.replace("__", "."): shape for name, shape in shapes.items()}

    def names(self) -> list[str]:
        return list(self._shapes)

    def meta(self, name: str) -> Any:
        return SimpleNamespace(shape=self._shapes[name])

    def read(self, name: str) -> Any:
        raise AssertionError(f"{name} was read")


def vit(**more: tuple[int, ...]) -> Any:
    """A ViT of 4×4 patches of 8 pixels, 12 blocks, 128 features in two heads, below v."""
    own = {
        "v__pos_embed": (1, 17, 128),
        "v__patch_embed__proj__weight": (128, 3, 8, 8),
        "v__blocks__0__mlp__fc1__weight": (384, 128),
        "v__blocks__2__norm1__weight": (128,),
        "v__blocks__11__norm1__weight": (128,),
        "blocks__30__norm1__weight": (128,),  # not below v
    }
    return Shapes(**own, **more)


OPEN_CLIP = {
    "visual__trunk__pos_embed": (1, 17, 128),
    "visual__trunk__patch_embed__proj__weight": (128, 3, 8, 8),
    "visual__trunk__blocks__0__mlp__fc1__weight": (384, 128),
}


def test_a_vits_sizes_are_read_from_its_tensors() -> None:
    tower = vit_tower(vit(), "v.", pixels=32)
    config: Any = tower.config
    assert (config.num_hidden_layers, config.num_attention_heads, config.hidden_size) == (12, 2, 128)
    assert (config.mlp_ratio, config.image_size, config.patch_size, tower.pixels) == (3, 32, 8, 32)
    assert vit_tower(vit(), "v.").pixels == 32
    with pytest.raises(ModelError, match="the tower's config says 40 pixels, its positions 32"):
        vit_tower(vit(), "v.", pixels=40)
    with pytest.raises(ModelError, match=r"tensors named w\."):
        vit_tower(vit(), "w.")


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("openai/clip-vit-large-patch14-336", True),
        ("/models/clip_vit_large_patch14_336/", True),
        ("openai/clip-vit-large-patch14", False),
        ("clip-vit-large-patch14-336-tuned", False),
    ],
)
def test_one_clip_is_known_by_its_name(name: str, known: bool) -> None:
    found = known_clip(name, vit(), "")
    assert (found is not None) is known
    if found is not None:
        assert (found.pixels, found.config.patch_size) == (336, 14)  # type: ignore[attr-defined]


def test_a_clips_tensors_are_those_under_the_prefix(tmp_path: Path) -> None:
    CLIPConfig(vision_config={"image_size": 30, "patch_size": 10}).save_pretrained(tmp_path)
    held = Shapes(v__vision_model__encoder__x=(1,), v__logit_scale=(1,), vision_model__encoder__y=(1,))
    known = known_clip("openai/clip-vit-large-patch14-336", held, "v.")
    for tower in (known, clip_tower(tmp_path, held, "v.")):
        assert tower is not None
        assert [step.names for step in tower.part.steps()] == [("model.vision_tower.encoder.x",), (), None]


@pytest.mark.parametrize(
    ("settings", "pixels", "mean"),
    [
        ({}, 30, None),
        ({"crop_size": 28, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}, 28, (0.1, 0.2, 0.3)),
        ({"crop_size": {"height": 26, "width": 24}}, 26, None),
    ],
)
def test_a_clips_input_is_what_its_processor_says(
    tmp_path: Path, settings: Any, pixels: int, mean: Any
) -> None:
    CLIPConfig(vision_config={"image_size": 30, "patch_size": 10}).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    tower = clip_tower(tmp_path, vit(), "")
    assert tower.pixels == pixels
    assert tuple(tower.mean) == (mean or pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4))
    assert tuple(tower.std) == (
        (0.4, 0.5, 0.6) if mean else pytest.approx((0.2686, 0.2613, 0.2758), abs=1e-4)
    )
    assert tower.config.image_size == 30  # type: ignore[attr-defined]


@pytest.mark.parametrize("around", [True, False])
def test_an_open_clips_input_is_what_its_config_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, around: bool
) -> None:
    vision = {"vision_cfg": {"timm_model_name": "vit_tiny", "image_size": 32}}
    pixels = {"preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}
    whole = {"model_cfg": vision} if around else vision
    monkeypatch.setattr(towers, "read_file", lambda _: vit(**OPEN_CLIP))
    tower = open_clip_tower(whole | pixels, tmp_path / "weights.bin")
    assert (tower.pixels, tower.mean, tower.std) == (32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    plain = open_clip_tower(whole, tmp_path / "weights.bin")
    assert (plain.mean, plain.std) == (CLIP_MEAN, CLIP_STD)
    vision["vision_cfg"]["image_size"] = 40
    with pytest.raises(ModelError, match="the tower's config says 40 pixels, its positions 32"):
        open_clip_tower(whole, tmp_path / "weights.bin")


def test_towers_of_other_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ModelError, match="of the model type 'vit'; known are CLIP's"):
        clip_tower(tmp_path, vit(), "")
    for vision in ({}, {"timm_model_name": "resnet"}):
        with pytest.raises(ModelError, match="known are timm's ViTs"):
            open_clip_tower({"model_cfg": {"vision_cfg": vision}}, tmp_path / "none.bin")
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"holds none of .*Is the download complete"):
        read_tower(tmp_path)
