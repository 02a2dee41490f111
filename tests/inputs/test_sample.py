from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from interp.errors import BoxError, ImageError, SampleError
from interp.inputs.images import LazyImage
from interp.inputs.masks import Mask
from interp.inputs.sample import Box, Sample, as_boxes


def picture(width: int = 8, height: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "scan.png"
    Image.fromarray(picture()).save(file)
    return str(file)


class TestBox:
    def test_values(self):
        box = Box(1, 2.5, 4, 6, image=1)
        assert box.as_tuple() == (1.0, 2.5, 4.0, 6.0)
        assert box.area == 3 * 3.5
        assert box == as_boxes([(np.float32(1), 2.5, np.int64(4), 6, np.int64(1))])[0]

    @pytest.mark.parametrize("edges", [(5, 0, 2, 4), (0, 5, 4, 2), (3, 0, 3, 4), (0, 3, 4, 3)])
    def test_inverted_or_empty(self, edges):
        with pytest.raises(BoxError, match=r"x1 > x0 and y1 > y0.*x \+ width, y \+ height"):
            Box(*edges)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "3", True])
    def test_not_a_number(self, unchecked, value):
        with pytest.raises(BoxError, match="finite numbers of pixels; got x1="):
            Box(0, 0, value, 4)

    @pytest.mark.parametrize("image", [-1, 0.5, True, "0"])
    def test_bad_image(self, unchecked, image):
        with pytest.raises(BoxError, match="an index 0, 1, …"):
            Box(0, 0, 1, 1, image)

    def test_clip(self):
        assert Box(-2, 1, 5, 9, image=1).clip(4, 3) == Box(0, 1, 4, 3, image=1)
        with pytest.raises(BoxError, match="no part inside its 4×3 image"):
            Box(4, 0, 9, 2).clip(4, 3)

    def test_as_boxes_accepts_tuples_boxes_and_rows(self):
        rows = np.array([[0, 0, 2, 2, 1], [1, 1, 3, 3, 0]], float)
        assert as_boxes(rows) == (Box(0, 0, 2, 2, 1), Box(1, 1, 3, 3))
        assert as_boxes([(0, 0, 1, 1), Box(0, 0, 2, 2)]) == (Box(0, 0, 1, 1), Box(0, 0, 2, 2))

    @pytest.mark.parametrize(
        ("boxes", "message"),
        [
            ((0, 0, 4, 4), "bare number 0; write boxes="),
            (Box(0, 0, 4, 4), r"got one box; write boxes=\[\(0.0, 0.0, 4.0, 4.0\)\]"),
            ([(0, 0, 4)], r"got \(0, 0, 4\)"),
            (["0123"], "a box is"),
            (None, "expected a list of boxes"),
            ({"x0": 1}, "expected a list of boxes"),
            ([(0, 0, 4, 4, "a")], "an index 0, 1, …"),
            ([(0, 0, 4, 4, math.nan)], "an index 0, 1, …"),
        ],
    )
    def test_as_boxes_refuses(self, unchecked, boxes, message):
        with pytest.raises(BoxError, match=message):
            as_boxes(boxes)


class TestSample:
    def test_fields(self):
        sample = Sample(
            picture(), "Is there a nodule?", [(1, 1, 4, 4)], "yes", ["yes", "no"], 17, {"label": "nodule"}
        )
        assert sample.boxes == (Box(1, 1, 4, 4),)
        assert (sample.answer, sample.options, sample.group) == ("yes", ("yes", "no"), "17")
        assert sample.meta["label"] == "nodule"
        assert sample.sizes == ((8, 6),)
        assert np.array_equal(np.asarray(sample.load()), picture())

    def test_is_immutable(self):
        array = picture()
        sample = Sample(array, "q", meta={"a": 1})
        before = sample.fingerprint
        with pytest.raises(AttributeError, match=r"use sample.replace\(question=…\)"):
            sample.question = "other"
        with pytest.raises(TypeError):
            sample.meta["a"] = 2
        array[:] = 0
        assert np.array_equal(np.asarray(sample.load()), picture())
        assert Sample(picture(), "q").fingerprint == before

    def test_a_pil_image_changed_later_does_not_matter(self):
        image = Image.fromarray(picture())
        sample = Sample(image, "q")
        image.paste((0, 0, 0), (0, 0, 8, 6))
        assert np.array_equal(np.asarray(sample.load()), picture())

    @pytest.mark.parametrize(
        ("kwargs", "error", "message"),
        [
            ({}, SampleError, "at least one image"),
            ({"images": []}, SampleError, "at least one image"),
            ({"image": "a.png", "images": ["b.png"]}, SampleError, "not both"),
            ({"images": "a.png"}, SampleError, "for one image pass image="),
            ({"image": "a.png", "question": None}, SampleError, "question must be text; got NoneType"),
            ({"image": "a.png", "answer": 3}, SampleError, "answer must be text; got int 3"),
            ({"image": "a.png", "options": "yes"}, SampleError, "options is a list"),
            ({"image": "a.png", "options": [1]}, SampleError, "an option must be text"),
            ({"image": "a.png", "boxes": [(4, 4, 1, 1)]}, BoxError, "x1 > x0"),
            ({"image": 3}, ImageError, "a path, a PIL image or a uint8 array; got int"),
            ({"image": picture().astype(float)}, ImageError, "uint8 array; got float64"),
            ({"image": np.zeros((3, 8, 6), np.uint8)}, ImageError, r"shape \(3, 8, 6\).*channels last"),
            ({"image": np.zeros((0, 6, 3), np.uint8)}, ImageError, "non-empty"),
            ({"image": "a\0.png"}, ImageError, "which no file can have"),
            ({"image": "\ud83d.png"}, ImageError, "which no file can have"),
            ({"images": {"a.png"}}, SampleError, "images= is a list of images in the order"),
            ({"images": 3}, SampleError, "images= is a list of images in the order"),
            (
                {"image": "a.png", "group": math.nan},
                SampleError,
                "group is a text, a whole number or None; got float nan",
            ),
            (
                {"image": "a.png", "group": True},
                SampleError,
                "group is a text, a whole number or None; got bool",
            ),
            ({"image": "a.png", "meta": 3}, SampleError, "meta is a mapping of names to values; got int 3"),
            ({"image": "a.png", "meta": [("a", 1)]}, SampleError, "meta is a mapping"),
        ],
    )
    def test_refuses(self, unchecked, kwargs, error, message):
        with pytest.raises(error, match=message):
            Sample(**kwargs)

    @pytest.mark.parametrize(
        "options",
        [{"a", "b"}, frozenset("ab"), {"A": "a"}, {"a": 1}.keys(), {"A": "a"}.values(), (o for o in "ab"),
         map(str, "ab"), np.array([["a"]]), b"ab", 5],
    )  # fmt: skip
    def test_options_need_an_order_of_their_own(self, unchecked, options):
        with pytest.raises(SampleError, match=r"options is a list of choices in the order.*Write options=\["):
            Sample("a.png", options=options)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ([], "options are choices that are not empty.*Leave options out"),
            (["a", " "], "options are choices that are not empty"),
            (["a", "b", "a"], "each option is given once; 'a' is given 2 times"),
            (["a", "a "], "each option is given once"),
            (["é", "e\u0301"], "each option is given once"),
        ],
    )
    def test_options_are_there_and_differ(self, options, message):
        with pytest.raises(SampleError, match=message):
            Sample("a.png", options=options)

    def test_options_in_order(self):
        assert Sample("a.png", options=np.array(["b", "a"])).options == ("b", "a")
        assert Sample("a.png", options=["a", "A", "a+"]).options == ("a", "A", "a+")

    @pytest.mark.parametrize("bad", ["\ud83d", "\0", "\x1b"])
    @pytest.mark.parametrize(
        ("field", "wrap"),
        [
            ("question", str),
            ("answer", str),
            ("group", str),
            ("id", str),
            ("an option", lambda text: {"options": ["a", text]}),
            ("meta\\['label'\\]", lambda text: {"meta": {"label": text}}),
            ("a key of meta", lambda text: {"meta": {text: 1}}),
        ],
    )
    def test_text_that_cannot_be_stored_names_its_field(self, field, wrap, bad):
        changes = wrap(f"x{bad}")
        with pytest.raises(
            SampleError, match=f"^{field} holds the (lone surrogate|control character) .* at position 1"
        ):
            Sample("a.png", **({field: changes} if isinstance(changes, str) else changes))

    def test_a_file_name_that_is_not_utf8_works(self, tmp_path):
        name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\x1b.png")
        with open(name, "wb") as file:
            Image.fromarray(picture()).save(file, "png")
        sample = Sample(name, "q")
        assert np.array_equal(np.asarray(sample.load()), picture())
        assert Sample.from_dict(json.loads(json.dumps(sample.to_dict()))) == sample
        assert repr(sample).encode()
        assert len(sample.id) == 12

    def test_a_stand_in_for_an_unreadable_row_raises_its_reason(self):
        bad = Sample.unusable("rows.jsonl, line 3: broken \ud83d", id="rows:3", group="g")
        uses = (bad.check, bad.check_units, bad.load, bad.to_dict, lambda: bad.sizes, lambda: bad.image)
        for use in (*uses, lambda: bad.image_fingerprints):
            with pytest.raises(SampleError, match=r"rows.jsonl, line 3: broken \\ud83d"):
                use()
        assert (bad.id, bad.group, bad.is_usable, bad.images) == ("rows:3", "g", False, ())
        assert (bad.fault, Sample(picture()).fault) == (r"rows.jsonl, line 3: broken \ud83d", None)
        other = bad.replace(meta={"split": "test"}, question="?")
        assert (other, other.id, other.meta["split"]) == (bad, "rows:3", "test")
        assert pickle.loads(pickle.dumps(bad)) == bad != Sample.unusable("another", id="rows:3")

    def test_unknown_fields_are_named(self, unchecked, path):
        with pytest.raises(SampleError, match=r"a sample has the fields image, .*got \['nothing'\]"):
            Sample(path).replace(nothing=1)
        with pytest.raises(SampleError, match="reads a mapping of a sample's fields; got 3"):
            Sample.from_dict(3)

    def test_several_images(self, path):
        sample = Sample(images=[path, picture(4, 10)], boxes=[Box(0, 0, 3, 9, image=1)])
        assert sample.image == path
        assert sample.sizes == ((8, 6), (4, 10))
        assert sample.load(1).size == (4, 10)
        sample.check()
        with pytest.raises(SampleError, match=r"has 2 images, 0 … 1; got 2"):
            sample.load(2)

    def test_boxes_and_masks_are_checked_against_their_own_image(self, path, tmp_path):
        both = {"images": [path, picture(4, 10)]}
        tall = np.zeros((10, 4), np.uint8)
        tall[8:, :2] = 1
        held = Sample(**both, masks=[Mask(tall, image=1)])
        held.check()
        (box,) = held.boxes
        assert (box, box.frame) == (Box(0, 8, 2, 10, image=1), None)
        with pytest.raises(BoxError, match="the mask is 4×10, image 0 is 8×6"):
            Sample(**both, masks=[Mask(tall)]).check()
        assert Sample(**both).in_memory == (False, True)
        fractions = [Box(0.1, 0.1, 0.5, 0.5, image=1)]
        with pytest.raises(BoxError, match="every edge of box"):
            Sample(**both, boxes=fractions)
        late = Sample(
            images=[picture(), tmp_path / "late.png"], boxes=fractions
        )  # the file is not opened yet
        Image.fromarray(picture()).save(tmp_path / "late.png")
        for _ in range(2):
            with pytest.raises(BoxError, match="every edge of box"):
                late.check_units()
        with pytest.raises(BoxError, match="names image 2, but the sample has 2 images"):
            Sample(**both, boxes=[(0, 0, 1, 1, 2)], box_format="fraction")
        written = Sample(**both, boxes=[(0, 0, 0.5, 0.4, 1)], box_format="fraction")
        assert written.boxes == (Box(0, 0, 2, 4, image=1),)

    @pytest.mark.parametrize("option", [{"fps": 2}, {"times": [0.0]}, {"n_frames": 1}, {"video_fps": 1}])
    def test_options_of_a_video_need_one(self, option):
        with pytest.raises(SampleError, match=f"{next(iter(option))}= belongs to a video"):
            Sample("a.png", **option)

    @pytest.mark.parametrize("box", [(0, 0, 8, 6), (-0.4, 0, 8.5, 6.5)])
    def test_check_accepts_half_a_pixel(self, box):
        Sample(picture(), boxes=[box]).check()

    @pytest.mark.parametrize(
        "box", [(0, 0, 8.6, 6), (0, 0, 8, 6.6), (-0.6, 0, 8, 6), (0, -1, 8, 6), (20, 20, 30, 30)]
    )
    def test_check_refuses_boxes_outside(self, box):
        with pytest.raises(BoxError, match=r"outside image 0, which is 8×6 pixels.*box.clip\(8, 6\)"):
            Sample(picture(), boxes=[box]).check()

    def test_check_refuses_a_missing_image(self):
        with pytest.raises(BoxError, match=r"names image 1, but the sample has 1 image"):
            Sample(picture(), boxes=[(0, 0, 1, 1, 1)]).check()


class TestFingerprint:
    def test_follows_content_only(self, path, tmp_path):
        other = tmp_path / "copy.png"
        shutil.copy(path, other)
        one, two = Sample(path, "q", group="a"), Sample(other, "q", group="a", meta={"x": 1}, id="named")
        assert one.fingerprint == two.fingerprint
        assert one == two
        assert len({one, two}) == 1
        assert one.id == one.fingerprint[:12]
        assert two.id == "named"

    @pytest.mark.parametrize(
        "change",
        [
            {"question": "r"},
            {"boxes": [(0, 0, 1, 2)]},
            {"boxes": []},
            {"answer": "no"},
            {"answer": None},
            {"options": ["a"]},
            {"group": "b"},
            {"image": picture(seed=1)},
            {"images": [picture(), picture()]},
        ],
    )
    def test_changes_with_each_field(self, change):
        sample = Sample(picture(), "q", [(0, 0, 1, 3)], "yes", None, "a", id=None)
        changed = sample.replace(**change)
        assert changed.fingerprint != sample.fingerprint
        assert changed.id != sample.id
        assert changed != sample

    def test_in_memory_images_count_by_pixels(self):
        array, image = Sample(picture(), "q"), Sample(Image.fromarray(picture()), "q")
        assert array.fingerprint == image.fingerprint
        flat = Sample(picture().reshape(3, 16, 3), "q")  # the same bytes in another shape
        assert flat.fingerprint != array.fingerprint

    def test_a_missing_file_still_has_an_id(self):
        sample = Sample("nowhere.png", "q")
        assert sample.id == Sample("nowhere.png", "q").id != Sample("elsewhere.png", "q").id
        assert hash(sample) == hash(Sample("nowhere.png", "q"))
        with pytest.raises(ImageError, match=r"'nowhere.png'"):
            _ = sample.fingerprint


class TestRoundTrips:
    def test_json(self, path):
        sample = Sample(path, "q", [(0, 0, 1.5, 2)], "yes", ["yes", "no"], "a", {"k": [1]}, id="x")
        read = Sample.from_dict(json.loads(json.dumps(sample.to_dict())))
        assert read.to_dict() == sample.to_dict()
        assert read == sample
        assert read.boxes == sample.boxes
        assert Sample.from_dict({"image": path, "question": "q"}) == Sample(path, "q")

    def test_json_has_every_field(self, path):
        plain = {"images": [path], "question": "q", "boxes": [[0, 0, 1.5, 2, 0]], "answer": "yes",
                 "options": ["yes", "no"], "group": "a", "meta": {"k": [1]}, "id": "x"}  # fmt: skip
        assert (
            Sample(path, "q", [(0, 0, 1.5, 2)], "yes", ["yes", "no"], "a", {"k": [1]}, id="x").to_dict()
            == plain
        )
        pixels = Sample(path, boxes=[(0, 0, 2, 2), (0, 0, 1, 1)], box_format="xyxy").to_dict()
        assert pixels["box_format"] == "xyxy"
        Sample.from_dict(pixels).check_units()
        with pytest.raises(SampleError, match="meta of sample x holds a value that JSON cannot store"):
            Sample(path, meta={"k": math.nan}, id="x").to_dict()

    def test_json_refuses(self, path):
        with pytest.raises(SampleError, match=r"image 0 .* in memory \(ndarray\).*Save it to a file"):
            Sample(picture()).to_dict()
        with pytest.raises(SampleError, match=r"meta .* JSON cannot"):
            Sample(path, meta={"k": np.zeros(2)}).to_dict()
        with pytest.raises(SampleError, match=r"got \['bbox'\]. Put extras under meta"):
            Sample.from_dict({"image": path, "bbox": []})

    def test_pickle(self, path):
        for image in (path, picture(), Image.fromarray(picture())):
            sample = Sample(image, "q", [(0, 0, 1, 2, 0)], meta={"k": 1}, id="x")
            read = pickle.loads(pickle.dumps(sample))
            assert read == sample
            assert (read.id, dict(read.meta), read.boxes) == ("x", {"k": 1}, sample.boxes)
            assert np.array_equal(np.asarray(read.load()), np.asarray(sample.load()))


def test_an_image_that_is_read_later_shows_its_name() -> None:
    assert "Sample([slice 3 of ct.nii.gz], " in repr(Sample(LazyImage(picture, "slice 3 of ct.nii.gz"), "?"))


def test_every_box_is_checked_not_only_the_first():
    good, beyond = (0, 0, 4, 4), (0, 0, 4, 9)
    with pytest.raises(BoxError, match=r"box \(0.0, 0.0, 4.0, 9.0\) reaches outside image 0"):
        Sample(picture(), boxes=[good, beyond]).check()
    with pytest.raises(BoxError, match="names image 3, but the sample has 1 image"):
        Sample(picture(), boxes=[good, (*good, 3)]).check()
    with pytest.raises(BoxError, match="every edge of box"):
        Sample(picture(), boxes=[good, (0, 0, 0.5, 0.5)])


@pytest.mark.parametrize("i", [-1, 2, 1.0, "0", None])
def test_only_images_that_there_are_can_be_loaded(unchecked, i):
    sample = Sample(images=[picture(), picture(seed=1)])
    assert np.array_equal(np.asarray(sample.load(np.int64(1))), picture(seed=1))
    with pytest.raises(SampleError, match=r"the sample has 2 images, 0 … 1; got"):
        sample.load(i)


def test_a_fingerprint_is_the_hash_of_what_is_asked(path):
    """By another path: a stored study finds its samples by it, so it may never change."""
    mask = np.zeros((6, 8), bool)
    mask[2, 3] = True
    sample = Sample(path, "q", [(1, 2, 3, 4)], "yes", ["yes", "no"], "p1", {"k": 1}, masks=[mask])
    with open(path, "rb") as file:
        image = hashlib.sha256(file.read()).hexdigest()
    inside = hashlib.sha256(b"None 0 (6, 8)" + np.packbits(mask).tobytes()).hexdigest()
    words = [image, "q", [[1.0, 2.0, 3.0, 4.0, 0]], "yes", ["yes", "no"], "p1"]
    assert sample.image_fingerprints == (image,)
    assert sample.fingerprint == hashlib.sha256(json.dumps([*words, ["masks", inside]]).encode()).hexdigest()
    assert sample.replace(masks=()).fingerprint == hashlib.sha256(json.dumps(words).encode()).hexdigest()
    memory = hashlib.sha256(b"(8, 6)" + picture().tobytes()).hexdigest()
    assert Sample(picture()).image_fingerprints == (memory,)


def test_a_change_of_images_takes_the_place_of_all(path):
    two = Sample(images=[path, picture()], question="q", answer="yes", group="g", meta={"k": 1}, id="x")
    one = two.replace(image=picture(4, 4))
    assert (one.sizes, one.question, one.answer, one.group, one.id) == (((4, 4),), "q", "yes", "g", "x")
    assert dict(one.meta) == {"k": 1}
    assert two.replace(images=[picture(4, 4)] * 3).sizes == ((4, 4),) * 3
    assert two.sizes == ((8, 6), (8, 6))  # the sample itself stays


def test_a_sample_shows_what_it_holds(path):
    mask = np.ones((6, 8), bool)
    sample = Sample(path, "where?", [(0, 0, 2, 2), (1, 1, 3, 3)], "left", masks=[mask])
    assert repr(sample) == f"Sample([{path}], 'where?', boxes=2, masks=1, answer='left')"
    assert repr(Sample(images=[picture()] * 4)).startswith("Sample([ndarray, ndarray, ndarray, ndarray], ")
    assert "ndarray, and 1 more]" in repr(Sample(images=[picture()] * 5))
    assert repr(Sample.unusable("broken", id="r3")) == "Sample.unusable('broken', id='r3')"


def test_boxes_of_the_second_image_are_written_and_hashed(path):
    own = Sample(images=[path, path], boxes=[Box(0, 0, 3, 3), Box(1, 1, 4, 4, image=1)])
    assert own.to_dict()["boxes"] == [[0, 0, 3, 3, 0], [1, 1, 4, 4, 1]]
    assert Sample.from_dict(own.to_dict()).boxes == own.boxes
    other = own.replace(boxes=[Box(0, 0, 3, 3), Box(1, 1, 4, 4)])
    assert other.fingerprint != own.fingerprint


def test_one_stated_box_of_pixels_is_kept_among_others(path):
    mixed = Sample(path, boxes=[Box(0, 0, 1, 1, pixels=True), (2, 2, 4, 4)])
    assert mixed.to_dict()["box_format"] == "xyxy"
    Sample.from_dict(mixed.to_dict()).check()
    assert "box_format" not in Sample(path, boxes=[(2, 2, 4, 4)]).to_dict()


def test_a_default_id_is_not_written_and_follows_the_content(path):
    plain = Sample(path, "q")
    assert plain.to_dict()["id"] is None
    assert Sample.from_dict({**plain.to_dict(), "question": "r"}).id != plain.id
    assert pickle.loads(pickle.dumps(plain)).replace(question="r").id != plain.id


def test_meta_does_not_change_with_what_it_was_made_of(path):
    meta = {"label": "nodule"}
    sample = Sample(path, meta=meta)
    meta["label"] = "mass"
    assert sample.meta["label"] == "nodule"
    assert Sample.unusable("broken", id="r3", meta=meta).meta["label"] == "mass"
