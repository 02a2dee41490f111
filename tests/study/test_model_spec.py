"""A model as a value: every field of it is loaded, named and compared."""

from __future__ import annotations

from typing import Any

import pytest

from interp.study import ModelSpec
from interp.study import model_spec as specs

SPEC = ModelSpec(
    "org/model",
    revision="abc",
    device="cuda:1",
    dtype="bfloat16",
    vision_tower="tower",
    attn_implementation="sdpa",
    processor={"max_pixels": 9},
    quantization="int8",
    lora="some/adapter",
    device_map={"a": 0},
    offload_folder="disk",
    remote=True,
    adapter="answers_only",
)


def test_every_field_of_a_model_reaches_its_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("interp.tracing.load", lambda id, **options: given.update(options, id=id))
    SPEC.load()
    assert given == {
        "id": "org/model",
        "revision": "abc",
        "device": "cuda:1",
        "dtype": "bfloat16",
        "vision_tower": "tower",
        "attn_implementation": "sdpa",
        "processor": {"max_pixels": 9},
        "quantization": "int8",
        "lora": "some/adapter",
        "device_map": {"a": 0},
        "offload_folder": "disk",
        "remote": True,
        "adapter": "answers_only",
    }
    default = ModelSpec("x")
    assert (default.device, default.dtype, default.remote) == ("cpu", "float32", False)


def test_a_model_is_named_by_all_that_it_changes() -> None:
    assert specs.model_label(SPEC) == "org/model@abc, LoRA adapter, adapter answers_only, int8, max_pixels=9"
    assert specs.model_label(ModelSpec("x", quantization={"quant_method": "awq"})) == "x, awq"
    assert specs.model_label(ModelSpec("x", processor="y", dtype="float16")) == "x"
    assert hash(SPEC) == hash(SPEC.__class__(**{**vars(SPEC), "processor": {"max_pixels": 9}}))
    assert ModelSpec("x", processor={"a": 1}) != ModelSpec("x", processor={"a": 2})
