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


def test_memory_of_each_device_is_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's library says (free, total)."""
    import torch

    monkeypatch.setattr(doctor_command, "_memory", lambda: (64e9, 20e9))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: (10e9 * (i + 1), 80e9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"GPU {i}")
    found = dict(doctor_command._devices())
    assert found["cpu"].endswith("; 20.0 of 64.0 GB free: weights of about 4 billion parameters in float32")
    assert found["cuda:0"] == "GPU 0; 10.0 of 80.0 GB free: weights of about 4 billion parameters in bfloat16"
    assert found["cuda:1"].startswith("GPU 1; 20.0 of 80.0 GB free")
    assert "cuda" not in found
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dict(doctor_command._devices())["cuda"] == "none: models run on the CPU"


def test_memory_of_the_machine_is_in_bytes() -> None:
    total, free = doctor_command._memory()
    assert 2**28 < free <= total < 2**50
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").is_file() else []
    for line in lines:
        if line.startswith("MemTotal:"):
            assert total == pytest.approx(1024 * int(line.split()[1]), rel=0.01)


def test_an_extra_names_the_packages_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    about = type("About", (), {"get_all": lambda self, name: ["ray", "data", "new"]})()
    wanted = [
        "numpy",
        "no-such-package>=1; extra == 'data'",
        "numpy>=1; extra == 'data'",
        'numpy<1; extra=="ray"',
    ]
    monkeypatch.setattr(doctor_command.importlib.metadata, "metadata", lambda name: about)
    monkeypatch.setattr(doctor_command.importlib.metadata, "requires", lambda name: wanted)
    assert list(doctor_command._extras()) == [
        ("data", f"{EXTRAS['data']}: lacks no-such-package: pip install 'interp[data]'"),
        ("new", "installed"),
        ("ray", f"{EXTRAS['ray']}: lacks numpy: pip install 'interp[ray]'"),
    ]


@pytest.mark.parametrize(
    ("offline", "said"), [(True, "not asked: HF_HUB_OFFLINE is set"), (False, "asked for hub ids alone")]
)
def test_what_the_cache_of_the_hub_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, offline: bool, said: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        doctor_command.shutil, "disk_usage", lambda path: type("Disk", (), {"free": 12.34e9})()
    )
    monkeypatch.delenv("NDIF_API_KEY", raising=False)
    found = dict(doctor_command._places())
    assert (found["hub"], found["NDIF"]) == (said, "NDIF_API_KEY is not set")
    assert found["hub cache"] == f"{tmp_path / 'hub'}: 0 models; 12.3 GB free on its disk"
    for name in ("models--a--b", "models--a--c", "datasets--a--d"):
        (tmp_path / "hub" / name).mkdir(parents=True)
    assert dict(doctor_command._places())["hub cache"].startswith(f"{tmp_path / 'hub'}: 2 models; ")
