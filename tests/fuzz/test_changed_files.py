"""Files of data sets with values and bytes changed: readers read them or refuse them in our words, and never hang."""

from __future__ import annotations

import copy
import json
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from interp import data
from tests.data import source_files as files
from tests.data.benchmarks import layouts
from tests.fuzz.trials import bare_error

pytestmark = pytest.mark.usefixtures("unchecked")

VALUES: list[Any] = [
    *(None, True, 0, -1, 1.5, 1e300, 10**30, "", "x", "a\0b", "\ud800", "/dev/zero", "../..", "é" * 3000),
    *([], [None], [[]], {}, {"x": 1}, [1, 2], [1, 2, 3, 4], [[[[1]]]], "[1,2", "nan"),
]
PIECES = [b"<a>", b",", b'"', b"\n", b"0", b"-", b"nan", b"1e999", b"\xff", b"[", b"{", b"&x;"]


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a JSON value."""
    yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*place, key))


def changed_value(drawn: random.Random, value: Any) -> Any:
    """The value with one part of it replaced or left out."""
    made, new = copy.deepcopy(value), copy.deepcopy(drawn.choice(VALUES))
    place = drawn.choice(list(places(made)))
    if not place:
        return new
    holder = made
    for key in place[:-1]:
        holder = holder[key]
    if drawn.random() < 0.2:
        del holder[place[-1]]
    else:
        holder[place[-1]] = new
    return made


def changed_bytes(drawn: random.Random, content: bytes) -> bytes:
    """The bytes with some replaced, left out or put in."""
    made = bytearray(content)
    for _ in range(drawn.choice([1, 2, 4])):
        at = drawn.randrange(len(made) + 1)
        made[at : at + drawn.choice([0, 0, 1, 7])] = drawn.choice([*PIECES, bytes([drawn.randrange(256)])])
    return bytes(made)


def _coco(folder: Path) -> Path:
    square = {
        "size": [files.HEIGHT, files.WIDTH],
        "counts": [files.HEIGHT * 3, 17, files.HEIGHT * files.WIDTH - 77],
    }
    polygon = [[4, 2, 14, 2, 14, 10]]
    things = [files.thing(i, [1, 1, 9, 9], segmentation=one) for i, one in enumerate((polygon, square))]
    return files.coco_file(folder, things)


def _written(folder: Path, name: str, text: str) -> Path:
    files.image(folder / "a.png")
    (folder / name).write_text(text)
    return folder / name


def _chain() -> str:
    return json.dumps([{**files.s_chain_row(), "image": "a.png"}])


CSV = 'image,question,answer,options,bbox\na.png,?,yes,yes|no,"[1,2,3,4]"\na.png,"a ""b""",,,"[[1,2,3,4],[5,6,7,8]]"\n'
ROW = json.dumps([{"image": "a.png", "question": "?", "caption": "c", "id": "1", "bbox": [1, 2, 3, 4]}])
LINES = "0 0.5 0.5 0.5 0.5\n1 0.1 0.1 0.3 0.1 0.3 0.4\n"

Target = tuple[Callable[[Path], Any], str, Callable[[Path], Any]]
TARGETS: dict[str, Target] = {
    "coco": (_coco, "annotations/*.json", lambda one: data.coco_instances(one, one.parents[1] / "val2017")),
    "coco masks": (
        _coco,
        "annotations/*.json",
        lambda one: data.coco_instances(one, one.parents[1] / "val2017", boxes="segmentation", crowd="keep"),
    ),
    "voc": (
        lambda folder: files.voc_folder(folder, files.voc_object("cat", 1, 1, 9, 9)),
        "Annotations/*.xml",
        lambda one: data.voc(one.parents[1]),
    ),
    "yolo": (
        lambda folder: files.yolo_folder(folder, LINES),
        "labels/val/a.txt",
        lambda one: data.yolo(one.parents[2]),
    ),
    "yolo names": (
        lambda folder: files.yolo_folder(folder, LINES),
        "data.yaml",
        lambda one: data.yolo(one.parent),
    ),
    "slake": (
        lambda folder: files.slake_folder(folder, files.slake_row()),
        "test.json",
        lambda one: data.slake(one.parent),
    ),
    "slake boxes": (
        lambda folder: files.slake_folder(folder, files.slake_row()),
        "imgs/*/detection.json",
        lambda one: data.slake(one.parents[2]),
    ),
    "slake masks": (
        lambda folder: files.slake_folder(folder, files.slake_row()),
        "imgs/*/mask.png",
        lambda one: data.slake(one.parents[2], masks={7: "Liver"}),
    ),
    "sa_med2d": (files.sa_med2d_folder, "SAMed2D_v1.json", lambda one: data.sa_med2d(one.parent)),
    "sa_med2d classes": (files.sa_med2d_folder, "*_id.json", lambda one: data.sa_med2d(one.parent)),
    "medsam": (
        lambda folder: files.medsam_file(folder / "CT.npz"),
        "CT.npz",
        lambda one: [sample.load() for sample in data.medsam(one)],
    ),
    "medsg": (lambda folder: files.medsg_folder(folder, files.medsg_row()), "Task3.json", data.medsg),
    "vqa_rad": (
        lambda folder: layouts.vqa_rad_folder(folder, layouts.vqa_rad_row(1, "?", "yes")),
        "*.json",
        lambda one: data.vqa_rad(one.parent, questions="all", split="all"),
    ),
    "vqa_rad table": (
        lambda folder: layouts.hub_folder(folder, test=[("?", "yes")]),
        "data/*.parquet",
        lambda one: [sample.load() for sample in data.vqa_rad(one.parents[1])],
    ),
    "pmc_vqa": (
        lambda folder: layouts.pmc_vqa_folder(folder, layouts.pmc_vqa_row()),
        "*.csv",
        lambda one: data.pmc_vqa(one.parent),
    ),
    "omnimedvqa": (
        lambda folder: layouts.omnimedvqa_folder(folder, layouts.omnimedvqa_row()),
        "QA_information/*/*.json",
        lambda one: data.omnimedvqa(one.parents[2]),
    ),
    "mmmu": (
        lambda folder: layouts.mmmu_folder(folder, layouts.mmmu_row()),
        "*/*.parquet",
        lambda one: data.mmmu(one.parents[1], split="validation", subjects=["Pharmacy"]),
    ),
    "huatuo": (
        lambda folder: layouts.huatuo_folder(folder, layouts.huatuo_row()),
        "*.json",
        lambda one: data.huatuo(one.parent),
    ),
    "refcoco": (
        files.refcoco_files,
        "refs.json",
        lambda one: data.refcoco(one, one.parent / "train2014", instances=one.parent / "instances.json"),
    ),
    "refcoco boxes": (
        files.refcoco_files,
        "instances.json",
        lambda one: data.refcoco(one.parent / "refs.json", one.parent / "train2014", instances=one),
    ),
    "csv": (lambda folder: _written(folder, "rows.csv", CSV), "rows.csv", data.csv),
    "hub": (lambda folder: _written(folder, "rows.json", ROW), "rows.json", data.hub),
    "medtrinity": (lambda folder: _written(folder, "rows.json", ROW), "rows.json", data.medtrinity),
    "s_chain": (lambda folder: _written(folder, "rows.json", _chain()), "rows.json", data.s_chain),
}
"""Name → what makes the files, which of them is changed, and what reads them."""


def tried(folder: Path, name: str, n: int, seed: int) -> list[str]:
    """What went wrong in n readings, each of one changed file."""
    make, pattern, read = TARGETS[name]
    make(folder)
    (path,) = folder.glob(pattern)
    content, drawn, wrong = path.read_bytes(), random.Random(seed), []
    for _ in range(n):
        as_json = path.suffix == ".json" and drawn.random() < 0.8
        changed = (
            json.dumps(changed_value(drawn, json.loads(content))).encode()
            if as_json
            else changed_bytes(drawn, content)
        )
        path.write_bytes(changed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            said = bare_error(lambda: read(path))
        if said:
            wrong.append(f"{said} in {changed[:2000]!r}")
    shutil.rmtree(folder, ignore_errors=True)
    return wrong


@pytest.mark.parametrize("name", TARGETS)
def test_a_changed_file_is_read_or_refused(tmp_path: Path, name: str) -> None:
    assert tried(tmp_path / "made", name, 8, 0) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many_changed_files_are_read_or_refused(
    tmp_path: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    assert tried(tmp_path / "made", name, 400, 1) == []
    record_property("fuzzed", (f"files: {name}", 400))
