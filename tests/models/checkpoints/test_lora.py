"""The merge of a low-rank adapter, by hand: W + scale · B A, and every setting that would make it another sum."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from interp.errors import ModelError
from interp.models.checkpoints.lora import Merged, merged
from interp.models.checkpoints.tensors import read_file

PLAIN = {"r": 4, "lora_alpha": 8, "bias": "none"}
NAME = "model.layers.0.q.weight"


def found(folder: Path, settings: dict[str, Any]) -> Merged:
    """A base of two weights of zeros and a head of ones; one weight has an adapter of ones, the head is replaced."""
    base = {NAME: torch.zeros(2, 3, dtype=torch.float16), "model.norm.weight": torch.zeros(3)}
    save_file({**base, "lm_head.weight": torch.ones(2)}, folder / "base.safetensors")
    low = {"lora_A": torch.ones(4, 3), "lora_B": torch.ones(2, 4)}
    stem = f"base_model.model.{NAME.removesuffix('.weight')}"
    save_file(
        {f"{stem}.{kind}.weight": one for kind, one in low.items()}, folder / "adapter_model.safetensors"
    )
    trained = {"base_model.lm_head.weight": torch.full((2,), 5.0), "base_model.extra.weight": torch.ones(1)}
    torch.save(trained, folder / "non_lora_trainables.bin")
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return merged(folder, read_file(folder / "base.safetensors"))


@pytest.mark.parametrize(
    ("more", "scale"),
    [
        ({}, 2.0),
        ({"use_rslora": True}, 4.0),
        ({"rank_pattern": {}, "modules_to_save": None, "use_dora": False}, 2.0),
    ],
)
def test_a_weight_gets_scale_times_the_product(tmp_path: Path, more: dict[str, Any], scale: float) -> None:
    """alpha / r = 2, and by rsLoRA alpha / √r = 4; a product of ones of rank 4 is 4."""
    model = found(tmp_path, PLAIN | more)
    weight = model.read(NAME)
    assert torch.equal(weight, torch.full((2, 3), 4 * scale, dtype=torch.float16))
    assert weight.dtype == model.meta(NAME).dtype == torch.float16
    assert model.read("model.norm.weight").tolist() == [0, 0, 0]
    assert model.read("lm_head.weight").tolist() == [5, 5]
    assert sorted(model.names()) == ["extra.weight", "lm_head.weight", NAME, "model.norm.weight"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rank_pattern", {"q": 8}),
        ("alpha_pattern", {"q": 8}),
        ("modules_to_save", ["lm_head"]),
        ("use_dora", True),
        ("layer_replication", [[0, 1]]),
        ("fan_in_fan_out", True),
        ("bias", "all"),
        ("bias", "lora_only"),
    ],
)
def test_a_setting_of_another_sum_is_refused(tmp_path: Path, name: str, value: object) -> None:
    said = name if name not in ("fan_in_fan_out", "bias") else "fan_in_fan_out or trained biases"
    with pytest.raises(ModelError, match=f"asks for {said}, which this reader does not merge"):
        found(tmp_path, PLAIN | {name: value})


def write_pair(folder: Path, **low: torch.Tensor) -> None:
    """Writes an adapter of one weight, with these matrices."""
    stem = f"base_model.model.{NAME.removesuffix('.weight')}"
    save_file(
        {f"{stem}.{kind}.weight": one for kind, one in low.items()}, folder / "adapter_model.safetensors"
    )


def test_the_product_is_of_b_and_a(tmp_path: Path) -> None:
    """B is (2, 1) and A (1, 3): rows by B, columns by A."""
    found(tmp_path, PLAIN)
    write_pair(tmp_path, lora_A=torch.tensor([[1.0, 2, 3]]), lora_B=torch.tensor([[1.0], [10]]))
    model = merged(tmp_path, read_file(tmp_path / "base.safetensors"))
    assert model.read(NAME).tolist() == [[2, 4, 6], [20, 40, 60]]


@pytest.mark.parametrize(("a", "b"), [((4, 2), (3, 4)), ((4, 3), (2, 5)), ((4, 9), (2, 4))])
def test_an_adapter_of_other_sizes_is_refused(tmp_path: Path, a: tuple[int, int], b: tuple[int, int]) -> None:
    found(tmp_path, PLAIN)
    write_pair(tmp_path, lora_A=torch.ones(a), lora_B=torch.ones(b))
    model = merged(tmp_path, read_file(tmp_path / "base.safetensors"))
    with pytest.raises(ModelError, match=rf"\({b[0]}, {b[1]}\) × \({a[0]}, {a[1]}\) for {NAME} does not fit"):
        model.read(NAME)


def test_a_half_without_its_partner_is_named(tmp_path: Path) -> None:
    found(tmp_path, PLAIN)
    write_pair(tmp_path, lora_A=torch.ones(4, 3))
    with pytest.raises(ModelError, match=r"without a partner: 1 tensor, base_model\.model\..*lora_A"):
        merged(tmp_path, read_file(tmp_path / "base.safetensors"))


def test_changes_of_weights_the_base_lacks_keep_their_names(tmp_path: Path) -> None:
    found(tmp_path, PLAIN)
    save_file({"other.weight": torch.zeros(2)}, tmp_path / "base.safetensors")
    model = merged(tmp_path, read_file(tmp_path / "base.safetensors"))
    stem = f"base_model.model.{NAME.removesuffix('.weight')}"
    assert list(model.names())[-2:] == [f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"]
    assert model.meta(f"{stem}.lora_A.weight").shape == (4, 3)


def test_an_adapters_missing_files_are_named(tmp_path: Path) -> None:
    found(tmp_path, PLAIN)
    base = read_file(tmp_path / "base.safetensors")
    for name in ("adapter_model.safetensors", "non_lora_trainables.bin"):
        held = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        with pytest.raises(ModelError, match=r"should hold adapter_model.*, and non_lora_trainables\.bin"):
            merged(tmp_path, base)
        (tmp_path / name).write_bytes(held)
    for text in ("{", "3", None):
        (tmp_path / "adapter_config.json").write_text(text) if text else (
            tmp_path / "adapter_config.json"
        ).unlink()
        with pytest.raises(ModelError, match=r"adapter_config\.json cannot be read \("):
            merged(tmp_path, base)
