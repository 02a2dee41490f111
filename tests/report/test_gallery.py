from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
from PIL import Image

from interp.inputs.footprints import center_crop, squash
from interp.inputs.masks import Mask
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.report import gallery
from interp.report.gallery import BOX_COLOUR, data_uri, overlay, picture, strengths


def tokens_over(size: tuple[int, int], grid: tuple[int, int]) -> TokenMap:
    found = squash(size, grid)
    return TokenMap(np.arange(len(found)), found.boxes, grid, found.views, found.image, (size,), len(found))


def grey(width: int, height: int, **changes: object) -> Sample:
    return Sample(image=np.full((height, width, 3), 90, np.uint8), question="?", **changes)  # pyright: ignore


def test_strengths_are_the_share_of_the_top_to_a_power() -> None:
    assert np.allclose(strengths(np.array([0.0, 1.0, -3.0])), [0.0, 1.0, 0.0])
    assert strengths(np.zeros(0)).shape == (0,)
    values = np.concatenate([np.linspace(0, 1, 999), [1000.0]])
    found = strengths(values)
    assert found[-1] == 1.0
    assert found[499] > 0.5  # one outlier does not hide the rest
    assert not strengths(np.zeros(4)).any()
    assert strengths(np.array([0.0] * 999 + [2.0])).max() == 1.0  # the percentile itself is zero


def test_the_heat_is_where_the_token_is() -> None:
    values = np.zeros(12)
    values[1 * 4 + 3] = 1.0  # row 1 of 3, column 3 of 4
    shown = np.asarray(overlay(grey(400, 300), tokens_over((400, 300), (3, 4)), values), int)
    assert shown.shape == (225, 300, 3)
    hot, cold = shown[112, 262], shown[112, 37]
    assert hot.sum() > cold.sum() + 200
    assert np.abs(shown[37, 262] - cold).max() < 12  # above it, the same column of another row is cold


def test_what_no_token_sees_stays_grey() -> None:
    found = center_crop((300, 100), (2, 2))
    tokens = TokenMap(np.arange(4), found.boxes, (2, 2), found.views, found.image, ((300, 100),), 4)
    shown = np.asarray(overlay(grey(300, 100), tokens, np.ones(4)), int)
    assert np.ptp(shown[50, 20]) <= 3
    assert np.ptp(shown[50, 150]) > 60


def test_boxes_are_drawn_to_scale_on_their_own_image() -> None:
    shown = np.asarray(picture(grey(150, 100, boxes=[(30, 20, 90, 80)])), int)
    assert shown.shape == (200, 300, 3)
    assert tuple(shown[100, 60]) == BOX_COLOUR
    assert tuple(shown[40, 120]) == BOX_COLOUR
    assert tuple(shown[159, 179]) == BOX_COLOUR
    assert tuple(shown[100, 120]) == (90, 90, 90)


def test_a_picture_travels_inside_its_address() -> None:
    kind, _, data = data_uri(Image.new("RGB", (20, 10), (200, 10, 10))).partition(",")
    assert kind == "data:image/webp;base64"
    assert Image.open(BytesIO(base64.b64decode(data))).size == (20, 10)


def several(*boxes: tuple[int, ...], n: int = 5) -> Sample:
    return Sample(images=[np.full((10, 10, 3), 90, np.uint8)] * n, question="?", boxes=boxes)


def test_images_with_boxes_are_shown_first() -> None:
    assert gallery.shown_frames(several((1, 1, 5, 5, 4)), 3) == [0, 2, 4]
    assert gallery.shown_frames(several((1, 1, 5, 5, 3), (1, 1, 5, 5, 1)), 3) == [0, 1, 3]
    every = [(1, 1, 5, 5, image) for image in range(5)]
    assert gallery.shown_frames(several(*every), 3) == [0, 2, 4]
    assert gallery.shown_frames(several(*every), 5) == [0, 1, 2, 3, 4]
    assert gallery.shown_frames(several(n=2), 3) == [0, 1]


def test_captions_name_images_where_there_are_several() -> None:
    captions = [said for said, _ in gallery.views(several(n=2), "map", lambda i: Image.new("L", (1, 1)))]
    assert captions == ["map · image 1 of 2", "map · image 2 of 2"]
    assert gallery.frame_name(grey(10, 10), 0) == ""


def test_hidden_tokens_are_dark_and_kept_ones_as_they_were() -> None:
    sample = grey(300, 100, boxes=[(0, 0, 100, 100)])
    shown = np.asarray(
        gallery.hidden_tokens(sample, tokens_over((300, 100), (1, 2)), np.array([True, False]))
    )
    assert (shown[50, 20] == 90).all()
    assert (shown[50, 280] == 20).all()  # 0.22 of 90
    found = center_crop((300, 100), (1, 1))
    middle = TokenMap(np.arange(1), found.boxes, (1, 1), found.views, found.image, ((300, 100),), 1)
    shown = np.asarray(gallery.hidden_tokens(grey(300, 100), middle, np.array([False])))
    assert (shown[50, [20, 150, 280], 0] == [90, 20, 90]).all()  # what no token sees stays as it is


def test_a_crop_is_its_own_part_of_the_image() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[20:60, 50:150] = 200
    sample = Sample(image=pixels, question="?")
    assert (np.asarray(gallery.crop(sample, (50, 20, 150, 60))) == 200).all()
    framed = np.asarray(gallery.crop_frame(sample, (50, 20, 150, 60)))
    scale = framed.shape[1] / 200
    assert tuple(framed[round(40 * scale), round(50 * scale)]) == gallery.CROP_COLOUR
    assert tuple(framed[round(40 * scale), round(100 * scale)]) == (200, 200, 200)


def test_the_frame_of_a_crop_lies_inside_its_edges() -> None:
    shown = np.asarray(gallery.crop_frame(grey(300, 200), (30, 20, 120, 80)))
    assert shown.shape == (200, 300, 3)
    coloured = np.argwhere((shown == gallery.CROP_COLOUR).all(-1))
    assert (coloured.min(0).tolist(), coloured.max(0).tolist()) == ([20, 30], [79, 119])


def test_frames_of_a_video_say_their_time() -> None:
    frames = [np.full((10, 10, 3), 90, np.uint8)] * 3
    clip = Sample(video=frames, times=[0, 0.5, 2.25], question="?")
    assert gallery.frame_name(clip, 2) == "frame 2 (2.25 s) of 3"
    assert [said for said, _ in gallery.views(clip, "", lambda i: Image.new("L", (1, 1)))] == [
        "frame 0 (0 s) of 3", "frame 1 (0.5 s) of 3", "frame 2 (2.25 s) of 3"
    ]  # fmt: skip


def test_outlines_are_shown_before_boxes() -> None:
    mask = Mask(np.ones((10, 10), np.uint8), image=4)
    masked = Sample(
        images=[np.full((10, 10, 3), 90, np.uint8)] * 5, question="?", boxes=[(1, 1, 5, 5, 1)], masks=[mask]
    )
    assert gallery.shown_frames(masked, 1) == [4]


def test_pictures_are_as_many_in_a_row_as_asked() -> None:
    shown = [(name, Image.new("L", (2, 1))) for name in "abc"]
    for columns, said in ((0, 3), (2, 2)):
        assert f"--columns: {said}" in gallery.sample_card(shown, "?", [], columns=columns)
    assert "--columns: 2" in gallery.picture_grid(shown, 2)
    assert gallery.picture_grid([], 2) == ""
    assert "score" not in gallery.sample_card(shown, "?", [])
    assert '<span class="score">0.5</span>' in gallery.sample_card(shown, "?", [], score="0.5")


def test_samples_are_drawn_by_the_seed_and_shown_in_order() -> None:
    found = [gallery.drawn(range(100), 5, seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert all(one == sorted(set(one)) and len(one) == 5 for one in found)
    assert gallery.drawn([3, 0, 4, 2, 1], 5, 0) == [0, 1, 2, 3, 4]
    assert gallery.drawn(reversed(range(100)), 5, 1) == found[2]  # whatever their order


def test_an_answer_is_coloured_where_it_was_judged() -> None:
    row = {"answer": "yes", "predicted": "no", "correct": False}
    assert str(gallery.answers(row)) == 'answer <b>yes</b> · model <b class="wrong">no</b>'
    assert '<b class="right">' in gallery.answers({**row, "correct": True})
    assert str(gallery.answers({**row, "correct": None})) == "answer <b>yes</b> · model <b>no</b>"
    assert str(gallery.answers({**row, "answer": None})) == "no answer given · model <b>no</b>"
    assert str(gallery.answers({**row, "predicted": None})) == "answer <b>yes</b>"


def test_a_card_escapes_its_question_and_leaves_out_empty_lines() -> None:
    card = gallery.sample_card([("a<b", Image.new("L", (2, 1)))], '<i>"?', ["", "one"], score="0.5")
    assert "<i>" not in card
    assert 'alt="a&lt;b: &lt;i&gt;&#34;?" width="2" height="1"' in card
    assert card.count('<p class="soft">') == 1
    assert str(gallery.origin_line("s<1", "s<1")) == "<code>s&lt;1</code>"
    assert str(gallery.origin_line("s", "g<")) == "<code>s</code> · group g&lt;"


def test_the_colours_of_a_map_run_from_low_to_high() -> None:
    shown = str(gallery.ramp())
    assert shown.startswith(
        '<span class="scale">low <span class="ramp" style="background:linear-gradient(90deg, '
    )
    assert shown.endswith('"></span> high</span>')
    assert shown.index(gallery.MAP[0]) < shown.index(gallery.MAP[-1])


def test_a_crop_is_as_large_as_the_other_pictures() -> None:
    sample = grey(400, 200)
    assert gallery.crop(sample, (0, 0, 100, 50)).size == (300, 150)
    assert gallery.crop(sample, (10, 0, 60, 100)).size == (150, 300)
    assert gallery.crop(sample, (10, 0, 60, 100)).mode == "RGB"
    point = np.asarray(
        gallery.crop_frame(sample, (8, 8, 8, 8))
    )  # an edge of no length has a frame all the same
    assert (point == gallery.CROP_COLOUR).all(-1).any()


def test_hidden_tokens_are_those_of_the_image_that_is_drawn() -> None:
    laid = squash((10, 10), (1, 1))
    places = np.array([0, 1])
    tokens = TokenMap(np.arange(2), np.repeat(laid.boxes, 2, 0), (1, 2), np.repeat(laid.views, 2), places,
                      ((10, 10),) * 2, 4)  # fmt: skip
    kept = np.array([True, False])
    first, second = (np.asarray(gallery.hidden_tokens(several(n=2), tokens, kept, image)) for image in (0, 1))
    assert (first == 90).all()
    assert (second == 20).all()
