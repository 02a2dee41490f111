"""Benchmarks written for lmms-eval, and the tasks that read them."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import datasets
import pytest

from interp.data import Samples, bundled
from interp.errors import DataError, StudyError
from interp.lmms_eval import task_documents as documents
from interp.lmms_eval.__main__ import main, prepare, run, run_arguments

TASKS = sorted(path.name for path in Path(str(files("interp.lmms_eval") / "tasks")).glob("*.yaml"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two questions: one with options, one without."""
    first, second = bundled("medical", n=2, seed=5)
    lettered = first.replace(question="Which organ?", options=["spleen", "liver"], answer="liver")
    folder = documents.write(Samples([lettered, second], "two"), tmp_path_factory.mktemp("data") / "two")
    return datasets.load_from_disk(str(folder))["test"]


def test_documents_hold_the_papers_prompt_and_the_images(written: Any) -> None:
    first, second = written[0], written[1]
    assert documents.to_text(first).endswith("A. spleen\nB. liver\nAnswer with the option's letter from the given "
                                             "choices directly.")  # fmt: skip
    assert documents.to_text(second).endswith("Answer the question using a single word or phrase.")
    (image,) = documents.to_visual(second)
    assert image.mode == "RGB"
    assert image.size == bundled("medical", n=2, seed=5)[1].sizes[0]
    assert (first["options"], second["options"]) == (["spleen", "liver"], [])
    assert second["modality"] == bundled("medical", n=2, seed=5)[1].meta["modality"]


def test_a_split_has_the_name_it_is_given(tmp_path: Path) -> None:
    folder = documents.write(bundled("medical", n=1), tmp_path / "one", split="mine")
    assert list(datasets.load_from_disk(str(folder))) == ["mine"]


def test_documents_are_marked_by_the_packages_rule(written: Any) -> None:
    doc = {
        name: value for name, value in written[0].items() if name != "images"
    }  # lmms-eval takes images out
    marks = [
        documents.right(doc, [text])["strict"] for text in ("B", "liver", "(b) liver", "A", "the liver", "")
    ]
    assert marks == [1, 1, 1, 0, 0, 0]
    assert documents.to_target(doc) == "liver"
    assert documents.recall(doc, ["liver liver"]) == {"recall": 1.0, "clean_recall": 1.0}
    two = {**doc, "answer": "left lung", "options": []}  # tp = 3 of 3 + 1, and one of two words
    assert documents.recall(two, ["lung lung lung"]) == {"recall": 0.75, "clean_recall": 0.5}


def test_the_first_of_several_answers_is_marked(written: Any) -> None:
    doc = {name: value for name, value in written[0].items() if name != "images"}
    assert [documents.right(doc, two)["strict"] for two in (["B", "A"], ["A", "B"])] == [1, 0]
    assert documents.recall(doc, ["liver", "spleen"])["recall"] == 1
    assert documents.recall(doc, ["spleen", "liver"])["recall"] == 0


def test_what_a_sample_does_not_say_is_empty() -> None:
    sample = bundled("medical", n=1)[0].replace(meta={"subject": "x", "kind": None}, id="own", options=None)
    row = documents._row(sample)
    assert (row["id"], row["modality"], row["subject"], row["kind"]) == ("own", "", "x", "")
    assert (row["question"], row["answer"], row["options"]) == (sample.question, sample.answer, [])


def test_questions_without_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected questions with answers"):
        documents.write(Samples([bundled("medical", n=1)[0].replace(answer=None)], "mute"), tmp_path / "mute")
    some = [bundled("medical", n=1)[0], bundled("medical", n=1)[0].replace(answer=None)]
    with pytest.raises(DataError, match="expected questions with answers"):
        documents.write(some, tmp_path / "some")
    with pytest.raises(DataError, match="expected questions with answers"):
        documents.write([], tmp_path / "none")


def test_without_lmms_eval_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.lmms_eval.__main__.find_spec", lambda _: None)
    with pytest.raises(StudyError, match=r"pip install 'interp\[lmms-eval\]'"):
        run(["--tasks", "mmmu_val"])


@pytest.mark.parametrize("name", TASKS)
def test_tasks_name_functions_and_metrics_that_exist(name: str, written: Any) -> None:
    text = (files("interp.lmms_eval") / "tasks" / name).read_text()
    functions = dict(re.findall(r"(\w+): !function (\S+)", text))
    assert set(functions) == {"doc_to_visual", "doc_to_text", "doc_to_target", "process_results"}
    found = {}
    for key, path in functions.items():
        module, _, function = path.rpartition(".")
        found[key] = getattr(import_module(module), function)
    metrics = re.findall(r"- metric: (\w+)", text)
    assert set(found["process_results"](written[0], ["B"])) == set(metrics)
    assert f"task: {name.removesuffix('.yaml')}\n" in text
    assert f"dataset_path: interp_data/{name.removesuffix('.yaml').removeprefix('interp_')}\n" in text


def test_the_four_sets_that_lmms_eval_lacks_have_tasks() -> None:
    wanted = {f"interp_{name}.yaml" for name in ("vqa_rad", "path_vqa", "pmc_vqa", "omnimedvqa")}
    assert wanted <= set(TASKS)


def test_prepare_writes_where_the_tasks_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(["prepare", "medical", "--n", "2"])
    assert datasets.load_from_disk("interp_data/medical")["test"].num_rows == 2
    with pytest.raises(SystemExit, match=r"usage: python -m interp\.lmms_eval"):
        main([])


def test_open_questions_have_a_folder_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    monkeypatch.setattr(
        "interp.lmms_eval.__main__.named", lambda name, **given: found.append(given) or Samples([], name)
    )
    monkeypatch.setattr(
        "interp.lmms_eval.__main__.write", lambda samples, folder: found.append(folder) or folder
    )
    monkeypatch.setattr("builtins.print", lambda *_: None)
    names = ("path_vqa,questions=open:/a/open", "vqa_rad,closed=answer_type:/b", "slake:/questions=open")
    prepare(names, out=tmp_path, split="all", n=3)
    assert found[::2] == [{"split": "all", "n": 3}] * 3
    assert [folder.name for folder in found[1::2]] == ["path_vqa_open", "vqa_rad", "slake"]


def test_run_names_the_model_and_the_tasks_unless_told() -> None:
    found = run_arguments(["--tasks", "mmmu_val"])
    assert found[:4] == ["--tasks", "mmmu_val", "--model", "interp"]
    assert found[5].endswith("tasks")
    assert run_arguments(["--model=llava", "--include_path", "x"]) == ["--model=llava", "--include_path", "x"]
