"""No study, indicator, removal or method has the processor make inputs of the same image twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

import interp
from interp import indicators, methods
from interp.conformance.tiny import tiny

QUESTIONS = ("is it red?", "is it blue?", "where is it?", "is it a box?")
HEADS = [(0, 1), (1, 2)]


def samples() -> list[interp.Sample]:
    """Four samples of an image each."""
    draw = np.random.default_rng(0)
    return [
        interp.Sample(draw.integers(0, 255, (56, 56, 3), dtype=np.uint8), question, [(8, 8, 40, 40)], "yes")
        for question in QUESTIONS
    ]


@contextmanager
def counted(processor: Any) -> Iterator[Counter[bytes]]:
    """How often the image processor was given each image during the block."""
    found: Counter[bytes] = Counter()
    kind = type(processor.image_processor)
    original = kind.__call__

    def call(self: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        flat = list(images)
        while flat and isinstance(flat[0], list | tuple):
            flat = [image for group in flat for image in group]
        found.update(np.asarray(image).tobytes() for image in flat)
        return original(self, images, *args, **kwargs)

    with patch.object(kind, "__call__", call):
        yield found


def fresh(family: str = "llava") -> interp.Mllm:
    """A model that has seen no image."""
    return interp.wrap(*tiny(family))


INDICATORS: dict[str, Callable[[], Any]] = {
    "attention": indicators.Attention,
    "relative": lambda: indicators.Attention(relative_to=interp.GENERIC_PROMPT),
    "gradient": indicators.AttentionGradient,
    "attribution": indicators.AttributionPatching,
    "input gradient": indicators.InputGradient,
    "knockout": indicators.TokenKnockout,
    "embedding": indicators.EmbeddingReplacement,
    "occlusion": lambda: indicators.Occlusion(window=1),
    "random masks": lambda: indicators.RandomMasks(n=40),
    "value weighted": indicators.ValueWeightedAttention,
}
METHODS: dict[str, Callable[[], Any]] = {
    "plain": methods.Plain,
    "vgrefine": lambda: methods.VGRefine(heads=HEADS, layers=[1]),
    "pai": lambda: methods.PAI(layers=[0, 1]),
    "hgai": lambda: methods.HGAI(layers=[0, 1]),
    "adaptvis": methods.AdaptVis,
    "scalingvis": lambda: methods.ScalingVis(0.5),
}
STUDIES: dict[str, Callable[..., Any]] = {
    "layer sweep": interp.LayerSweep,
    "head ranking": interp.HeadRanking,
    "knockout sweep": interp.KnockoutSweep,
    "refinement": lambda **given: interp.Refinement(
        **given, method=methods.VGRefine(heads=HEADS, layers=[1]), read_layer=1, max_new_tokens=2
    ),
}


def assert_once(found: Counter[bytes]) -> None:
    """Every one of the samples' images was processed, and no image twice."""
    assert {np.asarray(sample.image).tobytes() for sample in samples()} <= set(found)
    assert set(found.values()) == {1}


@pytest.mark.parametrize("name", INDICATORS)
def test_an_indicator_processes_each_image_once(name: str) -> None:
    mllm = fresh()
    with counted(mllm.processor) as found:
        INDICATORS[name]()(mllm, samples())
    assert_once(found)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_processes_each_image_once(name: str) -> None:
    mllm = fresh()
    with counted(mllm.processor) as found:
        METHODS[name]().answer(mllm, samples(), max_new_tokens=2)
    assert_once(found)


OTHER_WORDS = interp.Prompt("Look: {question} Say yes or no.")


@pytest.mark.parametrize("name", [*INDICATORS, "rollout", "SmoothGrad", "centre prior"])
def test_an_indicator_keeps_the_prompt_of_a_batch(name: str) -> None:
    more = {"rollout": indicators.Rollout, "SmoothGrad": lambda: indicators.SmoothGrad(n=2)}
    more["centre prior"] = indicators.CentrePrior
    mllm, indicator = fresh(), (INDICATORS | more)[name]()
    wanted = indicator(mllm, samples()[:2], prompt=OTHER_WORDS)
    with counted(mllm.processor) as found:
        maps = indicator(mllm, mllm.encode(samples()[:2], OTHER_WORDS))
    assert not found
    assert [one.length for one in maps.tokens] == [one.length for one in wanted.tokens]
    for one, other in zip(maps, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("name", [*METHODS, "vicrop"])
def test_a_method_keeps_the_prompt_of_a_batch(name: str) -> None:
    more = {"vicrop": lambda: methods.ViCrop(images="crop", layer=1, base=20)}
    mllm, method = fresh(), (METHODS | more)[name]()
    wanted = method.answer(mllm, samples()[:2], prompt=OTHER_WORDS, max_new_tokens=2)
    answers = method.answer(mllm, mllm.encode(samples()[:2], OTHER_WORDS), max_new_tokens=2)
    for one, other in zip(answers, wanted, strict=True):
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-5)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_processes_each_image_once(name: str, tmp_path: Any) -> None:
    mllm = fresh()
    with counted(mllm.processor) as found:
        STUDIES[name](model=mllm, data=interp.data.Samples(samples()), batch=2).run(tmp_path, progress=False)
    assert_once(found)


@pytest.mark.parametrize("family", ["llava", "paligemma", "qwen2_vl"])
def test_questions_and_prompts_share_an_image(family: str) -> None:
    mllm = fresh(family)
    image = samples()[0].image
    asked = [interp.Sample(image, question) for question in QUESTIONS]
    with counted(mllm.processor) as found:
        mllm.trace(mllm.encode(asked), prompt=interp.GENERIC_PROMPT)
    assert sum(found.values()) == 1


def test_other_settings_process_again() -> None:
    mllm = fresh()
    before = mllm.encode(samples()[:1]).inputs["pixel_values"]
    mllm.processor.image_processor.image_mean = [0.0, 0.0, 0.0]
    after = mllm.encode(samples()[:1]).inputs["pixel_values"]
    assert not np.allclose(before, after)


def test_images_are_let_go_of_beyond_the_budget() -> None:
    mllm = fresh()
    size = mllm.encode(samples()[:1]).inputs["pixel_values"].nbytes
    mllm.installation.processed.budget = 2 * size
    with counted(mllm.processor) as found:
        for sample in samples()[1:]:
            mllm.encode(sample)
        mllm.encode(samples()[2:])
        mllm.encode(samples()[1])
    assert sorted(found.values()) == [1, 1, 2]
