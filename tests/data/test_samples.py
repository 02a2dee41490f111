from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from interp.data import Samples
from interp.errors import BoxError, DataError
from interp.inputs.sample import Sample

PICTURE = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)


def grey(value: int, question: str = "What is it?", group: str | None = None) -> Sample:
    return Sample(image=np.full((4, 6), value, np.uint8), question=question, group=group)


@pytest.fixture
def four() -> Samples:
    return Samples([grey(i, group=f"g{i % 2}") for i in range(4)], name="four")


def test_a_slice_is_samples_and_an_index_a_sample(four: Samples) -> None:
    assert isinstance(four[1:3], Samples)
    assert four[1:3].name == "four"
    assert list(four[1:3]) == [four[1], four[2]]
    assert four[-1] == grey(3, group="g1")
    with pytest.raises(IndexError):
        four[4]


def test_filter_keeps_order_and_name(four: Samples) -> None:
    odd = four.filter(lambda sample: sample.group == "g1")
    assert list(odd) == [four[1], four[3]]
    assert odd.name == "four"


def test_fingerprint_is_of_content_and_order_not_of_the_name(four: Samples) -> None:
    assert four.fingerprint == Samples(list(four), name="other").fingerprint
    assert four.fingerprint != four[::-1].fingerprint
    assert four.fingerprint != four[:3].fingerprint
    changed = Samples([four[0].replace(question="Where is it?"), *four[1:]])
    assert four.fingerprint != changed.fingerprint


def test_concatenation(four: Samples) -> None:
    more = Samples([grey(9)], name="more")
    assert list(four + more) == [*four, grey(9)]
    assert (four + more).name == "four + more"
    assert (four + four).name == "four"
    with pytest.raises(TypeError):
        _ = four + 9  # type: ignore[operator]


def test_what_each_side_left_out_is_added_up() -> None:
    one = Samples([grey(1)], "a", {"no answer": 2, "too small": 1})
    other = Samples([grey(2)], "b", {"no answer": 3})
    assert dict((one + other).skipped) == dict((other + one).skipped) == {"no answer": 5, "too small": 1}


@pytest.mark.parametrize("skipped", [3, [("a", 1)], {"a": "b"}, {1: 1}, {"a": 1, "b": None}])
def test_what_was_left_out_is_reasons_and_numbers(skipped: object, unchecked: None) -> None:
    with pytest.raises(DataError, match="skipped says why rows were left out and how many"):
        Samples([], skipped=skipped)  # type: ignore[arg-type]


def test_reasons_that_left_nothing_out_go() -> None:
    assert dict(Samples([], skipped={"none": 0, "some": 2}).skipped) == {"some": 2}
    assert repr(Samples([grey(1)] * 2, "a", {"some": 2})) == "Samples('a': 2 samples; left out: 2 × some)"


def test_splits_are_joined_in_order_and_may_be_missing(four: Samples) -> None:
    assert four.split is None
    names = ("validation", "test", "test", "")
    mixed = Samples([one.replace(meta={"split": name}) for one, name in zip(four, names, strict=True)])
    assert mixed.split == "test + validation"
    assert mixed[1:].split == "test"
    assert (mixed[1:] + four).split == "test"


def test_given_groups_need_no_image(tmp_path: Path) -> None:
    samples = Samples([Sample(tmp_path / "none.png", "q", group=name) for name in "ab"])
    assert samples.groups == ("a", "b")
    assert "pictures" not in vars(samples)  # files are not read for nothing


def test_ids_are_the_samples_ids_in_order(four: Samples) -> None:
    named = Samples([four[0].replace(id="a"), four[1]])
    assert named.sample_ids == ("a", four[1].fingerprint[:12])


def test_only_samples_are_held() -> None:
    with pytest.raises(DataError, match="got a str at place 1"):
        Samples(thing for thing in (grey(0), "scan.png"))  # type: ignore[misc]


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """One picture under three names and as other bytes, and another picture of its size."""
    picture = Image.fromarray(PICTURE)
    picture.save(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "copy.png")
    (tmp_path / "link.png").symlink_to("a.png")
    Image.fromarray(255 - PICTURE).save(tmp_path / "other.png")
    return [
        str(tmp_path / "a.png"),
        f"{tmp_path}/./a.png",
        *(str(tmp_path / f"{n}.png") for n in ("copy", "link")),
    ]


def test_the_default_group_is_the_image_by_content(paths: list[str]) -> None:
    memory = Samples(Sample(image, q) for image in (PICTURE, Image.fromarray(PICTURE)) for q in "ab")
    files = Samples(Sample(path, "q") for path in paths)
    assert len(set(memory.groups)) == len(set(files.groups)) == 1
    other = Sample(paths[0].replace("a.png", "other.png"), "q")
    assert len(set((files + Samples([other])).groups)) == 2
    assert len({*memory.groups, *Samples([grey(3)]).groups}) == 2


def test_an_image_in_memory_and_its_file_are_one_picture(paths: list[str]) -> None:
    other = paths[0].replace("a.png", "other.png")
    mixed = Samples(
        [Sample(PICTURE, "q"), Sample(paths[0], "q"), Sample(other, "q"), Sample(255 - PICTURE, "q")]
    )
    groups = mixed.groups
    assert groups[0] == groups[1] != groups[2] == groups[3]
    assert groups[1] == Samples([mixed[1]]).groups[0]  # a file's name does not depend on the other samples


def test_a_given_group_stays_but_the_picture_is_known(paths: list[str]) -> None:
    samples = Samples([Sample(paths[0], "q", group="a"), Sample(paths[2], "q", group="b")])
    assert samples.groups == ("a", "b")
    assert samples.pictures[0] == samples.pictures[1]


def test_unreadable_images_are_apart_by_path(tmp_path: Path) -> None:
    bad = Sample.unusable("bad row", id="x")
    lost = [Sample(tmp_path / name, "q") for name in ("a.png", "./a.png", "b.png")]
    one, again, other, none = Samples([*lost, bad]).groups
    assert one == again
    assert len({one, other, none}) == 3


def test_boxes_beyond_images_in_memory_are_warned_of() -> None:
    beyond = [Sample(PICTURE, "q", boxes=[(4, 2, 9, 3)]), Sample(PICTURE, "q", boxes=[(1, 1, 2, 2)])]
    with pytest.warns(UserWarning, match="Boxes of 'mine' that end beyond their image: 2 of 3, on 2 samples"):
        samples = Samples([beyond[0], beyond[0], beyond[1]], "mine")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(samples[:2].filter(lambda sample: True)) == 2
        Samples(beyond)  # as many fit as do not


def test_a_box_of_an_image_that_is_missing_is_left_to_the_check() -> None:
    samples = Samples([Sample(PICTURE, "q", boxes=[(1, 1, 2, 2, 1)])])
    samples.warn_of_boxes()
    with pytest.raises(BoxError, match="names image 1, but the sample has 1 image"):
        samples[0].check()


def test_a_name_that_cannot_be_stored_is_escaped() -> None:
    assert Samples([], "caf\udce9").name == r"caf\udce9"


def test_wrong_types_are_named(unchecked: None) -> None:
    with pytest.raises(DataError, match="filter takes a function of a sample; got 3"):
        Samples([]).filter(3)  # type: ignore[arg-type]
    for wrong in (grey(0), 3, "ab"):
        with pytest.raises(
            DataError, match=r"Samples hold a list of Sample values; got \w+. Write \[sample\]"
        ):
            Samples(wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="the name of samples is a text; got int"):
        Samples([], 3)  # type: ignore[arg-type]


def test_repr_counts_samples_and_groups(four: Samples) -> None:
    assert repr(four) == "Samples('four': 4 samples in 2 groups)"
    assert repr(Samples(list(four)[:1], "one")) == "Samples('one': 1 sample in 1 group)"


def test_groups_of_images_are_shown_by_their_files(tmp_path: Path) -> None:
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((9, 9, 3), value, np.uint8)).save(tmp_path / folder / "scan.png")
    files = [tmp_path / "a" / "scan.png", tmp_path / "b" / "scan.png"]
    own = [Sample(file, "?") for file in files]
    given = Samples(
        [*own, Sample(files[0], "??"), Sample(PICTURE, "?"), Sample(files[0], "?", group="patient-3")]
    )
    shown = [given.group_names[group] for group in given.groups]
    first, second = (group.removeprefix("image ")[:8] for group in given.groups[:2])
    assert shown[:3] == [f"scan.png ({first})", f"scan.png ({second})", f"scan.png ({first})"]
    assert shown[3:] == [given.groups[3], "patient-3"]  # an image in memory has no file
    assert len({*shown}) == len({*given.groups})


def test_slices_and_sums_keep_what_was_left_out(four: Samples) -> None:
    left = Samples(list(four), "mine", {"no box": 3})
    for one in (left[1:3], left.filter(lambda sample: False), left.like([], "new")):
        assert dict(one.skipped) == {"no box": 3}
    assert left.like([grey(1)], "new").name == "new"
    assert left.like([grey(1)]).name == "mine"
    assert dict(left.skipped) == {"no box": 3}
    assert left == four
    assert hash(left) == hash(four)
    assert left != list(four)


def test_boxes_are_warned_of_where_most_of_them_end_beyond(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    beyond = Sample(tmp_path / "a.png", "q", boxes=[(4, 2, 9, 3), (5, 1, 8, 2)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = Samples([beyond], "mine")  # no header is read yet
        Samples([beyond.replace(image=tmp_path / "none.png")]).warn_of_boxes()
    with pytest.warns(
        UserWarning, match=r"'mine' that end beyond their image: 2 of 2, on 1 sample\. .*\"xywh\""
    ):
        files.warn_of_boxes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files.warn_of_boxes()  # once
        files[:1].warn_of_boxes()


def test_each_image_has_its_name_and_the_first_is_the_group(paths: list[str]) -> None:
    other = paths[0].replace("a.png", "other.png")
    samples = Samples(
        [Sample(images=[paths[0], other], question="q"), Sample(images=[other, PICTURE], question="q")]
    )
    (first, second), (third, fourth) = samples.pictures
    assert first == fourth != second == third
    assert samples.groups == (f"image {first[:16]}", f"image {second[:16]}")
    assert list(samples.group_names.values()) == [f"a.png ({first[:8]})", f"other.png ({second[:8]})"]


def test_a_file_is_found_among_images_of_several_sizes(paths: list[str]) -> None:
    others = [Sample(np.zeros((9, 9), np.uint8), "q"), Sample(np.zeros((5, 7), np.uint8), "q")]
    names = Samples([others[0], Sample(PICTURE, "q"), others[1], Sample(paths[0], "q")]).pictures
    assert names[1] == names[3]
    assert len(set(names)) == 3
