"""`interp doctor`, `interp models` and `--version`: what they say is so, and it fits the terminal."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

import interp
from interp import doctor_command
from interp.cli import main
from interp.doctor_command import EXTRAS

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]


def test_every_extra_says_what_it_is_for() -> None:
    assert set(PROJECT["optional-dependencies"]) <= set(EXTRAS)


def test_the_doctor_finds_a_machine_that_works(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NDIF_API_KEY", "a secret")
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 100
    assert "torch" in said
    assert "organism" in said
    assert "(expected " in said
    assert "No problem was found." in said
    assert "a secret" not in said


def test_the_doctor_says_how_to_mend_a_version(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=99", "no-such-package>=1", "ray[client]>=2; extra == 'ray'"]
    monkeypatch.setattr(doctor_command.importlib.metadata, "requires", lambda name: wanted)
    monkeypatch.setattr(interp, "load", lambda name: 1 / 0)
    assert main(["doctor"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "PROBLEM: numpy" in said
    assert "run pip install 'numpy>=99'" in said
    assert "PROBLEM: no-such-package is missing: run pip install 'no-such-package>=1'." in said
    assert "PROBLEM: the bundled model does not run: ZeroDivisionError" in said


@pytest.mark.parametrize("width", [80, 100, 140, 180])
def test_models_fit_the_terminal(capsys: Any, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= width
    assert "…" not in said
    assert "google/gemma-3-4b" in said.replace("\n", "")
    assert "FAILS" not in said


def test_the_version_is_a_line(capsys: Any) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"interp {interp.__version__}\n"
