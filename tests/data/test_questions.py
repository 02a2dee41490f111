"""Questions about what is present and absent, on pictures whose counts are known by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from interp.data import Samples, presence_questions
from interp.data.questions import Wanted, checked_names, chosen_splits, is_yes_or_no, question_counts
from interp.errors import DataError
from interp.inputs.sample import Sample

PICTURES = (("cat", "dog", "cup"), ("cat", "dog"), ("cat", "lamp"), ("fork", "cup", "lamp"), ("lamp",))
"""cat and lamp are in three pictures, dog and cup in two, fork in one."""


def picture(number: int) -> np.ndarray:
    return np.full((32, 32, 3), 40 * number, np.uint8)


def samples() -> Samples:
    return Samples(
        [
            Sample(picture(i), "?", [(2 * k, 0, 2 * k + 2, 4)], group=f"g{i}", meta={"label": label})
            for i, labels in enumerate(PICTURES)
            for k, label in enumerate(labels)
        ],
        "known",
    )


def absent(found: Samples, kind: str) -> list[list[str]]:
    asked = [s for s in found if s.meta["negatives"] == kind and s.answer == "no"]
    return [[s.meta["label"] for s in asked if s.group == f"g{i}"] for i in range(len(PICTURES))]


def test_questions_are_balanced_true_and_alike_in_every_kind():
    found = presence_questions(samples(), per_picture=2)
    for sample in found:
        there = sample.meta["label"] in PICTURES[int(sample.group[1:])]
        assert sample.answer == ("yes" if there else "no")
        assert bool(sample.boxes) == there
        assert sample.question == f"Is there a {sample.meta['label']} in the image?"
    kinds = Counter((s.meta["negatives"], s.answer) for s in found)
    assert kinds == {(k, a): 9 for k in ("random", "popular", "adversarial") for a in ("yes", "no")}
    present = [
        [s.question for s in found if s.answer == "yes" and s.meta["negatives"] == kind]
        for kind in ("random", "popular", "adversarial")
    ]
    assert present[0] == present[1] == present[2]
    assert len({s.id for s in found}) == len(found)
    own = next(s for s in found if s.answer == "yes" and s.meta["label"] == "lamp" and s.group == "g4")
    assert [tuple(map(int, (b.x0, b.x1))) for b in own.boxes] == [(0, 2)]


def test_popular_and_adversarial_labels_are_those_by_hand():
    found = presence_questions(samples(), per_picture=3)
    assert absent(found, "popular") == [
        ["lamp", "fork"],  # only two are absent, so only two of three are asked about
        ["lamp", "cup"],
        ["cup", "dog"],
        ["cat", "dog"],
        ["cat"],
    ]
    # with cat and dog stand: cup 2 (with each in one picture), lamp 1, fork 0; with lamp: cat 1, cup 1, fork 1, dog 0
    assert absent(found, "adversarial")[1] == ["cup", "lamp"]
    assert absent(found, "adversarial")[2] == [
        "cup",
        "dog",
    ]  # with cat and lamp: dog 2, cup 2, fork 1; ties as above
    assert absent(found, "adversarial")[4] == ["cat"]
    assert sum(len(s.boxes) for s in found if s.group == "g4" and s.answer == "yes") == 3


def test_draws_follow_the_seed_and_leave_out_what_is_present():
    given = samples()
    assert presence_questions(given, "random", seed=1) == presence_questions(given, "random", seed=1)
    drawn = {
        tuple(map(tuple, absent(presence_questions(given, "random", seed=s), "random"))) for s in range(5)
    }
    assert len(drawn) > 1
    known = [s.replace(meta={**s.meta, "present": ["fork", "cup"]}) if s.group == "g1" else s for s in given]
    assert absent(presence_questions(known, "popular", per_picture=3), "popular")[1] == ["lamp"]


def test_what_a_question_keeps_of_its_picture():
    given = Sample(picture(1), "old?", [(0, 0, 4, 4)], "a", ["a", "b"], "g0",
                   {"label": "pine_tree", "present": ["cup"], "view": "left"}, id="p")  # fmt: skip
    other = given.replace(image=picture(2), group="g1", id="q", meta={"label": "fork"})
    blank = given.replace(image=picture(3), id="r", meta={"label": "  "})
    yes, no = presence_questions([given, other, blank], "popular")[:2]
    assert (yes.question, yes.answer, yes.options) == (
        "Is there a pine tree in the image?",
        "yes",
        ("yes", "no"),
    )
    assert dict(yes.meta) == {"label": "pine tree", "view": "left", "negatives": "popular"}
    assert (yes.id, no.id, no.group) == ("p:popular:pine tree", "p:popular:fork", "g0")


def test_kinds_and_splits_that_a_reader_keeps():
    kinds = ("closed", "choice", "open")
    kept = {q: [k for k in kinds if Wanted(q, ("test",)).takes(k, "test")] for q in ("closed", "open", "all")}
    assert kept == {"closed": ["closed", "choice"], "open": ["open"], "all": list(kinds)}
    wanted = Wanted("closed", ("test",))
    assert [wanted.takes(*one) for one in (("choice", "train"), ("open", "test"), ("closed", "test"))] == [
        False,
        False,
        True,
    ]
    assert wanted.left_out == {"multiple-choice questions of train": 1, "open questions of test": 1}
    assert chosen_splits("all", ("train", "test"), "X") == ("train", "test")
    assert chosen_splits("test", ("train", "test"), "X") == ("test",)
    assert [is_yes_or_no(one) for one in ("Yes", " no.", "No, it is not", None)] == [True, True, False, False]
    about = {"benchmark": "B", "split": "test"}
    counted = [Sample(picture(1), "?", meta=meta) for meta in ({**about, "kind": "open"}, about, about)]
    assert question_counts(counted) == {("B", "test", "open"): 1, ("B", "test", ""): 2}


def test_what_cannot_be_asked_is_explained(unchecked):
    for make, said in (
        (
            lambda: presence_questions(samples(), "rare"),
            r"negatives are random, popular, adversarial; got 'rare'",
        ),
        (lambda: presence_questions(samples(), []), r"at least one kind, each once"),
        (lambda: presence_questions(samples(), ["random", "random"]), r"at least one kind, each once"),
        (lambda: presence_questions(samples(), 3), r"negatives is one of random, .*, or a list; got 3"),
        (lambda: presence_questions(samples(), seed=-1), r"seed is a whole number of at least 0"),
        (lambda: Wanted("some", ("test",)), r"questions is 'closed' or 'open' or 'all'; got 'some'"),
        (
            lambda: chosen_splits("dev", ("train", "test"), "X"),
            r"X has the splits train, test, and 'all' .*'dev'",
        ),
        (lambda: chosen_splits(["train"], ("train", "test"), "X"), r"X has the splits train, test"),
        (lambda: checked_names("sets", [], "RAD"), r'sets is a list of names, such as \["RAD"\]; got \[\]'),
        (lambda: checked_names("sets", ["a", 3], "RAD"), r"sets is a list of names"),
        (lambda: checked_names("sets", "a", "RAD"), r"sets is a list of names"),
        (lambda: question_counts(3), r"question_counts takes samples"),
        (
            lambda: presence_questions(samples(), per_picture=0),
            r"per_picture is a whole number of at least 1",
        ),
        (
            lambda: presence_questions([s for s in samples() if s.group == "g4"]),
            r"No question can be made of 1 picture with 1 label",
        ),
        (
            lambda: presence_questions([Sample(picture(0), "?")]),
            r"got 1 sample and none such.*coco_instances",
        ),
        (
            lambda: presence_questions(samples(), question="{x}?"),
            r"question is a text that may hold \{label\}",
        ),
    ):
        with pytest.raises(DataError, match=said):
            make()


def labelled(number: int, label: str, *boxes: tuple[int, int, int, int], **meta: object) -> Sample:
    return Sample(
        picture(number), "?", boxes, group=f"g{number}", meta={"label": label, **meta}, id=f"s{number}"
    )


def asked_about(found: Samples, answer: str) -> list[tuple[str | None, str]]:
    return [(one.group, one.meta["label"]) for one in found if one.answer == answer]


def test_samples_of_one_picture_are_joined_by_label():
    given = [
        labelled(1, "cat", (0, 0, 4, 4), (8, 8, 9, 9)),
        labelled(1, "cat", (8, 8, 9, 9), (5, 5, 7, 7)),
        labelled(2, "dog", (0, 0, 4, 4)),
    ]
    found = presence_questions(given, "popular")
    assert asked_about(found, "yes") == [("g1", "cat"), ("g2", "dog")]
    assert asked_about(found, "no") == [("g1", "dog"), ("g2", "cat")]
    assert [box.as_tuple() for box in found[0].boxes] == [(0, 0, 4, 4), (8, 8, 9, 9), (5, 5, 7, 7)]


def test_only_single_images_with_boxes_are_asked_about():
    pair = Sample(
        images=[picture(3)] * 2, question="?", boxes=[(0, 0, 4, 4)], meta={"label": "bird"}, id="pair"
    )
    broken = Sample.unusable("broken", id="x", meta={"label": "fish"})
    given = [
        labelled(1, "cat", (0, 0, 4, 4)),
        labelled(2, "dog", (0, 0, 4, 4)),
        labelled(4, "cow"),
        pair,
        broken,
    ]
    found = presence_questions(given, "popular")
    assert {one.meta["label"] for one in found} == {"cat", "dog"}
    assert {one.group for one in found} == {"g1", "g2"}


def test_a_label_only_known_as_present_may_be_absent_elsewhere():
    given = [labelled(1, "cat", (0, 0, 4, 4), present=["lamp", "cat"]), labelled(2, "dog", (0, 0, 4, 4))]
    found = presence_questions(given, "popular")
    assert asked_about(found, "yes") == [("g1", "cat"), ("g2", "dog")]
    assert asked_about(found, "no") == [("g1", "dog"), ("g2", "cat")]  # cat before lamp, by the alphabet
    assert {one.meta["label"] for one in presence_questions(given, "random", seed=3)} <= {
        "cat",
        "dog",
        "lamp",
    }
    drawn = {asked_about(presence_questions(given, "random", seed=s), "no")[1][1] for s in range(12)}
    assert drawn == {"cat", "lamp"}


def test_the_present_labels_are_drawn_anew_for_each_picture():
    labels = [f"label {i}" for i in range(8)]
    given = [labelled(i, label, (k, 0, k + 1, 4)) for i in range(6) for k, label in enumerate(labels)]
    given.append(labelled(6, "other", (0, 0, 4, 4)))
    found = presence_questions(given, "popular", per_picture=1)
    drawn = [label for group, label in asked_about(found, "yes") if group != "g6"]
    assert len(drawn) == 6
    assert len(set(drawn)) > 1  # not the first of each, nor one for all
    assert (
        drawn
        != [
            label
            for _, label in asked_about(presence_questions(given, "popular", per_picture=1, seed=1), "yes")
        ][:6]
    )


def test_questions_about_a_picture_hold_no_mask():
    mask = np.zeros((32, 32), np.uint8)
    mask[2:9, 2:9] = 1
    given = [labelled(1, "cat", (0, 0, 4, 4)).replace(masks=[mask]), labelled(2, "dog", (0, 0, 4, 4))]
    assert [one.masks for one in presence_questions(given)] == [()] * 12


def test_what_pictures_without_boxes_show_is_not_asked_about():
    given = [
        labelled(1, "cat", (0, 0, 4, 4)),
        labelled(2, "dog", (0, 0, 4, 4)),
        labelled(3, "cow", present=["zebra"]),
    ]
    assert {one.meta["label"] for one in presence_questions(given)} == {"cat", "dog"}
