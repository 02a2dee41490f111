from __future__ import annotations

from pathlib import Path

import pytest

from interp.data import sa_med2d
from interp.errors import DataError
from tests.data.source_files import MR_SLICE, as_json, image, mask, sa_med2d_folder


def test_boxes_of_all_instances_of_a_class(tmp_path: Path) -> None:
    samples = sa_med2d(sa_med2d_folder(tmp_path))
    tumor, disc = samples
    assert [box.as_tuple() for box in tumor.boxes] == [(2, 2, 8, 8), (20, 4, 30, 12)]
    assert (tumor.question, tumor.answer) == ("Is the tumor core visible?", "yes")
    assert (tumor.group, tumor.meta["modality"], tumor.meta["source"]) == ("BraTS--Case_1", "MR", "BraTS")
    assert samples.skipped == {"pieces of a mask under 4 pixels": 1, "masks without a pixel": 1}
    assert disc.meta["label"] == "optic_disc"


def test_masks_of_the_inverted_source_are_turned(tmp_path: Path) -> None:
    (disc,) = sa_med2d(sa_med2d_folder(tmp_path), sources=["ichallenge_adam_task2"])
    assert [box.as_tuple() for box in disc.boxes] == [(10, 5, 20, 15)]
    assert disc.masks == ()


def test_masks_are_held_beside_the_boxes_if_asked(tmp_path: Path) -> None:
    tumor, disc = sa_med2d(sa_med2d_folder(tmp_path), masks=True)
    assert [int(mask.inside.sum()) for mask in tumor.masks] == [36, 81]  # with the speck that makes no box
    assert disc.masks[0].inside[10, 15]
    assert disc.masks[0].inside.sum() == 100
    assert len(tumor.boxes) == 2


def test_an_empty_mask_is_not_held_and_labels_are_in_order(tmp_path: Path) -> None:
    folder = sa_med2d_folder(tmp_path)
    mask(folder / f"masks/{MR_SLICE}--0000_001.png")
    mask(folder / f"masks/{MR_SLICE}--0001_000.png", (0, 0, 9, 9))
    found = sa_med2d(folder, masks=True, sources=["BraTS"])
    assert [one.meta["label"] for one in found] == ["edema", "tumor_core"]
    assert [len(one.masks) for one in found] == [1, 1]
    assert found[0].id.endswith(":edema")


def test_arguments_and_lists_of_masks_are_checked(tmp_path: Path, unchecked: None) -> None:
    folder = sa_med2d_folder(tmp_path)
    for options, message in (
        ({"masks": 1}, "masks is True or False; got 1"),
        ({"unions": 1}, "unions is True or False; got 1"),
        ({"n": 0}, "n is a number of samples, at least 1"),
        ({"seed": -1}, "seed is a whole number ≥ 0"),
        ({"least": 0}, "least is a whole number of at least 1"),
    ):
        with pytest.raises(DataError, match=message):
            sa_med2d(folder, **options)  # type: ignore[arg-type]
    for listed, message in (
        ("x", "expected a list of masks"),
        ([], "expected a list"),
        ([3], "expected a name like"),
    ):
        as_json(folder / "SAMed2D_v1.json", {f"images/{MR_SLICE}.png": listed})
        with pytest.raises(DataError, match=message):
            sa_med2d(folder)


def test_sources_are_chosen_and_images_drawn(tmp_path: Path) -> None:
    folder = sa_med2d_folder(tmp_path)
    assert sa_med2d(folder, n=1) == sa_med2d(folder, n=1, seed=0)
    assert len({sa_med2d(folder, n=1, seed=seed).fingerprint for seed in range(8)}) == 2
    assert sa_med2d(folder, n=2) == sa_med2d(folder)
    assert {sample.meta["source"] for sample in sa_med2d(folder, n=1, seed=1)} <= {
        "BraTS",
        "ichallenge_adam_task2",
    }
    with pytest.raises(DataError, match=r"no source \['KiTS'\] in SAMed2D_v1\.json; there are \['BraTS'"):
        sa_med2d(folder, sources=["KiTS"])
    with pytest.raises(DataError, match="sources is a list of names"):
        sa_med2d(folder, sources="BraTS")


def test_classes_that_join_others_are_read_only_if_asked(tmp_path: Path) -> None:
    folder = sa_med2d_folder(tmp_path)
    mask(folder / f"masks/{MR_SLICE}--0002_000.png", (0, 0, 9, 9))
    as_json(folder / "SAMed2D_v1.json", {f"images/{MR_SLICE}.png": [f"masks/{MR_SLICE}--0002_000.png"]})
    assert sa_med2d(folder).skipped == {"masks of union_… classes": 1}
    assert sa_med2d(folder, unions=True)[0].meta["label"] == "union_all"


def test_a_bad_mask_is_named_by_file_and_image(tmp_path: Path) -> None:
    folder = sa_med2d_folder(tmp_path)
    path = mask(folder / f"masks/{MR_SLICE}--0000_000.png")
    path.write_bytes(path.read_bytes()[:45])
    with pytest.raises(DataError, match=r"SAMed2D_v1\.json, image 0, field 'masks': .*cannot be read"):
        sa_med2d(folder)
    from PIL import Image

    Image.new("L", (5, 5)).save(path)
    with pytest.raises(DataError, match=r"image 0, field 'masks': mask .* is 5×5 pixels, its image 40×20"):
        sa_med2d(folder)
    path.unlink()
    with pytest.raises(DataError, match="image 0, field 'mask': no file"):
        sa_med2d(folder)
    assert [sample.is_usable for sample in sa_med2d(folder, bad_rows="record")] == [False, True]


def test_unknown_classes_and_names_are_refused(tmp_path: Path) -> None:
    folder = sa_med2d_folder(tmp_path, source="KiTS")
    with pytest.raises(DataError, match="has no source 'BraTS'; it has"):
        sa_med2d(folder)
    folder = sa_med2d_folder(tmp_path)
    as_json(folder / "SAMed2D_v1.json", {f"images/{MR_SLICE}.png": [f"masks/{MR_SLICE}--0009_000.png"]})
    with pytest.raises(DataError, match=r"expected a name like …--0003_001.png with one of the classes"):
        sa_med2d(folder)
    with pytest.raises(DataError, match=r"SAMed2D_v1.json cannot be read"):
        sa_med2d(tmp_path / "none")


def test_an_image_keeps_its_number_among_all_images(tmp_path: Path) -> None:
    folder = sa_med2d_folder(tmp_path)
    (disc,) = sa_med2d(folder, sources=iter(["ichallenge_adam_task2"]))
    assert disc.id == sa_med2d(folder)[1].id == "SAMed2D_v1:1:optic_disc"
    assert [one.id for one in sa_med2d(folder, n=1, sources=["BraTS"])] == ["SAMed2D_v1:0:tumor_core"]


def test_drawn_images_keep_their_order(tmp_path: Path) -> None:
    folder = sa_med2d_folder(tmp_path)
    names = {}
    for case in range(8):
        name = f"ct_00--Kidney--Case_{case}--x_0001"
        image(folder / f"images/{name}.png", level=case)
        mask(folder / f"masks/{name}--0000_000.png", (1, 1, 9, 9))
        names[f"images/{name}.png"] = [f"masks/{name}--0000_000.png"]
    as_json(folder / "SAMed2D_v1.json", names)
    as_json(folder / "SAMed2D_v1_class_mapping_id.json", {"Kidney": {"kidney": 0}})
    for seed in range(4):
        drawn = [one.group for one in sa_med2d(folder, n=4, seed=seed)]
        assert drawn == sorted(drawn)
        assert len(set(drawn)) == 4
