"""`interp check` from its arguments to its exit code, over a suite that only says what it was asked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from interp import cli
from interp.cli import main
from interp.conformance import CheckResult, Conformance

CHANGES = (["--checks", "rows"], ["--break", "count"], ["--images", "a.png"], ["--dtype", "bfloat16"])


def result(name: str, *passed: bool) -> Conformance:
    rows = (CheckResult(f"check {i}", ok, 1.0, "", 1.0, False, "", 0.1) for i, ok in enumerate(passed))
    return Conformance(name, name, tuple(rows))


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two families; what `found` holds of them is their result, and what the suite was asked is kept in `asked`."""
    told: dict[str, Any] = {"found": {"llava": (True,), "qwen2_vl": (True,)}, "asked": [], "record": []}

    def check(name: str, **options: Any) -> Conformance:
        told["asked"].append((name, options))
        return result(name, *told["found"][name])

    monkeypatch.setattr("interp.conformance.tiny.families", lambda: list(told["found"]))
    monkeypatch.setattr("interp.conformance.check", check)
    monkeypatch.setattr(
        "interp.conformance.check_result.write_record", lambda found: told["record"].extend(found)
    )
    return told


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [((True,), (True,), 0), ((False,), (True,), 1), ((True,), (True, False), 1), ((False,), (False,), 1)],
)
def test_every_family_has_to_pass(
    suite: dict[str, Any], first: Any, second: Any, code: int, capsys: Any
) -> None:
    suite["found"] = {"llava": first, "qwen2_vl": second}
    assert main(["check", "--all"]) == code
    lines = capsys.readouterr().out.split("│")
    summary = [cell.strip() for cell in lines]
    assert f"{sum(second)}/{len(second)}" in summary
    assert suite["record"] == []


def test_every_option_reaches_the_suite(suite: dict[str, Any]) -> None:
    given = {
        "images": ("a.png", "b.png"), "checks": ("rows", "tiling"), "dtype": "bfloat16", "device": "meta",
        "revision": "abc", "adapter": "mine", "processor": "there", "break": "count", "probes": "9", "seed": "3",
    }  # fmt: skip
    words = [
        word
        for name, value in given.items()
        for word in (f"--{name}", *([value] if isinstance(value, str) else value))
    ]
    assert main(["check", "llava", *words]) == 0
    ((name, options),) = suite["asked"]
    expected = {**given, "break_as": "count", "probes": 9, "seed": 3}
    del expected["break"]
    assert name == "llava"
    assert {key: options[key] for key in expected} == expected
    assert set(options) == {*expected, "progress", "finished"}


@pytest.mark.parametrize("more", [["llava"], *(["--all", *change] for change in CHANGES)])
def test_a_record_is_of_all_families_unchanged(suite: dict[str, Any], more: list[str], capsys: Any) -> None:
    assert main(["check", *more, "--record"]) == 2
    assert "--record stores the float32 results of every family" in capsys.readouterr().err
    assert (suite["asked"], suite["record"]) == ([], [])


def test_a_record_holds_each_family(suite: dict[str, Any]) -> None:
    assert main(["check", "--all", "--record"]) == 0
    assert [one.family for one in suite["record"]] == ["llava", "qwen2_vl"]


def test_tiny_models_alone_run_on_one_thread(suite: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    assert main(["check", "llava"]) == 0
    suite["found"]["folder"] = (True,)
    monkeypatch.setattr("interp.conformance.tiny.families", lambda: ["llava"])
    assert main(["check", "folder"]) == 0
    assert set_to == [1, 5, 5, 5]
    with pytest.raises(KeyError), cli._threads(1):
        raise KeyError
    assert set_to[4:] == [1, 5]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (99.4, "99 s"), (100, "2 min"), (600, "10 min")])
def test_a_time_is_in_seconds_or_minutes(seconds: float, text: str) -> None:
    assert cli._duration(seconds) == text


def test_merged_parts_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    asked: list[Any] = []

    class Run:
        path = tmp_path / "joined"

    monkeypatch.setattr(cli, "merge", lambda parts, out: asked.append((parts, out)) or [Run])
    assert main(["merge", "a", "b", "--out", "c"]) == 0
    assert asked == [([Path("a"), Path("b")], Path("c"))]
    assert capsys.readouterr().out == f"merged {tmp_path / 'joined'}\n"


@pytest.mark.parametrize(("licence", "told"), [("MIT", "MIT"), ("", "the source states none")])
def test_a_converted_checkpoint_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, licence: str, told: str
) -> None:
    asked: list[Any] = []
    found = SimpleNamespace(
        folder="out", nbytes=2_345_000_000, model_class="Llava", layout="LLaVA", licence=licence, notes=["one", "two"],
        way="load it so",
    )  # fmt: skip
    monkeypatch.setattr(
        "interp.models.checkpoints.convert.convert",
        lambda *given, **more: asked.append((given, more)) or found,
    )
    words = ["convert", "in", "out", "--dtype", "float16", "--vision-tower", "t", "--revision", "r"]
    assert main(words) == 0
    assert asked == [(("in", "out"), {"dtype": "float16", "vision_tower": "t", "revision": "r"})]
    assert capsys.readouterr().out.splitlines() == [
        "out: 2.35 GB of weights for Llava, from the LLaVA layout", f"licence: {told}", "note: one", "note: two",
        "load it so",
    ]  # fmt: skip


def test_time_left_is_told_with_each_result(suite: dict[str, Any], monkeypatch: Any, capsys: Any) -> None:
    def check(name: str, *, finished: Any, progress: Any, **options: Any) -> Conformance:
        found = result(name, True, True)
        for row, seconds in zip(found.rows, (90.0, 0.0), strict=True):
            progress(row.name)
            finished(row, seconds)
        return found

    monkeypatch.setattr("interp.conformance.check", check)
    assert main(["check", "llava", "--checks", "a", "b"]) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("llava: ")
    assert first.endswith("; about 90 s left")
    assert "left" not in second
