"""What the page of a look says in words: the answer, the likeliest tokens, the command that makes it again."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import interp
from interp.inputs.footprints import squash
from interp.inputs.prompt import PAPER_PROMPT
from interp.inputs.tokens import TokenMap
from interp.study.first_look import page
from interp.study.first_look.look import Look, covered
from interp.study.first_look.shown_map import ShownMap
from interp.study.first_look.trust import Trust, TrustCheck
from tests.golden.parsed import Page

pytestmark = pytest.mark.usefixtures("unchecked")

SIZE = (40, 20)
N = 8


def tokens(n_images: int = 1) -> TokenMap:
    """Eight tokens of each image."""
    one = squash(SIZE, (2, 4))
    views, boxes = np.tile(one.views, n_images), np.tile(one.boxes, (n_images, 1))
    n = N * n_images
    return TokenMap(np.arange(n), boxes, None, views, np.repeat(range(n_images), N), (SIZE,) * n_images, n)


def pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)


def shown(label: str = "attention", layer: int | None = 1, n_images: int = 1, values: Any = None) -> ShownMap:
    found = np.ones(N * n_images) if values is None else np.asarray(values, float)
    return ShownMap(label, found, tokens(n_images), layer, f"The rule of {label}.", f"About {label}.")


def look(*maps: ShownMap, layers: Sequence[int] = (0, 1), **changes: Any) -> Look:
    """A look at a picture, made by hand."""
    every = maps or (shown(),)
    first = every[0]
    array = xr.DataArray(
        np.ones((len(layers), first.tokens.n)), {"layer": list(layers)}, dims=("layer", "token")
    )
    given: dict[str, Any] = {
        "sample": interp.Sample(pixels(), "Where?"), "model": "tiny", "organism": False, "prompt": PAPER_PROMPT,
        "answer": "left", "probability": 0.25, "likely": (("left", 0.6), ("right", 0.3)),
        "maps": {one.label: [array] for one in every}, "shown": {one.label: one for one in every}, "heads": None,
        "trust": Trust((), first.name), "missing": {},
    }  # fmt: skip
    return Look(**given | changes)


def text(markup: object) -> str:
    """What a reader sees of it."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", str(markup))).split()).replace(" .", ".")


def captions(markup: object) -> list[str]:
    """The captions of the pictures, in order."""
    return [html.unescape(one) for one in re.findall(r'alt="([^"]*)"', str(markup))]


def test_the_answer_is_told_with_its_probability() -> None:
    assert text(page._answer(look())) == (
        "tiny answers left with probability 0.25. Likeliest first tokens: “left” 0.60, “right” 0.30."
    )
    unknown = look(probability=float("nan"), sample=interp.Sample(pixels(), "?", answer="right"))
    assert text(page._answer(unknown)).startswith("tiny answers left. Expected: “right”. Likeliest")
    unfinished = text(page._answer(look(answer=None, probability=float("nan"))))
    assert unfinished.startswith("tiny did not finish its reasoning. Likeliest")
    assert text(page._answer(look(answer=" "))).startswith("tiny answers (nothing) with")
    assert text(page._answer(look(answer="", organism=True))).endswith(
        "0.30. " + look(answer="", organism=True).note
    )


def test_unlikely_tokens_are_left_out_but_for_two() -> None:
    likely = (("a", 0.98), ("b", 0.009), ("c", 0.01), ("d", 0.0099))
    assert text(page._answer(look(likely=likely))).endswith("first tokens: “a” 0.98, “b” 0.01, “c” 0.01.")


def test_the_command_makes_the_same_page_again(tmp_path: Path) -> None:
    files = [tmp_path / "a scene.png", tmp_path / "b.png"]
    for seed, file in enumerate(files):
        Image.fromarray(pixels(seed)).save(file)
    one, two = map(str, files)
    boxes = [interp.Box(1, 2, 30.5, 18), interp.Box(3, 4, 9, 9), interp.Box(0, 0, 5, 5, image=1)]
    several = interp.Sample(images=[one, two], question="What's here?", boxes=boxes)
    assert page._command(several) == (
        f"""interp look '{one}' 'What'"'"'s here?' --more {two} --box 1 2 30.5 18 --box 3 4 9 9"""
    )
    assert page._command(interp.Sample(one, "Where?")) == f"interp look '{one}' 'Where?'"
    assert page._command(interp.Sample(pixels(), "Where?")) == ""
    assert page._command(interp.Sample(images=[one, pixels()], question="?")) == ""


def test_the_layer_that_is_shown_is_marked_among_all() -> None:
    assert captions(page._layers(look(layers=(0, 1, 2)))) == ["layer 0", "layer 1 (shown above)", "layer 2"]
    assert page._layers(look(layers=(1,))) == ""
    flat = xr.DataArray(np.ones(N), dims="token")
    assert page._layers(look(shown(layer=None), maps={"attention": [flat]})) == ""


def test_heads_are_those_of_the_shown_layer() -> None:
    heads = xr.DataArray(np.ones((2, N)), {"head": [0, 3]}, dims=("head", "token"))
    found = page._heads(look(heads=heads))
    assert "Heads of layer 1" in text(found)
    assert captions(found) == ["head 0", "head 3"]
    assert page._heads(look()) == ""


def test_of_many_images_those_with_most_weight_are_shown_small() -> None:
    weights = [1.0, 3.0, 2.0]
    one = shown(n_images=3, values=np.repeat(weights, N))
    sample = interp.Sample(images=[pixels(i) for i in range(3)], question="?")
    found = captions(page._layers(look(one, sample=sample)))
    assert found[:2] == ["layer 0 · image 2 of 3", "layer 0 · image 3 of 3"]
    assert captions(page._large(look(one, sample=sample))) == [
        f"{name} · image {i} of 3"
        for i in (1, 2, 3)
        for name in ("what the model was shown", "attention, layer 1")
    ]


def test_several_indicators_stand_side_by_side_with_their_rules() -> None:
    assert page._indicators(look()) == ""
    both = page._indicators(look(shown(), shown("gradient", None)))
    assert captions(both) == ["attention, layer 1", "gradient"]
    assert "attention : The rule of attention. gradient : The rule of gradient." in text(both)
    lacking = text(page._indicators(look(missing={"patching": "it needs a partner."})))
    assert "Patching could not be computed: it needs a partner." in lacking


def test_an_outline_is_spoken_of_where_there_is_one() -> None:
    inside = np.zeros((SIZE[1], SIZE[0]), bool)
    inside[:4, :4] = True
    plain = interp.Sample(pixels(), "?")
    for sample, there in (
        (plain, False), (plain.replace(boxes=[(1, 1, 9, 9)]), True), (plain.replace(masks=[inside]), True)
    ):  # fmt: skip
        assert (
            "the outline marks what the answer should depend on" in text(page._large(look(sample=sample)))
        ) == there


def test_the_origin_lists_sizes_tokens_and_share_in_boxes() -> None:
    note, other = (TrustCheck(name, 0.4, 0.1, "note", "", "") for name in ("inside the boxes", "border"))
    sample = interp.Sample(images=[pixels(), np.zeros((8, 9, 3), np.uint8)], question="?")
    said = text(page._origin(look(sample=sample, trust=Trust((other, note), "map"))))
    assert "40 × 20 pixels, 9 × 8 pixels" in said
    assert "image tokens 8" in said
    assert said.count("40 %") == said.count("inside the boxes 40 %") == 1
    assert "inside the boxes" not in text(page._origin(look()))


def test_all_images_are_shown_and_some_frames_of_a_video() -> None:
    pictures = [pixels()] * 9
    assert page._images(interp.Sample(images=pictures, question="?")) == list(range(9))
    frames = page._images(interp.Sample(video=pictures, question="?", fps=1.0))
    assert len(frames) == 8
    assert frames == sorted(set(frames))


def test_each_part_stands_under_its_title(tmp_path: Path) -> None:
    heads = xr.DataArray(np.ones((1, N)), {"head": [0]}, dims=("head", "token"))
    written = Page(look(shown(), shown("gradient"), heads=heads).save(tmp_path / "look.html"))
    assert [node.text for node in written.body.all("h2")] == [
        "Where it looks", "How far to trust this map", "Several indicators", "Layers", "Heads of layer 1",
        "What the words mean", "Where this comes from",
    ]  # fmt: skip
    said = text(look(missing={"heads": "no."})._repr_html_())
    parts = (
        "Where?",
        "tiny answers left",
        "The rule of attention.",
        "No check could be made",
        "Heads could not",
    )
    assert [said.index(part) for part in parts] == sorted(said.index(part) for part in parts)


def test_a_page_names_what_is_asked(tmp_path: Path) -> None:
    silent = look(sample=interp.Sample(pixels(), ""))
    for said in (silent.save(tmp_path / "look.html").read_text(), silent._repr_html_()):
        assert "(no question)" in said
    assert "These are not the paper's numbers" not in text((tmp_path / "look.html").read_text())


def test_masks_cover_shares_of_tokens_and_boxes_whole_ones() -> None:
    """A token is 10 × 10 pixels; the mask covers half of the first, the box a part of the first two."""
    inside = np.zeros((SIZE[1], SIZE[0]), bool)
    inside[:10, :5] = True
    plain = interp.Sample(pixels(), "?")
    assert covered(plain, tokens()) is None
    boxed = plain.replace(boxes=[(5, 2, 12, 8)])
    found = covered(boxed, tokens())
    assert found is not None
    assert found.tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    masked = covered(boxed.replace(masks=[inside]), tokens())
    assert masked is not None
    assert masked.tolist() == [0.5, 0, 0, 0, 0, 0, 0, 0]


def test_an_unfinished_answer_is_no_answer_in_a_line() -> None:
    assert repr(look(answer=None)).startswith("Look('Where?' → no answer; attention, layer 1; ")
    assert "→ 'left' (probability 0.25)" in repr(look())


def test_maps_over_other_tokens_are_not_in_the_figure() -> None:
    other = ShownMap("patches", np.ones(2 * N), tokens(2), None, "")
    assert len(look(shown(), other, shown("third")).figure.data) == 1 + 2
    assert (look().map.name, look().map.dims) == ("attention", ("token",))
