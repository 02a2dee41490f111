"""`interp data build` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from interp.cli import main
from interp.data import Samples
from interp.data_build import build_commands
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


@pytest.mark.parametrize(
    ("given", "name", "places"),
    [
        (["--images", "i"], "coco_instances", {"images": Path("i"), "labels": None}),
        (["--reader", "jsonl", "--labels", "l"], "jsonl", {"images": None, "labels": Path("l")}),
    ],
)
def test_places_and_the_reader_are_those_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], name: str, places: dict[str, Any]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        build_commands, "read", lambda *words, **more: asked.append((words, more)) or Samples([])
    )
    monkeypatch.setattr(build_commands, "build", lambda *_, **__: None)
    monkeypatch.setattr(build_commands, "_print", lambda _: None)
    path = files.coco_file(tmp_path, [files.thing(1, [2, 2, 10, 10])])
    assert main(["data", "build", str(path), "--out", str(tmp_path / "out"), *given]) == 0
    assert asked == [((path, name), places)]
