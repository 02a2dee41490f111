"""`python -m interp.lmms_eval prepare …` writes benchmarks for lmms-eval; `… run …` is the command lmms-eval."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro

from interp import broken_torchvision
from interp.cli import run_script
from interp.data.open import named
from interp.errors import StudyError
from interp.lmms_eval.task_documents import write

__all__ = ["main", "prepare", "run_arguments"]

USAGE = "python -m interp.lmms_eval prepare BENCHMARK:FOLDER … | run ARGUMENTS OF lmms-eval"


def main(args: Sequence[str] | None = None) -> None:
    """Writes data, or runs lmms-eval with the model and the tasks of `interp`."""
    given = list(sys.argv[1:] if args is None else args)
    if given[:1] == ["prepare"]:
        run_script(prepare, args=given[1:])
    elif given[:1] == ["run"]:
        run(given[1:])
    else:
        raise SystemExit(f"usage: {USAGE}")


def prepare(
    data: Annotated[tuple[str, ...], tyro.conf.Positional],
    *,
    out: Path = Path("interp_data"),
    split: str = "test",
    n: int | None = None,
) -> None:
    """Write benchmarks where the tasks of `interp` look for them.

    Args:
        data: Benchmarks such as vqa_rad:FOLDER, path_vqa,questions=open:FOLDER, pmc_vqa:FOLDER, omnimedvqa:FOLDER.
        out: The folder of data sets; tasks read `interp_data` of the folder that lmms-eval is started in.
        split: The split to write: test, validation, train or all.
        n: The maximum number of questions of each; None for all.
    """
    for name in data:
        samples = named(name, split=split, n=n)
        head = name.partition(":")[0]
        benchmark, opened = head.partition(",")[0], "questions=open" in head
        target = write(samples, out / f"{benchmark}{'_open' if opened else ''}")
        print(f"{len(samples)} questions of {samples.name} in {target}: --tasks interp_{target.name}")


def run(args: Sequence[str]) -> None:
    """Run lmms-eval in this process.

    Raises:
        StudyError: lmms-eval is not installed.
    """
    if find_spec("lmms_eval") is None:
        raise StudyError("this needs lmms-eval; install it with: pip install 'interp[lmms-eval]'")
    broken_torchvision.hide()
    from lmms_eval.cli.dispatch import main as lmms_eval  # pyright: ignore[reportMissingImports]

    sys.argv = ["lmms-eval", *run_arguments(args)]
    lmms_eval()


def run_arguments(args: Sequence[str]) -> list[str]:
    """The arguments with the model `interp` and its tasks where none are named."""
    names = {one.partition("=")[0] for one in args}
    found = list(args)
    if "--model" not in names:
        found += ["--model", "interp"]
    if "--include_path" not in names:
        found += ["--include_path", str(files("interp.lmms_eval") / "tasks")]
    return found


if __name__ == "__main__":
    main()
