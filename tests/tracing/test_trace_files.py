"""A trace comes back from its file as it was; `.save` of our values is ours, inside an nnsight trace too."""

from __future__ import annotations

from pathlib import Path

import nnsight
import numpy as np
import pytest
import torch
import xarray as xr

import interp
import tests.tiny as tiny
from interp.errors import MapError
from interp.tracing import Mllm

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
