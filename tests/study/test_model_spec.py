"""A model as a value: every field of it is loaded, named and compared."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from interp.errors import StudyError
from interp.organism.places import ORGANISMS
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


def opened(**config: Any) -> Any:
    return SimpleNamespace(
        hf=SimpleNamespace(config=SimpleNamespace(**config), name_or_path="some/model"), family="llava"
    )


def test_an_organism_is_known_by_name_config_or_model(tmp_path: Path) -> None:
    for name, config in (("made", {"interp_organism": True}), ("real", {"model_type": "llava"})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    known = {
        "organism": True, "org/model": False, str(tmp_path / "made"): True, str(tmp_path / "real"): False,
        str(tmp_path): False,
    }  # fmt: skip
    assert {name: specs.is_organism(ModelSpec(name)) for name in known} == known
    assert [specs.is_organism(one) for one in (opened(interp_organism=True), opened(), object())] == [
        True,
        False,
        False,
    ]


def test_a_label_is_the_id_the_folder_or_the_family(tmp_path: Path) -> None:
    assert specs.model_label(opened()) == "some/model"
    assert specs.model_label(SimpleNamespace(family="llava")) == "llava"
    alike, organism = opened(), opened(interp_organism=True)
    alike.hf.name_or_path = organism.hf.name_or_path = f"elsewhere/{Path(ORGANISMS['organism']).name}"
    assert specs.model_label(organism) == "organism"
    assert specs.model_label(alike) == alike.hf.name_or_path  # a real model in a folder of that name
    assert specs.model_label(Path()) == type(Path()).__name__
    assert specs.short_label(ModelSpec(str(tmp_path))) == tmp_path.name
    assert specs.short_label(ModelSpec("org/model")) == "org/model"


def test_a_model_on_a_server_is_remote() -> None:
    models = (SPEC, ModelSpec("x"), SimpleNamespace(server="ndif"), SimpleNamespace(server=None), object())
    assert [specs.is_remote(one) for one in models] == [True, False, True, False, False]


def test_provenance_holds_the_spec_and_what_was_opened() -> None:
    mllm = SimpleNamespace(family="llava", n_layers=3, adapter=SimpleNamespace(describe=lambda: "a grid"))
    found = specs.model_provenance(SPEC, mllm, "f00")
    assert {
        **asdict(SPEC),
        "family": "llava",
        "fingerprint": "f00",
        "n_layers": 3,
        "footprints": "a grid",
    } == found
    mllm.adapter = None
    assert specs.model_provenance(opened(), mllm, "f00") == {
        "id": None, "family": "llava", "fingerprint": "f00", "n_layers": 3
    }  # fmt: skip


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"id": " "}, "a model's id is a text"),
        ({"id": 3}, "a model's id is a text"),
        ({"adapter": object()}, "adapter of a ModelSpec is a name"),
        ({"remote": 1}, "remote is True or False; got 1"),
        (
            {"processor": {"size": float("nan")}},
            "processor of a ModelSpec is a text or a dict of what JSON can hold",
        ),
        (
            {"quantization": {"a": object()}},
            "quantization of a ModelSpec is a text or a dict of what JSON can hold",
        ),
        ({"device_map": ["cuda"]}, "device_map of a ModelSpec is a text or a dict of names"),
        ({"processor": {1: 2}}, "processor of a ModelSpec is a text or a dict of names"),
    ],
)
def test_a_model_that_json_cannot_hold_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        ModelSpec(**{"id": "x", **fields})
