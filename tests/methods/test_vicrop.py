"""ViCrop's answers against the model given the crops by hand, where crops lie, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import interp
import tests.tiny as small
from interp.conformance.tiny import tiny
from interp.errors import InterpError, MethodError, ModelError, SampleError, SiteError
from interp.indicators import Attention, Maps
from interp.inputs.prompt import GENERIC_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.methods import Crop, Method, ViCrop, vicrop
from interp.methods.vicrop import default_base, default_layer, select
from interp.methods.vicrop_maps import grad_att, pure_grad
from interp.models.families.llava import Llava
from interp.tracing import Cost, Mllm, wrap

SMALL = 30
"""A base that leaves windows room in 80×64 pixels."""


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(small.llava(), small.processor())


def rough(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def three() -> list[Sample]:
    return [sample.replace(image=rough(80, 64, i)) for i, sample in enumerate(small.samples())]


@pytest.mark.parametrize("kind", ["rel_att", "grad_att", "pure_grad"])
def test_it_answers_from_the_image_and_its_crop(mllm, kind):
    """The eager model, given both pictures cut by hand, one sample at a time, without padding."""
    samples, method = three(), ViCrop(kind, base=SMALL)
    crops = method.crop(mllm, samples)
    answers = method.answer(mllm, samples, max_new_tokens=3)
    eager: Any = small.llava("eager")
    for answer, crop, sample in zip(answers, crops, samples, strict=True):
        x0, y0, x1, y1 = answer.details["crop"]
        assert (x0, y0, x1, y1) == crop.box != (0, 0, 80, 64)
        assert crop.ratio is not None
        assert (x1 - x0, y1 - y0) == (SMALL * crop.ratio,) * 2
        pixels = np.asarray(sample.images[0])
        both = Sample(images=[pixels, pixels[y0:y1, x0:x1]], question=sample.question)
        inputs = {k: v for k, v in mllm.encode(both).inputs.items() if k != "position_ids"}
        ids = eager.generate(**inputs, max_new_tokens=3, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert answer.text == mllm.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
        with torch.no_grad():
            np.testing.assert_allclose(answer.logits, eager(**inputs).logits[0, -1], atol=1e-4)
        np.testing.assert_array_equal(answer.details["map"], crop.map)
        assert answer.details["images"] == "both"


def test_the_crop_is_the_maps(mllm):
    """The relative attention of the default layer, through the windows, gives the crop."""
    maps = Attention(relative_to=GENERIC_PROMPT)(mllm, three())
    crops = ViCrop(base=SMALL).crop(mllm, three())
    for crop, one, tokens in zip(crops, maps, maps.tokens, strict=True):
        expected = one.sel(layer=1).values
        np.testing.assert_allclose(crop.map, expected, rtol=1e-5)
        assert crop.box == select(expected, tokens.footprints, (80, 64), SMALL).box
        assert (crop.layer, crop.base) == (1, SMALL)


def test_the_crop_alone(mllm):
    samples = [sample.replace(boxes=[(60, 50, 80, 64)]) for sample in three()]  # outside a crop's own pixels
    method = ViCrop("grad_att", base=SMALL, images="crop")
    answers = method.answer(mllm, samples, max_new_tokens=2)
    cut = []
    for answer, sample in zip(answers, samples, strict=True):
        x0, y0, x1, y1 = answer.details["crop"]
        cut.append(Sample(np.asarray(sample.images[0])[y0:y1, x0:x1], sample.question))
    trace = mllm.trace(cut, generate=2)
    assert [one.text for one in answers] == trace.answers
    np.testing.assert_allclose([one.logits for one in answers], trace.logits, atol=1e-5)
    assert {one.details["images"] for one in answers} == {"crop"}
    for crop, sample in zip(method.crop(mllm, samples), samples, strict=True):
        method._shown(sample, crop).check()  # no box of the original is left outside the crop
        masked = sample.replace(masks=[np.ones((64, 80), bool)])
        method._shown(masked, crop).check()  # and no mask of the original's size
        assert len(ViCrop()._shown(sample, crop).boxes) == 1


def test_the_prompt_is_honoured(mllm):
    """Also by the generic prompt, which is put as the question is."""
    prompt = Prompt("{question}", image_first=False, system="be brief")
    crops = ViCrop(base=SMALL, layer=2).crop(mllm, three(), prompt)
    generic = replace(GENERIC_PROMPT, image_first=False, system="be brief")
    maps = Attention(relative_to=generic, layers=[2])(mllm, three(), prompt=prompt)
    for crop, one in zip(crops, maps, strict=True):
        np.testing.assert_allclose(crop.map, one.sel(layer=2), rtol=1e-5)
    own = ViCrop(base=SMALL, layer=2, generic=Prompt("is it red?")).crop(mllm, three(), prompt)
    assert not np.allclose(own[0].map, crops[0].map)
    plain = ViCrop(base=SMALL).answer(mllm, three(), max_new_tokens=1)
    asked = ViCrop(base=SMALL).answer(mllm, three(), prompt=prompt, max_new_tokens=1)
    assert not np.allclose(plain[0].logits, asked[0].logits, atol=1e-3)


def test_maps_of_gradients_are_of_what_was_asked(mllm):
    """The prompt, the layer and the generic prompt, as the maps' own functions take them."""
    one, prompt, generic = three()[:1], Prompt("is {question} a", system="be brief"), Prompt("is it red?")
    (weighed,) = ViCrop("grad_att", layer=2, base=SMALL).crop(mllm, one, prompt)
    np.testing.assert_allclose(weighed.map, grad_att(mllm, one, prompt, 2)[0], rtol=1e-4)
    (pixels,) = ViCrop("pure_grad", base=SMALL, generic=generic).crop(mllm, one, prompt)
    np.testing.assert_allclose(pixels.map, pure_grad(mllm, one, prompt, generic)[0], rtol=1e-3)
    default = replace(GENERIC_PROMPT, system=prompt.system)
    (plain,) = ViCrop("pure_grad", base=SMALL).crop(mllm, mllm.prefix(one, prompt=prompt))
    np.testing.assert_allclose(plain.map, pure_grad(mllm, one, prompt, default)[0], rtol=1e-3)
    (held,) = ViCrop("grad_att", layer=2, base=SMALL).crop(mllm, mllm.prefix(one, prompt=prompt))
    np.testing.assert_allclose(held.map, weighed.map, rtol=1e-4)


def test_batches_and_prefixes_serve(mllm):
    expected = ViCrop(base=SMALL).answer(mllm, three(), max_new_tokens=2)
    for given in (mllm.encode(three()), mllm.prefix(three()), iter(three())):
        found = ViCrop(base=SMALL).answer(mllm, given, max_new_tokens=2)
        assert [one.details["crop"] for one in found] == [one.details["crop"] for one in expected]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.logits, other.logits, atol=1e-5)
    one = ViCrop(base=SMALL).answer(mllm, three()[0], max_new_tokens=2)
    assert len(one) == 1
    assert one[0].details["crop"] == expected[0].details["crop"]


def test_the_kind_of_answer_is_said_beside_the_crop(mllm):
    found = ViCrop(base=SMALL, images="crop").answer(mllm, three()[:1], max_new_tokens=1)[0].details
    crop = ViCrop(base=SMALL).crop(mllm, three()[:1])[0]
    assert {name: value for name, value in found.items() if name != "map"} == {
        "crop": crop.box, "ratio": crop.ratio, "base": 30.0, "layer": 1, "images": "crop"
    }  # fmt: skip


def test_costs_add_up(mllm):
    """rel_att: a prefix, two suffixes, two generated tokens' passes; pure_grad: two of each per sample."""
    found = ViCrop(base=SMALL).answer(mllm, three(), max_new_tokens=2)
    plain = mllm.trace(three(), generate=2).cost.forwards
    assert {one.cost.forwards for one in found} == {3 + plain}
    pixels = ViCrop("pure_grad", base=SMALL).answer(mllm, three(), max_new_tokens=2)[0].cost
    assert (pixels.forwards, pixels.backwards) == (6 + plain, 6)
    assert ViCrop("grad_att", base=SMALL).crop(mllm, three())[0].cost.backwards == 1


PLACES = {
    "llava": (lambda: (small.llava(), small.processor()), (150, 64)),
    "llava padded": (lambda: (small.llava(), small.processor(pad=True)), (150, 64)),
    "qwen2_5_vl": (lambda: tiny("qwen2_5_vl"), (231, 120)),
    "llava_next": (lambda: tiny("llava_next"), (181, 117)),
    "internvl": (lambda: tiny("internvl"), (120, 231)),
    "idefics3": (lambda: tiny("idefics3"), (231, 120)),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_crop_holds_what_the_map_points_at(name, monkeypatch):
    """A map that covers a box, on a non-square image of each kind of preprocessing."""
    make, size = PLACES[name]
    model = wrap(*make())
    sample = Sample(rough(*size), "is it red?")
    tokens = model.encode(sample).tokens[0]
    centres = [(0.5, 0.5), (0.4, 0.3), (0.6, 0.75)]
    for x, y in centres:
        x, y = x * size[0], y * size[1]
        box = (int(x) - 4, int(y) - 4, int(x) + 4, int(y) + 4)
        pointing = xr.DataArray(tokens.coverage([box]).astype(np.float32), dims=["token"])
        monkeypatch.setattr(vicrop, "rel_att", lambda *_, p=pointing: Maps((p,), (tokens,), Cost()))
        cells = tokens.footprints[tokens.mask([box])]
        base = 2 * int(np.nanmax(cells[:, 2:] - cells[:, :2])) + 2  # a window of two cells at least
        x0, y0, x1, y1 = ViCrop(base=base, ratios=[1.0]).crop(model, sample)[0].box
        np.testing.assert_array_less([-1, -1, box[2] - 1, box[3] - 1], [x0, y0, x1, y1])
        np.testing.assert_array_less([x0, y0, x1, y1], [box[0] + 1, box[1] + 1, size[0] + 1, size[1] + 1])


@pytest.mark.parametrize(
    ("family", "layers", "expected"),
    [("llava", 32, 14), ("qwen2_5_vl", 28, 22), ("llava", 40, 18), ("qwen3_vl", 36, 28), ("gemma3", 34, 15),
     ("llava", 6, 3), ("llava", 1, 0), ("qwen2_vl", 1, 0)],
)  # fmt: skip
def test_the_published_layers_and_their_share_of_other_depths(family, layers, expected):
    assert default_layer(family, layers) == expected


@pytest.mark.parametrize(
    ("family", "side", "size", "expected"),
    [
        ("llava", 336, (1000, 700), 336),
        ("llava", 336, (200, 100), 336),  # as published: the whole image
        ("qwen2_5_vl", None, (1000, 700), 224),
        ("llava", 96, (192, 192), 96),
        ("llava", 384, (500, 600), 250),
        ("gemma3", 896, (2000, 3000), 896),
        ("internvl", [448, 448], (2000, 600), 300),
        ("internvl", [448, 224], (2000, 1600), 224),
        ("another", None, (300, 200), 100),
        ("gemma3", 896, (1, 1), 1),
    ],
)
def test_the_published_bases_and_the_rule_for_others(family, side, size, expected):
    config = SimpleNamespace(vision_config=SimpleNamespace(image_size=side))
    assert default_base(family, config, size) == expected


def test_a_fraction_is_of_the_shorter_side(mllm):
    crops = ViCrop(base=0.5, ratios=[1]).crop(mllm, three())
    assert {crop.base for crop in crops} == {32.0}
    assert {(c.box[2] - c.box[0], c.box[3] - c.box[1]) for c in crops} == {(32, 32)}
    (point,) = ViCrop(base=1, ratios=[1]).crop(mllm, three()[:1])
    assert (point.base, point.box[2] - point.box[0]) == (1.0, 1)  # a pixel, not the whole side


def test_a_crop_says_which_layer_it_read(mllm):
    sample = three()[:1]
    found = {
        kind: ViCrop(kind, base=SMALL).crop(mllm, sample)[0].details() for kind in ("grad_att", "pure_grad")
    }
    assert (found["grad_att"]["layer"], found["pure_grad"]["layer"]) == (1, None)
    assert ViCrop("grad_att", layer=2, base=SMALL).crop(mllm, sample)[0].layer == 2
    assert found["grad_att"].keys() == {"map", "crop", "ratio", "base", "layer"}


def test_a_large_base_shows_the_whole_image_twice(mllm):
    sample = three()[0]
    answer = ViCrop(base=336).answer(mllm, sample, max_new_tokens=1)[0]
    assert answer.details["crop"] == (0, 0, 80, 64)
    assert answer.details["ratio"] is None
    twice = mllm.trace(Sample(images=[sample.image, sample.image], question=sample.question))
    np.testing.assert_allclose(answer.logits, twice.logits[0], atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 7), (64, 80), (90, 30, 1), (40, 40, 4)])
@pytest.mark.parametrize("kind", ["rel_att", "pure_grad"])
def test_grey_and_tiny_images(mllm, shape, kind):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if len(shape) == 3 and shape[2] == 4:
        image[..., 3] = 255
    answer = ViCrop(kind).answer(mllm, Sample(image, "is it red?"), max_new_tokens=1)[0]
    x0, y0, x1, y1 = answer.details["crop"]
    assert 0 <= x0 < x1 <= shape[1]
    assert 0 <= y0 < y1 <= shape[0]


def test_it_is_a_method_and_a_value():
    method = ViCrop("pure_grad", base=0.4, ratios=[1, 2], images="crop", generic=GENERIC_PROMPT)
    assert isinstance(method, Method)
    assert method == ViCrop("pure_grad", base=0.4, ratios=(1.0, 2.0), images="crop", generic=GENERIC_PROMPT)
    assert len({method, ViCrop(), interp.methods.ViCrop()}) == 2
    assert json.loads(json.dumps(method.to_dict())) == {
        "method": "ViCrop",
        "map": "pure_grad",
        "layer": None,
        "base": 0.4,
        "ratios": [1.0, 2.0],
        "images": "crop",
        "generic": GENERIC_PROMPT.to_dict(),
    }
    assert ViCrop().to_dict()["ratios"] == [1.0, 1.2, 1.4, 1.6, 1.8, 2.0]
    assert ViCrop.name == "ViCrop"
    assert Crop.__dataclass_fields__.keys() >= {"box", "ratio", "map"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"map": "attention"}, r"map is 'rel_att' or 'grad_att' or 'pure_grad'; got 'attention'"),
        ({"images": 2}, r"images is 'both' or 'crop'; got 2"),
        ({"layer": -1}, r"one decoder layer, 0-based.*got -1"),
        ({"layer": True}, r"one decoder layer, 0-based.*got True"),
        ({"map": "pure_grad", "layer": 3}, r"takes no layer, because it reads no attention; got layer=3"),
        ({"base": 0}, r"base is a finite number above 0; got 0"),
        ({"base": -3}, r"base is a finite number above 0; got -3"),
        ({"base": True}, r"base is a finite number above 0; got True"),
        ({"layer": 1.0}, r"one decoder layer, 0-based.*got 1\.0"),
        ({"ratios": "12"}, r"one or more sides of windows.*got '12'"),
        ({"ratios": 2.0}, r"one or more sides of windows.*got 2\.0"),
        ({"ratios": [1, 0]}, r"a ratio is a finite number above 0; got 0"),
        ({"base": 33.5}, r"whole number of pixels, or a fraction below 1.*got 33\.5"),
        ({"ratios": []}, r"one or more sides of windows.*got \[\]"),
        ({"ratios": [1, float("nan")]}, r"a ratio is a finite number above 0; got nan"),
        ({"generic": "describe"}, r"generic is an interp\.Prompt or None; got 'describe'"),
        ({"map": "grad_att", "generic": GENERIC_PROMPT}, r"has no generic prompt, as published"),
    ],
)
def test_parameters_that_make_no_sense(unchecked, given, message):
    with pytest.raises(MethodError, match=message):
        ViCrop(**given)


@pytest.mark.parametrize("kind", ["rel_att", "grad_att"])
def test_a_layer_the_model_does_not_have(mllm, kind):
    with pytest.raises(SiteError, match=r"one of 0 … 2 in this model; got 3\. Leave layer= out for layer 1"):
        ViCrop(kind, layer=3).crop(mllm, three())


def test_samples_of_several_images_are_refused(mllm):
    sample = Sample(images=[rough(80, 64), rough(80, 64, 1)], question="is it red?", id="pair")
    with pytest.raises(SampleError, match=r"sample pair has 2\. Make one sample per image"):
        ViCrop().answer(mllm, [three()[0], sample])


def test_a_video_is_refused(mllm):
    clip = Sample(video=[rough(80, 64, i) for i in range(2)], times=[0, 1], question="is it red?", id="clip")
    with pytest.raises(MethodError, match=r"sample clip shows a video\. Make one sample per frame"):
        ViCrop().crop(mllm, clip)


def test_max_new_tokens_is_checked_first(mllm, unchecked):
    with pytest.raises(MethodError, match="at least 1"):
        ViCrop().answer(mllm, three(), max_new_tokens=0)


class OneImage(Llava):
    """A family that cannot be given two images."""

    name = "single"

    def footprints(self, sizes: Any, inputs: Any, processor: Any, config: Any) -> Any:
        if len(sizes) > 1:
            raise ModelError("single takes one image.")
        return super().footprints(sizes, inputs, processor, config)


def test_a_model_of_one_image_is_pointed_to_the_crop_alone():
    model = wrap(small.llava(), small.processor(), OneImage())
    with pytest.raises(
        MethodError, match=r'single does not accept two images here \(single takes one.*images="crop"'
    ):
        ViCrop(base=SMALL).answer(model, three())
    assert ViCrop(base=SMALL, images="crop").answer(model, three(), max_new_tokens=1)[0].text
    with pytest.raises(InterpError):
        ViCrop(base=SMALL, images="crop").answer(model, [three()[0].replace(question="")])


def test_the_organism_runs_with_the_defaults():
    """192×192 images seen at 96 pixels: the window is half of the side."""
    model, samples = interp.load("organism"), list(interp.data.bundled("natural", n=2))
    for answer in ViCrop().answer(model, samples, max_new_tokens=2):
        assert answer.details["base"] == 96
        assert answer.details["layer"] == 3
        assert answer.details["ratio"] is not None
        assert answer.text
