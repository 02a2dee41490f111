"""Scenes are the truth the organism is judged by: boxes and answers are checked against the rendered pixels."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from interp.data.scenes import (
    COLOURS,
    CORNERS,
    SHAPES,
    SIZE,
    MarkedScene,
    Scene,
    Thing,
    marked_samples,
    marked_scenes,
    natural_sample,
    natural_samples,
    natural_scenes,
    random_marked_scene,
    random_scene,
)
from interp.errors import DataError
from studies.organism.counterfactuals import counterfactual


def drawn(thing: Thing) -> np.ndarray:
    """Returns where an object changes the pixels of an otherwise empty scene."""
    empty = Scene((0, 0, 0), (0, 0, 0), 5, ())
    full = dataclasses.replace(empty, things=(thing,))
    return (empty.render() != full.render()).any(-1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [13, 18, 24, 29])
def test_box_is_the_tightest_around_the_drawn_pixels(shape: str, radius: int) -> None:
    thing = Thing(shape, "white", 80, 101, radius)
    rows, cols = np.nonzero(drawn(thing))
    assert thing.box.as_tuple() == (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)


def test_each_shape_covers_its_share_of_its_box() -> None:
    """By area: a cross has two arms of 0.7 × 2 radii that share a square; a ring is hollow within 0.6 radii."""
    shares = {
        "circle": np.pi / 4,
        "square": 1,
        "triangle": 1 / 2,
        "diamond": 1 / 2,
        "ring": np.pi / 4 * (1 - 0.36),
    }
    shares["cross"] = (2 * 2 * 0.7 - 0.7**2) / 4
    assert set(shares) == set(SHAPES)
    for shape, share in shares.items():
        inside = drawn(Thing(shape, "white", 80, 101, 28))
        assert inside.sum() / 57**2 == pytest.approx(share, abs=0.03), shape
        corner, middle = inside[101 + 27, 80 - 27], inside[101, 80]
        assert (bool(corner), bool(middle)) == (shape in ("square", "triangle"), shape != "ring"), shape


def test_one_object_is_replaced_and_no_other() -> None:
    scene = random_scene(np.random.default_rng(3))
    first, *others = scene.things
    other = "white" if first.colour != "white" else "red"
    changed = scene.replace(first.shape, colour=other)
    assert changed.things == (dataclasses.replace(first, colour=other), *others)
    assert len(others) > 0
    assert len(natural_samples("test", 1)) == 1


@pytest.mark.parametrize("colour", COLOURS)
def test_answer_colour_is_the_colour_of_the_pixels(colour: str) -> None:
    scene = Scene((30, 10, 0), (0, 50, 20), 1, (Thing("square", colour, 60, 60, 20),))
    inside = scene.render()[42:79, 42:79].reshape(-1, 3).mean(0)
    assert np.abs(inside - COLOURS[colour]).max() < 6


def test_objects_of_a_scene_do_not_overlap_and_lie_inside() -> None:
    for seed in range(200):
        scene = random_scene(np.random.default_rng(seed))
        assert 1 <= len(scene.things) <= 4
        assert len({t.shape for t in scene.things}) == len(scene.things)
        cover = np.zeros((SIZE, SIZE), int)
        for thing in scene.things:
            x0, y0, x1, y1 = (int(v) for v in thing.box.as_tuple())
            assert 0 <= x0 < x1 <= SIZE
            assert 0 <= y0 < y1 <= SIZE
            cover[y0:y1, x0:x1] += 1
        assert cover.max() == 1


def test_answers_follow_from_the_box() -> None:
    for _, question in natural_scenes("test", 60):
        box = question.thing.box
        centre, width = (box.x0 + box.x1) / 2, box.x1 - box.x0
        if question.about == "side":
            assert question.answer == ("left" if centre < SIZE / 2 else "right")
            assert abs(centre - SIZE / 2) > 10
        if question.about == "size":
            assert question.answer == ("small" if width <= 37 else "large")
            assert not 38 <= width <= 48


def test_kinds_take_turns_and_answers_are_balanced() -> None:
    samples = natural_samples("test", 300)
    assert {s.meta["about"] for s in samples[:3]} == {"colour", "size", "side"}
    for about, chance in (("colour", 1 / 6), ("size", 1 / 2), ("side", 1 / 2)):
        answers = [s.answer for s in samples if s.meta["about"] == about]
        most = max(answers.count(a) for a in set(answers)) / len(answers)
        assert most < chance + 0.15


def test_splits_share_no_scene_and_seeds_differ() -> None:
    pixels = [
        s.load().tobytes() for split in ("train", "validation", "test") for s in natural_samples(split, 20)
    ]
    pixels += [s.load().tobytes() for s in natural_samples("test", 20, seed=1)]
    assert len(set(pixels)) == 80


def test_same_seed_same_samples() -> None:
    assert [s.fingerprint for s in natural_samples("test", 5)] == [
        s.fingerprint for s in natural_samples("test", 9)[:5]
    ]


@pytest.mark.parametrize(
    ("split", "n", "message"),
    [("tset", 5, "split must be one of .* not 'tset'"), ("test", 0, "n must be at least 1 scene, not 0")],
)
def test_bad_arguments_teach(split: str, n: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        natural_samples(split, n)


def test_missing_shape_names_what_there_is() -> None:
    scene = Scene((0, 0, 0), (0, 0, 0), 0, (Thing("ring", "red", 50, 50, 15),))
    with pytest.raises(DataError, match=r"no circle; it has \['ring'\]"):
        scene.find("circle")


def test_counterfactuals_change_only_what_they_say() -> None:
    rng = np.random.default_rng(3)
    made = [counterfactual(scene, q, rng) for scene, q in natural_scenes("validation", 90)]
    kept = [c for c in made if c is not None]
    assert len(kept) > 60
    for c in kept:
        thing = c.question.thing
        x0, y0, x1, y1 = (int(v) for v in thing.box.as_tuple())
        differs = (c.scene.render() != c.inside.render()).any(-1)
        assert differs.any()
        assert c.inside_answer != c.question.answer
        if c.question.about == "colour":
            differs[y0:y1, x0:x1] = False
            assert not differs.any(), "recolouring must not touch a pixel outside the box"
        # outside: the object is redrawn the same; only noise differs inside its own pixels
        mask = drawn(dataclasses.replace(thing, colour="white"))
        before, after = c.scene.render().astype(int)[mask], c.outside.render().astype(int)[mask]
        assert np.abs(before - after).max() <= 24
        assert c.outside.find(thing.shape) == thing
        assert (c.scene.render() != c.outside.render())[~mask].mean() > 0.5


def changed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pixels that differ, bool (row, col)."""
    return (a != b).any(-1)


@pytest.mark.parametrize("seed", range(8))
def test_the_marker_is_its_colour_in_a_black_frame_and_alone(seed):
    marked = random_marked_scene(np.random.default_rng(seed))
    x0, y0, x1, y1 = (int(v) for v in marked.box.as_tuple())
    patch = marked.render()[y0:y1, x0:x1]
    assert (patch[4:-4, 4:-4] == COLOURS[marked.colour]).all()
    frame = np.ones(patch.shape[:2], bool)
    frame[4:-4, 4:-4] = False
    assert (patch[frame] == 0).all()
    outside = changed(marked.render(), marked.scene.render())
    outside[y0:y1, x0:x1] = False
    assert not outside.any()
    for thing in marked.scene.things:
        box = thing.box
        assert box.x1 <= x0 or box.x0 >= x1 or box.y1 <= y0 or box.y0 >= y1
    assert marked.scene.things


@pytest.mark.parametrize("seed", range(8))
def test_recolouring_changes_the_marker_alone(seed):
    rng = np.random.default_rng(seed)
    marked = random_marked_scene(rng)
    other = marked.recoloured(rng)
    assert other.colour != marked.colour
    where = changed(marked.render(), other.render())
    x0, y0, x1, y1 = (int(v) for v in marked.box.as_tuple())
    assert where[y0:y1, x0:x1].any()
    where[y0:y1, x0:x1] = False
    assert not where.any()


@pytest.mark.parametrize("seed", range(8))
def test_changing_all_else_keeps_the_marker(seed):
    rng = np.random.default_rng(seed)
    marked = random_marked_scene(rng)
    thing = marked.scene.things[0]
    other = marked.elsewhere_changed(thing.shape, rng)
    x0, y0, x1, y1 = (int(v) for v in marked.box.as_tuple())
    where = changed(marked.render(), other.render())
    assert not where[y0:y1, x0:x1].any()
    assert where.mean() > 0.5
    moved = other.scene.find(thing.shape)
    assert moved.box == thing.box
    assert moved.colour != thing.colour
    assert len({t.shape for t in other.scene.things}) == len(other.scene.things)


def test_the_object_that_stays_touches_no_new_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        marked = random_marked_scene(rng)
        things = marked.elsewhere_changed(marked.scene.things[0].shape, rng).scene.things
        assert not any(a.touches(b) for a, b in itertools.combinations(things, 2))


def test_marker_and_object_differ_and_every_corner_occurs():
    samples = marked_samples("test", 80)
    assert all(sample.answer != sample.meta["marker_answer"] for sample in samples)
    assert {tuple(sample.meta["marker"][:2]) for sample in samples} == set(CORNERS.values())
    assert {sample.meta["marker_answer"] for sample in samples} == set(COLOURS)
    assert len({sample.id for sample in samples}) == 80


def test_splits_and_seeds_share_no_scene():
    drawn = [marked_scenes(split, 5, seed) for split, seed in (("test", 0), ("train", 0), ("test", 1))]
    pictures = [marked.render().tobytes() for pairs in drawn for marked, _ in pairs]
    assert len(set(pictures)) == 15
    assert [m.render().tobytes() for m, _ in marked_scenes("test", 5, 0)] == pictures[:5]


@pytest.mark.parametrize(
    ("split", "n", "message"),
    [
        ("dev", 3, r"split must be one of \['test', 'train', 'validation'\], not 'dev'"),
        ("test", 0, "at least 1 scene, not 0"),
    ],
)
def test_wrong_requests_are_explained(split, n, message):
    with pytest.raises(DataError, match=message):
        marked_scenes(split, n)


def test_sizes_sides_and_gaps_at_their_limits() -> None:
    sizes = [Thing("ring", "red", 96, 96, radius).size for radius in (13, 18, 19, 24)]
    assert sizes == ["small", "small", "large", "large"]
    assert [Thing("ring", "red", x, 50, 13).side for x in (95, 96, 97)] == ["left", "right", "right"]
    one = Thing("ring", "red", 50, 50, 13)
    steps = ((30, 0), (31, 0), (30, -30), (0, 31))
    near = [one.touches(Thing("square", "red", 50 + dx, 50 + dy, 15)) for dx, dy in steps]
    assert near == [True, False, True, False]


def test_a_thing_near_the_middle_has_no_side() -> None:
    for x, asked in ((84, True), (85, False), (107, False), (108, True)):
        scene = Scene((0, 0, 0), (9, 9, 9), 1, (Thing("ring", "red", x, 50, 13),))
        about = [question.about for question in scene.questions()]
        assert about == ["colour", "size", *(["side"] if asked else [])], x
    colour, size, _ = Scene((0, 0, 0), (9, 9, 9), 1, (Thing("ring", "red", 40, 50, 13),)).questions()
    assert (colour.text, colour.answer) == ("What color is the ring?", "red")
    assert (size.text, size.answer) == ("What size is the ring?", "small")


def test_the_background_goes_from_top_to_bottom_with_grey_noise() -> None:
    pixels = Scene((60, 0, 30), (0, 60, 30), 4, ()).render().astype(int)
    assert pixels.shape == (SIZE, SIZE, 3)
    rows = pixels.mean(1)
    np.testing.assert_allclose(rows[[10, -11]], [[57, 5, 30], [5, 57, 30]], atol=4)
    noise = pixels[..., 2] - 30
    assert (noise.min() in (-13, -12), noise.max()) == (True, 12)  # 30 of the two ends may be cut to 29


def test_a_sample_does_not_depend_on_how_many_there_are() -> None:
    samples = natural_samples("train", 4, seed=2)
    assert natural_sample("train", 3, seed=2) == samples[3]
    (scene, question) = natural_scenes("train", 4, seed=2)[3]
    one = samples[3]
    assert (one.id, one.group) == ("scene-2-train-00003",) * 2
    assert (one.question, one.answer, one.boxes) == (question.text, question.answer, (question.thing.box,))
    assert (one.meta["about"], one.meta["label"]) == (question.about, question.thing.shape)
    assert one.meta["kind"] == ("localization" if question.about == "side" else "attribute")
    np.testing.assert_array_equal(np.asarray(one.load()), scene.render())


def test_a_corner_is_where_its_name_says() -> None:
    scene = Scene((0, 0, 0), (0, 0, 0), 0, ())
    found = {corner: MarkedScene(scene, corner, "red").box.as_tuple() for corner in CORNERS}
    assert found == {
        "top left": (2, 2, 26, 26), "top right": (166, 2, 190, 26), "bottom left": (2, 166, 26, 190),
        "bottom right": (166, 166, 190, 190),
    }  # fmt: skip
    assert random_marked_scene(np.random.default_rng(0), "top right").corner == "top right"


def test_a_marked_sample_tells_its_marker() -> None:
    ((marked, question),) = marked_scenes("train", 1, seed=3)
    (sample,) = marked_samples("train", 1, seed=3)
    assert sample.id == "marked-3-train-00000"
    assert (sample.answer, sample.boxes) == (question.answer, (question.thing.box,))
    assert (sample.meta["marker"], sample.meta["marker_answer"]) == (
        list(marked.box.as_tuple()),
        marked.colour,
    )
    np.testing.assert_array_equal(np.asarray(sample.load()), marked.render())
