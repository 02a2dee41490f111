from __future__ import annotations

import re
from pathlib import Path

import pytest

from interp.data import voc
from interp.errors import DataError
from tests.data.source_files import voc_folder, voc_object

BOMB = '<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>\n'


def test_voc_counts_from_one_and_includes_the_last_pixel(tmp_path: Path) -> None:
    folder = voc_folder(
        tmp_path,
        voc_object("cat", 1, 1, 40, 20),
        voc_object("dog", 5, 3, 5, 3),
        voc_object("cat", 2, 3, 4, 5, difficult=1),
    )
    cat, dog = voc(folder)
    assert [box.as_tuple() for box in cat.boxes] == [(0, 0, 40, 20), (1, 2, 4, 5)]
    assert dog.boxes[0].as_tuple() == (4, 2, 5, 3)
    assert (dog.question, dog.answer, dog.group) == ("Is there a dog in the image?", "yes", "2007_000001")
    assert (cat.meta["difficult"], dog.meta["difficult"]) == (True, False)


def test_other_counting_and_difficult_objects(tmp_path: Path) -> None:
    folder = voc_folder(
        tmp_path,
        voc_object("cat", 4, 2, 14, 10),
        voc_object("cat", 3, 3, 3, 9),
        voc_object("cat", 1, 1, 9, 9, difficult=1),
    )
    samples = voc(folder, box_format="xyxy", difficult="skip")
    assert [box.as_tuple() for box in samples[0].boxes] == [(4, 2, 14, 10)]
    assert samples.skipped == {"objects marked as difficult": 1, "boxes without an area": 1}
    with pytest.raises(DataError, match="pass box_format=None, 'xyxy' or 'fraction'"):
        voc(folder, box_format="xywh")


def test_other_folders_formats_and_sizes(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path / "a", voc_object("cat", 0.1, 0.1, 0.5, 0.5))
    (cat,) = voc(folder, box_format="fraction")
    assert cat.boxes[0].as_tuple() == (4, 2, 20, 10)
    assert (
        voc(folder, box_format="fraction").name,
        voc(folder, name="mine", box_format="fraction").name,
    ) == (
        "a",
        "mine",
    )
    picture = folder / "JPEGImages/2007_000001.jpg"
    for place in ("elsewhere", "Annotations"):  # beside its file too
        (folder / place).mkdir(exist_ok=True)
        picture = picture.rename(folder / place / picture.name)
        images = folder / "elsewhere" if place == "elsewhere" else None
        assert str(voc(folder, images=images, box_format="fraction")[0].image) == str(picture)
    with pytest.raises(DataError, match="difficult is 'keep' or 'skip'"):
        voc(folder, difficult="drop")
    xml = folder / "Annotations/2007_000001.xml"
    xml.write_text(re.sub(r"<width>\d+", "<width>-40", xml.read_text()))
    with pytest.raises(
        DataError, match="field 'size': expected width and height in pixels, got '-40' × '20'"
    ):
        voc(folder)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (voc_object("cat", 1, 1, "x", 4), "line 7, field 'xmax': expected a number, got 'x'"),
        (voc_object("cat", 9, 1, 5, 4), "line 7, field 'bndbox': xmax and ymax lie before"),
        (voc_object("cat", 1, 9, 5, 4), "line 7, field 'bndbox': xmax and ymax lie before"),
        ("  <object><name>cat</name></object>\n", "line 4, field 'object': expected a name and a bndbox"),
        (voc_object("cat", 1, 1, 60, 4), "line 1, field 'bndbox': cat: box .* outside"),
        ("  <object>\n", "line 5: not XML"),
    ],
)
def test_a_bad_object_is_named_by_file_and_line(tmp_path: Path, objects: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"2007_000001\.xml, {message}"):
        voc(voc_folder(tmp_path, objects))


def test_document_types_and_entities_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2007_000001\.xml, line 1: it declares a document type"):
        voc(voc_folder(tmp_path, "<object>&b;</object>", head=BOMB))
    outside = '<!DOCTYPE a SYSTEM "file:///etc/passwd">\n'
    with pytest.raises(DataError, match="declares a document type"):
        voc(voc_folder(tmp_path, head=outside))
    with pytest.raises(DataError, match="nested too deep"):
        voc(voc_folder(tmp_path, "<a>" * 2000 + "</a>" * 2000))


def test_missing_images_and_folders(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path, voc_object("cat", 1, 1, 9, 9))
    (folder / "JPEGImages/2007_000001.jpg").unlink()
    with pytest.raises(
        DataError, match=r"line 2, field 'filename': no file '2007_000001\.jpg' in .*JPEGImages"
    ):
        voc(folder)
    assert not voc(folder, bad_rows="record")[0].is_usable
    with pytest.raises(DataError, match=r"no \.xml files in"):
        voc(tmp_path / "JPEGImages")


def test_files_and_classes_come_in_order_with_their_marks(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path, voc_object("dog", 1, 1, 9, 9), name="b")
    text = voc_object("dog", 1, 1, 9, 9).replace("<difficult>", "<truncated>1</truncated><difficult>")
    voc_folder(tmp_path, text, voc_object("cat", 2, 2, 8, 8), voc_object("dog", 11, 1, 19, 9), name="a")
    found = voc(folder)
    about = [(one.group, one.meta["label"], len(one.boxes), one.meta["truncated"]) for one in found]
    assert about == [("a", "cat", 1, False), ("a", "dog", 2, True), ("b", "dog", 1, False)]
    assert [Path(str(one.image)).stem for one in found] == ["a", "a", "b"]


def test_an_unknown_size_is_not_checked(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path, voc_object("cat", 1, 1, 60, 4))
    xml = folder / "Annotations/2007_000001.xml"
    whole = xml.read_text()
    xml.write_text(re.sub(r"<width>\d+", "<width>0", whole))
    assert len(voc(folder)) == 1
    xml.write_text(re.sub(r"<size>.*</size>", "", whole))
    assert len(voc(folder)) == 1


def test_a_file_without_a_filename_has_the_picture_of_its_name(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path, voc_object("cat", 1, 1, 9, 9))
    xml = folder / "Annotations/2007_000001.xml"
    xml.write_text(re.sub(r"<filename>.*</filename>", "", xml.read_text()))
    assert Path(str(voc(folder)[0].image)).name == "2007_000001.jpg"
    xml.write_text("<other/>")
    with pytest.raises(DataError, match="expected <annotation>, got <other>"):
        voc(folder)
