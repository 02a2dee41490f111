"""A look at one image: the numbers are those of the parts it is made of, and the page shows all of it, escaped."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.cli import main
from interp.errors import MapError, PromptError, RunError, SampleError
from interp.indicators import Attention, RandomMap
from interp.study.first_look.look import Look
from tests.report.hostile_samples import ATTACK, Elements
from tests.tracing.scripted import ids, picture, scripted


@pytest.fixture(scope="module")
def mllm() -> interp.Mllm:
    return interp.load("organism")


@pytest.fixture(scope="module")
def sample() -> interp.Sample:
    return interp.data.bundled("natural")[6]


@pytest.fixture(scope="module")
def look(mllm: interp.Mllm, sample: interp.Sample) -> Look:
    return mllm.look(sample)


def images_of(page: str) -> list[dict[str, str | None]]:
    return [attrs for tag, attrs in Elements(page).tags if tag == "img"]


def test_the_answer_and_its_probability_are_the_models(mllm: Any, sample: Any, look: Look) -> None:
    batch = mllm.encode([sample])
    with torch.no_grad():
        logits = mllm.hf(**batch.inputs).logits[0, -1].double()
    shares = logits.softmax(-1)
    assert look.answer == mllm.answers([sample], generate=16)[0]
    assert look.likely[0][1] == pytest.approx(float(shares.max()), abs=1e-5)
    assert [share for _, share in look.likely] == sorted((share for _, share in look.likely), reverse=True)
    assert 0 < look.probability <= look.likely[0][1] + 1e-6


def test_maps_and_heads_are_the_indicators_own(mllm: Any, sample: Any, look: Look) -> None:
    for label, indicator in {
        "relative attention": Attention(relative_to=interp.GENERIC_PROMPT),
        "attention": Attention(),
    }.items():
        assert np.allclose(look.maps[label][0], indicator(mllm, [sample])[0], atol=1e-5)
    assert (
        look.first.values.tolist()
        == look.maps["relative attention"][0].sel(layer=look.first.layer).values.tolist()
    )
    plain = mllm.look(sample, indicator="attention", layer=2, prompt=interp.GENERIC_PROMPT)
    assert plain.prompt == interp.GENERIC_PROMPT
    wanted = Attention()(mllm, [sample], prompt=interp.GENERIC_PROMPT)[0].sel(layer=2)
    assert np.allclose(plain.map, wanted, atol=1e-5)
    assert plain.heads is not None
    assert np.allclose(plain.heads.mean("head"), plain.map, atol=1e-6)
    assert plain.map.sum() < 1


def test_boxes_choose_the_layer_of_highest_attention_ratio(mllm: Any, sample: Any, look: Look) -> None:
    array = look.maps["relative attention"][0].values.astype(float)
    inside = look.first.tokens.mask(sample.boxes)
    shares = array / array.sum(axis=1, keepdims=True)
    ratios = shares[:, inside].mean(axis=1) / shares.mean(axis=1)
    assert look.first.layer == int(ratios.argmax())
    assert "boxes chose it" in look.first.rule
    assert {one.layer for one in look.shown.values()} == {look.first.layer}
    assert look.shown["attention"].rule == "The same layer as that of the first indicator's map."


def test_an_answer_without_text_is_said_to_be_nothing(look: Look) -> None:
    assert (look.said, look.note) == (look.answer, "")
    silent = replace(look, answer=" ")
    assert "'(nothing)' (probability" in repr(silent)
    assert "such as “What color is the circle?”" in silent.note
    assert replace(silent, organism=False).note == ""


def test_several_images_are_all_on_the_page(mllm: Any, tmp_path: Path) -> None:
    scenes = [one.load() for one in interp.data.bundled("natural", n=2)]
    found = interp.look(mllm, scenes, "What colour is the circle?", indicator=["attention", RandomMap()])
    page = found.save(tmp_path / "look.html").read_text()
    shown = [str(one["alt"]) for one in images_of(page)]
    for name in ("what the model was shown", found.first.name, "random"):
        assert {f"{name} · image {i} of 2" for i in (1, 2)} <= set(shown)
    for layer in range(mllm.n_layers):
        assert sum(one.startswith(f"layer {layer}") for one in shown) == 2
    for head in range(mllm.n_heads):
        assert sum(one.startswith(f"head {head} ") for one in shown) == 2


def test_the_page_loads_nothing_and_is_small(look: Look, tmp_path: Path) -> None:
    written = look.save(tmp_path / "look.html")
    page = written.read_text()
    assert written.stat().st_size < 1_500_000  # without Plotly, which takes 4.7 MB
    assert all(str(one["src"]).startswith("data:image/") for one in images_of(page))
    said = Elements(page).text
    assert f"answers {look.answer}" in said
    assert look.trust.summary in said
    assert look.first.rule in said
    assert "These are not the paper's numbers" in " ".join(said.split())


@pytest.mark.parametrize("name", ["look.png", "look.pdf", "look"])
def test_a_page_is_written_as_html_only(look: Look, tmp_path: Path, name: str) -> None:
    with pytest.raises(
        RunError, match=r'to end in \.html or \.htm, such as "look\.html"; .*write_image\("look.png"\)'
    ):
        look.save(tmp_path / name)
    with pytest.raises(
        RunError, match=r'to end in \.safetensors, such as "maps\.safetensors"; .*numpy\.savez'
    ):
        look.maps["attention"].save(tmp_path / "maps.npz")
    assert not list(tmp_path.iterdir())


def test_boxes_as_fractions_are_refused_by_the_option_or_taken(tmp_path: Path, capsys: Any) -> None:
    scene = tmp_path / "scene.png"
    interp.data.bundled("natural", n=1)[0].load().save(scene)
    out = ["--out", str(tmp_path / "look.html"), "--no-open", "--indicator", "attention"]
    given = ["look", str(scene), "What color is the circle?", *out, "--box", "0.2", "0.3", "0.5", "0.6"]
    assert main(given) == 2
    assert "pass --box-format fraction" in capsys.readouterr().err
    assert main([*given, "--box-format", "fraction"]) == 0
    assert "largest share of its weight inside the boxes" in capsys.readouterr().out


def test_hostile_texts_stay_text(mllm: Any, sample: Any, tmp_path: Path) -> None:
    bad = sample.replace(question=f"{ATTACK} What colour is the circle?", answer=ATTACK)
    found = mllm.look(bad, indicator={ATTACK: Attention()})
    for page in (found.save(tmp_path / "look.html").read_text(), found._repr_html_()):
        assert "evil.example" in Elements(page).text
        assert not [one for one in images_of(page) if "evil" in str(one["src"])]
        assert "alert" not in "".join(re.findall(r"<script>.*?</script>", page, re.DOTALL))


def test_a_notebook_shows_pictures_and_the_verdict(look: Look) -> None:
    page = look._repr_html_()
    assert len(images_of(page)) == 1 + len(look.shown)
    assert look.trust.summary in Elements(page).text
    assert len(look.figure.data) == 1 + len(look.shown)
    assert "→ 'yellow'" in repr(look)


def test_an_indicator_that_cannot_be_had_is_named(mllm: Any, sample: Any) -> None:
    other = interp.indicators.ActivationPatching({"someone else": sample})
    found = mllm.look(sample, indicator=["attention", other])
    assert list(found.shown) == ["attention"]
    assert "needs a partner" in found.missing["activation patching"]
    assert "Activation patching could not be computed" in found._repr_html_()
    with pytest.raises(MapError, match="needs a partner"):
        mllm.look(sample, indicator=other)


def test_the_slow_checks_are_made_on_request(mllm: Any, sample: Any) -> None:
    names = [one.name for one in mllm.look(sample, trust="full").trust]
    assert names[-2:] == ["deletion", "change under shuffled weights"]


def test_a_thought_has_no_probability_of_its_answer() -> None:
    thinking, script = scripted()
    script.say(ids(thinking, "red </think> yes"))
    found = thinking.look(picture(), prompt=interp.Prompt(thinking=True), indicator="attention", generate=3)
    assert found.answer == "yes"
    assert np.isnan(found.probability)
    assert "reasons before it answers" in found.missing["probability"]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"question": "why?"}, SampleError, "a whole Sample, or an image with question= and boxes="),
        ({"indicator": []}, MapError, 'name one: "attention"'),
        ({"indicator": 5}, MapError, r"one of interp.indicators, such as Attention\(\), or its name; got 5"),
        ({"indicator": Attention(per_head=True)}, MapError, "'attention' has per_head=True"),
        ({"indicator": ["attention", Attention()]}, MapError, "two indicators have the same name"),
        ({"layer": 99}, MapError, "layer is 'auto' or a layer"),
        ({"layer": "best"}, MapError, 'layer is "auto" or a decoder layer'),
        ({"indicator": Attention}, MapError, "got <class"),
        ({"generate": 0}, PromptError, "generate, the number of tokens, is"),
        ({"trust": "much"}, MapError, "trust is 'quick' or 'full'; got 'much'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    mllm: Any, sample: Any, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        mllm.look(sample, **given)


def test_the_command_writes_the_page(capsys: Any, tmp_path: Path, sample: Any) -> None:
    image, page = tmp_path / "a scene.png", tmp_path / "out" / "look.html"
    sample.load().save(image)
    box = [str(edge) for edge in sample.boxes[0].as_tuple()]
    options = ["--box", *box, "--out", str(page), "--no-open", "--indicator", "attention", "--layer", "3"]
    assert main(["look", str(image), sample.question, *options]) == 0
    said = capsys.readouterr().out
    assert "answer: yellow (probability " in said
    assert "map: attention, layer 3. Layer 3, as asked for." in said
    assert f"page: {page}" in said
    assert f"interp look &#39;{image}&#39; &#39;{sample.question}&#39; --box " in page.read_text()


def test_the_command_says_what_is_wrong_in_a_line(capsys: Any, tmp_path: Path) -> None:
    assert main(["look", str(tmp_path / "none.png"), "why?", "--no-open"]) == 2
    assert "none.png" in capsys.readouterr().err
