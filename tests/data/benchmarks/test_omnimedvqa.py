from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interp.data import omnimedvqa
from interp.errors import DataError
from tests.data.benchmarks.layouts import omnimedvqa_folder, omnimedvqa_row
from tests.data.source_files import as_json


def test_two_to_four_options_and_short_modalities(tmp_path: Path) -> None:
    four = omnimedvqa_row(2, option_C="cataract", option_D=None, gt_answer="Cataract.")
    ct = omnimedvqa_row(
        3, dataset="Chest CT Scan", modality="CT(Computed Tomography)", option_A="Yes", gt_answer="Yes"
    )
    del ct["modality_type"]
    folder = omnimedvqa_folder(tmp_path, omnimedvqa_row(1), four)
    omnimedvqa_folder(tmp_path, ct, file="Chest CT Scan.json")
    first, second, third = omnimedvqa(folder)
    assert (first.options, first.answer, first.id) == (("no glaucoma", "glaucoma"), "glaucoma", "ACRIMA_0001")
    assert (second.options, second.answer) == (("no glaucoma", "glaucoma", "cataract"), "cataract")
    assert (third.meta["modality"], third.answer) == ("CT", "Yes")
    about = {"benchmark": "OmniMedVQA", "split": "test", "kind": "choice", "modality": "fundus photography"}
    assert about.items() <= first.meta.items()
    assert (first.meta["question_type"], first.group) == (
        "Disease Diagnosis",
        "Images/ACRIMA/Im553_g_ACRIMA.png",
    )
    samples = omnimedvqa(folder, modalities=["CT"])
    assert [sample.id for sample in samples] == ["ACRIMA_0003"]
    assert samples.skipped == {"questions of fundus photography": 2}


def test_access_and_spaces_around_options(tmp_path: Path) -> None:
    folder = omnimedvqa_folder(tmp_path, omnimedvqa_row(1, option_A=" no glaucoma ", option_B=" glaucoma"))
    as_json(folder / "QA_information/Restricted-access/B.json", [omnimedvqa_row(2)])
    assert omnimedvqa(folder)[0].options == ("no glaucoma", "glaucoma")
    ids = {
        access: [one.id for one in omnimedvqa(folder, access=access)]
        for access in ("open", "restricted", "all")
    }
    assert ids == {
        "open": ["ACRIMA_0001"],
        "restricted": ["ACRIMA_0002"],
        "all": ["ACRIMA_0001", "ACRIMA_0002"],
    }
    with pytest.raises(DataError, match="access is 'open' or 'restricted' or 'all'"):
        omnimedvqa(folder, access="some")
    for name in ("dataset", "question", "gt_answer", "image_path", "option_A", "option_B"):
        lacking = {key: value for key, value in omnimedvqa_row().items() if key != name}
        with pytest.raises(DataError, match=rf"this table lacks {name}\."):
            omnimedvqa(omnimedvqa_folder(tmp_path, lacking))


@pytest.mark.parametrize(
    ("words", "short"),
    [
        ("CT(Computed Tomography)", "CT"),
        ("MR (Mag-netic Resonance Imaging)", "MRI"),
        ("OCT (Optical Coherence Tomography", "OCT"),
        ("X-Ray", "X-ray"),
        ("x_ray", "X-ray"),
        ("Microscopy Images", "microscopy"),
        ("Dermoscopy", "dermoscopy"),
        ("ultrasound", "ultrasound"),
        ("Colposcopy", "Colposcopy"),
    ],
)
def test_modalities_in_few_words(tmp_path: Path, words: str, short: str) -> None:
    (sample,) = omnimedvqa(omnimedvqa_folder(tmp_path, omnimedvqa_row(modality_type=words)))
    assert (sample.meta["modality"], sample.meta["modality_type"]) == (short, words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"gt_answer": "retinopathy"},
            r"ACRIMA\.json, item 0, field 'gt_answer': expected one of the options",
        ),
        ({"option_A": "glaucoma"}, "ACRIMA.json, item 0"),
        ({"image_path": "Images/none.png"}, "item 0, field 'image_path': no file"),
        ({"modality_type": ""}, "item 0, field 'modality_type': expected a text"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        omnimedvqa(omnimedvqa_folder(tmp_path, omnimedvqa_row(**change)))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no QA_information/Open-access/\*\.json"):
        omnimedvqa(tmp_path)
    folder = omnimedvqa_folder(tmp_path, omnimedvqa_row())
    with pytest.raises(DataError, match="OmniMedVQA has no modalities PET; there are fundus photography"):
        omnimedvqa(folder, modalities=["fundus photography", "PET"])
    with pytest.raises(DataError, match=r'datasets is a list of names, such as \["ACRIMA"\]; got '):
        omnimedvqa(folder, datasets="ACRIMA")
    with pytest.raises(DataError, match="OmniMedVQA has the splits test"):
        omnimedvqa(folder, split="validation")


def test_files_come_in_order_and_nameless_rows_by_their_set(tmp_path: Path) -> None:
    lacking = omnimedvqa_row(
        dataset="B set", question_id=None, option_D="cataract", option_C="", gt_answer="cataract"
    )
    folder = omnimedvqa_folder(tmp_path, omnimedvqa_row(1), lacking, file="b.json")
    omnimedvqa_folder(tmp_path, omnimedvqa_row(7), file="a.json")
    found = omnimedvqa(folder, name="mine")
    assert ([one.id for one in found], found.name) == (["ACRIMA_0007", "ACRIMA_0001", "B set:1"], "mine")
    assert (found[2].options, found[2].answer) == (("no glaucoma", "glaucoma", "cataract"), "cataract")
    assert "option_A" not in found[2].meta
    some = omnimedvqa(folder, datasets=["B set"])
    assert ([one.id for one in some], some.skipped) == (["B set:1"], {"questions of ACRIMA": 2})
