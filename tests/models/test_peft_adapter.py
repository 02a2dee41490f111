"""Which adapters are refused before anything large is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from interp.errors import ModelError
from interp.models import peft_adapter
from interp.models.peft_adapter import add_lora, lora_settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with weights, where PEFT is installed."""
    (tmp_path / "adapter_model.safetensors").touch()
    monkeypatch.setattr(peft_adapter, "find_spec", lambda _: True)
    return tmp_path


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, **more}))
    return lora_settings(folder)


@pytest.mark.parametrize(
    "name", ["megatron_config", "corda_config", "eva_config", "loftq_config", "use_dora"]
)
def test_settings_that_change_more_than_a_sum_are_refused(folder: Path, name: str) -> None:
    for off in (None, False, {}):
        assert settings(folder, **{name: off})["r"] == 4
    with pytest.raises(ModelError, match=f"sets {name}, which is not supported"):
        settings(folder, **{name: {"a": 1}})


def test_another_kind_and_a_lack_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"is of the type 'IA3'"):
        settings(folder, peft_type="IA3")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"holds no adapter_model\.safetensors"):
        settings(folder)
    (folder / "adapter_model.safetensors").touch()
    monkeypatch.setattr(peft_adapter, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="needs the package peft"):
        settings(folder)


def test_one_offloaded_weight_is_enough_to_refuse(tmp_path: Path) -> None:
    weights = [torch.zeros(1), torch.empty(1, device="meta")]
    with pytest.raises(ModelError, match=r"device_map= put some of them"):
        add_lora(SimpleNamespace(parameters=lambda: weights), tmp_path)
