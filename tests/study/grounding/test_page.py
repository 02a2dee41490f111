"""What the page of a grounded answer shows: whose mask is on which image, and how masks were made."""

from __future__ import annotations

import html
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

import interp
from interp.inputs.footprints import squash
from interp.inputs.masks import Mask
from interp.inputs.prompt import PAPER_PROMPT
from interp.inputs.tokens import TokenMap
from interp.study.grounding import page
from interp.study.grounding.grounded_answer import GroundedAnswer, GroundedPhrase, _found, _peak
from tests.golden.parsed import Page

pytestmark = pytest.mark.usefixtures("unchecked")

SIZE = (40, 20)
ANSWER = "a nodule in <b>"


def tokens(n_images: int) -> TokenMap:
    one = squash(SIZE, (2, 4))
    views, boxes, n = np.tile(one.views, n_images), np.tile(one.boxes, (n_images, 1)), 8 * n_images
    return TokenMap(np.arange(n), boxes, None, views, np.repeat(range(n_images), 8), (SIZE,) * n_images, n)


def mask(width: int, image: int = 0) -> Mask:
    """The left part of an image of 40 × 20 pixels."""
    inside = np.zeros((SIZE[1], SIZE[0]), bool)
    inside[:, :width] = True
    return Mask(inside, image)


def phrase(number: int, start: int, end: int, *masks: Mask, image: int = 0, **changes: Any) -> GroundedPhrase:
    values = xr.DataArray(np.arange(16.0), dims="token")
    point = (7.5, 3.5) if masks else None
    given = {"refined": False, "point": point} | changes
    return GroundedPhrase(number, ANSWER[start:end], start, end, (0,), values, image, masks=masks, **given)


def grounded(*phrases: GroundedPhrase, n_images: int = 2, ids: int = 4, **changes: Any) -> GroundedAnswer:
    images = [np.full((SIZE[1], SIZE[0], 3), 200, np.uint8)] * n_images
    given: dict[str, Any] = {
        "sample": interp.Sample(images=images, question="Where?"), "model": "tiny", "organism": False,
        "prompt": PAPER_PROMPT, "answer": ANSWER, "phrases": phrases, "missing": (),
        "maps": SimpleNamespace(tokens=tokens(n_images), ids=list(range(ids))), "upsample": "bicubic",
        "threshold": "otsu",
    }  # fmt: skip
    return GroundedAnswer(**given | changes)


def text(markup: object) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", str(markup))).split())


TWO = (phrase(1, 2, 8, mask(10), mask(20, 1)), phrase(2, 12, 15, mask(30, 1), image=1, refined=True))


def test_each_image_has_the_masks_of_its_phrases() -> None:
    """The first phrase covers a quarter of the first image and half of the second, the other three of four parts."""
    made = grounded(*TWO)
    pictures = dict(page._together(made, 40))
    assert list(pictures) == [
        "image 1 of 2",
        "masks on image 1 of 2",
        "image 2 of 2",
        "masks on image 2 of 2",
    ]
    coloured = []
    for i in (1, 2):
        drawn = np.asarray(pictures[f"masks on image {i} of 2"], int)
        coloured.append(int((np.ptp(drawn, axis=2) > 8).any(axis=0).sum()))  # the pictures are grey
    assert coloured == [10, 30]
    assert [name for name, _ in page._together(grounded(n_images=1), 40)] == ["image", "masks on image"]


def test_the_legend_has_a_line_for_each_mask() -> None:
    legend = page._legend(grounded(*TWO))
    assert text(legend) == (
        "phrase number image largest value at (x, y) mask of the image nodule 1 1 (8, 4) the map, cut 25.0 % "
        "nodule 1 2 – the map, cut 50.0 % <b> 2 2 (8, 4) segmentation at that point 75.0 %"
    )
    alone = text(page._legend(grounded(phrase(1, 2, 8), n_images=1)))
    assert alone.startswith("phrase number largest value")
    assert alone.endswith("nodule 1 – the map, cut 0.0 %")


@pytest.mark.parametrize(
    ("threshold", "refined", "said"),
    [
        ("otsu", False, "mask above Otsu's threshold of the map"),
        ("positive", False, "mask above 0: more than the answer looks there on average"),
        (0.8, False, "mask above the 0.8 quantile of the image's pixels"),
        ("otsu", True, "mask a segmentation model at the largest value"),
    ],
)
def test_the_origin_says_how_masks_were_made(threshold: Any, refined: bool, said: str) -> None:
    made = grounded(phrase(1, 2, 8, mask(10), refined=refined), threshold=threshold)
    told = text(page._origin(made))
    assert told.endswith(said)
    assert (
        "images 40 × 20 pixels, 40 × 20 pixels image tokens 16 tokens of the answer 4 upsampling bicubic"
        in told
    )


def test_notes_tell_what_is_missing_and_why_no_mask_is_there() -> None:
    assert page._notes(grounded(*TWO)) == []
    (missing,) = page._notes(grounded(missing=("lung", "heart")))
    assert missing == "Not in the answer, or only inside a longer phrase: lung, heart."
    (short,) = page._notes(grounded(ids=1))
    assert short.startswith("The answer has one token")


def test_words_are_coloured_numbered_and_escaped() -> None:
    marked = page.marked(grounded(*TWO))
    assert text(marked) == "a nodule 1 in <b> 2"
    assert str(marked).count("<mark") == 2
    assert len(set(re.findall(r"background:([^;]*);", str(marked)))) == 2
    assert text(page.marked(grounded(answer=""))) == "(nothing)"


def test_a_notebook_shows_the_masks_and_each_words_map() -> None:
    view = page.notebook_view(grounded(*TWO))
    names = [html.unescape(one) for one in re.findall(r"<figcaption[^>]*>(.*?)</figcaption>", view)]
    names = names or [html.unescape(one) for one in re.findall(r'alt="([^"]*)"', view)]
    assert names == ["masks on image 1 of 2", "masks on image 2 of 2", "1: nodule", "2: <b>"]


def test_numbers_stand_behind_the_phrases_in_the_text() -> None:
    made = grounded(*TWO, missing=("lung",))
    assert made.text == "a nodule [1] in <b> [2]"
    assert repr(made) == "GroundedAnswer('a nodule [1] in <b> [2]'; missing: lung)"
    assert repr(TWO[0]) == "GroundedPhrase(1: 'nodule', 2 masks)"
    assert repr(TWO[1]) == "GroundedPhrase(2: '<b>', 1 mask)"
    assert {number: len(masks) for number, masks in made.masks.items()} == {1: 2, 2: 1}
    assert not TWO[1].inside(0, SIZE).any()
    assert TWO[1].inside(0, SIZE).shape == (20, 40)


def test_a_phrase_has_a_row_for_each_image_it_is_on() -> None:
    frame = grounded(*TWO, phrase(3, 0, 1, image=1)).to_dataframe()
    assert frame[["number", "image", "pixels"]].values.tolist() == [
        [1, 0, 200], [1, 1, 400], [2, 1, 600], [3, 1, 0],
    ]  # fmt: skip
    assert frame.x.notna().tolist() == [True, False, True, False]
    assert frame.share.tolist() == [0.25, 0.5, 0.75, 0.0]
    assert list(grounded().to_dataframe()) == list(frame)


def test_the_peak_is_of_all_images_and_the_first_of_equals() -> None:
    one, other = np.array([[0.0, 3.0, 1.0]]), np.array([[np.nan, 1.0], [4.0, 4.0]])
    assert _peak([one, other]) == (1, (0.5, 1.5))
    assert _peak([one, one]) == (0, (1.5, 0.5))
    assert _peak([np.full((2, 2), np.nan), one - 9]) == (1, (1.5, 0.5))


def test_longer_phrases_come_first_and_words_stay_whole() -> None:
    answer = "Left lung, left lung nodule; the lungs."
    spans, missing = _found(answer, ["lung", "left lung", "LEFT LUNG NODULE", "nodule", "lungs"])
    assert [answer[start:end] for start, end in spans] == ["Left lung", "left lung nodule", "lungs"]
    assert missing == ("lung", "nodule")


def test_each_part_stands_under_its_title(tmp_path: Path) -> None:
    made = grounded(*TWO, missing=("lung",), organism=True)
    written = Page(made.save(tmp_path / "grounded.html"))
    assert [node.text for node in written.body.all("h2")] == [
        "The answer", "Where its words look", "Word by word", "Masks", "What the words mean", "Where this comes from",
    ]  # fmt: skip
    assert "Not in the answer, or only inside a longer phrase: lung." in written.text
    assert "These are not the paper's numbers" in written.text
    assert len(written.body.all("img")) == 2 * 2 + 2
    plain = grounded(sample=interp.Sample(images=[np.zeros((20, 40, 3), np.uint8)] * 2, question=""))
    said = Page(plain.save(tmp_path / "plain.html")).text
    assert "(no question)" in said
    assert "These are not the paper's numbers" not in said
