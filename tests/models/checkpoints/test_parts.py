"""Where the parts of a checkpoint are found, what of the hub is fetched, and what a model card says."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch

from interp.errors import ModelError
from interp.models import adapter, quantization
from interp.models.adapter import needed
from interp.models.checkpoints import Checkpoint, checkpoint, empty_model
from interp.models.checkpoints.checkpoint import fetched, find_part, lora_files, reachable, small_files
from interp.models.checkpoints.convert import Converted, _add_videos, model_card
from interp.models.checkpoints.tensors import Part, Rule


class Held:
    """Tensors on the meta device, by name."""

    def __init__(self, **tensors: torch.Tensor) -> None:
        self._tensors = tensors

    def names(self) -> list[str]:
        return list(self._tensors)

    def meta(self, name: str) -> torch.Tensor:
        return self._tensors[name]

    def read(self, name: str) -> torch.Tensor:
        raise AssertionError(f"{name} was read")


def of(*parts: Held, config: Any = None, **more: Any) -> Checkpoint:
    made: Any = Checkpoint
    rules = tuple(Part(one, ()) for one in parts)
    return made("a layout", "there", config, SimpleNamespace, rules, lambda: None, "{question}", **more)


def empty(n: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(n, dtype=dtype, device="meta")


def test_the_dtype_is_that_of_most_numbers_of_the_decoder(unchecked: None) -> None:
    """Two small tensors of float32 and a large one of float16; integers and the tower do not count."""
    words = Held(
        a=empty(3, torch.float32),
        b=empty(3, torch.float32),
        c=empty(7, torch.float16),
        d=empty(99, torch.int64),
    )
    assert of(words, Held(e=empty(999, torch.bfloat16))).dtype == torch.float16
    assert of(Held(d=empty(9, torch.int64))).dtype == torch.float32


def test_every_problem_of_the_tensors_is_listed(unchecked: None) -> None:
    """Ten are missing, of which eight are named; tied ones may be."""
    held = Held(a=empty(2, torch.float32), b=empty(3, torch.float32), odd=empty(1, torch.float32),
                c1=empty(4, torch.float32), c2=empty(4, torch.float32), d=empty(9, torch.float32))  # fmt: skip
    rules = (Rule(r"c\d", "c"), Rule(r"([ab])", r"\1"), Rule("d", "elsewhere"))
    made: Any = Checkpoint
    found = made("a layout", "there", None, SimpleNamespace, (Part(held, rules),), list, "")
    wanted = {name: empty(n, torch.float32) for name, n in (("a", 2), ("b", 2), ("c", 4))}
    wanted |= {f"m{i}": empty(1, torch.float32) for i in range(10)} | {"head": empty(1, torch.float32)}
    with pytest.raises(ModelError) as error:
        found.check(wanted, tied=("head",))
    for words in (
        "10 missing: m0, m1, m2, m3, m4, m5, m6, m7 …",
        "2 unexpected: odd, d (as elsewhere)",
        "1 of another shape: b (expected (2,), got (3,), from b)",
        "1 twice: c (from c1 and c2)",
        "the tensors in there (a layout layout)",
    ):
        assert words in str(error.value)
    whole = made("x", "there", None, SimpleNamespace, (Part(Held(a=held.meta("a")), rules),), list, "")
    whole.check({"a": wanted["a"], "head": wanted["head"]}, tied=("head",))


def test_a_video_part_is_added_to_internvls_processor_alone(tmp_path: Path) -> None:
    path = tmp_path / "processor_config.json"
    images = {"size": {"height": 28, "width": 28}}
    for kind, before, after in (
        ("InternVLProcessor", {}, {"video_processor_type": "InternVLVideoProcessor", **images}),
        ("InternVLProcessor", {"video_processor": {"size": 3}}, {"size": 3}),
        ("LlavaProcessor", {}, None),
    ):
        path.write_text(json.dumps({"processor_class": kind, "image_processor": images, **before}))
        _add_videos(tmp_path)
        assert json.loads(path.read_text()).get("video_processor") == after


@pytest.mark.parametrize("place", ["whole", "part"])
def test_more_layers_than_tensors_are_refused(place: str, unchecked: None) -> None:
    class Built:
        @staticmethod
        def _from_config(config: Any, dtype: Any) -> Any:
            return torch.nn.Identity()

    part = SimpleNamespace(num_hidden_layers=3 if place == "part" else 1)
    config = SimpleNamespace(sub_configs={"text_config": None}, text_config=part)
    config.num_hidden_layers = 3 if place == "whole" else 1
    for n, refused in ((3, False), (2, True)):
        held = Held(**{f"t{i}": empty(1, torch.float32) for i in range(n - 1)})
        made: Any = Checkpoint
        found = made(
            "x", "there", config, Built, (Part(held, ()), Part(Held(z=empty(1, torch.float32)), ())), list, ""
        )
        if refused:
            with pytest.raises(ModelError, match="describes 3 layers, but the files hold 2 tensors"):
                empty_model(found)
        else:
            assert not empty_model(found).training


@pytest.mark.parametrize(
    ("licence", "origin", "stock", "lines"),
    [
        ("mit", "org/name", True, ["license: mit", "base_model: org/name", "library_name: transformers"]),
        ("cc-by-4.0", "name", False, ["license: cc-by-4.0", "library_name: interp"]),
        (
            "MIT License",
            "name",
            True,
            ["license: other", 'license_name: "MIT License"', "library_name: transformers"],
        ),
        (None, "a/b/c", True, ["license: unknown", "library_name: transformers"]),
    ],
)
def test_a_cards_header(
    unchecked: None, licence: str | None, origin: str, stock: bool, lines: list[str]
) -> None:
    card = model_card(of(licence=licence, stock=stock, notes=("a note",)), origin, torch.bfloat16)
    assert card.split("---")[1].strip().splitlines() == [*lines, "pipeline_tag: image-text-to-text"]
    assert card.split("---")[2].strip().startswith(f"# {origin.split('/')[-1]}, in transformers' layout\n")
    assert ("The source states none. Without one you may not" in card) is (licence is None)
    assert ("transformers alone refuses the folder" in card) is not stock
    assert "source's, in bfloat16." in card
    assert "\n- a note\n" in card


def test_how_a_folder_is_loaded() -> None:
    found = Converted(Path("f"), "x", "Kind", True, 1, None, ())
    assert found.way == "load it with transformers alone, or with interp.load('f')"
    assert Converted(Path("f"), "x", "Kind", False, 1, None, ()).way.startswith(
        "transformers has no class for it: Kind"
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was asked of the hub, whose cache holds org/cached."""
    found: list[Any] = []

    def snapshot(hub_id: str, **options: Any) -> str:
        found.append((hub_id, options))
        if options["local_files_only"] and hub_id != "org/cached":
            raise OSError("not there")
        return f"/hub/{hub_id}"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(checkpoint, "reachable", lambda: True)
    return found


def test_a_part_is_looked_for_from_near_to_far(tmp_path: Path, asked: list[Any], monkeypatch: Any) -> None:
    folder, own = tmp_path / "model", tmp_path / "own"
    own.mkdir()
    (folder / "vit" / "clip").mkdir(parents=True)
    (folder / "clip").mkdir()
    monkeypatch.setattr(checkpoint, "fetched", lambda name: Path("/fetched") / name)

    def find(
        named: str | None, given: Any = None, download: bool = False, option: str | None = "tower"
    ) -> Path:
        return find_part("vision tower", named, folder, given, download=download, option=option)

    assert find("vit/clip") == folder / "vit" / "clip"
    assert find("org/clip") == folder / "clip"  # the last part of the name, beside the weights
    assert find(str(own)) == own
    assert find("vit/clip", given=own) == own
    assert find("vit/clip", given="org/other") == Path("/fetched/org/other")
    assert find("org/far", download=True) == Path("/fetched/org/far")
    assert find("org/cached") == Path("/hub/org/cached")
    assert asked == [("org/cached", {"local_files_only": True})]
    with pytest.raises(ModelError, match=r"tower='nowhere' is neither a folder nor a hub id"):
        find("vit/clip", given="nowhere")
    for named in ("org/far", "/abs/far", None):
        with pytest.raises(ModelError, match=r"comes without its vision tower: .*Pass tower= with"):
            find(named)
    with pytest.raises(ModelError, match=r"Put a copy at .*model/far"):
        find("org/far", option=None)


@pytest.mark.parametrize(
    ("files", "ignored"),
    [
        (["a.bin", "model.safetensors"], ["*pytorch_model*.bin"]),
        (["pytorch_model.bin", "a.safetensors.txt"], None),
    ],
)
def test_weights_are_fetched_in_one_form(
    asked: list[Any], monkeypatch: Any, files: list[str], ignored: Any
) -> None:
    hub = SimpleNamespace(list_repo_files=lambda hub_id, revision: files if revision == "r" else 1 / 0)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    assert fetched("org/x", "r") == Path("/hub/org/x")
    ((hub_id, options),) = asked
    assert (hub_id, options["revision"], options["local_files_only"]) == ("org/x", "r", False)
    assert options["ignore_patterns"] == ignored
    assert {"*.json", "*.safetensors", "*.bin"} <= set(options["allow_patterns"])
    assert not {"*.py", "*", "*.pt"} & set(options["allow_patterns"])
    with pytest.raises(ModelError, match="cannot be downloaded from the hub"):
        fetched("org/x")


def test_small_files_and_adapters_are_without_other_weights(asked: list[Any]) -> None:
    assert small_files("org/x", "r") == Path("/hub/org/x")
    assert lora_files("org/y") == Path("/hub/org/y")
    (small, lora) = asked
    assert (small[0], small[1]["revision"], small[1]["local_files_only"]) == ("org/x", "r", False)
    assert "*.json" in small[1]["allow_patterns"]
    assert not {"*.safetensors", "*.bin"} & set(small[1]["allow_patterns"])
    assert lora[1]["allow_patterns"] == ["adapter_config.json", "adapter_model.safetensors"]


def test_the_caches_copy_of_a_revision_is_taken_offline(asked: list[Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(checkpoint, "reachable", lambda: False)
    assert fetched("org/cached", "r") == Path("/hub/org/cached")
    ((_, options),) = asked
    assert (options["revision"], options["local_files_only"]) == ("r", True)
    assert {"*.json", "*.safetensors", "*.bin"} <= set(options["allow_patterns"])


def test_the_hub_is_not_asked_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)

    def none(*_: Any, **__: Any) -> None:
        raise OSError

    monkeypatch.setattr(checkpoint.socket, "create_connection", none)
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    assert not reachable()
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://proxy")
        assert reachable()
        monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: True)
        assert not reachable()
        monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("version", "lacks"), [("5.22.9", "5.23"), ("5.23", None), ("5.23.0", None), ("5.100", None)]
)
def test_the_version_a_family_needs_is_enough(
    unchecked: None, version: str, lacks: str | None, monkeypatch: Any
) -> None:
    monkeypatch.setattr(adapter.transformers, "__version__", version)
    assert needed(SimpleNamespace(name="got_ocr2")) == lacks  # pyright: ignore[reportArgumentType]
    assert needed(SimpleNamespace(name="llava")) is None  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("name", "package"), [("int8", "torchao"), ("int4", "bitsandbytes"), ("fp8", "torchao")]
)
def test_a_quantisation_names_its_package(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda one: None if one == package else True)
    with pytest.raises(ModelError, match=rf"quantization='{name}' needs the package {package}\. Install"):
        quantization.quantization_config(name, "auto")
    assert quantization.quantization_config(None, "auto") is None
