"""Where weights go, by hand: what transformers is told, and which device maps name every part of a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from interp.errors import ModelError
from interp.tracing.parameters.weights import Placement, modules_of, named_modules, refuse_offloaded, versions

pytestmark = pytest.mark.usefixtures("unchecked")


def placed(**options: Any) -> Placement:
    usual = {
        "device": "cpu",
        "dtype": "float32",
        **dict.fromkeys(("device_map", "offload_folder", "quantization")),
    }
    return Placement.of(**{**usual, **options})


PLAIN, QUANTISED = SimpleNamespace(), SimpleNamespace(quantization_config={"bits": 8})
WIDE = {"dtype": torch.float32}


@pytest.mark.parametrize(
    ("options", "config", "told"),
    [
        ({}, PLAIN, WIDE),
        ({"dtype": "auto"}, PLAIN, {"dtype": "auto"}),
        ({"dtype": torch.bfloat16, "device": "cuda:1"}, PLAIN, {"dtype": torch.bfloat16}),
        ({"device": "cuda:1"}, QUANTISED, {**WIDE, "device_map": {"": "cuda:1"}}),
        ({"device_map": "auto"}, QUANTISED, {**WIDE, "device_map": "auto"}),
        (
            {"device_map": {"": "disk"}, "offload_folder": "there"},
            PLAIN,
            {**WIDE, "device_map": {"": "disk"}, "offload_folder": "there"},
        ),
    ],
)
def test_transformers_is_told_where_weights_go(options: Any, config: Any, told: dict[str, Any]) -> None:
    assert placed(**options).options(config) == told


def parts() -> nn.Module:
    """Two parts of which one's name begins with the other's."""
    return nn.ModuleDict({"a": nn.Linear(1, 1), "ab": nn.Linear(1, 1)})


@pytest.mark.parametrize("names", [[""], ["a", "ab"], ["a.weight", "a.bias", "ab"], ["", "a"]])
def test_a_map_of_every_part_is_taken(names: list[str]) -> None:
    model = parts()
    assert placed(device_map=dict.fromkeys(names, "cpu")).moved(model) is model


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a"], r"ValueError: no part holds ab\.weight, ab\.bias\)"),
        (["a", "ab", "c"], r"ValueError: the model has no part 'c'\)"),
        (
            ["ab.weight", "d"],
            r"ValueError: the model has no part 'd'; no part holds a\.weight, a\.bias, ab\.bias\)",
        ),
    ],
)
def test_a_map_that_leaves_out_a_part_is_refused(names: list[str], said: str) -> None:
    with pytest.raises(ModelError, match=rf"device_map=.* cannot be used \({said}"):
        placed(device_map=dict.fromkeys(names, "cpu")).moved(parts())


def test_a_model_that_lies_somewhere_is_not_moved() -> None:
    model = parts()
    model.hf_device_map = {"": 0}  # type: ignore[assignment]
    assert placed(device="cuda:7").moved(model) is model
    with pytest.raises(ModelError, match=r"device='nowhere' cannot be used .*Is it there, and large enough"):
        placed(device="nowhere").moved(parts())


def test_modules_are_listed_once_where_they_are_shared() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.ReLU()))
    model.add_module("again", model[0])
    model.add_module("none", None)
    assert {module: name for name, module in model.named_modules()} == named_modules(model)
    assert list(named_modules(model).values()) == ["", "0", "1", "1.0"]
    assert set(modules_of(model)) == set(model.modules())
    assert len(modules_of(model)) == 4


def test_a_write_into_a_weight_or_buffer_is_another_version() -> None:
    model = nn.BatchNorm1d(2)
    seen = [versions(model)]
    for change in (
        lambda: model.weight.detach().add_(1),
        lambda: model.running_mean.add_(1),  # type: ignore[union-attr]
        lambda: setattr(model, "bias", nn.Parameter(model.bias.clone())),
    ):
        assert versions(model) == seen[-1]
        change()
        seen.append(versions(model))
    assert len(set(seen)) == 4
    with torch.inference_mode():
        assert versions(nn.Linear(1, 1)) is None
    assert versions(nn.Linear(1, 1, device="meta")) is None


def test_what_needs_the_weights_themselves_says_so() -> None:
    refuse_offloaded(parts(), "shuffling")
    with pytest.raises(ModelError, match="shuffling needs all weights in memory, but some are offloaded"):
        refuse_offloaded(nn.Linear(1, 1, device="meta"), "shuffling")
    for name in ("is_quantized", "hf_quantizer"):
        model = parts()
        setattr(model, name, True)
        with pytest.raises(ModelError, match="shuffling needs weights that are not quantised"):
            refuse_offloaded(model, "shuffling")
