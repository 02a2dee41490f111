# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of study, run, methods and indicators."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xarray as xr
from PIL import Image

import interp
from interp.conformance.tiny import tiny
from interp.errors import RunError
from interp.inputs.files import as_path, write_atomically
from interp.inputs.prompt import PAPER_PROMPT
from interp.methods import VGRefine
from interp.run import Outcome, RunFolder, Workers, merge, run_task
from interp.run.merge import join_tables
from interp.run.shards import schemas_of
from interp.stats import paired_test
from interp.study import KnockoutSweep, LayerSweep, choose_layer, truth
from interp.study.first_token import answer_columns, first_token
from interp.study.head_ranking.rank_agreement import head_agreement
from interp.study.head_ranking.result import HeadResult
from interp.study.head_ranking.task import _checked as map_of_heads
from interp.study.indicator_comparison.indicator_maps import one_map
from interp.study.indicator_comparison.removal_curves import run_removal
from interp.study.knockout_sweep.flows import Flow
from interp.study.layer_sweep.failures import thresholds
from interp.study.layer_sweep.task import SweepTask
from interp.study.layer_sweep.task import _layers as map_of_layers
from interp.study.runs import run_cells
from interp.study.task import check_files, file_keys
from interp.study.task import edited as edited_model
from interp.tracing import Cost
from tests.advice.maps import squared
from tests.run.fake_task import Roots
from tests.run.other_versions import newer, older
from tests.study import planted, planted_heads, planted_indicators, planted_methods
from tests.study.box_sizes import domains
from tests.study.fake_study import Lengths

RUNS: list[tuple[str, str, str]] = [
    ("write_atomically(new_folder(), b'page')", "it is a folder, name a file in it", "write_atomically(new_folder() / 'page.html', b'page')"),
    ("write_atomically(pipe(), b'page')", "name an ordinary file", "write_atomically(pipe().with_name('page.html'), b'page')"),
    ("write_atomically(protected(), b'page')", "make it writable", "write_atomically(writable(protected()), b'page')"),
    ("write_atomically(protected(), b'page')", "or name another", "write_atomically(protected().with_name('page.html'), b'page')"),
    ("write_atomically(new_file() / 'page.html', b'page')", "pass another out=", "write_atomically(new_folder() / 'page.html', b'page')"),
    ("interp.runs('nowhere')", "as --out or run(out=…)", "interp.runs(ran(new_folder()).path.parent)"),
    ("as_path('out', 5)", 'such as "runs"', "as_path('out', 'runs')"),
    ("merge(5, new_folder())", "Pass the folders of the parts", "merge(parts(), new_folder())"),
    ("merge([], new_folder())", "Pass the folders of the parts", "merge(parts(), new_folder())"),
    ("merge([ran().path, ran(n=4).path], new_folder())", "merge each run's parts separately", "[merge([one.path], new_folder()) for one in (ran(), ran(n=4))]"),
    ("merged(broken('headless'))", "Run that part again", "merged(again(broken('headless')))"),
    ("merged([ran().path.parent, broken('headless')[1]])", "delete the folder to leave it out", "merged(emptied([ran().path.parent, broken('headless')[1]]))"),
    ("merged([new_folder()])", "was the out= of a run", "merged([ran(new_folder()).path.parent])"),
    ("merged(broken('plan'))", "run them again with one version", "merged(parts())"),
    ("merged(parts()[:1])", "Pass the missing parts as well", "merged(parts())"),
    ("merged(broken('shard'))", "run the unfinished parts again", "merged(again(broken('shard')))"),
    ("merged(broken('record'))", "merge again when they can be read", "merged(readable(broken('record')))"),
    ("merged(broken('renamed'))", "Rename the folder back", "merged(renamed_back(broken('renamed')))"),
    ("merged(broken('no plan')[1:])", "Run the part again", "merged(again(broken('no plan')))"),
    ("merged(broken('columns'))", "run the parts again with one version", "merged(again(broken('columns')))"),
    ("ran(part=(0, 3))", "such as (1, 3)", "ran(part=(1, 3))"),
    ("ran(part=(0, 3))", 'reads a text such as "1/3"', "ran(part=as_part('1/3'))"),
    ("lose(new_folder())", "Run again: only what is missing", "ran(lost(new_folder()))"),
    ("ran(ran(moved=True).path.parent)", "away and run the study again", "ran(away(ran(moved=True)))"),
    ("ran(edited(ran()).path.parent)", "away or pass another out=", "ran(away(edited(ran())))"),
    ("ran(edited(ran()).path.parent)", "pass another out=", "ran(new_folder())"),
    ("ran(part=(1, 2)).read_table('scores')", "Run the study again", "ran(ran(part=(1, 2)).path.parent).read_table('scores')"),
    ("ran(part=(1, 2)).read_table('scores')", "`interp merge`", "merged(parts())[0].read_table('scores')"),
    ("edited(ran()).study()", "Run the study again: shards that are still there are kept", "ran(away(edited(ran()))).study()"),
    ("join_tables(ran(part=(1, 2)), 2, SCHEMAS)", "Run again", "join_tables(ran(ran(part=(1, 2)).path.parent), 2, SCHEMAS)"),
    ("ran(new_file())", "Pass another out=", "ran(new_folder())"),
    ("RunFolder.open(new_folder())", "a run's folder with a study.json", "RunFolder.open(ran().path)"),
    ("damaged(ran()).find('scores', index=[1])", "Run the study again", "ran(damaged(ran()).path.parent).find('scores', index=[1])"),
    ("ran(as_of(older).path.parent)", "away and run the study again", "ran(away(as_of(older)))"),
    ("ran(as_of(newer).path.parent)", "pass another out=", "ran(new_folder())"),
    ("Workers(address='here')", '"local"', "Workers(address='local')"),
    ("Workers(address='local', devices=('cpu',))", "Pass gpus=1 with address", "Workers(address='local', gpus=1)"),
    ("Workers(address='local', devices=('cpu',))", "or devices without it", "Workers(devices=('cpu',))"),
    ("Workers(gpus=1)", 'devices=["cuda:0", "cuda:1"]', "Workers(devices=('cuda:0', 'cuda:1'))"),
    ("Workers(devices=('cpu',)).for_models_on(['remote'])", "without them, with a number of workers", "Workers(2).for_models_on(['remote'])"),
    ("Workers(devices=('cpu',)).for_models_on(['cuda'])", 'ModelSpec(id, device="cpu")', "Workers(devices=('cpu',)).for_models_on([ModelSpec('organism', device='cpu').device])"),
    ("Workers(address='local', gpus=0).for_models_on(['cuda'])", "at least a part of a GPU", "Workers(address='local', gpus=0.5).for_models_on(['cuda'])"),
    ("Workers(devices=('cuda:first',))", 'such as "cuda:0"', "Workers(devices=('cuda:0',))"),
    ("moved_image(False)", "under the same paths on every machine", "moved_image(True)"),
    ("moved_image(False)", "or give the samples images in memory", "in_memory()"),
]  # fmt: skip
STUDIES: list[tuple[str, str, str]] = [
    ("answer_columns(IN_HALF, PLANTED_ONE, PAPER_PROMPT, TOKENIZER)", 'Try dtype="float32"', "answer_columns(IN_FULL, PLANTED_ONE, PAPER_PROMPT, TOKENIZER)"),
    ("first_token(IN_FULL, PLANTED_ONE.replace(answer=None), PAPER_PROMPT, TOKENIZER, 'answer')", "Give it one", "first_token(IN_FULL, PLANTED_ONE, PAPER_PROMPT, TOKENIZER, 'answer')"),
    ("first_token(IN_FULL, PLANTED_ONE.replace(answer=None), PAPER_PROMPT, TOKENIZER, 'answer')", 'use target="greedy"', "first_token(IN_FULL, PLANTED_ONE.replace(answer=None), PAPER_PROMPT, TOKENIZER, 'greedy')"),
    ("first_token(IN_FULL, ALIKE, Prompt(options='none'), TOKENIZER, 'answer')", 'Prompt(options="letters")', "first_token(IN_FULL, ALIKE, Prompt(options='letters'), TOKENIZER, 'answer')"),
    ("head_agreement(made_heads('ar'), made_heads('js'), 2)", "Run both with one", "head_agreement(made_heads('js'), made_heads('js'), 2, n=9, splits=2)"),
    ("head_agreement(made_heads('ar'), made_heads('ar', 12), 2)", "Use one model and one choice of layers", "head_agreement(made_heads('ar', 12), made_heads('ar', 12), 2, n=9, splits=2)"),
    ("HeadSet.of('all')", "such as [(15, 4), (16, 5)]", "HeadSet.of([(15, 4), (16, 5)])"),
    ("HeadSet.of([(-1, 0)])", "such as [(15, 4), (16, 5)]", "HeadSet.of([(15, 4), (16, 5)])"),
    ("HeadSet(ranking=5, k=3)", "Write HeadRanking(data=…).top(20)", "HeadRanking(data=D).top(20)"),
    ("ranking().run('runs', progress=False).top(99)", "Ask for fewer", "ranking().run('runs', progress=False).top(6)"),
    ("map_of_heads(Attention()(mllm, [one])[0], one)", "such as Attention(per_head=True)", "map_of_heads(Attention(per_head=True)(mllm, [one])[0], one)"),
    ("comparison(removals=(Take(), Take()))", "have a name of their own each", "comparison(removals=(Take(), Take('other')))"),
    ("comparison(indicators={'a': Attention(per_head=True)})", "one map per layer or one in all", "comparison(indicators={'a': Attention(per_head=False)})"),
    ("one_map(Attention(per_head=True)(mllm, [one])[0], 'a', {'a': 1})", "Use per_head=False", "one_map(Attention(per_head=False)(mllm, [one])[0], 'a', {'a': 1})"),
    ("one_map(In('float16')(D)[0][0], 'a', {})", 'Try dtype="float32"', "one_map(In('float32')(D)[0][0], 'a', {})"),
    ("one_map(Attention()(mllm, [one])[0], 'a', {})", "Name one in layers={'a': …}", "one_map(Attention()(mllm, [one])[0], 'a', {'a': 1})"),
    ("one_map(Attention()(mllm, [one])[0], 'a', {})", "'sum' to add them up", "one_map(Attention()(mllm, [one])[0], 'a', {'a': 'sum'})"),
    ("layered().run(new_folder(), progress=False)", "Give validation=samples to choose it on", "layered(validation=HELD_OUT).resolved(new_folder(), progress=False).to_dict()"),
    ("layered().run(new_folder(), progress=False)", "name it: layers={'layered': 3}", "layered(layers={'layered': 3}).to_dict()"),
    ("layered(validation=HELD_OUT).to_dict()", 'choose first: study.resolved("runs")', "layered(validation=HELD_OUT).resolved('runs', progress=False).to_dict()"),
    ("compared().compare(5)", "measure is one of", "compared().compare('auroc', 'boxes')"),
    ("removal('float16')", 'Try dtype="float32"', "removal('float32')"),
    ("Refinement(data=D, method='VGRefine')", "method=VGRefine(heads=interp.HeadRanking(data=held_out).top(20))", "Refinement(data=D, method=VGRefine(heads=interp.HeadRanking(data=HELD_OUT).top(20)))"),
    ("methods.method_named('ScalingVis')", "such as ScalingVis(1.2)", "methods.ScalingVis(1.2)"),
    ("methods.method_named('x')", "pass a method, such as PAI()", "methods.PAI()"),
    ("ranking(indicator=planted.Planted()).run(new_folder(), progress=False)", "Use another indicator", "ranking().run(new_folder(), progress=False)"),
    ("KnockoutSweep(data=D, flows=[])", "needs at least one flow", "KnockoutSweep(data=D, flows=['image→last'])"),
    ("KnockoutSweep(data=D, flows=['image→last', 'image → last'])", "each with its own name", "KnockoutSweep(data=D, flows=['image→last', 'question→last'])"),
    ("places(Flow(interp.image_mask(np.zeros(20, bool)), 'last'))", "name no token of this sample", "places(Flow(interp.image_mask(np.ones(20, bool)), 'last'))"),
    ("heads_blocked().tests()", "Choose heads on validation samples (summary())", "heads_blocked().summary()"),
    ("heads_blocked().tests()", "interp.stats.paired_test of the `delta`", "tested(heads_blocked().passes)"),
    ("swept().figures(choice=5)", "what interp.choose_layer returns", "swept().figures(choice=choose_layer(swept()))"),
    ("swept().figures(choice=5)", "or None", "swept().figures(choice=None)"),
    ("gridded().compare('ar', layer='x')", "a layer 0, 1, …", "gridded().compare('ar', layer=1)"),
    ("gridded().compare('ar', layer='x')", "what interp.choose_layer returns", "gridded().compare('ar', layer=choose_layer(swept()))"),
    ("thresholds(*chosen(1))", "Give more validation samples", "thresholds(*chosen(6))"),
    ("map_of_layers(Attention(per_head=True)(mllm, [one])[0], one)", "indicator that gives one map per layer", "map_of_layers(Attention()(mllm, [one])[0], one)"),
    ("map_of_layers(In('float16')(D)[0][0], PLANTED_ONE)", 'Try dtype="float32"', "map_of_layers(In('float32')(D)[0][0], PLANTED_ONE)"),
    ("refined().compare(over='model')", "Vary another field than data with a Grid", "refined(model={'a': Answering(), 'b': Answering(wrong=('s0',))}).compare(over='model')"),
    ("refined().compare(over='data')", "and compare over that", "refined(method={'a': Swap(), 'b': Swap(('s0',))}).compare(over='method')"),
    ("refinement(method=VGRefine(heads=ranking().top(2)))", "Rank with HeadRanking(model=…) of this model", "refinement(model=PLANTED, method=VGRefine(heads=ranking(model=PLANTED).top(2)))"),
    ("to_be_ranked().to_dict()", 'study.resolved("runs")', "to_be_ranked().resolved('runs', progress=False).to_dict()"),
    ("choose_layer(5)", "as study.run() returns it", "choose_layer(swept())"),
    ("lengths().report()", "Read result.scores, result.summary() and result.failures instead", "[lengths().scores, lengths().summary(), lengths().failures]"),
    ("tiny_sweep().run(new_folder(), progress=False, mllm='x')", "opened by interp.load or interp.wrap", "tiny_sweep().run(new_folder(), progress=False, mllm=tiny_sweep().model)"),
    ("tiny_sweep().run(new_folder(), progress=False, mllm='x')", "or None", "tiny_sweep().run(new_folder(), progress=False, mllm=None)"),
    ("labelled('what')", "Vary another field", "labelled('unit')"),
    ("labelled('what')", "run its values as studies of their own", "Lengths(unit='letters').run(new_folder(), progress=False)"),
    ("study.matched(domains(), caliper=-1.0)", "such as 0.1 for 10 %", "study.matched(domains(), caliper=0.1)"),
    ("study.matched(domains(), names=('natural', 'other'))", 'Pass names=("one", "another")', "study.matched(domains(), names=('natural', 'medical'))"),
    ("study.stratified(apart(), n=9)", "Ask for fewer strata", "study.stratified(apart(), n_strata=1, n=9)"),
    ("study.stratified(apart(), n=9)", "or choose other samples", "study.stratified(domains(), n=9)"),
    ("edited_model(PLANTED, [Knockout(SITE)])", "a model of interp.load or interp.wrap", "edited_model(mllm, [Knockout(SITE)])"),
    ("pickle.dumps(SweepTask(sweep(), PLANTED))", 'Pass model="an id"', "pickle.dumps(SweepTask(LayerSweep(data=D, model='organism'), PLANTED))"),
    ("pickle.dumps(SweepTask(sweep(), PLANTED))", "or a ModelSpec", "pickle.dumps(SweepTask(LayerSweep(data=D, model=ModelSpec('organism')), PLANTED))"),
    ("truth.inside_of(planted.token_map(PLANTED_ONE), PLANTED_ONE, 'masks')", 'rule="touch" for its boxes', "truth.inside_of(planted.token_map(PLANTED_ONE), PLANTED_ONE, 'touch')"),
    ("truth.inside_of(planted.token_map(PLANTED_ONE), PLANTED_ONE, 'masks')", "sample.replace(masks=[…])", "truth.inside_of(planted.token_map(PLANTED_ONE), PLANTED_ONE.replace(masks=[np.ones((80, 100), bool)]), 'masks')"),
    ("interp.IndicatorComparison(data=[MARKED], model=interp.ModelSpec('x', remote=True))", "Pass randomised=()", "interp.IndicatorComparison(data=[MARKED], model=interp.ModelSpec('x', remote=True), randomised=())"),
    ("interp.IndicatorComparison(data=[MARKED], model=interp.ModelSpec('x', remote=True))", "or a model without remote=True", "interp.IndicatorComparison(data=[MARKED], model=interp.ModelSpec('x'))"),
    ("interp.IndicatorComparison(data=[MARKED], truth=['marker'], rule='masks')", 'rule="touch" for those', "interp.IndicatorComparison(data=[MARKED], truth=['marker'], rule='touch')"),
    ("interp.IndicatorComparison(data=[MARKED], truth=['marker'], rule='masks')", 'truth=["boxes"]', "interp.IndicatorComparison(data=[MARKED], truth=['boxes'], rule='masks')"),
    ("study.look(mllm, one, 'why?')", "sample.replace(question=…, boxes=…)", "study.look(mllm, one.replace(question='why?', boxes=()))"),
    ("study.look(mllm, one, indicator=[])", 'name one: "attention"', "study.look(mllm, one, indicator='attention')"),
    ("study.look(mllm, one, indicator=[])", "Leave indicator= out", "study.look(mllm, one)"),
    ("study.look(mllm, one, indicator=5)", "such as Attention()", "study.look(mllm, one, indicator=Attention())"),
    ("study.look(mllm, one, indicator=Attention(per_head=True))", "Leave it out", "study.look(mllm, one, indicator=Attention())"),
    ("study.look(mllm, one, indicator=['attention', Attention()])", "{'first': …, 'second': …}", "study.look(mllm, one, indicator={'first': Attention(), 'second': Attention()})"),
    ("study.lesion_hits(sweep().run(new_folder(), progress=False))", 'metrics=["pointing", …]', "study.lesion_hits(sweep(data=[planted.sample(i, meta={'lesion': 'a'}, group='v') for i in range(2)], metrics=['pointing', 'ar']).run(new_folder(), progress=False))"),
    ("study.lesion_hits(sweep(metrics=['pointing']).run(new_folder(), progress=False))", 'the same meta["lesion"]', "study.lesion_hits(sweep(data=[planted.sample(i, meta={'lesion': 'a'}, group='v') for i in range(2)], metrics=['pointing']).run(new_folder(), progress=False))"),
    ("sweep().run(new_folder(), progress=False, workers=2)", "or run with workers=1", "sweep().run(new_folder(), progress=False, workers=1)"),
]  # fmt: skip
# a call that fails, words of its message, a call that follows them
ROWS: list[tuple[str, str, str]] = [*RUNS, *STUDIES]

ELSEWHERE: dict[str, str] = {  # the beginning of a message: why no row follows it, or the test that does
    "{…} reads and scores what follows the prompt": "tests/study/reasoning_sweep/test_study.py::test_other_studies_refuse_a_thought",
    'thoughts="given" takes each sample\'s': "tests/study/reasoning_sweep/test_study.py::test_the_page_names_each_sentence",
    "the model was still reasoning after": "tests/study/reasoning_sweep/test_study.py::test_its_own_thoughts_and_those_that_never_end",
    "it is a folder, name a file in it": "a row: the words stand within 'expected to write …'",
    "it is a device, a pipe or a link to itself": "a row: the words stand within 'expected to write …'",
    "the file is write-protected": "a row: the words stand within 'expected to write …'",
    "expected Ray to be installed": "needs a missing package; tests/run/workers/test_ray_cluster.py::test_without_ray_the_extra_is_named",
    "expected to use Ray at": "tests/run/workers/test_ray_cluster.py::test_an_address_without_a_cluster_is_an_error",
    "expected Ray to place a worker": "tests/run/workers/test_ray_cluster.py::test_a_run_waits_for_a_place_and_then_says_what_lacks",
    "expected every worker to have the versions of this process": "tests/run/workers/test_dispatch.py::test_a_worker_of_another_version_is_refused",
    "expected a worker to compute": "tests/run/workers/test_dispatch.py::test_samples_that_kill_every_worker_are_named",
    "expected workers to start, but": "tests/run/workers/test_dispatch.py::test_workers_that_never_start_end_the_run",
    'expected devices="cuda" on a machine with CUDA devices': "tests/run/workers/test_options.py::test_cuda_stands_for_every_visible_device",
    "the lens read no token inside the boxes": "tests/study/logit_lens/test_other_lenses.py::test_a_box_without_a_token_that_was_read_is_a_failure",
    "the sample has no answer to follow. Give it one": "tests/study/logit_lens/test_study.py::test_effects_are_the_lenss_and_those_of_a_knockout_by_name",
    "no heads are published for": "tests/study/refinement/test_result.py::test_heads_and_layer_are_found_on_validation_samples",
    "expected the model to stay as it was when the study started": "tests/study/test_changed_models.py::test_a_model_that_changes_meanwhile_stores_nothing_more",
    "a look shows maps ([layer,] token)": "tests/study/first_look/test_shown_map.py::test_a_layer_that_is_not_there_is_refused",
    "expected the folder of a run or a grid": "tests/test_study_commands.py::test_errors_are_a_line",
    "{…} holds no {…}, so it was not made by `interp run`": "tests/test_study_commands.py::test_a_run_is_kept_and_its_page_made_again",
    "the run at": "tests/test_study_commands.py::test_a_run_is_kept_and_its_page_made_again",
    "--set takes NAME=JSON": "tests/test_study_commands.py::test_errors_are_a_line",
}


@cache
def _root() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="advice-")


def new_folder() -> Path:
    """A new empty folder, which goes when the tests end."""
    return Path(tempfile.mkdtemp(dir=_root().name))


def new_file() -> Path:
    """A file."""
    path = new_folder() / "file"
    path.write_text("text")
    return path


def protected() -> Path:
    """A file that is write-protected."""
    path = new_file()
    path.chmod(0o444)
    return path


def writable(path: Path) -> Path:
    """The file, which may now be written."""
    path.chmod(0o644)
    return path


def image_sample() -> interp.Sample:
    """A sample whose image is a file."""
    path = new_folder() / "image.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    return interp.Sample(path, "where?")


def moved_image(back: bool) -> None:
    """Checks the files of a sample whose image was moved away, and perhaps back."""
    sample = image_sample()
    path, key = Path(str(sample.image)), file_keys(sample)
    path.rename(path.with_name("moved.png"))
    if back:
        path.with_name("moved.png").rename(path)
    check_files(sample, key)


def in_memory() -> None:
    """Checks the files of a sample that has none."""
    sample = interp.Sample(np.zeros((8, 8, 3), np.uint8), "where?")
    check_files(sample, file_keys(sample))


def pipe() -> Path:
    """A link to itself, which no more than a pipe can be written."""
    path = new_folder() / "link"
    path.symlink_to(path)
    return path


def ran(out: Path | None = None, part: tuple[int, int] | None = None, **changes: Any) -> RunFolder:
    """The folder of a run of eight roots, in two shards."""
    return run_task(Roots(**{"n": 8, **changes}), out or new_folder(), progress=False, part=part)


def parts() -> list[Path]:
    """The `out` of both halves of a run."""
    return again([new_folder(), new_folder()])


def again(places: list[Path]) -> list[Path]:
    """The halves, run (again)."""
    for number, one in enumerate(places, 1):
        ran(one, part=(number, 2))
    return places


def merged(places: list[Path]) -> tuple[RunFolder, ...]:
    """The runs in a new folder."""
    return merge(places, new_folder())


def broken(how: str) -> list[Path]:
    """The halves of a run, of which the second is not as it was written."""
    places = parts()
    path = next(places[1].iterdir())
    folder = RunFolder.open(path)
    if how == "headless":
        (path / "study.json").unlink()
    elif how == "plan":
        shutil.rmtree(path)
        ran(places[1], part=(2, 2), moved=True)
    elif how == "shard":
        folder.seal_file(1).unlink()
    elif how == "record":
        record = next(path.glob("sessions/*/manifest.json"))
        record.rename(record.with_name("kept"))
        record.mkdir()
    elif how == "renamed":
        path.rename(path.with_name("roots-0123456789ab"))
    elif how == "no plan":
        (path / "plan.json").unlink()
    elif how == "columns":
        table = pa.table({"index": list(Roots(n=8).plan().indices(1))})
        folder.write_shard(1, dict.fromkeys(("failures", "maps", "scores"), table))
    return places


def readable(places: list[Path]) -> list[Path]:
    """The halves of `broken("record")`, with the record back."""
    for kept in places[1].glob("*/sessions/*/kept"):
        kept.with_name("manifest.json").rmdir()
        kept.rename(kept.with_name("manifest.json"))
    return places


def renamed_back(places: list[Path]) -> list[Path]:
    """The halves of `broken("renamed")`, with the name as it was."""
    next(places[1].iterdir()).rename(places[1] / next(places[0].iterdir()).name)
    return places


def emptied(places: list[Path]) -> list[Path]:
    """The parts, without the folder of the second, which is `broken("headless")`."""
    shutil.rmtree(places[1])
    return places[:1]


def away(folder: RunFolder) -> Path:
    """The `out` of a run that was moved away."""
    folder.path.rename(new_folder() / "moved")
    return folder.path.parent


def edited(folder: RunFolder) -> RunFolder:
    """The run, with a change in its study.json."""
    stored = folder.path / "study.json"
    stored.write_text(json.dumps(json.loads(stored.read_text()) | {"n": 9}))
    return folder


def damaged(folder: RunFolder) -> RunFolder:
    """The run, with half of a table of a shard."""
    table = folder.shard_file(1, "scores")
    table.write_bytes(table.read_bytes()[:-20])
    return folder


def as_of(version: Any) -> RunFolder:
    """A run that another version of the store wrote."""
    folder = ran()
    version(folder.path)
    return folder


class Losing(Roots):
    """Another program deletes the first shard while the second is computed."""

    out: Path | None = None

    def compute(self, indices: tuple[int, ...]) -> Outcome:
        for seal in [] if self.out is None else self.out.glob("*/shards/00000.*"):
            seal.unlink()
        return super().compute(indices)


def lose(out: Path) -> None:
    """Run the study there while another program deletes what it wrote."""
    task = Losing(n=8)
    task.out = out
    run_task(task, out, progress=False)


def lost(out: Path) -> Path:
    """The folder after such a run."""
    with contextlib.suppress(RunError):
        lose(out)
    return out


def made_heads(metric: str, n_heads: int = 8) -> HeadResult:
    """The result of a ranking of so many heads."""
    values = np.random.default_rng(0).random((6, n_heads))
    return planted_heads.made(new_folder(), values, metric=metric)


@dataclass(frozen=True)
class In:
    """A map of one layer whose values are squared in this dtype: 300² is too much for half precision."""

    dtype: str

    def __call__(self, found: Any) -> tuple[Any, Any]:
        array = xr.DataArray(squared(self.dtype, 20)[None], dims=("layer", "token"), coords={"layer": [0]})
        return [array for _ in found], Cost()

    def scores(self, mllm: Any, one: Any, masks: np.ndarray, **options: Any) -> Any:
        """As a removal's."""
        values = squared(self.dtype, len(masks))
        return SimpleNamespace(values=values, plain=float(values[0]), cost=Cost())

    @property
    def name(self) -> str:
        """As a removal's."""
        return self.dtype


def removal(dtype: str) -> Any:
    """Curves of a map by a removal that is computed in a dtype."""
    maps = {"map": np.arange(20.0)}
    return run_removal(In(dtype), None, None, maps, (0.1, 0.5), seed=0, options={})


def layered(**changes: Any) -> Any:
    """A comparison of an indicator of four layers."""
    indicators = {"layered": planted_indicators.Knowing(layers=4, good=2)}
    return planted_indicators.comparison(indicators=indicators, data=planted_indicators.scenes(6), **changes)


@cache
def compared() -> Any:
    """The result of a comparison."""
    few = {"knows": planted_indicators.Knowing(), "off": planted_indicators.Knowing(shift=7)}
    study = planted_indicators.comparison(
        indicators=few, data=planted_indicators.scenes(4), removals=(), erased=(0.1,)
    )
    return study.run(new_folder(), progress=False)


def places(flow: Flow) -> Any:
    """Where a flow goes in a planted sample."""
    one = planted.sample(0)
    return flow.places(planted.token_map(one), one, index=0, n_samples=1, rule="touch", seed=0)


@cache
def _mllm() -> Any:
    return interp.wrap(*tiny("llava"))


@cache
def heads_blocked() -> Any:
    """The result of a knockout sweep over the heads of a tiny model."""
    data = [planted.sample(i) for i in range(2)]
    study = KnockoutSweep(model=_mllm(), data=data, flows=["image→last"], by="head", target="greedy")
    return study.run(new_folder(), progress=False)


def tested(passes: Any) -> Any:
    """A test of one head, chosen elsewhere."""
    own = passes[(passes.layer == 0) & (passes["head"] == 1)]
    return paired_test(own.delta, 0 * own.delta, own.group, n=99)


def to_be_ranked() -> Any:
    """A refinement whose heads are the top of a ranking that has not run."""
    heads = planted_heads.ranking(model=PLANTED).top(2)
    return planted_methods.refinement(model=PLANTED, method=VGRefine(heads=heads))


def labelled(axis: str) -> Any:
    """The cells of a grid with an axis of that name."""
    study = Lengths()
    return list(run_cells(((study.labels | {axis: "x"}, study),), new_folder(), workers=1, progress=False))


def tiny_sweep() -> LayerSweep:
    """A sweep of a tiny model."""
    return LayerSweep(model=_mllm(), data=[planted.sample(0)])


def chosen(n: int) -> tuple[Any, Any]:
    """The result of a sweep of so many samples, and a layer."""
    found = planted.sweep(data=planted.samples(n)).run(new_folder(), progress=False)
    return found, choose_layer(found)


def refined(**axes: Any) -> Any:
    """The result of a refinement over these axes."""
    study = planted_methods.refinement(data=planted.samples(4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp.study.refinement.task.PLAIN", planted_methods.Said())
        return (interp.Grid(study, **axes) if axes else study).run(new_folder(), progress=False)


def lengths() -> Any:
    """The result of a study without a page."""
    return Lengths().run(new_folder(), progress=False)


def apart() -> Any:
    """Two domains, of which one has small boxes only."""
    frame = domains()
    frame.loc[frame.data == "medical", "area"] = 0.001
    return frame


def names() -> dict[str, Any]:
    """What the calls use, beside the names of `tests/test_advice.py`."""
    s = planted.sample(0)
    values = {
        "SCHEMAS": {"scores": schemas_of(Roots(n=8))["scores"]}, "PLANTED_ONE": s, "TOKENIZER": planted.Tokenizer(),
        "PLANTED": PLANTED, "ALIKE": s.replace(answer="left", options=["left", "left lung"]),
        "PAPER_PROMPT": PAPER_PROMPT, "IN_HALF": squared("float16", 6), "IN_FULL": squared("float32", 6),
        "HELD_OUT": planted_indicators.scenes(4, "held out", "validation", start=50),
        "planted": planted, "truth": truth,
        "MARKED": s.replace(meta={"marker": [0, 0, 20, 20]}, masks=[np.ones((80, 100), bool)]),
    }  # fmt: skip
    theirs = (
        as_path, write_atomically, join_tables, answer_columns, first_token,
        head_agreement, one_map, thresholds, SweepTask, newer, older, RunFolder, merge, run_task, Flow, domains, Lengths,
        Workers,
    )  # fmt: skip
    aliases = {"map_of_heads": map_of_heads, "map_of_layers": map_of_layers, "edited_model": edited_model}
    public = {
        name: one
        for name, one in globals().items()
        if getattr(one, "__module__", "") == __name__ and name != "names"
    }
    public |= {one.__name__: one for one in theirs} | aliases | {"pickle": pickle}
    for module in (planted_methods, planted_indicators):
        public |= {name: getattr(module, name) for name in PLANTS if hasattr(module, name)}
    return public | values | {"sweep": planted.sweep}


PLANTS = ("Answering", "Swap", "refinement", "Take", "comparison")
PLANTED = planted_methods.Answering()
