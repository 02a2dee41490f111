"""docs/new_model.md, done as it says: its files written, its commands run, its mistake made and noticed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from interp.conformance import check
from interp.tracing import wrap

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "new_model.md").read_text("utf-8")
FILES = dict(re.findall(r"^\*\*`([^`]+)`\*\*\n```\w+\n(.*?)^```$", PAGE, re.M | re.S))
COMMANDS = [
    line for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.M | re.S) for line in block.splitlines()
]
MISTAKE = re.findall(
    r"replace the adapter's line `([^`]+)` by\n\n```python-change\n(.*?)^```$", PAGE, re.M | re.S
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The three files, and a `bin` in which `pip` and `python` are this interpreter's."""
    place = tmp_path_factory.mktemp("new_model")
    (place / "bin").mkdir()
    for name, module in (("python", ""), ("pip", "-m pip")):
        script = place / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        script.chmod(0o755)
    for name, text in FILES.items():
        (place / name).write_text(text)
    return place


def run(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """A command in the folder; pip installs into it, builds with what is there, and asks no index."""
    target = folder / "installed"
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(target), str(ROOT)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PIP_TARGET": str(target),
        "PIP_UPGRADE": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this one as the value of build_isolation
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
        "COLUMNS": "160",
    }
    return subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_page_holds_what_it_promises():
    assert sorted(FILES) == ["interp_deepseek_vl.py", "pyproject.toml", "test_interp_deepseek_vl.py"]
    assert [command.split()[0] for command in COMMANDS] == ["pip", "python", "python"]
    assert len(FILES["interp_deepseek_vl.py"].splitlines()) < 80
    assert "hatchling.build" in FILES["pyproject.toml"]
    assert len(MISTAKE) == 1
    assert FILES["interp_deepseek_vl.py"].count(MISTAKE[0][0]) == 1


def test_the_pages_adapter_passes_and_its_mistake_does_not():
    line, replacement = MISTAKE[0]
    text = FILES["interp_deepseek_vl.py"]
    right, swapped = (failures(one) for one in (text, text.replace(f"        {line}\n", replacement)))
    assert right == []
    assert swapped == ["locality"]


def failures(text: str) -> list[str]:
    """The checks that an adapter, given as the text of its module, does not pass."""
    module: dict[str, Any] = {}
    exec(text, module)
    adapter = module["DeepseekVl"]()
    model, processor = adapter.tiny()
    found = check(wrap(model, processor, adapter=adapter), checks=["tiling", "locality", "rows"], probes=16)
    return [row.name for row in found.failures]


@pytest.mark.slow
@pytest.mark.notebook
def test_the_page_works_as_written(folder):
    """Its mistake is noticed in the test above; that `interp check` then ends with 1 is tested in `test_cli.py`."""
    for command in COMMANDS:
        done = run(folder, command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if command.startswith("pip"):
            (folder / "interp_deepseek_vl.py").unlink()  # what is checked is what was installed
        if "interp check" in command:
            assert "locality" in done.stdout
            assert "FAIL" not in done.stdout
        if "pytest" in command:
            assert "2 passed" in done.stdout
