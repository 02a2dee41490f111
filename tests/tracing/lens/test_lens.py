"""TransformerLens beside a trace, on every family it knows; the first model untouched; nothing installed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import interp
import tests.tiny as tiny_llava
import tests.trained_like as trained_like
from interp.conformance.reference import reference
from interp.conformance.tiny import families, recipe, tiny
from interp.errors import ModelError, SiteError
from interp.models.adapter import built_in
from interp.tracing import Mllm, Rows, Site, wrap
from interp.tracing.lens import HOOKS, HYBRID, SUPPORTED, UNEVEN, UNSUPPORTED, Lens
from interp.tracing.lens.bridge import build_bridge
from tests.tiny import uneven_samples as samples
from tests.tracing.lens.lenses import BY_DEFAULT, lens_of

EVERY = Site(queries="all", keys="all")


@pytest.fixture(scope="module")
def llava() -> Lens:
    return lens_of("llava")


@pytest.mark.by_default(family=BY_DEFAULT)
@pytest.mark.parametrize("family", SUPPORTED)
def test_patterns_and_logits_are_those_of_a_trace(family):
    lens = lens_of(family)
    logits, cache = lens.run_with_cache(samples(), hooks=list(HOOKS))
    trace = lens.mllm.trace(samples(), reads=[Rows(EVERY), interp.Residual(positions="all")])
    assert_allclose(logits, trace.logits, atol=1e-5)
    assert len({one.tokens.length for one in cache}) > 1  # so some are padded
    for i in range(len(cache)):
        rows, stream = trace[i].reads
        patterns = cache[i]["attn.hook_pattern"]
        assert patterns.dims == ("layer", "head", "query", "key")
        assert (patterns.key == np.arange(trace.tokens[i].length)).all()
        assert_allclose(patterns, rows, atol=1e-5)
        assert_allclose(cache[i]["hook_resid_post"], stream, atol=2e-5)
    alone = lens.run_with_cache(samples()[0], hooks=list(HOOKS))
    assert_allclose(alone[0][0], logits[0], atol=1e-5)
    for hook in HOOKS:
        assert_allclose(alone[1][0][hook], cache[0][hook], atol=2e-5, err_msg=hook)


def test_the_tables_name_every_family_and_are_transformer_lenss():
    from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES

    named = [*SUPPORTED, *UNSUPPORTED, *HYBRID, *UNEVEN]
    assert len(set(named)) == len(named)
    assert sorted(set(named) & {adapter.name for adapter in built_in()}) == sorted(named)
    assert sorted(set(named) & set(families())) == families(), "the others this transformers lacks"
    for family, kind in {**SUPPORTED, **UNSUPPORTED}.items():
        if family not in families():
            continue
        made_of = [one.__name__ for one in recipe(family).model.__mro__]
        assert kind in made_of
        known = [one for one in made_of if one in SUPPORTED_ARCHITECTURES]
        assert known[:1] == [kind] * (family in SUPPORTED)


@pytest.mark.by_default(family=["internvl", "paligemma"])
@pytest.mark.parametrize("family", UNSUPPORTED)
def test_families_without_an_adapter_are_refused_by_name(family):
    mllm = wrap(*tiny(family), family)
    with pytest.raises(
        ModelError, match=rf"no adapter for {UNSUPPORTED[family]} \(family {family}\).*gemma3, "
    ):
        mllm.to_lens()


@pytest.mark.by_default(family=["gemma4"])
@pytest.mark.parametrize("family", UNEVEN)
def test_layers_that_cannot_be_stacked_are_refused(family):
    with pytest.raises(ModelError, match=rf"layers, {UNEVEN[family]}\. Use mllm\.trace or mllm\.tap"):
        wrap(*tiny(family)).to_lens()


@pytest.mark.by_default(family=["lfm2_vl", "qwen3_5"])
@pytest.mark.parametrize("family", HYBRID)
def test_hybrid_families_are_refused_by_their_layers(family):
    with pytest.raises(
        ModelError, match=r"\[0, .*\] of this \w+ are gated DeltaNets or conv.*Use mllm\.trace"
    ):
        wrap(*tiny(family)).to_lens()


def test_a_subclass_with_another_tower_goes_by_its_base():
    from interp.models.modeling import LlavaS2Config, LlavaS2ForConditionalGeneration

    parts = tiny_llava.config()
    two_sizes = {
        "vision_feature_layer": [0, 1],
        "vision_feature_select_strategy": "full",
        "scales": [56, 112],
    }
    config = LlavaS2Config(
        vision_config=parts.vision_config, text_config=parts.text_config, image_token_id=5, **two_sizes
    )
    mllm = wrap(
        LlavaS2ForConditionalGeneration(config).eval(), tiny_llava.processor(side=112, patch=28), "llava"
    )
    found = mllm.to_lens().run_with_cache(tiny_llava.samples())[0]
    assert_allclose(found, mllm.trace(tiny_llava.samples()).logits, atol=1e-5)


@pytest.mark.by_default(tower=["dinov2", "siglip", "deep"])
@pytest.mark.parametrize("tower", [*trained_like.TOWERS, "grouped", "deep"])
def test_a_llava_of_any_tower_has_a_lens(tower):
    """TransformerLens' own map of a LLaVA knows the modules of CLIP and SigLIP alone."""
    made = {"grouped": trained_like.grouped, "deep": trained_like.deep}
    mllm = trained_like.wrapped(made[tower]() if tower in made else trained_like.llava_with(tower))
    lens = mllm.to_lens()
    logits, cache = lens.run_with_cache(samples())
    trace = mllm.trace(samples(), reads=[Rows(EVERY)])
    assert_allclose(logits, trace.logits, atol=1e-4 if tower == "deep" else 1e-5)
    eager = reference(mllm.hf, mllm.adapter, "eager")
    for i, sample in enumerate(samples()):
        found, weights = eager.reading(mllm.encode(sample).inputs, lambda weights: weights[0])
        assert_allclose(logits[i], found[0], atol=1e-4 if tower == "deep" else 1e-5)
        assert_allclose(cache[i]["attn.hook_pattern"], torch.stack(weights), atol=1e-5)
    assert hasattr(lens.bridge, "vision_encoder") == (tower in ("siglip", "deep"))


def test_a_pixtral_tower_is_left_out_of_the_bridge():
    import transformers

    tower = transformers.PixtralVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
    )
    config = transformers.LlavaConfig(vision_config=tower, text_config=tiny_llava.config().text_config)
    hf = transformers.LlavaForConditionalGeneration(config).eval()
    bridge = build_bridge(hf, "llava")
    assert not hasattr(bridge, "vision_encoder")
    ids = torch.tensor([[1, 7, 9, 12]])
    assert_allclose(bridge(ids).detach(), hf(ids).logits.detach(), atol=1e-5)


def state_of(hf: Any) -> dict[str, Any]:
    """Whatever making or using a lens might change."""
    return {
        "modules": [(name, id(module), type(module)) for name, module in hf.named_modules()],
        "attributes": {name: sorted(module.__dict__) for name, module in hf.named_modules()},
        "hooks": {n: [len(m._forward_hooks), len(m._forward_pre_hooks)] for n, m in hf.named_modules()},
        "forwards": {n: id(m.__dict__.get("forward")) for n, m in hf.named_modules()},
        "parameters": {n: (id(p), p.data_ptr(), p.requires_grad, p.grad) for n, p in hf.named_parameters()},
        "buffers": {n: (id(b), b.data_ptr()) for n, b in hf.named_buffers()},
        "configs": {n: id(getattr(m, "config", None)) for n, m in hf.named_modules()},
        "config": hf.config.to_dict(),
        "attention": [m.config._attn_implementation for m in hf.modules() if hasattr(m, "config")],
        "training": [m.training for m in hf.modules()],
    }


@pytest.mark.parametrize("family", ["llava", "gemma3", "qwen3_vl"])
def test_a_lens_leaves_its_model_as_it_was(family):
    mllm = wrap(*tiny(family), family)
    reads = [Rows(EVERY)]
    before = mllm.trace(samples(), reads=reads, generate=2)
    state, weights = state_of(mllm.hf), {k: v.clone() for k, v in mllm.hf.state_dict().items()}
    lens = mllm.to_lens()
    second = dict(lens.bridge.original_model.named_parameters())
    pointers = {p.data_ptr() for p in mllm.hf.parameters()}
    assert {p.data_ptr() for p in second.values()} == pointers  # no weight was copied
    batch = mllm.encode(samples()[0])
    inputs = {**batch.inputs, "position_ids": batch.positions}
    lens.bridge(inputs.pop("input_ids"), **inputs).sum().backward()
    assert any(p.grad is not None for p in second.values())
    lens.bridge.blocks[0].hook_out.add_hook(lambda tensor, hook: tensor * 0)
    lens.bridge.enable_compatibility_mode()
    assert state_of(mllm.hf) == state
    assert all(torch.equal(value, weights[name]) for name, value in mllm.hf.state_dict().items())
    after = mllm.trace(samples(), reads=reads, generate=2)
    assert (after.logits == before.logits).all()
    assert after.answers == before.answers
    for one, other in zip(before, after, strict=True):
        assert one.rows.equals(other.rows)


def test_a_lens_and_its_model_can_be_used_in_turn(llava):
    mllm = wrap(*tiny("llava"), "llava")
    lens = mllm.to_lens()
    with mllm.tap(), mllm.nn.trace(**mllm.encode(samples()).inputs):
        pass
    assert_allclose(lens.run_with_cache(samples())[0], llava.run_with_cache(samples())[0], atol=1e-6)
    mllm.unwrap()
    for use in (lambda: lens.run_with_cache(samples()), mllm.to_lens):
        with pytest.raises(ModelError, match="was unwrapped; wrap the model again"):
            use()


OFFLINE = """
import os, socket, subprocess, sys
def refuse(*args, **options):
    raise SystemExit(f"started or called {args!r}")
import interp.tracing.lens
assert "transformer_lens" not in sys.modules, "imported before it was asked for"
from interp.conformance.tiny import tiny
from interp.tracing import wrap
mllm = wrap(*tiny("qwen2_5_vl"), "qwen2_5_vl")  # its adapter asks for torchvision
subprocess.Popen.__init__ = os.system = os.fork = os.posix_spawn = refuse
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
sys.modules["torchvision"] = sys.modules["pip"] = None
mllm.to_lens()
print("made")
"""


@pytest.mark.ci
def test_the_lens_starts_no_process_and_needs_no_network():
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "made", done.stderr[-2000:]
    assert done.returncode == 0


def test_without_the_extra_the_error_says_what_to_install(llava, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformer_lens.model_bridge", None)
    with pytest.raises(ModelError, match=r'needs TransformerLens .*Install it: pip install "interp\[lens\]"'):
        llava.mllm.to_lens()


def test_a_model_changed_since_it_was_built_is_refused():
    mllm = wrap(*tiny("llava"), "llava")
    mllm.hf.get_decoder().layers[0].mlp.lora = torch.nn.Linear(2, 2)
    with pytest.raises(ModelError, match=r"not built as its config says: .*layers.0.mlp.lora.*Merge them"):
        mllm.to_lens()


def test_a_model_on_several_devices_is_refused(llava, monkeypatch):
    monkeypatch.setattr(llava.mllm.hf, "hf_device_map", {"a": 0, "b": 1}, raising=False)
    with pytest.raises(ModelError, match="takes a model on one device; this one is on 2"):
        llava.mllm.to_lens()


def test_what_a_run_keeps_and_refuses(llava, unchecked):
    batch = llava.mllm.encode(samples())
    _, cache = llava.run_with_cache(batch, hooks=["hook_resid_mid"], layers=[2, 0])
    assert cache[-1]["hook_resid_mid"].layer.values.tolist() == [2, 0]
    assert set(cache.activations) == {"blocks.0.hook_resid_mid", "blocks.2.hook_resid_mid"}
    assert (len(cache), list(cache[0])) == (3, ["hook_resid_mid"])
    _, every = llava.run_with_cache(batch, hooks=["hook_resid_mid"])
    assert every[1]["hook_resid_mid"].sel(layer=[2, 0]).equals(cache[1]["hook_resid_mid"])
    with pytest.raises(SiteError, match=r"keeps hook_resid_mid; got 'attn.hook_pattern'. Ask for it"):
        cache[0]["attn.hook_pattern"]
    with pytest.raises(SiteError, match=r"hooks of a block, of attn.hook_pattern, .*got \['hook_patern'\]"):
        llava.run_with_cache(batch, hooks=["hook_patern"])
    with pytest.raises(SiteError, match="layer"):
        llava.run_with_cache(batch, layers=[9])
    with pytest.raises(ModelError, match="runs whole prompts; got a prefix"):
        llava.run_with_cache(llava.mllm.prefix(samples()))


def test_a_batch_is_encoded_again_for_another_prompt(llava):
    batch = llava.mllm.encode(samples())
    found = llava.run_with_cache(batch, interp.GENERIC_PROMPT)[0]
    assert_allclose(found, llava.mllm.trace(samples(), prompt=interp.GENERIC_PROMPT).logits, atol=1e-5)


def test_it_says_what_it_is(llava):
    assert repr(llava) == "Lens(LlavaForConditionalGeneration, 3 layers, 4 heads)"
    assert isinstance(llava.mllm, Mllm)
