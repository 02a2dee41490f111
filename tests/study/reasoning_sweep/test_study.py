"""A reasoning sweep on a tiny model that thinks: against an explicit mask, its failures, and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.data import Samples
from interp.errors import StudyError
from interp.study.dataframes import where
from interp.study.reasoning_sweep.task import SHARES, until
from interp.tracing.reasoning import blind_from, sentences
from tests.tracing.scripted import Script, by_hand, ids, picture, scripted

THOUGHT = "there is a circle . is it red ? yes it is in the left ."
OPEN = interp.Prompt(thinking=True)


@pytest.fixture(scope="module")
def model() -> tuple[interp.Mllm, Script]:
    return scripted("eager")


def _data(*thoughts: object) -> Samples:
    rows = [
        picture(seed=i).replace(id=f"s{i}", meta={} if one is None else {"reasoning": one})
        for i, one in enumerate(thoughts)
    ]
    return Samples(rows, "thoughts")


def test_it_equals_an_explicit_mask(model: tuple[interp.Mllm, Script], tmp_path: Path) -> None:
    mllm, _ = model
    sweep = interp.ReasoningSweep(
        model=mllm, data=_data(THOUGHT), prompt=OPEN, thoughts="given", answer_tokens=3
    )
    result = sweep.run(tmp_path, progress=False)
    row, lines = result.samples.iloc[0], result.cells[0].frame("sentences")
    assert lines.text.tolist()[:3] == ["there is a circle .", "is it red ?", "yes it is in the left ."]
    batch = mllm.encode([picture()], OPEN)
    n, image = batch.tokens[0].length, batch.tokens[0].image.tolist()
    answer = ids(mllm, row.said)
    whole = torch.tensor([*batch.inputs["input_ids"][0].tolist(), *ids(mllm, f"{THOUGHT} </think>"), *answer])
    starts = [n, n + 5, n + 9, n + 16, None]  # the sentences' first tokens, the mark, nothing hidden
    embedded = mllm.embeddings(batch)[0]
    found = [*lines.logprob, row.logprob]
    for start, value in zip(starts, found, strict=True):
        rows = () if start is None else range(start, len(whole))
        hidden = {row: list(image) for row in rows}
        logp = by_hand(mllm, whole, embedded, hidden).log_softmax(-1)
        first = len(whole) - len(answer)
        wanted = sum(float(logp[first + i - 1, one]) for i, one in enumerate(answer))
        assert value == pytest.approx(wanted, abs=1e-4)
    assert np.ptp(found) > 0.01
    assert (row.n_sentences, row.n_reasoning_tokens, row.n_tokens) == (3, 16 + 1, len(image))  # with the mark
    assert lines.sentence.tolist() == [0, 1, 2, 3]
    assert not isinstance(lines.text[3], str)  # the answer alone
    change = where(result.scores, result.scores.measure == "change").set_index("seen").value
    assert change.index.tolist() == list(SHARES)
    np.testing.assert_allclose(change.loc[[0.0, 0.3, 0.7, 1.0]], lines.change, atol=1e-12)


def test_its_own_thoughts_and_those_that_never_end(model: tuple[interp.Mllm, Script], tmp_path: Path) -> None:
    mllm, script = model
    # one generation of the thought, then one of the answer; the second sample never ends its thought
    first, second = ids(mllm, "is the red ? yes . </think> no </s>"), ids(mllm, "is the red ? " * 4)
    script.say([*first, *ids(mllm, "no </s>"), *second])
    sweep = interp.ReasoningSweep(
        model=mllm, data=_data(None, None), prompt=OPEN, max_new_tokens=12, answer_tokens=2
    )
    scored = mllm.score
    try:  # scores are the model's own, and no part of the script
        object.__setattr__(mllm, "score", lambda *a, **k: _without(script, scored, *a, **k))
        result = sweep.run(tmp_path, progress=False, mllm=mllm)
    finally:
        object.__delattr__(mllm, "score")
        script.say()
    assert result.samples[["reasoning", "said"]].values.tolist() == [["is the red ? yes .", "no"]]
    (reason,) = result.failures.reason
    assert "still reasoning after max_new_tokens=12" in reason


def _without(script: Script, call, *args, **kwargs):
    lines, at = script.lines, script.at
    script.lines = ()
    try:
        return call(*args, **kwargs)
    finally:
        script.lines, script.at = lines, at


def test_the_page_names_each_sentence(model: tuple[interp.Mllm, Script], tmp_path: Path) -> None:
    mllm, _ = model
    sweep = interp.ReasoningSweep(
        model=mllm, data=_data(THOUGHT, None), prompt=OPEN, thoughts="given", answer_tokens=1
    )
    result = sweep.run(tmp_path, progress=False)
    page = result.report(tmp_path / "page.html").read_text()
    for text in ("yes it is in the left .", "(the answer alone)", "takes each sample", "s0"):
        assert text in page
    assert set(result.figures()) == {"change"}
    assert "log p of the answer" in str(result.figures()["change"].to_json())


def test_other_studies_refuse_a_thought(model: tuple[interp.Mllm, Script], tmp_path: Path) -> None:
    data = Samples([picture().replace(boxes=[(1, 1, 20, 20)])], "boxed")
    sweep = interp.LayerSweep(model=model[0], data=data, prompt=OPEN)
    with pytest.raises(StudyError, match="thought and not its answer"):
        sweep.run(tmp_path, progress=False)


def test_until_is_the_last_sentence_that_needs_the_image() -> None:
    assert until(np.array([-2.0, 0.05, -1.0, 0.0, 0.0])) == 0.75
    assert until(np.zeros(3)) == 0.0
    assert np.isnan(until(np.array([0.0, 0.0, -0.2])))
    assert until(np.array([0.0, 0.5, 0.0])) == 1.0  # a rise is a change too
    assert until(np.array([0.1, 0.0])) == 1.0  # as is one of the tolerance itself
    assert np.isnan(until(np.array([0.0, np.nan])))


def test_choices_of_no_sense_are_refused() -> None:
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"thoughts": "mine"}, "thoughts is one of own, given; got 'mine'"),
        ({"max_new_tokens": 0}, "max_new_tokens is a whole number ≥ 1; got 0"),
        ({"answer_tokens": 0}, "answer_tokens is a whole number ≥ 1; got 0"),
    )
    for fields, said in refused:
        with pytest.raises(StudyError, match=said):
            interp.ReasoningSweep(data=_data(None), **fields)


def test_sentences_end_where_they_end() -> None:
    text = "A 2.5 cm nodule. Is it benign?\n\nNo! 是的。它 is"
    spans = sentences(text)
    assert [text[a:b] for a, b in spans] == ["A 2.5 cm nodule.", "Is it benign?", "No!", "是的。", "它 is"]


def test_blind_lines_are_the_sentences(model: tuple[interp.Mllm, Script]) -> None:
    mllm, _ = model
    batch = mllm.reasoned([picture()], [THOUGHT], OPEN)
    lines = blind_from(mllm, batch, 0)
    last = lines.tokens[0].length - 1
    firsts = [tokens.spans["blind"][0] for tokens in lines.tokens]
    assert all(tokens.spans["blind"][-1] == last for tokens in lines.tokens)
    words = mllm.processor.tokenizer.convert_ids_to_tokens(batch.inputs["input_ids"][0])
    assert [words[at] for at in firsts] == ["there", "is", "yes", "</think>"]
