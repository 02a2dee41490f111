"""A trace comes back from its file as it was; `.save` of our values is ours, inside an nnsight trace too."""

from __future__ import annotations

import re
from pathlib import Path

import nnsight
import numpy as np
import pytest
import torch
import xarray as xr

import interp
import tests.tiny as tiny
from interp.errors import MapError
from interp.inputs.tokens import TokenMap
from interp.tracing import Mllm, SampleTrace

READS = [
    interp.Rows(interp.Site(layers=[0, 1], queries="last", keys="image")),
    interp.Rows(interp.Site(heads=[(1, 0), (0, 1)], queries="last")),
    interp.Residual(layers=[1], positions="last"),
]


@pytest.fixture(scope="module")
def trace(mllm: Mllm) -> interp.Trace:
    return mllm.trace(tiny.samples()[:2], reads=READS, generate=2)


def test_a_trace_comes_back_from_its_file(trace: interp.Trace, tmp_path: Path) -> None:
    found = interp.load_trace(trace.save(tmp_path / "t.safetensors"))
    assert found.answers == trace.answers
    assert found.cost == trace.cost
    xr.testing.assert_identical(found.logits, trace.logits)
    for one, other in zip(found, trace, strict=True):
        assert (one.answer, one.ids, one.n_reasoning) == (other.answer, other.ids, other.n_reasoning)
        for read, original in zip(one.reads, other.reads, strict=True):
            xr.testing.assert_identical(read, original)
        np.testing.assert_array_equal(one.tokens.image, other.tokens.image)
        assert one.tokens.words == other.tokens.words
        np.testing.assert_array_equal(one.tokens.positions("question"), other.tokens.positions("question"))


def test_patches_of_a_vision_tower_come_back(mllm: Mllm, tmp_path: Path) -> None:
    read = interp.Rows(interp.Site(tower="vision", layers=[0], queries="cls", keys="patches"))
    trace = mllm.trace(tiny.samples()[:1], reads=[read])
    (found,) = interp.load_trace(trace.save(tmp_path / "t.safetensors"))
    patches, original = found.patches, trace[0].patches
    assert patches is not None
    assert original is not None
    assert repr(patches) == repr(original)
    np.testing.assert_array_equal(patches.labels, original.labels)
    np.testing.assert_array_equal(patches.weights.matrix(), original.weights.matrix())


def test_a_trace_says_what_it_is_in_a_few_lines(trace: interp.Trace) -> None:
    head, *lines = repr(trace).splitlines()
    assert head == "Trace of 2 samples"
    reads = [f"[0].reads[{j}]" for j in range(3)]
    assert [line.split()[0] for line in lines] == [*reads, "answers", "logits", "cost"]
    assert "attention (step" in lines[0]
    assert len(repr(trace)) < 1000
    assert repr(trace[0]).startswith(f"SampleTrace({trace.tokens[0].length} tokens, answer ")
    shown = trace._repr_html_()
    assert shown.count("<tr>") == 1 + 2 + len(lines)


def test_save_is_ours_outside_and_inside_an_nnsight_trace(
    mllm: Mllm, trace: interp.Trace, tmp_path: Path
) -> None:
    with pytest.raises(
        MapError, match=r"got no path. Write .save\(\"trace.safetensors\"\).* nnsight.save\(value\)"
    ):
        trace.save()
    batch, path = mllm.encode(tiny.samples()[:1]), tmp_path / "inside.safetensors"
    with torch.no_grad(), mllm.nn.trace(**batch.inputs):
        written = nnsight.save(trace.save(path))
        kept = nnsight.save(trace)
    assert written == path
    assert kept is trace
    assert interp.load_trace(path).answers == trace.answers
    with pytest.raises(Exception, match="got no path"), mllm.nn.trace(**batch.inputs):
        trace.save()


def made(answers: list[str | None], cost: interp.tracing.Cost) -> interp.Trace:
    """A trace by hand, of a prompt of five tokens, two of them of the image."""
    nan = np.full((2, 4), np.nan)
    tokens = TokenMap(np.array([1, 2]), nan, None, np.full(2, ""), np.zeros(2, int), ((8, 8),), 5)
    logits = xr.DataArray(
        np.arange(4.0 * len(answers)).reshape(-1, 4), dims=["sample", "token_id"], name="logits"
    )
    samples = tuple(SampleTrace((), tokens, one, (7,), None, "because", 1) for one in answers)
    return interp.Trace(samples, logits, answers, (tokens,) * len(answers), cost)


def test_a_page_shows_the_first_samples_and_counts_the_rest() -> None:
    trace = made([None, "<b>", *["yes"] * 19], interp.tracing.Cost(1.5, 0, 3, 2, 40))
    shown = trace._repr_html_()
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", shown)]
    samples = [row for row in cells if len(row) == 4]
    assert samples[:2] == [["0", "5", "2", "–"], ["1", "5", "2", "&lt;b&gt;"]]
    assert len(samples) == 20
    assert "and 1 more<" in shown
    assert "<div>and" not in made(["yes"] * 20, interp.tracing.Cost())._repr_html_()
    assert "1.5 s, 3 forwards, 2 backwards, 40 token positions" in shown


def test_a_line_names_the_first_values_and_answers() -> None:
    few, many = (repr(made(["yes"] * n, interp.tracing.Cost())) for n in (1, 6))
    assert few.startswith("Trace of 1 sample\n")
    assert "logits (sample 1, token_id 4): 0, 1, 2, 3\n" in few
    assert "logits (sample 6, token_id 4): 0, 1, 2, 3, …\n" in many
    assert "more" not in few
    assert ", and 2 more" in many
    assert "0 s, 0 forwards, 0 token positions" in few


def test_a_thought_comes_back_from_its_file(tmp_path: Path) -> None:
    trace = made(["yes", None], interp.tracing.Cost())
    found = interp.load_trace(trace.save(tmp_path / "t.safetensors"))
    assert [(one.answer, one.reasoning, one.n_reasoning, one.ids) for one in found] == [
        ("yes", "because", 1, (7,)),
        (None, "because", 1, (7,)),
    ]
    assert [one.patches for one in found] == [None, None]
