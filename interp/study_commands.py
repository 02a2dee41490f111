"""`interp run`, `interp report` and `interp runs`: studies from the command line, and the runs in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from interp import __version__
from interp.errors import RunError, StudyError
from interp.inputs.files import read_json, write_atomically
from interp.inputs.text import meant
from interp.run.listing import FINISHED, listed_runs
from interp.run.workers import Workers
from interp.terminal import console, table

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["COMMAND", "STUDIES", "Asked", "WorkerOptions", "report", "run", "runs"]


STUDIES = {
    "benchmark": "Benchmark",
    "circuit": "Circuit",
    "layer-sweep": "LayerSweep",
    "head-ranking": "HeadRanking",
    "head-attribution": "HeadAttribution",
    "head-roles": "HeadRoles",
    "indicator-comparison": "IndicatorComparison",
    "knockout-sweep": "KnockoutSweep",
    "lens-sweep": "LensSweep",
    "probe-sweep": "ProbeSweep",
    "reasoning-sweep": "ReasoningSweep",
    "refinement": "Refinement",
    "stated-boxes": "StatedBoxes",
}
"""Name → the class of `interp.study`."""
StudyName = Literal[
    "benchmark", "circuit", "layer-sweep", "head-ranking", "head-attribution", "head-roles", "indicator-comparison",
    "knockout-sweep", "lens-sweep", "probe-sweep", "reasoning-sweep", "refinement", "stated-boxes",
]  # fmt: skip
COMMAND = "command.json"
"""In a result's folder: what `interp run` was asked for."""


@dataclass(frozen=True)
class Asked:
    """The arguments of `interp run`, apart from those that say how and where it runs.

    Attributes:
        study: A name of `STUDIES`.
        data: Bundled names or paths.
        model: "organism", folders or hub ids.
        n: The largest number of samples of each data set; 0 for all.
        split: The split that is reported on.
        seed: The seed that draws the samples and that the study uses.
        options: Options of `interp.load`: device, dtype and so on.
        settings: Further fields of the study by name, as JSON values.
    """

    study: str
    data: tuple[str, ...]
    model: tuple[str, ...]
    n: int
    split: str
    seed: int
    options: Mapping[str, Any]
    settings: Mapping[str, Any]

    def made(self, out: Path) -> Any:
        """The study, or a grid over its models, data sets and methods where there are several.

        Args:
            out: The folder for runs, of which a method's heads may be chosen.
        """
        from interp import study as studies
        from interp.data.open import sets
        from interp.inputs.prompt import Prompt

        kind = getattr(studies, STUDIES[self.study])
        known = {one.name for one in fields(kind)} - {"data", "model"}
        if unknown := sorted(set(self.settings) - known):
            raise StudyError(
                f"{self.study} has no setting {', '.join(unknown)}; it has {', '.join(sorted(known))}."
                f"{meant(unknown, known)}"
            )
        some = {"n": self.n or None, "seed": self.seed}
        split = self._split(known)
        found = sets(self.data, split=split, needed=True, **some)
        models = [studies.ModelSpec(one, **self.options) for one in self.model]
        more: dict[str, Any] = {"seed": self.seed, **self.settings}
        if isinstance(more.get("prompt"), str):
            more["prompt"] = Prompt(template=more["prompt"])
        methods = self._methods(models, out)
        if methods:
            more["method"] = methods[0]
        if "validation" in known:
            held_out = sets(self.data, split="validation", **some)
            more["validation"] = (
                sum(list(held_out.values())[1:], next(iter(held_out.values()))) if held_out else None
            )
        base = kind(data=next(iter(found.values())), model=models[0], **more)
        axes: dict[str, Any] = {"model": models, "data": found} if len(models) > 1 or len(found) > 1 else {}
        if len(methods) > 1:
            axes["method"] = methods
        return studies.Grid(base, **axes) if axes else base

    def _methods(self, models: Sequence[Any], out: Path) -> list[Any]:
        """What `--set method=…` names; VGRefine's heads and layer, where none are published, are chosen."""
        from interp.methods import VGRefine
        from interp.methods.names import is_refine
        from interp.study.conventions import choice_samples
        from interp.study.head_ranking.head_set import published_checkpoint
        from interp.study.refinement.method_choice import grounding
        from interp.study.refinement.study import as_method

        given = self.settings.get("method", [])
        methods = given if isinstance(given, list) else [given]
        if not any(map(is_refine, methods)) or published_checkpoint(models[0]) is not None:
            return list(map(as_method, methods))
        if len(models) > 1:
            raise StudyError("VGRefine's heads belong to one model. Run one at a time: --model MODEL.")
        held_out = choice_samples(self.data, n=self.n or None, seed=self.seed)
        found = grounding(models[0], held_out, out=out, seed=self.seed)
        print(found.said)
        refine = VGRefine(heads=found.heads, layers=(found.layer,))
        return [refine if is_refine(one) else as_method(one) for one in methods]

    def _split(self, known: set[str]) -> str:
        """The split to read: a study that chooses something has one of its own."""
        return str(self.settings.get("split", "validation")) if "split" in known else self.split

    def to_json(self) -> str:
        """The text of `COMMAND`."""
        return json.dumps({"interp": __version__, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Asked:
        """Returns the arguments of `interp run` that a run's folder holds.

        Raises:
            RunError: The folder does not say it, or in a form that this version cannot read.
        """
        stored, names = read_json(folder / COMMAND), {one.name for one in fields(cls)}
        if not isinstance(stored, dict) or not names <= set(stored):
            raise RunError(
                f"{folder / COMMAND} does not say what the run was asked for: it was edited, or another version of "
                "interp wrote it. Run the study again, which computes only what is missing."
            )
        values = {name: stored[name] for name in names}
        return cls(**{**values, "data": tuple(values["data"]), "model": tuple(values["model"])})


def run(
    study: Annotated[StudyName, tyro.conf.Positional],
    *,
    data: tuple[str, ...] = ("natural",),
    model: tuple[str, ...] = ("organism",),
    out: Path = Path("runs"),
    n: int = 40,
    split: str = "test",
    seed: int = 0,
    settings: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = (),
    workers: WorkerOptions = 1,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    processor: str | None = None,
    adapter: str | None = None,
) -> int:
    """Run a study on data sets and write its page; what is there already is not computed again.

    Args:
        study: the study.
        data: "natural", "medical" (bundled), or files and folders that a reader knows (docs/data.md).
        model: "organism" (bundled), folders or hub ids; with several models or data sets every pair is run.
        out: the folder for runs.
        n: samples of each data set at most, drawn by the seed; 0 for all.
        split: the split to report on; a study that chooses something, such as a head ranking, reads "validation".
        seed: seed of the drawn samples and of the study.
        settings: further fields of the study as NAME=JSON, such as metrics='["ar", "js"]'; an indicator, a scorer and
            a method by name, a prompt by its template. Several methods, method='["PAI", "VGRefine"]', are compared.
        workers: how many workers compute, and where.
        device: device that the models run on.
        dtype: dtype of the weights.
        revision: revision of a hub id.
        processor: folder or hub id of the processor.
        adapter: name of the adapter.
    """
    options = {
        "device": device,
        "dtype": dtype,
        "revision": revision,
        "processor": processor,
        "adapter": adapter,
    }
    asked = Asked(
        study, tuple(map(_place, data)), model, n, split, seed,
        {name: value for name, value in options.items() if value is not None}, dict(map(_setting, settings)),
    )  # fmt: skip
    made = asked.made(out)
    _say_left_out(made)
    result = made.run(out, workers=workers)
    write_atomically(result.folder / COMMAND, asked.to_json().encode())
    print(result.table())
    if len(result.failures):
        print(result.failure_counts())
    print(f"page: {result.report().resolve()}")
    print(f"again, without computing: interp report {result.folder}")
    return 0


def _say_left_out(study: Any) -> None:
    """Print which rows of which data are not used because they are of another split."""
    from interp.data.open import OTHER

    cells = [one for _, one in study.studies] if hasattr(study, "studies") else [study]
    for data in dict.fromkeys(cell.data for cell in cells):
        left = {why.removeprefix(OTHER): n for why, n in data.skipped.items() if why.startswith(OTHER)}
        if left:
            n_rows = len(data) + sum(left.values())
            told = ", ".join(f"{n} of {n_rows} rows are of the split {of}" for of, n in left.items())
            print(
                f"{data.name}: {told} and not used; --split {next(iter(left))} takes those, --split all every row."
            )


def report(
    folders: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    *,
    out: Path | None = None,
) -> int:
    """Write the page of a run, or one page that compares several; no model is loaded where the run is finished.

    It takes runs of `interp run`, of scripts and of notebooks: `interp runs` lists them.

    Args:
        folders: the run's folder, such as runs/layer-sweep-0123456789ab; by default the newest in runs/. Several runs
            of one study are put side by side, each named by what it was asked for and the others were not.
        out: the page; by default report.html in the first folder, and comparison.html where there are several.
    """
    chosen = folders or (_newest(Path("runs")),)
    if len({*(folder.resolve() for folder in chosen)}) < len(chosen):
        raise RunError(f"report takes one or more folders of runs, each once; got {[*map(str, chosen)]}.")
    results = [_stored(folder) for folder in chosen]
    if len(results) == 1:
        page = results[0].report(out)
    elif len(kinds := {type(result).__name__: result.study.title for result in results}) > 1:
        raise RunError(f"a page compares runs of one study; got {', '.join(sorted(kinds.values()))}.")
    else:
        joined = type(results[0]).join(results, runs=_run_names(chosen))
        page = joined.report(out or chosen[0] / "comparison.html")
    print(f"page: {page.resolve()}")
    return 0


def _newest(out: Path) -> Path:
    """The folder of the run in `out` that was worked on last; the grid's, where it is one of a grid.

    Raises:
        RunError: The folder holds no run.
    """
    from interp.run.listing import listed_runs

    found = listed_runs(out)
    if not found:
        raise RunError(f"there is no run in {out}. Name the folder of one: interp report FOLDER.")
    print(f"the newest run: {found[0]['folder']}")
    return Path(found[0]["folder"])


def _stored(folder: Path) -> Any:
    """The result of a run that is stored: from its folder alone, else of what `interp run` was asked for.

    Raises:
        RunError: The run was made of something else than what is there now, or does not say of what.
    """
    from interp.study.stored_result import stored_result

    try:
        return stored_result(folder)
    except RunError:
        if not (folder / COMMAND).is_file():
            raise
    return _asked_again(Asked.read(folder), folder)


def _asked_again(asked: Asked, folder: Path) -> Any:
    """The result of what `interp run` was asked for, with what is missing computed.

    Raises:
        RunError: The run was made of something else than what is there now.
    """
    from interp.run import folder_name

    study = asked.made(folder.parent)
    if getattr(study, "unresolved", False):
        study = study.resolved(folder.parent)
    expected = folder_name(study.name, study.to_dict())
    if expected != folder.resolve().name:
        raise RunError(
            f"the run at {folder} was made of other data, another model or another version of interp: it would be "
            f"{expected} now. Bring those back, or make a new run: interp run {asked.study}."
        )
    return study.run(folder.parent)


def _run_names(folders: Sequence[Path]) -> list[str]:
    """The arguments in which each run differs from others, such as "seed 1"; its folder where none differs."""
    own = [folder.resolve().name for folder in folders]
    if not all((folder / COMMAND).is_file() for folder in folders):
        return own
    asked = [Asked.read(folder) for folder in folders]
    flat = [{**asdict(one), **one.options, **one.settings} for one in asked]
    keys = [
        key for key in dict.fromkeys(key for one in flat for key in one) if key not in ("options", "settings")
    ]
    told = [key for key in keys if len({json.dumps(one.get(key), sort_keys=True) for one in flat}) > 1]
    kinds = [_defaults(one.study) for one in asked]
    names = [
        ", ".join(f"{key} {_said({**defaults, **one}.get(key, 'by default'))}" for key in told)
        for defaults, one in zip(kinds, flat, strict=True)
    ]
    return names if len({*names}) == len(names) else own


def _defaults(study: str) -> dict[str, Any]:
    """The defaults of a study's fields; what has none is left out."""
    from interp import study as studies

    found = {one.name: one for one in fields(getattr(studies, STUDIES[study]))}
    made = {name: one.default_factory() for name, one in found.items() if one.default_factory is not MISSING}
    return made | {name: one.default for name, one in found.items() if one.default is not MISSING}


def _said(value: Any) -> str:
    """A value of a setting in a name: lists by their elements, paths by their last part, values by their name."""
    from interp.indicators.names import labelled

    if isinstance(value, list | tuple):
        return " + ".join(map(_said, value))
    if hasattr(value, "to_dict"):
        described = value.to_dict()
        return labelled(value)[0] if "indicator" in described else json.dumps(described)
    return Path(value).name if isinstance(value, str) else json.dumps(value)


def _place(name: str) -> str:
    """A path made absolute, so that the run can be read from another folder; a bundled name as it is."""
    return str(Path(name).resolve()) if Path(name).exists() else name


def _setting(text: str) -> tuple[str, Any]:
    """The name and value of NAME=JSON; what is no JSON is a text."""
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise StudyError(f"--set takes NAME=JSON, such as metrics='[\"ar\"]' or rule=center; got {text!r}.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


ROOMY = 110
"""Columns of a terminal from which on the study has a column of its own; its folder's name begins with it."""


def runs(
    folder: Annotated[Path, tyro.conf.Positional] = Path("runs"),
    *,
    unfinished: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """List the runs in a folder: study, model, data, samples, whether finished, when, and where. No model is loaded.

    `interp report FOLDER` makes the page of one of them again, and `interp report` that of the newest.

    Args:
        folder: the folder that holds runs.
        unfinished: only those that are not finished.
    """
    found = [row for row in listed_runs(folder) if not unfinished or not row["state"].startswith(FINISHED)]
    shown = console()
    if not found:
        shown.print(f"no {'unfinished ' if unfinished else ''}runs in {folder}", markup=False)
        return 0
    shown.print(_table(found, roomy=shown.width >= ROOMY))
    return 0


def _table(found: list[dict[str, Any]], *, roomy: bool) -> Table:
    made = table(show_lines=False, box=None, pad_edge=False)
    names = (["study"] if roomy else []) + ["model", "data", "n", "state", "when"]
    for name in names:
        made.add_column(
            name, overflow="fold", justify="right" if name == "n" else "left", no_wrap=name in ("n", "when")
        )
    made.add_column("folder", overflow="fold", min_width=min(max(len(row["folder"]) for row in found), 36))
    for row in found:
        made.add_row(*_cells(row, roomy))
    return made


def _cells(row: Mapping[str, Any], roomy: bool) -> list[Any]:
    from rich.text import Text

    started = row["started"]
    when = "" if started is None else started.astimezone().strftime("%m-%d %H:%M")
    size = "" if row["n"] is None else str(row["n"])
    study = [row["study"]] if roomy else []
    return [Text(one) for one in (*study, row["model"], row["data"], size, row["state"], when, row["folder"])]


def _workers(
    workers: int = 1, address: str | None = None, gpus: float | None = None, devices: tuple[str, ...] = ()
) -> Workers:
    """How many workers compute, and where.

    Args:
        workers: Number of worker processes, each with its own copy of the model.
        address: Run the workers on Ray: "local", "auto", host:port or ray://host:port.
        gpus: GPUs of each worker on Ray; by default 1 for a model on cuda.
        devices: Devices that local workers take in turn, such as cuda:0 cuda:1; cuda for all.
    """
    return Workers(workers, address, gpus, devices)


WorkerOptions = Annotated[Workers | int, tyro.conf.arg(constructor=_workers), tyro.conf.OmitArgPrefixes]
"""The parameter `workers` of a `main`, by default 1: the options --workers, --address, --gpus and --devices."""
