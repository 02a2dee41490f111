"""`interp data build` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from interp.cli import main
from interp.data import Samples
from interp.data_build import build_commands
from interp.data_build.endpoint import Endpoint
from interp.data_build.pairs import Settings
from tests.data import source_files as files
from tests.data_build.build_files import volume_folder


def test_a_folder_of_volumes_is_built_and_told_of(tmp_path: Path, capsys: Any) -> None:
    source = volume_folder(tmp_path / "in")
    assert main(["data", "build", str(source), "--out", str(tmp_path / "out"), "--n", "3"]) == 0
    said = capsys.readouterr().out
    assert "6 questions on" in said
    assert "dropped   2 × in several pieces" in said
    assert json.loads((tmp_path / "out/build.json").read_text())["settings"]["n"] == 3
    page = tmp_path / "page.html"
    assert main(["data", "check", str(tmp_path / "out/samples.jsonl"), "--out", str(page)]) == 0


def test_one_volume_and_coco_go_through_their_readers(tmp_path: Path, capsys: Any) -> None:
    source = volume_folder(tmp_path / "in", cases=1)
    one = ["data", "build", str(source / "imagesTr/case_0_0000.nii.gz"), "--out", str(tmp_path / "out")]
    labels = [
        "--labels",
        str(source / "labelsTr/case_0.nii.gz"),
        "--names",
        '{"1": "liver"}',
        "--modality",
        "CT",
    ]
    assert main([*one, *labels]) == 0
    assert "CT ×6" in capsys.readouterr().out
    path = files.coco_file(tmp_path, [files.thing(1, [2, 2, 10, 10])])
    assert main(["data", "build", str(path), "--out", str(tmp_path / "coco")]) == 0
    assert "person ×2" in capsys.readouterr().out


def test_options_that_do_not_go_together_are_refused(tmp_path: Path, capsys: Any) -> None:
    path = str(files.coco_file(tmp_path, [files.thing(1, [2, 2, 10, 10])]))
    out = ["--out", str(tmp_path / "out")]
    assert main(["data", "build", path, *out, "--endpoint", "http://x/v1"]) == 2
    assert "--endpoint URL and --llm NAME go together" in capsys.readouterr().err
    assert main(["data", "build", path, *out, "--longest", "100"]) == 2
    assert "--longest is for volumes and label maps" in capsys.readouterr().err
    assert main(["data", "build", path, *out, "--llm", "x"]) == 2
    assert "--endpoint URL and --llm NAME go together" in capsys.readouterr().err
    for option, value in (("names", '{"1": "liver"}'), ("grey", "bone")):
        assert main(["data", "build", path, *out, f"--{option}", value]) == 2
        assert f"--{option} is for volumes and label maps" in capsys.readouterr().err
    assert main(["data", "build", path, *out, "--modality", "MR", "--region", "Skin"]) == 0
    said = capsys.readouterr().out
    assert "MR ×" in said
    assert "Skin ×" in said
    assert main(["data", "build", path, *out, "--names", "liver"]) == 2
    assert "--names is JSON" in capsys.readouterr().err


class SeenError(Exception):
    """Ends a command where what it was given has been seen."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the readers were asked for, and what was built with which settings."""
    found: list[Any] = []

    def reader(name: str) -> Any:
        return lambda *given, **options: found.append((name, given, options)) or Samples([], name)

    def build(samples: Samples, *given: Any, **options: Any) -> None:
        found.append((samples.name, given, options))
        raise SeenError

    for name in ("scans", "read"):
        monkeypatch.setattr(build_commands, name, reader(name))
    for name in ("nifti", "dicom"):
        monkeypatch.setattr(f"interp.data.{name}", reader(name))
    monkeypatch.setattr(build_commands, "build", build)
    return found


CUT = {"names": {1: "liver"}, "plane": "coronal", "slices": "largest", "grey": "bone", "longest": 99}
MORE = "--plane coronal --slices largest --longest 99 --grey bone"
CUT_WORDS = ["--names", '{"1": "liver"}', *MORE.split()]


def test_every_option_reaches_the_scans_and_the_build(tmp_path: Path, asked: list[Any]) -> None:
    source, out = volume_folder(tmp_path / "in"), tmp_path / "out"
    words = (
        "--modality MR --region Skin --n 3 --seed 4 --share 0.5 --area 0.1 0.2 --complete --endpoint http://x/v1 "
        "--llm m --key-variable KEY"
    )
    with pytest.raises(SeenError):
        main(["data", "build", str(source), "--out", str(out), *CUT_WORDS, *words.split()])
    settings = Settings(n=3, seed=4, share=0.5, area=(0.1, 0.2), complete=True)
    assert asked == [
        ("scans", (source,), {**CUT, "modality": "MR", "region": "Skin"}),
        ("scans", (out, settings), {"endpoint": Endpoint("http://x/v1", "m", "KEY")}),
    ]


@pytest.mark.parametrize("reader", ["nifti", "dicom"])
def test_every_option_of_a_cut_reaches_one_volume(tmp_path: Path, asked: list[Any], reader: str) -> None:
    words = [
        "data",
        "build",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
        "--labels",
        "l.nii",
        "--reader",
        reader,
    ]
    for given, cut in (
        (CUT_WORDS, CUT),
        ([], {"names": None, "plane": "axial", "slices": "all", "longest": None}),
    ):
        asked.clear()
        with pytest.raises(SeenError):
            main([*words, *given])
        assert asked[0] == (reader, (tmp_path, Path("l.nii")), {"masks": True, "least": 1, **cut})


def test_places_and_the_reader_are_those_given(tmp_path: Path, asked: list[Any]) -> None:
    path = files.coco_file(tmp_path, [files.thing(1, [2, 2, 10, 10])])
    words = ["data", "build", str(path), "--out", str(tmp_path / "out")]
    for given, name, places in (
        (["--images", "i"], "coco_instances", {"images": Path("i"), "labels": None}),
        (["--reader", "jsonl", "--labels", "l"], "jsonl", {"images": None, "labels": Path("l")}),
    ):
        asked.clear()
        with pytest.raises(SeenError):
            main([*words, *given])
        assert asked[0] == ("read", (path, name), places)
