# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of commands, of scripts' options, of the explorer and of exports. The calls reach it as `cm`."""

from __future__ import annotations

import base64
import io
import socket
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from PIL import Image

import interp
from interp.cli import main
from interp.data.open import read
from interp.errors import InterpError
from interp.explore import exploration
from interp.paper_options import PaperChoice
from interp.report.export import check_export, export_figures
from interp.reproduce import Request, figures_named, scripts_folder
from interp.reproduce.session import _ended
from interp.study import Grid, LayerSweep, ModelSpec
from interp.study.conventions import held_out_sets, paper_model
from interp.study.refinement.method_choice import grounding
from interp.study.study import is_per_layer
from interp.study_commands import COMMAND, Asked, _newest
from tests.data import source_files as files

DATA: list[tuple[str, str, str]] = [
    ("cm.read(cm.voc(), 'voc', columns={'image': 'scan'})", "Leave it out", "cm.read(cm.voc(), 'voc')"),
    ("cm.command('data', 'check', 'natural', '--n', '4', '--box-format', 'xyxy')", "Leave --box-format out", "cm.command('data', 'check', 'natural', '--n', '4')"),
    ("cm.command('data', 'check', str(cm.table()), '--columns', 'scan')", "such as image=scan", "cm.command('data', 'check', str(cm.table()), '--columns', 'image=scan')"),
]  # fmt: skip
REPRODUCE: list[tuple[str, str, str]] = [
    ("cm.Request(cm.new(), models=())", 'such as "organism" or a folder', "cm.Request(cm.new(), models=('organism',))"),
    ("cm.figures_named(['fig99'])", "`interp reproduce --list` says what each is", "cm.command('reproduce', '--list', '--studies', str(cm.STUDIES))"),
    ("cm.scripts_folder(cm.new())", "Pass --studies FOLDER", "cm.command('reproduce', '--list', '--studies', str(cm.STUDIES))"),
    ("cm.installed()", "interp reproduce --studies FOLDER", "cm.command('reproduce', '--list', '--studies', str(cm.STUDIES))"),
    ("cm.started(cm.new() / 'python')", "Start interp with a Python that is there", "cm.started(cm.sys.executable)"),
    ("cm.command('reproduce', '--list', '--studies', str(cm.STUDIES), '--benchmarks', 'slake')", "such as slake=/data/SLAKE", "cm.command('reproduce', '--list', '--studies', str(cm.STUDIES), '--benchmarks', f'slake={cm.new()}')"),
    ("cm.PaperChoice(pixels=(1, 2)).model('organism')", "--pixels takes one number", "cm.PaperChoice(pixels=(784,)).model('organism')"),
    ("cm.held_out_sets(('medical',), n=2, paper_model=ModelSpec('a/model'))", "--choose-on COCO_FOLDER", "cm.held_out_sets(('medical',), ('natural',), n=2, paper_model=ModelSpec('a/model'))"),
    ("cm.paper_model('organism')", "Write ModelSpec('organism')", "cm.paper_model(ModelSpec('organism'))"),
    ("cm.grounding(ModelSpec('organism'), None, rank=True, published='huatuogpt-vision-7b')", "Leave one out", "cm.grounding(ModelSpec('organism'), None, published='huatuogpt-vision-7b')"),
]  # fmt: skip
RUNS: list[tuple[str, str, str]] = [
    ("interp.LayerSweep(data=D, indicator=5)", "such as Attention()", "interp.LayerSweep(data=D, indicator=interp.indicators.Attention())"),
    ("interp.Refinement(data=D, method=5)", "such as PAI()", "interp.Refinement(data=D, method=interp.methods.PAI())"),
    ("cm.command('run', 'refinement', '--data', 'natural', '--n', '2', '--out', str(cm.new()), '--model', 'organism', 'shortcut', '--set', 'method=VGRefine')", "Run one at a time", "cm.command('run', 'refinement', '--data', 'natural', '--n', '2', '--out', str(cm.new()), '--model', 'organism', '--set', 'method=VGRefine', 'max_new_tokens=1')"),
    ("cm.Asked.read(cm.made_of('[]'))", "Run the study again", "cm.command('run', 'layer-sweep', '--data', 'natural', '--n', '2', '--out', str(cm.new()))"),
    ("cm._newest(cm.new())", "Name the folder of one", "cm.command('report', str(cm.swept().folder), '--out', str(cm.new() / 'page.html'))"),
]  # fmt: skip
EXPLORER: list[tuple[str, str, str]] = [
    ("cm.session().sample('x')", "Ask again", "cm.session().sample(cm.asked_again())"),
    ("cm.uploaded(b'no image')", "Choose a PNG or JPEG file", "cm.uploaded(cm.png())"),
    ("cm.exploration.Exploration(None)", "as interp.load(…) gives it", "cm.exploration.Exploration(interp.load('organism'))"),
    ("cm.exploration.Exploration(None)", "`interp models` lists the families", "cm.command('models')"),
    ("cm.served(cm.taken())", "Choose another port", "cm.served(0)"),
    ("cm.served(cm.taken())", "or 0 for any that is free", "cm.served(0)"),
]  # fmt: skip
RESULTS: list[tuple[str, str, str]] = [
    ("cm.undrawn()", "or write tables alone: export(folder, formats=())", "cm.swept().export('folder', formats=())"),
    ("cm.swept().save()", 'Write result.export("folder")', "cm.swept().export('folder', formats=())"),
    ("cm.swept().save()", 'result.report("page.html")', "cm.swept().report('page.html')"),
    ("type(cm.swept()).join([cm.swept(), cm.swept()])", 'join([one, two], runs=["seed 0", "seed 1"])', "type(cm.swept()).join([cm.swept(), cm.swept()], runs=['seed 0', 'seed 1'])"),
    ("type(cm.swept()).join([cm.swept(), cm.swept()], runs=['one'])", "one name per result, each once", "type(cm.swept()).join([cm.swept(), cm.swept()], runs=['one', 'two'])"),
    ("cm.is_per_layer('a sweep', indicators.CentrePrior())", "such as Attention()", "cm.is_per_layer('a sweep', Attention())"),
    ("cm.is_per_layer('a sweep', indicators.CentrePrior())", "or compare this one in an IndicatorComparison", "IndicatorComparison(data=D, indicators={'centre': indicators.CentrePrior()})"),
    ("IndicatorComparison(data=D, indicators=[Attention(), Attention()])", "indicators={'first': …, 'second': …}", "IndicatorComparison(data=D, indicators={'first': Attention(), 'second': Attention()})"),
    ("ModelSpec('organism', adapter=5)", "load the model with it and pass that", "LayerSweep(data=D, model=interp.load('organism', adapter='llava'))"),
    ("indicators.indicator_named('attenton')", "the indicators by name are relative-attention", "indicators.indicator_named('relative-attention')"),
    ("stats.stratified_mean([1.0, 0.0], ['a'], ['x', 'y'])", "strata are one name, a text, for each of 2 values", "stats.stratified_mean([1.0, 0.0], ['a', 'b'], ['x', 'y'])"),
    ("stats.stratified_mean([1.0, 0.0], ['a', 'b'], ['x', 'y'], weights={'a': 1})", "weights give each stratum, a, b, a number", "stats.stratified_mean([1.0, 0.0], ['a', 'b'], ['x', 'y'], weights={'a': 1, 'b': 2})"),
    ("VGRefine(heads=[(0, 1)], percentile=50, magnitude_threshold=0.1)", "Leave one of them out", "[VGRefine(heads=[(0, 1)], percentile=50), VGRefine(heads=[(0, 1)], magnitude_threshold=0.1)]"),
]  # fmt: skip
FILES: list[tuple[str, str, str]] = [
    ("cm.maps().save('maps.npz')", 'such as "maps.safetensors"', "cm.maps().save('maps.safetensors')"),
    ("interp.load_maps(cm.later())", "Read it with the version of interp that wrote it, or a later one", "interp.load_maps(cm.maps().save('maps.safetensors'))"),
    ("interp.load_maps(cm.cut())", "Read a file that .save(path) wrote, whole", "interp.load_maps(cm.maps().save('maps.safetensors'))"),
    ("cm.with_attribute({1}).save('maps.safetensors')", "Leave it out, or turn it into one of these", "cm.with_attribute([1]).save('maps.safetensors')"),
]  # fmt: skip
# a call that fails, words of its message, a call that follows them
ROWS: list[tuple[str, str, str]] = [*DATA, *REPRODUCE, *RUNS, *EXPLORER, *RESULTS, *FILES]

ELSEWHERE: dict[str, str] = {  # the beginning of a message: why no row follows it, or the test that does
    "{…} holds no {…}, which says what a run was made of": "tests/study/test_runs.py::test_a_folder_without_its_study_is_named",
    "the page of {…} needs what its run could not keep": "tests/study/test_runs.py::test_what_is_missing_is_said",
    "{…} cannot be read ({…}): it was edited, or another version of interp wrote it": "tests/study/test_runs.py::test_a_folder_from_elsewhere_runs_no_code",
    "a mean over {…} other images needs": "tests/study/circuit/test_study.py::test_a_mean_is_over_other_images_of_one_question",
    "the explorer needs dash": "nothing is installed in a test; tests/test_advice.py::test_extras_that_messages_name_are_declared finds the extra",
    "figures as SVG and PNG need kaleido": "nothing is installed in a test; tests/report/test_export.py::test_without_kaleido_the_error_names_the_extra",
}
STUDIES = Path(__file__).parents[2] / "studies"


def names() -> dict[str, Any]:
    """What the calls use, beside the names of `tests/test_advice.py`."""
    return {"cm": sys.modules[__name__]}


def new() -> Path:
    """A new folder."""
    return Path(tempfile.mkdtemp())


def command(*words: str) -> None:
    """`interp`; raises what it prints on an error. The exit code 1 is a finding, not an error."""
    said = io.StringIO()
    with redirect_stderr(said), redirect_stdout(io.StringIO()):
        code = main(list(words))
    if code == 2:
        raise InterpError(said.getvalue().strip().removeprefix("error: "))


def made_of(text: str) -> Path:
    """The folder of a run whose `command.json` is that text."""
    folder = new()
    (folder / COMMAND).write_text(text)
    return folder


# ---- data and scripts ----


def voc() -> Path:
    """A folder in VOC's layout."""
    return files.voc_folder(new(), files.voc_object("cat", 1, 1, 9, 9))


def table() -> Path:
    """A table whose column of images is called scan."""
    path = new() / "rows.csv"
    files.image(path.parent / "a.png")
    path.write_text("scan,question\na.png,Is it?\n")
    return path


def installed() -> Path:
    """The folder of scripts where the package is installed without them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp.reproduce.registry.MARK", "nowhere.py")
        return scripts_folder()


def started(python: Path | str) -> int:
    """The exit code of a script that does nothing."""
    with tempfile.TemporaryFile() as out:
        return _ended([str(python), "-c", ""], {}, out)


# ---- the explorer ----


@cache
def session() -> Any:
    """What the events of the page work on."""
    from interp.explore.application import _Session

    return _Session(exploration.Exploration(interp.load("organism")), {"model": "organism"})


def asked_again() -> str:
    """The name of a question that is asked."""
    content = base64.b64encode(png()).decode()
    own = session()
    return own.keep_sample(own.keep_images([f"data:image/png;base64,{content}"], ["a.png"]), "where is it?")


def uploaded(content: bytes) -> str:
    """A file that is chosen on the page."""
    return session().keep_images([f"data:;base64,{base64.b64encode(content).decode()}"], ["a.png"])


def png() -> bytes:
    """A picture's file."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    return out.getvalue()


@cache
def _listening() -> socket.socket:
    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    found.listen()
    return found


def taken() -> int:
    """A port that another program listens at."""
    return _listening().getsockname()[1]


def served(port: int) -> str:
    """Where an explorer was, while it was served at this port."""
    from interp.explore.local_server import Server

    with Server(interp.load("organism"), port=port) as server:
        return server.url


# ---- results and files ----


@cache
def swept() -> Any:
    """The result of a sweep."""
    return LayerSweep(data=interp.data.bundled("natural", n=2), metrics=("ar",)).run(new(), progress=False)


def undrawn() -> Any:
    """Figures exported where kaleido finds no browser."""
    check_export(("svg",), (1,))

    def drawn(_: Any) -> Any:
        raise RuntimeError("no browser")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp.report.export._drawn", drawn)
        return export_figures({"one": go.Figure()}, new(), formats=("svg",))


@cache
def maps() -> Any:
    """Maps of a sample."""
    return interp.indicators.Attention()(interp.load("organism"), interp.data.bundled("natural", n=1))


def with_attribute(value: Any) -> Any:
    """Maps with a note of one's own."""
    own = maps()
    arrays = tuple(one.assign_attrs(note=value) for one in own.arrays)
    return interp.indicators.Maps(arrays, own.tokens, own.cost)


def later() -> Path:
    """A file of maps as a later version may write it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp.inputs.archive.VERSION", 99)
        return maps().save(new() / "maps.safetensors")


def cut() -> Path:
    """Half of a file of maps."""
    path = maps().save(new() / "maps.safetensors")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


__all__ = ["Asked", "Grid", "ModelSpec", "PaperChoice", "Request", "_newest", "figures_named", "grounding", "held_out_sets", "is_per_layer", "paper_model", "read"]  # fmt: skip
