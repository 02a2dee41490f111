"""The command line: `interp adapt`, `check`, `convert`, `data`, …. A command is a function in `COMMANDS`."""

from __future__ import annotations

import io
import os
import re
import select
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from interp import __version__
from interp.doctor_command import doctor
from interp.errors import InterpError, ModelError
from interp.inputs.text import meant
from interp.look_commands import explore, look
from interp.model_commands import adapt, models
from interp.reproduce_command import reproduce
from interp.run.merge import merge
from interp.study_commands import WorkerOptions, report, run, runs
from interp.terminal import console, in_options, table

if TYPE_CHECKING:
    from rich.table import Table

    from interp.conformance import CheckResult, Conformance

__all__ = ["COMMANDS", "WorkerOptions", "main", "merge_command", "run_script"]


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code: 0 when all is well, 1 when a check failed, 2 on an error.

    Args:
        args: The arguments after `interp`; by default those of the process.
    """
    given = list(sys.argv[1:] if args is None else args)
    if given == ["--version"]:
        print(f"interp {__version__}")
        return 0
    group = given[0] if given and given[0] in GROUPS else ""
    listed = (
        {name: command for found in GROUPS[group] for name, command in found().items()} if group else COMMANDS
    )
    commands = {name: _later(command) for name, command in listed.items()}
    prog = f"interp {group}".strip()
    rest = given[bool(group) :]
    own = f"{prog} {rest[0]}" if rest and rest[0] in commands else prog
    try:
        with _parsing(prog, own):
            chosen: Callable[[], int] = tyro.extras.subcommand_cli_from_dict(commands, prog=prog, args=rest)
        code = _ran(chosen)
        sys.stdout.flush()
    except BrokenPipeError as error:
        return _without_reader(error)
    return code


def run_script(
    main: Callable[..., Any], options: type | None = None, args: Sequence[str] | None = None
) -> None:
    """Runs a script's `main` with the options of the command line, as every script in `studies/` does.

    An error ends the process with one line on stderr and the exit code 2; the runs that are finished are kept.

    Args:
        main: The function; its parameters are the options, unless it takes one value that holds them.
        options: The dataclass of that value.
        args: The arguments; by default those of the process.
    """
    with _parsing():
        chosen = (
            tyro.cli(_later(main), args=args)
            if options is None
            else partial(main, tyro.cli(options, args=args))
        )
    code = _ran(chosen)
    if code:
        raise SystemExit(code)


def _without_reader(error: BrokenPipeError) -> int:
    """The exit code after the reader of stdout has gone, as `head` does; another broken pipe is an error."""
    stdout, state = sys.stdout.fileno(), select.poll()
    state.register(stdout, 0)
    if not any(event & select.POLLERR for _, event in state.poll(0)):
        _say_error(str(error))
        return 2
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout)  # else Python complains while it ends
    return 141


def _ran(chosen: Callable[[], Any]) -> int:
    """The exit code of a call; an error that a user can solve is printed as one line, and so is a warning."""
    before, warnings.formatwarning = warnings.formatwarning, _warning_line
    try:
        return int(chosen() or 0)
    except BrokenPipeError:
        raise
    except (InterpError, OSError) as error:
        _say_error(str(error))
        return 2
    except KeyboardInterrupt:
        _say_error("interrupted. Finished shards are kept: run again to resume.")
        return 130
    finally:
        warnings.formatwarning = before


def _warning_line(message: Warning | str, category: type[Warning], *_: Any) -> str:
    """A warning as one line, without its place in the code; with its kind, unless it is a `UserWarning`."""
    kind = "" if category is UserWarning else f" ({category.__name__})"
    return f"warning{kind}: {' '.join(in_options(str(message)).split())}\n"


@contextmanager
def _parsing(prog: str = "", own: str = "") -> Iterator[None]:
    """Makes one line of what tyro prints when it refuses arguments; help is printed as it is.

    Args:
        prog: The program as tyro names it when it says where help is.
        own: The program with the command that was called.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            yield
    except SystemExit as end:
        if end.code:
            _say_error(_with_meant(_one_line(said.getvalue())).replace(f"{prog} --help", f"{own} --help"))
        sys.stdout.flush()
        raise


def _one_line(box: str) -> str:
    """The text in a box of tyro's: its paragraphs as sentences, without its title."""
    parts: list[list[str]] = [[]]  # the first holds the title, where it is no part of the frame
    for line in box.splitlines():
        words = line.strip(" │╭╮╰╯")
        if line.startswith("╭") or not words.strip("─-"):
            parts.append([])
        else:
            parts[-1] += words.split()
    return ". ".join(" ".join(words).rstrip(".") for words in parts[1:] if words) + "."


REFUSED = re.compile(r"invalid choice '(.+?)' .*?Expected one of \((.+?)\)\.")
"""tyro's refusal of a value: the word, and the known words."""
UNKNOWN = re.compile(
    r"Unrecognized options: (?P<given>.+?)\.(?: Available subcommands: (?P<commands>.+?)\.)?"
    r"(?: (?:Perhaps you meant:|Arguments similar to) (?P<near>.+?)\.?)?(?P<help> For full helptext, run .+)?$"
)
"""tyro's refusal of options and commands: the words given, the known commands, and the help of similar options."""


def _with_meant(line: str) -> str:
    """tyro's message with a suggestion, where a known word is similar to the refused one.

    Of the options that tyro suggests, each with its help for every command that has it, only the nearest is kept.
    """
    if found := REFUSED.search(line):
        known = [one.strip(" '\"") for one in found[2].split(",")]
        return f"{line[: found.end()]}{meant(found[1], known)}{line[found.end() :]}"
    if not (found := UNKNOWN.search(line)):
        return line
    given = found["given"].split(", ")
    words = [one for one in given if not one.startswith("-")]
    options = set(re.findall(r"(?<!\S)--[a-z][\w-]*", found["near"] or "")) - {"--help", *given}
    near = meant([one for one in given if one.startswith("-")], sorted(options))
    if found["commands"] and not near:
        known = found["commands"].split(", ")
        near = f" Available commands: {found['commands']}.{meant(words[0], known) if words else ''}"
    return f"{line[: found.start()]}Unrecognized options: {found['given']}.{near}{found['help'] or ''}"


def _say_error(text: str) -> None:
    print(f"error: {' '.join(text.split())}", file=sys.stderr)


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
    """Check a model's adapter and everything that is read through it.

    Prints each result on stderr as it comes, with the time left, and a table of all at the end. The exit code is 0 only
    if every check passed.

    Args:
        model: a family (its tiny model with random weights is checked), a folder, or a hub id.
        all_families: check the tiny model of every family.
        images: image files to use instead of generated pictures.
        checks: names of the checks to run; by default all.
        dtype: dtype of the weights.
        device: device that the model runs on.
        revision: revision of a hub id.
        adapter: name of the adapter; by default the one that matches the config.
        processor: folder or hub id of the processor, if the checkpoint has none.
        break_as: break the adapter before the checks, to test the suite: transposed, shifted, row-shifted,
            tile-swapped, row-flipped, images-swapped, count or attends.
        probes: largest number of tokens to probe in each view of a picture.
        seed: seed of random weights, pictures and probes.
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
            "--record stores the float32 results of every family: use it with --all and without options "
            "that change them."
        )


def _checked(model: str | None, options: dict[str, Any], record: bool) -> int:
    """Checks a model or every family, prints a table for each, and returns the exit code."""
    _quiet()
    from interp import conformance
    from interp.conformance.check_result import write_record
    from interp.conformance.tiny import families

    models = families() if model is None else [model]
    shown, results = console(), []
    n_checks = len(models) * len(options["checks"] or conformance.CHECKS)
    with _progress(n_checks) as (advance, say), _threads(1 if set(models) <= set(families()) else None):
        for name in models:

            def report(what: str, name: str = name) -> None:
                advance(f"{name}: {what}")

            def tell(row: CheckResult, seconds: float, name: str = name) -> None:
                say(f"{name}: {row.line}" + (f"; about {_duration(seconds)} left" if seconds else ""))

            results.append(conformance.check(name, progress=report, finished=tell, **options))
            shown.print(results[-1])
    if record:
        write_record(results)
    if len(results) > 1:
        shown.print(_summary(results))
    return 0 if all(result.passed for result in results) else 1


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
        target: a folder that is empty or does not exist yet.
        dtype: dtype of the weights; auto keeps the dtype of each tensor.
        vision_tower: folder or hub id of a tower to use instead of the one that the source's config names.
        revision: revision of a hub id.
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


def merge_command(parts: Annotated[list[Path], tyro.conf.Positional], out: Path = Path("runs")) -> int:
    """Join the parts of runs that several machines computed with --shard i/n.

    Afterwards the same study, run without --shard on the same --out, computes nothing and shows its result.

    Args:
        parts: the folders that the parts were written to (their --out); every run in them is merged.
        out: the folder for the whole runs; the runs that it already holds count as a part.
    """
    for folder in merge(parts, out):
        print(f"merged {folder.path}")
    return 0


def data() -> int:
    """Build, check and rate the data that a study uses: see `interp data --help`."""
    return main(["data", "--help"])


def _ratings() -> dict[str, Callable[..., int]]:
    from interp import rating_commands

    return rating_commands.COMMANDS


def _data_check() -> dict[str, Callable[..., int]]:
    from interp.data_check import check_commands

    return check_commands.COMMANDS


def _data_build() -> dict[str, Callable[..., int]]:
    from interp.data_build import build_commands

    return build_commands.COMMANDS


GROUPS: dict[str, tuple[Callable[[], dict[str, Callable[..., int]]], ...]] = {
    "data": (_data_build, _data_check, _ratings)
}
"""Commands that have commands of their own, by name; each room's are imported when they are needed."""

COMMANDS: dict[str, Callable[..., int]] = {
    "adapt": adapt,
    "check": check,
    "convert": convert,
    "data": data,
    "explore": explore,
    "doctor": doctor,
    "look": look,
    "merge": merge_command,
    "models": models,
    "report": report,
    "reproduce": reproduce,
    "run": run,
    "runs": runs,
}
"""Every command by name; its arguments and help are the function's own."""


def _later(command: Callable[..., int]) -> Callable[..., Callable[[], int]]:
    """Returns a parser of the command's arguments; it returns the call, so that errors of the command stay its own."""

    @wraps(command)
    def parsed(*args: Any, **options: Any) -> Callable[[], int]:
        return partial(command, *args, **options)

    return parsed


def _summary(results: Sequence[Conformance]) -> Table:
    """Returns a table with one line per model."""
    made = table("family", "passed", "failed")
    for result in results:
        n = sum(row.passed for row in result.rows)
        made.add_row(result.family, f"{n}/{len(result.rows)}", ", ".join(r.name for r in result.failures))
    return made


def _duration(seconds: float) -> str:
    """Returns a time as text: "40 s", "12 min"."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


@contextmanager
def _progress(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[str], None]]]:
    """A progress bar on stderr, where that is a terminal.

    Yields a function that advances it and shows the current step, and one that prints a line, also without a terminal.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        started = iter(range(total + 1))

        def advance(what: str) -> None:
            bar.update(task, completed=next(started), description=what)

        def say(line: str) -> None:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

        yield advance, say


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """Sets the number of torch's threads for the block; None keeps it. Tiny models run faster on one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(before if n is None else n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _quiet() -> None:
    """Turns off transformers' progress bars and advice."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
