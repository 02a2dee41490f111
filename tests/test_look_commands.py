"""`interp explore` and what `interp look` says: every option reaches the server, and a bad image stops it early."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from interp import look_commands
from interp.cli import main


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was loaded, and what was served."""
    found: list[Any] = []
    monkeypatch.setattr(
        "interp.tracing.load", lambda *given, **more: found.append((given, more)) or "the model"
    )
    monkeypatch.setattr(
        "interp.explore.local_server.serve", lambda *given, **more: found.append((given, more))
    )
    return found


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (9, 7)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_the_explorer_takes_every_option(asked: list[Any], picture: Path) -> None:
    words = (
        "--question why? --model m --device meta --dtype bfloat16 --revision r --processor p --adapter z --generate 5 "
        "--host ::1 --port 9 --open"
    )
    assert main(["explore", str(picture), str(picture), *words.split()]) == 0
    options = {"device": "meta", "dtype": "bfloat16", "revision": "r", "processor": "p", "adapter": "z"}
    (loaded, ((mllm, sample), served)) = asked
    assert loaded == (("m",), options)
    assert mllm == "the model"
    assert (sample.question, len(sample.images)) == ("why?", 2)
    assert served == {
        "model": {"model": "m", **options}, "generate": 5, "host": "::1", "port": 9, "open_page": False,
    }  # fmt: skip


def test_the_code_of_the_page_names_no_default(asked: list[Any], picture: Path) -> None:
    assert main(["explore", str(picture), "--dtype", "float16"]) == 0
    ((model,), loaded), ((_, sample), served) = asked
    assert (model, loaded["device"], loaded["dtype"]) == ("organism", "cpu", "float16")
    assert sample.question == "What is in the image?"
    assert served["model"] == {"model": "organism", "dtype": "float16"}
    assert (served["host"], served["port"], served["generate"]) == ("127.0.0.1", 8050, 8)


@pytest.mark.parametrize(
    ("terminal", "given", "opened"),
    [(True, [], True), (True, ["--no-open"], False), (False, [], False)],
)
def test_a_page_is_opened_in_a_terminal_alone(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, terminal: bool, given: list[str], opened: bool
) -> None:
    monkeypatch.setattr(look_commands.sys.stdout, "isatty", lambda: terminal, raising=False)
    assert main(["explore", "--question", "why?", *given]) == 0
    (_, ((_, sample), served)) = asked
    assert (sample, served["open_page"]) == (None, opened)


def test_a_missing_image_is_told_before_a_model_is_loaded(
    asked: list[Any], tmp_path: Path, capsys: Any
) -> None:
    assert main(["explore", str(tmp_path / "none.png")]) == 2
    assert "none.png" in capsys.readouterr().err
    assert asked == []


@pytest.mark.parametrize("note", ["", "a note"])
def test_a_look_is_told_in_lines(note: str, capsys: Any) -> None:
    found: Any = SimpleNamespace(
        said="red", probability=0.256, note=note, first=SimpleNamespace(name="attention", rule="The best layer."),
        trust=SimpleNamespace(summary="3 of 4 checks passed"), missing={"rollout": "no softmax", "x": "y"},
    )  # fmt: skip
    look_commands._say(found, Path("/there/look.html"))
    assert capsys.readouterr().out.splitlines() == [
        "answer: red (probability 0.26)",
        *([f"note: {note}"] if note else []),
        "map: attention. The best layer.",
        "trust: 3 of 4 checks passed",
        "not shown: rollout: no softmax",
        "not shown: x: y",
        "page: /there/look.html",
    ]
