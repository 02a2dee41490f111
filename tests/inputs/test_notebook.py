"""What samples and token maps show in a notebook: every image, its marks, and text that stays text."""

from __future__ import annotations

import re

import numpy as np

from interp.inputs.footprints import Footprints, squash
from interp.inputs.masks import Mask
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap

ATTACK = "<img src=x onerror=alert(1)>"


def two_images() -> Sample:
    images = [np.zeros((40, 60, 3), np.uint8), np.zeros((30, 30), np.uint8)]
    return Sample(
        images=images, question=ATTACK, boxes=[(1, 2, 30, 20)], answer=ATTACK, options=[ATTACK, "b"]
    )


def pictures(html: str) -> list[str]:
    return re.findall(r"base64,([^']*)", html)


def captions(html: str) -> list[str]:
    return re.findall(r"<figcaption>(.*?)</figcaption>", html)


def test_a_sample_shows_every_image_and_its_boxes() -> None:
    found = two_images()._repr_html_()
    assert captions(found) == ["image 1 of 2, 60×40 px, 1 box", "image 2 of 2, 30×30 px"]
    assert found.count("data:image/webp;base64,") == 2
    many = Sample(images=[np.zeros((8, 8), np.uint8)] * 9)
    assert captions(many._repr_html_())[-1] == "image 9 of 9, 8×8 px"
    assert "and 5 more images" in many._repr_html_()
    assert len(repr(many)) < 120
    assert "and 5 more" in repr(many)


def test_marks_are_counted_on_their_own_image_or_frame() -> None:
    picture, mask = np.zeros((8, 8), np.uint8), np.ones((8, 8), np.uint8)
    masked = Sample(picture, "Where?", masks=[mask], boxes=[(1, 1, 4, 4), (2, 2, 4, 4)], group="p7", id="s3")
    found = masked._repr_html_()
    assert captions(found) == ["image, 8×8 px, 1 mask"]
    assert all(f">{said}</" in found for said in ("p7", "s3", "Where?"))
    assert ">answer</th>" not in found
    assert "more" not in found
    clip = Sample(video=np.zeros((7, 8, 8, 3), np.uint8), fps=1, question="?", boxes=[(1, 1, 4, 4, 6)] * 2)
    assert captions(clip._repr_html_())[0] == "frame 0 of 7, 8×8 px"
    assert captions(clip._repr_html_())[-1] == "frame 6 of 7, 8×8 px, 2 boxes"
    assert "and 3 more frames" in clip._repr_html_()
    plain, boxed = Sample(picture)._repr_html_(), Sample(picture, boxes=[(1, 1, 6, 6)])._repr_html_()
    drawn = [re.findall(r"base64,([^']*)", one) for one in (plain, boxed)]
    assert drawn[0] != drawn[1]
    two = Sample(images=[picture, picture], boxes=[(1, 1, 6, 6, 1)])._repr_html_()
    assert re.findall(r"base64,([^']*)", two) == [*drawn[0], *drawn[1]]


def test_a_mask_is_outlined_on_its_own_image() -> None:
    wide, tall = np.zeros((20, 40), np.uint8), np.zeros((40, 20), np.uint8)
    first, second = np.zeros((20, 40), bool), np.zeros((40, 20), bool)
    first[5:15, 5:30], second[5:30, 5:15] = True, True
    both = Sample(images=[wide, tall], masks=[Mask(second, image=1), Mask(first)])._repr_html_()
    each = [Sample(wide, masks=[first]), Sample(tall, masks=[second])]
    assert pictures(both) == [one for sample in each for one in pictures(sample._repr_html_())]
    assert captions(both) == ["image 1 of 2, 40×20 px, 1 mask", "image 2 of 2, 20×40 px, 1 mask"]


def tokens_on(*images: tuple[Footprints, tuple[int, int]]) -> TokenMap:
    boxes = np.concatenate([cells.boxes for cells, _ in images])
    index = np.repeat(np.arange(len(images)), [len(cells) for cells, _ in images])
    n = len(boxes)
    return TokenMap(
        np.arange(n), boxes, None, np.full(n, ""), index, tuple(size for _, size in images), n + 1
    )


def test_tokens_are_drawn_on_their_own_image() -> None:
    wide, tall = (squash((60, 40), (2, 3)), (60, 40)), (squash((30, 50), (3, 2)), (30, 50))
    each = [pictures(tokens_on(one)._repr_html_()) for one in (wide, tall)]
    assert pictures(tokens_on(wide, tall)._repr_html_()) == [*each[0], *each[1]]
    assert each[0] != each[1]


def test_what_is_known_of_a_sample_is_named() -> None:
    sample = Sample(np.zeros((8, 8), np.uint8), "Where?", answer="left", options=["left", "right"], id="s3")
    found = re.findall(r"<th[^>]*>(.*?)</th><td[^>]*>(.*?)</td>", sample._repr_html_())
    told = {"question": "Where?", "options": "left, right", "answer": "left", "id": "s3"}
    assert dict(found) == told


def test_text_of_a_sample_stays_text() -> None:
    found = two_images()._repr_html_()
    assert "<img src=x" not in found
    assert found.count("&lt;img src=x onerror=alert(1)&gt;") == 3


def test_a_sample_that_cannot_be_drawn_says_why() -> None:
    assert "does not exist" in Sample("absent.png", "?")._repr_html_()
    assert "row 3 is damaged" in Sample.unusable("row 3 is damaged", id="3")._repr_html_()


def test_a_token_map_shows_each_image_with_its_tokens() -> None:
    first, second = squash((60, 40), (2, 3)), squash((30, 30), (2, 2))
    tokens = TokenMap(
        np.arange(10),
        np.concatenate([first.boxes, second.boxes]),
        None,
        np.concatenate([first.views, second.views]),
        np.repeat([0, 1], [6, 4]),
        ((60, 40), (30, 30)),
        14,
        {"question": np.array([11, 12])},
    )
    found = tokens._repr_html_()
    assert captions(found) == ["image 1, 60×40 px, 6 tokens", "image 2, 30×30 px, 4 tokens"]
    assert "question: 2" in found
    assert ": 10" in found  # tokens of the view without a name
    many = TokenMap(
        np.arange(6),
        np.tile([[0.0, 0, 8, 8]], (6, 1)),
        None,
        np.array([""] * 6),
        np.arange(6),
        ((8, 8),) * 6,
        7,
    )
    assert len(captions(many._repr_html_())) == 4
    assert "and 2 more images" in many._repr_html_()
