"""Configs that would take hours, all memory or a bare error, refused before anything is built."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
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


def test_a_config_is_of_the_revision_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    raw = json.loads(tiny("llava")[0].config.to_json_string())

    def told(*given: Any, **options: Any) -> Any:
        asked.append((given, options))
        return raw, {}

    def made(*given: Any, **options: Any) -> Any:
        asked.append((given, options))
        return tiny("llava")[0].config

    monkeypatch.setattr(configs.PreTrainedConfig, "get_config_dict", told)
    monkeypatch.setattr(configs.AutoConfig, "from_pretrained", made)
    options = {"revision": "r", "local_files_only": False}
    assert configs.read_config("org/name", options).model_type == "llava"
    assert asked == [
        (("org/name",), options),
        (("org/name",), {**options, "trust_remote_code": False}),
    ]


def test_a_family_newer_than_transformers_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    monkeypatch.setattr(configs, "CONFIG_MAPPING", {})
    with pytest.raises(
        ModelError, match=r"a family that interp knows and transformers 5\..* does not. Install a newer"
    ):
        interp.load(tmp_path)


MOST = {
    "num_hidden_layers": 10**3, "depth": 10**3, "num_attention_heads": 10**4, "num_key_value_heads": 10**4,
    "hidden_size": 10**5, "intermediate_size": 10**6, "head_dim": 10**4, "vocab_size": 10**7, "image_size": 10**5,
    "patch_size": 10**4, "num_channels": 100,
}  # fmt: skip


@pytest.mark.parametrize("name", list(MOST))
def test_every_size_has_a_limit(name: str) -> None:
    for place in ({}, {"text_config": {}}, {"a": {"b": {}}}):
        inner: Any = place
        while inner:
            (inner,) = inner.values()
        inner[name] = MOST[name]
        configs._check_sizes("here", place)
        inner[name] += 1
        with pytest.raises(
            ModelError, match=f"{name}={MOST[name] + 1}, and no model has more than {MOST[name]}"
        ):
            configs._check_sizes("here", place)


@pytest.mark.parametrize(
    ("layer", "taken"),
    [(2, True), (-3, True), ([2, -3], True), ([0], True), (3, False), (-4, False), ([1, 3], False), ([-4, 1], False),
     ([], False), ([True], False), (None, True)],
)  # fmt: skip
def test_a_towers_layers_end_at_both_ends(layer: Any, taken: bool) -> None:
    """Two layers: 0 is the input of the first, −3 the same counted from the end."""
    config = SimpleNamespace(vision_feature_layer=layer, vision_config=SimpleNamespace(num_hidden_layers=2))
    if taken:
        configs._check_feature_layer("here", config)
        return
    with pytest.raises(ModelError, match="its tower has the layers -3 … 2"):
        configs._check_feature_layer("here", config)


def nested(depth: int, **settings: Any) -> Any:
    """A config with the settings in it, or in a config of a config of it."""
    found: Any = SimpleNamespace(**settings)
    for _ in range(depth):
        found = SimpleNamespace(sub_configs={"none": None, "text_config": None}, none=None, text_config=found)
    return found


FETCHED = [
    *({"quantization_config": {"quant_method": one}} for one in
      ("mxfp4", "fp8", "nvfp4", "fbgemm_fp8", "eetq", "metal", "gguf", "FP8")),
    {"quantization_config": SimpleNamespace(quant_method="QuantizationMethod.MXFP4")},
    {"_experts_implementation": "sonicmoe"},
    {"_attn_implementation": "kernels-community/flash"},
    {"_attn_implementation": "paged|mine"},
    {"_attn_implementation": {"text_config": "sdpa", "vision_config": "mine/kernel"}},
    {"_attn_implementation": "flash_attention_9"},
]  # fmt: skip
KEPT = [
    {},
    {"quantization_config": {"quant_method": "gptq"}, "_experts_implementation": "eager"},
    {"quantization_config": SimpleNamespace(quant_method="torchao"), "_experts_implementation": "batched_mm"},
    {"_attn_implementation": {"": "sdpa", "vision_config": None}, "_experts_implementation": "grouped_mm"},
    *(
        {"_attn_implementation": one}
        for one in ("sdpa", "eager", "flex_attention", "paged|sdpa", "paged|eager")
    ),
]


@pytest.mark.parametrize("settings", FETCHED, ids=str)
def test_code_of_the_hub_is_refused_in_every_part(settings: dict[str, Any]) -> None:
    for depth in (0, 1, 2):
        with pytest.raises(ModelError, match="Nothing was fetched"):
            configs.refuse_kernels("here", nested(depth, **settings))


@pytest.mark.parametrize("settings", KEPT, ids=str)
def test_what_comes_with_transformers_is_taken(settings: dict[str, Any]) -> None:
    for depth in (0, 1):
        configs.refuse_kernels("here", nested(depth, **settings))


def test_kernels_are_hidden_for_one_import_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels, seen = SimpleNamespace(), []
    monkeypatch.setitem(sys.modules, "kernels", kernels)

    def importing(name: str) -> None:
        seen.append((name, sys.modules["kernels"]))
        raise ImportError

    monkeypatch.setattr(configs, "import_module", importing)
    configs.import_bitsandbytes()
    assert seen == [("bitsandbytes", None)]
    assert sys.modules["kernels"] is kernels
    monkeypatch.delitem(sys.modules, "kernels")
    configs.import_bitsandbytes()
    assert "kernels" not in sys.modules
