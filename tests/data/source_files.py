"""Small files in the true layouts of data sets, which tests change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 40, 20
MR_SLICE = "mr_t1--BraTS--Case_1--z_0001"


def image(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), level: int = 90) -> Path:
    """A grey image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).save(path)
    return path


def as_json(path: Path, value: Any) -> Path:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def mask(path: Path, *rectangles: tuple[int, int, int, int], inside: int = 255, outside: int = 0) -> Path:
    """A mask that is `inside` in half-open rectangles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(marked(*rectangles, inside=inside, outside=outside)).save(path)
    return path


def marked(*rectangles: tuple[int, int, int, int], inside: int = 1, outside: int = 0) -> np.ndarray:
    """(row, col) of `outside`, and `inside` in half-open rectangles (x0, y0, x1, y1)."""
    values = np.full((HEIGHT, WIDTH), outside, np.uint8)
    for x0, y0, x1, y1 in rectangles:
        values[y0:y1, x0:x1] = inside
    return values


def coco_file(folder: Path, annotations: list[dict[str, Any]], **changes: Any) -> Path:
    """`annotations/instances_val2017.json` beside `val2017` with two images."""
    for number in (1, 2):
        image(folder / f"val2017/{number:012d}.jpg")
    content = {
        "images": [
            {"id": number, "file_name": f"{number:012d}.jpg", "width": WIDTH, "height": HEIGHT}
            for number in (1, 2)
        ],
        "annotations": annotations,
        "categories": [
            {"id": 1, "name": "person", "supercategory": "person"},
            {"id": 22, "name": "elephant", "supercategory": "animal"},
        ],
        **changes,
    }
    return as_json(folder / "annotations/instances_val2017.json", content)


def thing(id: int, box: Any, category: int = 1, image_id: int = 1, **more: Any) -> dict[str, Any]:
    """An annotation of COCO."""
    return {"id": id, "image_id": image_id, "category_id": category, "bbox": box, "iscrowd": 0, **more}


VOC_OBJECT = """  <object>
    <name>{label}</name>
    <difficult>{difficult}</difficult>
    <bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>
  </object>
"""


def voc_folder(folder: Path, *objects: str, head: str = "", name: str = "2007_000001") -> Path:
    """`Annotations/NAME.xml` and `JPEGImages/NAME.jpg`."""
    image(folder / f"JPEGImages/{name}.jpg")
    path = folder / f"Annotations/{name}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"{head}<annotation>\n  <filename>{name}.jpg</filename>\n"
        f"  <size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>\n"
        f"{''.join(objects)}</annotation>\n"
    )
    return folder


def voc_object(label: str, *box: Any, difficult: int = 0) -> str:
    """An object of a VOC file."""
    return VOC_OBJECT.format(*box, label=label, difficult=difficult)


def yolo_folder(folder: Path, lines: str, names: str = "names: [cat, dog]\n") -> Path:
    """`data.yaml`, `images/val/a.jpg` and `labels/val/a.txt`."""
    image(folder / "images/val/a.jpg")
    image(folder / "images/val/empty.jpg")
    path = folder / "labels/val/a.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines)
    (folder / "data.yaml").write_text(f"path: /somewhere/else\nval: images/val\n{names}")
    return folder


def slake_folder(folder: Path, *rows: dict[str, Any], detections: Any = None) -> Path:
    """`test.json` and `imgs/xmlab0` with source.jpg, detection.json and mask.png."""
    image(folder / "imgs/xmlab0/source.jpg")
    found = [{"Liver": [4, 2, 10, 8]}, {"Left Lung": [20, 4, 8, 10]}] if detections is None else detections
    as_json(folder / "imgs/xmlab0/detection.json", found)
    values = marked((4, 2, 14, 10), inside=7)
    Image.fromarray(values).save(folder / "imgs/xmlab0/mask.png")
    as_json(folder / "test.json", list(rows))
    return folder


def slake_row(question: str = "Where is the liver?", answer: str = "Left", **more: Any) -> dict[str, Any]:
    """A row of SLAKE."""
    known = {
        "img_id": 0,
        "img_name": "xmlab0/source.jpg",
        "q_lang": "en",
        "modality": "CT",
        "answer_type": "OPEN",
    }
    return {**known, "qid": 9, "question": question, "answer": answer, **more}


def sa_med2d_folder(folder: Path, source: str = "BraTS") -> Path:
    """`SAMed2D_v1.json`, the class mapping, one image with three masks, and one of `ichallenge_adam_task2`."""
    eye = "fundus_photography--ichallenge_adam_task2--A0001--2d_none"
    rows = {
        f"images/{MR_SLICE}.png": [
            f"masks/{MR_SLICE}--{one}.png" for one in ("0000_000", "0000_001", "0001_000")
        ],
        f"images/{eye}.png": [f"masks/{eye}--0000_000.png"],
    }
    for name in rows:
        image(folder / name)
    mask(folder / f"masks/{MR_SLICE}--0000_000.png", (2, 2, 8, 8))
    mask(folder / f"masks/{MR_SLICE}--0000_001.png", (20, 4, 30, 12), (35, 0, 36, 1))
    mask(folder / f"masks/{MR_SLICE}--0001_000.png")
    mask(folder / f"masks/{eye}--0000_000.png", (10, 5, 20, 15), inside=0, outside=255)
    as_json(folder / "SAMed2D_v1.json", rows)
    mapping = {
        source: {"tumor_core": 0, "edema": 1, "union_all": 2},
        "ichallenge_adam_task2": {"optic_disc": 0},
    }
    as_json(folder / "SAMed2D_v1_class_mapping_id.json", mapping)
    return folder


def medsam_file(path: Path, **changes: Any) -> Path:
    """An .npz file of three slices of a CT; the liver (1) is in the second one, in two pieces and a speck."""
    path.parent.mkdir(parents=True, exist_ok=True)
    marks = np.zeros((3, HEIGHT, WIDTH), np.uint8)
    marks[1] = marked((2, 2, 8, 8), (20, 4, 30, 12), (35, 0, 36, 1))
    marks[2] = marked((0, 0, 10, 10), inside=5)
    pictures = np.stack([np.full((HEIGHT, WIDTH), 50 * i, np.uint8) for i in range(3)])
    np.savez_compressed(path, **{"imgs": pictures, "gts": marks, "spacing": (1.0, 1.0, 3.0), **changes})
    return path


def medsg_folder(folder: Path, *rows: dict[str, Any]) -> Path:
    """`Task3.json` and three views."""
    for view in ("front", "top", "side"):
        image(folder / f"Task3/heart_{view}.png", level={"front": 1, "top": 2, "side": 3}[view])
    return as_json(folder / "Task3.json", list(rows))


def medsg_row(**changes: Any) -> dict[str, Any]:
    """A row of MedSG-Bench's multi-view task."""
    asked = (
        "These images share one object in common(the object marked with red bounding box in the first "
        "image(<|box_start|>(15,2),(20,17)<|box_end|>). Recognize and locate this object in the second image."
    )
    views = [f"MedSG-Bench/MedSG-Bench/Task3/heart_{view}.png" for view in ("front", "top", "side")]
    return {"task": "multi_view", "images": views, "question": asked, "answer": [11, 0, 17, 5], **changes}


def s_chain_row(**changes: Any) -> dict[str, Any]:
    """A row of S-Chain, its image in memory."""
    return {
        "image": Image.new("L", (WIDTH, HEIGHT), 60),
        "Patient ID": "OAS1_0003",
        "Slide": "mpr-2_115",
        "Bbox coordinates normalized (X, Y, W, H)": "[[0.25, 0.1, 0.5, 0.4]]",
        "Q1": "Recognize the disease area",
        "Q2": "What is the visual identity of this lesion?",
        "Q3": "What is the clinical grade of this lesion?",
        "Q4": "How developed is the illness?",
        "A1": "[[0.25, 0.1, 0.5, 0.4]]",
        "A2": "widening of the temporal horn",
        "A3": "MTA=2",
        "A4": "Mild-Dementia",
        **changes,
    }


def refcoco_files(folder: Path) -> tuple[Path, Path, Path]:
    """The original layout: refs as JSON, instances.json, and the folder of images."""
    image(folder / "train2014/COCO_train2014_000000000007.jpg")
    ref = {"ref_id": 3, "ann_id": 5, "image_id": 7, "split": "val", "category_id": 1}
    said = [{"sent": "the man in red", "raw": "The man in red"}, {"sent": "left guy", "raw": "left guy"}]
    refs = as_json(
        folder / "refs.json", [{**ref, "sentences": said}, {**ref, "split": "train", "sentences": said}]
    )
    instances = as_json(
        folder / "instances.json",
        {
            "images": [{"id": 7, "file_name": "COCO_train2014_000000000007.jpg"}],
            "annotations": [{"id": 5, "bbox": [4, 2, 16, 8]}],
        },
    )
    return refs, instances, folder / "train2014"
