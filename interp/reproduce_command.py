"""`interp reproduce`: the paper's figures and tables by one command, with one page that lists them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from interp.reproduce import Figure, Session

__all__ = ["reproduce"]


def reproduce(
    *,
    model: tuple[str, ...] = ("organism",),
    vgmed: Path | None = None,
    coco: Path | None = None,
    benchmarks: tuple[str, ...] = (),
    only: tuple[str, ...] = (),
    listed: Annotated[bool, tyro.conf.arg(name="list"), tyro.conf.FlagCreatePairsOff] = False,
    out: Path = Path("runs/reproduce"),
    paper: bool = True,
    n: int | None = None,
    published_heads: str = "",
    studies: Path | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 8,
    workers: int = 1,
) -> int:
    """Make every figure and table of the paper whose model and data are at hand, and an index of all.

    Each is made by its script in the repository's folder studies/, in a process of its own: a failure is shown on the
    index and does not stop the others. The same command goes on where it stopped. Without models and data everything
    runs on the bundled organism and bundled samples, whose numbers are not the paper's. The exit code is 1 where a
    script failed.

    Args:
        model: the models: folders or hub ids. Figures of several models show all; others the first.
        vgmed: folder of VGMED's files and images.
        coco: folder of COCO_*.jsonl and the images of val2014.
        benchmarks: folders of benchmarks, as NAME=FOLDER: vqa_rad, slake, path_vqa, pmc_vqa, mmmu, omnimedvqa.
        only: names of figures, such as fig3 table1; by default all.
        listed: show what is there and what is missing, without running anything.
        out: the folder for runs, pages and index.html.
        paper: choose layers and heads, take boxes and show metrics as the paper does, where this toolkit's own default
            is another.
        n: samples of each data set at most; by default each script's own number, for a first look; 0 for all.
        published_heads: a published set of heads for a copy of its checkpoint: huatuogpt-vision-7b.
        studies: the folder of the scripts; by default that of this checkout.
        device: device that models run on.
        dtype: dtype of the weights.
        batch_size: samples per forward pass.
        workers: number of worker processes.
    """
    from interp.reproduce import Request, Session, figures_named, scripts_folder

    folders = {name: folder for name, folder in (("vgmed", vgmed), ("coco", coco)) if folder is not None}
    folders |= dict(map(_benchmark, benchmarks))
    options = {"device": device, "dtype": dtype, "batch-size": str(batch_size), "workers": str(workers)}
    absolute = {name: folder.resolve() for name, folder in folders.items()}
    request = Request(out, model, absolute, paper, n, published_heads, options)
    chosen, session = figures_named(only), Session(request, scripts_folder(studies))
    if listed:
        _show(session, chosen)
        return 0
    failed = 0
    for figure in chosen:
        _say(f"{figure.name}: {figure.paper}, {figure.shows}")
        state = session.run(figure)
        failed += state.outcome == "failed"
        where = session.page(figure) if state.outcome == "done" else state.reason
        _say(f"{figure.name}: {state.outcome}. {where}")
        _write(session)
    print(f"Index: {_write(session)}")
    return 1 if failed else 0


def _benchmark(text: str) -> tuple[str, Path]:
    """The name and the folder of NAME=FOLDER."""
    from interp.errors import RunError

    name, sign, folder = text.partition("=")
    if not sign or not folder:
        raise RunError(f"--benchmarks takes NAME=FOLDER, such as slake=/data/SLAKE; got {text!r}.")
    return name, Path(folder)


def _write(session: Session) -> Path:
    """Writes the index of all figures, those that were not asked for too."""
    from interp.reproduce import FIGURES
    from interp.reproduce.index_page import write_index

    return write_index(session, FIGURES)


def _show(session: Session, chosen: Sequence[Figure]) -> None:
    """Prints a table of the figures and their states."""
    from interp.reproduce import DATA
    from interp.terminal import console, table

    made = table("name", "paper", "state", "page, or what is missing")
    for figure in chosen:
        state = session.state(figure)
        absent = [DATA[name].label for name in figure.data if name not in session.request.folders]
        without = f" (without {', '.join(absent)})" if absent else ""
        made.add_row(figure.name, figure.paper, state.outcome, state.reason or figure.page + without)
    console().print(made)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
