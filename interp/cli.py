"""`interp merge`: the command line's door to `merge`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from interp.errors import InterpError, ModelError
from interp.run.merge import merge

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from interp.conformance import Conformance

__all__ = ["COMMANDS", "main", "merge_command"]


def merge_command(parts: Annotated[list[Path], tyro.conf.Positional], out: Path = Path("runs")) -> int:
    """Join the parts of runs that several machines computed with --shard i/n.

    Afterwards the same study, run without --shard on the same --out, computes nothing and shows its result.

    Args:
        parts: folders that were the --out of the parts; every run in them is merged.
        out: folder for the whole runs; what it already holds counts as a part.
    """
    for folder in merge(parts, out):
        print(f"merged {folder.path}")
    return 0


_WIDTH = 140
"""Of tables that are not shown in a terminal."""

_ATTENDS = {"causal": "none", "image_blocks": "its own image", "prefix": "the prompt"}
"""What an adapter's `attends` says, for people."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code: 0 when all is well, 1 when a check failed, 2 on an error.

    Args:
        args: what comes after `interp`; by default the process's own arguments.
    """
    chosen: Callable[[], int] = tyro.extras.subcommand_cli_from_dict(
        {name: _later(command) for name, command in COMMANDS.items()}, prog="interp", args=args
    )
    try:
        return chosen()
    except InterpError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def check(
    model: Annotated[str | None, tyro.conf.Positional] = None,
    *,
    all_families: Annotated[bool, tyro.conf.arg(name="all"), tyro.conf.FlagCreatePairsOff] = False,
    images: tuple[str, ...] = (),
    checks: tuple[str, ...] = (),
    dtype: str = "float32",
    device: str = "cpu",
    revision: str | None = None,
    adapter: str | None = None,
    processor: str | None = None,
    break_as: Annotated[str | None, tyro.conf.arg(name="break")] = None,
    probes: int = 64,
    seed: int = 0,
    record: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Measure whether a model's adapter, and all that is read through it, is right.

    Prints a table of checks; the exit code is 0 only when every one passed.

    Args:
        model: a family (its tiny model with random weights), a folder, or a hub id.
        all_families: check every family's tiny model.
        images: image files to use instead of made-up pictures.
        checks: names of checks; all of them when left out.
        dtype: of the weights.
        device: where the model runs.
        revision: of a hub id.
        adapter: name of the adapter, when the config's own is not wanted.
        processor: folder or hub id of the processor, where the checkpoint has none.
        break_as: break the adapter first, to see the suite notice: transposed, shifted, row-shifted,
            tile-swapped, row-flipped, images-swapped, count or attends.
        probes: tokens of a picture's view that are probed at most.
        seed: of random weights, pictures and probes.
        record: with --all, write the results to the package's record, which `interp models` shows.
    """
    changed = bool(checks or break_as or images or dtype != "float32")
    _check_options(model, all_families, record, changed)
    options: dict[str, Any] = {
        "checks": checks or None,
        "images": images,
        "break_as": break_as,
        "probes": probes,
        "seed": seed,
        "device": device,
        "dtype": dtype,
        "revision": revision,
        "adapter": adapter,
        "processor": processor,
    }
    return _checked(model, options, record)


def _check_options(model: str | None, all_families: bool, record: bool, changed: bool) -> None:
    """Refuse options of `check` that contradict each other."""
    if (model is None) != all_families:
        raise ModelError(
            "interp check takes one model (a family, a folder or a hub id), or --all for every family's tiny "
            f"model; got {model!r}{' and --all' if all_families else ''}."
        )
    if record and (not all_families or changed):
        raise ModelError(
            "--record keeps what every family's own checks found in float32: use it with --all and nothing "
            "that changes them."
        )


def _checked(model: str | None, options: dict[str, Any], record: bool) -> int:
    """Checks a model, or every family, and prints each table; the exit code."""
    _quiet()
    from interp import conformance
    from interp.conformance.check_result import write
    from interp.conformance.tiny import families

    models = families() if model is None else [model]
    console, results = _console(), []
    n_checks = len(models) * len(options["checks"] or conformance.CHECKS)
    with _progress(n_checks) as advance, _threads(1 if set(models) <= set(families()) else None):
        for name in models:

            def report(what: str, name: str = name) -> None:
                advance(f"{name}: {what}")

            results.append(conformance.check(name, progress=report, **options))
            console.print(results[-1])
    if record:
        write(results)
    if len(results) > 1:
        console.print(_summary(results))
    return 0 if all(result.passed for result in results) else 1


def models() -> int:
    """List the model families: what their image tokens are, what each supports, and how it was checked."""
    from interp.conformance.check_result import read
    from interp.models.adapter import adapters

    record = read()
    table = _table("family")
    table.add_column("image tokens, and checkpoints of the family", min_width=45, overflow="fold")
    for name in ("attends", "prefix", "images"):
        table.add_column(name)
    for name in ("executors", "checked"):
        table.add_column(name, no_wrap=True)
    for adapter in adapters():
        table.add_row(*_described(adapter, record.get(adapter.name)))
    console = _console()
    console.print(table)
    versions = {", ".join(f"{n} {v}" for n, v in found["versions"].items()) for found in record.values()}
    console.print(
        "attends: which later tokens a row of the prompt sees. prefix: whether what comes up to the image can be "
        "run once for many questions. images: several in a sample. checked: `interp check FAMILY` on tiny random "
        f"weights ({'; '.join(versions) or 'no record'}). For a checkpoint of yours: `interp check FOLDER`."
    )
    return 0


def convert(
    source: Annotated[str, tyro.conf.Positional],
    target: Annotated[str, tyro.conf.Positional],
    *,
    dtype: str = "auto",
    vision_tower: str | None = None,
    revision: str | None = None,
) -> int:
    """Write a checkpoint that is in an original layout as a folder that transformers loads.

    Weights are read and written tensor by tensor, so the model need not fit in memory.

    Args:
        source: a folder or hub id in an original layout, such as LLaVA's, VILA's or InternVL 1.2's.
        target: a folder that does not exist, or is empty.
        dtype: of the weights; auto keeps each tensor's own.
        vision_tower: folder or hub id of a tower that replaces the one the source's config names.
        revision: of a hub id.
    """
    _quiet()
    from interp.models.checkpoints.convert import convert as converted

    options: dict[str, Any] = {"dtype": dtype, "vision_tower": vision_tower, "revision": revision}
    found = converted(source, target, **options)
    size = f"{found.nbytes / 1e9:.3g} GB of weights"
    for line in (
        f"{found.folder}: {size} for {found.model_class}, from the {found.layout} layout",
        f"licence: {found.licence or 'the source states none'}",
        *(f"note: {note}" for note in found.notes),
        found.way,
    ):
        print(line)
    return 0


COMMANDS: dict[str, Callable[..., int]] = {
    "check": check,
    "convert": convert,
    "merge": merge_command,
    "models": models,
}
"""Every command by name; its arguments and help are the function's own."""


def _later(command: Callable[..., int]) -> Callable[..., Callable[[], int]]:
    """The command with its arguments parsed and not yet run, so that its errors are not the parser's."""
    from functools import partial, wraps

    @wraps(command)
    def parsed(*args: Any, **options: Any) -> Callable[[], int]:
        return partial(command, *args, **options)

    return parsed


def _described(adapter: Any, found: dict[str, Any] | None) -> list[Any]:
    """The cells of one family. `found`: its record, None for an adapter that was never recorded."""
    from rich.text import Text

    attends = getattr(adapter, "attends", "causal")
    layout = Text(getattr(adapter, "layout", "") or "–")
    for example in getattr(adapter, "examples", ()):
        layout.append(f"\n{example}", "dim")
    head = [Text(adapter.name), layout, _ATTENDS.get(attends, attends)]
    if found is None:
        return [*head, "?", "?", "?", "never recorded"]

    def holds(check: str, yes: str) -> str:
        return yes if check in found["checks"] and check not in found["failed"] else "FAILS"

    return [
        *head,
        holds("image prefix", "not exact, not used" if attends == "prefix" else "exact"),
        holds("several images", "several"),
        holds("executors", "tap, source"),
        f"{found['passed']}/{found['total']}, {found['date']}",
    ]


def _summary(results: Sequence[Conformance]) -> Table:
    """One line per model."""
    table = _table("family", "passed", "failed")
    for result in results:
        n = sum(row.passed for row in result.rows)
        table.add_row(result.family, f"{n}/{len(result.rows)}", ", ".join(r.name for r in result.failures))
    return table


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(show_lines=True)
    for name in columns:
        table.add_column(name)
    return table


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDTH)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """A bar on stderr; the function given moves it on and says what is being done."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        started = iter(range(total + 1))
        yield lambda what: bar.update(task, completed=next(started), description=what)


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """torch's threads for the block: tiny models run faster on one. None leaves them."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(before if n is None else n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _quiet() -> None:
    """Leaves out transformers' own progress bars and advice."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
