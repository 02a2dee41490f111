"""Every method gives the same answers for every batch size, in the order given."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from interp.conformance.tiny import tiny
from interp.errors import MethodError, ModelError
from interp.methods import HGAI, PAI, AdaptVis, Method, Plain, ScalingVis, VGRefine, ViCrop
from interp.tracing import Mllm, wrap
from interp.tracing.passes import progress_bar
from tests.batch_sizes import WHOLE, samples

VGREFINE = VGRefine([(0, 1), (1, 2)], layers=[1])
METHODS: dict[str, Method] = {
    "plain": Plain(),
    "PAI": PAI(),
    "HGAI": HGAI(),
    "ScalingVis": ScalingVis(0.5),
    "AdaptVis": AdaptVis(threshold=0.01),
    "VGRefine": VGREFINE,
    "ViCrop": ViCrop(base=0.5),
    "ViCrop by gradients": ViCrop(map="pure_grad", base=0.5, images="crop"),
}


@functools.cache
def family(name: str) -> Mllm:
    return wrap(*tiny(name))


def assert_same(found: Any, wanted: Any) -> None:
    assert [one.text for one in found] == [one.text for one in wanted]
    assert len({id(one.cost) for one in found}) == 1
    for one, same in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.logits, same.logits, atol=1e-5, rtol=1e-5)
        assert one.details.keys() == same.details.keys()
        for name, value in one.details.items():
            expected = same.details[name]
            if isinstance(value, str | tuple | None):
                assert value == expected
            else:
                np.testing.assert_allclose(value, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.by_default(name=("llava",), size=(2,))
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_answers_are_the_same_for_every_size(name, size, method):
    """Of three samples, the first and the last with the same image."""
    mllm, answer, own = family(name), METHODS[method].answer, samples()[:3]
    whole = answer(mllm, own, max_new_tokens=2, batch_size=WHOLE)
    found = answer(mllm, own, max_new_tokens=2, batch_size=size)
    assert_same(found, whole)
    assert found[0].cost.forwards >= whole[0].cost.forwards


@pytest.mark.parametrize("method", [one for one in METHODS if "ViCrop" not in one])
def test_a_sample_of_two_images_answers_as_alone(method):
    """Beside a sample of one: their image tokens differ in number."""
    mllm, (one, other) = family("llava"), samples()[:2]
    pair = one.replace(images=[one.load(), other.load()], id="pair")
    together = METHODS[method].answer(mllm, [pair, other], max_new_tokens=2)
    for found, sample in zip(together, (pair, other), strict=True):
        (alone,) = METHODS[method].answer(mllm, sample, max_new_tokens=2)
        assert_same([found], [alone])
    assert len(mllm.encode([pair, other]).tokens[0].image) == 32


@pytest.mark.parametrize("method", METHODS)
def test_passes_are_as_large_as_asked_and_bars_hidden(method):
    mllm, seen = family("llava"), []

    def watch(_: Any, __: Any, named: dict[str, Any]) -> None:
        seen.append((len(named["input_ids"]), progress_bar._HIDDEN.get()))

    hook = mllm.hf.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        METHODS[method].answer(mllm, samples()[:2], max_new_tokens=1, batch_size=1, progress=False)
        alone, seen = seen, []
        METHODS[method].answer(mllm, samples()[:2], max_new_tokens=1)
    finally:
        hook.remove()
    assert set(alone) == {(1, True)}
    assert max(seen) == (2, False)


def test_maps_that_are_given_stay_with_their_samples():
    mllm = family("llava")
    own = samples()[:3]
    measured = VGREFINE.head_maps(mllm, own, batch_size=2)
    whole = VGREFINE.head_maps(mllm, own, batch_size=WHOLE)
    for one, same in zip(measured.maps, whole.maps, strict=True):
        np.testing.assert_allclose(one, same, rtol=1e-4)
    maps = [one.mean(axis=0) for one in measured.maps]
    again = VGREFINE.answer(mllm, own, maps=maps, max_new_tokens=1, batch_size=2)
    assert_same(again, VGREFINE.answer(mllm, own, max_new_tokens=1, batch_size=WHOLE))
    kept = [one.kept for one in VGREFINE.triage(mllm, own, batch_size=2)]
    for one, answer in zip(kept, again, strict=True):
        np.testing.assert_array_equal(one, answer.details["kept"])
    with pytest.raises(MethodError, match="got 2 maps for 3 samples"):
        VGREFINE.answer(mllm, own, maps=maps[:2], batch_size=2)


@pytest.mark.parametrize(("size", "batches"), [(1, 2), (WHOLE, 1)])
def test_the_cost_of_a_call_is_that_of_all_its_batches(size, batches):
    """Plain is one pass a batch; VGRefine one over the image and three over the text, of which two are the triage's."""
    mllm, own = family("llava"), samples()[:2]  # of two images
    each: dict[str, Any] = {"batch_size": size, "progress": False}
    plain = Plain().answer(mllm, own, max_new_tokens=1, **each)
    assert {one.cost.forwards for one in plain} == {batches}
    refined = VGREFINE.answer(mllm, own, max_new_tokens=1, **each)
    assert {one.cost.forwards for one in refined} == {4 * batches}
    assert VGREFINE.head_maps(mllm, own, **each).cost.forwards == 3 * batches


def test_sizes_that_are_none_are_refused(unchecked):
    for method in METHODS.values():
        with pytest.raises(ModelError, match="batch_size, the samples in one pass"):
            method.answer(family("llava"), samples(), batch_size=0)
