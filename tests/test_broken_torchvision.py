"""A torchvision of another build is treated as missing; one that works stays."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers.utils.import_utils import is_torchvision_available

from interp import broken_torchvision


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which to put a torchvision; what it leaves behind is taken away."""
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "torchvision"}
    for name in before:
        del sys.modules[name]
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "torchvision").mkdir()
    is_torchvision_available.cache_clear()
    yield tmp_path / "torchvision"
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    sys.modules.update(before)
    is_torchvision_available.cache_clear()


def versions(monkeypatch: pytest.MonkeyPatch, torch: str, torchvision: str) -> None:
    found = {"torch": torch, "torchvision": torchvision}
    monkeypatch.setattr(broken_torchvision, "_version", found.__getitem__)


def test_a_torchvision_of_another_build_is_hidden(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (installed / "__init__.py").write_text("from torchvision import ops")
    (installed / "ops.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    versions(monkeypatch, "2.13.0+cpu", "0.28.0")
    assert is_torchvision_available()
    assert broken_torchvision.hide()
    assert not is_torchvision_available()
    assert [name for name in sys.modules if name.startswith("torchvision.")] == []
    assert broken_torchvision.hide()  # a second call says the same


def test_a_torchvision_that_works_stays(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (installed / "__init__.py").write_text("")
    versions(monkeypatch, "2.13.0+cpu", "0.28.0")
    assert not broken_torchvision.hide()
    assert sys.modules["torchvision"] is not None


@pytest.mark.parametrize(("torch", "torchvision"), [("2.13.0", "0.28.0"), ("2.13.0+cpu", "0.28.0+cpu")])
def test_nothing_is_imported_where_the_builds_agree(
    installed: Path, monkeypatch: pytest.MonkeyPatch, torch: str, torchvision: str
) -> None:
    (installed / "__init__.py").write_text("raise RuntimeError('not to be imported')")
    versions(monkeypatch, torch, torchvision)
    assert not broken_torchvision.hide()
    assert "torchvision" not in sys.modules
