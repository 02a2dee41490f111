"""Options that several readers share: names, questions, answers, small pieces, and what names a data set of the hub."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.data import (
    Samples,
    coco_instances,
    frame,
    hub,
    medsam,
    medtrinity,
    nifti,
    refcoco,
    s_chain,
    sa_med2d,
    voc,
    yolo,
)
from interp.errors import DataError
from tests.data import source_files as files
from tests.data.volume_files import NAMES, marked_pair


def of_coco(folder: Path, **options: Any) -> Samples:
    path = files.coco_file(folder, [files.thing(1, [4, 2, 10, 8], 22)])
    return coco_instances(path, folder / "val2017", **options)


def of_medsam(folder: Path, **options: Any) -> Samples:
    return medsam(files.medsam_file(folder / "CT_1.npz"), {1: "elephant"}, **options)


def of_sa_med2d(folder: Path, **options: Any) -> Samples:
    files.sa_med2d_folder(folder)
    files.as_json(folder / "SAMed2D_v1_class_mapping_id.json", {"BraTS": {"elephant": 0, "edema": 1}})
    return sa_med2d(folder, sources=["BraTS"], **options)


def of_voc(folder: Path, **options: Any) -> Samples:
    return voc(files.voc_folder(folder, files.voc_object("elephant", 1, 1, 9, 9)), **options)


def of_yolo(folder: Path, **options: Any) -> Samples:
    return yolo(files.yolo_folder(folder, "0 0.5 0.5 0.5 0.5\n", "names: [elephant]\n"), **options)


def of_nifti(folder: Path, **options: Any) -> Samples:
    return nifti(*marked_pair(folder), {1: "elephant"}, slices=[2], **options)


LABELLED = [of_coco, of_medsam, of_sa_med2d, of_voc, of_yolo, of_nifti]


@pytest.mark.parametrize("reader", LABELLED)
def test_name_question_and_answer_are_the_callers(reader: Callable[..., Samples], tmp_path: Path) -> None:
    found = reader(tmp_path, name="mine", question="Where is {a} {label}?", answer=None)
    assert found.name == "mine"
    assert [(one.question, one.answer) for one in found] == [("Where is an elephant?", None)]
    assert reader(tmp_path, answer="ja")[0].answer == "ja"


@pytest.mark.parametrize(("least", "n_boxes", "dropped"), [(1, 3, 0), (37, 1, 2), (36, 2, 1)])
@pytest.mark.parametrize("reader", [of_medsam, of_sa_med2d])
def test_pieces_are_kept_from_the_least_size_on(
    reader: Callable[..., Samples], least: int, n_boxes: int, dropped: int, tmp_path: Path
) -> None:
    found = reader(tmp_path, least=least)
    assert len(found[0].boxes) == n_boxes  # of 36 and 80 pixels, and a speck
    assert found.skipped.get(f"pieces of a mask under {least} pixels", 0) == dropped


LOST = {"image": "none.png", "question": "?", "caption": "A CT slice", "id": "1"}
IN_MEMORY: dict[str, Callable[..., Samples]] = {
    "frame": lambda **options: frame(pd.DataFrame([LOST]), **options),
    "hub": lambda **options: hub([LOST], **options),
    "medtrinity": lambda **options: medtrinity([LOST], **options),
    "s_chain": lambda **options: s_chain([files.s_chain_row(image="none.png")], **options),
}


@pytest.mark.parametrize("name", IN_MEMORY)
def test_bad_rows_in_memory_are_kept_where_asked(name: str) -> None:
    with pytest.raises(DataError, match=r"no file 'none\.png'"):
        IN_MEMORY[name]()
    assert not any(one.is_usable for one in IN_MEMORY[name](bad_rows="record"))


HUB_READERS = {"hub": hub, "medtrinity": medtrinity, "refcoco": refcoco, "s_chain": s_chain}


@pytest.mark.parametrize("name", HUB_READERS)
def test_what_names_a_data_set_of_the_hub_is_passed_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class AskedError(Exception):
        """Ends the call."""

    def opened(source: Any, **given: Any) -> Any:
        asked.append((source, given))
        raise AskedError

    monkeypatch.setattr(importlib.import_module(f"interp.data.readers.{name}"), "opened", opened)
    more = {"revision": "v2"} if name == "hub" else {}
    with pytest.raises(AskedError):
        HUB_READERS[name]("some/set", split="test", config="large", download=True, **more)
    assert asked == [("some/set", {"split": "test", "config": "large", "download": True, **more})]
    with pytest.raises(AskedError):
        HUB_READERS[name]("some/set")
    assert asked[1][1].get("download") is False
    assert asked[1][1]["config"] == ("English" if name == "s_chain" else None)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_volumes_labels_keep_their_names_in_every_plane(plane: str, tmp_path: Path) -> None:
    found = nifti(*marked_pair(tmp_path), NAMES, plane=plane, slices="largest", group="patient", least=1)
    assert {one.meta["label"] for one in found} == {"liver", "tumor"}
    assert {(one.group, one.meta["plane"]) for one in found} == {("patient", plane)}
    assert all(np.asarray(one.load()).shape[:2] == one.sizes[0][::-1] for one in found)
