"""Configs that would take hours, all memory or a bare error, refused before anything is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.models import configs

CASES = [
    ({"text_config": None}, 'has no "text_config". Its decoder would have'),
    (
        {"text_config": {"num_hidden_layers": 10**6}},
        "num_hidden_layers=1000000, and no model has more than 1000",
    ),
    ({"vision_config": {"num_hidden_layers": 10**30}}, "num_hidden_layers=10{30}, and no model has more"),
    ({"text_config": {"vocab_size": 10**9}}, "vocab_size=1000000000, and no model has more"),
    ({"vision_feature_layer": 3}, r"vision_feature_layer=3, but its tower has the layers -3 … 2"),
    (
        {"vision_feature_layer": [-1, -4]},
        r"vision_feature_layer=\[-1, -4\], but its tower has the layers -3 … 2",
    ),
    (
        {"vision_feature_layer": 0},
        r"vision_feature_layer=0, which transformers treats as not set.* Write \[0\]",
    ),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    for one in tiny("llava"):
        one.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("changes", "message"), CASES)
def test_sizes_and_layers_that_no_model_has_are_refused(
    checkpoint: Path, changes: dict[str, Any], message: str
) -> None:
    path = checkpoint / "config.json"
    whole = path.read_text()
    raw = json.loads(whole)
    merged = {key: {**raw[key], **one} if isinstance(one, dict) else one for key, one in changes.items()}
    path.write_text(json.dumps({**raw, **merged}))
    try:
        with pytest.raises(ModelError, match=message):
            interp.load(checkpoint)
    finally:
        path.write_text(whole)


def test_the_first_layers_input_can_be_the_features(checkpoint: Path) -> None:
    path = checkpoint / "config.json"
    whole = path.read_text()
    path.write_text(json.dumps({**json.loads(whole), "vision_feature_layer": [0]}))
    try:
        assert interp.load(checkpoint).n_layers > 0
    finally:
        path.write_text(whole)


def test_a_family_newer_than_transformers_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    monkeypatch.setattr(configs, "CONFIG_MAPPING", {})
    with pytest.raises(
        ModelError, match=r"a family that interp knows and transformers 5\..* does not. Install a newer"
    ):
        interp.load(tmp_path)
