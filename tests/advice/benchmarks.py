# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of benchmarks: their readers, questions made from labels, scorers, and lmms-eval's model."""

from __future__ import annotations

import json
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import interp
from interp.data.benchmarks.catalogue import benchmark_source
from interp.lmms_eval.method_arguments import method_of
from interp.lmms_eval.task_documents import write
from interp.metrics.scorers import BertScore, scorer_named
from interp.study import ModelSpec
from interp.study.benchmark.model_rows import ModelRow, question_sets, run_rows
from tests.data import source_files as files
from tests.data.benchmarks import layouts

READERS: list[tuple[str, str, str]] = [
    ("bm.benchmark_source('slake:')", "write slake:FOLDER", "bm.benchmark_source('slake:Slake1.0').place"),
    ("bm.benchmark_source('pmc_vqa,year=2023:PMC-VQA')", "Write pmc_vqa,OPTION=VALUE:FOLDER with one of questions, version", "bm.benchmark_source('pmc_vqa,version=2:PMC-VQA').options"),
    ("data.pmc_vqa(bm.pmc_vqa(), questions='open')", "Use questions='closed'", "data.pmc_vqa(bm.pmc_vqa(), questions='closed')"),
    ("data.omnimedvqa(bm.omnimedvqa() / 'Images')", "Give the folder OmniMedVQA that the archive unpacks to", "data.omnimedvqa(bm.omnimedvqa())"),
    ("data.path_vqa(bm.pickled())", "Give the folder of the parquet files of flaviagiammarino/path-vqa", "data.path_vqa(bm.on_hub())"),
    ("data.pmc_vqa(bm.pmc_vqa('packed'))", "Unpack images.zip", "data.pmc_vqa(bm.unpacked(bm.pmc_vqa('packed')))"),
    ("data.pmc_vqa(bm.pmc_vqa('elsewhere'))", "or pass images=", "data.pmc_vqa(bm.pmc_vqa('elsewhere'), images=bm.pmc_vqa('elsewhere') / 'elsewhere')"),
    ("data.path_vqa(bm.on_hub(), split='validation')", "Give the folder of flaviagiammarino/path-vqa as the hub has it", "data.path_vqa(bm.on_hub('validation'), split='validation')"),
    ("data.path_vqa(None)", "is read from a folder", "data.path_vqa(bm.on_hub())"),
    ("data.vqa_rad(bm.on_hub(), closed='answer_type')", "Use closed='yes_no'", "data.vqa_rad(bm.on_hub(), closed='yes_no')"),
    ("data.vqa_rad(bm.on_hub(), closed='answer_type')", "or give the folder of 'VQA_RAD Dataset Public.json'", "data.vqa_rad(bm.by_authors(), closed='answer_type')"),
    ("data.slake(bm.slake(), split='all')", "Take one that is there, split='test'", "data.slake(bm.slake(), split='test')"),
    ("data.slake(bm.slake(), split='all')", "or fetch the rest", "data.slake(bm.slake('train', 'validation'), split='all')"),
]  # fmt: skip
QUESTIONS: list[tuple[str, str, str]] = [
    ("data.presence_questions(bm.labelled('liver', 'liver'))", "or with more labels", "data.presence_questions(bm.labelled('liver', 'spleen'))"),
    ("data.presence_questions(bm.labelled('liver'))", "Give samples of more pictures", "data.presence_questions(bm.labelled('liver', 'spleen'))"),
    ("data.presence_questions([one])", "interp.data.coco_instances gives them", "data.presence_questions(bm.read_coco())"),
    ("data.question_counts([5])", "such as interp.data.vqa_rad gives", "data.question_counts(data.vqa_rad(bm.by_authors()))"),
]  # fmt: skip
SCORERS: list[tuple[str, str, str]] = [
    ("bm.BertScore(model=5)", "such as 'roberta-large'", "bm.BertScore(model='roberta-large')"),
    ("bm.BertScore(model='someone/encoder').scores(['left'], [bm.asked('left')], interp.PAPER_PROMPT)", "give num_layers", "bm.BertScore(model='someone/encoder', num_layers=6).to_dict()"),
    ("bm.BertScore(model=bm.encoder(), num_layers=2).scores(['left'], [bm.asked('left')], interp.PAPER_PROMPT)", "Use an encoder that transformers knows, such as roberta-large", "bm.BertScore(model='roberta-large').to_dict()"),
    ("bm.BertScore(model=bm.encoder())", "such as num_layers=17 for roberta-large", "bm.BertScore(model=bm.encoder(), num_layers=17)"),
    ("bm.scorer_named('strict').scores(['left'], [bm.asked('left')], None)", "such as interp.PAPER_PROMPT", "bm.scorer_named('strict').scores(['left'], [bm.asked('left')], interp.PAPER_PROMPT)"),
    ("bm.scorer_named('exact')", "the scorers by name are strict", "bm.scorer_named('strict')"),
]  # fmt: skip
STUDIES: list[tuple[str, str, str]] = [
    ("interp.Benchmark(data=D, edits=['x'])", "such as [interp.Knockout(interp.Site(keys='image'))]", "interp.Benchmark(data=D, edits=[interp.Knockout(interp.Site(keys='image'))])"),
    ("interp.Benchmark(data=D, scorer=5)", "such as Strict()", "interp.Benchmark(data=D, scorer=interp.metrics.scorers.Strict())"),
    ("interp.Benchmark(data=D, scorer=[bm.scorer_named('strict')] * 2)", "takes each scorer once", "interp.Benchmark(data=D, scorer=[bm.scorer_named('strict'), bm.scorer_named('huatuo')])"),
    ("interp.Benchmark(data=D, decoding='greedy')", "such as Decoding(temperature=0.7)", "interp.Benchmark(data=D, decoding=Decoding(temperature=0.7))"),
    ("interp.Benchmark(data=D, method=PAI(), edits=[interp.Knockout(SITE)])", "Give one", "[interp.Benchmark(data=D, method=PAI()), interp.Benchmark(data=D, edits=[interp.Knockout(SITE)])]"),
    ("interp.Benchmark(data=D, method=PAI(), decoding=Decoding(1.0))", "Leave it out", "interp.Benchmark(data=D, method=PAI())"),
    ("bm.benched().by(5)", 'such as "modality"', "bm.benched().by('modality')"),
    ("bm.benched().by('organ')", "Fields that benchmarks' readers give are benchmark, modality", "bm.benched().by('modality')"),
    ("bm.benched().report(beside='1')", 'such as ["1"]', "bm.benched().report('page.html', beside=['1'])"),
    ("bm.run_rows([], {'a': D})", "Give a ModelRow", "bm.run_rows([bm.ModelRow(bm.ModelSpec('organism'), {'plain': methods.Plain()})], {'a': bm.scenes()}, out='runs', max_new_tokens=1)"),
    ("bm.run_rows([bm.ModelRow(bm.ModelSpec('organism'), {'plain': methods.Plain()})], {})", "Give data={label: samples}", "bm.run_rows([bm.ModelRow(bm.ModelSpec('organism'), {'plain': methods.Plain()})], {'a': bm.scenes()}, out='runs', max_new_tokens=1)"),
    ("bm.question_sets([str(bm.rows('a')), str(bm.rows('a'))], ['test'])", "rename a file", "bm.question_sets([str(bm.rows('a')), str(bm.rows('b'))], ['test'])"),
    ("bm.question_sets([str(bm.rows('a')), str(bm.rows('a'))], ['test'])", "or leave one out", "bm.question_sets([str(bm.rows('a'))], ['test'])"),
]  # fmt: skip
LMMS_EVAL: list[tuple[str, str, str]] = [
    ("bm.method('pai', adapter='answers_only')", "Leave it out", "bm.method('plain', adapter='answers_only')"),
    ("bm.method('pai', heads='1-2')", "are for method=vgrefine", "bm.method('vgrefine', heads='1-2', layers='1')"),
    ("bm.method('vgrefine', heads='1-2')", "such as layers=16", "bm.method('vgrefine', heads='1-2', layers='16')"),
    ("bm.method('vgrefine', heads='12', layers='1')", "such as heads=15-4+16-5", "bm.method('vgrefine', heads='15-4+16-5', layers='1')"),
    ("bm.write([bm.asked(None)], 'folder')", "Choose a split that has them", "bm.write(bm.scenes(), 'folder')"),
]  # fmt: skip
# a call that fails, words of its message, a call that follows them
ROWS: list[tuple[str, str, str]] = [*READERS, *QUESTIONS, *SCORERS, *STUDIES, *LMMS_EVAL]

ELSEWHERE: dict[str, str] = {  # the beginning of a message: why no row follows it, or the test that does
    "Figure_path no file": "rows follow it, but the message stands inside one that names file and line",
    "this needs lmms-eval": "nothing is installed in a test; tests/lmms_eval/test_task_documents.py::test_without_lmms_eval_the_error_names_the_extra",
    "the model interp generates answers. For": "needs lmms-eval's base class; tests/lmms_eval/test_lmms_model.py::test_what_it_cannot_do_is_refused",
    "the model interp answers one question": "needs lmms-eval's base class; tests/lmms_eval/test_lmms_model.py::test_what_it_cannot_do_is_refused",
    "the model interp answers questions on images": "needs lmms-eval's base class; tests/lmms_eval/test_lmms_model.py::test_what_it_cannot_do_is_refused",
    "{…} needs the library {…}; install it with: pip install 'interp[eval]'": "nothing is installed in a test; tests/metrics/scorers/test_open_answers.py::test_a_missing_extra_says_which",
}

YES = ("Is it there?", "yes")


def names() -> dict[str, Any]:
    """What the rows use."""
    return {"bm": sys.modules[__name__]}


def new() -> Path:
    """A new folder."""
    return Path(tempfile.mkdtemp())


def pmc_vqa(images: str = "images") -> Path:
    """A folder of PMC-VQA whose figures lie in this folder."""
    return layouts.pmc_vqa_folder(new(), layouts.pmc_vqa_row(), images=images)


def unpacked(folder: Path) -> Path:
    """The folder, with its figures where the archive unpacks them."""
    (folder / "packed").rename(folder / "images")
    return folder


@cache
def omnimedvqa() -> Path:
    """A folder of OmniMedVQA."""
    return layouts.omnimedvqa_folder(new(), layouts.omnimedvqa_row())


def pickled() -> Path:
    """A folder of PathVQA's first release."""
    folder = new()
    (folder / "qas").mkdir()
    (folder / "qas" / "test_vqa.pkl").write_bytes(b"")
    return folder


def on_hub(split: str = "test") -> Path:
    """A folder of one split as the hub has it."""
    return layouts.hub_folder(new(), **{split: [YES]})


def by_authors() -> Path:
    """A folder of VQA-RAD as its authors wrote it."""
    return layouts.vqa_rad_folder(new(), layouts.vqa_rad_row(1, *YES))


def slake(*more: str) -> Path:
    """SLAKE's test split, and more of its splits."""
    folder = files.slake_folder(new(), files.slake_row())
    (test,) = folder.glob("*.json")
    for split in more:
        (folder / f"{split}.json").write_text(test.read_text())
    return folder


def read_coco() -> Any:
    """Two labels on two images in COCO's layout."""
    things = [files.thing(1, [1, 1, 4, 4]), files.thing(2, [2, 2, 3, 3], category=22, image_id=2)]
    path = files.coco_file(new(), things)
    files.image(path.parents[1] / "val2017/000000000002.jpg", level=20)
    return interp.data.coco_instances(path, path.parents[1] / "val2017")


def labelled(*labels: str) -> list[interp.Sample]:
    """A picture with a box for each label."""
    return [
        interp.Sample(files.image(new() / "a.png", level=20 * i), "?", boxes=[(1, 2, 7, 8)], meta={"label": label})
        for i, label in enumerate(labels, 1)
    ]  # fmt: skip


@cache
def encoder() -> str:
    """The folder of an encoder that is code of its own."""
    folder = new()
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "own.Model"}}))
    return str(folder)


def asked(answer: str | None) -> interp.Sample:
    """A sample with an answer."""
    return interp.Sample(files.image(new() / "a.png"), "where?", answer=answer)


@cache
def scenes() -> Any:
    """Two samples of the bundled data."""
    return interp.data.bundled("natural", n=2)


@cache
def benched() -> Any:
    """The result of a benchmark with a field to divide by."""
    own = [one.replace(meta={"modality": f"{i}"}) for i, one in enumerate(scenes())]
    return interp.Benchmark(data=own, max_new_tokens=1).run(new(), progress=False)


def rows(name: str) -> Path:
    """A table of one question, in a folder of its own."""
    path = new() / f"{name}.jsonl"
    image = files.image(path.parent / "a.png")
    path.write_text(json.dumps({"image": str(image), "question": "?", "answer": "yes", "split": "test"}))
    return path


def method(name: str, heads: str = "", layers: str = "", adapter: str | None = None) -> Any:
    """The method that lmms-eval's words name."""
    spec = ModelSpec("organism", adapter=adapter)
    return method_of(name, spec, None, heads=heads, layers=layers, choose_on="natural", n=2, out="runs")


__all__ = ["BertScore", "ModelRow", "benchmark_source", "question_sets", "run_rows", "scorer_named", "write"]  # fmt: skip
