"""Activation patching against PatchResidual edits of whole traces."""

from __future__ import annotations

import numpy as np
import pytest

import tests.tiny as small
from interp.errors import MapError
from interp.indicators import ActivationPatching
from interp.inputs.prompt import Target, diff
from interp.inputs.sample import Sample
from interp.tracing import PatchResidual, Residual, positions
from tests.indicators.family_models import FAMILIES, OTHER, SAMPLE, family

TARGET = Target(diff("yes", "no"))


@pytest.mark.parametrize("name", [*FAMILIES, "gemma3n"])  # its four streams are patched together
def test_it_equals_patches_of_the_residual_one_trace_each(name: str) -> None:
    mllm = family(name)
    found = ActivationPatching([(SAMPLE, OTHER)], batch=5)(mllm, SAMPLE, target=TARGET)[0]
    theirs = mllm.trace(OTHER, reads=[Residual("all", "image")])[0].residual.values
    plain, partner = (mllm.score(one, TARGET).values[0] for one in (SAMPLE, OTHER))
    image = mllm.encode([SAMPLE]).tokens[0].image
    for layer in range(mllm.n_layers):
        for j in (0, len(image) - 2):
            edit = PatchResidual([layer], positions([int(image[j])]), theirs[[layer]][:, [j]])
            patched = mllm.score(SAMPLE, TARGET, edits=[edit]).values[0]
            expected = np.sign(partner - plain) * (patched - plain)
            assert found.values[layer, j] == pytest.approx(expected, abs=1e-5)
    assert found.attrs["partner"] == pytest.approx(partner, abs=1e-5)
    assert np.ptp(found.values[0]) > 1e-3
    assert not found.values[-1].any()


def test_a_sample_patched_with_itself_stays_as_it_is() -> None:
    for name in ("llava", "gemma3"):
        found = ActivationPatching({SAMPLE.id: SAMPLE})(family(name), SAMPLE, target=Target("left lung"))[0]
        np.testing.assert_allclose(found, 0.0, atol=1e-6)


def test_tokens_of_a_block_are_patched_together() -> None:
    mllm = family("llava")
    found = ActivationPatching({SAMPLE.id: OTHER}, layers=[0], block=4)(mllm, SAMPLE, target=TARGET)[0]
    theirs = mllm.trace(OTHER, reads=[Residual([0], "image")])[0].residual.values
    patched = mllm.score(SAMPLE, TARGET, edits=[PatchResidual([0], "image", theirs)]).values[0]
    expected = np.sign(found.attrs["partner"] - found.attrs["plain"]) * (patched - found.attrs["plain"])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert abs(expected) > 1e-3
    np.testing.assert_array_equal(found.layer, [0])


def test_layers_are_patched_in_the_order_given() -> None:
    mllm, partners = family("llava"), {SAMPLE.id: OTHER}
    turned, plain = (
        ActivationPatching(partners, layers=layers, block=2)(mllm, SAMPLE, target=TARGET)[0]
        for layers in ([1, 0], [0, 1])
    )
    assert turned.layer.values.tolist() == [1, 0]
    np.testing.assert_allclose(turned.sel(layer=[0, 1]), plain, atol=1e-6)
    assert np.abs(plain[0] - plain[1]).max() > 1e-3


def test_passes_start_behind_the_patched_layer_and_token() -> None:
    mllm, calls = family("llava"), []
    hooks = [
        layer.mlp.register_forward_hook(lambda *_, i=i: calls.append(i))
        for i, layer in enumerate(mllm.adapter.layers(mllm.hf))
    ]
    maps = ActivationPatching({SAMPLE.id: OTHER}, layers=[1, 2], block=2)(mllm, SAMPLE, target=TARGET)
    for hook in hooks:
        hook.remove()
    assert calls == [0, 1, 2, 0, 1, 2, 2, 2]  # the sample, its partner, the upper blocks, the lower
    two = [mllm.encode([one]).tokens[0].length for one in (SAMPLE, OTHER)]
    image = maps.tokens[0].image
    assert maps.cost.tokens == sum(two) + 2 * (two[0] - image[0]) + 2 * (two[0] - image[8])


def test_it_describes_itself_and_refuses_what_makes_no_sense(unchecked: None) -> None:
    indicator = ActivationPatching({"b": SAMPLE, "a": OTHER}, [1])
    assert list(indicator.to_dict()["partners"].items()) == [
        ("a", OTHER.fingerprint),
        ("b", SAMPLE.fingerprint),
    ]
    assert indicator == ActivationPatching([("a", OTHER), ("b", SAMPLE)], (1,), batch=2)
    assert isinstance(hash(indicator), int)
    for wrong in ({}, [SAMPLE], {"a": "b"}):
        with pytest.raises(MapError, match="partners"):
            ActivationPatching(wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(MapError, match="block of ActivationPatching is a whole number of at least 1; got 0"):
        ActivationPatching({"a": OTHER}, block=0)
    mllm, wide = family("qwen2_5_vl"), Sample(small.picture(400, 80, seed=7), "is it red?")
    with pytest.raises(MapError, match=f"sample {SAMPLE.id} has none among the 1 given"):
        ActivationPatching({"a": OTHER})(mllm, SAMPLE)
    with pytest.raises(MapError, match=r"image tokens and its partner \d+; .* an image of the same size"):
        ActivationPatching({SAMPLE.id: wide})(mllm, SAMPLE)


def test_partners_are_found_by_the_samples_id() -> None:
    named = SAMPLE.replace(id="scan 3")
    assert ActivationPatching([(named, OTHER)]) == ActivationPatching({"scan 3": OTHER})
    assert ActivationPatching({"a": OTHER}) != ActivationPatching({"a": SAMPLE})
    assert ActivationPatching({"a": OTHER}).to_dict() == {
        "indicator": "activation patching",
        "partners": {"a": OTHER.fingerprint},
        "layers": "all",
        "block": 1,
    }


@pytest.mark.parametrize("wrong", ["ab", 3, [(SAMPLE, OTHER, SAMPLE)], [[SAMPLE, OTHER]], [("a", "b")]])
def test_what_are_no_partners_is_refused(wrong: object, unchecked: None) -> None:
    with pytest.raises(MapError, match=r"partners are pairs \(sample, partner\), or partners by sample id"):
        ActivationPatching(wrong)  # type: ignore[arg-type]
