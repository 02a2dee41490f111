"""`interp doctor`: versions, devices, memory, extras, whether the bundled model works, and what to mend."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp.inputs.text import count
from interp.terminal import console, table

__all__ = ["EXTRAS", "doctor"]

EXTRAS = {
    "curation": "Krippendorff's alpha: how far raters agree",
    "data": "readers of NIfTI, DICOM, COCO masks and the hub's data sets",
    "dev": "tests, checks and notebooks",
    "eval": "scores of open answers: BLEU, BERTScore",
    "explore": "the explorer in a browser",
    "gradients": "integrated gradients",
    "images": "figures as PNG and SVG",
    "lens": "TransformerLens: caches, logit lens, direct attribution",
    "lmms-eval": "tasks of lmms-eval, in an environment of its own",
    "lora": "LoRA adapters",
    "quantization": "int8, int4 and fp8 weights",
    "ray": "workers on several machines",
    "video": "video files",
}
"""Extra → what it is for."""
SHARE = 0.8
"""Of the free memory, what weights may take; the rest is for activations, keys and values."""


@dataclass(eq=False)
class _Report:
    """The findings: tables of name and value, and problems with their solutions."""

    tables: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, title: str, rows: Iterable[tuple[str, str]]) -> None:
        self.tables.append((title, list(rows)))


def doctor() -> int:
    """Check whether this machine is ready: versions, devices, memory, extras, and the bundled model at work.

    Nothing is downloaded. Problems are listed at the end, each with its solution; the exit code is then 1.
    """
    from rich.text import Text

    found, shown = _Report(), console()
    with shown.status("looking") if shown.is_terminal else _nothing():
        found.add("Versions", _versions(found.problems))
        found.add("Devices", _devices())
        found.add("Extras", _extras())
        found.add("Hub and folders", _places())
        found.add("The bundled model", _at_work(found.problems))
    for title, rows in found.tables:
        made = table(title=title, title_justify="left", show_lines=False, show_header=False, box=None)
        made.add_column(no_wrap=True, style="bold")
        made.add_column(ratio=1, overflow="fold")
        for row in rows:
            made.add_row(*map(Text, row))
        shown.print(made)
        shown.print()
    if not found.problems:
        shown.print("No problem was found.")
    for problem in found.problems:
        shown.print(f"PROBLEM: {problem}", markup=False, highlight=False)
    return 1 if found.problems else 0


class _nothing:  # noqa: N801 - a context
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _versions(problems: list[str]) -> Iterator[tuple[str, str]]:
    """Python, interp and what it needs, with the ranges it was made for."""
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    try:
        yield "interp", importlib.metadata.version("interp")
        needed = [one for one in importlib.metadata.requires("interp") or [] if ";" not in one]
    except importlib.metadata.PackageNotFoundError:
        problems.append(
            "interp is not installed as a package: run pip install -c constraints.txt -e . in its folder."
        )
        return
    for requirement in sorted(needed, key=str.lower):
        name, wanted = _parts(requirement)
        version, wrong = _checked(name, wanted)
        yield name, f"{version or 'not installed'}{f' ({wanted} is needed)' if wrong else ''}"
        if wrong:
            problems.append(f"{name} {version or 'is missing'}: run pip install '{name}{wanted}'.")


def _parts(requirement: str) -> tuple[str, str]:
    """The name and the range of a requirement, without its extras and marker."""
    found = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?", requirement)
    assert found is not None, requirement
    return found[1], found[2].strip()


def _checked(name: str, wanted: str) -> tuple[str | None, bool]:
    """The installed version, and whether it is missing or outside the range."""
    from transformers.utils.versions import require_version

    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None, True
    try:
        for part in filter(None, wanted.split(",")):
            require_version(f"{name}{part}")
    except ImportError:
        return version, True
    return version, False


def _devices() -> Iterator[tuple[str, str]]:
    """Each device, its memory, and about how large a model fits."""
    import torch

    total, free = _memory()
    yield "cpu", f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads; {_room(free, total, 4)}"
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(i)
        yield f"cuda:{i}", f"{torch.cuda.get_device_name(i)}; {_room(free, total, 2)}"
    if torch.backends.mps.is_available():
        yield "mps", "Apple GPU; memory is shared with the CPU"
    if not torch.cuda.is_available():
        yield "cuda", "none: models run on the CPU"


def _room(free: float, total: float, n_bytes: int) -> str:
    """Memory in words, and the number of parameters whose weights fit, of so many bytes each."""
    dtype = {2: "bfloat16", 4: "float32"}[n_bytes]
    fits = SHARE * free / n_bytes / 1e9
    return f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free: weights of about {fits:.2g} billion parameters in {dtype}"


def _memory() -> tuple[float, float]:
    """Bytes of memory of this machine, in total and available; the limit of a container is not known."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    known = Path("/proc/meminfo")
    if not known.is_file():
        return total, total
    lines = dict(line.split(":", 1) for line in known.read_text().splitlines() if ":" in line)
    return total, 1024 * float(lines["MemAvailable"].split()[0])


def _extras() -> Iterator[tuple[str, str]]:
    """Each extra: what it is for, and whether it is here."""
    try:
        about = importlib.metadata.metadata("interp")
        needed = importlib.metadata.requires("interp") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for extra in sorted(about.get_all("Provides-Extra") or []):
        own = [_parts(one) for one in needed if re.search(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]", one)]
        lacking = [name for name, wanted in own if _checked(name, wanted)[1]]
        state = f"lacks {', '.join(lacking)}: pip install 'interp[{extra}]'" if lacking else "installed"
        yield extra, f"{EXTRAS.get(extra, '')}: {state}".removeprefix(": ")


def _places() -> Iterator[tuple[str, str]]:
    """Where models come from, and how much room there is."""
    from huggingface_hub import constants

    offline = "not asked: HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "asked for hub ids alone"
    yield "hub", offline
    cache = Path(constants.HF_HUB_CACHE)
    kept = len(list(cache.glob("models--*"))) if cache.is_dir() else 0
    yield "hub cache", f"{cache}: {count(kept, 'model')}; {_disk(cache)} free on its disk"
    yield "this folder", f"{Path.cwd()}; {_disk(Path.cwd())} free"
    yield "NDIF", "NDIF_API_KEY is set" if os.environ.get("NDIF_API_KEY") else "NDIF_API_KEY is not set"


def _disk(path: Path) -> str:
    there = next(one for one in (path, *path.parents) if one.exists())
    return f"{shutil.disk_usage(there).free / 1e9:.1f} GB"


def _at_work(problems: list[str]) -> Iterator[tuple[str, str]]:
    """Runs the bundled model on one picture: whether its answer is right and an attention row sums to 1."""
    import interp

    started = time.perf_counter()
    try:
        mllm = interp.load("organism")
        sample = interp.data.bundled("natural", n=1)[0]
        trace = mllm.trace([sample], reads=[interp.Rows(interp.Site(queries="last", keys="all"))], generate=4)
        total: Any = trace[0].rows.isel(step=0).sum("key")
        answer, exact = trace.answers[0], bool(abs(total - 1).max() < 1e-4)
    except Exception as error:  # whatever it is, it is what is wrong here
        problems.append(f"the bundled model does not run: {type(error).__name__}: {error}")
        yield "organism", "does not run"
        return
    seconds = time.perf_counter() - started
    right = answer == sample.answer
    yield (
        "organism",
        f"answers {answer!r} (expected {sample.answer!r}) after {seconds:.1f} s, loading included",
    )
    if not right or not exact:
        problems.append(
            "the bundled model answers wrongly, or its attention does not add up to 1: the installed torch, "
            "transformers or nnsight changes results. Install those of constraints.txt."
        )
