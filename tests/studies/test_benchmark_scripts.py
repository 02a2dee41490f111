"""The tables of answers from their command line to their page, on benchmarks in their true layouts and the organism."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from interp.data import named
from interp.errors import StudyError
from interp.inputs.answers import is_right
from interp.inputs.prompt import PAPER_PROMPT
from interp.study.benchmark.model_rows import question_sets
from interp.tracing import load
from tests.data.benchmarks.layouts import (
    hub_folder,
    mmmu_folder,
    mmmu_row,
    omnimedvqa_folder,
    omnimedvqa_row,
    pmc_vqa_folder,
    pmc_vqa_row,
)
from tests.studies.scripts import STUDIES, script

SCRIPTS = (
    "table1_vqa", "table2_mmmu", "table3_omnimedvqa", "tableE3_open", "tableF4_benchmarks", "tableG5_larger",
    "tableK_general",
)  # fmt: skip
FEW: dict[str, Any] = {"n": 4, "n_validation": 3, "k": 2, "tokens": 2}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of runs, so that heads are ranked once for all scripts."""
    return tmp_path_factory.mktemp("runs")


def numbers(said: str, row: str) -> list[str]:
    """The cells of the first table's row of that name."""
    (line, *_) = [line for line in said.splitlines() if line.startswith(f"│ {row} ")]
    return [cell.strip() for cell in line.strip("│").split("│")[1:]]


def test_table_1_marks_closed_questions_of_all_splits(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rad = hub_folder(
        tmp_path / "rad",
        train=[("Is this a CT?", "yes"), ("What is this?", "a lung")],
        test=[("Is it blue?", "no")],
    )
    pmc = pmc_vqa_folder(tmp_path / "pmc", pmc_vqa_row(), pmc_vqa_row())
    data = (f"vqa_rad:{rad}", f"pmc_vqa:{pmc}", "natural")
    script("table1_vqa").main(**FEW, data=data, split=("all", "test", "all"), out=out)
    said = capsys.readouterr().out
    samples = named("natural", split="all", n=4)
    right = [is_right(text, one, PAPER_PROMPT) for text, one in zip(
        load("organism").answers(list(samples), generate=2), samples, strict=True)]  # fmt: skip
    assert numbers(said, "N") == ["2", "2", "4", "8", "8"]  # the open question is left out
    assert float(numbers(said, "organism, as it is")[2]) == pytest.approx(100 * sum(map(bool, right)) / 4)
    assert "they say nothing about the paper's models" in said
    assert re.search(r"HuatuoGPT-V-7B +│ +67.4", said)
    page = (out / "table1_vqa.html").read_text()
    assert "65.3 fits neither" in page
    assert "model organism" in page
    assert not (out / "report.html").exists()


def test_table_2_tells_subjects_apart(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"Pharmacy": [mmmu_row(1, "test"), mmmu_row(2, "test")], "Public_Health": [mmmu_row(3, "test")]}
    folder = tmp_path / "mmmu"
    for subject, own in rows.items():
        mmmu_folder(folder, *own, split="test", subject=subject)
    data = (f"mmmu,subjects=Pharmacy+Public_Health:{folder}",)
    script("table2_mmmu").main(**FEW, data=data, out=out)
    said = capsys.readouterr().out
    assert "by subject" in said
    assert numbers(said[said.index("by subject") :], "N") == ["2", "1", "3", "3"]
    with pytest.raises(
        StudyError, match="no token for a part of the answer 'B'"
    ):  # the organism says no letters
        script("table2_mmmu").main(**FEW, data=data, scorer="options", out=out)


def test_table_3_tells_modalities_apart(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = omnimedvqa_folder(
        tmp_path / "omni",
        omnimedvqa_row(0),
        omnimedvqa_row(1),
        omnimedvqa_row(2, modality_type="MR (Mag-netic)"),
    )
    script("table3_omnimedvqa").main(**FEW, data=(f"omnimedvqa:{folder}",), scorer="huatuo", out=out)
    said = capsys.readouterr().out
    assert "by modality" in said
    assert sorted(numbers(said[said.index("by modality") :], "N")[:2]) == ["1", "2"]
    assert "MedPLIB" in said


def test_table_e3_says_what_is_missing_for_its_average(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rad = hub_folder(tmp_path / "rad", test=[("Is this a CT?", "yes"), ("What is this?", "a lung")])
    script("tableE3_open").main(**FEW, data=(f"vqa_rad,questions=open:{rad}",), out=out)
    said = capsys.readouterr().out
    assert numbers(said, "N") == ["1", "1", "1"]
    assert "BERTScore there is no average as in the paper" in said
    assert (out / "tableE3_open.html").exists()


def test_table_f4_compares_methods_on_a_benchmark(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script("tableF4_benchmarks").main(**{**FEW, "n": 2}, data=("medical",), out=out)
    said = capsys.readouterr().out
    for name in ("VGRefine, code", "VGRefine, paper", "PAI", "AdaptVis", "ViCrop"):
        assert f"Plain − {name}" in said
        assert numbers(said[said.index("micro") - 200 :], f"organism, {name}")
    assert "32" not in numbers(said, "N")
    assert "follow neither from the weights" in (out / "tableF4_benchmarks.html").read_text()


def test_table_g5_masks_several_layers(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script("tableG5_larger").main(**FEW, data=("medical",), layers=(1, 3), out=out)
    assert numbers(capsys.readouterr().out, "N")[0] == "4"
    assert "[1, 3]" in (out / "tableG5_larger.html").read_text()


def test_table_k_has_a_row_for_each_image_size(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script("tableK_general").main(**FEW, data=("natural",), out=out)
    assert numbers(capsys.readouterr().out, "organism, VGRefine, code")
    assert (out / "tableK_general.html").exists()


def test_splits_are_one_for_all_or_one_for_each(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="got 3 splits for 2 names"):
        question_sets(("natural", "medical"), ("test", "test", "all"))
    with pytest.raises(StudyError, match="two data sets are called natural"):
        question_sets(("natural", "natural"), ("test",), n=2)
    found = question_sets(("natural", "medical"), ("validation", "test"), n=2)
    assert {name: one.split for name, one in found.items()} == {"natural": "validation", "medical": "test"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_short_alike_and_listed(name: str) -> None:
    text = (STUDIES / f"{name}.py").read_text()
    assert len(text.splitlines()) < 150
    assert {"model", "data", "out", "seed", "workers", "device", "dtype"} <= set(
        script(name).main.__annotations__
    )
    assert f'out / "{name}.html"' in text
    assert f"`{name}.py`" in (STUDIES / "README.md").read_text()
