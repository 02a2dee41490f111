"""Checks the ends of the ranges that pyproject.toml declares: a declared range is a promise.

    python -m tests.versions lowest highest

Each end gets an environment of its own, a layer over the one that runs this: pip puts the lowest, or the newest,
versions of `PACKAGES` that the ranges allow in it (and what these require), everything else is found below. Then
every family's tiny model that this transformers has is checked, and the tests of `TESTS` run, for both ends at once.
An end for which pip installs nothing is the environment that runs this, which every test checks. torch stays as
it is: other builds of it weigh gigabytes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGES = ("transformers", "nnsight", "transformer-lens")
TESTS = ("tests/tracing/lens", "tests/models/test_adapter.py", "tests/tracing/executors/test_hooks.py")


def declared() -> dict[str, Requirement]:
    """The requirements on `PACKAGES`, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["lens"]]
    found = {requirement.name: requirement for requirement in map(Requirement, lines)}
    return {name: found[name] for name in PACKAGES}


def asked(end: str) -> list[str]:
    """What pip is asked for at one end of the ranges."""
    if end == "highest":
        return ["--upgrade", *(str(requirement) for requirement in declared().values())]
    lowest = {n: next(s.version for s in r.specifier if s.operator == ">=") for n, r in declared().items()}
    return [f"{name}=={version}" for name, version in lowest.items()]


def layered(end: str, folder: Path) -> Path:
    """Makes the environment of one end in a folder; returns its Python."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    below = (
        folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages" / "below.pth"
    )
    below.write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-compile", *asked(end)], check=True)
    return python


def commands(python: Path) -> Iterator[list[str]]:
    """What runs in the environment of one end."""
    names = ", ".join(f"{name!r}" for name in PACKAGES)
    yield [str(python), "-c", f"from importlib.metadata import version; print(*map(version, ({names})))"]
    yield [str(python), "-m", "interp", "models"]
    yield [str(python), "-m", "interp", "check", "--all"]
    yield [str(python), "-m", "pytest", "-q", *TESTS]


def check(end: str) -> tuple[str, int]:
    """What one end's commands printed, and how many of them failed."""
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        python = layered(end, Path(folder))
        if not any(Path(folder).rglob("*.dist-info")):
            return "nothing to install: these are the versions that run here\n", 0
        together: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = [subprocess.run(each, cwd=ROOT, env=surroundings, **together) for each in commands(python)]
    return "".join(one.stdout for one in done), sum(one.returncode != 0 for one in done)


def main(ends: list[str]) -> int:
    """Checks the named ends, both at once; returns the number of commands that failed."""
    ends, failed = ends or ["lowest", "highest"], 0
    with ThreadPoolExecutor(len(ends)) as pool:
        for end, (printed, of_end) in zip(ends, pool.map(check, ends), strict=True):
            print(f"== {end}\n{printed}", end="", flush=True)
            failed += of_end
    print(f"{failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
