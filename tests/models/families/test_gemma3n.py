"""Gemma 3n: footprints against its processor and a tower of convolutions; four streams, by hooks on an eager model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.inputs.footprints import Footprints
from interp.models.families.gemma import Gemma3n
from interp.tracing import Mllm, PatchResidual, Residual, positions, wrap
from tests.models.footprint_checks import Bench, assert_counts, assert_covered, assert_local, grids_of_views

SAMPLES = [[(96, 96)], [(230, 90)], [(60, 190)], [(30, 22)], [(140, 84), (60, 90)]]


@pytest.mark.covering
@pytest.mark.parametrize("sizes", SAMPLES, ids=str)
def test_a_footprints_pixels_change_its_token(sizes):
    bench = Bench("gemma3n", Gemma3n(), sizes)
    found = assert_counts(bench)
    assert found.grid == (6, 6)
    assert_local(bench, found, every=5)
    assert_covered(bench, found, grids_of_views(16), tolerance=0.1)


@pytest.mark.slow
def test_a_transposed_layout_fails_the_impulses():
    bench = Bench("gemma3n", Gemma3n(), [(140, 84)])
    found = bench.footprints()
    boxes = found.boxes.reshape(6, 6, 4).swapaxes(0, 1).reshape(36, 4)
    with pytest.raises(AssertionError):
        assert_local(bench, Footprints(boxes, found.grid, found.views, found.image), every=5)


def test_a_wide_image_by_hand():
    """240×60 pixels squashed to a square of 6×6 tokens: cells of 40×10 pixels."""
    found = Bench("gemma3n", Gemma3n(), [(240, 60)]).footprints()
    np.testing.assert_allclose(
        found.boxes[[0, 7, 35]], [[0, 0, 40, 10], [40, 10, 80, 20], [200, 50, 240, 60]]
    )


def test_settings_that_are_not_understood():
    bench = Bench("gemma3n", Gemma3n(), [(96, 96)])
    (model, processor), inputs = bench.parts, bench.encode()

    def refused(message: str) -> None:
        with pytest.raises(ModelError, match=message):
            Gemma3n().footprints(bench.sizes, inputs, processor, model.config)

    processor.image_processor.size = {"height": 48, "width": 48}
    refused(r"into 1 view of 48×48, but pixel_values hold 1 view of 96×96")
    processor.image_seq_length = 16
    refused(r"vision_soft_tokens_per_image is 36, the processor's image_seq_length 16")
    processor.image_seq_length = model.config.vision_soft_tokens_per_image = 40
    refused("become a square grid of tokens; the config's vision_soft_tokens_per_image is 40")


def test_the_prompt():
    assert Gemma3n().fallback_prompt("Why?", 1, "Be brief.") == (
        "<start_of_turn>user\nBe brief.\n\n<image_soft_token>Why?<end_of_turn>\n<start_of_turn>model\n"
    )


IMAGES = [np.random.default_rng(i).integers(0, 255, (60, 80, 3)).astype(np.uint8) for i in range(2)]
SAMPLE, OTHER = (interp.Sample(image, "where is the nodule ?") for image in IMAGES)


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(*tiny("gemma3n"))


def streams(model: Any, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """What each layer gives, (stream, sample, row, hidden)."""
    found: list[torch.Tensor] = []
    hooks = [
        one.register_forward_hook(lambda _, __, output: found.append(output))
        for one in model.model.language_model.layers
    ]
    with torch.no_grad():
        model(**{name: value for name, value in inputs.items() if name != "position_ids"}, use_cache=False)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("executor", ["tap", "source"])
def test_the_residual_is_the_four_streams_side_by_side(mllm, executor):
    expected = streams(tiny("gemma3n", "eager")[0], mllm.encode(SAMPLE).inputs)
    found = mllm.using(executor).trace(SAMPLE, reads=[Residual("all", "all")])[0].residual
    assert found.sizes["hidden"] == 4 * 64
    for layer, four in enumerate(expected):
        assert four.shape[0] == 4
        for number in range(4):
            mine = found.values[layer][:, 64 * number : 64 * number + 64]
            np.testing.assert_allclose(mine, four[number, 0], atol=2e-5)
    assert np.abs(found.values[2][:, :64] - found.values[2][:, 64:128]).max() > 0.1


@pytest.mark.parametrize("executor", ["tap", "source"])
def test_a_patch_puts_all_four_streams_in(mllm, executor):
    """Against a hook on the first layer of an eager model that writes into the stack itself; later keys show it."""
    eager, batch = tiny("gemma3n", "eager")[0], mllm.encode(SAMPLE)
    token = int(batch.tokens[0].image[9])
    theirs = streams(eager, mllm.encode(OTHER).inputs)[0][:, 0, token]

    def write(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[:, 0, token] = theirs
        return changed

    hook = eager.model.language_model.layers[0].register_forward_hook(write)
    with torch.no_grad():
        inputs = {name: value for name, value in batch.inputs.items() if name != "position_ids"}
        expected = eager(**inputs, use_cache=False).logits[0, -1]
    hook.remove()
    edit = PatchResidual([0], positions([token]), theirs.reshape(1, 1, -1).numpy())
    found = mllm.using(executor).trace(batch, edits=[edit]).logits.values[0]
    np.testing.assert_allclose(found, expected, atol=5e-5)
    assert np.abs(found - mllm.trace(batch).logits.values[0]).max() > 1e-3


def test_a_gradient_of_embeddings_is_that_of_all_streams(mllm):
    """Against autograd in an eager model, to the stack that enters its first layer."""
    batch = mllm.encode(SAMPLE)
    target = interp.Target("yes")
    found = interp.indicators.InputGradient("embeddings")(mllm, batch, target=target)[0]
    eager = tiny("gemma3n", "eager")[0]
    inputs = {name: value for name, value in batch.inputs.items() if name != "position_ids"}
    answer = mllm.processor.tokenizer("yes", add_special_tokens=False)["input_ids"][-1]
    leaf: list[torch.Tensor] = []

    def enter(_: Any, given: Any) -> Any:
        leaf.append(given[0].detach().requires_grad_(True))
        return (leaf[0], *given[1:])

    hook = eager.model.language_model.layers[0].register_forward_pre_hook(enter)
    value = eager(**inputs, use_cache=False).logits[0, -1].log_softmax(-1)[answer]
    hook.remove()
    (gradient,) = torch.autograd.grad(value, leaf)
    norms = gradient[:, 0, batch.tokens[0].image.copy()].permute(1, 0, 2).flatten(1).norm(dim=1)
    np.testing.assert_allclose(found.values.ravel(), norms, rtol=2e-3, atol=1e-5)
