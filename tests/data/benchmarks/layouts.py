"""Benchmarks in the layouts that their sources publish, with tiny images; rows are made by the tests."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

from tests.data.source_files import as_json, image

IMAGE = {"image": datasets.Image(), "question": datasets.Value("string"), "answer": datasets.Value("string")}
MMMU_TEXTS = (
    "id", "question", "options", "explanation", "img_type", "answer", "topic_difficulty", "question_type", "subfield",
)  # fmt: skip
MMMU = {
    **{name: datasets.Value("string") for name in MMMU_TEXTS},
    **{f"image_{number}": datasets.Image() for number in range(1, 8)},
}


def picture(level: int = 90, size: tuple[int, int] = (12, 8)) -> dict[str, Any]:
    """A grey image as a cell of parquet holds it: encoded bytes and a file name."""
    out = io.BytesIO()
    Image.new("L", size, level).save(out, "PNG")
    return {"bytes": out.getvalue(), "path": f"{level}.png"}


def parquet(path: Path, rows: Sequence[Mapping[str, Any]], features: Mapping[str, Any]) -> Path:
    """A parquet file as `datasets` pushes it, with the types of its columns in the schema."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: [row.get(name) for row in rows] for name in features}
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(path)
    return path


def hub_folder(folder: Path, **splits: Sequence[tuple[str, str]]) -> Path:
    """`data/SPLIT-00000-of-00002-….parquet` of image, question and answer, in two files a split."""
    for split, pairs in splits.items():
        rows = [
            {"image": picture(10 + i % 3), "question": question, "answer": answer}
            for i, (question, answer) in enumerate(pairs)
        ]
        half = (len(rows) + 1) // 2
        for number, part in enumerate((rows[:half], rows[half:])):
            if part:
                parquet(folder / f"data/{split}-{number:05}-of-00002-ab12.parquet", part, IMAGE)
    return folder


def vqa_rad_row(
    qid: int, question: str, answer: Any, phrase: str = "test_freeform", **more: Any
) -> dict[str, Any]:
    """A row of the authors' file of VQA-RAD."""
    known = {
        "qid": str(qid),
        "phrase_type": phrase,
        "qid_linked_id": f"03f451ca-{qid}",
        "image_case_url": f"https://medpix.nlm.nih.gov/case?id={qid}",
        "image_name": "synpic54610.jpg",
        "image_organ": "HEAD",
        "evaluation": "not evaluated",
        "question": question,
        "question_rephrase": "NULL",
        "question_relation": "NULL",
        "question_frame": "NULL",
        "question_type": "PRES",
        "answer": answer,
        "answer_type": "CLOSED",
    }
    return {**known, **more}


def vqa_rad_folder(folder: Path, *rows: dict[str, Any]) -> Path:
    """The authors' layout of VQA-RAD."""
    image(folder / "VQA_RAD Image Folder/synpic54610.jpg")
    as_json(folder / "VQA_RAD Dataset Public.json", list(rows))
    return folder


def pmc_vqa_row(answer: str = "Focal uptake pattern", label: str = "B", **more: str) -> dict[str, str]:
    """A row of PMC-VQA's version 1, as the data's card shows it."""
    known = {
        "Figure_path": "PMC1064097_F1.jpg",
        "Question": "What is the uptake pattern in the breast? ",
        "Answer": answer,
        "Choice A": " A:Diffuse uptake pattern ",
        "Choice B": " B:Focal uptake pattern ",
        "Choice C": " C:No uptake pattern ",
        "Choice D": " D:Cannot determine ",
        "Answer_label": label,
    }
    return {**known, **more}


def pmc_vqa_row_2(answer: str = "B", **more: str) -> dict[str, str]:
    """A row of PMC-VQA's version 2."""
    row = pmc_vqa_row(answer)
    del row["Answer_label"]
    head = {"index": "7", "Figure_path": row.pop("Figure_path"), "Caption": "Uptake, in the\nbreast."}
    return {**head, **row, "split": "test", **more}


def pmc_vqa_folder(
    folder: Path, *rows: Mapping[str, str], file: str = "test_clean.csv", images: str = "images"
) -> Path:
    """A CSV file of PMC-VQA and its figure."""
    image(folder / images / "PMC1064097_F1.jpg")
    with open(folder / file, "w", newline="", encoding="utf-8") as out:
        table = csv.DictWriter(out, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return folder


def omnimedvqa_row(number: int = 0, **more: Any) -> dict[str, Any]:
    """A row of OmniMedVQA with two options."""
    known = {
        "dataset": "ACRIMA",
        "question_id": f"ACRIMA_{number:04}",
        "question_type": "Disease Diagnosis",
        "question": "What is the condition visible in this image?",
        "gt_answer": "glaucoma",
        "image_path": "Images/ACRIMA/Im553_g_ACRIMA.png",
        "option_A": "no glaucoma",
        "option_B": "glaucoma",
        "modality_type": "Fundus Photography",
    }
    return {**known, **more}


def omnimedvqa_folder(folder: Path, *rows: dict[str, Any], file: str = "ACRIMA.json") -> Path:
    """`QA_information/Open-access` and `Images`."""
    image(folder / "Images/ACRIMA/Im553_g_ACRIMA.png")
    as_json(folder / f"QA_information/Open-access/{file}", list(rows))
    return folder


def mmmu_row(number: int = 1, split: str = "validation", **more: Any) -> dict[str, Any]:
    """A row of MMMU: the second image's place is empty, so that the images' numbers are 1 and 3."""
    known = {
        "id": f"{split}_Pharmacy_{number}",
        "question": "Which structure in <image 1> is the one of <image 3>?",
        "options": "['It\\'s <image 3>', \"2-methyl\", 'None', 'Both']",
        "explanation": "",
        "image_1": picture(40),
        "image_3": picture(80, (6, 5)),
        "img_type": "['Chemical Structures']",
        "answer": "B",
        "topic_difficulty": "Medium",
        "question_type": "multiple-choice",
        "subfield": "Pharmaceutical Chemistry",
    }
    return {**known, **more}


def mmmu_folder(
    folder: Path, *rows: Mapping[str, Any], split: str = "validation", subject: str = "Pharmacy"
) -> Path:
    """One parquet file of a subject's folder."""
    parquet(folder / subject / f"{split}-00000-of-00001.parquet", rows, MMMU)
    return folder


def huatuo_row(number: int = 0, **more: Any) -> dict[str, Any]:
    """A row of Huatuo's evaluation file."""
    known = {
        "question": "Is there a pleural effusion?",
        "options": ["Yes", "No"],
        "answer": "No",
        "image": ["images/vqarad_1.jpg"],
        "dataset": "VQA-RAD",
        "subset": "",
        "question_type": "closed",
        "test_id": number,
    }
    return {**known, **more}


def huatuo_folder(folder: Path, *rows: dict[str, Any]) -> Path:
    """Huatuo's evaluation file and its images."""
    image(folder / "images/vqarad_1.jpg")
    as_json(folder / "medical_multimodel_evaluation_data.json", list(rows))
    return folder
