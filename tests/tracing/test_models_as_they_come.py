"""Models as people have them give the plain model's numbers, or are refused and left as they were."""

from __future__ import annotations

from functools import partial
from typing import Any

import accelerate
import numpy as np
import pytest
import torch

import tests.tiny as tiny
from interp.errors import ModelError
from interp.tracing import Rows, Site, wrap
from interp.tracing.copies import randomised
from tests.tracing.model_numbers import INDICATORS, READS, alike, numbers
from tests.tracing.module_state import state_of


@pytest.fixture(scope="module")
def expected(mllm) -> dict[str, np.ndarray]:
    return numbers(mllm)


def compiled_layers(hf: Any) -> Any:
    """Every decoder layer replaced by what torch.compile returns."""
    layers = hf.model.language_model.layers
    for i, layer in enumerate(layers):
        layers[i] = torch.compile(layer, backend="eager")
    return hf


def compiled_in_place(hf: Any) -> Any:
    hf.compile(backend="eager")
    hf.model.language_model.compile(backend="eager")
    return hf


def checkpointed(hf: Any) -> Any:
    hf.gradient_checkpointing_enable()
    return hf.train()


def frozen(hf: Any) -> Any:
    return hf.requires_grad_(False)


def offloaded(hf: Any) -> Any:
    accelerate.cpu_offload(hf, execution_device="cpu")
    return hf


def dispatched(hf: Any) -> Any:
    return accelerate.dispatch_model(hf, {"": "cpu"}, force_hooks=True)


KINDS = {
    "torch.compile": partial(torch.compile, backend="eager"),
    "compiled layers": compiled_layers,
    "compiled in place": compiled_in_place,
    "data parallel": torch.nn.DataParallel,
    "offloaded": offloaded,
    "dispatched": dispatched,
    "checkpointed": checkpointed,
    "frozen": frozen,
}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_the_plain_models(kind, expected, batch):
    hf = tiny.llava()
    with torch.no_grad():
        hf(**batch.inputs)  # transformers marks its modules on the first pass
    given = KINDS[kind](hf)
    before = state_of(hf)
    mllm = wrap(given, tiny.processor())
    alike(numbers(mllm), expected)
    assert mllm.device.type == "cpu"
    assert mllm.unwrap() is given
    moved = {"parameters"} if kind == "offloaded" else set()  # accelerate makes new ones in every pass
    assert {name: state for name, state in state_of(hf).items() if name not in moved} == {
        name: state for name, state in before.items() if name not in moved
    }


def test_disk_offload(tmp_path, expected):
    hf = tiny.llava()
    accelerate.disk_offload(hf, str(tmp_path), execution_device=torch.device("cpu"))
    mllm = wrap(hf, tiny.processor())
    alike(numbers(mllm), expected)


def test_offloaded_weights_are_part_of_the_identity(mllm):
    hf = offloaded(tiny.llava())
    own = wrap(hf, tiny.processor())
    assert own.identity["weights"] == mllm.identity["weights"]
    hf.lm_head._hf_hook.weights_map["weight"][0, 0] += 1
    assert own.identity["weights"] != mllm.identity["weights"]
    for what in (lambda: randomised(own), own.to_lens):
        with pytest.raises(ModelError, match="needs all weights in memory, but some are offloaded"):
            what()


def test_in_training_mode_nothing_is_dropped_out(expected):
    hf = tiny.llava()
    for layer in hf.model.language_model.layers:
        layer.self_attn.attention_dropout = 0.5
    mllm = wrap(hf, tiny.processor())
    hf.train()
    alike(numbers(mllm), expected)
    batch = mllm.encode(tiny.samples()[0])
    with torch.no_grad(), mllm.tap(), mllm.nn.trace(**batch.inputs):
        row = mllm.layers[0].self_attn.pattern.output.save()
    image = row[0, :, 0][:, batch.tokens[0].image]
    np.testing.assert_allclose(image, expected["rows 0"][0, 0, :, 0], atol=1e-6)
    assert all(module.training for name, module in hf.named_modules() if "pattern" not in name)


@pytest.mark.parametrize("executor", ["tap", "source"])
def test_under_autocast_only_the_models_own_work_is_cast(executor):
    mllm = wrap(tiny.llava(), tiny.processor()).using(executor)
    batch = mllm.encode(tiny.samples()[:1])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = mllm.hf(**batch.inputs).logits[0, -1].float()
        trace = mllm.trace(batch, reads=READS)
        maps = [indicator(mllm, batch)[0] for indicator in INDICATORS]
    np.testing.assert_array_equal(trace.logits[0], logits)
    rows = np.asarray(mllm.trace(batch, reads=[Rows(Site(queries="last", keys="all"))])[0].rows)
    assert abs(rows.sum(-1) - 1).max() < 1e-6
    for found, indicator in zip(maps, INDICATORS, strict=True):
        plain = np.asarray(indicator(mllm, batch)[0])
        assert found.dtype == np.float32
        assert 0 < abs(np.asarray(found) - plain).max() < 0.1 * abs(plain).max()


def test_the_defaults_of_torch_do_not_count(expected):
    torch.set_default_dtype(torch.float64)
    try:
        mllm = wrap(tiny.llava().float(), tiny.processor())
        alike(numbers(mllm), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_half_precision_on_a_cpu(expected):
    found = numbers(wrap(tiny.llava().half(), tiny.processor()))
    for name in ("logits", "rows 0", "after"):
        np.testing.assert_allclose(found[name], expected[name], atol=0.05, err_msg=name)


class Packed(torch.nn.Linear):
    """A layer whose weight is stored in 8 bits, with a scale."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False)
        scale = linear.weight.detach().abs().amax() / 127
        del self.weight
        self.register_buffer("weight", (linear.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight.to(x.dtype) * self.scale)


def test_quantised_layers_are_run_and_known(expected):
    hf = tiny.llava()
    for layer in hf.model.language_model.layers:
        layer.mlp.up_proj = Packed(layer.mlp.up_proj)
    hf.is_quantized = True
    mllm = wrap(hf, tiny.processor())
    np.testing.assert_allclose(numbers(mllm)["rows 0"], expected["rows 0"], atol=0.05)
    before = mllm.identity
    hf.model.language_model.layers[1].mlp.up_proj.weight[0, 0] += 1
    assert mllm.identity["weights"] != before["weights"]
    with pytest.raises(ModelError, match="shuffling needs weights that are not quantised"):
        randomised(mllm)


class FSDPModule:
    """As torch marks the classes of sharded models."""


def sharded() -> Any:
    hf = tiny.llava()
    hf.__class__ = type("FSDPLlava", (type(hf), FSDPModule), {})
    return hf


def without_values() -> Any:
    return tiny.llava().to("meta")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (sharded, "the weights of this FSDPLlava are split among processes.*wrap that"),
        (without_values, "is on the meta device: it has a shape but no values.*before you wrap it"),
    ],
)
def test_what_cannot_run_is_refused_and_left_as_it_was(make, words):
    hf = make()
    before = state_of(hf)
    with pytest.raises(ModelError, match=words):
        wrap(hf, tiny.processor())
    assert state_of(hf) == before


def test_a_wrapped_model_is_refused_in_any_wrapper():
    hf = tiny.llava()
    wrap(hf, tiny.processor())
    for given in (hf, torch.compile(hf, backend="eager"), torch.nn.DataParallel(hf)):
        with pytest.raises(ModelError, match="wrapped already"):
            wrap(given, tiny.processor())
