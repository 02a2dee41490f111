from __future__ import annotations

from pathlib import Path

import pytest

from interp.data import named
from interp.data.benchmarks.catalogue import BENCHMARKS, benchmark_source
from interp.data.open import sets
from interp.data_check.check_commands import check
from interp.errors import DataError
from tests.data.benchmarks.layouts import (
    mmmu_folder,
    mmmu_row,
    pmc_vqa_folder,
    pmc_vqa_row,
    vqa_rad_folder,
    vqa_rad_row,
)
from tests.data.source_files import slake_folder, slake_row


@pytest.fixture
def rad(tmp_path: Path) -> Path:
    rows = [
        vqa_rad_row(i, f"Is it {i}?", "yes" if i % 2 else "CT", ("test_para", "para")[i // 4])
        for i in range(8)
    ]
    return vqa_rad_folder(tmp_path / "rad", *rows)


def test_scripts_name_benchmarks_with_options(rad: Path) -> None:
    found = sets([f"vqa_rad:{rad}", f"vqa_rad,questions=open:{rad}"])
    assert {name: [one.answer for one in samples] for name, samples in found.items()} == {
        "vqa_rad": ["yes", "yes"],
        "vqa_rad, open questions": ["CT", "CT"],
    }
    assert found["vqa_rad"].name == "vqa_rad"
    assert [one.meta["split"] for one in named(f"vqa_rad:{rad}", split="all")] == [
        "train",
        "train",
        "test",
        "test",
    ]
    assert len(named(f"vqa_rad:{rad}", split="all", n=3, seed=1)) == 3
    assert len(named(f"vqa_rad:{rad}", split="validation")) == 0
    with pytest.raises(DataError, match=r"none of vqa_rad.* has validation samples"):
        sets([f"vqa_rad:{rad}"], split="validation", needed=True)


def test_lists_versions_and_readers_of_other_folders(tmp_path: Path) -> None:
    mmmu_folder(tmp_path, mmmu_row(), subject="Public_Health")
    (sample,) = named(f"mmmu,subjects=Public_Health:{tmp_path}", split="validation")
    assert sample.meta["subject"] == "Public_Health"
    pmc_vqa_folder(tmp_path, pmc_vqa_row(), file="test.csv")
    assert len(named(f"pmc_vqa,version=1:{tmp_path}")) == 1
    assert len(named(f"pmc_vqa:{tmp_path}", split="train")) == 0
    slake_folder(tmp_path, slake_row(), slake_row("Is it?", "Yes", answer_type="CLOSED"))
    assert [one.answer for one in named(f"slake:{tmp_path}")] == ["Yes"]


def test_a_bad_row_is_recorded(tmp_path: Path) -> None:
    vqa_rad_folder(tmp_path, vqa_rad_row(1, "?", "yes"), vqa_rad_row(2, "", "yes"))
    assert [one.is_usable for one in named(f"vqa_rad:{tmp_path}")] == [True, False]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vqa_rad:", "vqa_rad needs a folder: write vqa_rad:FOLDER"),
        ("slake:hub", "slake has its images in an archive on the hub, which you unpack: write"),
        ("vqa_rad,version=2:x", "'version=2' is no option of vqa_rad. .*one of closed, questions, revision"),
        ("vqa_rad,closed:x", "'closed' is no option of vqa_rad"),
        ("vqa_rad:none", "VQA-RAD: there is no folder none"),
        ("vqa_rap:none", "no data 'vqa_rap:none': it does not exist"),
    ],
)
def test_what_names_no_benchmark(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        named(name)


def test_every_option_is_one_of_the_reader() -> None:
    assert {name: benchmark_source(f"{name}:x").options for name in BENCHMARKS} == {  # pyright: ignore[reportOptionalMemberAccess]
        name: {"questions": "closed", **({"version": "clean"} if name == "pmc_vqa" else {})}
        for name in BENCHMARKS
    }


def test_options_reach_the_reader_and_the_label() -> None:
    given = {
        "vqa_rad,closed=answer_type,questions=all": ({"questions": "all", "closed": "answer_type"},
                                                     "vqa_rad, closed by answer type, all questions"),
        "omnimedvqa,access=all,modalities=CT+MR": ({"access": "all", "modalities": ["CT", "MR"]},
                                                   "omnimedvqa, all access, modalities CT + MR"),
        "huatuo,datasets=VQA-RAD": ({"datasets": ["VQA-RAD"]}, "huatuo, datasets VQA-RAD"),
        "mmmu,subjects=Public_Health,revision=a1": ({"subjects": ["Public_Health"], "revision": "a1"},
                                                    "mmmu, subjects Public Health, revision a1"),
        "slake,language=zh": ({"language": "zh"}, "slake, language zh"),
        "pmc_vqa,version=2": ({"version": "2"}, "pmc_vqa, version 2"),
    }  # fmt: skip
    for name, (options, words) in given.items():
        found = benchmark_source(f"{name}:C:/x")
        assert found is not None
        assert (found.options, found.label, found.place) == (
            {"questions": "closed", **options},
            words,
            "C:/x",
        )
    assert [name for name, entry in BENCHMARKS.items() if entry.hub] == ["vqa_rad", "path_vqa", "mmmu"]
    assert {name: entry.splits for name, entry in BENCHMARKS.items()} == {
        "vqa_rad": ("train", "test"),
        "slake": ("train", "validation", "test"),
        "path_vqa": ("train", "validation", "test"),
        "pmc_vqa": ("train", "test"),
        "omnimedvqa": ("test",),
        "mmmu": ("validation", "test"),
        "huatuo": ("test",),
    }
    assert benchmark_source(3) is None


def test_one_split_says_what_the_others_hold(rad: Path) -> None:
    source = benchmark_source(f"vqa_rad:{rad}")
    assert source is not None
    assert source.samples("test").skipped == {
        "open questions of test": 2,
        "open questions of train": 2,
        "closed questions of train": 2,
    }


def test_data_check_looks_at_a_benchmark(
    rad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(f"vqa_rad:{rad}", out=tmp_path / "page.html")
    said = capsys.readouterr().out
    assert "vqa_rad: 4 samples, read by vqa_rad" in said
    left = [line.split() for line in said.splitlines() if "left out" in line]
    assert left == [
        ["left", "out:", "open", "questions", "of", "train", "2"],
        ["left", "out:", "open", "questions", "of", "test", "2"],
    ]
    check(str(rad), out=tmp_path / "page.html")
    assert "VQA-RAD all: 8 samples, read by vqa_rad" in capsys.readouterr().out
