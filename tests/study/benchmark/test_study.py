"""Benchmarks on a planted model, whose answers are known, and on small models against what they say themselves."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.conformance.tiny import tiny
from interp.data import Samples, bundled
from interp.errors import StudyError
from interp.inputs.prompt import PAPER_PROMPT
from interp.methods import PAI, Plain, VGRefine
from interp.metrics.scorers import OptionLogProbability, Strict
from interp.study import Benchmark, Grid, HeadRanking, ModelSpec, published_heads
from interp.study.benchmark.task import option_log_probabilities
from interp.study.dataframes import records
from interp.tracing import Decoding, Knockout, Site, load, wrap
from tests.study.benchmark.planted_benchmark import benchmark, divided
from tests.study.planted import sample, samples
from tests.study.planted_methods import Answering, Swap, named

HIDDEN = (Knockout(Site(queries="after_image", keys="image")),)


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(folder.glob("*/*.parquet"))
    assert len(files) > 2
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_accuracy_flips_and_tests_are_those_planted(tmp_path: Path) -> None:
    """12 questions, 5 wrong before; the method turns four of them right and one right one wrong."""
    study = benchmark(model=Answering(wrong=named(0, 1, 2, 3, 4)), method=Swap(changes=named(0, 1, 2, 3, 7)))
    result = study.run(tmp_path, progress=False)
    (own,) = records(result.summary())
    assert (own["measure"], own["n"], own["n_groups"]) == ("strict", 12, 6)
    assert (own["before"], own["after"]) == (pytest.approx(7 / 12), pytest.approx(10 / 12))
    assert (own["wrong_to_right"], own["right_to_wrong"]) == (4, 1)
    assert own["p_flips"] == pytest.approx(2 * (1 + 5) / 2**5)
    assert (own["forwards"], own["tokens"]) == (2.5, 1.5)
    flips = result.flips()
    assert flips["sample"].tolist() == ["s0", "s1", "s2", "s3", "s7"]
    assert flips.flip.tolist() == ["gained"] * 4 + ["lost"]
    assert flips.text_before.tolist() == ["right", "left", "right", "left", "right"]
    assert flips.text_after.tolist() == ["left", "right", "left", "right", "left"]


def test_a_model_alone_answers_each_question_once(tmp_path: Path) -> None:
    model = Answering(wrong=named(3))
    result = benchmark(model=model, method=Plain()).run(tmp_path, progress=False)
    assert [len(found) for found in model.traced] == [1] + [2] * 6  # the warm-up, and each batch once
    (own,) = records(result.summary())
    assert (own["before"], own["after"], own["difference"]) == (11 / 12, 11 / 12, 0)
    assert math.isnan(own["p"])
    assert result.rows().to_dict("list") == {
        "model": ["N", "planted, as it is"],
        "planted": [12, pytest.approx(100 * 11 / 12)],
        "micro": [12, pytest.approx(100 * 11 / 12)],
        "macro": [12, pytest.approx(100 * 11 / 12)],
    }


def test_cells_share_the_plain_answers_and_keep_their_bytes(tmp_path: Path) -> None:
    model = Answering(wrong=named(2))
    methods = {"none": Plain(), "one": Swap(changes=named(0)), "two": Swap(changes=named(0, 5))}
    grid = Grid(benchmark(model=model), method=methods).run(tmp_path / "grid", progress=False)
    assert len([found for found in model.traced if len(found) == 2]) == 6
    for method, cell in zip(methods.values(), grid.cells, strict=True):
        alone = benchmark(model=model, method=method).run(tmp_path / "alone", progress=False)
        assert hashes(cell.folder.path) == hashes(alone.cells[0].folder.path)
    assert grid.cost.forwards.tolist() == [12, 30, 30]
    assert grid.rows()["model"].tolist() == ["N", "planted, as it is", "planted, one", "planted, two"]
    (pair,) = records(grid.compare()[lambda rows: (rows.a == "one") & (rows.b == "two")])
    assert (pair["only_a_right"], pair["only_b_right"], pair["n"]) == (1, 0, 12)


def test_parts_give_the_bytes_of_the_whole(tmp_path: Path) -> None:
    study = benchmark(data=divided(20), method=Swap(changes=named(0, 9)))
    whole = study.run(tmp_path / "whole", progress=False)
    for part in ((1, 2), (2, 2)):
        study.run(tmp_path / "parts", progress=False, part=part)
    parts = study.run(tmp_path / "parts", progress=False)
    assert hashes(parts.cells[0].folder.path) == hashes(whole.cells[0].folder.path)


def test_a_question_that_fails_is_a_row_with_its_reason(tmp_path: Path) -> None:
    result = benchmark(method=Swap(fails=named(3))).run(tmp_path, progress=False)
    assert result.failures[["sample", "error"]].to_numpy().tolist() == [["s3", "ImageTokenMismatch"]]
    assert records(result.summary())[0]["n"] == 11
    assert result.rows().loc[0, "planted"] == 11


def test_questions_without_an_answer_are_not_marked(tmp_path: Path) -> None:
    data = Samples([sample(0, answer=None), sample(1, boxes=[]), sample(2)])
    result = benchmark(data=data).run(tmp_path, progress=False)
    assert result.failures.empty
    (own,) = records(result.summary())
    assert (own["n"], own["n_undefined"]) == (2, 1)
    mute = benchmark(data=Samples([sample(0, answer=None)])).run(tmp_path, progress=False)
    assert mute.summary().empty
    assert mute.rows().to_dict("list")["model"] == ["N"]


def test_edits_change_the_answers_as_a_trace_under_them_does(tmp_path: Path) -> None:
    data = bundled("natural", n=6)
    result = Benchmark(data=data, edits=HIDDEN, max_new_tokens=2, batch=6).run(tmp_path, progress=False)
    mllm = load("organism")
    assert result.samples.text_before.tolist() == mllm.answers(list(data), generate=2)
    assert result.samples.text_after.tolist() == mllm.answers(list(data), edits=HIDDEN, generate=2)
    assert result.samples.text_before.tolist() != result.samples.text_after.tolist()
    assert result.cells[0].labels["method"] == "Knockout"


def test_a_model_that_only_answers_has_its_marks(tmp_path: Path) -> None:
    mllm, data = wrap(*tiny("llava"), adapter="answers_only"), bundled("medical", n=2)
    said = mllm.answers(list(data), generate=2)
    data = Samples([data[0].replace(answer=said[0]), data[1].replace(answer="another answer")], "said")
    result = Benchmark(data=data, model=mllm, max_new_tokens=2).run(tmp_path, progress=False)
    assert result.samples.text_before.tolist() == said
    assert result.summary().before.tolist() == [0.5]
    with pytest.raises(Exception, match="takes no edits"):
        Benchmark(data=data, model=mllm, edits=HIDDEN).run(tmp_path, progress=False)


def test_drawn_answers_depend_on_the_seed_alone(tmp_path: Path) -> None:
    data, mllm = bundled("natural", n=4), wrap(*tiny("llava"))
    study = Benchmark(
        data=data, model=mllm, max_new_tokens=3, decoding=Decoding(temperature=2.0), seed=5, batch=3
    )
    first = study.run(tmp_path / "a", progress=False)
    again = study.replace(batch=2).run(tmp_path / "b", progress=False)
    assert first.samples.text_before.tolist() == again.samples.text_before.tolist()
    expected = mllm.answers(list(data), generate=3, seed=5, decoding=Decoding(temperature=2.0))
    assert first.samples.text_before.tolist() == expected
    assert study.to_dict() != study.replace(seed=6).to_dict()
    greedy = study.replace(decoding=Decoding())
    assert greedy.to_dict() == greedy.replace(seed=6).to_dict()


@pytest.mark.parametrize("edits", [(), HIDDEN], ids=["plain", "hidden"])
def test_options_have_the_log_probabilities_of_their_texts(edits: Any) -> None:
    """One token each, so they are log-softmax values of a trace's logits; the third question has no options."""
    mllm, rule = load("organism"), OptionLogProbability(of="text")
    first, second, third = bundled("medical", n=3, seed=5)
    data = [
        first.replace(options=["left", "right"], answer="left"),
        second.replace(options=["right", "small", "left"], answer="small"),
        third.replace(options=None, answer="large"),
    ]
    found = option_log_probabilities(mllm, data, PAPER_PROMPT, rule, edits)
    logits = mllm.trace(data, prompt=PAPER_PROMPT, edits=edits).logits.values.astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    tokenizer = mllm.processor.tokenizer
    for place, one in enumerate(data[:2]):
        ids = [tokenizer(f" {text}", add_special_tokens=False).input_ids for text in one.options or ()]
        assert len({*map(tuple, ids)}) == len(ids)
        assert {len(own) for own in ids} == {1}
        assert found[place] == pytest.approx([logs[place, own[0]] for own in ids], abs=1e-4)
    assert found[2] is None


def test_a_method_is_scored_under_the_edits_it_repeats(tmp_path: Path) -> None:
    """VGRefine's own edits, for each micro-batch, decide which option is likeliest after it."""
    method, rule = (
        VGRefine(heads=((0, 1), (3, 1)), layers=tuple(range(6)), percentile=90),
        OptionLogProbability(),
    )
    data = Samples(
        [one for one in bundled("medical", n=40, seed=5) if one.answer in ("yes", "no")][:4], "yes or no"
    )
    study = Benchmark(data=data, method=method, scorer=rule, max_new_tokens=1, batch=2)
    result = study.run(tmp_path, progress=False)
    mllm, expected = load("organism"), {}
    for some in (list(data[:2]), list(data[2:])):
        answers = method.answer(mllm, some, max_new_tokens=1)
        logits = mllm.trace(some, edits=method.repeat(mllm, answers)).logits.values
        yes, no = (
            mllm.processor.tokenizer(f" {text}", add_special_tokens=False).input_ids[0]
            for text in ("yes", "no")
        )
        for one, own in zip(some, logits, strict=True):
            expected[one.id] = float((own[yes] > own[no]) == (one.answer == "yes"))
    after = result.scores[result.scores.when == "after"].set_index("sample").value.to_dict()
    assert after == expected
    assert len(expected) == 4


def test_options_need_edits_that_can_be_repeated(tmp_path: Path) -> None:
    study = benchmark(scorer=OptionLogProbability())
    with pytest.raises(
        StudyError, match=r"log-probabilities of options .* Swap has no edits that can be repeated"
    ):
        option_log_probabilities(None, [], study.prompt, *study.scorer, None, "Swap")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edits": HIDDEN}, r"takes method= or edits=.*got both"),
        ({"decoding": Decoding(temperature=1.0)}, r"Swap decodes greedily.*Leave it out"),
        ({"method": Plain(), "edits": "none"}, r"edits is a list of edits.*got 'none'"),
        ({"scorer": ()}, r"scorer is one of interp.metrics.scorers or a list of them"),
        ({"scorer": [Strict(), 5]}, r"scorer is one of interp.metrics.scorers.*got 5"),
        ({"scorer": [Strict(), Strict()]}, r"takes each scorer once.*strict, strict"),
        ({"decoding": 0.5}, r"decoding is an interp.Decoding.*got 0.5"),
        ({"max_new_tokens": 0}, r"max_new_tokens is a whole number ≥ 1"),
        ({"method": 3}, r"method is one of interp.methods"),
        ({"data": Samples([])}, r"hold no sample"),
    ],
)
def test_fields_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        benchmark(**changes)


def test_methods_and_scorers_are_taken_by_name() -> None:
    study = benchmark(method="pai", scorer=["strict", OptionLogProbability()])
    assert (study.method, study.scorer) == (PAI(), (Strict(), OptionLogProbability()))
    grid = Grid(benchmark(), method=["PAI", "Plain"])
    assert [(labels["method"], cell.method) for labels, cell in grid.studies] == [
        ("PAI", PAI()),
        ("Plain", Plain()),
    ]
    published = ModelSpec("FreedomIntelligence/HuatuoGPT-Vision-7B")
    refined = benchmark(method="vg-refine", model=published).method
    assert refined == VGRefine(heads=published_heads("huatuogpt-vision-7b"), layers=[16])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "VGRefine"}, "VGRefine needs heads of the model, and none are published for"),
        ({"method": "PIA"}, r"Did you mean 'PAI'\? Or pass a method, such as PAI\(\)"),
        ({"method": "ScalingVis"}, r"ScalingVis needs a weight, such as ScalingVis\(1.2\)"),
        ({"scorer": "strikt"}, r"Did you mean 'strict'\?"),
    ],
)
def test_names_that_say_too_little_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        benchmark(**changes)


def test_heads_of_another_model_are_refused() -> None:
    heads = HeadRanking(data=samples(4), model="another").top(1)
    with pytest.raises(StudyError, match="ranked on the model that uses them"):
        benchmark(model="organism", method=Swap(heads=heads))
    assert benchmark(method=PAI()).changes
