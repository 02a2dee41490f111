"""With what a run is computed: provenance that no number depends on."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

__all__ = ["PACKAGES", "git_commit", "n_threads", "versions"]

PACKAGES = ("interp", "torch", "transformers", "nnsight", "numpy", "pyarrow", "pillow")


@cache
def versions() -> dict[str, str]:
    """The versions of Python and of the packages that numbers may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


@cache
def git_commit(folder: Path) -> str | None:
    """The commit a folder is at, with "+changes" when files differ from it; None outside a repository.

    Asked once per process: the code that runs is the code that was imported.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    return commit + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def n_threads() -> int | None:
    """The number of threads torch uses here; None when nothing has imported torch."""
    torch = sys.modules.get("torch")
    return None if torch is None else torch.get_num_threads()
