"""`interp data …`: every option reaches the function that it is for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from interp.cli import main
from interp.data import Samples, bundled
from interp.data_build import build_commands
from interp.data_build.endpoint import Endpoint
from interp.data_build.pairs import Settings
from interp.data_check import check_commands
from interp.data_check.check_commands import _columns, _drawn, _samples
from interp.errors import DataError

RECORD: dict[str, Any] = {"samples": 2, "pictures": 1, "groups": 1, "counts": {}, "dropped": {}}


@pytest.fixture
def some() -> Samples:
    return bundled("natural", n=5)


def test_a_build_takes_every_option(
    unchecked: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    asked: list[Any] = []
    failures = [{"id": f"s{i}", "error": "of\nlines"} for i in range(7)]

    def build(*given: Any, **options: Any) -> Any:
        asked.append((given, options))
        return SimpleNamespace(folder=Path("made"), record={**RECORD, "failures": failures})

    monkeypatch.setattr(build_commands, "build", build)
    monkeypatch.setattr(build_commands, "is_scans", lambda path: True)
    monkeypatch.setattr(
        build_commands, "scans", lambda path, **given: asked.append((path, given)) or "samples"
    )
    words = (
        'data build IN --out o --names {"1":"liver"} --modality CT --region chest --plane coronal --slices largest '
        "--grey lung --longest 9 --n 3 --seed 4 --share 0.5 --area 0.1 0.2 --complete --endpoint http://x/v1 --llm m "
        "--key-variable KEY"
    )
    assert main([str(tmp_path) if word == "IN" else word for word in words.split()]) == 0
    cut = {"plane": "coronal", "slices": "largest", "grey": "lung", "longest": 9}
    wanted = {"names": {1: "liver"}, "modality": "CT", "region": "chest", **cut}
    settings = Settings(n=3, seed=4, share=0.5, area=(0.1, 0.2), complete=True)
    built = (("samples", Path("o"), settings), {"endpoint": Endpoint("http://x/v1", "m", "KEY")})
    assert asked == [(tmp_path, wanted), built]
    said = capsys.readouterr().out
    assert said.count("failed") == 5
    assert "failed    s4: of lines\n" in said
    for half in (["--endpoint", "http://x/v1"], ["--llm", "m"]):
        assert main(["data", "build", str(tmp_path), "--out", "o", *half]) == 2
    assert len(asked) == 2


def test_labels_of_a_folder_say_that_it_is_no_folder_of_scans(monkeypatch: Any, tmp_path: Path) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(build_commands, "is_scans", lambda path: True)
    monkeypatch.setattr(build_commands, "guess", lambda path: "dicom")
    monkeypatch.setattr(
        "interp.data.dicom", lambda *given, **options: asked.append((given, options)) or Samples([], "x")
    )
    given = {
        "names": None,
        "modality": None,
        "region": None,
        "plane": "axial",
        "slices": "all",
        "grey": None,
        "longest": None,
    }
    build_commands._read(tmp_path, None, None, Path("l"), given)
    build_commands._read(tmp_path, None, None, Path("l"), {**given, "grey": "bone", "longest": 3})
    plain = {"masks": True, "least": 1, "names": None, "plane": "axial", "slices": "all", "longest": None}
    place = (tmp_path, Path("l"))
    assert asked == [(place, plain), (place, {**plain, "grey": "bone", "longest": 3})]
    for name in ("names", "grey", "longest"):
        with pytest.raises(DataError, match=f"--{name} is for volumes and label maps"):
            build_commands._read(tmp_path, "coco_instances", None, None, {**given, name: {1: "x"}})


def test_what_is_read_gets_a_modality_and_a_region(monkeypatch: Any, tmp_path: Path, some: Samples) -> None:
    monkeypatch.setattr(build_commands, "read", lambda *_, **__: some)
    given = {
        "names": None,
        "modality": "CT",
        "region": None,
        "plane": "axial",
        "slices": "all",
        "grey": None,
        "longest": None,
    }
    found = build_commands._read(tmp_path, "coco_instances", None, None, given)
    assert [one.meta for one in found] == [{**one.meta, "modality": "CT"} for one in some]


def test_a_check_takes_every_option(unchecked: None, monkeypatch: Any, tmp_path: Path, some: Samples) -> None:
    asked: list[Any] = []
    findings = SimpleNamespace(problems=(), n_errors=0, counts={"a": "1"}, by_kind=dict)
    monkeypatch.setattr(check_commands, "read", lambda *given, **more: asked.append((given, more)) or some)
    monkeypatch.setattr(check_commands, "inspect", lambda samples: asked.append(len(samples)) or findings)
    monkeypatch.setattr(check_commands, "replace", lambda found, **_: found)
    monkeypatch.setattr(
        "interp.data_check.page.write", lambda *given, **more: asked.append((given[0], more)) or given[0]
    )
    words = (
        "data check x --reader csv --images i --labels l --box-format xywh --columns image=scan boxes=a=b --out p.html "
        "--n 3 --seed 4"
    )
    assert main(words.split()) == 0
    columns = {"image": "scan", "boxes": "a=b"}
    options = {"images": Path("i"), "labels": Path("l"), "box_format": "xywh", "columns": columns}
    read = ((Path("x"), "csv"), {"bad_rows": "record", **options})
    assert asked == [read, 3, (Path("p.html"), {"source": "x", "reader": "csv", "seed": 4})]


def test_a_draw_keeps_the_order(some: Samples) -> None:
    assert _drawn(some, None, 0) is some
    assert _drawn(some, 5, 0) is some
    order = [one.id for one in some]
    for seed in range(3):
        ids = [one.id for one in _drawn(some, 4, seed)]
        assert len(ids) == 4
        assert ids == sorted(ids, key=order.index)


@pytest.mark.parametrize("pairs", [["a"], ["=a"], ["a="], ["a=b", "c"]])
def test_columns_are_pairs(pairs: list[str]) -> None:
    assert _columns([]) is None
    with pytest.raises(DataError, match="FIELD=COLUMN"):
        _columns(pairs)


def test_bundled_data_take_no_option() -> None:
    options: dict[str, Any] = dict.fromkeys(("images", "labels", "box_format", "columns"))
    samples, reader = _samples("natural", None, options)
    assert reader == "bundled"
    assert len(samples) == sum(len(bundled("natural", split)) for split in ("train", "validation", "test"))
    for name in options:
        with pytest.raises(DataError, match=f"Leave --{name.replace('_', '-')} out"):
            _samples("natural", None, {**options, name: "x"})


def test_ratings_take_every_option(monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    asked: list[Any] = []

    def curate(*given: Any, **options: Any) -> Any:
        asked.append((given, options))
        frame = pd.DataFrame({"decision": ["dropped"]})
        return SimpleNamespace(decisions=frame, samples=[], table=lambda: frame, report=lambda path: path)

    monkeypatch.setattr("interp.data.named", lambda *given, **more: asked.append((given, more)) or "samples")
    monkeypatch.setattr("interp.curation.read_ratings", lambda *given: given)
    monkeypatch.setattr("interp.curation.curate", curate)
    words = "data ratings a.json b.json --data x --split test --n 3 --seed 4 --lowest 2 --several median --n-raters 5"
    assert main([*words.split(), "--out", str(tmp_path)]) == 0
    rule = {"lowest": 2, "several": "median", "n_raters": 5}
    read = ([Path("a.json"), Path("b.json")], "samples")
    assert asked == [(("x",), {"split": "test", "n": 3, "seed": 4}), ((read,), rule)]
    said = capsys.readouterr().out
    assert "kept samples" not in said
    assert f"report: {tmp_path / 'report.html'}" in said
