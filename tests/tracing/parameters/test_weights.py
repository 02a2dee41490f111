"""Models as people load them: spread, offloaded, quantised, with settings or a LoRA; each gives what it should."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from accelerate.hooks import attach_align_device_hook_on_blocks
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BitsAndBytesConfig, CLIPVisionConfig, LlavaForConditionalGeneration

import interp.indicators as indicators
import tests.tiny as tiny
from interp.conformance.tiny import tiny as tiny_family
from interp.errors import ModelError
from interp.indicators import AttentionGradient, ValueWeightedAttention
from interp.inputs.prompt import Target
from interp.inputs.sample import Sample
from interp.study.model_spec import ModelSpec, model_label
from interp.tracing import (
    Boost,
    Guide,
    Knockout,
    PatchResidual,
    PatchRows,
    Residual,
    Rows,
    ScaleWeights,
    Site,
    load,
    wrap,
)
from interp.tracing.parameters.fingerprint import named_tensors
from interp.tracing.parameters.weights import execution_device, modules_of, named_modules
from tests.models.checkpoints.llava_cases import huatuo_7b
from tests.second_device import FIRST, SECOND, second_devices
from tests.tracing.model_numbers import alike, numbers

FAMILIES = ("llava", "qwen2_5_vl", "internvl")
ROWS = [Rows(Site(queries="last"))]
PARTS = {
    "llava": ("model.vision_tower", "model.multi_modal_projector", "model.language_model", "lm_head"),
    "qwen2_5_vl": ("model.visual", "model.language_model", "lm_head"),
    "internvl": ("model.vision_tower", "model.multi_modal_projector", "model.language_model", "lm_head"),
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """Any request to the hub fails the test."""

    def refuse(*args, **kwargs):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.file_download._get_metadata_or_catch_error", refuse)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Callable[[str], Path]:
    """A family's name → the folder of its tiny model."""

    @cache
    def folder(family: str) -> Path:
        made = tmp_path_factory.mktemp("models") / family
        for part in tiny_family(family):
            part.save_pretrained(made)
        return made

    return folder


@pytest.mark.by_default(family=["llava"])
@pytest.mark.parametrize("family", FAMILIES)
def test_on_the_disk_it_gives_the_plain_models_numbers(saved, tmp_path, family):
    samples = tiny.uneven_samples()[:2]
    first, *rest = PARTS[family]
    where = {first: "cpu"} | dict.fromkeys(rest, "disk")
    plain = load(saved(family))
    spread = load(saved(family), device_map=where, offload_folder=tmp_path / "weights")
    assert any(weight.is_meta for weight in spread.hf.parameters())
    alike(numbers(spread, samples), numbers(plain, samples))
    maps = [ValueWeightedAttention()(one, samples)[0].values for one in (spread, plain)]
    np.testing.assert_allclose(*maps, atol=1e-6)
    assert spread.fingerprint == plain.fingerprint


def test_a_map_of_the_cpu_is_the_plain_model(saved):
    folder = saved("llava")
    plain = load(folder)
    for where in ("auto", {"model": torch.device("cpu"), "lm_head": "cpu"}):
        spread = load(folder, device_map=where)
        np.testing.assert_array_equal(spread.trace(tiny.samples()).logits, plain.trace(tiny.samples()).logits)


def test_an_original_layout_is_spread_too(tmp_path):
    case = huatuo_7b(tmp_path / "huatuo")
    sample = tiny.sample()
    plain = load(case.folder)
    where = {"model": "cpu", "lm_head": "disk"}
    for options in ({"device_map": "auto"}, {"device_map": where, "offload_folder": tmp_path / "weights"}):
        spread = load(case.folder, **options)
        np.testing.assert_allclose(spread.trace(sample).logits, plain.trace(sample).logits, atol=1e-6)
    with pytest.raises(
        ModelError, match=r"in an original layout\. Convert it first, with interp convert FOLDER"
    ):
        load(case.folder, quantization={"quant_method": "bitsandbytes", "load_in_8bit": True})
    with pytest.raises(ModelError, match=r"device_map=\{'nothing': 'cpu'\} cannot be used \(ValueError"):
        load(case.folder, device_map={"nothing": "cpu"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device_map": "everywhere"}, r"device_map is 'auto', .*; got 'everywhere'"),
        ({"device_map": {"model": "nowhere"}}, r"a name such as cuda:1; got 'model': 'nowhere'"),
        ({"device_map": {"model": True}}, r"got 'model': True"),
        ({"device_map": {}}, r"device_map is 'auto'.*got \{\}"),
        (
            {"device_map": {"": "cpu", "nothing": "cpu"}},
            r"\(ValueError: the model has no part 'nothing'\)\. Each",
        ),
        (
            {"device_map": {"lm_head": "cpu"}},
            r"\(ValueError: no part holds model\.vision_tower\..* …\)\. Each",
        ),
        ({"device_map": {"": 7}}, r"device_map=\{'': 7\} cannot be used \(RuntimeError"),
        ({"device_map": "auto", "device": "cuda"}, r"would say it again\. Leave device out\."),
        ({"device_map": {"": "disk"}}, r"in which folder they go: offload_folder='offload'"),
        ({"offload_folder": "x"}, r"give device_map='auto' as well"),
        ({"quantization": "int9"}, r"quantization is 'int8', 'int4', 'fp8', or .*; got 'int9'"),
        ({"quantization": {"bits": 4}}, r"a dict with a quant_method; got \{'bits': 4\}"),
        ({"quantization": 8}, r"a dict with a quant_method; got 8"),
        ({"quantization": {"quant_method": "fp8"}}, r"the call of load is quantised by 'fp8', whose kernels"),
        ({"processor": {"max_pixels": 9}}, r"has no setting 'max_pixels'\. It has crop_size, .*patch_size"),
        ({"processor": {}}, r"has no setting \(none was given\)"),
        ({"processor": {"do_resize": "x"}}, r"does not take \{'do_resize': 'x'\} \("),
        ({"processor": {"patch_size": "x"}}, r"has a int as patch_size; got a str: 'x'"),
        ({"lora": "."}, r"the folder \. holds no adapter_config.json"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_weights(saved, options, words):
    with pytest.raises(ModelError, match=words):
        load(saved("llava"), **options)


def test_options_of_another_type(saved, unchecked):
    with pytest.raises(ModelError, match=r"offload_folder is a folder's path; got 5"):
        load(saved("llava"), device_map={"": "disk"}, offload_folder=5)
    with pytest.raises(ModelError, match=r"load takes a name, a folder or a hub id; got int"):
        load(saved("llava"), lora=5)
    with pytest.raises(ModelError, match=r"device_map is 'auto', .*; got 5"):
        load(saved("llava"), device_map=5)


BITS_8 = {"quant_method": "bitsandbytes", "load_in_8bit": True}


def check_quantised(folder: Path, quantization: Any, near: float, *, gradients: bool = True) -> None:
    """Rows near the plain model's, logits the quantised model's own, and an identity that says so."""
    plain, small = load(folder), load(folder, quantization=quantization)
    assert small.fingerprint == load(folder, quantization=quantization).fingerprint
    samples = tiny.samples()[:2]
    batch = small.encode(samples)
    with torch.no_grad():
        own = small.hf(**(batch.inputs | {"position_ids": batch.positions})).logits[:, -1]
    trace = small.trace(samples, reads=ROWS)
    np.testing.assert_allclose(trace.logits, own, atol=1e-4)
    after = small.trace(small.prefix(samples), reads=ROWS)
    np.testing.assert_allclose(after.logits, own, atol=1e-4)
    np.testing.assert_allclose(trace[0].rows, plain.trace(samples, reads=ROWS)[0].rows, atol=near)
    assert len(small.trace(samples, edits=[Boost(Site(), 0.5, steps="all")], generate=2).answers) == 2
    if gradients:
        assert np.isfinite(AttentionGradient()(small, samples)[0].values).all()
    else:
        with pytest.raises(ModelError, match="bitsandbytes' 4-bit layers compute no gradients on a CPU"):
            AttentionGradient()(small, samples)
    assert np.isfinite(ValueWeightedAttention()(small, samples)[0].values).all()
    assert small.identity["weights"] != plain.identity["weights"]
    assert small.identity["config"] != plain.identity["config"]


def test_in_8_bits_by_bitsandbytes(saved):
    pytest.importorskip("bitsandbytes")
    check_quantised(saved("llava"), BITS_8, 0.01)


@pytest.mark.slow
def test_in_4_bits_by_bitsandbytes(tmp_path):
    """Its kernel for CPUs takes matrices with a multiple of 64 columns."""
    pytest.importorskip("bitsandbytes")
    config = tiny.config(hidden=128)
    config.text_config.intermediate_size = 128
    config.vision_config = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(tmp_path)
    tiny.processor().save_pretrained(tmp_path)
    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    check_quantised(tmp_path, settings, 0.05, gradients=False)
    check_quantised(tmp_path, "int4", 0.05, gradients=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_short_names_of_torchao(saved, name):
    pytest.importorskip("torchao")
    check_quantised(saved("llava"), name, 0.01)


def test_a_missing_package_is_named(saved, monkeypatch):
    monkeypatch.setattr("interp.models.quantization.find_spec", lambda name: None)
    monkeypatch.setattr("interp.models.peft_adapter.find_spec", lambda name: None)
    with pytest.raises(
        ModelError, match=r"needs the package torchao\. .*pip install 'interp\[quantization\]'"
    ):
        load(saved("llava"), quantization="int8")


@pytest.fixture
def lora(tmp_path) -> Callable[..., tuple[Path, Any]]:
    """Makes an adapter: its folder, and PEFT's own model of it."""

    def make(**settings: Any) -> tuple[Path, Any]:
        torch.manual_seed(1)
        options = {"r": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False} | settings
        model = peft.get_peft_model(tiny.llava(), peft.LoraConfig(**options))
        for name, weight in model.named_parameters():
            if "modules_to_save" in name:  # as if it had been trained
                torch.nn.init.normal_(weight, std=0.3)
        model.save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter", model.eval()

    return make


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True, "modules_to_save": ["lm_head"]}])
def test_a_lora_is_merged_and_gives_what_peft_gives(tmp_path, lora, settings):
    folder, model = lora(**settings)
    tiny.llava().save_pretrained(tmp_path)
    tiny.processor().save_pretrained(tmp_path)
    plain, merged = load(tmp_path), load(tmp_path, lora=folder)
    batch = plain.encode(tiny.samples())
    expected = model(**(batch.inputs | {"position_ids": batch.positions})).logits[:, -1].detach()
    np.testing.assert_allclose(merged.trace(tiny.samples()).logits, expected, atol=2e-5)
    assert np.abs(plain.trace(tiny.samples()).logits - expected.numpy()).max() > 1
    assert merged.identity["weights"] != plain.identity["weights"]
    assert merged.identity["modules"] == plain.identity["modules"]
    assert merged.identity["peft"] == "none"
    merged.hf.save_pretrained(tmp_path)  # as the model that it now is
    assert load(tmp_path).identity["weights"] == merged.identity["weights"]


def test_a_lora_stays_beside_quantised_weights(tmp_path, lora):
    pytest.importorskip("bitsandbytes")
    folder, _ = lora()
    tiny.llava().save_pretrained(tmp_path)
    tiny.processor().save_pretrained(tmp_path)
    both, merged = load(tmp_path, lora=folder, quantization=BITS_8), load(tmp_path, lora=folder)
    rows = [one.trace(tiny.samples(), reads=ROWS)[0].rows for one in (both, merged)]
    np.testing.assert_allclose(*rows, atol=0.02)
    assert both.identity["peft"].startswith("active default, merged none")


def broken(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """A change of the adapter's settings."""

    def apply(folder: Path) -> None:
        path = folder / "adapter_config.json"
        found = json.loads(path.read_text())
        path.write_text(json.dumps(change(found) or found))

    return apply


def without_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.pop(min(tensors))
    save_file(tensors, folder / "adapter_model.safetensors")


def as_pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_a_tensor, r"does not fit the model \(missing: 1 \(.*lora_A"),
        (as_pickle, r"holds no adapter_model.safetensors\. .*save it again, which writes safetensors"),
        (broken(lambda c: c.update(peft_type="IA3")), r"takes adapters of the type LORA; .* 'IA3'"),
        (broken(lambda c: c.update(use_dora=True)), r"sets use_dora, which is not supported\. Merge"),
        (broken(lambda c: c.update(megatron_config={"a": 1})), r"sets megatron_config, which is not"),
        (broken(lambda c: c.update(target_modules=["none"])), r"does not fit the model \(.*not found"),
        (broken(lambda c: [1]), r"adapter_config.json cannot be read \(TypeError"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(saved, lora, change, words):
    folder, _ = lora()
    change(folder)
    with pytest.raises(ModelError, match=words):
        load(saved("llava"), lora=folder)


def test_settings_of_the_processor_are_used_and_known(saved):
    sample = Sample(tiny.picture(256, 192), "what is there?")
    folder = saved("qwen2_5_vl")
    plain, small = load(folder), load(folder, processor={"max_pixels": 12544, "min_pixels": 784})
    tokens = [one.encode(sample).tokens[0] for one in (plain, small)]
    assert tokens[1].n < tokens[0].n
    cell = small.processor.image_processor.patch_size * small.processor.image_processor.merge_size
    assert tokens[1].n * cell**2 <= 12544
    assert small.trace(sample, reads=ROWS)[0].rows.sizes["token"] == tokens[1].n
    assert small.identity["processor"] != plain.identity["processor"]
    assert small.identity["weights"] == plain.identity["weights"]


def test_a_model_spec_holds_what_load_takes(saved):
    spec = ModelSpec(
        str(saved("llava")),
        attn_implementation="eager",
        processor={"do_normalize": False},
        device_map={"": "cpu"},
    )
    mllm = spec.load()
    assert mllm.installation.implementation == "eager"
    assert not mllm.processor.image_processor.do_normalize
    assert spec == ModelSpec(
        spec.id, None, "cpu", "float32", None, "eager", {"do_normalize": False}, None, None, {"": "cpu"}
    )
    assert hash(spec) == hash(ModelSpec(**vars(spec)))
    assert model_label(ModelSpec("a", revision="b", quantization="int4", lora="c/d")) == "a@b, LoRA d, int4"
    assert model_label(spec).endswith("do_normalize=False")


def test_a_wrapped_model_is_no_argument_of_load(saved):
    """The processor given whole still is one."""
    hf, processor = tiny_family("llava")
    assert load(saved("llava"), processor=processor).fingerprint == wrap(hf, processor).fingerprint


DEVICE_FAMILIES = ("llava", "qwen3_vl", "gemma3")
SAMPLES = tiny.uneven_samples()
ALL = Rows(Site(queries=("last", "question"), keys="all"))


def on_two_devices(hf: Any, layers: Any) -> Any:
    """The model with its upper layers and its head on the second device, as `device_map` and accelerate place it."""
    names = {module: name for name, module in hf.named_modules()}
    half = len(layers) // 2
    where = {names[layer]: FIRST if i < half else SECOND for i, layer in enumerate(layers)}
    for name in names.values():
        inside = any(one == name or one.startswith(f"{name}.") or not name for one in where)
        above = any(name.startswith(f"{one}.") for one in where)
        if not inside and not above:
            where[name] = SECOND if name == "lm_head" else FIRST
    for name, device in where.items():
        hf.get_submodule(name).to(device)
    skipped = getattr(hf, "_skip_keys_device_placement", None)
    attach_align_device_hook_on_blocks(
        hf, {"": FIRST, **where}, offload=dict.fromkeys(where, False), skip_keys=skipped
    )
    hf.hf_device_map = where
    return hf


@cache
def models(family: str) -> tuple[Any, Any]:
    """The family's tiny model on the CPU, and the same one on two devices."""
    plain = wrap(*tiny_family(family))
    hf, processor = tiny_family(family)
    with second_devices():
        spread = wrap(on_two_devices(hf, plain.adapter.layers(hf)), processor)
    return plain, spread


def read(mllm: Any) -> list[Any]:
    trace = mllm.trace(SAMPLES, reads=[ALL, Residual("all", "last")], generate=2)
    return [trace.logits, *(array for sample in trace.samples for array in sample.reads)]


def edited(mllm: Any) -> list[Any]:
    some = [
        Boost(Site(heads=[1], keys="image"), 0.4, steps="all"),
        Guide(Site(layers=[2]), 0.3),
        ScaleWeights(Site(heads=[(0, 1), (2, 0)], queries="after_image"), 0.5),
    ]
    hidden = [Knockout(Site(queries="after_image", keys="image"), "zero")]
    return [mllm.trace(SAMPLES, edits=edits, generate=2).logits for edits in (some, hidden)]


def patched(mllm: Any) -> list[Any]:
    first = SAMPLES[:1]
    reads = [Rows(Site(queries="last")), Residual("all", "last")]
    rows, stream = (np.asarray(one) for one in mllm.trace(first, reads=reads).samples[0].reads)
    edits = [
        PatchRows(Site(queries="last"), rows[..., ::-1].copy()),
        PatchResidual("all", "last", stream + 0.1),
    ]
    return [mllm.trace(first, edits=[edit]).logits for edit in edits]


def from_a_prefix(mllm: Any) -> list[Any]:
    again = Sample(SAMPLES[0].images[0], "what is there?")
    return [
        mllm.trace(mllm.prefix(SAMPLES), reads=[Rows(Site())], generate=2).logits,
        mllm.trace([SAMPLES[0], again, SAMPLES[1]]).logits,
        mllm.trace(mllm.prefix(SAMPLES), edits=[Knockout(Site(queries="after_image", heads=[0]))]).logits,
    ]


def scored(mllm: Any) -> list[Any]:
    return [mllm.score(SAMPLES, Target("yes no")).values]


def by_source(mllm: Any) -> list[Any]:
    other = mllm.using("source")
    trace = other.trace(SAMPLES, reads=[Rows(Site())], edits=[Boost(Site(heads=[0]), 0.3)])
    return [trace.logits, *(sample.rows for sample in trace.samples)]


def indicated(*chosen: Any) -> Callable[[Any], list[Any]]:
    def maps(mllm: Any) -> list[Any]:
        return [indicator(mllm, SAMPLES[:1])[0] for indicator in chosen]

    return maps


WAYS = {
    "read": read,
    "edited": edited,
    "patched": patched,
    "from a prefix": from_a_prefix,
    "scored": scored,
    "by source": by_source,
    "gradients": indicated(
        indicators.AttentionGradient(),
        indicators.AttributionPatching(queries="after_image"),
        indicators.InputGradient(),
    ),
    "rows of all layers": indicated(indicators.ValueWeightedAttention(), indicators.Rollout()),
    "variants": indicated(indicators.TokenKnockout(), indicators.EmbeddingReplacement()),
}


@pytest.mark.by_default(family=["llava"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", DEVICE_FAMILIES)
def test_two_devices_give_the_numbers_of_one(family, way):
    plain, spread = models(family)
    expected = WAYS[way](plain)
    with second_devices():
        found = WAYS[way](spread)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=1e-5, rtol=1e-4)


def test_the_fingerprint_does_not_depend_on_the_devices():
    plain, spread = models("llava")
    with second_devices():
        assert spread.fingerprint == plain.fingerprint
        assert {device.index for device in spread.layer_devices} == {0, 1}


def test_tensors_of_two_devices_do_not_meet():
    """What the tests above rest on."""
    with second_devices():
        here, there = torch.ones(2, device=FIRST), torch.ones(2, device=SECOND)
        with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
            _ = here + there
        with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
            _ = torch.ones(2) + there
        assert (here + there.to(FIRST)).device == FIRST
        assert (there * torch.tensor(2.0))[torch.tensor([0])].tolist() == [2.0]


def test_weights_without_values_are_refused():
    with torch.device("meta"):
        linear = torch.nn.Linear(2, 2)
    with pytest.raises(ModelError, match=r"the weight bias is on the meta device.*Load the model's weights"):
        list(named_tensors(linear))
    assert execution_device(linear).type == "meta"


def test_a_model_is_listed_as_torch_lists_it() -> None:
    shared = nn.Linear(2, 2)
    model = nn.Sequential(
        shared, nn.Sequential(nn.ReLU(), shared), nn.ModuleList([nn.ModuleDict({"a": nn.ReLU()})])
    )
    model.register_module("absent", None)
    assert [(name, module) for module, name in named_modules(model).items()] == list(model.named_modules())
    found = modules_of(model)
    assert found[0] is model
    assert len(found) == len(set(found))
    assert set(found) == set(model.modules())
